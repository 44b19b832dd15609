//! A metadata service that lies: nobody loses an address or an ENI by its word.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use terway_lab::ecs::MetadataFaults;
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, LabPod, PodRequest};

use crate::support::{TAKING, effects, is_reached, keys, shown, until};

const NODE: &str = "node1";

/// What it says, by name: without the ENI of the pods, with one of another node, with old lists, and
/// with refusals of them.
fn lies(lab: &Lab) -> Vec<(&'static str, MetadataFaults)> {
    let dump = lab.ecs().dump();
    let of = |node: &str| {
        let enis = dump.enis.iter().filter(|eni| eni.instance_name.as_deref() == Some(node));
        enis.filter(|eni| eni.kind != "Primary").map(|eni| eni.id.clone()).collect::<BTreeSet<_>>()
    };
    let (ours, others) = (of(NODE), of("node2"));
    assert!(!ours.is_empty() && !others.is_empty(), "{dump:?}");
    let instance = lab.node(NODE).unwrap().instance.to_string();
    let below = |status| MetadataFaults {
        status: Some(status),
        only: Some("network/interfaces/".to_owned()),
        ..MetadataFaults::default()
    };
    let truth = MetadataFaults::default();
    vec![
        ("an ENI is missing", MetadataFaults { missing: ours, ..truth.clone() }),
        (
            "an ENI is there too many",
            MetadataFaults { extra: BTreeMap::from([(instance, others)]), ..truth.clone() },
        ),
        ("lists are ten minutes old", MetadataFaults { stale_lists_ms: 600_000, ..truth }),
        ("404 for interfaces", below(404)),
        ("500 for interfaces", below(500)),
        ("503 for interfaces", below(503)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_lies_takes_nothing_from_anybody_at_start_or_while_running() {
    let lab = Lab::up(LabOptions::for_test("liar", 2).unwrap()).await.unwrap();
    let more = keys(json!({ "ip_pool_sync_period": "1s", "ip_cooldown": "1s" }));
    let settings = DaemonSettings { more, ..DaemonSettings::default() };
    let other = lab.start_daemon("node2", &settings).await.unwrap();
    let mut daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let mut pods = Vec::new();
    for request in [
        PodRequest::shared(NODE, "s1"),
        PodRequest::shared(NODE, "s2"),
        PodRequest::trunk(NODE, "t1", "web"),
    ] {
        pods.push(lab.add_pod(&request).await.unwrap());
    }
    lab.wait_filled(NODE).await.unwrap();
    let whole = enis(&lab);

    for (lie, faults) in lies(&lab) {
        lab.ecs().forget_calls();
        lab.ecs().set_metadata_faults(faults);
        // While it runs.
        holds(&lab, lie, &pods, &whole).await;
        // At its start.
        daemon.kill().await.unwrap();
        let asked = reads(&lab);
        daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
        daemon.wait_ready().await.unwrap_or_else(|error| panic!("{lie}: {error:#}"));
        until("the cloud is read", || async { reads(&lab) > asked }).await;
        // Its answer has come, too.
        lab.wait_filled(NODE).await.unwrap();
        holds(&lab, lie, &pods, &whole).await;
        assert_eq!(shown(&lab, NODE, "/pool/used").await, 2, "{lie}");
        assert_eq!(shown(&lab, NODE, "/pool/members").await, 1, "{lie}");
    }

    lab.ecs().set_metadata_faults(MetadataFaults::default());
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "{left:#?}\n{}", daemon.tail());
    for daemon in [daemon, other] {
        daemon.stop().await.unwrap();
    }
    lab.down().await.unwrap();
}

/// ENIs of the cloud, each with whom it is attached to and its addresses.
fn enis(lab: &Lab) -> Vec<String> {
    let enis = lab.ecs().dump().enis.into_iter();
    enis.map(|eni| {
        format!("{} {} {:?} {:?} {:?}", eni.id, eni.status, eni.instance_name, eni.v4, eni.v6)
    })
    .collect()
}

/// How often the cloud was asked for ENIs.
fn reads(lab: &Lab) -> u64 {
    lab.ecs().dump().calls.get("DescribeNetworkInterfaces").map_or(0, |count| count.calls)
}

/// Pods have their network, and a new one gets its own; the cloud is as it was.
async fn holds(lab: &Lab, lie: &str, pods: &[LabPod], whole: &[String]) {
    let more = lab.add_pod(&PodRequest::shared(NODE, "more")).await;
    let more = more.unwrap_or_else(|error| panic!("{lie}: {error:#}"));
    for pod in pods.iter().chain([&more]) {
        is_reached(lab, pod).await;
        let check = lab.check_pod(pod).await.unwrap();
        assert!(check.success, "{lie}: {}", check.message());
    }
    lab.del_pod(more).await.unwrap();
    assert_eq!(effects(lab, &TAKING), [""; 0], "{lie}");
    assert_eq!(lab.orphans(NODE).await.unwrap(), [""; 0], "{lie}");
    let missing: Vec<_> = {
        let now = enis(lab);
        let ids = |lines: &[String]| {
            lines
                .iter()
                .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
                .collect::<BTreeSet<_>>()
        };
        ids(whole).difference(&ids(&now)).cloned().collect()
    };
    assert_eq!(missing, [""; 0], "{lie}");
}
