//! A cloud that refuses, lies or is used up: each ADD fails with its own CNI code and says why, and
//! nothing is left behind.

use std::time::Duration;

use serde_json::{Map, Value, json};
use terway_lab::driver::{Outcome, Verb};
use terway_lab::ecs::{Fault, FaultKind, LostEffect};
use terway_lab::lab::leftovers::KernelState;
use terway_lab::lab::settings::{SG_WEB, TINY, pod_networking};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use tokio::time::Instant;

const NODE: &str = "node1";

struct Bed {
    lab: Lab,
    daemon: Daemon,
    before: KernelState,
}

impl Bed {
    /// A node of an instance type whose daemon serves.
    async fn new(name: &str, kind: &str, more: Value) -> Self {
        let mut options = LabOptions::for_test(name, 1).unwrap();
        kind.clone_into(&mut options.nodes[0].kind);
        let lab = Lab::up(options).await.unwrap();
        let more = more.as_object().unwrap().clone();
        let settings = DaemonSettings { more, ..DaemonSettings::default() };
        lab.install(NODE, &settings).unwrap();
        let tiny = pod_networking("tiny", TINY, SG_WEB);
        lab.configure(&lab.node(NODE).unwrap().node, "tiny.yaml", &tiny).unwrap();
        let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
        daemon.wait_ready().await.unwrap();
        lab.wait_filled(NODE).await.unwrap();
        let before = lab.kernel_state(NODE).await.unwrap();
        Self { lab, daemon, before }
    }

    /// An ADD that may take so many seconds.
    async fn add(&self, request: &PodRequest, seconds: u32) -> (LabPod, Outcome) {
        let mut more = Map::new();
        more.insert("timeout".to_owned(), json!(seconds));
        self.lab.try_pod(request, &more).await.unwrap()
    }

    fn fault(&self, action: &str, what: FaultKind) {
        let action = action.to_owned();
        let fault = Fault::new(action, what);
        self.lab.ecs().add_fault(fault).unwrap();
    }

    /// Heals the cloud, and looks whether anything is left of what failed or was deleted.
    async fn end(self) {
        self.lab.ecs().clear_faults();
        let left = self.lab.settle(NODE, &self.before).await.unwrap();
        assert!(left.is_empty(), "left:\n{}\n{}", left.join("\n"), self.daemon.tail());
        self.daemon.stop().await.unwrap();
        self.lab.down().await.unwrap();
    }
}

fn refused(outcome: &Outcome, code: u64, names: &[&str]) {
    assert!(!outcome.success, "{}", outcome.stdout);
    let message = outcome.message();
    assert_eq!(outcome.code(), code, "{message}");
    for name in names {
        assert!(message.contains(name), "{name:?} is not named in: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_vswitch_is_code_100_and_named() {
    let bed = Bed::new("novsw", "ecs.g7.4xlarge", json!({})).await;
    let mut pods = Vec::new();
    let last = loop {
        let request = PodRequest::trunk(NODE, &format!("tiny-{}", pods.len()), "tiny");
        let (pod, outcome) = bed.add(&request, 20).await;
        if !outcome.success {
            break outcome;
        }
        pods.push(pod);
        assert!(pods.len() < 8, "a /29 has no eight addresses for pods");
    };
    assert!(!pods.is_empty());
    refused(&last, 100, &["vsw-tiny", "tiny-"]);
    for pod in pods {
        bed.lab.del_pod(pod).await.unwrap();
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_of_members_is_code_101_with_its_number() {
    let bed = Bed::new("noquota", "ecs.u1-c1m4.xlarge", json!({ "ip_stack": "ipv4" })).await;
    let mut pods = Vec::new();
    for number in 0..3 {
        let request = PodRequest::trunk(NODE, &format!("web-{number}"), "web");
        pods.push(bed.lab.add_pod(&request).await.unwrap());
    }
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "one-more", "web"), 10).await;
    refused(&outcome, 101, &["one-more", "3"]);
    for pod in pods {
        bed.lab.del_pod(pod).await.unwrap();
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttling_cloud_is_code_102_and_the_next_pod_gets_through() {
    let bed = Bed::new("throttle", "ecs.g7.4xlarge", json!({})).await;
    bed.fault("CreateNetworkInterface", FaultKind::Throttle);
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 20).await;
    refused(&outcome, 102, &["web", "Throttling"]);
    // Who can wait for a few seconds only hears the same, in time.
    let asked = Instant::now();
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web-1", "web"), 3).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "the plugin's deadline came first");
    let names = ["web-1", "CreateNetworkInterface", "Throttling.User", "request ", "next call in"];
    refused(&outcome, 102, &names);
    bed.lab.ecs().clear_faults();
    let (pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web-2", "web"), 60).await;
    assert!(outcome.success, "{}", outcome.message());
    bed.lab.del_pod(pod).await.unwrap();
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_takes_its_time_is_named_with_its_phase_before_the_caller_gives_up() {
    let bed = Bed::new("slow", "ecs.g7.4xlarge", json!({})).await;
    bed.fault("CreateNetworkInterface", FaultKind::Latency { ms: 5000 });
    let asked = Instant::now();
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 2).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "the plugin's deadline came first");
    refused(&outcome, 103, &["web", "Creating", "1s", "the next try makes another one"]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_without_an_answer_is_named_and_makes_no_second_member() {
    let bed = Bed::new("lostans", "ecs.g7.4xlarge", json!({})).await;
    let action = "CreateNetworkInterface".to_owned();
    let what = FaultKind::LostAnswer { effect: LostEffect::Done };
    let fault = Fault { times: Some(6), ..Fault::new(action, what) };
    bed.lab.ecs().add_fault(fault).unwrap();
    let (pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 30).await;
    assert!(outcome.success, "{}", outcome.message());
    let enis = bed.lab.ecs().dump().enis;
    assert_eq!(enis.iter().filter(|eni| eni.kind == "Member").count(), 1);
    assert_eq!(enis.iter().filter(|eni| eni.instance_name.is_none()).count(), 0);
    let log = std::fs::read_to_string(bed.daemon.log()).unwrap();
    let line = log.lines().find(|line| line.contains("which makes no second ENI"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("token=") && line.contains("CreateNetworkInterface: outcome"), "{line}");
    bed.lab.del_pod(pod).await.unwrap();
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_vlan_id_is_not_served_and_not_kept() {
    let bed = Bed::new("novlan", "ecs.g7.4xlarge", json!({})).await;
    bed.fault("DescribeNetworkInterfaces", FaultKind::HideVlan);
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 6).await;
    refused(&outcome, 103, &["web", "VLAN"]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_member_vanished_is_not_told_that_all_is_well() {
    let bed = Bed::new("lostmem", "ecs.g7.4xlarge", json!({})).await;
    let (pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 20).await;
    assert!(outcome.success, "{}", outcome.message());
    let again = || async {
        let node = bed.lab.node(NODE).unwrap();
        bed.lab.cni(node, Verb::Add, &pod.attachment, &Map::new()).await.unwrap()
    };
    assert!(again().await.success, "the same ADD again gives the same");
    let pods = bed.lab.terwayctl(NODE, "pods").await.unwrap();
    let member = pods["pods"][0]["eni"].as_str().unwrap();
    bed.lab.ecs().vanish(member).await.unwrap();

    refused(&again().await, 103, &["web", member, "deleted"]);
    let enis = bed.lab.terwayctl(NODE, "enis").await.unwrap();
    let members = enis["enis"].as_array().unwrap().iter();
    let mut members = members.flat_map(|eni| eni["members"].as_array().unwrap());
    let shown = members.find(|shown| shown["id"] == member).unwrap();
    assert_eq!(shown["phase"], "missing", "{shown}");
    let log = bed.daemon.tail();
    assert!(log.contains("the cloud does not list a pod's member ENI"), "{log}");

    bed.lab.del_pod(pod).await.unwrap();
    let (pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 20).await;
    assert!(outcome.success, "{}", outcome.message());
    bed.lab.del_pod(pod).await.unwrap();
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_the_cloud_is_try_again_later_and_names_the_call() {
    let bed = Bed::new("garbage", "ecs.g7.4xlarge", json!({})).await;
    bed.fault("CreateNetworkInterface", FaultKind::Garbage);
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "web"), 5).await;
    let message = outcome.message();
    assert!([11, 103].contains(&outcome.code()), "{message}");
    assert!(message.contains("web") && message.contains("CreateNetworkInterface"), "{message}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_pod_networking_is_code_7_and_the_known_ones_are_named() {
    let bed = Bed::new("unknown", "ecs.g7.4xlarge", json!({})).await;
    let (_pod, outcome) = bed.add(&PodRequest::trunk(NODE, "web", "wbe"), 5).await;
    refused(&outcome, 7, &["wbe", "web", "db"]);
    bed.end().await;
}
