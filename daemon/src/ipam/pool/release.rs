//! Addresses on their way back: from a pod to rest, from rest to idle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::{EniId, IpPair, SandboxKey};

use super::shelf::SlotState;
use super::{Pool, Port};
use crate::checkpoint::{Change, RestKind, RestRecord};
use crate::ipam::event::{Effect, Outcome, Ticket};

/// Traces that could not be removed are tried again after this.
const BURY_RETRY: Duration = Duration::from_secs(5);

impl Pool {
    /// The sandbox is gone: its record goes and its addresses rest, in one transaction.
    pub(crate) fn release(&mut self, key: &SandboxKey, now: Duration, out: &mut Outcome) {
        out.writes.push(Change::RemoveSandbox(key.clone()));
        self.forsake(key, out);
        let Some(owned) = self.owners.remove(key) else { return };
        self.reclaim.touch(now);
        let eni = owned.allocation.eni;
        let port = self.ports.values_mut().find(|port| port.id == eni);
        let resting = port.map(|port| port.put_to_rest(key, now)).unwrap_or_default();
        for address in &resting {
            let rest = self.rest(eni.clone(), *address, RestKind::Cooling, now);
            out.writes.push(Change::PutRest(rest));
        }
        let elsewhere = owned.allocation.addresses.iter().filter(|a| !resting.contains(a));
        self.rest_wherever(&eni, elsewhere, now, out);
    }

    /// Addresses that a pod has just left and that are not on its ENI here: should the cloud give
    /// them to another ENI of this node, or has it already, they rest there.
    pub(crate) fn rest_wherever(
        &mut self,
        eni: &EniId,
        addresses: impl Iterator<Item = IpAddr>,
        now: Duration,
        out: &mut Outcome,
    ) {
        for address in addresses {
            let free = |port: &&mut Port| {
                let state = port.shelf.get(address).map(|slot| &slot.state);
                state.is_some_and(|it| it.owner().is_none() && *it != SlotState::Leaving)
            };
            let here = self.ports.values_mut().find(free).map(|port| {
                port.shelf.set(address, SlotState::Resting, now);
                port.id.clone()
            });
            let on = here.clone().unwrap_or_else(|| eni.clone());
            let rest = self.rest(on, address, RestKind::Cooling, now);
            if here.is_none() {
                self.rests.push(rest.clone());
            }
            out.writes.push(Change::PutRest(rest));
        }
    }

    /// What rests on one ENI and has come on another one rests there, too.
    fn rest_on(&mut self, out: &mut Outcome) {
        let cooling = self.rests.iter().filter(|rest| rest.kind == RestKind::Cooling);
        let mut resting: BTreeMap<IpAddr, Duration> =
            cooling.map(|rest| (rest.address, rest.since)).collect();
        for port in self.ports.values() {
            let rests =
                |state: &SlotState| matches!(state, SlotState::Resting | SlotState::Burying);
            let rests = port.shelf.iter().filter(|(_, slot)| rests(&slot.state));
            resting.extend(rests.map(|(address, slot)| (address, slot.since)));
        }
        let mut notes = Vec::new();
        for port in self.ports.values_mut() {
            for (address, _) in port.shelf.in_state(&SlotState::Idle) {
                if let Some(since) = resting.get(&address) {
                    port.shelf.set(address, SlotState::Resting, *since);
                    notes.push((port.id.clone(), address, *since));
                }
            }
        }
        for (eni, address, since) in notes {
            let rest = self.rest(eni, address, RestKind::Cooling, since);
            out.notes.push(Change::PutRest(rest));
        }
    }

    /// Whether a sandbox has an address.
    pub(crate) fn owns(&self, key: &SandboxKey) -> bool {
        self.owners.contains_key(key)
    }

    /// All rests that the disk is to know of.
    pub(crate) fn all_rests(&self) -> Vec<RestRecord> {
        let shelved = self.ports.values().flat_map(|port| {
            let rests = port.shelf.iter().filter(|(_, slot)| slot.state.rests());
            rests.map(|(address, slot)| {
                let leaves = slot.state == SlotState::Leaving;
                let kind = if leaves { RestKind::Leaving } else { RestKind::Cooling };
                self.rest(port.id.clone(), address, kind, slot.since)
            })
        });
        let left = self.ports.values().flat_map(|port| {
            let left = port.left.iter();
            left.map(|(address, at)| self.rest(port.id.clone(), *address, RestKind::Leaving, *at))
        });
        shelved.chain(left).chain(self.rests.iter().cloned()).collect()
    }

    /// Which sandbox has which address, by our records.
    pub(crate) fn held(&self) -> BTreeMap<IpAddr, SandboxKey> {
        let each = self.owners.iter().flat_map(|(key, owned)| {
            owned.allocation.addresses.iter().map(|address| (address, key.clone()))
        });
        each.collect()
    }

    /// Whoever asked does not wait any more. What it was given and never saw needs no rest.
    pub(crate) fn cancel(&mut self, ticket: Ticket, key: &SandboxKey, now: Duration) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
        let unseen = self.owners.get(key).is_some_and(|owned| owned.ticket == Some(ticket));
        if !unseen {
            return;
        }
        let Some(owned) = self.owners.remove(key) else { return };
        if let Some(port) = self.ports.values_mut().find(|port| port.id == owned.allocation.eni) {
            // What the cloud does not know any more is not idle.
            port.drop_invalid(key);
            let back = port.shelf.release(key, &SlotState::Idle, now);
            for address in back {
                port.shelf.set(address, port.shelf.rested(address), now);
            }
        }
        self.reclaim.touch(now);
    }

    /// The cloud gives an address that it took from a pod to somebody else, perhaps to us. As long as
    /// that pod is here, cut off, the address rests: no node has two pods with one address.
    pub(crate) fn withhold(
        &mut self,
        members: impl Iterator<Item = IpPair>,
        now: Duration,
        out: &mut Outcome,
    ) {
        self.rest_on(out);
        let owned = self.owners.values().map(|owned| owned.allocation.addresses);
        let held: BTreeSet<IpAddr> =
            owned.chain(members).flat_map(|pair| pair.iter().collect::<Vec<_>>()).collect();
        let mut withheld = Vec::new();
        for port in self.ports.values_mut() {
            for (address, _) in port.shelf.in_state(&SlotState::Idle) {
                if held.contains(&address) {
                    port.shelf.set(address, SlotState::Resting, now);
                    withheld.push((port.id.clone(), address));
                }
            }
        }
        for (eni, address) in withheld {
            let rest = self.rest(eni, address, RestKind::Cooling, now);
            out.notes.push(Change::PutRest(rest));
        }
    }

    /// Starts to remove the traces of what has rested.
    pub(crate) fn bury(&mut self, now: Duration, out: &mut Outcome) {
        let cooldown = self.settings.cooldown;
        let mut rested = Vec::new();
        for port in self.ports.values_mut() {
            for (address, since) in port.shelf.in_state(&SlotState::Resting) {
                if since.saturating_add(cooldown) <= now {
                    port.shelf.set(address, SlotState::Burying, since);
                    rested.push(alone(address));
                }
            }
        }
        if !rested.is_empty() {
            out.effects.push(Effect::Bury(rested));
        }
    }

    /// Whether an address is on a shelf of the pool.
    pub(crate) fn has(&self, address: IpPair) -> bool {
        let on = |port: &Port| address.iter().any(|address| port.shelf.get(address).is_some());
        self.ports.values().any(on)
    }

    /// The traces are gone: the addresses can be handed out.
    pub(crate) fn buried(
        &mut self,
        addresses: &[IpPair],
        result: &Result<(), String>,
        now: Duration,
        out: &mut Outcome,
    ) {
        if let Err(error) = result {
            tracing::warn!(error, "traces of addresses that have rested cannot be removed yet");
        }
        let again = (now + BURY_RETRY).saturating_sub(self.settings.cooldown);
        for address in addresses.iter().flat_map(|pair| pair.iter()) {
            let burying = |port: &&mut Port| {
                port.shelf.get(address).is_some_and(|slot| slot.state == SlotState::Burying)
            };
            let Some(port) = self.ports.values_mut().find(burying) else { continue };
            if result.is_ok() {
                port.shelf.set(address, port.shelf.rested(address), now);
                out.notes.push(Change::RemoveRest(port.id.clone(), address));
            } else {
                port.shelf.set(address, SlotState::Resting, again);
            }
        }
    }

    /// Forgets addresses that left so long ago that no read tells of them any more.
    pub(crate) fn forget(&mut self, now: Duration, out: &mut Outcome) {
        let cooldown = self.settings.cooldown;
        let rested = |rest: &mut RestRecord| {
            rest.kind == RestKind::Cooling && rest.since.saturating_add(cooldown) <= now
        };
        let rested = self.rests.extract_if(.., rested);
        out.notes.extend(rested.map(|rest| Change::RemoveRest(rest.eni, rest.address)));
        let lag = self.settings.timing.lag;
        for port in self.ports.values_mut() {
            let (eni, notes) = (&port.id, &mut out.notes);
            port.left.retain(|address, since| {
                let stays = since.saturating_add(lag) > now;
                if !stays {
                    notes.push(Change::RemoveRest(eni.clone(), *address));
                }
                stays
            });
        }
    }

    /// An ENI is gone. What a pod had there rests to the end: the cloud may give it to another ENI.
    pub(super) fn rests_outlive(&mut self, port: &Port, out: &mut Outcome) {
        let cooling = |state: &SlotState| matches!(state, SlotState::Resting | SlotState::Burying);
        for (address, slot) in port.shelf.iter().filter(|(_, slot)| cooling(&slot.state)) {
            let rest = self.rest(port.id.clone(), address, RestKind::Cooling, slot.since);
            self.rests.push(rest);
        }
        let leaving = port.shelf.in_state(&SlotState::Leaving).into_iter();
        let left = port.left.keys().copied();
        let gone = leaving.map(|(address, _)| address).chain(left);
        out.notes.extend(gone.map(|address| Change::RemoveRest(port.id.clone(), address)));
    }

    /// When the next address has rested, or is forgotten.
    pub(super) fn rest_wake(&self) -> Option<Duration> {
        let left = self.ports.values().flat_map(|port| port.left.values());
        let left = left.map(|since| since.saturating_add(self.settings.timing.lag));
        let elsewhere = self.rests.iter().filter(|rest| rest.kind == RestKind::Cooling);
        let elsewhere = elsewhere.map(|rest| rest.since.saturating_add(self.settings.cooldown));
        self.rests_end().into_iter().chain(left).chain(elsewhere).min()
    }

    /// When each resting address of a port that serves is idle again, soonest first. In dual stack
    /// both of a pair rest equally long, so one family stands for both.
    pub(super) fn rests_end(&self) -> Vec<Duration> {
        let stack = self.settings.stack;
        let counts = |address: &IpAddr| address.is_ipv4() == stack.v4();
        let resting = self.ports.values().filter(|port| !port.lost).flat_map(|port| {
            let resting = port.shelf.in_state(&SlotState::Resting).into_iter();
            resting.filter(|(address, _)| counts(address)).map(|(_, since)| since)
        });
        let mut ends: Vec<_> =
            resting.map(|since| since.saturating_add(self.settings.cooldown)).collect();
        ends.sort();
        ends
    }

    pub(super) fn rest(
        &self,
        eni: EniId,
        address: IpAddr,
        kind: RestKind,
        since: Duration,
    ) -> RestRecord {
        let boot_id = self.settings.boot_id.clone();
        RestRecord { eni, address, since, boot_id, kind }
    }
}

impl Port {
    /// What the cloud knows rests; what it does not know any more is gone.
    fn put_to_rest(&mut self, key: &SandboxKey, now: Duration) -> Vec<IpAddr> {
        self.drop_invalid(key);
        self.shelf.release(key, &SlotState::Resting, now)
    }

    fn drop_invalid(&mut self, key: &SandboxKey) {
        for (address, _) in self.shelf.in_state(&SlotState::Invalid(key.clone())) {
            self.shelf.remove(address);
        }
    }

    /// An address that the checkpoint remembers.
    pub(super) fn restore(&mut self, rest: &RestRecord) {
        let state = match rest.kind {
            RestKind::Cooling => SlotState::Resting,
            RestKind::Leaving => SlotState::Leaving,
        };
        self.shelf.put(rest.address, false, state, rest.since);
    }
}

/// Traces are by address.
fn alone(address: IpAddr) -> IpPair {
    match address {
        IpAddr::V4(address) => IpPair::V4(address),
        IpAddr::V6(address) => IpPair::V6(address),
    }
}
