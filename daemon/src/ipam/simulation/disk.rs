//! The checkpoint's file and its queue: what is durable, what is on its way there, and what of that
//! a `kill -9` leaves.

use std::collections::VecDeque;
use std::time::Duration;

use model::SandboxKey;

use crate::checkpoint::{Change, Contents};
use crate::ipam::event::{Effect, Ticket};

/// Notes are written within this time when nothing else comes.
const NOTES: Duration = Duration::from_secs(1);
/// Notes that could not be written are tried again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// What was written down, as the file would have it.
#[derive(Debug, Clone, Default)]
pub(in crate::ipam) struct Disk {
    pub(in crate::ipam) contents: Contents,
    queue: VecDeque<Job>,
}

/// One transaction on its way.
#[derive(Debug, Clone)]
struct Job {
    changes: Vec<Change>,
    awaited: Option<Awaited>,
    at: Duration,
}

/// Who waits for a transaction.
#[derive(Debug, Clone)]
pub(super) enum Awaited {
    /// Effects that begin when it is durable; the step that wanted them was at that time of the
    /// node's clock.
    Effects(Vec<Effect>, Duration),
    /// An ADD that writes its sandbox's record.
    Record(SandboxKey, Ticket),
}

impl Disk {
    pub(in crate::ipam) fn apply(&mut self, change: Change) {
        let Contents { sandboxes, enis, members, rests, assigns, warmed } = &mut self.contents;
        match change {
            Change::PutSandbox(record) => {
                sandboxes.retain(|old| old.pod.spec.key != record.pod.spec.key);
                sandboxes.push(*record);
            }
            Change::RemoveSandbox(key) => sandboxes.retain(|old| old.pod.spec.key != key),
            Change::PutEni(record) => {
                enis.retain(|old| old.token != record.token);
                enis.push(*record);
            }
            Change::RemoveEni(token) => enis.retain(|old| old.token != token),
            Change::PutMember(record) => {
                members.retain(|old| old.token != record.token);
                members.push(*record);
            }
            Change::RemoveMember(token) => members.retain(|old| old.token != token),
            Change::PutRest(rest) => {
                rests.retain(|old| (&old.eni, old.address) != (&rest.eni, rest.address));
                rests.push(rest);
            }
            Change::RemoveRest(eni, address) => {
                rests.retain(|old| (&old.eni, old.address) != (&eni, address));
            }
            Change::PutAssign(assign) => {
                assigns.retain(|old| old.token != assign.token);
                assigns.push(assign);
            }
            Change::RemoveAssign(token) => assigns.retain(|old| old.token != token),
            Change::Warmed => *warmed = true,
        }
    }

    /// Queues what nobody waits for.
    pub(in crate::ipam) fn note(&mut self, changes: Vec<Change>, now: Duration) {
        let at = self.last_write().max(now + NOTES);
        self.queue.push_back(Job { changes, awaited: None, at });
    }

    /// Queues a transaction that takes so long.
    pub(super) fn write(
        &mut self,
        changes: Vec<Change>,
        awaited: Awaited,
        takes: Duration,
        now: Duration,
    ) {
        let at = self.last_write().max(now + takes);
        self.queue.push_back(Job { changes, awaited: Some(awaited), at });
    }

    fn last_write(&self) -> Duration {
        let awaited = self.queue.iter().filter(|job| job.awaited.is_some());
        awaited.map(|job| job.at).max().unwrap_or_default()
    }

    /// When the next transaction ends.
    pub(super) fn wake(&self) -> Option<Duration> {
        self.queue.iter().map(|job| job.at).min()
    }

    /// Whether somebody waits for a transaction.
    pub(super) fn is_awaited(&self) -> bool {
        self.queue.iter().any(|job| job.awaited.is_some())
    }

    /// Ends one transaction that is due; says who waited, and whether it was written.
    pub(super) fn end(&mut self, works: bool, now: Duration) -> Option<(Awaited, bool)> {
        let due = |job: &Job| job.at <= now;
        let awaited = self.queue.iter().position(|job| due(job) && job.awaited.is_some());
        if let Some(index) = awaited {
            if !works {
                let job = self.queue.remove(index)?;
                return Some((job.awaited?, false));
            }
            let awaited = self.queue.get_mut(index)?.awaited.take()?;
            self.flush(index + 1);
            return Some((awaited, true));
        }
        if works {
            if let Some(last) = self.queue.iter().rposition(due) {
                self.flush(last + 1);
            }
        } else {
            self.queue.iter_mut().filter(|job| due(job)).for_each(|job| job.at = now + AGAIN);
        }
        None
    }

    /// Makes the first so many jobs durable.
    fn flush(&mut self, count: usize) {
        let jobs: Vec<Job> = self.queue.drain(..count).collect();
        jobs.into_iter().flat_map(|job| job.changes).for_each(|change| self.apply(change));
    }

    /// The process ends: the first of what was under way is written still, as chance will have it.
    pub(in crate::ipam) fn cut(&mut self, chance: u64, works: bool) {
        let most = u64::try_from(self.queue.len()).unwrap_or(0) + 1;
        let written = if works { usize::try_from(chance % most).unwrap_or(0) } else { 0 };
        self.flush(written);
        self.queue.clear();
    }

    /// A clean stop: all of it is written, if the disk works.
    pub(in crate::ipam) fn close(&mut self, works: bool) {
        if works {
            self.flush(self.queue.len());
        }
        self.queue.clear();
    }

    /// All of it, as after a clean stop.
    pub(in crate::ipam) fn whole(&self) -> Contents {
        let mut disk = self.clone();
        disk.close(true);
        disk.contents
    }
}
