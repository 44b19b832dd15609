//! DEL that the daemon cannot take now.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use proto::agent::{DelRequest, Pod, Reason, Sandbox};
use proto::queue;
use serde_json::json;
use tonic::Status;

use crate::support::{Answer, Daemon, Run, conf, plugin, variables};

fn del(socket: &Path, queue: &Path, timeout: f64) -> Run {
    let variables = variables(
        "DEL",
        &[("TERWAY_DEL_QUEUE", queue.to_str().unwrap()), ("CNI_NETNS", "/run/netns/c1")],
    );
    plugin(&variables, &conf(json!({ "agentSocket": socket, "timeout": timeout })))
}

fn request() -> DelRequest {
    DelRequest {
        sandbox: Some(Sandbox {
            network: "terway".to_owned(),
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        }),
        netns: "/run/netns/c1".to_owned(),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "u1".to_owned(),
        }),
    }
}

/// A DEL at `socket` succeeds within `timeout` seconds, says nothing, and is queued with all that it says.
fn is_queued(socket: &Path, timeout: f64) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("terway/del-queue");
    for _ in 0..2 {
        let run = del(socket, &dir, timeout);
        assert_eq!(run.result(), "");
        assert!(run.stderr.contains("network removal queued"), "{}", run.stderr);
    }
    let queued: Vec<_> = queue::list(&dir).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(queued.iter().map(|it| &it.request).collect::<Vec<_>>(), [&request()]);
}

#[test]
fn a_del_is_queued_when_the_daemon_is_down() {
    let dir = tempfile::tempdir().unwrap();
    is_queued(&dir.path().join("agent.sock"), 60.0);
}

#[test]
fn a_del_is_queued_past_its_deadline() {
    is_queued(&Daemon::start(Answer::Hang).socket(), 0.3);
}

#[test]
fn a_del_is_queued_when_the_daemon_is_busy_or_does_not_say_why_it_failed() {
    for reason in [Reason::TryAgainLater, Reason::NotAvailable, Reason::NotAvailableAndLimited] {
        is_queued(&Daemon::start(Answer::fail(reason, "shutting down", "")).socket(), 60.0);
    }
    is_queued(&Daemon::start(Answer::Say(Status::internal("a task panicked"))).socket(), 60.0);
}

#[test]
fn a_del_is_queued_when_the_socket_is_not_roots() {
    let daemon = Daemon::start(Answer::Succeed);
    let file = daemon.dir.path().join("file");
    fs::write(&file, "").unwrap();
    is_queued(&file, 60.0);
    assert_eq!(daemon.seen(), []);
}

#[test]
fn a_del_that_the_daemon_takes_is_not_queued() {
    let daemon = Daemon::start(Answer::Succeed);
    let queue = daemon.dir.path().join("del-queue");
    assert_eq!(del(&daemon.socket(), &queue, 60.0).result(), "");
    assert!(!queue.exists());
}

#[test]
fn a_del_that_the_daemon_refuses_for_good_fails() {
    let daemon = Daemon::start(Answer::fail(Reason::Io, "cannot write the checkpoint", "ENOSPC"));
    let queue = daemon.dir.path().join("del-queue");
    assert_snapshot!(del(&daemon.socket(), &queue, 60.0).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 5,
      "msg": "cannot write the checkpoint",
      "details": "ENOSPC"
    }
    "#);
    assert!(!queue.exists());
}

#[test]
fn a_del_that_can_neither_be_told_nor_queued_fails() {
    let dir = tempfile::tempdir().unwrap();
    let queue = dir.path().join("del-queue");
    fs::write(&queue, "a file in its place").unwrap();
    let run = del(&dir.path().join("agent.sock"), &queue, 60.0);
    let run = run.without(dir.path().to_str().unwrap(), "DIR");
    assert_snapshot!(run.error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 5,
      "msg": "pod shop/web-0: terwayd is not running: DIR/agent.sock does not exist; and the DEL cannot be queued in DIR/del-queue",
      "details": "File exists (os error 17); make DIR/del-queue a directory that root can write, or start terwayd: the address stays in use until a DEL gets through or terwayd collects it"
    }
    "#);
}
