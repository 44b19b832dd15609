//! A daemon that is told nonsense says which key, in one line, and exits with 64.

use std::time::Duration;

use serde_json::{Value, json};
use terway_lab::lab::{DaemonSettings, Lab, LabOptions};

const NODE: &str = "node1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_value_exits_with_64_and_names_the_key() {
    let lab = Lab::up(LabOptions::for_test("badconf", 1).unwrap()).await.unwrap();
    let wrong: [(Value, &str); 6] = [
        (json!({ "ip_stack": "ipv5" }), "ip_stack"),
        (json!({ "max_pool_size": "ten" }), "max_pool_size"),
        (json!({ "min_pool_size": 9, "max_pool_size": 3 }), "min_pool_size"),
        (json!({ "security_groups": [] }), "security_group"),
        (json!({ "mark_mask": 0 }), "mark_mask"),
        (json!({ "vswitches": ["vsw-1"] }), "vswitches"),
    ];
    for (more, key) in wrong {
        let more = more.as_object().unwrap().clone();
        let settings = DaemonSettings { more, ..DaemonSettings::default() };
        exits_with_64(&lab, &settings, key).await;
    }
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_networking_with_an_unknown_field_exits_with_64_and_names_file_and_field() {
    let lab = Lab::up(LabOptions::for_test("badyaml", 1).unwrap()).await.unwrap();
    let settings = DaemonSettings::default();
    lab.install(NODE, &settings).unwrap();
    let text = "apiVersion: network.alibabacloud.com/v1beta1
kind: PodNetworking
metadata:
  name: odd
spec:
  vSwitchOptons:
    - vsw-web
";
    lab.configure(&lab.node(NODE).unwrap().node, "odd.yaml", text).unwrap();
    let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
    let status = daemon.process().wait(Duration::from_secs(20)).await.unwrap();
    let said = daemon.tail();
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(said.contains("odd.yaml") && said.contains("vSwitchOptons"), "{said}");
    lab.down().await.unwrap();
}

async fn exits_with_64(lab: &Lab, settings: &DaemonSettings, key: &str) {
    lab.install(NODE, settings).unwrap();
    let mut daemon = lab.spawn_daemon(NODE, settings).await.unwrap();
    let status = daemon.process().wait(Duration::from_secs(20)).await.unwrap();
    let said = daemon.tail();
    assert_eq!(status.code(), Some(64), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains(key), "{key} is not named: {last}");
}
