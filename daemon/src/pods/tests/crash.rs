//! The daemon dies after any number of effects, and starts again.

use std::sync::Arc;

use proto::agent::{DelRequest, Sandbox};

use super::super::Pods;
use super::world::{World, add, key, netns, soon};

/// A daemon that dies after `effects` more effects, while `verb` runs.
async fn dies<F: Future>(world: &World, effects: usize, verb: impl FnOnce(Arc<Pods>) -> F) -> bool {
    let pods = world.start();
    pods.recover().await.unwrap();
    world.state().left = Some(effects);
    let verb = Box::pin(verb(pods));
    let ended = tokio::select! {
        biased;
        _ = verb => true,
        () = world.until(|state| state.left == Some(0)) => false,
    };
    // The runtime would go on with what the dead daemon had begun: it waits in the world for ever.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.crash();
    ended
}

#[tokio::test]
async fn an_add_that_was_cut_off_is_finished_while_its_namespace_is_there() {
    for effects in 1.. {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let ended =
            dies(&world, effects, |pods| async move { pods.add(add("a"), soon()).await }).await;
        let intended = world.state().disk.contains_key(&key("a"));
        let pods = world.start();
        pods.recover().await.unwrap();
        world.agree(&pods);
        assert_eq!(pods.list().len(), usize::from(intended), "after {effects} effects");
        pods.add(add("a"), soon()).await.unwrap();
        pods.del(key("a")).await.unwrap();
        world.agree(&pods);
        if ended {
            assert!(intended && effects > 3, "after {effects} effects");
            break;
        }
    }
}

#[tokio::test]
async fn an_add_that_was_cut_off_is_undone_when_its_namespace_is_gone() {
    for effects in 1.. {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let ended =
            dies(&world, effects, |pods| async move { pods.add(add("a"), soon()).await }).await;
        // The kernel takes the pair with the namespace.
        world.state().namespaces.remove(&netns("a"));
        world.state().kernel.clear();
        let pods = world.start();
        pods.recover().await.unwrap();
        world.agree(&pods);
        assert!(pods.list().is_empty(), "after {effects} effects");
        if ended {
            break;
        }
    }
}

#[tokio::test]
async fn a_del_that_was_cut_off_and_queued_is_finished() {
    for effects in 1.. {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        world.start().add(add("a"), soon()).await.unwrap();
        world.flush();
        let ended = dies(&world, effects, |pods| async move { pods.del(key("a")).await }).await;
        // The plugin had no answer.
        proto::queue::push(queue.path(), &del("a")).unwrap();
        let pods = world.start();
        pods.recover().await.unwrap();
        world.agree(&pods);
        assert!(pods.list().is_empty(), "after {effects} effects");
        assert!(proto::queue::list(queue.path()).unwrap().is_empty(), "after {effects} effects");
        if ended {
            break;
        }
    }
}

#[tokio::test]
async fn a_del_that_was_cut_off_and_comes_again_is_finished() {
    for effects in 1.. {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        world.start().add(add("a"), soon()).await.unwrap();
        world.flush();
        let ended = dies(&world, effects, |pods| async move { pods.del(key("a")).await }).await;
        let pods = world.start();
        pods.recover().await.unwrap();
        pods.del(key("a")).await.unwrap();
        world.agree(&pods);
        assert!(pods.list().is_empty(), "after {effects} effects");
        if ended {
            break;
        }
    }
}

#[tokio::test]
async fn a_start_restores_what_lives_and_takes_away_what_does_not() {
    let queue = tempfile::tempdir().unwrap();
    let world = World::new(queue.path());
    let pods = world.start();
    for id in ["a", "b", "c"] {
        pods.add(add(id), soon()).await.unwrap();
    }
    world.flush();
    world.crash();
    world.state().namespaces.remove(&netns("b"));
    world.state().kernel.remove(&key("b"));
    proto::queue::push(queue.path(), &del("c")).unwrap();
    world.state().log.clear();
    let pods = world.start();
    pods.recover().await.unwrap();
    world.agree(&pods);
    insta::assert_snapshot!(world.state().log.join("\n"), @r#"
    restore a
    note Deleting terway/b/eth0
    kernel.del terway/b/eth0
    release terway/b/eth0
    note Deleting terway/c/eth0
    kernel.del terway/c/eth0
    release terway/c/eth0
    "#);
}

pub(crate) fn del(id: &str) -> DelRequest {
    let sandbox = Sandbox {
        network: "terway".to_owned(),
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    };
    DelRequest { sandbox: Some(sandbox), ..DelRequest::default() }
}
