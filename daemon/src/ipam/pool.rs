//! The shared pool as a state machine: events and the time go in, changes and effects come out.
//! Nothing here awaits, reads a clock or knows a socket.

mod ask;
mod audit;
mod compare;
mod homes;
mod plan;
mod port;
mod prefix;
mod reclaim;
mod release;
mod settings;
mod shelf;
mod shrink;
mod tags;
mod truth;
mod why;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cloud::ClientToken;
use controlplane::{Answer, CallError, Fleet, Goal, Notice, Random, VSwitches, Verb};
use model::{EniId, Mark, Mode, SandboxKey, VSwitchId};

use super::disagreement::{Disagreement, DisagreementKind};
use super::event::{Ask, Effect, Outcome, Ticket, Whose};
use super::lot::Lot;
use super::{AllocError, Allocation, EniRecord, Uplink};
use crate::checkpoint::{AssignRecord, Change, Contents, RestRecord};
use crate::config::EniPolicy;
use crate::datapath::{EniKind, EniLink};

use plan::Barrier;
use port::Intent;
pub(crate) use port::{LinkState, Port};
use reclaim::Reclaim;
pub(crate) use settings::Settings;
pub(crate) use shelf::Family;
pub(crate) use shelf::SlotState;
pub(crate) use tags::{Tag, TagRules};
use truth::Truth;

/// A link that could not be set is tried again after this.
const LINK_RETRY: Duration = Duration::from_secs(5);

/// The shared pool.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    settings: Settings,
    fleet: Fleet<Uplink>,
    ports: BTreeMap<ClientToken, Port>,
    owners: BTreeMap<SandboxKey, Owned>,
    waiters: VecDeque<Waiter>,
    truth: Truth,
    creation: Creation,
    /// Why those who wait in vain do so; as of the last plan.
    barrier: Option<Barrier>,
    /// Waiters are collected until then, so that the cloud is asked once.
    ask_at: Option<Duration>,
    /// Read from the checkpoint, for ports that are not known yet.
    rests: Vec<RestRecord>,
    /// vSwitches without a prefix left, and until when they are asked for single addresses.
    fragmented: BTreeMap<VSwitchId, Duration>,
    reclaim: Reclaim,
    /// The node has had what it was to have once, when it was new.
    warmed: bool,
    random: Random,
    stopping: bool,
}

/// A sandbox with an address.
#[derive(Debug, Clone)]
struct Owned {
    allocation: Allocation,
    /// The question whose answer it was.
    ticket: Option<Ticket>,
}

/// A sandbox that waits for one.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) ticket: Ticket,
    pub(crate) key: SandboxKey,
    pub(crate) since: Duration,
    pub(crate) deadline: Duration,
}

/// What keeps new ENIs from being made.
#[derive(Debug, Clone, Default)]
struct Creation {
    not_before: Duration,
    /// The cloud said that the instance has all it may have; until the truth was read.
    refused: Option<Duration>,
    trouble: Option<CallError>,
}

impl Pool {
    /// Rebuilt from the checkpoint.
    pub(crate) fn new(settings: Settings, contents: &Contents, seed: u64, now: Duration) -> Self {
        let mut random = Random::new(seed);
        let fleet = Fleet::new(settings.fleet(), contents.enis.clone(), random.next(), now);
        let shared = contents.sandboxes.iter().filter(|s| s.allocation.mode == Mode::Shared);
        let owners = shared.map(|sandbox| {
            let allocation = sandbox.allocation.clone();
            (sandbox.pod.spec.key.clone(), Owned { allocation, ticket: None })
        });
        let rests = contents.rests.iter().map(|rest| {
            // After a reboot the clock starts anew, and so does every rest.
            let same = rest.boot_id == settings.boot_id;
            RestRecord { since: if same { rest.since.min(now) } else { now }, ..rest.clone() }
        });
        let mut pool = Self {
            fleet,
            ports: BTreeMap::new(),
            owners: owners.collect(),
            waiters: VecDeque::new(),
            truth: Truth::new(now, settings.timing.lag),
            creation: Creation::default(),
            barrier: None,
            ask_at: None,
            rests: rests.collect(),
            fragmented: BTreeMap::new(),
            reclaim: Reclaim::new(now),
            warmed: contents.warmed,
            random,
            stopping: false,
            settings,
        };
        for record in &contents.enis {
            if record.goal == Goal::Bound {
                pool.open(record, now);
            }
        }
        for (token, port) in &mut pool.ports {
            // Calls of the process before may still take effect.
            port.written = Some(now);
            // What it asked for and did not get is asked for again, with the same token.
            let asked = contents.assigns.iter().find(|assign| assign.eni == *token);
            port.asking.intent = asked
                .cloned()
                .map(|AssignRecord { lot, count, token, .. }| Intent::Assign { lot, count, token });
        }
        pool
    }

    /// For what is made and kept from now on; ENIs that are there stay as they are.
    pub(crate) fn reconfigure(&mut self, settings: Settings) {
        self.fleet.reconfigure(settings.fleet());
        self.settings = settings;
    }

    /// Makes a port of a record that is bound, with the addresses that the checkpoint knows.
    fn open(&mut self, record: &EniRecord, now: Duration) {
        let Some(binding) = record.binding() else { return };
        let Uplink { number, gateway } = record.owner;
        let mut port = Port::new(&record.spec, binding.id.clone(), binding.mac, number, gateway);
        let mut rests = Vec::new();
        for rest in std::mem::take(&mut self.rests) {
            if rest.eni == port.id { port.restore(&rest) } else { rests.push(rest) }
        }
        self.rests = rests;
        for (key, owned) in self.owners.iter().filter(|(_, o)| o.allocation.eni == port.id) {
            for address in owned.allocation.addresses.iter() {
                port.shelf.put(address, false, SlotState::Used(key.clone()), now);
            }
        }
        self.ports.insert(record.token.clone(), port);
    }

    /// An ADD of a shared pod.
    pub(crate) fn allocate(&mut self, waiter: Waiter, out: &mut Outcome) {
        if let Some(owned) = self.owners.get_mut(&waiter.key) {
            owned.ticket = Some(waiter.ticket);
            out.answers.push((waiter.ticket, Ok(owned.allocation.clone())));
            return;
        }
        self.forsake(&waiter.key, out);
        self.waiters.push_back(waiter);
    }

    /// A sandbox's earlier question is answered with nothing.
    pub(crate) fn forsake(&mut self, key: &SandboxKey, out: &mut Outcome) {
        let gone = self.waiters.iter().filter(|waiter| waiter.key == *key);
        out.answers.extend(gone.map(|waiter| (waiter.ticket, Err(AllocError::Released))));
        self.waiters.retain(|waiter| waiter.key != *key);
    }

    /// Serves who waits from what is idle, the fullest ENI first.
    pub(crate) fn serve(&mut self, now: Duration, out: &mut Outcome) {
        let stack = self.settings.stack;
        self.thaw(now);
        while let Some(waiter) = self.waiters.pop_front() {
            let serving = self
                .ports
                .iter()
                .filter(|(_, port)| port.serves() && port.shelf.idle_pairs(stack) > 0);
            let first = serving.min_by_key(|(_, port)| self.rank(port));
            let first = first.map(|(token, _)| token.clone());
            let Some(port) = first.and_then(|token| self.ports.get_mut(&token)) else {
                self.waiters.push_front(waiter);
                return;
            };
            let Some(addresses) = port.shelf.take(stack, &waiter.key, now) else {
                self.waiters.push_front(waiter);
                return;
            };
            let allocation = Allocation {
                mode: Mode::Shared,
                addresses,
                eni: port.id.clone(),
                parent: port.id.clone(),
                vlan: None,
                mac: port.mac,
                security_groups: port.security_groups.clone(),
                pod_networking: None,
            };
            let ticket = waiter.ticket;
            out.answers.push((ticket, Ok(allocation.clone())));
            self.owners.insert(waiter.key, Owned { allocation, ticket: Some(ticket) });
            self.reclaim.touch(now);
        }
    }

    /// Which ENI serves and grows first, by `eni_selection_policy`: the least.
    fn rank(&self, port: &Port) -> (i64, u32) {
        let used = i64::from(port.shelf.used());
        match self.settings.eni_policy {
            EniPolicy::MostIps => (-used, port.number),
            EniPolicy::LeastIps => (used, port.number),
        }
    }

    /// When the node has had what it was to have once, that is written down.
    pub(crate) fn warm_up(&mut self, out: &mut Outcome) {
        if self.is_warm() {
            self.warmed = true;
            out.notes.push(Change::Warmed);
        }
    }

    /// What the lives of the ENIs want done, and what became of them.
    pub(crate) fn advance(&mut self, vswitches: &mut VSwitches, now: Duration, out: &mut Outcome) {
        if self.stopping {
            return;
        }
        let steps = self.fleet.advance(now);
        out.writes.extend(steps.puts.into_iter().map(|r| Change::PutEni(Box::new(r))));
        out.notes.extend(steps.notes.into_iter().map(|r| Change::PutEni(Box::new(r))));
        out.notes.extend(steps.removes.into_iter().map(Change::RemoveEni));
        let calls = steps.calls.into_iter();
        out.effects.extend(calls.map(|call| Effect::Ask(Ask::Eni(Whose::Pool, call))));
        for notice in steps.notices {
            self.notice(&notice, vswitches, now, out);
        }
    }

    /// What became of one ENI.
    fn notice(
        &mut self,
        notice: &Notice,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        match notice {
            Notice::Bound(token, eni, begun) => {
                let Some(record) = self.fleet.get(token).cloned() else { return };
                self.open(&record, now);
                if let Some(port) = self.ports.get_mut(token) {
                    port.fill(eni, self.settings.stack, now);
                    port.written = Some(*begun);
                }
            }
            Notice::Failed(token, failure) => self.creation_failed(token, failure, vswitches, now),
            Notice::Gone(token) => {
                if let Some(mut port) = self.ports.remove(token) {
                    port.give_up(out);
                    self.rests_outlive(&port, out);
                    out.effects.push(Effect::RemoveLink(port.id));
                }
            }
        }
    }

    /// Links that are to be set.
    pub(crate) fn links(&mut self, now: Duration, out: &mut Outcome) {
        let mask = self.settings.mark_mask;
        for (token, port) in &mut self.ports {
            let due = matches!(port.link, LinkState::Wanted(at) if at <= now);
            let wanted = due && !port.lost && !port.is_closing();
            let Some(mark) = mark(port.number, mask).filter(|_| wanted) else {
                continue;
            };
            port.link = LinkState::Setting { gone: false };
            out.effects.push(Effect::SetLink(token.clone(), port.spec(mark)));
        }
    }

    /// A link is up, or not.
    pub(crate) fn link_set(
        &mut self,
        token: &ClientToken,
        result: Result<EniLink, String>,
        now: Duration,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        port.link = match result {
            // It went while its answer was on the way.
            Ok(_) if port.link == (LinkState::Setting { gone: true }) => LinkState::Wanted(now),
            Ok(link) => {
                port.unplugged = None;
                LinkState::Up(link)
            }
            Err(error) => {
                tracing::warn!(eni = %port.id, error, "the link of an ENI cannot be set yet");
                LinkState::Wanted(now + LINK_RETRY)
            }
        };
    }

    /// The kernel has no link of an ENI any more: it serves nobody until it has one again, and the
    /// cloud is asked whether the ENI is still here. Until then it is told once.
    pub(crate) fn link_gone(&mut self, eni: &EniId, now: Duration, out: &mut Outcome) {
        let Some(port) = self.ports.values_mut().find(|port| port.id == *eni) else { return };
        match port.link {
            LinkState::Up(_) => {}
            LinkState::Setting { .. } => {
                port.link = LinkState::Setting { gone: true };
                return;
            }
            LinkState::Wanted(_) => return,
        }
        out.disagreements.push(Disagreement {
            kind: DisagreementKind::LinkMissing,
            subject: format!("ENI {eni}"),
            ours: "attached, and its link up".to_owned(),
            theirs: "the kernel has no link of it any more; the cloud is asked".to_owned(),
        });
        (port.link, port.unplugged) = (LinkState::Wanted(now), Some(now));
        self.look_at(now);
    }

    /// Whether a link that was there before the restart is still to be set for the first time.
    pub(crate) fn is_restoring(&self) -> bool {
        self.ports.values().any(|port| match port.link {
            LinkState::Setting { .. } => true,
            LinkState::Wanted(at) => at.is_zero(),
            LinkState::Up(_) => false,
        })
    }

    /// Whether a sandbox still has its address, as of the last look; `None` if it has none here.
    pub(crate) fn confirm(&self, key: &SandboxKey) -> Option<Result<(), AllocError>> {
        let Allocation { addresses, eni, .. } = &self.owners.get(key)?.allocation;
        let invalid = |port: &Port| {
            let slots = addresses.iter().filter_map(|address| port.shelf.get(address));
            slots.into_iter().any(|slot| matches!(slot.state, SlotState::Invalid(_)))
        };
        let lost = self.ports.values().any(|port| port.id == *eni && invalid(port));
        let error = AllocError::AddressLost { addresses: *addresses, eni: eni.clone() };
        Some(if lost { Err(error) } else { Ok(()) })
    }

    /// The trunk, while it carries frames.
    pub(crate) fn trunk(&self) -> Option<EniId> {
        let up = |port: &&Port| {
            let up = matches!(port.link, LinkState::Up(_));
            port.kind == EniKind::Trunk && up && !port.lost && port.missing.is_none()
        };
        self.ports.values().find(up).map(|port| port.id.clone())
    }

    /// Nobody gets an address any more, and nothing more is asked for.
    pub(crate) fn stop(&mut self, out: &mut Outcome) {
        self.stopping = true;
        let waiters = std::mem::take(&mut self.waiters).into_iter();
        out.answers.extend(waiters.map(|w| (w.ticket, Err(AllocError::Stopping))));
    }

    /// The cloud's answer for one ENI's life.
    pub(crate) fn answer(
        &mut self,
        answer: Answer,
        begun: Duration,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        match &answer {
            Answer::Created(token, Ok(_)) => {
                if let Some(eni) = self.fleet.get(token) {
                    let prefixed = eni.spec.v4_prefixes.saturating_mul(Lot::V4_PREFIX);
                    vswitches.take(&eni.spec.vswitch, eni.spec.v4.saturating_add(prefixed));
                }
            }
            Answer::Changed(token, Verb::Delete, Ok(())) => {
                if let Some(eni) = self.fleet.get(token) {
                    let held = |port: &Port| port.shelf.known(Family::V4).max(1);
                    let held = self.ports.get(token).map_or(eni.spec.v4, held);
                    vswitches.give_back(&eni.spec.vswitch, held);
                }
            }
            _ => {}
        }
        for notice in self.fleet.answer(answer, begun, now) {
            self.notice(&notice, vswitches, now, out);
        }
    }

    /// For the snapshot.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (&ClientToken, &Port)> {
        self.ports.iter()
    }

    /// For the snapshot.
    pub(crate) fn records(&self) -> impl Iterator<Item = &EniRecord> {
        self.fleet.iter()
    }

    /// For the snapshot.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// For the snapshot.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When something is to be done without any event.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let links = self.ports.values().filter_map(|port| match port.link {
            LinkState::Wanted(at) if !port.lost && !port.is_closing() => Some(at),
            _ => None,
        });
        [
            self.fleet.wake(now),
            links.min(),
            self.waiters.iter().map(|waiter| waiter.deadline).min(),
            self.ask_at.filter(|at| *at > now),
            self.look_due(),
            self.rest_wake(),
            self.ask_wake(now),
            self.creation_wake(now),
            self.shrink_wake(now),
            self.reclaim_wake(),
            self.ports.values().filter_map(|port| port.shelf.thaws_at()).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// The mark of the `number`th ENI: its bits are laid into those of the mask, lowest first. `None`
/// when the mask has too few.
pub(crate) fn mark(number: u32, mask: u32) -> Option<Mark> {
    let bits = (0..32).map(|bit| 1u32 << bit).filter(|bit| mask & bit != 0);
    let mut rest = number;
    let mut value = 0;
    for bit in bits {
        if rest & 1 == 1 {
            value |= bit;
        }
        rest >>= 1;
    }
    if rest == 0 { Mark::new(value, mask).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_within_its_mask() {
        for (number, mask, value) in [
            (1, 0x7f, Some(1)),
            (127, 0x7f, Some(0x7f)),
            (128, 0x7f, None),
            (3, 0x7f0, Some(0x30)),
            (3, 0x8001, Some(0x8001)),
            (4, 0x8001, None),
            (0, 0x7f, None),
        ] {
            assert_eq!(mark(number, mask).map(Mark::value), value, "{number} {mask:#x}");
        }
    }
}
