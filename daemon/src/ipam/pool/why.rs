//! Answers for those who wait in vain: at once where nothing can help, else at their deadline.

use std::time::Duration;

use controlplane::{CallError, VSwitches};

use super::plan::Barrier;
use super::shelf::Shelf;
use super::{Pool, Waiter};
use crate::ipam::event::Outcome;
use crate::ipam::{AllocError, Quota};

impl Pool {
    /// Refuses those whom nothing that is under way, and no address that rests, can serve in time.
    pub(crate) fn refuse(&mut self, now: Duration, out: &mut Outcome) {
        let Some(barrier) = self.barrier.clone() else { return };
        let served = usize::try_from(self.supply()).unwrap_or(usize::MAX).min(self.waiters.len());
        let unserved = self.waiters.split_off(served);
        let mut ends = self.rests_end().into_iter();
        for waiter in unserved {
            if ends.next().is_some_and(|end| end < waiter.deadline) {
                self.waiters.push_back(waiter);
            } else {
                out.answers.push((waiter.ticket, Err(self.refusal(&barrier, now))));
            }
        }
    }

    /// Answers those whose time is up.
    pub(crate) fn expire(&mut self, vswitches: &VSwitches, now: Duration, out: &mut Outcome) {
        let over: Vec<Waiter> =
            self.waiters.iter().filter(|waiter| waiter.deadline <= now).cloned().collect();
        self.waiters.retain(|waiter| waiter.deadline > now);
        for waiter in over {
            out.answers.push((waiter.ticket, Err(self.too_late(&waiter, vswitches, now))));
        }
    }

    /// Why nobody could be served, whoever came. A full pool is no reason: that would take the whole
    /// node out of service.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.stopping {
            return Some("terwayd is stopping".to_owned());
        }
        let trouble = self.truth.trouble.as_ref();
        match trouble.filter(|_| !self.truth.is_known()) {
            Some(error) => Some(format!("the node's ENIs cannot be read: {error}")),
            None if self.truth.is_known() => None,
            None => Some("the cloud has not yet said which ENIs this node has".to_owned()),
        }
    }

    fn too_late(&self, waiter: &Waiter, vswitches: &VSwitches, now: Duration) -> AllocError {
        if let Some(barrier) = &self.barrier {
            return self.refusal(barrier, now);
        }
        let waited = now.saturating_sub(waiter.since);
        // A call that would bring an address says more than one that only reads.
        let brings = |what: &str| what.starts_with("making") || what.starts_with("adding");
        let trouble = self.troubles(vswitches).min_by_key(|(what, at, _)| (!brings(what), *at));
        let Some((what, at, error)) = trouble else {
            let (why, next) = self.progress();
            return AllocError::NotYet { waited, why, next };
        };
        let next_try = at.saturating_sub(now);
        if error.is_throttled() {
            return AllocError::Throttled { waited, next_try, last_word: error.to_string() };
        }
        let next = format!("next try in {}", crate::ipam::error::seconds(next_try));
        AllocError::NotYet { waited, why: format!("{what} fails: {error}"), next }
    }

    /// Everything that fails at the moment, and when it is tried again.
    fn troubles<'a>(
        &'a self,
        vswitches: &'a VSwitches,
    ) -> impl Iterator<Item = (&'static str, Duration, &'a CallError)> {
        let truth = self.truth.trouble.as_ref();
        let truth = truth.map(|error| ("reading the node's ENIs", self.truth.not_before, error));
        let lives = self.making().filter_map(|eni| {
            let view = self.fleet.view(&eni.token)?;
            Some(("making an ENI", view.not_before, view.trouble.as_ref()?))
        });
        let ports = self.ports.values().filter_map(|port| {
            let error = port.asking.trouble.as_ref()?;
            Some(("adding addresses to an ENI", port.asking.not_before, error))
        });
        let creation = self.creation.trouble.as_ref();
        let creation = creation.map(|error| ("making an ENI", self.creation.not_before, error));
        let vswitch = vswitches.trouble();
        let vswitch = vswitch.map(|(at, error)| ("reading a vSwitch", at, error));
        truth.into_iter().chain(lives).chain(ports).chain(creation).chain(vswitch)
    }

    /// What is under way.
    fn progress(&self) -> (String, String) {
        if !self.truth.is_known() {
            let why = "the cloud has not yet said which ENIs this node has".to_owned();
            return (why, "it is being asked".to_owned());
        }
        let making = self.making().count();
        let adding = self.ports.values().filter(|port| !port.is_quiet()).count();
        let linking = self.ports.values().filter(|p| p.counts() && !p.serves()).count();
        let waiting = self.waiters.len();
        let why = format!(
            "{making} ENIs are being made, {linking} links set up and {adding} ENIs get more \
             addresses, for {} pods that wait",
            waiting + 1
        );
        (why, "what was asked for goes on, and serves the next try".to_owned())
    }

    fn refusal(&self, barrier: &Barrier, now: Duration) -> AllocError {
        match barrier.clone() {
            Barrier::Full { limit } => {
                let stack = self.settings.stack;
                let sum = |count: &dyn Fn(&Shelf) -> u32| {
                    self.ports.values().map(|port| count(&port.shelf)).sum()
                };
                let next_free = self.rests_end().first().map(|end| end.saturating_sub(now));
                AllocError::Full {
                    used: u32::try_from(self.owners.len()).unwrap_or(u32::MAX),
                    resting: sum(&|shelf| shelf.resting(stack)),
                    leaving: sum(&|shelf| shelf.leaving(stack)),
                    limit,
                    next_free,
                }
            }
            Barrier::Enis { used, limit, last_word } => {
                AllocError::QuotaReached { quota: Quota::Enis, used, limit, last_word }
            }
            Barrier::VSwitches(exhausted) => AllocError::VSwitchExhausted {
                whose: "eni_conf".to_owned(),
                rooms: exhausted.rooms,
                next_try: exhausted.next_try.saturating_sub(now),
                last_word: exhausted.last_word,
            },
            Barrier::Config { message, cure } => {
                AllocError::InvalidConfig { message, cure: cure.to_owned() }
            }
        }
    }
}
