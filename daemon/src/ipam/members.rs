//! Member ENIs for the sandboxes of this node: the control plane's reconciler run in process, with
//! the CNI's requests as its pods and the checkpoint as its store.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cloud::{ClientToken, Meaning};
use controlplane::{
    Answer, Binding, Controller, ControllerSettings, Durability, Eni, Failure, Goal, Kind,
    NoVSwitch, Notice, Owner, Pending, PodNetworking, PodRequest, Refusal, Source, Status, Store,
    TOKEN_TAG, VSwitches,
};
use model::{EniId, IpPair, Mode, SandboxKey};

use super::error::{Quota, seconds};
use super::event::{Ask, Effect, Outcome, Ticket, Whose};
use super::{AllocError, Allocation, MemberRecord};
use crate::checkpoint::{Change, Contents};
use crate::standalone::PodNetworkings;

mod missing;

use missing::Missing;

/// Traces that could not be removed are tried again after this.
const BURY_RETRY: Duration = Duration::from_secs(5);

/// The members of this node's trunk.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    controller: Controller,
    /// The trunk, while it carries frames.
    trunk: Option<EniId>,
    pod_networkings: PodNetworkings,
    waiters: Vec<Waiter>,
    owners: BTreeMap<SandboxKey, Held>,
    /// Addresses whose traces in the kernel are still to be removed.
    burials: Vec<Burial>,
    missing: Missing,
    /// Sandboxes whose member is looked at before they are told that they have it.
    confirmations: Vec<Confirmation>,
    cooldown: Duration,
    most: u32,
    stopping: bool,
}

/// A sandbox that waits for its member.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) ticket: Ticket,
    pub(crate) pod: PodRequest,
    pub(crate) since: Duration,
    pub(crate) deadline: Duration,
}

/// A sandbox that asks whether it still has its member.
#[derive(Debug, Clone)]
pub(crate) struct Confirmation {
    pub(crate) ticket: Ticket,
    pub(crate) key: SandboxKey,
    pub(crate) since: Duration,
    pub(crate) deadline: Duration,
}

/// A sandbox that has one.
#[derive(Debug, Clone)]
struct Held {
    pod: PodRequest,
    allocation: Allocation,
    ticket: Option<Ticket>,
}

#[derive(Debug, Clone)]
struct Burial {
    token: ClientToken,
    addresses: IpPair,
    not_before: Duration,
    gone: bool,
}

/// What the reconciler sees as the cluster.
struct Cluster<'a> {
    pods: Vec<PodRequest>,
    pod_networkings: &'a PodNetworkings,
}

impl Source for Cluster<'_> {
    fn pods(&self) -> Vec<PodRequest> {
        self.pods.clone()
    }

    fn pod_networking(&self, name: &str) -> Option<&PodNetworking> {
        self.pod_networkings.get(name)
    }

    fn names(&self) -> Vec<String> {
        self.pod_networkings.names()
    }
}

impl Store for Outcome {
    fn put(&mut self, eni: &Eni<Owner>, durability: Durability) {
        let change = Change::PutMember(Box::new(eni.clone()));
        match durability {
            Durability::Before => self.writes.push(change),
            Durability::Later => self.notes.push(change),
        }
    }

    fn remove(&mut self, token: &ClientToken) {
        self.notes.push(Change::RemoveMember(token.clone()));
    }
}

impl Members {
    /// Rebuilt from the checkpoint: a member whose sandbox has no record was never handed out.
    pub(crate) fn new(
        settings: ControllerSettings,
        pod_networkings: PodNetworkings,
        contents: &Contents,
        cooldown: Duration,
        seed: u64,
        now: Duration,
    ) -> Self {
        let bound = |id: &EniId| {
            contents.members.iter().find(|m| m.goal == Goal::Bound && m.id() == Some(id))
        };
        let mut owners = BTreeMap::new();
        for sandbox in contents.sandboxes.iter().filter(|s| s.allocation.mode == Mode::Trunk) {
            let key = &sandbox.pod.spec.key;
            let Some(member) = bound(&sandbox.allocation.eni) else {
                tracing::error!(sandbox = %key, eni = %sandbox.allocation.eni, "a pod's member ENI is in no record");
                continue;
            };
            let (pod, allocation) = (member.owner.clone(), sandbox.allocation.clone());
            owners.insert(key.clone(), Held { pod, allocation, ticket: None });
        }
        let (most, lag) = (settings.members, settings.fleet.timing.lag);
        let missing = Missing::new(lag, now);
        let mut found = Self {
            controller: Controller::new(settings, contents.members.clone(), seed, now),
            trunk: None,
            pod_networkings,
            waiters: Vec::new(),
            owners,
            burials: Vec::new(),
            missing,
            confirmations: Vec::new(),
            cooldown,
            most,
            stopping: false,
        };
        for member in &contents.members {
            if !found.owners.contains_key(&member.owner.sandbox) {
                found.will_bury(member, now);
            }
        }
        found
    }

    /// For members that are made from now on.
    pub(crate) fn reconfigure(
        &mut self,
        settings: ControllerSettings,
        pod_networkings: PodNetworkings,
        cooldown: Duration,
    ) {
        self.most = settings.members;
        self.controller.reconfigure(settings);
        (self.pod_networkings, self.cooldown) = (pod_networkings, cooldown);
    }

    fn will_bury(&mut self, member: &Eni<Owner>, now: Duration) {
        let Some(binding) = member.binding() else { return };
        let known = self.burials.iter().any(|burial| burial.token == member.token);
        if !known {
            self.burials.push(Burial {
                token: member.token.clone(),
                addresses: binding.addresses,
                not_before: now.saturating_add(self.cooldown),
                gone: false,
            });
        }
    }

    /// An ADD of a pod with a PodNetworking.
    pub(crate) fn allocate(&mut self, waiter: Waiter, out: &mut Outcome) {
        if let Some(held) = self.owners.get_mut(&waiter.pod.sandbox) {
            held.ticket = Some(waiter.ticket);
            out.answers.push((waiter.ticket, Ok(held.allocation.clone())));
            return;
        }
        self.forsake(&waiter.pod.sandbox.clone(), out);
        self.waiters.push(waiter);
    }

    /// A sandbox's earlier question is answered with nothing.
    pub(crate) fn forsake(&mut self, key: &SandboxKey, out: &mut Outcome) {
        let gone = self.waiters.iter().filter(|waiter| waiter.pod.sandbox == *key);
        out.answers.extend(gone.map(|waiter| (waiter.ticket, Err(AllocError::Released))));
        self.waiters.retain(|waiter| waiter.pod.sandbox != *key);
    }

    /// The sandbox is gone: its member goes too, in the background. Says what its pod had.
    pub(crate) fn release(
        &mut self,
        key: &SandboxKey,
        now: Duration,
        out: &mut Outcome,
    ) -> Option<(EniId, IpPair)> {
        self.forsake(key, out);
        let held = self.owners.remove(key);
        let members: Vec<_> =
            self.controller.enis().filter(|eni| eni.owner.sandbox == *key).cloned().collect();
        for member in members {
            self.will_bury(&member, now);
        }
        held.map(|held| (held.allocation.eni, held.allocation.addresses))
    }

    /// Whoever asked does not wait any more, or never saw the answer.
    pub(crate) fn cancel(&mut self, ticket: Ticket, key: &SandboxKey) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
        if self.owners.get(key).is_some_and(|held| held.ticket == Some(ticket)) {
            self.owners.remove(key);
        }
    }

    /// The cloud's answer for one member's life.
    pub(crate) fn answer(
        &mut self,
        answer: Answer,
        begun: Duration,
        vswitches: &mut VSwitches,
        now: Duration,
    ) {
        self.controller.answer(answer, begun, vswitches, now);
    }

    /// The node's trunk, and how many of its members belong to nobody here.
    pub(crate) fn observe(&mut self, trunk: Option<EniId>, foreign: u32) {
        self.trunk.clone_from(&trunk);
        self.controller.set_trunk(trunk);
        self.controller.set_members(self.most.saturating_sub(foreign));
    }

    /// Whether an ENI is in a record, also one that does not know its id yet.
    pub(crate) fn knows(&self, eni: &cloud::Eni) -> bool {
        let token = eni.tags.get(TOKEN_TAG).map(String::as_str);
        let is =
            |known: &Eni<Owner>| known.id() == Some(&eni.id) || token == Some(known.token.as_str());
        self.controller.enis().any(is)
    }

    /// Members on this instance that no record names.
    pub(crate) fn foreign(&self, enis: &[cloud::Eni]) -> u32 {
        let ours = |id: &EniId| self.controller.enis().any(|eni| eni.id() == Some(id));
        let members = enis.iter().filter(|eni| eni.kind == cloud::EniKind::Member);
        let foreign: Vec<_> = members.filter(|eni| !ours(&eni.id)).map(|eni| &eni.id).collect();
        if !foreign.is_empty() {
            tracing::warn!(enis = ?foreign, "members of the trunk that are in no record; they count, and are left alone");
        }
        u32::try_from(foreign.len()).unwrap_or(u32::MAX)
    }

    /// One round: intents, steps, answers.
    /// `held` is who has which address of a shared ENI.
    pub(crate) fn advance(
        &mut self,
        held: &BTreeMap<IpAddr, SandboxKey>,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        if self.stopping {
            return;
        }
        loop {
            let waiting = self.waiters.iter().map(|waiter| waiter.pod.clone());
            let has = self.owners.values().map(|held| held.pod.clone());
            let pods = waiting.chain(has).collect();
            let cluster = Cluster { pods, pod_networkings: &self.pod_networkings };
            let (calls, notices) = self.controller.reconcile(&cluster, out, vswitches, now);
            let calls = calls.into_iter();
            out.effects.extend(calls.map(|call| Effect::Ask(Ask::Eni(Whose::Members, call))));
            for notice in notices {
                match notice {
                    Notice::Bound(token, _, at) => self.missing.bound(token, at),
                    Notice::Gone(token) => {
                        let buried = self.burials.iter_mut().filter(|b| b.token == token);
                        buried.for_each(|burial| burial.gone = true);
                        self.missing.gone(&token);
                    }
                    Notice::Failed(..) => {}
                }
            }
            if !self.answer_waiters(held, now, out) {
                break;
            }
        }
        self.bury(now, out);
        self.confirm_late(now, out);
    }

    /// Another sandbox of this node that has a member's address still, though the cloud took it away.
    fn holder<'a>(
        &'a self,
        key: &SandboxKey,
        binding: &Binding,
        held: &'a BTreeMap<IpAddr, SandboxKey>,
    ) -> Option<&'a SandboxKey> {
        let has = |held: &Held| {
            binding.addresses.iter().any(|a| held.allocation.addresses.iter().any(|b| a == b))
        };
        let mut members = self.owners.iter().filter(|(other, held)| *other != key && has(held));
        let mut shared = binding.addresses.iter().filter_map(|address| held.get(&address));
        shared.find(|other| *other != key).or_else(|| members.next().map(|(other, _)| other))
    }

    /// Whether the trunk of a member carries frames now.
    fn carries(&self, eni: &MemberRecord) -> bool {
        matches!(&eni.spec.kind, Kind::Member(trunk) if self.trunk.as_ref() == Some(trunk))
    }

    /// Whether somebody was turned away: then what was begun for it is to be undone.
    fn answer_waiters(
        &mut self,
        held: &BTreeMap<IpAddr, SandboxKey>,
        now: Duration,
        out: &mut Outcome,
    ) -> bool {
        let mut turned_away = false;
        for waiter in std::mem::take(&mut self.waiters) {
            let answer = match self.controller.status(&waiter.pod.sandbox) {
                Some(Status::Bound(eni, binding))
                    if let Some(holder) = self.holder(&waiter.pod.sandbox, binding, held) =>
                {
                    (waiter.deadline <= now).then(|| Err(occupied(eni, binding, holder)))
                }
                Some(Status::Bound(eni, binding)) if self.carries(eni) => {
                    Some(Ok(allocation(eni, binding)))
                }
                Some(Status::Refused(refusal)) => Some(Err(self.refusal(refusal, now))),
                Some(Status::Pending(pending)) if waiter.deadline <= now => {
                    Some(Err(Self::too_late(&waiter, pending, now)))
                }
                // A member may be bound when its trunk has lost its link.
                Some(Status::Bound(..)) | None if waiter.deadline <= now => {
                    Some(Err(Self::too_late(&waiter, Pending::Trunk, now)))
                }
                _ => None,
            };
            match answer {
                None => self.waiters.push(waiter),
                Some(Ok(allocation)) => {
                    let Waiter { ticket, pod, .. } = waiter;
                    out.answers.push((ticket, Ok(allocation.clone())));
                    let key = pod.sandbox.clone();
                    self.owners.insert(key, Held { pod, allocation, ticket: Some(ticket) });
                }
                Some(Err(error)) => {
                    out.answers.push((waiter.ticket, Err(error)));
                    turned_away = true;
                }
            }
        }
        turned_away
    }

    fn bury(&mut self, now: Duration, out: &mut Outcome) {
        let due = |burial: &Burial| burial.gone && burial.not_before <= now;
        let rested: Vec<_> = self.burials.iter().filter(|b| due(b)).map(|b| b.addresses).collect();
        self.burials.retain(|burial| !due(burial));
        if !rested.is_empty() {
            out.effects.push(Effect::Bury(rested));
        }
    }

    /// Traces that could not be removed.
    pub(crate) fn not_buried(&mut self, addresses: &[IpPair], now: Duration) {
        let not_before = now + BURY_RETRY;
        for pair in addresses {
            let token = ClientToken::from(uuid::Uuid::nil());
            self.burials.push(Burial { token, addresses: *pair, not_before, gone: true });
        }
    }

    /// Nobody gets a member any more.
    pub(crate) fn stop(&mut self, out: &mut Outcome) {
        self.stopping = true;
        let waiters = std::mem::take(&mut self.waiters).into_iter();
        out.answers.extend(waiters.map(|w| (w.ticket, Err(AllocError::Stopping))));
        let asked = std::mem::take(&mut self.confirmations).into_iter();
        out.confirmations.extend(asked.map(|c| (c.ticket, Err(AllocError::Stopping))));
    }

    /// All records, for the snapshot.
    pub(crate) fn enis(&self) -> impl Iterator<Item = &Eni<Owner>> {
        self.controller.enis()
    }

    /// Whether a sandbox has a member.
    pub(crate) fn owns(&self, key: &SandboxKey) -> bool {
        self.owners.contains_key(key)
    }

    /// What the sandboxes have.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpPair> {
        self.owners.values().map(|held| held.allocation.addresses)
    }

    /// For the snapshot.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// When something is to be done without any event.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let deadlines = self.waiters.iter().map(|waiter| waiter.deadline);
        let deadlines = deadlines.chain(self.confirmations.iter().map(|asked| asked.deadline));
        let burials = self.burials.iter().filter(|burial| burial.gone).map(|b| b.not_before);
        deadlines.chain(burials).chain(self.controller.wake(now)).min()
    }

    fn refusal(&self, refusal: &Refusal, now: Duration) -> AllocError {
        let invalid =
            |message, cure: &str| AllocError::InvalidConfig { message, cure: cure.to_owned() };
        match refusal {
            Refusal::Unknown { name, known } => AllocError::unknown_pod_networking(name, known),
            Refusal::NotReady(name, why) => invalid(
                format!("PodNetworking {name:?} has no effect on this node: {why}"),
                "change the PodNetworking, or choose another one",
            ),
            Refusal::VSwitch(name, why) => invalid(
                format!("PodNetworking {name:?} cannot be used: {}", no_vswitch(why)),
                "change its vSwitchOptions",
            ),
            Refusal::Exhausted(name, exhausted) => AllocError::VSwitchExhausted {
                whose: format!("PodNetworking {name:?}"),
                rooms: exhausted.rooms.clone(),
                next_try: exhausted.next_try.saturating_sub(now),
                last_word: exhausted.last_word.clone(),
            },
            Refusal::Quota { max } => AllocError::QuotaReached {
                quota: Quota::Members,
                used: self.most,
                limit: *max,
                last_word: None,
            },
            Refusal::Failed(eni, failure) => self.failed(eni.as_ref(), failure),
        }
    }

    fn failed(&self, eni: Option<&EniId>, failure: &Failure) -> AllocError {
        if let Failure::Cloud(error) = failure
            && error.meaning() == Some(&Meaning::EniQuota)
        {
            let used = u32::try_from(self.controller.enis().count()).unwrap_or(u32::MAX);
            return AllocError::QuotaReached {
                quota: Quota::Members,
                used,
                limit: self.most,
                last_word: Some(error.to_string()),
            };
        }
        AllocError::PodEniNotBound {
            eni: eni.cloned(),
            phase: "Failed",
            message: failure.to_string(),
            next: "what was made of it is deleted; the next try makes another one".to_owned(),
        }
    }

    fn too_late(waiter: &Waiter, pending: Pending, now: Duration) -> AllocError {
        let waited = now.saturating_sub(waiter.since);
        let not_yet = |why: &str, next: &str| AllocError::NotYet {
            waited,
            why: why.to_owned(),
            next: next.to_owned(),
        };
        match pending {
            Pending::Trunk => not_yet(
                "the node's trunk ENI is not up yet",
                "it is being made and attached; `terwayctl enis` shows how far it is",
            ),
            Pending::VSwitches(None) => {
                not_yet("the cloud has not yet described the vSwitches", "it is being asked")
            }
            Pending::VSwitches(Some(error)) => {
                let why = format!("the vSwitches cannot be read: {error}");
                not_yet(&why, "it is tried again")
            }
            Pending::Room { max, leaving } => AllocError::NotYet {
                waited,
                why: format!("all {max} member ENIs of this instance are taken"),
                next: format!("{leaving} of them are being deleted, and make room"),
            },
            Pending::Eni { trouble: Some(error), next_try, .. } if error.is_throttled() => {
                let next_try = next_try.saturating_sub(now);
                AllocError::Throttled { waited, next_try, last_word: error.to_string() }
            }
            Pending::Eni { id, phase, trouble, .. } => AllocError::PodEniNotBound {
                eni: id,
                phase,
                message: trouble.map_or_else(
                    || format!("and {} have passed", seconds(waited)),
                    |error| error.to_string(),
                ),
                next: "it is deleted; the next try makes another one".to_owned(),
            },
        }
    }
}

fn no_vswitch(why: &NoVSwitch) -> String {
    match why {
        NoVSwitch::Missing(id) => format!("vSwitch {id} does not exist"),
        NoVSwitch::NotInZone { zone, found } => {
            let found: Vec<_> = found.iter().map(|(id, zone)| format!("{id} in {zone}")).collect();
            format!("none of its vSwitches is in this node's zone {zone} ({})", found.join(", "))
        }
        NoVSwitch::Unknown(_) | NoVSwitch::Exhausted(_) => "it has none to offer now".to_owned(),
    }
}

/// No node has two pods with one address.
fn occupied(eni: &MemberRecord, binding: &Binding, holder: &SandboxKey) -> AllocError {
    AllocError::PodEniNotBound {
        eni: eni.id().cloned(),
        phase: "InUse",
        message: format!(
            "the cloud gave it {}, which {holder} on this node still has, cut off",
            binding.addresses
        ),
        next: format!("delete the pod of {holder}, so that it is made again"),
    }
}

fn allocation(eni: &Eni<Owner>, binding: &Binding) -> Allocation {
    let parent = match &eni.spec.kind {
        Kind::Member(trunk) => trunk.clone(),
        Kind::Secondary | Kind::Trunk => binding.id.clone(),
    };
    Allocation {
        mode: Mode::Trunk,
        addresses: binding.addresses,
        eni: binding.id.clone(),
        parent,
        vlan: binding.vlan,
        mac: binding.mac,
        security_groups: eni.spec.security_groups.clone(),
        pod_networking: Some(eni.owner.pod_networking.clone()),
    }
}
