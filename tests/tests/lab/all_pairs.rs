//! Who reaches whom, with groups that are open to each other: every pair, both families, on one
//! node and across, by TCP through the real binaries.

use std::time::Duration;

use terway_lab::demo::endpoints;
use terway_lab::fabric::{MemberMacs, Neighbours};
use terway_lab::lab::settings::{DB, SG_WEB, pod_networking};
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, PodRequest};
use terway_lab::reach::reach;

async fn all_pairs(options: LabOptions, settings: DaemonSettings) {
    let lab = Lab::up(options).await.unwrap();
    let mut daemons = Vec::new();
    for node in ["node1", "node2"] {
        lab.install(node, &settings).unwrap();
        let open = pod_networking("db", DB, SG_WEB);
        lab.configure(&lab.node(node).unwrap().node, "db.yaml", &open).unwrap();
        let mut daemon = lab.spawn_daemon(node, &settings).await.unwrap();
        daemon.wait_ready().await.unwrap();
        daemons.push(daemon);
    }
    let mut pods = Vec::new();
    for node in ["node1", "node2"] {
        let name = |kind: &str| format!("{kind}-{node}");
        for request in [
            PodRequest::shared(node, &name("shared")),
            PodRequest::trunk(node, &name("web"), "web"),
            PodRequest::trunk(node, &name("db"), "db"),
        ] {
            pods.push(lab.add_pod(&request).await.unwrap());
        }
    }
    let all = endpoints(&lab, &pods).unwrap();
    let attempts = reach(lab.fabric(), &all, Duration::from_secs(2)).await.unwrap();
    // Nine of them, each to eight others, by both families.
    assert_eq!(attempts.len(), 9 * 8 * 2);
    let failed: Vec<_> = attempts
        .iter()
        .filter(|attempt| !attempt.reach.is_reached())
        .map(|one| format!("{} -> {} ({}): {}", one.from, one.to, one.address, one.reach))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let drops = lab.fabric().drops().await.unwrap();
    assert_eq!(drops.total(), 0, "the VPC dropped legitimate frames: {drops:?}");
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    for daemon in daemons {
        daemon.stop().await.unwrap();
    }
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_connects_in_both_families() {
    all_pairs(LabOptions::for_test("pairs", 2).unwrap(), DaemonSettings::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_connects_where_members_have_macs_of_their_own() {
    let mut options = LabOptions::for_test("pairsmac", 2).unwrap();
    options.member_macs = MemberMacs::Own;
    let settings = DaemonSettings { own_member_macs: true, ..DaemonSettings::default() };
    all_pairs(options, settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_connects_where_the_vpc_asks_by_arp_and_ns() {
    let mut options = LabOptions::for_test("pairsarp", 2).unwrap();
    options.neighbours = Neighbours::Asked;
    all_pairs(options, DaemonSettings::default()).await;
}
