//! What a failed transaction was to make durable: all of it is written again, before anything is
//! asked for that depends on it.

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
    /// When it is to be written again at the latest; `None` if the disk lacks nothing.
    again: Option<Duration>,
    /// Sandboxes that are released and whose records may still be there.
    released: BTreeSet<SandboxKey>,
}

impl Unwritten {
    /// A transaction failed, and these effects with it.
    pub(super) fn failed(&mut self, effects: &[Effect], now: Duration) {
        self.again = Some(now.saturating_add(AGAIN));
        let released = effects.iter().filter_map(|effect| match effect {
            Effect::Released(_, key) => Some(key.clone()),
            _ => None,
        });
        self.released.extend(released);
    }

    pub(super) const fn wake(&self) -> Option<Duration> {
        self.again
    }
}

impl State {
    /// Puts what the disk lacks in front of what this step writes, when the step asks for something
    /// or it is time: which record of it was in the failed transaction does not matter.
    pub(super) fn write_again(&mut self, now: Duration, out: &mut Outcome) {
        let Some(at) = self.unwritten.again else { return };
        if out.effects.is_empty() && now < at {
            return;
        }
        self.unwritten.again = None;
        let released = std::mem::take(&mut self.unwritten.released).into_iter();
        let has = |key: &SandboxKey| self.pool.owns(key) || self.members.owns(key);
        let released: Vec<SandboxKey> = released.filter(|key| !has(key)).collect();
        // It may fail again, and then it is to be known again.
        out.effects.extend(released.iter().map(|key| Effect::Released(0, key.clone())));
        let mut changes: Vec<Change> = released.into_iter().map(Change::RemoveSandbox).collect();
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
