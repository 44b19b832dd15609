//! The budget of one action: governor spreads the calls, a log of the last minute outlives a change
//! of the budget, and a queue says whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Spent;
use crate::{CallOptions, Priority};

const MINUTE: Duration = Duration::from_mins(1);

/// The budget of one action.
#[derive(Debug)]
pub(super) struct Budget(Mutex<State>);

impl Budget {
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let (now, pace) = (Instant::now(), Pace::new(per_minute));
        let (taken, waiting) = (VecDeque::new(), BTreeMap::new());
        Self(Mutex::new(State { pace, taken, waiting, next: now, arrivals: 0 }))
    }

    pub(super) async fn take(&self, options: CallOptions) -> Result<(), Spent> {
        let place = self.lock().arrive(options);
        let place = Held { budget: self, place };
        loop {
            let (turn, waiter) = self.lock().turn(&place.place);
            // The notification may be dropped: it is looked at whose turn it is after each pause.
            let until = match turn {
                Turn::Taken => return Ok(()),
                Turn::Late(spent) => return Err(spent),
                Turn::At(room) => room,
                Turn::Later => options.deadline,
            };
            drop(timeout_at(until, waiter.wake.notified()).await);
        }
    }

    /// From now on.
    pub(super) fn set(&self, per_minute: NonZeroU32) {
        let mut state = self.lock();
        if state.pace.per_minute != per_minute {
            state.pace = Pace::new(per_minute);
            state.next = Instant::now();
            state.wake_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// How calls are spread over a minute.
#[derive(Debug)]
struct Pace {
    per_minute: NonZeroU32,
    /// Between two calls, after a burst.
    period: Duration,
    clock: Elapsed,
    limiter: RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Duration>>,
}

impl Pace {
    /// A fifth of the budget may come in one burst; the rest is spread so that a burst and what
    /// follows it stay within the budget for any minute, wherever it begins.
    fn new(per_minute: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(per_minute.get() / 5).unwrap_or(NonZeroU32::MIN);
        let period = MINUTE / (per_minute.get() - burst.get() + 1);
        let quota = Quota::with_period(period).expect("a part of a minute is not zero");
        let clock = Elapsed(Instant::now());
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone());
        Self { per_minute, period, clock, limiter }
    }

    /// Takes room, or says when there is some.
    fn take(&self, now: Instant) -> Result<(), Instant> {
        let taken = self.limiter.check();
        taken.map_err(|not_yet| now + not_yet.wait_time_from(self.clock.now()))
    }
}

/// The order of service: by priority, then by arrival.
type Place = (Priority, u64);

/// Somebody in the queue.
#[derive(Debug)]
struct Waiter {
    deadline: Instant,
    wake: Notify,
    /// Others went first, and there is no room left before the deadline.
    late: OnceLock<Spent>,
}

/// What somebody in the queue has to do.
#[derive(Debug)]
enum Turn {
    /// Go.
    Taken,
    /// Give up.
    Late(Spent),
    /// He is the first: look again at this time.
    At(Instant),
    /// Wait until somebody goes.
    Later,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// When room was taken, in the last minute.
    taken: VecDeque<Instant>,
    waiting: BTreeMap<Place, Arc<Waiter>>,
    /// When there is room for the first in the queue.
    next: Instant,
    arrivals: u64,
}

impl State {
    fn arrive(&mut self, options: CallOptions) -> Place {
        self.arrivals += 1;
        let place = (options.priority, self.arrivals);
        let waiter =
            Waiter { deadline: options.deadline, wake: Notify::new(), late: OnceLock::new() };
        self.waiting.insert(place, Arc::new(waiter));
        place
    }

    fn turn(&mut self, place: &Place) -> (Turn, Arc<Waiter>) {
        let now = Instant::now();
        let waiter = Arc::clone(self.waiting.get(place).expect("who waits has a place"));
        if let Some(spent) = waiter.late.get() {
            return (Turn::Late(spent.clone()), waiter);
        }
        let first = self.in_time().next().is_some_and(|(first, _)| first == place);
        if first {
            match self.take(now) {
                Ok(()) => return (Turn::Taken, waiter),
                Err(next) => self.next = next,
            }
        }
        self.turn_away_the_late(now);
        let turn = match waiter.late.get() {
            Some(spent) => Turn::Late(spent.clone()),
            None if first => Turn::At(self.next),
            None if waiter.deadline <= now => Turn::Late(self.spent(self.next, now)),
            None => Turn::Later,
        };
        (turn, waiter)
    }

    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.taken.front().is_some_and(|taken| *taken + MINUTE <= now) {
            self.taken.pop_front();
        }
        match self.minute_has_room(0) {
            Some(room) if room > now => return Err(room),
            _ => self.pace.take(now)?,
        }
        self.taken.push_back(now);
        self.next = now + self.pace.period;
        Ok(())
    }

    /// When the last minute has room for the one who has this many before him; `None` when nothing
    /// that was taken so far is in his way. It is only after a change that this comes later than
    /// what governor says.
    fn minute_has_room(&self, before: usize) -> Option<Instant> {
        let budget = usize::try_from(self.pace.per_minute.get()).unwrap_or(usize::MAX);
        let oldest = (self.taken.len() + before).checked_sub(budget)?;
        self.taken.get(oldest).map(|taken| *taken + MINUTE)
    }

    /// Who would miss his deadline hears of it now, while there is time for something else.
    fn turn_away_the_late(&self, now: Instant) {
        let (mut before, mut spread) = (0, self.next);
        for (_, waiter) in self.in_time() {
            let room = self.minute_has_room(before).map_or(spread, |room| room.max(spread));
            if room >= waiter.deadline {
                waiter.late.get_or_init(|| self.spent(room, now));
                waiter.wake.notify_one();
            } else {
                before += 1;
                spread += self.pace.period;
            }
        }
    }

    fn spent(&self, room: Instant, now: Instant) -> Spent {
        let wait = room.saturating_duration_since(now);
        Spent { per_minute: self.pace.per_minute, wait }
    }

    fn in_time(&self) -> impl Iterator<Item = (&Place, &Arc<Waiter>)> {
        self.waiting.iter().filter(|(_, waiter)| waiter.late.get().is_none())
    }

    fn wake_first(&self) {
        if let Some((_, first)) = self.in_time().next() {
            first.wake.notify_one();
        }
    }
}

/// A place in the queue, until it is dropped.
struct Held<'a> {
    budget: &'a Budget,
    place: Place,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.waiting.remove(&self.place);
        state.wake_first();
    }
}
