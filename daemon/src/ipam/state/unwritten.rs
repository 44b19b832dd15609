//! What a failed transaction was to make durable: all of it is written again, before anything is
//! asked for that depends on it, until it is known to be on the disk.

use std::collections::BTreeSet;
use std::time::Duration;

use model::SandboxKey;

use super::State;
use crate::checkpoint::Change;
use crate::ipam::event::{Effect, Outcome};

/// Without anything to do, it is written again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// What the disk lacks.
#[derive(Debug, Clone, Default)]
pub(super) struct Unwritten {
    /// The least try whose success makes up for the last failure; `None` if the disk lacks nothing.
    needed: Option<u64>,
    /// So often all was written again.
    tries: u64,
    /// When it is to be written again at the latest, unless a try is on its way.
    again: Option<Duration>,
    /// Sandboxes that are released and whose records may still be there.
    released: BTreeSet<SandboxKey>,
}

impl Unwritten {
    /// A transaction failed, and these effects with it.
    pub(super) fn failed(&mut self, effects: &[Effect], now: Duration) {
        self.needed = Some(self.tries + 1);
        self.again = Some(now.saturating_add(AGAIN));
        let released = effects.iter().filter_map(|effect| match effect {
            Effect::Released(_, key) => Some(key.clone()),
            _ => None,
        });
        self.released.extend(released);
    }

    /// A try is on the disk.
    pub(super) fn written(&mut self, tried: u64) {
        if self.needed.is_some_and(|needed| tried >= needed) {
            (self.needed, self.again) = (None, None);
            self.released.clear();
        }
    }

    pub(super) const fn wake(&self) -> Option<Duration> {
        self.again
    }
}

impl State {
    /// Puts what the disk lacks in front of what this step writes, when the step asks for something
    /// or it is time: which record of it was in the failed transaction does not matter.
    pub(super) fn write_again(&mut self, now: Duration, out: &mut Outcome) {
        if self.unwritten.needed.is_none() {
            return;
        }
        let due = self.unwritten.again.is_some_and(|at| at <= now);
        if out.effects.is_empty() && out.writes.is_empty() && !due {
            return;
        }
        self.unwritten.again = None;
        self.unwritten.tries += 1;
        out.effects.push(Effect::Rewritten(self.unwritten.tries));
        let has = |key: &&SandboxKey| self.pool.owns(key) || self.members.owns(key);
        let released = self.unwritten.released.iter().filter(|key| !has(key));
        let mut changes: Vec<Change> = released.cloned().map(Change::RemoveSandbox).collect();
        let enis = self.pool.records().cloned().map(|eni| Change::PutEni(Box::new(eni)));
        changes.extend(enis);
        let members = self.members.enis().cloned().map(|eni| Change::PutMember(Box::new(eni)));
        changes.extend(members);
        changes.extend(self.pool.all_rests().into_iter().map(Change::PutRest));
        changes.extend(self.pool.all_assigns().map(Change::PutAssign));
        changes.append(&mut out.writes);
        out.writes = changes;
    }
}
