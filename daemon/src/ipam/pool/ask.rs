//! More and fewer addresses for ENIs that are there: one call at a time for each of them.

use std::net::IpAddr;
use std::time::Duration;

use cloud::{ClientToken, Meaning, Outcome as Effected, Thing};
use controlplane::{CallError, VSwitches};
use ipnetwork::IpNetwork;

use super::port::{Asking, Intent};
use super::shelf::SlotState;
use super::{Family, Pool, Port};
use crate::checkpoint::{AssignRecord, Change};
use crate::ipam::event::{Ask, Effect, Outcome};
use crate::ipam::lot::Lot;

/// After a refusal that repetition does not help against.
const PAUSE: Duration = Duration::from_secs(30);

impl Pool {
    /// The calls for ports that have something queued.
    pub(crate) fn ask(&mut self, now: Duration, out: &mut Outcome) {
        if self.stopping || !self.settings.degradation.calls() {
            return;
        }
        for (token, port) in &mut self.ports {
            let apt = !port.lost && port.retired.is_none() && !port.asking.busy;
            if !apt || now < port.asking.not_before {
                continue;
            }
            let batch = self.settings.batch;
            if port.asking.intent.is_none() {
                let Some(record) = port.next_intent(token, batch, || self.random.token()) else {
                    continue;
                };
                let AssignRecord { lot, count, token, .. } = record.clone();
                port.asking.intent = Some(Intent::Assign { lot, count, token });
                out.writes.push(Change::PutAssign(record));
            }
            let Some(Intent::Assign { lot, count, token: intent }) = port.asking.intent.clone()
            else {
                continue;
            };
            let (eni, port_token) = (port.id.clone(), token.clone());
            let ask = Ask::Assign { port: port_token, eni, lot, count, token: intent };
            out.effects.push(Effect::Ask(ask));
            port.asking.busy = true;
        }
    }

    /// The intents that the disk is to know of.
    pub(crate) fn all_assigns(&self) -> impl Iterator<Item = AssignRecord> {
        self.ports.iter().filter_map(|(port, it)| match it.asking.intent.clone() {
            Some(Intent::Assign { lot, count, token }) => {
                Some(AssignRecord { token, eni: port.clone(), lot, count })
            }
            _ => None,
        })
    }

    /// More addresses came, or not.
    pub(crate) fn assigned(
        &mut self,
        token: &ClientToken,
        lot: Lot,
        result: Result<Vec<IpNetwork>, CallError>,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        port.asking.busy = false;
        port.written = Some(now);
        match result {
            Ok(came) => {
                if lot.family() == Family::V4 {
                    let count = u32::try_from(came.len()).unwrap_or(u32::MAX);
                    vswitches.take(&port.vswitch, count.saturating_mul(lot.size()));
                }
                port.take_in(&came, lot, now, out);
                port.give_up_intent(out);
                (port.asking.tries, port.asking.trouble) = (0, None);
            }
            Err(error) => self.not_assigned(token, lot, error, vswitches, now, out),
        }
    }

    fn not_assigned(
        &mut self,
        token: &ClientToken,
        lot: Lot,
        error: CallError,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Some(port) = self.ports.get_mut(token) else { return };
        let timing = &self.settings.timing;
        let wait =
            timing.addresses.pause(port.asking.tries, timing.least(&error), &mut self.random);
        port.asking.tries = port.asking.tries.saturating_add(1);
        port.asking.not_before = now + wait;
        port.asking.trouble = Some(error.clone());
        let CallError::Cloud(error) = error else {
            // It may have been sent before, and is on the disk or written again before it is sent.
            return;
        };
        port.doubt = true;
        if error.outcome() == Effected::Unknown {
            // The same token again tells what became of it.
            return;
        }
        let prefixes = lot == Lot::V4Prefix;
        match error.meaning() {
            Some(Meaning::VSwitchExhausted { .. }) if prefixes => {
                // Single addresses may be left where no whole prefix is.
                let vswitch = port.vswitch.clone();
                port.asking.not_before = now;
                port.give_up(out);
                self.no_prefix_left(&vswitch, &error.to_string(), now);
            }
            Some(Meaning::VSwitchExhausted { .. }) => {
                vswitches.block(&port.vswitch, error.to_string(), now);
                port.give_up(out);
            }
            Some(Meaning::V4Quota | Meaning::V6Quota) => {
                port.asking.full = true;
                port.give_up(out);
                self.truth.want(now);
            }
            Some(Meaning::NotFound(Thing::Eni) | Meaning::EniState | Meaning::TokenMismatch) => {
                port.give_up(out);
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
                port.give_up(out);
            }
        }
    }

    pub(super) fn ask_wake(&self, now: Duration) -> Option<Duration> {
        if !self.settings.degradation.calls() {
            return None;
        }
        let due = self.ports.values().filter(|port| {
            !port.lost && port.retired.is_none() && !port.asking.busy && !port.is_quiet()
        });
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
    pub(super) fn gives(&self, now: Duration) -> bool {
        self.not_before.max(self.give_not_before) <= now
    }
}

impl Port {
    fn next_intent(
        &mut self,
        port: &ClientToken,
        batch: u32,
        token: impl FnOnce() -> ClientToken,
    ) -> Option<AssignRecord> {
        let (lot, wanted) = self.asking.queued.pop_first()?;
        let count = wanted.min(lot.at_most(batch));
        if wanted > count {
            self.asking.queued.insert(lot, wanted - count);
        }
        Some(AssignRecord { token: token(), eni: port.clone(), lot, count })
    }

    /// What the cloud gave is idle, but for what is known already: a repeated answer may name what
    /// is long in use.
    fn take_in(&mut self, came: &[IpNetwork], lot: Lot, now: Duration, out: &mut Outcome) {
        let back: Vec<IpAddr> = self.left.keys().copied().collect();
        for address in back.into_iter().filter(|a| came.iter().any(|block| block.contains(*a))) {
            self.left.remove(&address);
            out.notes.push(Change::RemoveRest(self.id.clone(), address));
        }
        for block in came {
            match lot {
                Lot::V4Prefix | Lot::V6Prefix => {
                    self.shelf.put_prefix(*block, &SlotState::Idle, now);
                }
                Lot::V4 | Lot::V6 if self.shelf.get(block.ip()).is_none() => {
                    self.shelf.put(block.ip(), false, SlotState::Idle, now);
                }
                Lot::V4 | Lot::V6 => {}
            }
        }
    }

    /// What was asked for will not come from here.
    pub(super) fn give_up(&mut self, out: &mut Outcome) {
        self.give_up_intent(out);
        self.asking.queued.clear();
    }

    /// What is in hand is done, or never will be.
    pub(super) fn give_up_intent(&mut self, out: &mut Outcome) {
        if let Some(Intent::Assign { token, .. }) = self.asking.intent.take() {
            out.notes.push(Change::RemoveAssign(token));
        }
    }
}
