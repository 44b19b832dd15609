//! The daemon comes, goes, is not there, is disturbed: what the runtime is told, and what becomes of
//! the pods.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use terway_lab::driver::{Attachment, Outcome, Verb};
use terway_lab::lab::leftovers::{ip, tc};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use terway_lab::traffic::{Answer, Echo, probe};

const NODE: &str = "node1";
/// For what the daemon does by itself within a second or two.
const SOON: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

async fn lab(name: &str) -> Lab {
    Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap()
}

async fn healthy(lab: &Lab) -> Daemon {
    lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap()
}

async fn status(lab: &Lab) -> Outcome {
    lab.cni(lab.node(NODE).unwrap(), Verb::Status, &Attachment::default(), &Map::new())
        .await
        .unwrap()
}

async fn shared(lab: &Lab, name: &str) -> LabPod {
    lab.add_pod(&PodRequest::shared(NODE, name)).await.unwrap()
}

async fn is_reached(lab: &Lab, pod: &LabPod) {
    let server = Echo::start(pod.netns.namespace(), "pod", 7007).await.unwrap();
    for address in &pod.addresses {
        let target = SocketAddr::new(*address, 7007);
        let probe = probe(lab.fabric().outside(), target, Duration::from_secs(2)).await.unwrap();
        assert!(matches!(probe.answer, Answer::Reached { .. }), "{address}: {:?}", probe.answer);
    }
    drop(server);
}

async fn is_whole(lab: &Lab, pod: &LabPod) {
    let check = lab.check_pod(pod).await.unwrap();
    assert!(check.success, "CHECK of {}: {}", pod.request.name, check.message());
}

fn on_node(lab: &Lab, path: &str) -> bool {
    lab.node(NODE).unwrap().node.host_path(path).exists()
}

fn queued(lab: &Lab) -> usize {
    let dir = lab.node(NODE).unwrap().node.host_path("/var/lib/terway/del-queue");
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Looks until `done`.
async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let looking = async {
        while !done().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(SOON, looking).await;
    assert!(waited.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_add_is_put_off_del_is_kept_and_status_says_so() {
    let lab = lab("dldown").await;
    let daemon = healthy(&lab).await;
    let before = lab.kernel_state(NODE).await.unwrap();
    let gone = shared(&lab, "gone").await;
    daemon.kill().await.unwrap();

    assert_eq!(status(&lab).await.code(), 50);
    let (_pod, refused) =
        lab.try_pod(&PodRequest::shared(NODE, "early"), &Map::new()).await.unwrap();
    assert_eq!(refused.code(), 11, "{}", refused.message());
    lab.del_pod(gone).await.unwrap();
    assert_eq!(queued(&lab), 1);

    let daemon = healthy(&lab).await;
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "{left:#?}\n{}", daemon.tail());
    assert_eq!(queued(&lab), 0);
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_says_what_it_waits_for_and_keeps_a_del() {
    let lab = lab("dlstart").await;
    let daemon = healthy(&lab).await;
    let pod = shared(&lab, "gone").await;
    daemon.stop().await.unwrap();

    // Nobody listens there.
    let environment = vec![("TERWAYD_METADATA".to_owned(), "http://127.0.0.1:9".to_owned())];
    let settings = DaemonSettings { environment, ..DaemonSettings::default() };
    let daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
    let listens = || async { on_node(&lab, "/run/terway/debug.sock") };
    until("the sockets come", listens).await;

    let said = status(&lab).await;
    assert_eq!(said.code(), 50);
    let why = "terwayd is starting: reading the instance's metadata";
    assert!(said.message().contains(why), "{}", said.message());
    let (_pod, refused) =
        lab.try_pod(&PodRequest::shared(NODE, "early"), &Map::new()).await.unwrap();
    assert_eq!(refused.code(), 11);
    assert!(refused.message().contains(why), "{}", refused.message());
    lab.del_pod(pod).await.unwrap();
    assert_eq!(queued(&lab), 1);
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_stop_leaves_the_pods_their_network() {
    let lab = lab("dlstop").await;
    let daemon = healthy(&lab).await;
    let pods = [
        shared(&lab, "s1").await,
        lab.add_pod(&PodRequest::trunk(NODE, "t1", "web")).await.unwrap(),
    ];
    daemon.stop().await.unwrap();
    for socket in ["/run/terway/agent.sock", "/run/terway/debug.sock"] {
        assert!(!on_node(&lab, socket), "{socket}");
    }
    assert!(on_node(&lab, "/etc/cni/net.d/10-terway.conflist"));
    for pod in &pods {
        is_reached(&lab, pod).await;
    }
    let daemon = healthy(&lab).await;
    // What was only noted was on the disk.
    assert!(!daemon.tail().contains("an ADD that was cut off"), "{}", daemon.tail());
    for pod in &pods {
        is_whole(&lab, pod).await;
        is_reached(&lab, pod).await;
    }
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_touches_nothing_until_the_first_is_gone() {
    let lab = lab("dltwo").await;
    let first = healthy(&lab).await;
    let mut second = lab.spawn_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let waits = || async { second.said().unwrap().contains("another terwayd holds the state") };
    until("the second daemon waits for the lock", waits).await;
    let one = shared(&lab, "one").await;
    assert!(second.process().is_running());

    first.stop().await.unwrap();
    second.wait_ready().await.unwrap();
    is_whole(&lab, &one).await;
    let two = shared(&lab, "two").await;
    is_reached(&lab, &two).await;
    for pod in [one, two] {
        lab.del_pod(pod).await.unwrap();
    }
    second.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_away_from_the_kernel_comes_back() {
    let lab = lab("dlmend").await;
    let daemon = healthy(&lab).await;
    let pod = shared(&lab, "s1").await;
    let node = &lab.node(NODE).unwrap().node;
    let address = pod.addresses[0];
    let (eni, host) = ("eth1", pod.result["interfaces"][1]["name"].as_str().unwrap());
    for (tool, damage, look) in [
        ("ip", "rule del pref 513".to_owned(), "-j rule show pref 513".to_owned()),
        ("ip", format!("route del {address}"), format!("-j route show exact {address}")),
        (
            "tc",
            format!("filter del dev {host} ingress pref 100"),
            format!("-j filter show dev {host} ingress pref 100"),
        ),
        (
            "tc",
            format!("filter del dev {eni} egress pref 50001"),
            format!("-j filter show dev {eni} egress pref 50001"),
        ),
    ] {
        let show = || async {
            let seen = if tool == "ip" { ip(node, &look).await } else { tc(node, &look).await };
            !seen.unwrap().is_empty()
        };
        assert!(show().await, "{look}");
        let deleted = node.command(tool).args(damage.split(' ')).output().await.unwrap();
        assert!(deleted.status.success(), "{damage}: {deleted:?}");
        until(&format!("{damage} is mended\n{}", daemon.tail()), show).await;
        is_whole(&lab, &pod).await;
    }
    is_reached(&lab, &pod).await;
    let said = daemon.tail();
    assert!(said.contains("rule 513: from all iif eth1 unreachable is missing"), "{said}");
    lab.del_pod(pod).await.unwrap();
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_namespace_died_without_a_del_is_collected_at_the_start() {
    let lab = lab("dldead").await;
    let daemon = healthy(&lab).await;
    let before = lab.kernel_state(NODE).await.unwrap();
    let pod = shared(&lab, "dead").await;
    let path = lab.node(NODE).unwrap().node.host_path(Path::new("/run/netns/dead"));
    assert!(path.exists());
    daemon.kill().await.unwrap();
    drop(pod);
    assert!(!path.exists(), "the namespace is gone");

    let daemon = healthy(&lab).await;
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "{left:#?}\n{}", daemon.tail());
    let pods = lab.terwayctl(NODE, "pods").await.unwrap();
    assert_eq!(pods["pods"], Value::Array(Vec::new()));
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_checkpoint_costs_no_pod_its_network() {
    let lab = lab("dllost").await;
    let daemon = healthy(&lab).await;
    let before = lab.kernel_state(NODE).await.unwrap();
    let pods = [
        shared(&lab, "s1").await,
        lab.add_pod(&PodRequest::trunk(NODE, "t1", "web")).await.unwrap(),
    ];
    daemon.stop().await.unwrap();
    let with_pods = lab.kernel_state(NODE).await.unwrap();
    let checkpoint = lab.node(NODE).unwrap().node.host_path("/var/lib/terway/checkpoint.redb");
    let kept = std::fs::read(&checkpoint).unwrap();
    for lost in [Vec::new(), vec![0xa5; kept.len()]] {
        std::fs::write(&checkpoint, lost).unwrap();
        let mut daemon = lab.spawn_daemon(NODE, &DaemonSettings::default()).await.unwrap();
        let said = daemon.wait_ready().await.unwrap_err().to_string();
        assert!(
            said.contains("links of 2 pods are up") && said.contains("--forget-pods"),
            "{said}"
        );
        assert_eq!(lab.kernel_state(NODE).await.unwrap().difference(&with_pods), [""; 0]);
        for pod in &pods {
            is_reached(&lab, pod).await;
        }
    }

    // It is found again, and all is as it was.
    std::fs::write(&checkpoint, &kept).unwrap();
    let daemon = healthy(&lab).await;
    for pod in pods {
        is_whole(&lab, &pod).await;
        lab.del_pod(pod).await.unwrap();
    }
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "{left:#?}\n{}", daemon.tail());
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_by_add_and_status_until_there_is_room_again() {
    let lab = lab("dlfull").await;
    let node = &lab.node(NODE).unwrap().node;
    let on_node = async |words: &str| {
        let (program, words) = words.split_once(' ').unwrap();
        node.command(program).args(words.split(' ')).output().await.unwrap()
    };
    let mounted = on_node("mount -t tmpfs -o size=3m disk /var/lib/terway").await;
    assert!(mounted.status.success(), "{mounted:?}");
    let daemon = healthy(&lab).await;
    let pod = shared(&lab, "s1").await;
    // Ends with an error, when nothing is left.
    on_node("dd if=/dev/zero of=/var/lib/terway/filler bs=4k").await;
    let mut refused = None;
    for number in 0..200 {
        let request = PodRequest::shared(NODE, &format!("more{number}"));
        let (_pod, outcome) = lab.try_pod(&request, &Map::new()).await.unwrap();
        if !outcome.success {
            refused = Some(outcome);
            break;
        }
    }
    let refused = refused.expect("no ADD found the disk full");
    assert_eq!(refused.code(), 5, "{}", refused.message());
    let said = status(&lab).await;
    assert_eq!(said.code(), 50, "{}", said.message());
    assert!(format!("{:?}", said.stdout).contains("No space left on device"), "{:?}", said.stdout);
    is_reached(&lab, &pod).await;

    assert!(on_node("rm /var/lib/terway/filler").await.status.success());
    let ready = || async { status(&lab).await.success };
    until("STATUS is well again", ready).await;
    let told = daemon.said().unwrap();
    assert_eq!(told.matches("the checkpoint cannot be written").count(), 1, "{told}");
    let last = shared(&lab, "last").await;
    is_reached(&lab, &last).await;
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
