//! More and fewer addresses for ENIs that are there: one call at a time for each of them.

use std::net::IpAddr;
use std::time::Duration;

use cloud::{Action, ClientToken, Meaning, Outcome as Effected, Thing};
use controlplane::{CallError, VSwitches, is_final};

use super::plan::V6_BATCH;
use super::port::{Asking, Intent};
use super::shelf::SlotState;
use super::{Family, Pool, Port};
use crate::checkpoint::{Change, RestKind};
use crate::ipam::event::{Ask, Effect, Outcome};

/// The first repetition of a call that failed.
const RETRY: Duration = Duration::from_millis(500);
/// The longest time between two repetitions.
const RETRY_AT_MOST: Duration = Duration::from_secs(30);
/// After a refusal that repetition does not help against.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest time between two tries to give back what the cloud does not take.
const GIVE_AT_MOST: Duration = Duration::from_mins(10);
/// The most addresses of one Unassign.
const UNASSIGN_AT_MOST: usize = 10;

impl Pool {
    /// The calls for ports that have something queued.
    pub(crate) fn ask(&mut self, now: Duration, out: &mut Outcome) {
        if self.stopping {
            return;
        }
        for (token, port) in &mut self.ports {
            if port.lost || port.asking.busy || now < port.asking.not_before {
                continue;
            }
            let batch = self.settings.batch;
            let intent = port.asking.intent.clone();
            let intent = intent.or_else(|| port.next_intent(batch, || self.random.token()));
            let Some(Intent::Assign { family, count, token: intent_token }) = &intent else {
                continue;
            };
            out.effects.push(Effect::Ask(Ask::Assign {
                port: token.clone(),
                eni: port.id.clone(),
                family: *family,
                count: *count,
                token: intent_token.clone(),
            }));
            port.asking.busy = true;
            port.asking.intent = intent;
        }
    }

    /// More addresses came, or not.
    pub(crate) fn assigned(
        &mut self,
        token: &ClientToken,
        family: Family,
        result: Result<Vec<IpAddr>, CallError>,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        port.asking.busy = false;
        port.written = Some(now);
        let error = match result {
            Ok(addresses) => {
                if family == Family::V4 {
                    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
                    vswitches.take(&port.vswitch, count);
                }
                for address in addresses {
                    if port.left.remove(&address).is_some() {
                        out.notes.push(Change::RemoveRest(port.id.clone(), address));
                    }
                    // A repeated answer may name what is long in use.
                    if port.shelf.get(address).is_none() {
                        port.shelf.put(address, false, SlotState::Idle, now);
                    }
                }
                port.asking.intent = None;
                (port.asking.tries, port.asking.trouble) = (0, None);
                return;
            }
            Err(error) => error,
        };
        let wait = RETRY.saturating_mul(1 << port.asking.tries.min(10)).min(RETRY_AT_MOST);
        let throttled = self.settings.timing.throttled;
        let least = if error.is_throttled() { throttled } else { Duration::ZERO };
        port.asking.tries = port.asking.tries.saturating_add(1);
        port.asking.not_before = now + self.random.jitter(wait.max(least));
        port.asking.trouble = Some(error.clone());
        let CallError::Cloud(error) = error else { return };
        port.doubt = true;
        if error.outcome() == Effected::Unknown {
            // The same token again tells what became of it.
            return;
        }
        match error.meaning() {
            Some(Meaning::VSwitchExhausted { .. }) => {
                vswitches.block(&port.vswitch, error.to_string(), now);
                port.give_up();
            }
            Some(Meaning::V4Quota | Meaning::V6Quota) => {
                port.asking.full = true;
                port.give_up();
                self.truth.want(now);
            }
            Some(Meaning::NotFound(Thing::Eni) | Meaning::EniState | Meaning::TokenMismatch) => {
                port.give_up();
                self.truth.want(now);
            }
            Some(
                Meaning::Throttled
                | Meaning::Conflict
                | Meaning::Unavailable
                | Meaning::ExpiredCredentials
                | Meaning::Clock
                | Meaning::InstanceState,
            )
            | None => {}
            Some(_) => {
                port.asking.not_before = now + PAUSE;
                port.give_up();
            }
        }
    }

    /// Gives idle addresses above the maximum back, from the emptiest ENI first.
    pub(crate) fn trim(&mut self, now: Duration, out: &mut Outcome) {
        if self.stopping || !self.waiters.is_empty() || !self.truth.is_known() {
            return;
        }
        let stack = self.settings.stack;
        let idle: u32 = self
            .ports
            .values()
            .filter(|port| port.serves())
            .map(|port| port.shelf.idle_pairs(stack))
            .sum();
        let mut surplus =
            usize::try_from(idle.saturating_sub(self.settings.idle.max())).unwrap_or(0);
        let mut tokens: Vec<_> = self
            .ports
            .iter()
            .filter(|(_, port)| port.serves() && port.is_quiet() && port.asking.gives(now))
            .map(|(token, port)| (port.shelf.used(), token.clone()))
            .collect();
        tokens.sort();
        for (_, token) in tokens {
            let Some(port) = self.ports.get_mut(&token) else { continue };
            let addresses = port.spare(stack, surplus.min(UNASSIGN_AT_MOST));
            if addresses.is_empty() {
                continue;
            }
            surplus = surplus.saturating_sub(addresses.len() / Family::all(stack).count().max(1));
            for address in &addresses {
                port.shelf.set(*address, SlotState::Leaving, now);
            }
            port.asking.intent = Some(Intent::Unassign);
            port.asking.busy = true;
            let eni = port.id.clone();
            for address in &addresses {
                let rest = self.rest(eni.clone(), *address, RestKind::Leaving, now);
                out.writes.push(Change::PutRest(rest));
            }
            let ask = Ask::Unassign { port: token, eni, addresses };
            out.effects.push(Effect::Ask(ask));
        }
    }

    /// Addresses went back to the cloud, or perhaps not.
    pub(crate) fn unassigned(
        &mut self,
        token: &ClientToken,
        addresses: &[IpAddr],
        result: Result<(), CallError>,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        port.asking.busy = false;
        port.asking.intent = None;
        match result {
            Ok(()) => {
                port.written = Some(now);
                let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
                vswitches.give_back(&port.vswitch, u32::try_from(v4).unwrap_or(u32::MAX));
                for address in addresses {
                    port.shelf.remove(*address);
                    port.left.insert(*address, now);
                }
                (port.asking.tries, port.asking.trouble) = (0, None);
                port.asking.give_refused = 0;
            }
            Err(error) if kept(&error, addresses) => {
                let wait = PAUSE.saturating_mul(1 << port.asking.give_refused.min(10));
                let wait = wait.min(GIVE_AT_MOST);
                tracing::warn!(%error, eni = %port.id, ?wait, "addresses are not given back; they are idle again");
                for address in addresses {
                    port.shelf.set(*address, SlotState::Idle, now);
                    out.notes.push(Change::RemoveRest(port.id.clone(), *address));
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

    pub(super) fn ask_wake(&self, now: Duration) -> Option<Duration> {
        let due =
            self.ports.values().filter(|port| !port.lost && !port.asking.busy && !port.is_quiet());
        let due = due.map(|port| port.asking.not_before);
        let gives = self.ports.values().map(|port| port.asking.give_not_before);
        due.chain(gives.filter(|at| *at > now)).min()
    }

    /// Whether anything is under way that a look at the cloud may tell more about.
    pub(super) fn is_busy(&self) -> bool {
        let unsettled =
            |port: &Port| !port.is_quiet() || port.missing.is_some() || !port.known || port.doubt;
        self.making().next().is_some() || self.ports.values().any(unsettled)
    }
}

impl Asking {
    /// Whether addresses may be given back now.
    fn gives(&self, now: Duration) -> bool {
        self.not_before.max(self.give_not_before) <= now
    }
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
    fn next_intent(&mut self, batch: u32, token: impl FnOnce() -> ClientToken) -> Option<Intent> {
        let (family, wanted) = self.asking.queued.pop_first()?;
        let most = match family {
            Family::V4 => batch,
            Family::V6 => batch.min(V6_BATCH),
        };
        let count = wanted.min(most);
        if wanted > count {
            self.asking.queued.insert(family, wanted - count);
        }
        Some(Intent::Assign { family, count, token: token() })
    }

    /// What was asked for will not come from here.
    fn give_up(&mut self) {
        self.asking.intent = None;
        self.asking.queued.clear();
    }

    /// At most so many whole pairs that can be given back.
    fn spare(&self, stack: model::IpStack, pairs: usize) -> Vec<IpAddr> {
        let families: Vec<_> =
            Family::all(stack).map(|family| self.shelf.releasable(family)).collect();
        let pairs = families.iter().map(Vec::len).min().unwrap_or(0).min(pairs);
        families.into_iter().flat_map(|family| family.into_iter().take(pairs)).collect()
    }
}
