//! How many addresses are wanted, how many will come, and from where the rest is to be had.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud::{ClientToken, Meaning};
use controlplane::{CallError, Eni, EniSpec, Exhausted, Failure, Goal, Kind, NoVSwitch, VSwitches};
use model::{IpPair, VSwitch, VSwitchId, gateway};

use super::{EniRecord, Family, Pool, Port, mark};
use crate::ipam::Uplink;

/// Waiters that come within this time are asked for in one go.
const COLLECT: Duration = Duration::from_millis(20);
/// The most IPv6 addresses of one call.
pub(super) const V6_BATCH: u32 = 10;
/// After a refusal that repetition does not help against.
const CREATE_PAUSE: Duration = Duration::from_secs(30);
/// After the cloud named a quota that our count has not reached.
const QUOTA_PAUSE: Duration = Duration::from_mins(1);

/// Why those who wait in vain do so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// All ENIs that may be there are there, and all are full.
    Full { limit: u32 },
    /// The cloud refuses another ENI.
    Enis { used: u32, limit: u32, last_word: Option<String> },
    /// No vSwitch has an address.
    VSwitches(Exhausted),
    /// What is configured cannot be done.
    Config { message: String, cure: &'static str },
}

/// Why no ENI is made now.
enum Hindrance {
    /// It will be, later.
    Later,
    /// It would not help to wait.
    Barrier(Barrier),
}

impl Pool {
    /// Asks for what is missing.
    pub(crate) fn plan(&mut self, vswitches: &mut VSwitches, now: Duration) {
        self.barrier = None;
        if self.stopping || !self.truth.is_known() {
            return;
        }
        let waiting = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let goal = waiting.saturating_add(self.settings.idle.min());
        self.want_trunk(goal, vswitches, now);
        let missing = goal.saturating_sub(self.supply());
        if missing == 0 {
            self.ask_at = None;
            return;
        }
        if waiting > 0 && now < *self.ask_at.get_or_insert(now + COLLECT) {
            return;
        }
        let missing = self.grow_ports(missing, vswitches, now);
        let missing = self.add_enis(missing, waiting, vswitches, now);
        if missing == 0 {
            self.barrier = None;
        }
    }

    /// How many pods can be served, now or when all has come that was asked for.
    pub(super) fn supply(&self) -> u32 {
        let stack = self.settings.stack;
        let ports = self.ports.values().filter(|port| port.counts() && port.unplugged.is_none());
        let ports: u32 = ports.map(|port| port.supply(stack)).sum();
        let making = self.making().map(|eni| {
            let count = |family| match family {
                Family::V4 => eni.spec.v4,
                Family::V6 => eni.spec.v6,
            };
            Family::all(stack).map(count).min().unwrap_or(0)
        });
        ports.saturating_add(making.sum())
    }

    /// ENIs on their way.
    pub(super) fn making(&self) -> impl Iterator<Item = &EniRecord> {
        let ports = &self.ports;
        self.fleet.iter().filter(|eni| eni.goal == Goal::Bound && !ports.contains_key(&eni.token))
    }

    /// All ENIs but those that the cloud has lost and that only wait for their last pod to go.
    fn present(&self) -> impl Iterator<Item = &EniRecord> {
        let lost = |eni: &EniRecord| self.ports.get(&eni.token).is_some_and(|port| port.lost);
        self.fleet.iter().filter(move |eni| !lost(eni))
    }

    /// How many more pods those ENIs could serve.
    fn making_room(&self) -> u32 {
        let per_eni = self.settings.capacity.per_eni;
        let v4 = self.settings.stack.v4();
        let asked = |eni: &EniRecord| if v4 { eni.spec.v4 } else { eni.spec.v6 };
        self.making().map(|eni| per_eni.saturating_sub(asked(eni))).sum()
    }

    fn want_trunk(&mut self, goal: u32, vswitches: &mut VSwitches, now: Duration) {
        let has = |eni: &&EniRecord| eni.spec.kind == Kind::Trunk && eni.goal == Goal::Bound;
        if !self.settings.trunking || self.present().any(|eni| has(&eni)) {
            return;
        }
        let pods = goal.saturating_sub(self.supply()).max(1);
        if let Err(Hindrance::Barrier(barrier)) = self.intend(Kind::Trunk, pods, vswitches, now) {
            self.barrier = Some(barrier);
        }
    }

    /// Existing ENIs first, the fullest of them first.
    fn grow_ports(&mut self, mut missing: u32, vswitches: &VSwitches, now: Duration) -> u32 {
        let (stack, per_eni) = (self.settings.stack, self.settings.capacity.per_eni);
        let grows = |port: &&mut Port| {
            let here = port.counts() && port.missing.is_none() && port.unplugged.is_none();
            here && port.asking.not_before <= now && vswitches.room(&port.vswitch, now) > 0
        };
        let mut ports: Vec<_> = self.ports.values_mut().filter(grows).collect();
        ports.sort_by_key(|port| (std::cmp::Reverse(port.shelf.used()), port.number));
        let mut taken: BTreeMap<VSwitchId, u32> = BTreeMap::new();
        for port in ports {
            let taken = taken.entry(port.vswitch.clone()).or_default();
            let left = vswitches.room(&port.vswitch, now).saturating_sub(*taken);
            let more = port.room(stack, per_eni).min(missing).min(left);
            *taken = taken.saturating_add(more);
            port.grow(more, stack);
            missing = missing.saturating_sub(more);
        }
        missing
    }

    /// As many new ENIs as the batches need, side by side while somebody waits.
    fn add_enis(
        &mut self,
        mut missing: u32,
        waiting: u32,
        vswitches: &mut VSwitches,
        now: Duration,
    ) -> u32 {
        while missing > 0 {
            let makes = self.making().next().is_some();
            if makes && (waiting == 0 || missing <= self.settings.batch.min(self.making_room())) {
                // A few more find room on what is being made, one call after it is up.
                break;
            }
            match self.intend(Kind::Secondary, missing, vswitches, now) {
                Ok(pods) => missing = missing.saturating_sub(pods),
                Err(Hindrance::Later) => break,
                Err(Hindrance::Barrier(barrier)) => {
                    self.barrier = self.barrier_now(barrier, vswitches, now);
                    break;
                }
            }
        }
        missing
    }

    /// An ENI that has room and only its vSwitch has none is the better reason; one that only
    /// pauses is none.
    fn barrier_now(
        &self,
        barrier: Barrier,
        vswitches: &VSwitches,
        now: Duration,
    ) -> Option<Barrier> {
        let (stack, per_eni) = (self.settings.stack, self.settings.capacity.per_eni);
        let roomy = self.ports.values().filter(|p| p.counts() && p.room(stack, per_eni) > 0);
        if matches!(barrier, Barrier::Full { .. }) && self.making_room() > 0 {
            // An ENI on its way takes more than it is made with.
            return None;
        }
        let mut blocked = Vec::new();
        for port in roomy {
            if !vswitches.is_exhausted(&port.vswitch, now) {
                return None;
            }
            blocked.push(port.vswitch.clone());
        }
        if blocked.is_empty() || !matches!(barrier, Barrier::Full { .. }) {
            return Some(barrier);
        }
        Some(Barrier::VSwitches(vswitches.exhausted(&blocked, now)))
    }

    /// The intent to make an ENI for so many pods; says for how many it is.
    fn intend(
        &mut self,
        kind: Kind,
        pods: u32,
        vswitches: &mut VSwitches,
        now: Duration,
    ) -> Result<u32, Hindrance> {
        self.may_create(now)?;
        let settings = &self.settings;
        let found = vswitches.choose(&settings.vswitches, &settings.zone, settings.policy, now);
        let vswitch = found.map_err(no_vswitch)?;
        let gateway = self.gateway(&vswitch)?;
        let number = self.free_number()?;
        let settings = &self.settings;
        let v6_most = if settings.stack.v6() { V6_BATCH } else { u32::MAX };
        let left = u32::try_from(vswitch.available).unwrap_or(u32::MAX).max(1);
        let pods = pods.min(settings.batch).min(settings.capacity.per_eni).min(v6_most).min(left);
        let spec = EniSpec {
            kind,
            vswitch: vswitch.id,
            security_groups: settings.security_groups.clone(),
            stack: settings.stack,
            v4: if settings.stack.v4() { pods } else { 1 },
            v6: if settings.stack.v6() { pods } else { 0 },
            tags: settings.tags.clone(),
            resource_group: settings.resource_group.clone(),
            source_dest_check: settings.source_dest_check,
        };
        let uplink = Uplink { number, gateway };
        self.fleet.add(Eni::intend(self.random.token(), spec, uplink));
        Ok(pods)
    }

    fn may_create(&self, now: Duration) -> Result<(), Hindrance> {
        let used = u32::try_from(self.present().count()).unwrap_or(u32::MAX);
        let limit = self.max_enis();
        if let Some(error) = self.creation.refused.and(self.creation.trouble.as_ref()) {
            let last_word = Some(error.to_string());
            return Err(Hindrance::Barrier(Barrier::Enis { used, limit, last_word }));
        }
        if used >= limit {
            let limit = limit.saturating_mul(self.settings.capacity.per_eni);
            return Err(Hindrance::Barrier(Barrier::Full { limit }));
        }
        if now < self.creation.not_before { Err(Hindrance::Later) } else { Ok(()) }
    }

    /// How many ENIs there may be: what the type allows less what others have attached.
    pub(crate) fn max_enis(&self) -> u32 {
        let type_allows = self.settings.capacity.enis.saturating_sub(self.truth.foreign);
        type_allows.min(self.settings.max_enis.unwrap_or(u32::MAX))
    }

    pub(super) fn gateway(&self, vswitch: &VSwitch) -> Result<IpPair, Unfit> {
        let stack = self.settings.stack;
        let v4 = gateway(vswitch.v4).filter(|_| stack.v4()).and_then(|address| match address {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        });
        let v6 = vswitch.v6.and_then(gateway).filter(|_| stack.v6());
        let v6 = v6.and_then(|address| match address {
            std::net::IpAddr::V6(address) => Some(address),
            std::net::IpAddr::V4(_) => None,
        });
        let complete = v4.is_some() == stack.v4() && v6.is_some() == stack.v6();
        IpPair::new(v4, v6).filter(|_| complete).ok_or_else(|| Unfit {
            message: format!("vSwitch {} has no block for ip_stack {stack}", vswitch.id),
        })
    }

    pub(super) fn free_number(&self) -> Result<u32, Unfit> {
        let taken: Vec<u32> = self.fleet.iter().map(|eni| eni.owner.number).collect();
        let mask = self.settings.mark_mask;
        let mut free = (1..=u32::from(u16::MAX)).filter(|number| !taken.contains(number));
        let number = free.next().filter(|number| mark(*number, mask).is_some());
        number.ok_or_else(|| Unfit {
            message: format!("mark_mask {mask:#x} has no mark left for another ENI"),
        })
    }

    /// An ENI will not be.
    pub(super) fn creation_failed(
        &mut self,
        token: &ClientToken,
        failure: &Failure,
        vswitches: &mut VSwitches,
        now: Duration,
    ) {
        let Some(eni) = self.fleet.get(token) else { return };
        let vswitch = eni.spec.vswitch.clone();
        tracing::warn!(%vswitch, kind = ?eni.spec.kind, error = %failure, "an ENI will not be");
        let Failure::Cloud(error) = failure else {
            self.creation.not_before = now + CREATE_PAUSE;
            return;
        };
        match error.meaning() {
            Some(Meaning::VSwitchExhausted { .. }) => {
                vswitches.block(&vswitch, error.to_string(), now);
            }
            Some(Meaning::EniQuota) => {
                self.creation.refused = Some(now);
                self.creation.trouble = Some(CallError::Cloud(error.clone()));
                self.truth.want(now);
            }
            _ => {
                self.creation.not_before = now + CREATE_PAUSE;
                self.creation.trouble = Some(CallError::Cloud(error.clone()));
            }
        }
    }

    /// The truth was read after the cloud refused another ENI: our count says the rest, and if it
    /// does not, it is tried again later.
    pub(super) fn creation_reread(&mut self, begun: Duration, now: Duration) {
        if self.creation.refused.is_some_and(|at| begun >= at) {
            self.creation.refused = None;
            self.creation.not_before = now + QUOTA_PAUSE;
        }
    }

    pub(super) fn creation_wake(&self, now: Duration) -> Option<Duration> {
        let pauses = now < self.creation.not_before && !self.waiters.is_empty();
        pauses.then_some(self.creation.not_before)
    }
}

/// What is configured cannot be done.
pub(super) struct Unfit {
    pub(super) message: String,
}

impl From<Unfit> for Hindrance {
    fn from(cause: Unfit) -> Self {
        let cure = "correct eni_conf";
        Self::Barrier(Barrier::Config { message: cause.message, cure })
    }
}

fn no_vswitch(why: NoVSwitch) -> Hindrance {
    let cure = "correct vswitches in eni_conf";
    match why {
        NoVSwitch::Unknown(_) => Hindrance::Later,
        NoVSwitch::Exhausted(exhausted) => Hindrance::Barrier(Barrier::VSwitches(exhausted)),
        NoVSwitch::Missing(id) => {
            let message = format!("vSwitch {id} of eni_conf does not exist");
            Hindrance::Barrier(Barrier::Config { message, cure })
        }
        NoVSwitch::NotInZone { zone, found } => {
            let found: Vec<_> = found.iter().map(|(id, zone)| format!("{id} in {zone}")).collect();
            let message = format!(
                "eni_conf names no vSwitch in this node's zone {zone} (there are {})",
                found.join(", ")
            );
            Hindrance::Barrier(Barrier::Config { message, cure })
        }
    }
}
