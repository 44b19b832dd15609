//! A node whose instance type cannot do what is asked for.

use std::time::Duration;

use model::IpStack;
use serde_json::{Map, Value, json};
use terway_lab::lab::settings::ZONE;
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, PodRequest};

use crate::support::{keys, status, until};

const NODE: &str = "node1";

async fn lab(name: &str, kind: &str) -> Lab {
    let mut options = LabOptions::for_test(name, 1).unwrap();
    kind.clone_into(&mut options.nodes[0].kind);
    Lab::up(options).await.unwrap()
}

fn plain(stack: IpStack, more: Value) -> DaemonSettings {
    let more = keys(more);
    DaemonSettings { stack, trunking: false, more, ..DaemonSettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_is_too_small_is_said_by_status_and_is_no_crash() {
    let lab = lab("small", "ecs.g6.large").await;
    let settings = plain(IpStack::V4, json!({}));
    lab.install(NODE, &settings).unwrap();
    let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
    until("STATUS names the type", || async {
        status(&lab, NODE).await.message().contains("ecs.g6.large")
    })
    .await;
    let said = status(&lab, NODE).await;
    assert_eq!(said.code(), 50, "{}", said.message());
    // What it has, and what it is to have.
    for word in ["6", "11"] {
        assert!(said.message().contains(word), "{}", said.message());
    }
    let request = PodRequest::shared(NODE, "pod");
    let (_pod, refused) = lab.try_pod(&request, &Map::new()).await.unwrap();
    assert!(refused.message().contains("ecs.g6.large"), "{}", refused.message());
    assert!(daemon.process().is_running(), "{}", daemon.tail());
    let enis = lab.ecs().dump().enis;
    assert!(enis.iter().all(|eni| eni.kind == "Primary"), "{enis:?}");
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cloud_alone_can_judge_exits_with_64_and_names_key_value_and_rule() {
    let lab = lab("unfit", "ecs.r6.8xlarge").await;
    let nowhere = json!({ "vswitches": { ZONE: ["vsw-nowhere"] } });
    for (settings, words) in [
        // 20 addresses of IPv4 and 1 of IPv6 on each ENI.
        (plain(IpStack::Dual, json!({})), ["ip_stack", "dual", "ecs.r6.8xlarge", "20"]),
        (plain(IpStack::V4, nowhere), ["vswitches", "vsw-nowhere", "eni_conf", "exist"]),
    ] {
        lab.install(NODE, &settings).unwrap();
        let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
        let ended = daemon.process().wait(Duration::from_secs(30)).await.unwrap();
        let said = daemon.said().unwrap();
        assert_eq!(ended.code(), Some(64), "{said}");
        let last = said.lines().last().unwrap();
        for word in words {
            assert!(last.contains(word), "{word:?} is not in: {last}");
        }
    }
    lab.down().await.unwrap();
}
