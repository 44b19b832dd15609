//! Budgets in tokio's paused time.

use std::sync::Mutex;

use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::*;
use crate::Priority;

const MINUTE: Duration = Duration::from_mins(1);
const FOREVER: Duration = Duration::from_hours(24);

fn budget(per_minute: u32) -> Budget {
    Budget::new(NonZeroU32::new(per_minute).unwrap())
}

fn options(priority: Priority, patience: Duration) -> CallOptions {
    CallOptions::new(priority, Instant::now() + patience)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

async fn greedy(per_minute: u32, minutes: u32) -> Vec<Duration> {
    let start = Instant::now();
    let budget = budget(per_minute);
    let options = options(Priority::Pod, MINUTE * minutes);
    let mut taken = Vec::new();
    while budget.take(options).await.is_ok() {
        taken.push(start.elapsed());
    }
    taken
}

/// Somebody who wants room.
#[derive(Debug, Clone)]
struct Caller {
    priority: Priority,
    arrives: Duration,
    patience: Duration,
    /// He goes away then, whatever he was told.
    leaves: Option<Duration>,
}

/// What became of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Served,
    TurnedAway(Spent),
    Left,
}

#[derive(Debug, Clone)]
struct Told {
    caller: Caller,
    at: Duration,
    end: End,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let patience = prop_oneof![
        Just(FOREVER),
        (0_u64..120_000).prop_map(Duration::from_millis),
        (0_u64..5_000).prop_map(Duration::from_millis),
    ];
    let caller = (
        proptest::sample::select(Priority::ALL.to_vec()),
        prop_oneof![0_u64..200, 0_u64..90_000].prop_map(Duration::from_millis),
        patience,
        proptest::option::weighted(0.2, (0_u64..60_000).prop_map(Duration::from_millis)),
    );
    let caller = caller.prop_map(|(priority, arrives, patience, leaves)| Caller {
        priority,
        arrives,
        patience,
        leaves,
    });
    proptest::collection::vec(caller, 1..60)
}

/// Changes of the budget, and when; in their order.
fn changes() -> impl Strategy<Value = Vec<(Duration, u32)>> {
    let change = ((0_u64..180_000).prop_map(Duration::from_millis), 1_u32..60);
    proptest::collection::vec(change, 0..4).prop_map(|mut changes| {
        changes.sort();
        changes
    })
}

/// Lets them all call; who ended first comes first.
async fn play(first: u32, changes: Vec<(Duration, u32)>, callers: Vec<Caller>) -> Vec<Told> {
    let start = Instant::now();
    let budget = &*Box::leak(Box::new(budget(first)));
    let told = &*Box::leak(Box::new(Mutex::new(Vec::new())));
    let mut tasks = JoinSet::new();
    for (at, per_minute) in changes {
        tasks.spawn(async move {
            sleep_until(start + at).await;
            budget.set(NonZeroU32::new(per_minute).unwrap());
        });
    }
    for caller in callers {
        tasks.spawn(async move {
            sleep_until(start + caller.arrives).await;
            let options = options(caller.priority, caller.patience);
            let leaves = Instant::now() + caller.leaves.unwrap_or(FOREVER * 2);
            let end = match timeout_at(leaves, budget.take(options)).await {
                Ok(Ok(())) => End::Served,
                Ok(Err(spent)) => End::TurnedAway(spent),
                Err(_elapsed) => End::Left,
            };
            told.lock().unwrap().push(Told { caller, at: start.elapsed(), end });
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    told.lock().unwrap().clone()
}

fn served(told: &[Told]) -> impl Iterator<Item = &Told> {
    told.iter().filter(|told| told.end == End::Served)
}

/// `limits`: from when on there is which budget.
fn no_minute_is_above_its_budget(told: &[Told], limits: &[(Duration, u32)]) {
    let times: Vec<_> = served(told).map(|told| told.at).collect();
    for (index, last) in times.iter().enumerate() {
        let minute = times[..=index].iter().rev().take_while(|at| **at + MINUTE > *last).count();
        // A change at that very moment may have come before or after.
        let mut in_force = limits.iter().filter(|(from, _)| from <= last);
        let at_once = in_force.clone().filter(|(from, _)| from == last).map(|(_, limit)| *limit);
        let before = in_force.rfind(|(from, _)| from < last).map(|(_, limit)| *limit);
        let most = at_once.chain(before).max().unwrap();
        assert!(
            minute <= usize::try_from(most).unwrap(),
            "{minute} calls before {last:?}: {told:?}"
        );
    }
}

/// Who is served is ahead of all who wait at that time.
fn nobody_overtakes(told: &[Told]) {
    for (index, one) in told.iter().enumerate().filter(|(_, one)| one.end == End::Served) {
        for other in &told[index + 1..] {
            let waited = other.caller.arrives < one.at && other.at > one.at;
            let ahead = other.caller.priority < one.caller.priority
                || (other.caller.priority == one.caller.priority
                    && other.caller.arrives < one.caller.arrives);
            assert!(!(waited && ahead), "{one:?} overtook {other:?}");
        }
    }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn a_queue_is_served_in_its_order_within_the_budget_and_loses_nobody(
        first in 1_u32..60, changes in changes(), callers in callers(),
    ) {
        let told = run(play(first, changes.clone(), callers.clone()));
        prop_assert_eq!(told.len(), callers.len());
        let mut limits = vec![(Duration::ZERO, first)];
        limits.extend(changes);
        no_minute_is_above_its_budget(&told, &limits);
        nobody_overtakes(&told);
        for Told { caller, at, end } in &told {
            let waited = at.saturating_sub(caller.arrives);
            match end {
                End::Served => prop_assert!(waited <= caller.patience),
                // He hears of it in time, and that it would have come too late.
                End::TurnedAway(spent) => {
                    prop_assert!(waited <= caller.patience);
                    prop_assert!(waited + spent.wait >= caller.patience, "{:?}", caller);
                }
                End::Left => prop_assert_eq!(Some(waited), caller.leaves),
            }
            prop_assert!(caller.patience < FOREVER || !matches!(end, End::TurnedAway(_)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn who_is_turned_away_hears_of_it_at_once_when_nothing_changes(
        per_minute in 1_u32..60, patience in 0_u64..90_000, callers in 1_usize..80,
    ) {
        let patience = Duration::from_millis(patience);
        let caller = Caller {
            priority: Priority::Pod,
            arrives: Duration::ZERO,
            patience,
            leaves: None,
        };
        let told = run(play(per_minute, Vec::new(), vec![caller; callers]));
        for one in &told {
            prop_assert!(one.end == End::Served || one.at == Duration::ZERO, "{:?}", one);
        }
        let alone = run(greedy(per_minute, 2));
        // Timers go by milliseconds, and are late by less than one.
        let room = |patience| alone.iter().filter(|at| at.is_zero() || **at < patience).count();
        let served = served(&told).count();
        prop_assert!(served >= room(patience).min(callers), "{}", served);
        prop_assert!(served <= room(patience + Duration::from_millis(1)).min(callers), "{}", served);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_room_before_its_deadline_fails_at_once() {
    let limits = [(Action::CreateNetworkInterface, NonZeroU32::MIN)].into_iter().collect();
    let budgets = Budgets::new(&limits);
    let start = Instant::now();
    let options = options(Priority::Pod, Duration::from_secs(30));
    assert_eq!(budgets.take(Action::CreateNetworkInterface, options).await, Ok(()));
    let spent = budgets.take(Action::CreateNetworkInterface, options).await.unwrap_err();
    assert_eq!(spent, Spent { per_minute: NonZeroU32::MIN, wait: MINUTE });
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(budgets.take(Action::DescribeVSwitches, options).await, Ok(()));
}

fn caller(priority: Priority, arrives: u64, patience: u64) -> Caller {
    let (arrives, patience) = (Duration::from_secs(arrives), Duration::from_secs(patience));
    Caller { priority, arrives, patience, leaves: None }
}

fn ends(told: &[Told]) -> Vec<(Priority, u64, bool)> {
    let end = |told: &Told| (told.caller.priority, told.at.as_secs(), told.end == End::Served);
    told.iter().map(end).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_before_collection_that_came_earlier() {
    // One at once, then one a minute.
    let callers = vec![
        caller(Priority::Collection, 0, 1_000),
        caller(Priority::Collection, 1, 1_000),
        caller(Priority::WarmPool, 2, 1_000),
        caller(Priority::Fixed, 3, 1_000),
        caller(Priority::Pod, 4, 1_000),
    ];
    assert_eq!(
        ends(&play(1, Vec::new(), callers).await),
        [
            (Priority::Collection, 0, true),
            (Priority::Pod, 60, true),
            (Priority::Fixed, 120, true),
            (Priority::WarmPool, 180, true),
            (Priority::Collection, 240, true),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_and_too_late_now_hears_of_it_when_that_happens() {
    let callers = vec![
        caller(Priority::Pod, 0, 1_000),
        caller(Priority::Collection, 1, 80),
        caller(Priority::Pod, 30, 1_000),
    ];
    assert_eq!(
        ends(&play(1, Vec::new(), callers).await),
        [(Priority::Pod, 0, true), (Priority::Collection, 30, false), (Priority::Pod, 60, true),]
    );
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_given_up_is_free() {
    let leaver =
        Caller { leaves: Some(Duration::from_secs(90)), ..caller(Priority::Pod, 1, 1_000) };
    let first = Caller { leaves: Some(Duration::from_secs(20)), ..caller(Priority::Pod, 0, 1_000) };
    let callers = vec![
        caller(Priority::Pod, 0, 1_000),
        first,
        leaver,
        caller(Priority::Collection, 2, 1_000),
    ];
    assert_eq!(
        ends(&play(1, Vec::new(), callers).await),
        [
            (Priority::Pod, 0, true),
            (Priority::Pod, 20, false),
            (Priority::Pod, 60, true),
            (Priority::Collection, 120, true),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_budget_counts_what_was_spent_and_serves_who_waits() {
    let start = Instant::now();
    let budget = budget(100);
    let room = || options(Priority::Pod, Duration::from_millis(1));
    while budget.take(room()).await.is_ok() {}
    let burst = budget.take(options(Priority::Pod, FOREVER)).await;
    assert_eq!(burst, Ok(()), "a burst of 20, and one a moment later");
    // 21 were taken within the minute; 5 a minute are too few for another before they are old.
    budget.set(NonZeroU32::new(5).unwrap());
    let spent = budget.take(options(Priority::Pod, Duration::from_secs(30))).await.unwrap_err();
    assert_eq!(spent.per_minute.get(), 5);
    let waits = budget.take(options(Priority::Pod, FOREVER));
    let more = async {
        sleep_until(start + Duration::from_secs(10)).await;
        budget.set(NonZeroU32::new(200).unwrap());
    };
    let (waited, ()) = tokio::join!(waits, more);
    assert_eq!((waited, start.elapsed()), (Ok(()), Duration::from_secs(10)));
}
