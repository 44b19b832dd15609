//! DELs that came while the daemon was away.

use super::crash::del;
use super::world::{World, add, key, soon};

#[tokio::test]
async fn a_queued_del_is_done_before_an_add_of_its_sandbox() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    let old = pods.add(add("a"), soon()).await.unwrap();
    proto::queue::push(queue.path(), &del("a")).unwrap();
    let new = pods.add(add("a"), soon()).await.unwrap();
    assert_eq!(old.record.pod, new.record.pod);
    assert_eq!(world.state().released.values().sum::<usize>(), 1);
    assert_eq!(pods.queue_len().await.unwrap(), 0);
    world.agree(&pods);
}

#[tokio::test]
async fn a_queued_del_that_an_add_has_done_does_not_hit_the_new_attachment() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    proto::queue::push(queue.path(), &del("a")).unwrap();
    world.hold("kernel.del");
    let adding = tokio::spawn({
        let pods = std::sync::Arc::clone(&pods);
        async move { pods.add(add("a"), soon()).await }
    });
    world.begun("kernel.del", 1).await;
    // It has read the file, and stands in line behind the ADD.
    let mut draining = Box::pin(pods.drain());
    while pods.queue_len().await.unwrap() == 0 {}
    for _ in 0..100 {
        assert!(futures::poll!(&mut draining).is_pending());
        tokio::task::yield_now().await;
    }
    world.go_on("kernel.del");
    draining.await.unwrap();
    adding.await.unwrap().unwrap();
    assert_eq!(pods.list().len(), 1);
    world.agree(&pods);
}

#[tokio::test]
async fn a_del_takes_its_queued_double_along() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    proto::queue::push(queue.path(), &del("a")).unwrap();
    pods.del(key("a")).await.unwrap();
    assert_eq!(pods.queue_len().await.unwrap(), 0);
}

#[tokio::test]
async fn a_queued_del_that_cannot_be_done_stays_and_the_others_go() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    pods.add(add("a"), soon()).await.unwrap();
    proto::queue::push(queue.path(), &del("a")).unwrap();
    proto::queue::push(queue.path(), &del("b")).unwrap();
    world.state().failing.insert("release");
    pods.drain().await.unwrap();
    assert_eq!(pods.queue_len().await.unwrap(), 1);
    world.state().failing.clear();
    pods.drain().await.unwrap();
    assert_eq!(pods.queue_len().await.unwrap(), 0);
    world.agree(&pods);
}

#[tokio::test]
async fn a_file_that_says_nothing_is_set_aside() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    std::fs::write(queue.path().join("torn.del"), [0xff, 0xff]).unwrap();
    proto::queue::push(queue.path(), &proto::agent::DelRequest::default()).unwrap();
    pods.drain().await.unwrap();
    assert_eq!(pods.queue_len().await.unwrap(), 0);
    assert_eq!(std::fs::read_dir(queue.path()).unwrap().count(), 2);
}
