//! How often we call: a budget a minute for each action, never exceeded in any minute; who waits for
//! room is served by priority, then by arrival.

mod budget;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::budget::Budget;
use crate::{Action, CallOptions};

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
    /// Until there is room for this call.
    pub(crate) wait: Duration,
}

/// The budgets of one client.
#[derive(Debug)]
pub(crate) struct Budgets(BTreeMap<Action, Waited>);

/// A budget, and how long calls have waited for it.
#[derive(Debug)]
struct Waited {
    budget: Budget,
    micros: AtomicU64,
}

impl Budgets {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        let budget = |action| {
            let budget = Budget::new(limits.of(action));
            (action, Waited { budget, micros: AtomicU64::new(0) })
        };
        Self(Action::ALL.into_iter().map(budget).collect())
    }

    /// Waits for room for one call of `action`. Fails at once when that lies behind the deadline,
    /// also later, when others went first. May be dropped: its place is then free.
    pub(crate) async fn take(&self, action: Action, options: CallOptions) -> Result<(), Spent> {
        let begun = Instant::now();
        let Waited { budget, micros } = self.of(action);
        let taken = budget.take(options).await;
        let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        micros.fetch_add(waited, Ordering::Relaxed);
        taken
    }

    /// How long calls have waited since the start; those that gave up are not in it.
    pub(crate) fn waits(&self) -> impl Iterator<Item = (Action, Duration)> {
        self.0.iter().map(|(action, waited)| {
            (*action, Duration::from_micros(waited.micros.load(Ordering::Relaxed)))
        })
    }

    /// From now on; what was spent in the last minute counts against the new budgets.
    pub(crate) fn set(&self, limits: &RateLimits) {
        for action in Action::ALL {
            self.of(action).budget.set(limits.of(action));
        }
    }

    fn of(&self, action: Action) -> &Waited {
        self.0.get(&action).expect("every action has a budget")
    }
}

#[cfg(test)]
mod tests;
