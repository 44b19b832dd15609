//! How many addresses are wanted, how many will come, and from where the rest is to be had.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud::{ClientToken, Meaning};
use controlplane::{CallError, Eni, EniSpec, Exhausted, Failure, Goal, Kind, NoVSwitch, VSwitches};
use model::{IpPair, VSwitch, VSwitchId, gateway};

use super::{EniRecord, Family, Pool, Port, mark};
use crate::ipam::Uplink;
use crate::ipam::lot::{Grain, Lot};

/// Waiters that come within this time are asked for in one go.
const COLLECT: Duration = Duration::from_millis(20);
/// After a refusal that repetition does not help against.
const CREATE_PAUSE: Duration = Duration::from_secs(30);
/// And so much longer when no pod waits.
const WARM_PAUSE: Duration = Duration::from_mins(5);
/// After the cloud named a quota that our count has not reached.
const QUOTA_PAUSE: Duration = Duration::from_mins(1);
/// A vSwitch that had addresses and no prefix left is asked for single ones so long.
const FRAGMENTED: Duration = Duration::from_mins(10);

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
        if !self.settings.degradation.calls() {
            let message = "degradation is \"l0\" in eni_conf, so the cloud is not asked for addresses, and none is idle";
            let cure = "take degradation out of eni_conf when the cloud is well again; no restart is needed";
            self.barrier = Some(Barrier::Config { message: message.to_owned(), cure });
            return;
        }
        let goal = waiting.saturating_add(self.settings.idle.min()).max(self.warm_goal(waiting));
        self.want_trunk(goal, vswitches, now);
        let missing = goal.saturating_sub(self.supply());
        if missing == 0 {
            self.ask_at = None;
        } else if waiting == 0 || now >= *self.ask_at.get_or_insert(now + COLLECT) {
            let (stack, per_eni) = (self.settings.stack, self.settings.capacity.per_eni);
            let roomy = |port: &&Port| {
                let grains = [Grain::Addresses, Grain::Prefixes].into_iter();
                port.counts() && grains.map(|grain| port.room(stack, per_eni, grain)).any(|n| n > 0)
            };
            let roomy = self.ports.values().filter(roomy);
            vswitches.want(roomy.map(|port| &port.vswitch));
            let missing = self.grow_ports(missing, vswitches, now);
            let missing = self.add_enis(missing, waiting, vswitches, now);
            if missing == 0 {
                self.barrier = None;
            }
        }
        self.keep_floors(vswitches, now);
    }

    /// So many more are to be idle as the new node lacks of what it is to have once.
    fn warm_goal(&self, waiting: u32) -> u32 {
        let used = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        self.warming().map_or(0, |target| target.saturating_sub(used).max(waiting))
    }

    /// `min_eni` and the numbers of prefixes that the node is to have, used or not.
    fn keep_floors(&mut self, vswitches: &mut VSwitches, now: Duration) {
        // One call after the other: nobody waits for them.
        if self.making().next().is_some() {
            return;
        }
        if self.kept_enis() < self.settings.min_enis {
            // A refusal is seen again by the next plan, and by those who wait.
            let _later = self.intend(Kind::Secondary, 1, vswitches, now);
            return;
        }
        let Some(floor) = self.settings.prefixes else { return };
        for (family, floor) in [(Family::V4, floor.v4), (Family::V6, floor.v6)] {
            let counts = Family::all(self.settings.stack).any(|of| of == family);
            let stays = self.ports.values().filter(|port| !port.is_closing());
            let has: u32 = stays.map(|port| port.prefixes(family)).sum();
            if counts && has < floor {
                self.add_prefixes(family, floor - has, vswitches, now);
            }
        }
    }

    /// More prefixes that no pod waits for: on ENIs that have a place, else on a new one.
    fn add_prefixes(
        &mut self,
        family: Family,
        mut missing: u32,
        vswitches: &mut VSwitches,
        now: Duration,
    ) {
        let (per_eni, lot) = (self.settings.capacity.per_eni, Grain::Prefixes.lot(family));
        let tokens: Vec<ClientToken> = self.ports.keys().cloned().collect();
        for token in tokens {
            let Some(port) = self.ports.get(&token) else { continue };
            let vswitch = port.vswitch.clone();
            let apt = port.takes_more(now) && !port.asking.full;
            if !apt || self.grain(&vswitch, now) == Grain::Addresses {
                continue;
            }
            let room = if family == Family::V4 { vswitches.room(&vswitch, now) } else { u32::MAX };
            let more = port.free_places(family, per_eni).min(missing).min(room / Lot::V4_PREFIX);
            if let Some(port) = self.ports.get_mut(&token) {
                port.queue(lot, more);
            }
            missing -= more;
        }
        if missing > 0 {
            let pods = missing.saturating_mul(lot.size());
            let _later = self.intend(Kind::Secondary, pods, vswitches, now);
        }
    }

    /// Whether this vSwitch is asked for prefixes.
    pub(super) fn grain(&self, vswitch: &VSwitchId, now: Duration) -> Grain {
        let fragmented = self.fragmented.get(vswitch).is_some_and(|until| now < *until);
        if self.settings.prefixes.is_some() && !fragmented {
            Grain::Prefixes
        } else {
            Grain::Addresses
        }
    }

    /// A vSwitch has no prefix left; it is asked for single addresses for a while.
    pub(super) fn no_prefix_left(&mut self, vswitch: &VSwitchId, why: &str, now: Duration) {
        tracing::warn!(%vswitch, why, "a vSwitch has no prefix left; pods get single addresses of it");
        self.fragmented.insert(vswitch.clone(), now + FRAGMENTED);
    }

    /// How many pods can be served, now or when all has come that was asked for.
    pub(super) fn supply(&self) -> u32 {
        let stack = self.settings.stack;
        let ports = self.ports.values().filter(|port| port.counts() && port.unplugged.is_none());
        let ports: u32 = ports.map(|port| port.supply(stack)).sum();
        let making = self.making().map(|eni| {
            Family::all(stack).map(|family| promised(&eni.spec, family)).min().unwrap_or(0)
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
    fn making_room(&self, now: Duration) -> u32 {
        let settings = &self.settings;
        let family = if settings.stack.v4() { Family::V4 } else { Family::V6 };
        let most = |eni: &EniRecord| {
            self.grain(&eni.spec.vswitch, now).pods(settings.stack, settings.capacity.per_eni)
        };
        self.making().map(|eni| most(eni).saturating_sub(promised(&eni.spec, family))).sum()
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

    /// Existing ENIs first, in the order of `eni_selection_policy`.
    fn grow_ports(&mut self, mut missing: u32, vswitches: &VSwitches, now: Duration) -> u32 {
        let (stack, per_eni) = (self.settings.stack, self.settings.capacity.per_eni);
        let grows = |port: &Port| port.takes_more(now) && vswitches.room(&port.vswitch, now) > 0;
        let ports = self.ports.iter().filter(|(_, port)| grows(port));
        let mut ports: Vec<_> = ports
            .map(|(token, port)| {
                let grain = self.grain(&port.vswitch, now);
                (self.rank(port), token.clone(), grain)
            })
            .collect();
        ports.sort_by_key(|(rank, ..)| *rank);
        let mut taken: BTreeMap<VSwitchId, u32> = BTreeMap::new();
        for (_, token, grain) in ports {
            let Some(port) = self.ports.get_mut(&token) else { continue };
            let taken = taken.entry(port.vswitch.clone()).or_default();
            let left = vswitches.room(&port.vswitch, now).saturating_sub(*taken);
            // Less than a prefix left is left for single addresses.
            let grain = if left < Lot::V4_PREFIX { Grain::Addresses } else { grain };
            let more = port.room(stack, per_eni, grain).min(missing).min(left);
            let whole = more.next_multiple_of(grain.lot(Family::V4).size());
            *taken = taken.saturating_add(whole);
            port.grow(more, stack, grain);
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
            let few = missing < self.batch_of_pods(now) && missing <= self.making_room(now);
            if makes && (waiting == 0 || few) {
                // They find room on what is being made, one call after it is up. Who fills a batch does
                // not wait for that call.
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

    /// Pods of one call.
    fn batch_of_pods(&self, now: Duration) -> u32 {
        let prefixes =
            self.settings.vswitches.iter().any(|id| self.grain(id, now) == Grain::Prefixes);
        if prefixes {
            Lot::PREFIXES_AT_MOST.saturating_mul(Lot::V4_PREFIX)
        } else {
            self.settings.batch
        }
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
        let has_room = |port: &Port| port.room(stack, per_eni, self.grain(&port.vswitch, now)) > 0;
        let roomy = self.ports.values().filter(|port| port.counts() && has_room(port));
        if matches!(barrier, Barrier::Full { .. }) && self.making_room(now) > 0 {
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
        let left = u32::try_from(vswitch.available).unwrap_or(u32::MAX).max(1);
        let grain =
            if left > Lot::V4_PREFIX { self.grain(&vswitch.id, now) } else { Grain::Addresses };
        let per_eni = settings.capacity.per_eni;
        let most = grain.pods(settings.stack, per_eni).min(left);
        let (v4, v6) = (settings.stack.v4(), settings.stack.v6());
        let single = pods.min(settings.batch).min(most);
        let single = if v6 { single.min(Lot::V6_AT_MOST) } else { single };
        let blocks = pods.min(most).saturating_sub(1).div_ceil(Lot::V4_PREFIX).max(1);
        let blocks = blocks.min(Lot::PREFIXES_AT_MOST).min((left - 1) / Lot::V4_PREFIX);
        let prefixes = grain == Grain::Prefixes;
        let spec = EniSpec {
            kind,
            vswitch: vswitch.id,
            security_groups: settings.security_groups.clone(),
            stack: settings.stack,
            v4: if v4 && !prefixes { single } else { 1 },
            v6: if v6 && !prefixes { single } else { 0 },
            v4_prefixes: if v4 && prefixes { blocks } else { 0 },
            v6_prefixes: u32::from(v6 && prefixes),
            tags: settings.tags.clone(),
            resource_group: settings.resource_group.clone(),
            source_dest_check: settings.source_dest_check,
        };
        let serves = Family::all(spec.stack).map(|family| promised(&spec, family)).min();
        let uplink = Uplink { number, gateway };
        self.fleet.add(Eni::intend(self.random.token(), spec, uplink));
        Ok(serves.unwrap_or(0))
    }

    fn may_create(&self, now: Duration) -> Result<(), Hindrance> {
        let used = u32::try_from(self.present().count()).unwrap_or(u32::MAX);
        let limit = self.max_enis();
        if let Some(error) = self.creation.refused.and(self.creation.trouble.as_ref()) {
            let last_word = Some(error.to_string());
            return Err(Hindrance::Barrier(Barrier::Enis { used, limit, last_word }));
        }
        if used >= limit && self.present().any(|eni| eni.goal == Goal::Gone) {
            // One is on its way out, and makes room.
            return Err(Hindrance::Later);
        }
        if used >= limit {
            let limit = limit.saturating_mul(self.settings.pods_per_eni());
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
            Some(Meaning::VSwitchExhausted { .. }) if eni.spec.v4_prefixes > 0 => {
                self.no_prefix_left(&vswitch, &error.to_string(), now);
            }
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
        // Nobody waits for the warm pool, and the cloud said no.
        let more = if self.waiters.is_empty() { WARM_PAUSE } else { Duration::ZERO };
        let again = self.creation.not_before.saturating_add(more);
        (!self.creation.not_before.is_zero() && now < again).then_some(again)
    }
}

/// Addresses of a family that an ENI is made with.
const fn promised(spec: &EniSpec, family: Family) -> u32 {
    let (single, prefixes, size) = match family {
        Family::V4 => (spec.v4, spec.v4_prefixes, Lot::V4_PREFIX),
        Family::V6 => (spec.v6, spec.v6_prefixes, Lot::V6_PREFIX),
    };
    single.saturating_add(prefixes.saturating_mul(size))
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
