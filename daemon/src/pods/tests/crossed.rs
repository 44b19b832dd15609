//! Verbs that meet.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::super::{Attachment, Deleted, Interruption, PodError, Pods};
use super::world::{World, add, key, soon};
use crate::tasks::Tasks;

fn spawn_add(pods: &Arc<Pods>, id: &'static str) -> JoinHandle<Result<Attachment, PodError>> {
    let pods = Arc::clone(pods);
    tokio::spawn(async move { pods.add(add(id), soon()).await })
}

fn spawn_del(pods: &Arc<Pods>, id: &'static str) -> JoinHandle<Result<Deleted, PodError>> {
    let pods = Arc::clone(pods);
    tokio::spawn(async move { pods.del(key(id)).await })
}

#[tokio::test]
async fn an_add_waits_for_the_del_of_its_sandbox_in_flight() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    world.hold("kernel.del");
    let del = spawn_del(&pods, "a");
    world.begun("kernel.del", 1).await;
    let again = spawn_add(&pods, "a");
    // Another sandbox does not wait.
    pods.add(add("b"), soon()).await.unwrap();
    assert!(!again.is_finished());
    world.go_on("kernel.del");
    del.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(pods.list().len(), 2);
    world.agree(&pods);
}

#[tokio::test]
async fn two_adds_of_one_sandbox_at_once_get_one_answer() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    world.hold("kernel.add");
    let first = spawn_add(&pods, "a");
    let second = spawn_add(&pods, "a");
    world.begun("kernel.add", 1).await;
    world.go_on("kernel.add");
    assert_eq!(first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    world.agree(&pods);
}

#[tokio::test]
async fn a_del_that_overtakes_an_add_wins_at_every_step() {
    for step in ["allocate", "plan", "write", "kernel.add"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        world.hold(step);
        let adding = spawn_add(&pods, "a");
        world.begun(step, 1).await;
        let deleting = spawn_del(&pods, "a");
        // The DEL stands in line (or is through, where the ADD could be dropped at once).
        tokio::task::yield_now().await;
        world.go_on(step);
        deleting.await.unwrap().unwrap();
        let error = adding.await.unwrap().unwrap_err();
        assert!(matches!(error, PodError::Interrupted(Interruption::Deleted)), "{step}: {error}");
        assert!(pods.list().is_empty(), "{step}");
        world.agree(&pods);
        assert!(world.state().released.values().all(|times| *times == 1), "{step}");
    }
}

#[tokio::test]
async fn a_del_does_not_wait_behind_an_add_that_waits_for_an_address() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    world.hold("allocate");
    let adding = spawn_add(&pods, "a");
    world.begun("allocate", 1).await;
    pods.del(key("a")).await.unwrap();
    adding.await.unwrap().unwrap_err();
    world.agree(&pods);
}

#[tokio::test]
async fn an_add_whose_caller_goes_away_is_undone() {
    for step in ["allocate", "plan", "write", "kernel.add"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let tasks = Tasks::default();
        let pods = world.start_with(tasks.clone());
        world.hold(step);
        let caller = spawn_add(&pods, "a");
        world.begun(step, 1).await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        world.go_on(step);
        tasks.stop().cancel();
        tasks.finish(std::time::Duration::from_secs(10)).await;
        assert!(pods.list().is_empty(), "{step}");
        world.agree(&pods);
    }
}

#[tokio::test]
async fn a_second_add_whose_caller_goes_away_leaves_the_first() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let tasks = Tasks::default();
    let pods = world.start_with(tasks.clone());
    let first = pods.add(add("a"), soon()).await.unwrap();
    world.hold("kernel.add");
    let caller = spawn_add(&pods, "a");
    world.begun("kernel.add", 2).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.go_on("kernel.add");
    tasks.stop().cancel();
    tasks.finish(std::time::Duration::from_secs(10)).await;
    assert_eq!(pods.list(), [first.record]);
    world.agree(&pods);
}

#[tokio::test]
async fn a_del_whose_caller_goes_away_is_finished() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let tasks = Tasks::default();
    let pods = world.start_with(tasks.clone());
    pods.add(add("a"), soon()).await.unwrap();
    world.hold("kernel.del");
    let caller = spawn_del(&pods, "a");
    world.begun("kernel.del", 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.go_on("kernel.del");
    tasks.stop().cancel();
    tasks.finish(std::time::Duration::from_secs(10)).await;
    assert!(pods.list().is_empty());
    world.agree(&pods);
}

#[tokio::test]
async fn the_stop_ends_an_add_that_waits_and_lets_one_that_builds_end() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let tasks = Tasks::default();
    let pods = world.start_with(tasks.clone());
    world.hold("kernel.add");
    let building = spawn_add(&pods, "a");
    world.begun("kernel.add", 1).await;
    world.hold("allocate");
    let waiting = spawn_add(&pods, "b");
    world.begun("allocate", 2).await;
    tasks.stop().cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, PodError::Interrupted(Interruption::Stopping)), "{error}");
    world.go_on("kernel.add");
    building.await.unwrap().unwrap();
    world.agree(&pods);
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Add,
    Del,
    AddAndGoAway,
    Settle,
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        4 => Just(Verb::Add),
        3 => Just(Verb::Del),
        2 => Just(Verb::AddAndGoAway),
        1 => Just(Verb::Settle),
    ]
}

async fn do_all(verbs: Vec<(Verb, usize, usize)>, failing: Option<&'static str>) {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let tasks = Tasks::default();
    let pods = world.start_with(tasks.clone());
    let mut hands = Vec::new();
    for (index, (verb, sandbox, pause)) in verbs.into_iter().enumerate() {
        let id = ["a", "b", "c"][sandbox];
        world.state().failing = failing.filter(|_| index % 3 == 1).into_iter().collect();
        let pods = Arc::clone(&pods);
        hands.push(tokio::spawn(async move {
            match verb {
                Verb::Add | Verb::AddAndGoAway => drop(pods.add(add(id), soon()).await),
                Verb::Del => drop(pods.del(key(id)).await),
                Verb::Settle => pods.settle().await,
            }
        }));
        for _ in 0..pause {
            tokio::task::yield_now().await;
        }
        if let (Verb::AddAndGoAway, Some(hand)) = (verb, hands.last()) {
            hand.abort();
        }
    }
    world.state().failing.clear();
    for hand in hands {
        drop(hand.await);
    }
    // Of those that went away, the work goes on.
    while tasks.in_hand() > 0 {
        tokio::task::yield_now().await;
    }
    pods.settle().await;
    world.agree(&pods);
    for id in ["a", "b", "c"] {
        pods.del(key(id)).await.unwrap();
    }
    world.agree(&pods);
    assert!(pods.list().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn in_any_order_the_witnesses_agree_at_the_end(
        verbs in proptest::collection::vec((verb(), 0..3usize, 0..12usize), 1..24),
        failing in proptest::option::of(
            prop_oneof![Just("allocate"), Just("write"), Just("kernel.add"), Just("kernel.del"), Just("release")]
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(do_all(verbs, failing));
    }
}
