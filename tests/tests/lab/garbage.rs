//! GC with a list, as a runtime calls it: what is not listed goes, from the node and from the cloud.

use std::time::Duration;

use serde_json::Value;
use terway_lab::driver::Attachment;
use terway_lab::lab::leftovers::ip;
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use tokio::time::{sleep, timeout};

const NODE: &str = "node1";
/// A member's detach and delete.
const SOON: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

async fn add(lab: &Lab, request: PodRequest) -> LabPod {
    lab.add_pod(&request).await.unwrap()
}

/// Names of the pods that the daemon knows.
async fn known(lab: &Lab) -> Vec<String> {
    let shown = lab.terwayctl(NODE, "pods").await.unwrap();
    let pods = shown["pods"].as_array().unwrap().iter();
    let mut names: Vec<_> = pods.map(|pod| pod["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Routes of the node to a pod's addresses, in all tables.
async fn routes(lab: &Lab, pod: &LabPod) -> Vec<Value> {
    let node = &lab.node(NODE).unwrap().node;
    let mut found = Vec::new();
    for address in &pod.addresses {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let arguments = format!("-j {family} route show table all exact {address}");
        found.extend(ip(node, &arguments).await.unwrap());
    }
    found
}

/// Whether an ENI of the cloud has the address.
fn is_given(lab: &Lab, pod: &LabPod) -> bool {
    let addresses = &pod.addresses;
    let enis = lab.ecs().dump().enis;
    enis.iter().any(|eni| eni.v4.iter().any(|address| addresses.contains(&(*address).into())))
}

async fn is_whole(lab: &Lab, pod: &LabPod) {
    let name = &pod.request.name;
    let check = lab.check_pod(pod).await.unwrap();
    assert!(check.success, "CHECK of {name}: {}", check.message());
    assert!(!routes(lab, pod).await.is_empty(), "{name} has no route");
    assert!(is_given(lab, pod), "{name} has no address in the cloud");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_takes_what_is_not_listed_and_a_stranger_in_the_list_harms_nothing() {
    let lab = Lab::up(LabOptions::for_test("garbage", 1).unwrap()).await.unwrap();
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let shared = add(&lab, PodRequest::shared(NODE, "shared-a")).await;
    let web = add(&lab, PodRequest::trunk(NODE, "web-a", "web")).await;
    let lost_shared = add(&lab, PodRequest::shared(NODE, "shared-lost")).await;
    let lost_web = add(&lab, PodRequest::trunk(NODE, "web-lost", "web")).await;

    // Of another plugin, and of another interface of a pod whose eth0 is not listed.
    let stranger = Attachment { container_id: "stranger".to_owned(), ..shared.attachment.clone() };
    let second = Attachment { ifname: "net1".to_owned(), ..lost_shared.attachment.clone() };
    let all = [&shared, &web, &lost_shared, &lost_web].map(|pod| &pod.attachment);
    let listed = [all.as_slice(), &[&stranger]].concat();
    lab.gc(NODE, &listed).await.unwrap().ok().unwrap();
    assert_eq!(known(&lab).await, ["shared-a", "shared-lost", "web-a", "web-lost"]);

    for _twice in 0..2 {
        let listed = [&shared.attachment, &stranger, &second, &web.attachment];
        lab.gc(NODE, &listed).await.unwrap().ok().unwrap();
        assert_eq!(known(&lab).await, ["shared-a", "web-a"]);
        for lost in [&lost_shared, &lost_web] {
            assert_eq!(routes(&lab, lost).await, Vec::<Value>::new(), "{}", lost.request.name);
        }
        for pod in [&shared, &web] {
            is_whole(&lab, pod).await;
        }
    }
    let gone = timeout(SOON, async {
        while is_given(&lab, &lost_web) {
            sleep(LOOK).await;
        }
    });
    assert!(gone.await.is_ok(), "the member of web-lost is in the cloud\n{}", daemon.tail());
    assert_eq!(lab.orphans(NODE).await.unwrap(), [""; 0]);

    lab.gc(NODE, &[&stranger]).await.unwrap().ok().unwrap();
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "left:\n{}\n{}", left.join("\n"), daemon.tail());
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
