//! One verb at a time.

use std::path::{Path, PathBuf};

use super::super::{Deleted, Interruption, PodError};
use super::world::{World, add, key, netns, soon};
use crate::checkpoint::Phase;

#[tokio::test]
async fn the_intent_comes_before_the_effect() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    world.agree(&pods);
    pods.del(key("a")).await.unwrap();
    world.agree(&pods);
    insta::assert_snapshot!(world.state().log.join("\n"), @r#"
    allocate terway/a/eth0
    plan terway/a/eth0
    write Adding terway/a/eth0
    kernel.add terway/a/eth0
    note Up terway/a/eth0
    note Deleting terway/a/eth0
    kernel.del terway/a/eth0
    release terway/a/eth0
    "#);
}

#[tokio::test]
async fn an_add_that_meets_an_eni_without_a_link_tells_the_pool() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let eni = pods.add(add("a"), soon()).await.unwrap().record.pod.spec.eni;
    world.state().no_link = true;
    pods.add(add("b"), soon()).await.unwrap_err();
    assert_eq!(world.state().unplugged, [eni]);
    world.agree(&pods);
}

#[tokio::test]
async fn a_second_add_gives_the_same_answer() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let first = pods.add(add("a"), soon()).await.unwrap();
    let second = pods.add(add("a"), soon()).await.unwrap();
    assert_eq!(first, second);
    world.agree(&pods);
}

#[tokio::test]
async fn a_check_of_another_namespace_than_the_sandbox_s_is_refused() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    pods.check(&key("a"), &netns("a"), soon()).await.unwrap();
    let error = pods.check(&key("a"), &netns("b"), soon()).await.unwrap_err();
    assert!(matches!(error, PodError::OtherNamespace { .. }), "{error}");
}

#[tokio::test]
async fn a_second_add_for_another_namespace_is_refused_and_changes_nothing() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    let mut other = add("a");
    other.netns = netns("b");
    let error = pods.add(other, soon()).await.unwrap_err();
    assert!(matches!(error, PodError::OtherNamespace { .. }), "{error}");
    world.agree(&pods);
    assert_eq!(pods.list().len(), 1);
}

#[tokio::test]
async fn a_del_of_what_is_not_there_succeeds() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    assert_eq!(pods.del(key("a")).await.unwrap(), Deleted::Nothing);
    pods.add(add("a"), soon()).await.unwrap();
    assert_eq!(pods.del(key("a")).await.unwrap(), Deleted::Network);
    assert_eq!(pods.del(key("a")).await.unwrap(), Deleted::Nothing);
    world.agree(&pods);
    assert_eq!(world.state().released.values().sum::<usize>(), 1);
}

#[tokio::test]
async fn a_del_of_the_old_container_leaves_the_new_one_of_the_pod() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    let new = pods.add(add("b"), soon()).await.unwrap();
    pods.del(key("a")).await.unwrap();
    world.agree(&pods);
    assert_eq!(pods.list(), [new.record]);
}

#[tokio::test]
async fn a_namespace_that_cannot_be_the_pods_is_refused_before_anything_is_done() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let mut refused = Vec::new();
    for path in ["/run/netns/nowhere", "/etc/passwd", "/proc/self/ns/net"] {
        let mut add = add("a");
        add.netns = PathBuf::from(path);
        refused.push(pods.add(add, soon()).await.unwrap_err().to_string());
    }
    insta::assert_snapshot!(refused.join("\n"), @r#"
    network namespace /run/netns/nowhere does not exist
    /etc/passwd is not a network namespace
    network namespace /proc/self/ns/net is the node's own
    "#);
    assert!(world.state().log.is_empty());
}

#[tokio::test]
async fn more_than_the_link_carries_is_refused_and_undone() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let mut jumbo = add("a");
    jumbo.mtu = Some(9000);
    let error = pods.add(jumbo, soon()).await.unwrap_err();
    insta::assert_snapshot!(error, @"mtu 9000 is above the 1500 of eth1, which carries the pod's frames");
    world.agree(&pods);
    assert!(pods.list().is_empty());
}

#[tokio::test]
async fn an_add_that_fails_at_any_step_leaves_nothing() {
    for step in ["allocate", "plan", "write", "kernel.add"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        world.state().failing.insert(step);
        pods.add(add("a"), soon()).await.unwrap_err();
        assert!(pods.list().is_empty(), "{step}");
        world.agree(&pods);
        world.state().failing.clear();
        pods.add(add("a"), soon()).await.unwrap();
        world.agree(&pods);
    }
}

#[tokio::test]
async fn an_add_that_cannot_be_undone_now_is_undone_later() {
    for step in ["kernel.del", "release"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        world.state().failing.extend(["kernel.add", step]);
        pods.add(add("a"), soon()).await.unwrap_err();
        world.state().failing.clear();
        pods.settle().await;
        assert!(pods.list().is_empty(), "{step}");
        world.agree(&pods);
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_leaves_nothing() {
    for step in ["allocate", "plan", "write", "kernel.add"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        world.state().panicking = Some(step);
        let error = pods.add(add("a"), soon()).await.unwrap_err();
        assert!(matches!(error, PodError::Panicked), "{error}");
        world.state().panicking = None;
        assert!(pods.list().is_empty(), "{step}");
        world.agree(&pods);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_given_back_is_given_back_later() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    world.state().failing.extend(["plan", "release"]);
    pods.add(add("a"), soon()).await.unwrap_err();
    assert_eq!(world.state().used.len(), 1);
    world.state().failing.clear();
    pods.settle().await;
    world.agree(&pods);
    assert!(world.state().used.is_empty());
}

#[tokio::test]
async fn a_repeated_add_of_a_pod_that_is_cut_off_says_so_and_touches_nothing() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    let before = (world.state().kernel.clone(), pods.list());
    world.state().failing.insert("confirm");
    let error = pods.add(add("a"), soon()).await.unwrap_err();
    assert!(matches!(error, PodError::Address(_)), "{error}");
    assert_eq!((world.state().kernel.clone(), pods.list()), before);
    pods.del(key("a")).await.unwrap();
    world.state().failing.clear();
    pods.add(add("a"), soon()).await.unwrap();
    world.agree(&pods);
}

#[tokio::test]
async fn a_del_that_the_kernel_refuses_is_durable_and_finished_later() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    world.state().failing.insert("kernel.del");
    pods.del(key("a")).await.unwrap();
    assert_eq!(world.state().disk[&key("a")].phase, Phase::Deleting);
    assert_eq!(world.state().used.len(), 1, "an address whose pod may still send");
    world.state().failing.clear();
    pods.settle().await;
    assert!(pods.list().is_empty());
    world.agree(&pods);
}

#[tokio::test]
async fn an_add_after_a_del_that_the_kernel_refused_finishes_it_first() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    world.state().failing.insert("kernel.del");
    pods.del(key("a")).await.unwrap();
    pods.add(add("a"), soon()).await.unwrap_err();
    world.state().failing.clear();
    pods.add(add("a"), soon()).await.unwrap();
    world.agree(&pods);
    assert_eq!(world.state().released.values().sum::<usize>(), 1);
}

#[tokio::test]
async fn a_del_whose_release_cannot_be_written_fails_and_works_later() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    world.state().failing.insert("release");
    let error = pods.del(key("a")).await.unwrap_err();
    assert!(matches!(error, PodError::Release(_)), "{error}");
    world.state().failing.clear();
    pods.del(key("a")).await.unwrap();
    assert!(pods.list().is_empty());
    world.agree(&pods);
}

#[tokio::test]
async fn a_check_names_what_is_lost() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let unknown = pods.check(&key("a"), &netns("a"), soon()).await.unwrap_err();
    assert!(matches!(unknown, PodError::Unknown), "{unknown}");
    let added = pods.add(add("a"), soon()).await.unwrap();
    let checked = pods.check(&key("a"), &netns("a"), soon()).await.unwrap();
    assert_eq!((checked.attachment, checked.differences), (added, Vec::new()));
    let gone = pods.check(&key("a"), Path::new("/run/netns/x"), soon()).await.unwrap_err();
    assert!(matches!(gone, PodError::NamespaceGone(_)), "{gone}");
    world.state().kernel.clear();
    let checked = pods.check(&key("a"), &netns("a"), soon()).await.unwrap();
    assert_eq!(checked.differences, ["no link of terway/a/eth0"]);
}

#[tokio::test(start_paused = true)]
async fn an_add_whose_deadline_passes_says_so_and_leaves_nothing() {
    for step in ["allocate", "kernel.add"] {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        world.hold(step);
        let deadline = soon();
        let adding = tokio::spawn({
            let pods = std::sync::Arc::clone(&pods);
            async move { pods.add(add("a"), deadline).await }
        });
        world.begun(step, 1).await;
        tokio::time::sleep_until(deadline).await;
        world.go_on(step);
        let error = adding.await.unwrap().unwrap_err();
        assert!(matches!(error, PodError::Interrupted(Interruption::Deadline)), "{step}: {error}");
        world.agree(&pods);
        assert!(pods.list().is_empty(), "{step}");
    }
}
