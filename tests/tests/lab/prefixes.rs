//! Pods on addresses of delegated prefixes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::IpStack;
use serde_json::json;
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};

use crate::support::{is_reached, is_reached_from, keys};

const NODES: [&str; 2] = ["node1", "node2"];

async fn pods_have_addresses_of_prefixes(name: &str, stack: IpStack) {
    let lab = Lab::up(LabOptions::for_test(name, 2).unwrap()).await.unwrap();
    let more = keys(json!({
        "enable_ip_prefix": true, "min_pool_size": 4, "max_pool_size": 20, "ip_cooldown": "1s"
    }));
    let settings = DaemonSettings { stack, trunking: false, more, ..DaemonSettings::default() };
    let mut daemons: Vec<Daemon> = Vec::new();
    let (mut before, mut pods) = (Vec::new(), Vec::new());
    for node in NODES {
        daemons.push(lab.start_daemon(node, &settings).await.unwrap());
        before.push(lab.kernel_state(node).await.unwrap());
        for number in 0..3 {
            let request = PodRequest::shared(node, &format!("{node}-{number}"));
            pods.push(lab.add_pod(&request).await.unwrap());
        }
    }
    let families = if stack == IpStack::Dual { 2 } else { 1 };
    for pod in &pods {
        assert_eq!(pod.addresses.len(), families, "{:?}", pod.addresses);
        is_reached(&lab, pod).await;
        let check = lab.check_pod(pod).await.unwrap();
        assert!(check.success, "{}", check.message());
    }
    // An ENI's own address goes to a pod first; all others are of prefixes.
    let of_prefixes = pods.iter().filter(|pod| is_of_prefixes(&lab, pod)).count();
    assert!(of_prefixes >= pods.len() - NODES.len(), "{of_prefixes} of {}", pods.len());
    let (first, second) = pods.split_at(3);
    for one in first {
        for other in second {
            is_reached_from(one, other).await;
            is_reached_from(other, one).await;
        }
    }
    for node in NODES {
        assert_eq!(lab.orphans(node).await.unwrap(), [""; 0]);
    }
    // The next daemon finds the same.
    for (node, daemon) in NODES.into_iter().zip(&mut daemons) {
        let next = lab.spawn_daemon(node, &settings).await.unwrap();
        std::mem::replace(daemon, next).stop().await.unwrap();
        daemon.wait_ready().await.unwrap();
    }
    for pod in &pods {
        is_reached(&lab, pod).await;
    }
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    for (node, before) in NODES.into_iter().zip(&before) {
        let left = lab.settle(node, before).await.unwrap();
        assert!(left.is_empty(), "{left:#?}");
    }
    for daemon in daemons {
        daemon.stop().await.unwrap();
    }
    lab.down().await.unwrap();
}

/// Whether the cloud has every address of it as one of a prefix, and none as one of its own.
fn is_of_prefixes(lab: &Lab, pod: &LabPod) -> bool {
    let enis = lab.ecs().dump().enis;
    let prefixes: Vec<IpNetwork> = enis
        .iter()
        .flat_map(|eni| {
            let v4 = eni.v4_prefixes.iter().copied().map(IpNetwork::V4);
            v4.chain(eni.v6_prefixes.iter().copied().map(IpNetwork::V6))
        })
        .collect();
    let singles: Vec<IpAddr> = enis
        .iter()
        .flat_map(|eni| {
            let v4 = eni.v4.iter().copied().map(IpAddr::from);
            v4.chain(eni.v6.iter().copied().map(IpAddr::from))
        })
        .collect();
    pod.addresses.iter().all(|address| {
        prefixes.iter().any(|prefix| prefix.contains(*address)) && !singles.contains(address)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_two_nodes_reach_each_other_by_addresses_of_prefixes() {
    pods_have_addresses_of_prefixes("prefix4", IpStack::V4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_two_nodes_reach_each_other_by_pairs_of_prefixes() {
    pods_have_addresses_of_prefixes("prefixdual", IpStack::Dual).await;
}
