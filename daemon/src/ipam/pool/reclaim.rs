//! How much may stay idle: the configured maximum, and less of it while nothing happens.

use std::time::Duration;

use super::Pool;

/// What is reclaimed from a pool that nobody touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reclaim {
    /// When an address was last handed out or given back.
    touched: Duration,
    /// So much may stay idle, since the last batch.
    goal: Option<u32>,
    /// When the next batch goes.
    next: Option<Duration>,
}

impl Reclaim {
    pub(super) const fn new(now: Duration) -> Self {
        Self { touched: now, goal: None, next: None }
    }

    /// A pod came or went.
    pub(super) const fn touch(&mut self, now: Duration) {
        *self = Self::new(now);
    }
}

impl Pool {
    /// More than so many idle addresses are given back.
    pub(super) fn idle_limit(&self) -> u32 {
        let idle = self.settings.idle;
        let warm = self.warming().unwrap_or(0);
        self.reclaim.goal.unwrap_or(u32::MAX).min(idle.max()).max(idle.min()).max(warm)
    }

    /// Lowers the limit by a batch when nobody has touched the pool for long enough.
    pub(crate) fn reclaim(&mut self, now: Duration) {
        let Some(due) = self.reclaim_due().filter(|due| *due <= now) else { return };
        let Some(rule) = self.settings.reclaim else { return };
        // From where the last batch was to lead: a prefix goes only as a whole, after several.
        let from = self.reclaim.goal.unwrap_or(u32::MAX).min(self.idle());
        let left = from.saturating_sub(rule.batch.get());
        self.reclaim.goal = Some(left.max(self.settings.idle.min()));
        let percent = 100 + self.random.below(rule.jitter_percent.saturating_add(1));
        let pause = rule.interval.saturating_mul(percent) / 100;
        self.reclaim.next = Some(due.max(now) + pause);
    }

    fn reclaim_due(&self) -> Option<Duration> {
        let rule = self.settings.reclaim?;
        let untouched = self.reclaim.touched.saturating_add(rule.after);
        Some(self.reclaim.next.unwrap_or(untouched))
    }

    /// When the next batch goes, if there is anything to reclaim.
    pub(super) fn reclaim_wake(&self) -> Option<Duration> {
        self.reclaim_due().filter(|_| self.idle() > self.settings.idle.min())
    }

    /// As many addresses as a new node is to have once, idle or in use, and has not yet.
    pub(super) fn warming(&self) -> Option<u32> {
        let target = self.settings.warm_up.min(self.settings.idle.max());
        let due = !self.warmed && target > 0;
        due.then_some(target)
    }

    /// Whether the new node has had what it was to have once.
    pub(super) fn is_warm(&self) -> bool {
        let used = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        self.warming().is_some_and(|target| self.idle().saturating_add(used) >= target)
    }
}
