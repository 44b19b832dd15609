//! What must hold, each law by its name: here those of every step and every answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cloud::EniStatus;
use controlplane::TOKEN_TAG;
use controlplane::simulation::Rule;
use model::{EniId, IpStack};

use super::callers::Caller;
use super::setup::COOLDOWN;
use super::world::World;
use crate::ipam::Allocation;
use crate::ipam::pool::{Family, SlotState};

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub law: Law,
    /// How.
    pub what: String,
    /// When, in the run's own time.
    pub at: Duration,
}

/// What must hold whatever happens, and in whatever order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// See [`Law::sentence`], as for all of them.
    OneOwner,
    /// Books of the pool.
    Accounting,
    /// Books and cloud.
    Known,
    /// Service.
    Serves,
    /// Cool-down.
    Rested,
    /// Dual stack.
    Pair,
    /// Numbers of ENIs, members and addresses.
    Quota,
    /// Deadlines.
    Answered,
    /// Cancelled ADDs.
    Cancelled,
    /// Repeated ADDs.
    Same,
    /// Tokens.
    Token,
    /// Primary addresses.
    Primary,
    /// ENIs of others.
    Foreign,
    /// ENIs and addresses with pods.
    Live,
    /// Sightings.
    Witness,
    /// Records.
    Durable,
    /// Convergence.
    Converges,
    /// Blocked tags.
    Excluded,
    /// Degradation.
    Degraded,
    /// Frozen prefixes.
    Frozen,
    /// Orphans.
    Orphans,
    /// Targets.
    Target,
    /// Calls.
    Idle,
    /// Steps without end.
    Endless,
    /// Panics.
    Panic,
}

impl Law {
    /// What it says.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::OneOwner => "no address has two live owners",
            Self::Accounting => {
                "idle + used + resting + invalid + releasing = known, and what is used belongs to a sandbox that is there"
            }
            Self::Known => {
                "what the pool knows is on its ENI in the cloud, give or take what is on its way"
            }
            Self::Serves => "nothing is served from an ENI that is not InUse or has no link",
            Self::Rested => "an address is not handed out before it has rested",
            Self::Pair => "a pod has one address of each family of the stack, on one ENI",
            Self::Quota => "no quota is passed: ENIs, members, addresses of an ENI",
            Self::Answered => "every waiter gets an address or a typed error by its deadline",
            Self::Cancelled => "a cancelled ADD gives its address back",
            Self::Same => "a sandbox that asks again gets the same again",
            Self::Token => "no token serves two intents",
            Self::Primary => "no primary address is unassigned",
            Self::Foreign => "no ENI of another owner is touched",
            Self::Live => "nothing that carries a live sandbox is taken away",
            Self::Witness => "nothing is given up on one sighting",
            Self::Durable => "what was written is there after a restart",
            Self::Converges => "without faults everything comes to rest in bounded calls",
            Self::Excluded => "an ENI with a blocked tag gets no call that changes it",
            Self::Degraded => {
                "under l0 the cloud is not called, and under l1 nothing is given back"
            }
            Self::Frozen => "nothing of a frozen prefix is handed out",
            Self::Orphans => {
                "every ENI of ours in the cloud is in a record, and every record has its ENI"
            }
            Self::Target => "without faults there are as many idle addresses as configured",
            Self::Idle => "an idle node makes at most 4 calls in an hour",
            Self::Endless => "a step does not leave work for the same moment without end",
            Self::Panic => "no step panics",
        }
    }
}

impl From<Rule> for Law {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Quota => Self::Quota,
            Rule::Token => Self::Token,
            Rule::Primary => Self::Primary,
            Rule::Foreign => Self::Foreign,
            Rule::Live => Self::Live,
        }
    }
}

type Judgement = Result<(), (Law, String)>;

impl World {
    /// What must hold at any time.
    pub(super) fn uphold(&mut self) {
        let mut live_enis = Vec::new();
        let mut live_addresses = Vec::new();
        for allocation in self.callers.values().filter_map(Caller::lives_on) {
            live_enis.extend([allocation.eni.clone(), allocation.parent.clone()]);
            live_addresses.extend(allocation.addresses.iter());
        }
        for ghost in self.memory.ghosts.values() {
            live_enis.extend([ghost.eni.clone(), ghost.parent.clone()]);
            live_addresses.extend(ghost.addresses.iter());
        }
        self.cloud.live_enis = live_enis.into_iter().collect();
        self.cloud.live_addresses = live_addresses.into_iter().collect();
        let judged = self
            .one_owner()
            .and_then(|()| self.answered_in_time())
            .and_then(|()| self.cloud_rules())
            .and_then(|()| self.quotas())
            .and_then(|()| self.books())
            .and_then(|()| self.witnesses());
        if let Err((law, what)) = judged {
            self.breach(law, what);
        }
    }

    fn one_owner(&self) -> Judgement {
        let mut owners = BTreeMap::new();
        let live = self.callers.iter().filter_map(|(key, it)| Some((key, it.lives_on()?)));
        for (key, allocation) in live {
            for address in allocation.addresses.iter() {
                if let Some(other) = owners.insert(address, key) {
                    return Err((Law::OneOwner, format!("{address} belongs to {key} and {other}")));
                }
            }
        }
        Ok(())
    }

    fn answered_in_time(&self) -> Judgement {
        for (key, caller) in &self.callers {
            if let Caller::Waiting { deadline, .. } = caller
                && *deadline <= self.now
            {
                return Err((Law::Answered, format!("{key} was to be answered by {deadline:?}")));
            }
        }
        let late = self.questions.values().find(|question| question.deadline <= self.now);
        late.map_or(Ok(()), |question| {
            Err((Law::Answered, format!("{} asked and was not told", question.key)))
        })
    }

    fn cloud_rules(&self) -> Judgement {
        let Some(first) = self.cloud.violations.first() else { return Ok(()) };
        Err((first.rule.into(), first.what.clone()))
    }

    fn quotas(&self) -> Judgement {
        let ours = |eni: &&cloud::Eni| {
            let known =
                !self.touched.contains(&eni.id) && !self.memory.strays.contains_key(&eni.id);
            eni.tags.contains_key(TOKEN_TAG) && known
        };
        let (members, shared): (Vec<_>, Vec<_>) =
            self.cloud.enis.values().filter(ours).partition(|eni| is_member(eni));
        let limits = &self.setup.limits;
        let config = &self.setup.options.config;
        let small = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let most = config.max_enis.map_or(usize::MAX, |max| small(max.get()));
        let adapters = u32::try_from(limits.enis).unwrap_or(u32::MAX);
        let most = most.min(small(config.eni_capacity.adapters(adapters)));
        let most = most.max(self.memory.kept);
        if shared.len() > most && !self.memory.lost {
            return Err((Law::Quota, format!("{} ENIs beside the primary one", shared.len())));
        }
        if members.len() > limits.members && !self.memory.lost {
            return Err((Law::Quota, format!("{} members", members.len())));
        }
        let places = |eni: &&cloud::Eni| {
            (eni.v4.len() + eni.v4_prefixes.len()).max(eni.v6.len() + eni.v6_prefixes.len())
        };
        let full = self.cloud.enis.values().find(|eni| places(eni) > limits.addresses);
        full.map_or(Ok(()), |eni| Err((Law::Quota, format!("{} has too many addresses", eni.id))))
    }

    /// What is used belongs to somebody, and what somebody has is used.
    fn books(&self) -> Judgement {
        let Some(state) = &self.state else { return Ok(()) };
        for (_, port) in state.pool.ports() {
            for (address, slot) in port.shelf.iter() {
                if let Some(key) = slot.state.owner() {
                    let holds = self.callers.get(key).and_then(Caller::holds);
                    if !holds.is_some_and(|had| had.addresses.iter().any(|a| a == address)) {
                        let what = format!(
                            "{address} is {} by {key}, which has not got it",
                            slot.state.name()
                        );
                        return Err((Law::Cancelled, what));
                    }
                }
                if !port.is_closing() {
                    self.is_there(&port.id, address, &slot.state)?;
                }
            }
        }
        for (key, caller) in &self.callers {
            let Some(allocation) = caller.lives_on().filter(|had| had.vlan.is_none()) else {
                continue;
            };
            let Some((_, port)) = state.pool.ports().find(|(_, port)| port.id == allocation.eni)
            else {
                continue;
            };
            for address in allocation.addresses.iter() {
                let slot = port.shelf.get(address).map(|slot| &slot.state);
                if slot.and_then(SlotState::owner) != Some(key) {
                    let what = format!("{key} has {address}, which is {slot:?}");
                    return Err((Law::Accounting, what));
                }
            }
        }
        Ok(())
    }

    /// The cloud has it where the pool has it.
    fn is_there(&self, id: &EniId, address: IpAddr, state: &SlotState) -> Judgement {
        let may_be_gone = matches!(state, SlotState::Leaving | SlotState::Invalid(_))
            || self.taken.contains(&address)
            || self.touched.contains(id);
        if may_be_gone || self.has(id, address) {
            return Ok(());
        }
        Err((Law::Known, format!("{address} is {} and not on {id}", state.name())))
    }

    pub(super) fn has(&self, id: &EniId, address: IpAddr) -> bool {
        self.cloud.has_address(id, address)
    }

    fn witnesses(&self) -> Judgement {
        if let Some(what) = self.taken_in_early() {
            return Err((Law::Witness, what));
        }
        if let Some(what) = self.lost_stray() {
            return Err((Law::Live, what));
        }
        let Some(state) = &self.state else { return Ok(()) };
        for (_, port) in state.pool.ports() {
            let misses = self.misses.get(&port.id).copied().unwrap_or(0);
            if port.lost && misses < 2 {
                return Err((Law::Witness, format!("{} is lost after {misses} looks", port.id)));
            }
        }
        Ok(())
    }

    /// What must hold of every address at the moment that a pod gets it.
    pub(super) fn check_served(&mut self, allocation: &Allocation) {
        let judged = self
            .serves(allocation)
            .and_then(|()| self.is_whole(allocation))
            .and_then(|()| self.has_rested(allocation))
            .and_then(|()| self.is_thawed(allocation));
        if let Err((law, what)) = judged {
            self.breach(law, what);
        }
    }

    fn serves(&self, allocation: &Allocation) -> Judgement {
        let Allocation { eni, parent, addresses, .. } = allocation;
        let untold = |id: &EniId| self.gone.iter().any(|(_, gone)| gone == id);
        if !self.linked.contains(parent) && !untold(parent) {
            return Err((Law::Serves, format!("{parent} has no link, and that was told")));
        }
        let status = self.cloud.enis.get(eni).map(|eni| &eni.status);
        let member = eni != parent;
        let excused = untold(eni) || (member && self.touched.contains(eni));
        if status != Some(&EniStatus::InUse) && !excused {
            return Err((Law::Serves, format!("{eni} is {status:?}")));
        }
        let gone = addresses.iter().find(|a| !self.has(eni, *a) && !self.taken.contains(a));
        gone.filter(|_| !excused)
            .map_or(Ok(()), |gone| Err((Law::Serves, format!("{gone} is not on {eni}"))))
    }

    fn is_whole(&self, allocation: &Allocation) -> Judgement {
        let stack: IpStack = self.setup.options.config.stack;
        let whole = Family::all(stack)
            .all(|family| allocation.addresses.iter().any(|a| Family::of(a) == family));
        let many = allocation.addresses.iter().count() != Family::all(stack).count();
        if whole && !many {
            return Ok(());
        }
        Err((Law::Pair, format!("{} on a node of {stack}", allocation.addresses)))
    }

    fn is_thawed(&self, allocation: &Allocation) -> Judgement {
        let frozen = allocation.addresses.iter().find(|a| self.is_frozen(allocation, *a));
        frozen.map_or(Ok(()), |frozen| Err((Law::Frozen, frozen.to_string())))
    }

    fn has_rested(&self, allocation: &Allocation) -> Judgement {
        if allocation.vlan.is_some() {
            // A member comes from the cloud with its address, which nobody here chose.
            return Ok(());
        }
        for address in allocation.addresses.iter() {
            let rested = self.rested.get(&address).map(|since| self.now.saturating_sub(*since));
            if let Some(rested) = rested.filter(|rested| *rested < COOLDOWN) {
                return Err((Law::Rested, format!("{address} rested for {rested:?}")));
            }
        }
        Ok(())
    }
}

pub(super) fn is_member(eni: &cloud::Eni) -> bool {
    eni.tags.get("creator").is_some_and(|creator| creator == "terway-controller")
}
