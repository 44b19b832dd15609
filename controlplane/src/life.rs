//! The life of one ENI as a function: from its record and from what was observed of it follows
//! what to do next.

use std::net::Ipv6Addr;
use std::time::Duration;

use cloud::{CloudError, EniStatus, Meaning};
use model::{EniId, InstanceId, IpPair};

use crate::call::{CallError, Verb};
use crate::eni::{Binding, Eni, Goal, Kind, Stage};
use crate::pace::Pace;

/// What was observed of an ENI since the process started. A restart forgets it, and the life goes
/// on from the record alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Whether a call is in flight: then its answer is waited for.
    pub busy: bool,
    /// What is known of the call that makes it.
    pub create: Creation,
    /// When it was last sent without an answer.
    pub unanswered: Option<Duration>,
    /// The cloud's newest word.
    pub seen: Option<Seen>,
    /// Since when every look found nothing.
    pub absent_since: Option<Duration>,
    /// The last change that the cloud said it took, and when it said so.
    pub changed: Option<(Verb, Duration)>,
    /// No call before this.
    pub not_before: Duration,
    /// Calls that failed since the last that did not.
    pub tries: u32,
    /// Looks since the last change.
    pub looks: u32,
    /// Why the last call failed; it is tried again.
    pub trouble: Option<CallError>,
}

/// What is known of the call that makes an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It was never sent.
    Unsent,
    /// It may have been sent: look for the ENI by its token.
    Lost,
    /// It may have been sent, and a look found nothing: send it again, with the same token.
    Repeat,
    /// The token is of no use to the cloud: look once more, then it is refused.
    Mismatch,
    /// The cloud said no, but an earlier attempt was never answered and may still take effect:
    /// look again when it no longer can.
    Doubt,
    /// The cloud said no: there is no such ENI.
    Refused,
}

/// One look at an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When the question was asked.
    pub at: Duration,
    /// The answer; `None` is "no such ENI", which may be old news.
    pub eni: Option<cloud::Eni>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing before this time; `None`: until something is observed or asked for.
    Wait(Option<Duration>),
    /// Look for it by its token.
    Find,
    /// Make it.
    Create,
    /// Look at it.
    Describe(EniId),
    /// Change it.
    Change(Verb, EniId),
    /// It is attached: write that down.
    Bind(Binding),
    /// It will not become what it should: let it go.
    Fail(Failure),
    /// It is gone, or somebody else's: remove the record.
    Forget,
}

/// Why an ENI will not become what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The cloud refused for good.
    #[error(transparent)]
    Cloud(CloudError),
    /// It was attached to a trunk without a VLAN id.
    #[error(
        "member ENI {eni} is attached to trunk {trunk} without a usable VLAN id (DeviceIndex {device_index:?})"
    )]
    NoVlan {
        /// The member.
        eni: EniId,
        /// Its trunk.
        trunk: EniId,
        /// What the cloud says instead.
        device_index: Option<u32>,
    },
    /// It hangs on another instance.
    #[error("ENI {eni} is attached to {instance}, which is not this node")]
    Elsewhere {
        /// Which.
        eni: EniId,
        /// Where.
        instance: InstanceId,
    },
    /// It is attached, and not all of what it was made with is there.
    #[error("ENI {eni} is attached, and has no address of a family that its pods need")]
    Incomplete {
        /// Which.
        eni: EniId,
    },
    /// The cloud does not know it any more.
    #[error("ENI {eni} was made, and the cloud has not known it for {}s", absent.as_secs())]
    Lost {
        /// Which.
        eni: EniId,
        /// For how long.
        absent: Duration,
    },
}

/// So many looks at an attached ENI that is not complete: with the pauses between them some minutes.
const INCOMPLETE: u32 = 60;

/// How patient a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a read may be old news.
    pub lag: Duration,
    /// A change that was taken is not sent again before this.
    pub resend: Duration,
    /// A detach that sticks is sent again after this.
    pub stuck: Duration,
    /// Looks after a change.
    pub look: Pace,
    /// A look that failed.
    pub read: Pace,
    /// A Create that failed.
    pub create: Pace,
    /// An Attach or Detach that failed.
    pub change: Pace,
    /// A Delete that failed.
    pub delete: Pace,
    /// An Assign or Unassign that failed.
    pub addresses: Pace,
    /// A throttled call rests at least this long.
    pub throttled: Duration,
}

/// A call that failed, unless `backoff_override` says otherwise.
const RETRY: Pace =
    Pace::doubling(Duration::from_millis(400), Duration::from_secs(25)).with_jitter(50);

impl Timing {
    /// For which pause a change that failed is.
    pub(crate) const fn of(&self, verb: Verb) -> &Pace {
        match verb {
            Verb::Attach | Verb::Detach => &self.change,
            Verb::Delete => &self.delete,
        }
    }

    /// The least pause after an error: as long as the cloud says, and a while when it throttles.
    pub fn least(&self, error: &CallError) -> Duration {
        let throttled = if error.is_throttled() { self.throttled } else { Duration::ZERO };
        throttled.max(error.retry_after().unwrap_or_default())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lag: Duration::from_mins(1),
            resend: Duration::from_secs(5),
            stuck: Duration::from_secs(30),
            look: Pace::doubling(Duration::from_millis(300), Duration::from_secs(3)),
            read: RETRY,
            create: RETRY,
            change: RETRY,
            delete: RETRY,
            addresses: RETRY,
            throttled: Duration::from_secs(2),
        }
    }
}

impl View {
    /// Of an intent that was written down just now.
    pub const fn fresh() -> Self {
        Self {
            busy: false,
            create: Creation::Unsent,
            unanswered: None,
            seen: None,
            absent_since: None,
            changed: None,
            not_before: Duration::ZERO,
            tries: 0,
            looks: 0,
            trouble: None,
        }
    }

    /// Of a record that was read after a restart: a call may have been sent right before.
    pub fn recovered(now: Duration) -> Self {
        Self { create: Creation::Lost, unanswered: Some(now), ..Self::fresh() }
    }

    /// Whether `verb` was taken so lately that it is not sent again.
    fn just(&self, verb: Verb, patience: Duration, now: Duration) -> bool {
        self.changed.is_some_and(|(last, at)| last == verb && now < at.saturating_add(patience))
    }
}

/// What to do next for `eni` on `instance`.
pub fn next<T>(
    eni: &Eni<T>,
    view: &View,
    instance: &InstanceId,
    timing: &Timing,
    now: Duration,
) -> Action {
    if view.busy {
        return Action::Wait(None);
    }
    let action = match (eni.goal, &eni.stage) {
        (Goal::Bound, Stage::Bound(_)) => Action::Wait(None),
        (goal, Stage::Intended) => make(goal, view.create),
        (Goal::Bound, Stage::Made(id)) => bind(eni, id, view, instance, timing, now),
        (Goal::Gone, Stage::Made(id) | Stage::Bound(Binding { id, .. })) => {
            let_go(id, view, instance, timing, now)
        }
    };
    let calls =
        matches!(action, Action::Find | Action::Create | Action::Describe(_) | Action::Change(..));
    if calls && now < view.not_before { Action::Wait(Some(view.not_before)) } else { action }
}

const fn make(goal: Goal, create: Creation) -> Action {
    match (create, goal) {
        (Creation::Unsent, Goal::Bound) | (Creation::Repeat, _) => Action::Create,
        (Creation::Lost | Creation::Mismatch | Creation::Doubt, _) => Action::Find,
        (Creation::Refused, _) | (Creation::Unsent, Goal::Gone) => Action::Forget,
    }
}

fn bind<T>(
    record: &Eni<T>,
    id: &EniId,
    view: &View,
    instance: &InstanceId,
    timing: &Timing,
    now: Duration,
) -> Action {
    let look = || Action::Describe(id.clone());
    let Some(seen) = &view.seen else { return look() };
    let Some(eni) = &seen.eni else {
        let absent = seen.at.saturating_sub(view.absent_since.unwrap_or(seen.at));
        let lost = Failure::Lost { eni: id.clone(), absent };
        return if absent >= timing.lag { Action::Fail(lost) } else { look() };
    };
    match eni.status {
        EniStatus::Available if view.just(Verb::Attach, timing.resend, now) => look(),
        EniStatus::Available => Action::Change(Verb::Attach, id.clone()),
        EniStatus::InUse if view.looks > INCOMPLETE => bound(record, eni, instance)
            .unwrap_or_else(|| Action::Fail(Failure::Incomplete { eni: id.clone() })),
        EniStatus::InUse => bound(record, eni, instance).unwrap_or_else(look),
        _ => look(),
    }
}

/// `None` while the cloud has not said all of it.
fn bound<T>(record: &Eni<T>, eni: &cloud::Eni, instance: &InstanceId) -> Option<Action> {
    let owner = eni.instance.as_ref()?;
    if owner != instance {
        let elsewhere = Failure::Elsewhere { eni: eni.id.clone(), instance: owner.clone() };
        return Some(Action::Fail(elsewhere));
    }
    let vlan = match &record.spec.kind {
        Kind::Secondary | Kind::Trunk => None,
        Kind::Member(trunk) => {
            let Some(vlan) = eni.vlan() else {
                let (eni, device_index) = (eni.id.clone(), eni.device_index);
                let trunk = trunk.clone();
                return Some(Action::Fail(Failure::NoVlan { eni, trunk, device_index }));
            };
            Some(vlan)
        }
    };
    let stack = record.spec.stack;
    let v4 = eni.primary_v4.or_else(|| eni.v4.first().copied()).filter(|_| stack.v4());
    let v6 = first_v6(eni).filter(|_| stack.v6());
    let complete = v4.is_some() == stack.v4() && v6.is_some() == stack.v6();
    let addresses = IpPair::new(v4, v6).filter(|_| complete)?;
    Some(Action::Bind(Binding { id: eni.id.clone(), mac: eni.mac, addresses, vlan }))
}

/// The first IPv6 address: of a prefix, the first that is no router's anycast address.
pub fn first_v6(eni: &cloud::Eni) -> Option<Ipv6Addr> {
    let prefix = eni.v6_prefixes.first();
    let of_prefix = prefix.map(|prefix| Ipv6Addr::from(u128::from(prefix.network()) | 1));
    eni.v6.first().copied().or(of_prefix)
}

fn let_go(
    id: &EniId,
    view: &View,
    instance: &InstanceId,
    timing: &Timing,
    now: Duration,
) -> Action {
    let look = || Action::Describe(id.clone());
    let change = |verb| Action::Change(verb, id.clone());
    let Some(seen) = &view.seen else { return look() };
    let Some(eni) = &seen.eni else {
        // Absence alone may be old news of an ENI just made. Deleting what is not there succeeds,
        // and then absence is the end.
        return match view.changed {
            Some((Verb::Delete, at)) if seen.at >= at => Action::Forget,
            Some((Verb::Delete, _)) => look(),
            _ => change(Verb::Delete),
        };
    };
    let ours = eni.instance.as_ref().is_none_or(|owner| owner == instance);
    match eni.status {
        EniStatus::Available | EniStatus::Creating => {
            let just = view.just(Verb::Delete, timing.resend, now);
            if just { look() } else { change(Verb::Delete) }
        }
        // Whoever attached it elsewhere has it now.
        EniStatus::InUse | EniStatus::Attaching if !ours => Action::Forget,
        EniStatus::InUse if view.just(Verb::Detach, timing.resend, now) => look(),
        EniStatus::InUse => change(Verb::Detach),
        EniStatus::Detaching if ours && !view.just(Verb::Detach, timing.stuck, now) => {
            change(Verb::Detach)
        }
        _ => look(),
    }
}

/// Whether a call that failed so will not succeed however often it is repeated.
pub fn is_final(error: &CloudError) -> bool {
    let CloudError::Refused(refusal) = error else { return false };
    match &refusal.meaning {
        Meaning::Throttled
        | Meaning::Conflict
        | Meaning::Unavailable
        | Meaning::ExpiredCredentials
        | Meaning::Clock
        | Meaning::EniState
        | Meaning::InstanceState
        | Meaning::NotFound(cloud::Thing::Eni) => false,
        Meaning::VSwitchExhausted { .. }
        | Meaning::EniQuota
        | Meaning::V4Quota
        | Meaning::V6Quota
        | Meaning::AddressTaken
        | Meaning::AccountQuota
        | Meaning::NotFound(_)
        | Meaning::TokenMismatch
        | Meaning::Forbidden
        | Meaning::Other => true,
    }
}
