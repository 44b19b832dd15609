//! Namespaces and names that a pod cannot have: each ADD fails with its own CNI code, says what is
//! in the way and what to do, and leaves nothing; and what a further interface of one pod gets.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use terway_lab::driver::{Attachment, Outcome, Verb};
use terway_lab::lab::leftovers::{KernelState, ip};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, PodRequest};
use terway_lab::traffic::{Echo, probe};
use tokio::time::{sleep, timeout};

const NODE: &str = "node1";
const PORT: u16 = 7007;
const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

async fn lab(name: &str) -> (Lab, Daemon) {
    let lab = Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap();
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    (lab, daemon)
}

async fn cni(lab: &Lab, verb: Verb, attachment: &Attachment) -> Outcome {
    lab.cni(lab.node(NODE).unwrap(), verb, attachment, &Map::new()).await.unwrap()
}

/// Waits until the node's kernel holds what it held before: links go in their own time.
async fn is_again(lab: &Lab, before: &KernelState) {
    let mut left = Vec::new();
    let look = timeout(LIMIT, async {
        loop {
            left = lab.kernel_state(NODE).await.unwrap().difference(before);
            if left.is_empty() {
                return;
            }
            sleep(LOOK).await;
        }
    });
    let in_time = look.await.is_ok();
    assert!(in_time, "left:\n{}", left.join("\n"));
}

/// A sandbox without a pod of its own, for `eth0` in this namespace.
fn sandbox(container_id: &str, netns: PathBuf) -> Attachment {
    Attachment {
        container_id: container_id.to_owned(),
        netns: Some(netns),
        ifname: "eth0".to_owned(),
        pod: None,
        annotations: [].into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_named_with_a_cure_and_nothing_is_left() {
    let (lab, daemon) = lab("badns").await;
    let node = &lab.node(NODE).unwrap().node;
    let pod = lab.add_pod(&PodRequest::shared(NODE, "first")).await.unwrap();
    let taken = pod.netns.path().to_owned();
    let strange = node.pod("strange").await.unwrap();
    ip(node, "-j -n strange link add eth0 type veth peer other").await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let cases: [(Attachment, &[u64], &[&str]); 4] = [
        (
            sandbox("second", taken),
            &[4],
            &["CNI_IFNAME eth0", "CNI_NETNS", "first", "remove that link, or give another"],
        ),
        (
            sandbox("strange", strange.path().to_owned()),
            &[4],
            &["CNI_IFNAME eth0", "strange", "none of terwayd's", "remove that link"],
        ),
        // The machine's own, as seen from a node of the lab; some machines let nobody look.
        (sandbox("host", "/proc/1/ns/net".into()), &[8, 5], &["/proc/1/ns/net", "own"]),
        (
            sandbox("file", "/proc/self/status".into()),
            &[3],
            &["/proc/self/status", "nothing was set up"],
        ),
    ];
    for (attachment, codes, names) in cases {
        let outcome = cni(&lab, Verb::Add, &attachment).await;
        let message = outcome.message();
        assert!(codes.contains(&outcome.code()), "{}: {message}", outcome.code());
        for name in names {
            assert!(message.contains(name), "{name:?} is not named in: {message}");
        }
        assert!(cni(&lab, Verb::Del, &attachment).await.success);
    }
    is_again(&lab, &before).await;
    let pods = lab.terwayctl(NODE, "pods").await.unwrap();
    assert_eq!(pods["pods"].as_array().unwrap().len(), 1, "{pods}");
    assert!(lab.check_pod(&pod).await.unwrap().success);
    lab.del_pod(pod).await.unwrap();
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_interface_of_a_pod_gets_addresses_of_its_own_and_leaves_the_first_alone() {
    let (lab, daemon) = lab("further").await;
    let node = &lab.node(NODE).unwrap().node;
    let pod = lab.add_pod(&PodRequest::trunk(NODE, "web-a", "web")).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let net1 =
        Attachment { ifname: "net1".to_owned(), annotations: [].into(), ..pod.attachment.clone() };
    let added = cni(&lab, Verb::Add, &net1).await.ok().unwrap();
    assert_eq!(added.stdout["routes"].as_array().map_or(0, Vec::len), 0, "{}", added.stdout);
    let mut more = Map::new();
    more.insert("prevResult".to_owned(), added.stdout.clone());
    let checked = lab.cni(lab.node(NODE).unwrap(), Verb::Check, &net1, &more).await.unwrap();
    assert!(checked.success, "{}", checked.message());
    assert!(lab.check_pod(&pod).await.unwrap().success);

    let own = added.addresses();
    assert_eq!(own.len(), 2, "{}", added.stdout);
    let _echo = Echo::start(pod.netns.namespace(), "web-a", PORT).await.unwrap();
    for address in pod.addresses.iter().chain(&own) {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let all = ip(node, &format!("-j -n web-a {family} route show default")).await.unwrap();
        let best = all.iter().min_by_key(|one| one["metric"].as_u64().unwrap_or_default());
        assert_eq!(best.unwrap()["dev"], "eth0", "{all:?}");
        let target = (*address, PORT).into();
        let answer = probe(lab.fabric().outside(), target, LIMIT).await.unwrap();
        assert!(answer.reached("web-a"), "{address}: {answer:?}");
    }
    assert_eq!(lab.fabric().drops().await.unwrap().total(), 0);

    assert!(cni(&lab, Verb::Del, &net1).await.success);
    is_again(&lab, &before).await;
    for family in ["-4", "-6"] {
        let rules = ip(node, &format!("-j -n web-a {family} rule show")).await.unwrap();
        let ours = |rule: &&Value| rule["priority"] == 512;
        assert_eq!(rules.iter().filter(ours).count(), 0, "{rules:?}");
    }
    assert!(lab.check_pod(&pod).await.unwrap().success);
    lab.del_pod(pod).await.unwrap();
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
