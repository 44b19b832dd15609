//! How often we call: a budget a minute for each action, never exceeded in any minute; who waits for
//! room is served by priority, then by arrival.

mod budget;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

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
pub(crate) struct Budgets(BTreeMap<Action, Budget>);

impl Budgets {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        let budget = |action| (action, Budget::new(limits.of(action)));
        Self(Action::ALL.into_iter().map(budget).collect())
    }

    /// Waits for room for one call of `action`. Fails at once when that lies behind the deadline,
    /// also later, when others went first. May be dropped: its place is then free.
    pub(crate) async fn take(&self, action: Action, options: CallOptions) -> Result<(), Spent> {
        self.of(action).take(options).await
    }

    /// From now on; what was spent in the last minute counts against the new budgets.
    pub(crate) fn set(&self, limits: &RateLimits) {
        for action in Action::ALL {
            self.of(action).set(limits.of(action));
        }
    }

    fn of(&self, action: Action) -> &Budget {
        self.0.get(&action).expect("every action has a budget")
    }
}

#[cfg(test)]
mod tests;
