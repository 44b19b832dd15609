//! `backoff_override`: how calls and waits are repeated.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Remark;
use super::check::{Bad, bad};
use super::keys::nearest_of;
use super::scalar::{Scalar, hundredths};

/// What is repeated: the keys of `backoff_override`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackoffKey {
    /// `default`.
    Default,
    /// `eni_create`.
    EniCreate,
    /// `eni_ops`.
    EniOps,
    /// `eni_release`.
    EniRelease,
    /// `eni_delete_confirm`.
    EniDeleteConfirm,
    /// `eni_ip_ops`.
    EniIpOps,
    /// `wait_eni_ip_removed`.
    WaitEniIpRemoved,
    /// `wait_eni_status`.
    WaitEniStatus,
    /// `wait_member_eni_status`.
    WaitMemberEniStatus,
    /// `wait_leni_status`.
    WaitLeniStatus,
    /// `wait_hdeni_status`.
    WaitHdeniStatus,
    /// `wait_ecs_leni_status`.
    WaitEcsLeniStatus,
    /// `wait_ecs_hdeni_status`.
    WaitEcsHdeniStatus,
    /// `wait_podeni_status`.
    WaitPodEniStatus,
    /// `wait_networkinterface_status`.
    WaitNetworkInterfaceStatus,
    /// `meta_assign_private_ip`.
    MetaAssignPrivateIp,
    /// `meta_unassign_private_ip`.
    MetaUnassignPrivateIp,
    /// `wait_sts_token_ready`.
    WaitStsTokenReady,
    /// `wait_node_status`.
    WaitNodeStatus,
}

/// How one thing is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// `InitialDelay`: before the first try.
    pub initial_delay: Duration,
    /// `Duration`: the first pause, more than nothing.
    pub duration: Duration,
    /// `Factor`: what each further pause is of the one before it, in hundredths; 0 like 100.
    pub factor_percent: u32,
    /// `Jitter`: by how many hundredths a pause may be longer.
    pub jitter_percent: u32,
    /// `Steps`: after so many tries a pause does not grow any more; 1 or more.
    pub steps: u32,
    /// `Cap`: the longest pause.
    pub cap: Option<Duration>,
}

impl BackoffKey {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Default,
        Self::EniCreate,
        Self::EniOps,
        Self::EniRelease,
        Self::EniDeleteConfirm,
        Self::EniIpOps,
        Self::WaitEniIpRemoved,
        Self::WaitEniStatus,
        Self::WaitMemberEniStatus,
        Self::WaitLeniStatus,
        Self::WaitHdeniStatus,
        Self::WaitEcsLeniStatus,
        Self::WaitEcsHdeniStatus,
        Self::WaitPodEniStatus,
        Self::WaitNetworkInterfaceStatus,
        Self::MetaAssignPrivateIp,
        Self::MetaUnassignPrivateIp,
        Self::WaitStsTokenReady,
        Self::WaitNodeStatus,
    ];

    /// Those that decide something here.
    const USED: [Self; 6] = [
        Self::EniCreate,
        Self::EniOps,
        Self::EniRelease,
        Self::EniIpOps,
        Self::WaitEniStatus,
        Self::WaitMemberEniStatus,
    ];

    /// As in `backoff_override`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What the reference does without an override.
    pub const fn reference(self) -> Backoff {
        self.row().1
    }

    const fn row(self) -> (&'static str, Backoff) {
        match self {
            Self::Default => ("default", of(0, 2000, 150, 30, 6)),
            Self::EniCreate => ("eni_create", of(0, 10_000, 200, 30, 2)),
            Self::EniOps => ("eni_ops", of(0, 5000, 200, 30, 6)),
            Self::EniRelease => ("eni_release", of(0, 4000, 200, 50, 8)),
            Self::EniDeleteConfirm => (
                "eni_delete_confirm",
                Backoff { cap: Some(Duration::from_secs(4)), ..of(1000, 2000, 150, 0, 4) },
            ),
            Self::EniIpOps => ("eni_ip_ops", of(0, 5000, 100, 130, 6)),
            Self::WaitEniIpRemoved => ("wait_eni_ip_removed", of(1000, 2000, 150, 50, 4)),
            Self::WaitEniStatus => ("wait_eni_status", of(3000, 3000, 150, 50, 8)),
            Self::WaitMemberEniStatus => ("wait_member_eni_status", of(2000, 1000, 150, 50, 8)),
            Self::WaitLeniStatus => ("wait_leni_status", of(18_000, 5000, 150, 50, 8)),
            Self::WaitHdeniStatus => ("wait_hdeni_status", of(18_000, 5000, 150, 50, 8)),
            Self::WaitEcsLeniStatus => ("wait_ecs_leni_status", of(4000, 3000, 150, 50, 8)),
            Self::WaitEcsHdeniStatus => ("wait_ecs_hdeni_status", of(4000, 3000, 150, 50, 8)),
            Self::WaitPodEniStatus => ("wait_podeni_status", of(2000, 1000, 100, 30, 100)),
            Self::WaitNetworkInterfaceStatus => {
                ("wait_networkinterface_status", of(2000, 1000, 100, 30, 120))
            }
            Self::MetaAssignPrivateIp => ("meta_assign_private_ip", of(0, 1100, 100, 20, 10)),
            Self::MetaUnassignPrivateIp => ("meta_unassign_private_ip", of(0, 1100, 100, 20, 10)),
            Self::WaitStsTokenReady => ("wait_sts_token_ready", of(0, 1000, 100, 20, 60)),
            Self::WaitNodeStatus => ("wait_node_status", of(0, 1000, 100, 30, 90)),
        }
    }

    /// Whether it decides something here.
    pub fn is_used(self) -> bool {
        Self::USED.contains(&self)
    }

    /// The names of those that decide something here.
    pub(super) fn used() -> Vec<&'static str> {
        Self::USED.into_iter().map(Self::name).collect()
    }
}

impl fmt::Display for BackoffKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const fn of(
    initial_millis: u64,
    millis: u64,
    factor_percent: u32,
    jitter_percent: u32,
    steps: u32,
) -> Backoff {
    Backoff {
        initial_delay: Duration::from_millis(initial_millis),
        duration: Duration::from_millis(millis),
        factor_percent,
        jitter_percent,
        steps,
        cap: None,
    }
}

/// One entry as it stands in JSON; its fields are read in any case, as Go does.
pub(super) type RawBackoff = BTreeMap<String, Scalar>;

const FIELDS: [&str; 6] = ["InitialDelay", "Duration", "Factor", "Jitter", "Steps", "Cap"];

pub(super) fn overrides(
    raw: BTreeMap<String, RawBackoff>,
    remarks: &mut Vec<Remark>,
) -> Result<BTreeMap<BackoffKey, Backoff>, Bad> {
    let mut found = BTreeMap::new();
    for (name, fields) in raw {
        let path = format!("backoff_override.{name}");
        let Some(key) = BackoffKey::ALL.into_iter().find(|key| key.name() == name) else {
            let names = BackoffKey::ALL.map(BackoffKey::name);
            remarks.push(Remark::Unknown { key: path, nearest: nearest_of(&name, names) });
            continue;
        };
        if !key.is_used() {
            let why =
                format!("of these only {} decide something here", BackoffKey::used().join(", "));
            remarks.push(Remark::NoEffect { key: path.clone(), why });
        }
        found.insert(key, one(&path, fields, key.reference(), remarks)?);
    }
    Ok(found)
}

/// A field that is absent is the reference's.
fn one(
    path: &str,
    fields: RawBackoff,
    mut backoff: Backoff,
    remarks: &mut Vec<Remark>,
) -> Result<Backoff, Bad> {
    for (field, value) in fields {
        let path = format!("{path}.{field}");
        let wrong = |rule: &str| bad(path.clone(), format!("{value} {rule}"));
        let known = FIELDS.into_iter().find(|known| known.eq_ignore_ascii_case(&field));
        match known {
            Some("InitialDelay") => backoff.initial_delay = span(&value).map_err(&wrong)?,
            Some("Duration") => {
                backoff.duration = span(&value).map_err(&wrong)?;
                if backoff.duration.is_zero() {
                    return Err(wrong("must be more than nothing"));
                }
            }
            Some("Factor") => backoff.factor_percent = share(&value).map_err(&wrong)?,
            Some("Jitter") => backoff.jitter_percent = share(&value).map_err(&wrong)?,
            Some("Steps") => {
                let steps = value.bits().ok().filter(|steps| *steps > 0);
                backoff.steps = steps.ok_or_else(|| wrong("is no number of 1 or more"))?;
            }
            Some("Cap") => {
                let cap = span(&value).map_err(&wrong)?;
                backoff.cap = (!cap.is_zero()).then_some(cap);
            }
            _ => remarks.push(Remark::Unknown { nearest: nearest_of(&field, FIELDS), key: path }),
        }
    }
    Ok(backoff)
}

/// Go writes a duration as nanoseconds; people write `2s`.
fn span(value: &Scalar) -> Result<Duration, &'static str> {
    let rule = "is not a duration: write a text like \"2s\", or whole nanoseconds";
    match value {
        Scalar::Whole(nanos) => {
            u64::try_from(*nanos).map(Duration::from_nanos).map_err(|_neg| rule)
        }
        Scalar::Float(_) => Err(rule),
        Scalar::Text(text) => crds::duration::parse(text).map_err(|_not_one| rule),
    }
}

/// 0 to 100 times.
fn share(value: &Scalar) -> Result<u32, &'static str> {
    let number = value.number().and_then(hundredths);
    number.filter(|percent| *percent <= 10_000).ok_or("is no number of 0 to 100")
}
