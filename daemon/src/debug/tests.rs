//! `terwayctl` against the debug socket, over real gRPC.

use std::path::Path;
use std::sync::Arc;

use clap::Parser as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{LinkIndex, TableId};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{DebugService, Kernel, Pool, Shown};
use crate::api::access::Only;
use crate::api::gate::{Gate, Health, NotReady, Serving, State};
use crate::api::{server, socket};
use crate::ctl::{self, CtlError};
use crate::datapath::{DatapathError, Direction, FilterView, RuleView};
use crate::ipam::{AllocError, Snapshot};
use crate::metrics::Metrics;
use crate::pods::tests::world::{World, add, soon};
use crate::reload;
use crate::tasks::Tasks;

#[derive(Debug)]
struct Fixed;

impl Pool for Fixed {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, AllocError>> {
        let last_cloud_error = Some("Throttling".to_owned());
        async move { Ok(Snapshot { last_cloud_error, ..Snapshot::default() }) }.boxed()
    }
}

impl Kernel for Fixed {
    fn rules(&self) -> BoxFuture<'_, Result<Vec<RuleView>, DatapathError>> {
        let link = LinkIndex::try_from(3).unwrap();
        let text = "from all iif eth1 unreachable".to_owned();
        let rule = RuleView { v6: true, priority: 513, text, table: Some(TableId::of(link)) };
        async move { Ok(vec![rule]) }.boxed()
    }

    fn filters(&self) -> BoxFuture<'_, Result<Vec<FilterView>, DatapathError>> {
        let filter = FilterView {
            link: "eth1".parse().unwrap(),
            index: LinkIndex::try_from(3).unwrap(),
            direction: Direction::Egress,
            priority: 50001,
            handle: 1,
            program: "vlan_tag".to_owned(),
            program_id: 9,
            foreign: false,
        };
        async move { Ok(vec![filter]) }.boxed()
    }

    fn drops(&self) -> BoxFuture<'_, Result<Vec<(&'static str, u64)>, DatapathError>> {
        async { Ok(vec![("spoofed_source", 2)]) }.boxed()
    }

    fn foreign_ahead(&self) -> BoxFuture<'_, Result<Vec<String>, DatapathError>> {
        let one = "cil_to_netdev on eth1 egress at 25000, before vlan_tag at 50001".to_owned();
        async { Ok(vec![one]) }.boxed()
    }

    fn reaper_queue(&self) -> usize {
        4
    }
}

#[derive(Debug)]
struct Full;

impl Health for Full {
    fn now(&self) -> Result<(), NotReady> {
        Err(NotReady::New("vSwitch vsw-1 is full".to_owned()))
    }
}

struct Daemon {
    dir: TempDir,
    world: World,
    gate: Gate,
    shown: watch::Sender<Option<Shown>>,
    tasks: Tasks,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World::new(&dir.path().join("del-queue"));
        let tasks = Tasks::default();
        let gate = Gate::new("reading eni_conf");
        let shown = watch::Sender::new(None);
        let (listener, file) = socket::listen(&dir.path().join("debug.sock")).unwrap();
        let service = DebugService::server(gate.clone(), shown.subscribe(), Metrics::default());
        let only = Only { uid: nix::unistd::geteuid().as_raw() };
        let serve = server::serve(listener, service, only, gate.clone(), tasks.stop().clone());
        tasks.part("debug", async move {
            let _file = file;
            serve.await
        });
        Self { dir, world, gate, shown, tasks }
    }

    async fn serve(&self) {
        let pods = self.world.start_with(self.tasks.clone());
        pods.add(add("a"), soon()).await.unwrap();
        let refused = reload::Refused { since: Instant::now(), why: "ip_stack: \"v5\"".to_owned() };
        let standing = reload::Standing { refused: Some(refused), restart: vec!["mark_mask"] };
        self.shown.send_replace(Some(Shown {
            pods: Arc::clone(&pods),
            kernel: Arc::new(Fixed),
            pool: Arc::new(Fixed),
            config: watch::Sender::new(standing).subscribe(),
            instance_id: "i-1".to_owned(),
            instance_type: "ecs.g7.4xlarge".to_owned(),
        }));
        self.gate.set(State::Serving(Serving { pods, health: Arc::new(Full) }));
    }

    async fn ctl(&self, what: &str) -> Result<Value, CtlError> {
        let json = ctl(&self.dir.path().join("debug.sock"), &[what, "-o", "json"]).await?;
        Ok(serde_json::from_str(&json).unwrap())
    }
}

async fn ctl(socket: &Path, args: &[&str]) -> Result<String, CtlError> {
    let socket = socket.to_str().unwrap();
    let args = ["terwayctl", "--socket", socket].into_iter().chain(args.iter().copied());
    let args = ctl::Args::parse_from(args);
    let mut out = Vec::new();
    ctl::run(&args, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn everything_is_shown_under_stable_names() {
    let daemon = Daemon::start();
    daemon.serve().await;
    let pods = daemon.ctl("pods").await.unwrap();
    let mut pod = pods["pods"][0].clone();
    assert!(pod["add_micros"].is_u64());
    pod["add_micros"] = Value::from(0);
    insta::assert_json_snapshot!(pod, @r#"
    {
      "add_micros": 0,
      "container_id": "a",
      "eni": "eni-1",
      "host_link": "calia",
      "host_link_index": 100,
      "ifname": "eth0",
      "ipv4": "10.0.1.1",
      "ipv6": "",
      "mode": "shared",
      "name": "web-0",
      "namespace": "default",
      "netns": "/run/netns/a",
      "network": "terway",
      "parent_eni": "eni-1",
      "phase": "up",
      "pod_networking": "",
      "security_groups": [],
      "uid": "",
      "vlan": 0
    }
    "#);
    insta::assert_json_snapshot!(daemon.ctl("rules").await.unwrap(), @r#"
    {
      "rules": [
        {
          "family": "ipv6",
          "priority": 513,
          "table": 1003,
          "text": "from all iif eth1 unreachable"
        }
      ]
    }
    "#);
    insta::assert_json_snapshot!(daemon.ctl("filters").await.unwrap(), @r#"
    {
      "filters": [
        {
          "direction": "egress",
          "foreign": false,
          "handle": 1,
          "link": "eth1",
          "link_index": 3,
          "priority": 50001,
          "program": "vlan_tag",
          "program_id": 9
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn the_status_is_shown_under_stable_names() {
    let daemon = Daemon::start();
    daemon.serve().await;
    let mut status = daemon.ctl("status").await.unwrap();
    status["uptime_seconds"] = Value::from(0);
    status["version"] = Value::from("");
    insta::assert_json_snapshot!(status, @r#"
    {
      "config_refused": "ip_stack: \"v5\"",
      "config_refused_seconds": 0,
      "config_restart": [
        "mark_mask"
      ],
      "del_queue": 0,
      "drops": [
        {
          "cause": "spoofed_source",
          "packets": 2
        }
      ],
      "foreign_filters_ahead": [
        "cil_to_netdev on eth1 egress at 25000, before vlan_tag at 50001"
      ],
      "instance_id": "i-1",
      "instance_type": "ecs.g7.4xlarge",
      "last_cloud_error": "Throttling",
      "mode": "standalone",
      "pool": {
        "capacity": 0,
        "enis": 0,
        "idle": 0,
        "leaving": 0,
        "max_enis": 0,
        "max_members": 0,
        "members": 0,
        "resting": 0,
        "used": 0,
        "waiting": 0
      },
      "ready": false,
      "reaper_queue": 4,
      "reason": "vSwitch vsw-1 is full",
      "uptime_seconds": 0,
      "version": ""
    }
    "#);
    assert_eq!(daemon.ctl("enis").await.unwrap()["enis"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn metrics_are_there_before_the_pool_is() {
    let daemon = Daemon::start();
    let socket = daemon.dir.path().join("debug.sock");
    let text = ctl(&socket, &["metrics"]).await.unwrap();
    assert!(text.contains("terway_config_reloads_total{result=\"refused\"} 0"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains("terway_pool_addresses{"), "{text}");
    daemon.serve().await;
    let text = ctl(&socket, &["metrics"]).await.unwrap();
    assert!(text.contains("terway_pool_addresses{state=\"idle\"} 0"), "{text}");
}

#[tokio::test]
async fn a_table_is_what_people_get() {
    let daemon = Daemon::start();
    daemon.serve().await;
    let text = ctl(&daemon.dir.path().join("debug.sock"), &["rules"]).await.unwrap();
    insta::assert_snapshot!(text, @r#"
    FAMILY  PRIORITY  RULE
    ipv6         513  from all iif eth1 unreachable
    "#);
}

#[tokio::test]
async fn a_daemon_that_starts_says_what_it_waits_for() {
    let daemon = Daemon::start();
    let status = daemon.ctl("status").await.unwrap();
    assert_eq!(status["reason"], "terwayd is starting: reading eni_conf");
    let error = daemon.ctl("pods").await.unwrap_err();
    assert_eq!(error.to_string(), "terwayd is starting; `terwayctl status` says why");
    assert_eq!(error.exit_code(), 69);
}

#[tokio::test]
async fn a_daemon_that_is_down_is_named_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("debug.sock");
    let missing = ctl(&path, &["pods"]).await.unwrap_err();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let deaf = ctl(&path, &["pods"]).await.unwrap_err();
    for error in [missing, deaf] {
        let text = error.to_string().replace(path.to_str().unwrap(), "SOCKET");
        assert_eq!(error.exit_code(), 69);
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @"terwayd is not running: nobody listens on SOCKET; start it, or name its socket with --socket");
        }
    }
}
