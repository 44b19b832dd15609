//! How often we call: a budget a minute for each action, never exceeded in any minute.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

use crate::Action;

const MINUTE: Duration = Duration::from_mins(1);

/// `rate_limit`: calls a minute of an action; an action that is not in it has
/// [`Action::calls_per_minute`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits(BTreeMap<Action, NonZeroU32>);

impl RateLimits {
    /// Calls a minute of `action`.
    pub fn of(&self, action: Action) -> NonZeroU32 {
        let default = NonZeroU32::new(action.calls_per_minute()).unwrap_or(NonZeroU32::MIN);
        self.0.get(&action).copied().unwrap_or(default)
    }
}

impl FromIterator<(Action, NonZeroU32)> for RateLimits {
    fn from_iter<I: IntoIterator<Item = (Action, NonZeroU32)>>(limits: I) -> Self {
        Self(limits.into_iter().collect())
    }
}

/// No room before the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spent {
    /// The budget.
    pub(crate) per_minute: NonZeroU32,
    /// Until there is room.
    pub(crate) wait: Duration,
}

/// The budgets of one client.
#[derive(Debug)]
pub(crate) struct Budgets(BTreeMap<Action, Budget>);

impl Budgets {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        let budget = |action| (action, Budget::new(limits.of(action)));
        Self(Action::ALL.into_iter().map(budget).collect())
    }

    /// Waits for room for one call of `action`; fails at once when that lies behind the deadline.
    pub(crate) async fn take(&self, action: Action, deadline: Instant) -> Result<(), Spent> {
        let budget = self.0.get(&action).expect("every action has a budget");
        budget.take(deadline).await
    }
}

/// Time since the start, by tokio's clock.
#[derive(Debug, Clone)]
struct Elapsed(Instant);

impl Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Debug)]
struct Budget {
    per_minute: NonZeroU32,
    clock: Elapsed,
    limiter: RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Duration>>,
}

impl Budget {
    /// A fifth of the budget may come in one burst; the rest is spread so that a burst and what
    /// follows it stay within the budget for any minute, wherever it begins.
    fn new(per_minute: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(per_minute.get() / 5).unwrap_or(NonZeroU32::MIN);
        let period = MINUTE / (per_minute.get() - burst.get() + 1);
        let quota = Quota::with_period(period).expect("a part of a minute is not zero");
        let clock = Elapsed(Instant::now());
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone());
        Self { per_minute, clock, limiter }
    }

    async fn take(&self, deadline: Instant) -> Result<(), Spent> {
        loop {
            let Err(not_yet) = self.limiter.check() else { return Ok(()) };
            let wait = not_yet.wait_time_from(self.clock.now());
            if Instant::now() + wait >= deadline {
                return Err(Spent { per_minute: self.per_minute, wait });
            }
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn greedy(per_minute: u32, minutes: u32) -> Vec<Duration> {
        let start = Instant::now();
        let budget = Budget::new(NonZeroU32::new(per_minute).unwrap());
        let mut taken = Vec::new();
        while budget.take(start + MINUTE * minutes).await.is_ok() {
            taken.push(start.elapsed());
        }
        taken
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn no_minute_has_more_calls_than_the_budget(per_minute in 1_u32..900) {
            let taken = run(greedy(per_minute, 3));
            for (index, first) in taken.iter().enumerate() {
                let minute = taken[index..].iter().take_while(|at| **at < *first + MINUTE);
                prop_assert!(minute.count() <= usize::try_from(per_minute).unwrap());
            }
            // It is used, too: three minutes give at least two and a half budgets.
            let least = (per_minute * 5 / 2).saturating_sub(3);
            prop_assert!(taken.len() >= usize::try_from(least).unwrap(), "{}", taken.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_room_before_its_deadline_fails_at_once() {
        let limits = [(Action::CreateNetworkInterface, NonZeroU32::MIN)].into_iter().collect();
        let budgets = Budgets::new(&limits);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(30);
        assert_eq!(budgets.take(Action::CreateNetworkInterface, deadline).await, Ok(()));
        let spent = budgets.take(Action::CreateNetworkInterface, deadline).await.unwrap_err();
        assert_eq!(spent, Spent { per_minute: NonZeroU32::MIN, wait: MINUTE });
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(budgets.take(Action::DescribeVSwitches, deadline).await, Ok(()));
    }
}
