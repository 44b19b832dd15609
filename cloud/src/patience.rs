//! How long to wait between two attempts, and when to give up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};

/// The first pause; each is twice the one before, plus up to as much again by chance.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause before chance.
const LONGEST: Duration = Duration::from_secs(8);

/// What an attempt needs before the deadline: one that is cut short leaves a write unknown.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Whether an attempt that failed is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It would fail again.
    No,
    /// What was wrong has been put right; done once.
    AtOnce,
    /// Later, after this long at least.
    After(Duration),
}

/// The pauses of one call, ended by its deadline.
#[derive(Debug)]
pub(crate) struct Patience {
    deadline: Instant,
    pauses: ExponentialBackoff,
    put_right: bool,
}

impl Patience {
    pub(crate) fn until(deadline: Instant) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(FIRST)
            .with_max_delay(LONGEST)
            .without_max_times();
        Self { deadline, pauses: pauses.build(), put_right: false }
    }

    /// Waits for the next attempt. `false`, at once, when there is none: it would fail, or the
    /// deadline comes first.
    pub(crate) async fn wait(&mut self, repeat: Repeat) -> bool {
        let pause = match repeat {
            Repeat::No => return false,
            Repeat::AtOnce if self.put_right => return false,
            Repeat::AtOnce => {
                self.put_right = true;
                Duration::ZERO
            }
            Repeat::After(least) => least + self.pauses.next().unwrap_or(LONGEST),
        };
        let at = Instant::now() + pause;
        if at + ATTEMPT > self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_before_the_deadline() {
        let start = Instant::now();
        let mut patience = Patience::until(start + Duration::from_mins(1));
        let mut attempts = 1;
        let mut last = start;
        while patience.wait(Repeat::After(Duration::ZERO)).await {
            let pause = last.elapsed();
            assert!((FIRST..=2 * LONGEST).contains(&pause), "{pause:?}");
            last = Instant::now();
            attempts += 1;
        }
        assert!(start.elapsed() < Duration::from_mins(1));
        assert!((8..=14).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_as_long_as_the_cloud_asks() {
        let start = Instant::now();
        let mut patience = Patience::until(start + Duration::from_secs(10));
        assert!(patience.wait(Repeat::After(Duration::from_secs(5))).await);
        assert!(start.elapsed() >= Duration::from_secs(5));
        assert!(!patience.wait(Repeat::After(Duration::from_secs(5))).await, "past the deadline");
        assert!(start.elapsed() < Duration::from_secs(6), "it does not wait for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_put_right_is_tried_once() {
        let start = Instant::now();
        let mut patience = Patience::until(start + Duration::from_secs(10));
        assert!(patience.wait(Repeat::AtOnce).await);
        assert!(!patience.wait(Repeat::AtOnce).await);
        assert!(!patience.wait(Repeat::No).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
