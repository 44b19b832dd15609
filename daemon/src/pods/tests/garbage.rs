//! GC, the runtime's and our own.

use std::collections::BTreeSet;

use super::world::{World, add, key, netns, soon};
use crate::api::failure;

fn valid(ids: &[&str]) -> BTreeSet<(String, String)> {
    ids.iter().map(|id| ((*id).to_owned(), "eth0".to_owned())).collect()
}

#[tokio::test]
async fn gc_keeps_what_is_listed_and_what_is_another_networks() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    for id in ["a", "b"] {
        pods.add(add(id), soon()).await.unwrap();
    }
    let mut other = add("c");
    "other".clone_into(&mut other.key.network);
    pods.add(other, soon()).await.unwrap();
    assert_eq!(pods.gc("terway".to_owned(), valid(&["b"])).await.unwrap(), 1);
    let left: Vec<_> = pods.list().into_iter().map(|record| record.pod.spec.key).collect();
    assert_eq!(
        left.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["other/c/eth0", "terway/b/eth0"]
    );
    world.agree(&pods);
}

#[tokio::test]
async fn gc_leaves_what_is_being_added() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    world.hold("kernel.add");
    let adding = tokio::spawn({
        let pods = std::sync::Arc::clone(&pods);
        async move { pods.add(add("a"), soon()).await }
    });
    world.begun("kernel.add", 1).await;
    assert_eq!(pods.gc("terway".to_owned(), valid(&[])).await.unwrap(), 0);
    world.go_on("kernel.add");
    adding.await.unwrap().unwrap();
    world.agree(&pods);
}

#[tokio::test]
async fn gc_goes_on_after_an_error_and_reports_all() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    for id in ["a", "b"] {
        pods.add(add(id), soon()).await.unwrap();
    }
    world.state().failing.insert("kernel.del");
    let error = pods.gc("terway".to_owned(), valid(&[])).await.unwrap_err();
    let failure = failure::gc(&error);
    insta::assert_snapshot!(format!("{}\n{}", failure.message, failure.details), @r#"
    GC: 0 sandboxes removed, 2 not
    terway/a/eth0: the kernel refused: link add: Device or resource busy (os error 16)
    terway/b/eth0: the kernel refused: link add: Device or resource busy (os error 16)
    "#);
    world.state().failing.clear();
    assert_eq!(pods.gc("terway".to_owned(), valid(&[])).await.unwrap(), 2);
    world.agree(&pods);
}

#[tokio::test]
async fn a_sandbox_is_collected_only_by_two_witnesses() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    let record = pods.list().remove(0);
    // The path alone: a mount may hide it.
    world.state().namespaces.remove(&netns("a"));
    pods.collect().await;
    assert_eq!(pods.list().len(), 1);
    // The link alone: somebody may have deleted it.
    world.state().namespaces.insert(netns("a"));
    world.state().kernel.clear();
    pods.collect().await;
    assert_eq!(pods.list().len(), 1);
    // Both.
    world.state().namespaces.remove(&netns("a"));
    pods.collect().await;
    assert!(pods.list().is_empty());
    world.agree(&pods);
    // The path, and the pod in another sandbox.
    world.state().namespaces.insert(netns("a"));
    pods.add(add("a"), soon()).await.unwrap();
    pods.add(add("b"), soon()).await.unwrap();
    world.state().namespaces.remove(&netns("a"));
    pods.collect().await;
    world.agree(&pods);
    assert_eq!(pods.list().len(), 1);
    assert_ne!(pods.list()[0].pod.spec.key, record.pod.spec.key);
    assert_eq!(pods.list()[0].pod.spec.key, key("b"));
}
