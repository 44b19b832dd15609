//! Fewer addresses and ENIs: what is idle above the maximum goes back to the cloud, and an ENI
//! without pods goes as a whole. Nothing goes on our own word alone: the kernel is asked who uses an
//! address, and before an ENI goes the cloud is read anew.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cloud::{Action, ClientToken};
use controlplane::{CallError, VSwitches, is_final};
use ipnetwork::{IpNetwork, Ipv4Network};

use super::port::{Intent, Retired, Surplus};
use super::shelf::SlotState;
use super::{Family, Lot, Pool, Port};
use crate::checkpoint::{Change, RestKind};
use crate::config::EniPolicy;
use crate::datapath::EniKind;
use crate::ipam::event::{Ask, Effect, Outcome};

/// An ENI without pods stays this long, for the next pods may come.
const LINGER: Duration = Duration::from_mins(2);
/// A prefix that is to become empty serves again after this.
const FREEZE: Duration = Duration::from_mins(10);
/// After a refusal that repetition does not help against.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest time between two tries to give back what the cloud does not take.
const GIVE_AT_MOST: Duration = Duration::from_mins(10);
/// The most addresses of one Unassign.
const UNASSIGN_AT_MOST: u32 = 10;

impl Pool {
    /// Begins to give back what is idle above the maximum, from the emptiest ENI first.
    pub(crate) fn shrink(&mut self, now: Duration, out: &mut Outcome) {
        let releases = self.settings.degradation.releases();
        if self.stopping || !releases || !self.waiters.is_empty() || !self.truth.is_known() {
            return;
        }
        let mut surplus = self.idle().saturating_sub(self.idle_limit());
        let leaving: u32 = self.ports.values().map(|port| port.leaving(self.settings.stack)).sum();
        surplus = surplus.saturating_sub(leaving);
        let enough = self.idle() >= self.settings.idle.min();
        let mut spare_enis = self.kept_enis().saturating_sub(self.settings.min_enis);
        let mut spare_prefixes = self.spare_prefixes(Family::V4);
        let mut spare_v6_prefixes = self.spare_prefixes(Family::V6);
        for token in self.emptiest_first(now) {
            let Some(port) = self.ports.get(&token) else { continue };
            let held = port.shelf.idle_pairs(self.settings.stack);
            let prefixes = (port.shelf.prefixes(Family::V4), port.shelf.prefixes(Family::V6));
            let spare = prefixes.0 <= spare_prefixes && prefixes.1 <= spare_v6_prefixes;
            let given = if spare_enis > 0 && spare && port.could_go() && held <= surplus {
                spare_enis -= 1;
                (spare_prefixes, spare_v6_prefixes) =
                    (spare_prefixes - prefixes.0, spare_v6_prefixes - prefixes.1);
                // It counts as given also while it lingers: its fellows are not emptied instead.
                surplus -= held;
                if !self.is_due_to_go(&token, now) {
                    continue;
                }
                Surplus::Eni
            } else if let Some((prefix, idle)) =
                port.spare_prefix(surplus).filter(|_| spare_prefixes > 0)
            {
                (surplus, spare_prefixes) = (surplus - idle, spare_prefixes - 1);
                Surplus::Prefix(prefix)
            } else {
                let unpaired = port.unpaired(self.settings.stack);
                let addresses = if enough && !unpaired.is_empty() {
                    unpaired
                } else {
                    port.spare(self.settings.stack, surplus.min(UNASSIGN_AT_MOST))
                };
                if addresses.is_empty() {
                    continue;
                }
                surplus = surplus.saturating_sub(pairs(&addresses, self.settings.stack));
                Surplus::Addresses(addresses)
            };
            self.check(token, given, out);
        }
        self.freeze(surplus, now);
    }

    /// Has the kernel asked who uses what is to go.
    fn check(&mut self, token: ClientToken, given: Surplus, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(&token) else { return };
        let addresses = port.all_of(&given);
        let eni = (given == Surplus::Eni).then(|| port.id.clone());
        port.asking.intent = Some(Intent::Check(given));
        port.asking.busy = true;
        out.effects.push(Effect::Witness { port: token, eni, addresses });
    }

    /// So many prefixes of a family may go.
    fn spare_prefixes(&self, family: Family) -> u32 {
        let going = Intent::Check(Surplus::Eni);
        let stays =
            |port: &&Port| !port.is_closing() && port.asking.intent.as_ref() != Some(&going);
        let has = self.ports.values().filter(stays).map(|port| port.shelf.prefixes(family));
        let has: u32 = has.sum();
        let floor = self.settings.prefixes.map_or(0, |floor| match family {
            Family::V4 => floor.v4,
            Family::V6 => floor.v6,
        });
        has.saturating_sub(floor)
    }

    /// Where no whole prefix is idle, the one that is nearest to it serves nobody new, so that it becomes so.
    fn freeze(&mut self, surplus: u32, now: Duration) {
        let frozen = self.ports.values().any(|port| port.shelf.thaws_at().is_some());
        if frozen || surplus < Lot::V4_PREFIX || self.spare_prefixes(Family::V4) == 0 {
            return;
        }
        let serving = self.ports.values_mut().filter(|port| port.serves());
        let thinnest = serving.filter_map(|port| {
            let (prefix, idle) = port.shelf.thinnest_prefix()?;
            Some((idle, prefix, port))
        });
        let thinnest = thinnest.filter(|(idle, ..)| *idle <= surplus);
        if let Some((_, prefix, port)) =
            thinnest.max_by_key(|(idle, prefix, _)| (*idle, prefix.ip()))
        {
            tracing::info!(eni = %port.id, %prefix, "a prefix serves nobody new, so that it can be given back");
            port.shelf.freeze(prefix, now + FREEZE, now);
        }
    }

    /// Prefixes that did not become empty in time serve again; all of them when a pod waits.
    pub(super) fn thaw(&mut self, now: Duration) {
        let waiting = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let all = waiting > self.idle();
        for port in self.ports.values_mut() {
            port.shelf.thaw(now, all);
        }
    }

    /// How many pods could be served at once.
    pub(crate) fn idle(&self) -> u32 {
        let serving = self.ports.values().filter(|port| port.serves());
        serving.map(|port| port.shelf.idle_pairs(self.settings.stack)).sum()
    }

    /// Secondary ENIs that are here to stay, or on their way.
    pub(super) fn kept_enis(&self) -> u32 {
        let going = |token: &ClientToken| {
            self.ports.get(token).is_some_and(|port| port.lost || port.is_closing())
        };
        let kept = self.fleet.iter().filter(|eni| !going(&eni.token));
        u32::try_from(kept.filter(|eni| eni.goal == controlplane::Goal::Bound).count())
            .unwrap_or(u32::MAX)
    }

    /// Those that can lose something, in the order that is the reverse of who serves first.
    fn emptiest_first(&self, now: Duration) -> Vec<ClientToken> {
        let gives = |port: &Port| port.serves() && port.is_quiet() && port.asking.gives(now);
        let mut ports: Vec<_> = self.ports.iter().filter(|(_, port)| gives(port)).collect();
        ports.sort_by_key(|(_, port)| (port.shelf.used(), Reverse(port.number)));
        if self.settings.eni_policy == EniPolicy::LeastIps {
            ports.reverse();
        }
        ports.into_iter().map(|(token, _)| token.clone()).collect()
    }

    /// Whether an ENI has been empty for long enough, also by a fresh word of the cloud.
    fn is_due_to_go(&mut self, token: &ClientToken, now: Duration) -> bool {
        let Some(port) = self.ports.get(token) else { return false };
        let empty_since = port.empty_since();
        if now < empty_since.saturating_add(LINGER) {
            return false;
        }
        let proven = empty_since.saturating_add(self.settings.timing.lag);
        let seen = self.truth.begun().is_some_and(|begun| begun >= proven);
        if !seen {
            self.truth.want(now);
        }
        seen && !port.doubt
    }

    /// When an ENI without pods has lingered.
    pub(super) fn shrink_wake(&self, now: Duration) -> Option<Duration> {
        let releases = self.settings.degradation.releases();
        if !releases || !self.waiters.is_empty() || self.idle() <= self.idle_limit() {
            return None;
        }
        let lingering = self.ports.values().filter(|port| port.serves() && port.could_go());
        lingering.map(|port| port.empty_since().saturating_add(LINGER)).filter(|at| *at > now).min()
    }

    /// The kernel has said which of the addresses it knows as in use.
    pub(crate) fn witnessed(
        &mut self,
        token: &ClientToken,
        result: Result<BTreeSet<IpAddr>, String>,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        let Some(Intent::Check(given)) = port.asking.intent.take() else { return };
        port.asking.busy = false;
        if port.retired.is_some() {
            // It has been said to be somebody else's meanwhile.
            return;
        }
        let in_use = match result {
            Ok(in_use) => in_use,
            Err(error) => {
                tracing::warn!(eni = %port.id, error, "the kernel does not say who uses addresses; nothing is given back yet");
                port.asking.give_not_before = now + PAUSE;
                return;
            }
        };
        if !self.settings.degradation.releases() {
            return;
        }
        if !in_use.is_empty() {
            port.asking.give_not_before = now + PAUSE;
            return self.rest_in_use(&in_use, now, out);
        }
        match given {
            // Somebody else's by now.
            _ if port.retired.is_some() => {}
            Surplus::Eni if port.could_go() && !port.doubt && self.waiters.is_empty() => {
                self.close(token, out);
            }
            // Somebody came meanwhile.
            Surplus::Eni => {}
            Surplus::Addresses(addresses) => {
                let blocks = addresses.into_iter().map(IpNetwork::from).collect();
                self.give_back(token, blocks, now, out);
            }
            Surplus::Prefix(prefix) => {
                self.give_back(token, vec![IpNetwork::V4(prefix)], now, out);
            }
        }
    }

    /// An ENI without pods goes: nobody is served from it any more.
    fn close(&mut self, token: &ClientToken, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(token) else { return };
        tracing::info!(eni = %port.id, "an ENI without pods is given back");
        port.retired = Some(Retired::Closing);
        out.effects.push(Effect::RemoveLink(port.id.clone()));
        self.fleet.release(token);
    }

    /// What is still idle goes.
    fn give_back(
        &mut self,
        token: &ClientToken,
        blocks: Vec<IpNetwork>,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        let free = |address: &IpAddr| {
            let slot = port.shelf.get(*address);
            slot.is_some_and(|slot| matches!(slot.state, SlotState::Idle | SlotState::Frozen))
        };
        let addresses = port.in_blocks(&blocks);
        if addresses.is_empty() || !addresses.iter().all(free) || !self.waiters.is_empty() {
            // Somebody came meanwhile; what is left over is asked about anew.
            return;
        }
        for address in &addresses {
            port.shelf.set(*address, SlotState::Leaving, now);
        }
        port.asking.intent = Some(Intent::Unassign);
        port.asking.busy = true;
        let eni = port.id.clone();
        for address in addresses {
            let rest = self.rest(eni.clone(), address, RestKind::Leaving, now);
            out.writes.push(Change::PutRest(rest));
        }
        out.effects.push(Effect::Ask(Ask::Unassign { port: token.clone(), eni, blocks }));
    }

    /// Addresses went back to the cloud, or perhaps not.
    pub(crate) fn unassigned(
        &mut self,
        token: &ClientToken,
        blocks: &[IpNetwork],
        result: Result<(), CallError>,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        port.asking.busy = false;
        port.asking.intent = None;
        let addresses = port.in_blocks(blocks);
        match result {
            Ok(()) => {
                port.written = Some(now);
                let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
                vswitches.give_back(&port.vswitch, u32::try_from(v4).unwrap_or(u32::MAX));
                for block in blocks {
                    port.shelf.remove_prefix(block);
                }
                for address in addresses {
                    port.shelf.remove(address);
                    port.left.insert(address, now);
                }
                (port.asking.tries, port.asking.trouble) = (0, None);
                port.asking.give_refused = 0;
            }
            Err(error) if kept(&error, &addresses) => {
                let wait = PAUSE.saturating_mul(1 << port.asking.give_refused.min(10));
                let wait = wait.min(GIVE_AT_MOST);
                tracing::warn!(%error, eni = %port.id, ?wait, "addresses are not given back; they are idle again");
                for address in addresses {
                    port.shelf.set(address, port.shelf.rested(address), now);
                    out.notes.push(Change::RemoveRest(port.id.clone(), address));
                }
                port.asking.give_refused = port.asking.give_refused.saturating_add(1);
                port.asking.give_not_before = now + wait;
            }
            Err(error) => {
                // A read that begins late enough tells which of them are gone; until then they
                // stay as they are, and the ENI gets no other call.
                tracing::warn!(%error, eni = %port.id, "addresses could not be given back");
                let lag = self.settings.timing.lag;
                port.written = Some(now);
                port.doubt = true;
                port.asking.not_before = now + lag;
                port.asking.trouble = Some(error);
                self.truth.want(now + lag);
            }
        }
    }
}

/// How many pods these addresses could serve.
fn pairs(addresses: &[IpAddr], stack: model::IpStack) -> u32 {
    let of = |family| addresses.iter().filter(|address| Family::of(**address) == family).count();
    let pairs = Family::all(stack).map(of).min().unwrap_or(0);
    u32::try_from(pairs).unwrap_or(u32::MAX)
}

/// Whether the ENI surely has all of them still: nothing was sent, or the first call was refused for
/// good. With a pair the second call may be refused when the first has had its effect.
fn kept(error: &CallError, addresses: &[IpAddr]) -> bool {
    match error {
        CallError::NotRecorded(_) => true,
        CallError::Cloud(error) => {
            let first = error.action() == Action::UnassignPrivateIpAddresses
                || addresses.iter().all(IpAddr::is_ipv6);
            first && is_final(error)
        }
    }
}

impl Port {
    /// Whether nobody would miss it: a NIC of its own without pods.
    fn could_go(&self) -> bool {
        let free = |state: &SlotState| matches!(state, SlotState::Idle | SlotState::Frozen);
        let idle = self.shelf.iter().all(|(_, slot)| free(&slot.state));
        self.kind == EniKind::Secondary && idle && self.is_quiet()
    }

    /// When the last of its addresses became idle.
    fn empty_since(&self) -> Duration {
        self.shelf.iter().map(|(_, slot)| slot.since).max().unwrap_or_default()
    }

    /// How many of the idle are about to go.
    fn leaving(&self, stack: model::IpStack) -> u32 {
        match &self.asking.intent {
            Some(Intent::Check(Surplus::Eni)) => self.shelf.idle_pairs(stack),
            Some(Intent::Check(Surplus::Prefix(prefix))) => self.shelf.idle_of(*prefix),
            Some(Intent::Check(Surplus::Addresses(addresses))) => pairs(addresses, stack),
            _ => 0,
        }
    }

    /// The addresses that would go.
    fn all_of(&self, given: &Surplus) -> Vec<IpAddr> {
        match given {
            Surplus::Addresses(addresses) => addresses.clone(),
            Surplus::Prefix(prefix) => self.in_blocks(&[IpNetwork::V4(*prefix)]),
            Surplus::Eni => self.shelf.iter().map(|(address, _)| address).collect(),
        }
    }

    /// The addresses of these that have a slot.
    fn in_blocks(&self, blocks: &[IpNetwork]) -> Vec<IpAddr> {
        let addresses = self.shelf.iter().map(|(address, _)| address);
        addresses.filter(|address| blocks.iter().any(|block| block.contains(*address))).collect()
    }

    /// A prefix that nobody has an address of and that takes no more than `surplus` idle ones along.
    fn spare_prefix(&self, surplus: u32) -> Option<(Ipv4Network, u32)> {
        let spare = self.shelf.spare_prefixes().into_iter();
        spare.filter(|(_, idle)| *idle <= surplus).min_by_key(|(prefix, idle)| (*idle, prefix.ip()))
    }

    /// Single addresses of one family that have no partner of the other: a cut-off call left them.
    fn unpaired(&self, stack: model::IpStack) -> Vec<IpAddr> {
        let pairs = self.shelf.idle_pairs(stack);
        for family in Family::all(stack) {
            let alone = self.shelf.available(family).saturating_sub(pairs).min(UNASSIGN_AT_MOST);
            let most = usize::try_from(alone).unwrap_or(0);
            let addresses: Vec<IpAddr> =
                self.shelf.releasable(family).into_iter().take(most).collect();
            if !addresses.is_empty() {
                return addresses;
            }
        }
        Vec::new()
    }

    /// At most so many whole pairs that can be given back.
    fn spare(&self, stack: model::IpStack, pairs: u32) -> Vec<IpAddr> {
        let families: Vec<_> =
            Family::all(stack).map(|family| self.shelf.releasable(family)).collect();
        let most = usize::try_from(pairs).unwrap_or(usize::MAX);
        let pairs = families.iter().map(Vec::len).min().unwrap_or(0).min(most);
        families.into_iter().flat_map(|family| family.into_iter().take(pairs)).collect()
    }
}
