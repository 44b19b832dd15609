//! A daemon that does as it is told, a pod's namespace, and runs of the plugin.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cni_plugin::Caller;
use proto::agent::agent_server::{Agent, AgentServer};
use proto::agent::{
    AddReply, AddRequest, CheckReply, CheckRequest, DelReply, DelRequest, Failure, GcReply,
    GcRequest, Interface, Ip, Reason, Route, StatusReply, StatusRequest,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What the daemon does with every call.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Succeeds; ADD with [`network`].
    Succeed,
    /// Fails as `terwayd` does.
    Fail(Failure),
    /// Fails without a reason of ours.
    Say(Status),
    /// Never answers.
    Hang,
}

impl Answer {
    pub(crate) fn fail(reason: Reason, message: &str, details: &str) -> Self {
        Self::Fail(Failure {
            reason: reason.into(),
            message: message.to_owned(),
            details: details.to_owned(),
        })
    }
}

/// A request as the daemon got it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Add(AddRequest),
    Del(DelRequest),
    Check(CheckRequest),
    Gc(GcRequest),
    Status,
}

#[derive(Debug)]
struct Fake {
    answer: Answer,
    /// With the `grpc-timeout` of each.
    seen: Arc<Mutex<Vec<(Seen, String)>>>,
    arrived: Sender<()>,
}

impl Fake {
    async fn answer<T, R>(
        &self,
        request: Request<T>,
        seen: impl FnOnce(T) -> Seen,
        reply: R,
    ) -> Result<Response<R>, Status>
    where
        T: Send,
        R: Send,
    {
        let timeout = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
        self.seen.lock().unwrap().push((seen(request.into_inner()), timeout));
        self.arrived.send(()).unwrap();
        match &self.answer {
            Answer::Succeed => Ok(Response::new(reply)),
            Answer::Fail(failure) => Err(proto::failure::to_status(failure)),
            Answer::Say(status) => Err(status.clone()),
            Answer::Hang => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Agent for Fake {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        self.answer(request, Seen::Add, network()).await
    }

    async fn del(&self, request: Request<DelRequest>) -> Result<Response<DelReply>, Status> {
        self.answer(request, Seen::Del, DelReply::default()).await
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        self.answer(request, Seen::Check, CheckReply {}).await
    }

    async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
        self.answer(request, Seen::Gc, GcReply { removed: 3 }).await
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        self.answer(request, |_| Seen::Status, StatusReply {}).await
    }
}

/// A daemon on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) dir: TempDir,
    seen: Arc<Mutex<Vec<(Seen, String)>>>,
    arrivals: Receiver<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(answer: Answer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::default();
        let (arrived, arrivals) = mpsc::channel();
        let fake = Fake { answer, seen: Arc::clone(&seen), arrived };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("agent.sock"));
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let calls = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                let server = Server::builder().add_service(AgentServer::new(fake));
                tokio::select! {
                    ended = server.serve_with_incoming(calls) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { dir, seen, arrivals, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Returns when a call has come in.
    pub(crate) fn wait_for_call(&self) {
        self.arrivals.recv_timeout(Duration::from_mins(1)).unwrap();
    }

    /// What came in, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().map(|(seen, _)| seen.clone()).collect()
    }

    /// The deadline of the last call.
    pub(crate) fn timeout(&self) -> Duration {
        let text = self.seen.lock().unwrap().last().unwrap().1.clone();
        let (number, unit) = text.split_at(text.len() - 1);
        let number = number.parse().unwrap();
        match unit {
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            unit => panic!("grpc-timeout in {unit}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What the daemon sets up: a dual-stack pod.
pub(crate) fn network() -> AddReply {
    let interface = |name: &str, mac: &str, sandbox: &str| Interface {
        name: name.to_owned(),
        mac: mac.to_owned(),
        sandbox: sandbox.to_owned(),
        mtu: 1500,
    };
    let ip = |address: &str, gateway: &str| Ip {
        address: address.to_owned(),
        gateway: gateway.to_owned(),
        interface: 0,
    };
    let route = |dst: &str, gw: &str| Route { dst: dst.to_owned(), gw: gw.to_owned() };
    AddReply {
        interfaces: vec![
            interface("eth0", "0a:58:0a:00:01:07", "/run/netns/pod"),
            interface("cali0123456789a", "ee:ee:ee:ee:ee:ee", ""),
            interface("eth1", "00:16:3e:00:00:02", ""),
        ],
        ips: vec![ip("10.0.1.7/32", "169.254.1.1"), ip("2408:4005::7/128", "fe80::1")],
        routes: vec![route("0.0.0.0/0", "169.254.1.1"), route("::/0", "fe80::1")],
    }
}

/// A pod's network namespace: that of a process which lives as long as this.
#[derive(Debug)]
pub(crate) struct Namespace {
    process: Child,
    path: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        // `cat` ends when our end of its stdin closes, whatever becomes of this process.
        let mut child = command
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let path = format!("/proc/{}/ns/net", child.id());
        Self { process: child, path }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// stdout of a run that failed.
    pub(crate) fn error(&self) -> &str {
        assert_eq!(self.code, 1, "{self:?}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(object["code"].is_u64() && object["msg"].is_string(), "{object}");
        &self.stdout
    }

    /// stdout of a run that succeeded.
    pub(crate) fn result(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    /// The same without what differs from run to run.
    pub(crate) fn without(mut self, what: &str, name: &str) -> Self {
        self.stdout = self.stdout.replace(what, name);
        self.stderr = self.stderr.replace(what, name);
        self
    }
}

/// Variables for a call; those that are missing have defaults.
pub(crate) fn variables<'a>(verb: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = more.to_vec();
    for (name, value) in [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("TERWAY_DEL_QUEUE", "/nonexistent/no test should queue here"),
    ] {
        if !all.iter().any(|(given, _)| *given == name) {
            all.push((name, value));
        }
    }
    all
}

/// A configuration of version 1.1.0 with `more` in it.
pub(crate) fn conf(more: Value) -> String {
    let mut conf = json!({ "cniVersion": "1.1.0", "name": "terway", "type": "terway" });
    let Value::Object(more) = more else { panic!("{more} is no object") };
    conf.as_object_mut().unwrap().extend(more);
    conf.to_string()
}

/// The same for a daemon at `socket`.
pub(crate) fn conf_of(daemon: &Daemon, mut more: Value) -> String {
    more["agentSocket"] = json!(daemon.socket());
    conf(more)
}

/// Runs the plugin in this process.
pub(crate) fn plugin(variables: &[(&str, &str)], stdin: &str) -> Run {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let env = |name: &str| {
        variables.iter().find(|(given, _)| *given == name).map(|(_, value)| OsString::from(value))
    };
    let code = cni_plugin::run(Caller {
        env: &env,
        stdin: &mut stdin.as_bytes(),
        stdout: &mut stdout,
        stderr: &mut stderr,
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: i32::from(code), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs `program` as a runtime does.
pub(crate) fn program(program: &str, variables: &[(&str, &str)], stdin: &[u8]) -> Run {
    let mut child = Command::new(program)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that does not want its stdin may be gone by now.
    drop(child.stdin.take().unwrap().write_all(stdin));
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
