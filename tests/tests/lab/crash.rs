//! `kill -9` of the daemon between any two effects of ADD and DEL, then a restart: the final state
//! is right, and nothing is leaked in kernel, checkpoint or cloud.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, json};
use terway_lab::driver::{Verb, staged};
use terway_lab::lab::leftovers::KernelState;
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use terway_lab::traffic::{Answer, Echo, probe};

const NODE: &str = "node1";

/// How often a point that lies between any two steps is gone through at most.
const STEPS: u32 = 200;

fn with_failpoint(point: &str) -> DaemonSettings {
    let environment = vec![("TERWAYD_FAILPOINT".to_owned(), point.to_owned())];
    DaemonSettings { environment, ..DaemonSettings::default() }
}

async fn points(prefix: &str) -> Vec<String> {
    let output = tokio::process::Command::new(staged("terwayd").unwrap())
        .arg("--list-failpoints")
        .output()
        .await
        .unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.lines().filter(|name| name.starts_with(prefix));
    let names: Vec<_> = names.map(str::to_owned).collect();
    assert!(names.len() >= 3, "{names:?}");
    names
}

/// An ADD that may take five seconds.
async fn add(lab: &Lab, request: &PodRequest) -> (LabPod, bool) {
    let mut more = Map::new();
    more.insert("timeout".to_owned(), json!(5));
    let (pod, outcome) = lab.try_pod(request, &more).await.unwrap();
    (pod, outcome.success)
}

/// The same ADD again, as the runtime repeats it.
async fn add_again(lab: &Lab, pod: &mut LabPod) {
    let node = lab.node(NODE).unwrap();
    let outcome = lab.cni(node, Verb::Add, &pod.attachment, &Map::new()).await.unwrap();
    let outcome = outcome.ok().unwrap();
    pod.addresses = outcome.addresses();
    pod.result = outcome.stdout;
}

async fn is_reached(lab: &Lab, pod: &LabPod) {
    let server = Echo::start(pod.netns.namespace(), "pod", 7007).await.unwrap();
    for address in &pod.addresses {
        let target = SocketAddr::new(*address, 7007);
        let place = lab.fabric().outside();
        let probe = probe(place, target, Duration::from_secs(2)).await.unwrap();
        assert!(matches!(probe.answer, Answer::Reached { .. }), "{address}: {:?}", probe.answer);
    }
    drop(server);
}

/// A daemon that dies at `point`. `None` where it does so before it serves.
async fn doomed(lab: &Lab, point: &str) -> Option<Daemon> {
    let mut daemon = lab.spawn_daemon(NODE, &with_failpoint(point)).await.unwrap();
    match daemon.wait_ready().await {
        Ok(()) => Some(daemon),
        Err(_died) => None,
    }
}

/// A caller sees the daemon's sockets close before the daemon can be waited for.
async fn has_died(daemon: &mut Daemon) -> bool {
    daemon.process().wait(Duration::from_secs(1)).await.is_ok()
}

async fn healthy(lab: &Lab) -> Daemon {
    lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap()
}

struct Bed {
    lab: Lab,
    before: KernelState,
}

impl Bed {
    async fn new(name: &str) -> Self {
        let lab = Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap();
        let daemon = healthy(&lab).await;
        let before = lab.kernel_state(NODE).await.unwrap();
        daemon.stop().await.unwrap();
        Self { lab, before }
    }

    /// ADD with a daemon that dies at `point`; a healthy one follows. Whether the first died.
    async fn add_through(&self, point: &str, request: &PodRequest) -> bool {
        let lab = &self.lab;
        let Some(mut daemon) = doomed(lab, point).await else { return false };
        let (mut pod, answered) = add(lab, request).await;
        let died = has_died(&mut daemon).await;
        drop(daemon);
        let daemon = healthy(lab).await;
        if !answered {
            add_again(lab, &mut pod).await;
        }
        is_reached(lab, &pod).await;
        let check = lab.check_pod(&pod).await.unwrap();
        assert!(check.success, "{point}: CHECK: {}", check.message());
        lab.del_pod(pod).await.unwrap();
        self.nothing_left(point, daemon).await;
        died
    }

    /// ADD that dies at `point`, and DEL instead of a second ADD.
    async fn add_and_give_up(&self, point: &str, request: &PodRequest) -> bool {
        let lab = &self.lab;
        let Some(mut daemon) = doomed(lab, point).await else { return false };
        let (pod, _answered) = add(lab, request).await;
        let died = has_died(&mut daemon).await;
        drop(daemon);
        // With the daemon down DEL is queued, and succeeds.
        lab.del_pod(pod).await.unwrap();
        let daemon = healthy(lab).await;
        self.nothing_left(point, daemon).await;
        died
    }

    /// DEL with a daemon that dies at `point`.
    async fn del_through(&self, point: &str, request: &PodRequest) -> bool {
        let lab = &self.lab;
        let Some(mut daemon) = doomed(lab, point).await else { return false };
        let pod = lab.add_pod(request).await.unwrap();
        lab.del_pod(pod).await.unwrap();
        let died = has_died(&mut daemon).await;
        drop(daemon);
        let daemon = healthy(lab).await;
        self.nothing_left(point, daemon).await;
        died
    }

    async fn nothing_left(&self, point: &str, daemon: Daemon) {
        let left = self.lab.settle(NODE, &self.before).await.unwrap();
        assert!(left.is_empty(), "{point}: left:\n{}\n{}", left.join("\n"), daemon.tail());
        daemon.stop().await.unwrap();
    }
}

/// Whether a point lies between any two steps.
fn is_step(point: &str) -> bool {
    point.rsplit('.').next() == Some("step")
}

/// `point`, or `point@1`, `point@2`, … for one that lies between any two steps.
fn passes(point: &str) -> Vec<String> {
    if is_step(point) {
        (1..=STEPS).map(|pass| format!("{point}@{pass}")).collect()
    } else {
        vec![point.to_owned()]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_add_that_was_cut_anywhere_is_repeated_or_given_up_without_a_trace() {
    let bed = Bed::new("crashadd").await;
    let shared = PodRequest::shared(NODE, "pod");
    for point in points("add.").await {
        let mut died = 0;
        for pass in passes(&point) {
            if !bed.add_through(&pass, &shared).await {
                break;
            }
            died += 1;
            bed.add_and_give_up(&pass, &shared).await;
        }
        assert!(died > 0, "the daemon never came to {point}");
    }
    bed.lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_del_that_was_cut_anywhere_is_finished_after_the_restart() {
    let bed = Bed::new("crashdel").await;
    let shared = PodRequest::shared(NODE, "pod");
    for point in points("del.").await {
        let mut died = 0;
        for pass in passes(&point) {
            if !bed.del_through(&pass, &shared).await {
                break;
            }
            died += 1;
        }
        assert!(died > 0, "the daemon never came to {point}");
    }
    bed.lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_s_add_and_del_that_were_cut_leave_no_member_in_the_cloud() {
    let bed = Bed::new("crashmem").await;
    let member = PodRequest::trunk(NODE, "pod", "web");
    for point in points("add.").await.iter().filter(|point| !is_step(point)) {
        assert!(bed.add_through(point, &member).await, "the daemon never came to {point}");
        assert!(bed.add_and_give_up(point, &member).await, "the daemon never came to {point}");
    }
    for point in points("del.").await.iter().filter(|point| !is_step(point)) {
        assert!(bed.del_through(point, &member).await, "the daemon never came to {point}");
    }
    bed.lab.down().await.unwrap();
}
