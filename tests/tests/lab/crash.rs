//! `kill -9` of the daemon between any two effects of ADD, DEL and the lives of ENIs and members, then
//! a restart: the final state is right, and nothing is leaked in kernel, checkpoint or cloud.

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

/// For what the daemon does by itself when the caller is gone: detach, delete, rest, give back.
async fn dies_later(daemon: &mut Daemon) -> bool {
    daemon.process().wait(Duration::from_secs(10)).await.is_ok()
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

    /// DEL of a member's pod with a daemon that dies at `point`, when DEL was answered long ago.
    async fn member_gone_through(&self, point: &str, request: &PodRequest) -> bool {
        let lab = &self.lab;
        let Some(mut daemon) = doomed(lab, point).await else { return false };
        let pod = lab.add_pod(request).await.unwrap();
        lab.del_pod(pod).await.unwrap();
        let died = dies_later(&mut daemon).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_s_life_that_was_cut_anywhere_goes_on_and_leaves_no_member_in_the_cloud() {
    let bed = Bed::new("crashlife").await;
    let member = PodRequest::trunk(NODE, "pod", "web");
    for point in points("member.").await {
        let died = if bed.add_through(&point, &member).await {
            bed.add_and_give_up(&point, &member).await
        } else {
            bed.member_gone_through(&point, &member).await
        };
        assert!(died, "the daemon never came to {point}");
    }
    bed.lab.down().await.unwrap();
}

/// A pool that grows with the first pod, and gives an address back when that is gone.
fn narrow_pool() -> DaemonSettings {
    let more = json!({ "min_pool_size": 2, "max_pool_size": 2, "ip_cooldown": "1s" });
    DaemonSettings { more: more.as_object().unwrap().clone(), ..DaemonSettings::default() }
}

/// A node that never had an ENI: its first daemon dies at `point`, or, where that lies in the life of
/// a pool in use, when a pod comes or has gone. `false` when it does not die.
async fn first_daemon_dies(lab: &Lab, point: &str) -> bool {
    let environment = with_failpoint(point).environment;
    let settings = DaemonSettings { environment, ..narrow_pool() };
    lab.install(NODE, &settings).unwrap();
    let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
    // It may die on the way.
    if daemon.wait_ready().await.is_err() || lab.wait_filled(NODE).await.is_err() {
        return has_died(&mut daemon).await;
    }
    let (pod, _answered) = add(lab, &PodRequest::shared(NODE, "first")).await;
    lab.del_pod(pod).await.unwrap();
    dies_later(&mut daemon).await
}

/// Whether the daemon died, after a healthy one has shown that all is well.
async fn node_comes_up_through(name: &str, point: &str) -> bool {
    let lab = Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap();
    let died = first_daemon_dies(&lab, point).await;
    if died {
        let daemon = lab.start_daemon(NODE, &narrow_pool()).await.unwrap();
        lab.wait_filled(NODE).await.unwrap();
        let enis = lab.terwayctl(NODE, "enis").await.unwrap();
        let kinds = enis["enis"].as_array().unwrap().iter();
        let kinds: Vec<_> = kinds.map(|eni| eni["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["trunk"], "{point}: an ENI was made twice");
        let before = lab.kernel_state(NODE).await.unwrap();
        for request in [PodRequest::shared(NODE, "pod"), PodRequest::trunk(NODE, "web", "web")] {
            let pod = lab.add_pod(&request).await.unwrap();
            is_reached(&lab, &pod).await;
            let check = lab.check_pod(&pod).await.unwrap();
            assert!(check.success, "{point}: CHECK: {}", check.message());
            lab.del_pod(pod).await.unwrap();
        }
        let left = lab.settle(NODE, &before).await.unwrap();
        assert!(left.is_empty(), "{point}: left:\n{}\n{}", left.join("\n"), daemon.tail());
        daemon.stop().await.unwrap();
    }
    lab.down().await.unwrap();
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_s_eni_that_was_cut_anywhere_is_finished_and_not_made_twice() {
    let points = points("eni.").await.into_iter().filter(|point| !is_step(point));
    for (number, point) in points.enumerate() {
        let died = node_comes_up_through(&format!("creni{number}"), &point).await;
        assert!(died, "the daemon never came to {point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eni_s_network_that_was_cut_between_any_two_steps_is_finished() {
    for point in points("eni.").await.iter().filter(|point| is_step(point)) {
        let mut died = 0;
        for pass in passes(point) {
            if !node_comes_up_through(&format!("crlink{died}"), &pass).await {
                break;
            }
            died += 1;
        }
        assert!(died > 0, "the daemon never came to {point}");
    }
}

#[tokio::test]
async fn every_point_of_the_daemon_is_in_a_test() {
    // `repair.` is in `tests/upgrade.rs`.
    let known = ["add.", "del.", "eni.", "member.", "repair."];
    let strange = points("").await;
    let strange: Vec<_> = strange
        .iter()
        .filter(|point| known.iter().all(|prefix| !point.starts_with(prefix)))
        .collect();
    assert_eq!(strange, Vec::<&String>::new(), "kill the daemon there, too");
}
