//! Daemons that are down, hung, not root's, or that say no.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use proto::agent::Reason;
use serde_json::{Value, json};
use tonic::Status;

use crate::support::{Answer, Daemon, Namespace, Run, conf, plugin, variables};

/// How long to wait for a daemon that answers, and for one that is known not to.
const LONG: f64 = 60.0;
const SHORT: f64 = 0.3;

/// `verb` at the daemon of `socket`; paths are taken out.
fn ask(verb: &str, socket: &Path, timeout: f64) -> Run {
    let netns = Namespace::new();
    let conf = conf(json!({
        "agentSocket": socket,
        "timeout": timeout,
        "prevResult": {},
        "cni.dev/valid-attachments": [],
    }));
    plugin(&variables(verb, &[("CNI_NETNS", netns.path())]), &conf)
        .without(socket.parent().unwrap().to_str().unwrap(), "DIR")
}

/// The codes of ADD, CHECK, GC and STATUS.
fn codes(socket: &Path, timeout: f64) -> [u64; 4] {
    ["ADD", "CHECK", "GC", "STATUS"].map(|verb| {
        let error: Value = serde_json::from_str(ask(verb, socket, timeout).error()).unwrap();
        error["code"].as_u64().unwrap()
    })
}

#[test]
fn a_daemon_that_was_never_there_is_one_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    assert_snapshot!(ask("ADD", &socket, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 11,
      "msg": "pod shop/web-0: terwayd is not running: DIR/agent.sock does not exist",
      "details": "No such file or directory (os error 2); the runtime tries again; look at terwayd and its log on this node"
    }
    "#);
    assert_eq!(codes(&socket, LONG), [11, 11, 11, 50]);
}

#[test]
fn a_daemon_that_died_is_one_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert_snapshot!(ask("STATUS", &socket, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 50,
      "msg": "network terway: terwayd is not running: nobody listens on DIR/agent.sock",
      "details": "Connection refused (os error 111); the runtime tries again; look at terwayd and its log on this node"
    }
    "#);
    assert_eq!(codes(&socket, LONG), [11, 11, 11, 50]);
}

#[test]
fn a_daemon_that_does_not_accept_is_given_up_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_snapshot!(ask("ADD", &socket, SHORT).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 11,
      "msg": "pod shop/web-0: terwayd did not answer on DIR/agent.sock within 300ms",
      "details": "the runtime tries again; look at terwayd and its log on this node"
    }
    "#);
    assert_eq!(codes(&socket, SHORT), [11, 11, 11, 50]);
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_at_the_deadline() {
    let daemon = Daemon::start(Answer::Hang);
    assert_snapshot!(ask("GC", &daemon.socket(), SHORT).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 11,
      "msg": "network terway: terwayd did not answer on DIR/agent.sock within 300ms",
      "details": "the runtime tries again; look at terwayd and its log on this node"
    }
    "#);
    assert_eq!(codes(&daemon.socket(), SHORT), [11, 11, 11, 50]);
    assert_ne!(daemon.seen(), [], "it was asked");
}

#[test]
fn a_daemon_with_a_full_backlog_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let new = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None);
    let address = UnixAddr::new(&path).unwrap();
    let listener = new().unwrap();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = new().unwrap();
        let connected = connect(client.as_raw_fd(), &address);
        clients.push(client);
        if connected == Err(nix::errno::Errno::EAGAIN) {
            break;
        }
        connected.unwrap();
    }
    assert_snapshot!(ask("ADD", &path, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 11,
      "msg": "pod shop/web-0: terwayd takes no more calls: the backlog of DIR/agent.sock is full",
      "details": "Resource temporarily unavailable (os error 11); the runtime tries again; look at terwayd and its log on this node"
    }
    "#);
    assert_eq!(codes(&path, LONG), [11, 11, 11, 50]);
}

#[test]
fn a_daemon_that_closes_the_connection_is_one_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..4 {
            drop(listener.accept().unwrap());
        }
    });
    assert_eq!(codes(&socket, LONG), [11, 11, 11, 50]);
    thread.join().unwrap();
}

#[test]
fn a_daemon_that_dies_during_the_call_is_one_to_wait_for() {
    let (daemon, netns) = (Daemon::start(Answer::Hang), Namespace::new());
    let socket = daemon.socket();
    let conf = conf(json!({ "agentSocket": socket }));
    let killer = std::thread::spawn(move || {
        daemon.wait_for_call();
        drop(daemon);
    });
    let run = plugin(&variables("ADD", &[("CNI_NETNS", netns.path())]), &conf);
    killer.join().unwrap();
    let error: Value = serde_json::from_str(run.error()).unwrap();
    let msg = format!("pod shop/web-0: terwayd went away during the call on {}", socket.display());
    assert_eq!((&error["code"], &error["msg"]), (&json!(11), &json!(msg)), "{error}");
}

#[test]
fn a_socket_that_others_could_have_made_is_not_used() {
    let daemon = Daemon::start(Answer::Succeed);
    let dir = daemon.dir.path();
    let socket = daemon.socket();
    let mode = |mode| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();

    mode(0o770);
    assert_snapshot!(ask("ADD", &socket, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: others may write in the socket's directory DIR (mode 0770)",
      "details": "terwayd was not called; chmod it to 0700 and restart terwayd"
    }
    "#);
    mode(0o707);
    assert_eq!(codes(&socket, LONG), [999, 999, 999, 50]);
    mode(0o755);
    assert_eq!(ask("ADD", &socket, LONG).code, 0, "others may look, not write");

    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    assert_snapshot!(ask("ADD", &file, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: DIR/file is not a socket",
      "details": "terwayd was not called; let agentSocket name the socket of terwayd"
    }
    "#);
}

#[test]
fn a_socket_of_another_user_is_not_used() {
    assert!(nix::unistd::geteuid().is_root(), "run this test as root: it gives a socket away");
    let daemon = Daemon::start(Answer::Succeed);
    let socket = daemon.socket();
    let give = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), None).unwrap();

    give(&socket, 65534);
    assert_snapshot!(ask("ADD", &socket, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: the socket DIR/agent.sock belongs to user 65534, not root",
      "details": "terwayd was not called; find out who made it; restart terwayd as root"
    }
    "#);
    assert_eq!(codes(&socket, LONG), [999, 999, 999, 50]);
    give(&socket, 0);
    give(daemon.dir.path(), 65534);
    assert_snapshot!(ask("ADD", &socket, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: the socket's directory DIR belongs to user 65534, not root",
      "details": "terwayd was not called; chown it to root, mode 0700, and restart terwayd"
    }
    "#);
    give(daemon.dir.path(), 0);
    assert_eq!(ask("ADD", &socket, LONG).code, 0);
    assert_eq!(daemon.seen().len(), 1);
}

#[test]
fn a_listener_of_another_user_is_not_used() {
    assert!(nix::unistd::geteuid().is_root(), "run this test as root: it becomes another user");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    // The kernel takes down who called listen(), not who made the socket.
    let listens = Command::new("perl")
        .args(["-e", "listen(STDIN, 8) or die $!"])
        .stdin(listener.try_clone().unwrap())
        .uid(65534)
        .status();
    assert!(listens.unwrap().success());
    assert_snapshot!(ask("ADD", &path, LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: who listens on DIR/agent.sock is user 65534, not root",
      "details": "terwayd was not called; find out who made it; restart terwayd as root"
    }
    "#);
    assert_eq!(codes(&path, LONG), [999, 999, 999, 50]);
}

#[test]
fn what_the_daemon_says_reaches_the_runtime_word_by_word() {
    let daemon = Daemon::start(Answer::fail(
        Reason::VswitchExhausted,
        "pod shop/web-0: vSwitch vsw-1 has no free address: 252 of 252 are used",
        "next try in 30 s; RequestId 4C467B38",
    ));
    assert_snapshot!(ask("ADD", &daemon.socket(), LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 100,
      "msg": "pod shop/web-0: vSwitch vsw-1 has no free address: 252 of 252 are used",
      "details": "next try in 30 s; RequestId 4C467B38"
    }
    "#);
}

#[test]
fn each_reason_of_the_daemon_has_its_code() {
    for (reason, code) in [
        (Reason::Unspecified, 999),
        (Reason::UnsupportedField, 2),
        (Reason::UnknownContainer, 3),
        (Reason::BadEnvironment, 4),
        (Reason::Io, 5),
        (Reason::InvalidConfig, 7),
        (Reason::OwnNamespace, 8),
        (Reason::TryAgainLater, 11),
        (Reason::NotAvailable, 50),
        (Reason::NotAvailableAndLimited, 51),
        (Reason::VswitchExhausted, 100),
        (Reason::QuotaReached, 101),
        (Reason::Throttled, 102),
        (Reason::PodEniNotBound, 103),
        (Reason::KernelFeatureMissing, 105),
        (Reason::CheckFailed, 999),
    ] {
        let daemon = Daemon::start(Answer::fail(reason, "why", ""));
        assert_eq!(codes(&daemon.socket(), LONG), [code; 4], "{reason:?}");
    }
}

#[test]
fn a_failure_without_a_reason_is_passed_on_as_it_is() {
    let daemon = Daemon::start(Answer::Say(Status::internal("task 7 panicked")));
    assert_snapshot!(ask("ADD", &daemon.socket(), LONG).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 999,
      "msg": "pod shop/web-0: terwayd failed without a reason: task 7 panicked",
      "details": "gRPC status Internal; look at the log of terwayd for this call"
    }
    "#);
    assert_eq!(codes(&daemon.socket(), LONG), [999, 999, 999, 50]);
}
