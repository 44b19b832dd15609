//! `eni_conf` that changes under running pods.

use model::IpStack;
use serde_json::{Value, json};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, PodRequest};

use crate::support::{TAKING, effects, is_reached, keys, shown, until};

const NODE: &str = "node1";

fn settings(more: Value) -> DaemonSettings {
    let more = keys(more);
    DaemonSettings { stack: IpStack::V4, trunking: false, more, ..DaemonSettings::default() }
}

fn write(lab: &Lab, text: &str) {
    lab.configure(&lab.node(NODE).unwrap().node, "eni_conf", text).unwrap();
}

async fn refusal(lab: &Lab) -> String {
    let status = lab.terwayctl(NODE, "status").await.unwrap();
    status["config_refused"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_sizes_are_taken_up_under_running_pods_and_a_bad_file_changes_nothing() {
    let lab = Lab::up(LabOptions::for_test("liveconf", 1).unwrap()).await.unwrap();
    let small = json!({ "min_pool_size": 2, "max_pool_size": 2, "ip_cooldown": "1s" });
    let daemon = lab.start_daemon(NODE, &settings(small.clone())).await.unwrap();
    let pod = lab.add_pod(&PodRequest::shared(NODE, "pod")).await.unwrap();
    until("two are idle", || async { shown(&lab, NODE, "/pool/idle").await == 2 }).await;
    let before = lab.kernel_state(NODE).await.unwrap();

    let large = json!({ "min_pool_size": 7, "max_pool_size": 8, "ip_cooldown": "1s" });
    lab.install(NODE, &settings(large)).unwrap();
    until("seven are idle", || async { shown(&lab, NODE, "/pool/idle").await == 7 }).await;
    is_reached(&lab, &pod).await;
    assert_eq!(effects(&lab, &TAKING), [""; 0]);

    for (text, words) in refused_files() {
        write(&lab, &text);
        until(&format!("{words:?} is refused"), || async {
            let said = refusal(&lab).await;
            words.iter().all(|word| said.contains(word))
        })
        .await;
        stays(&lab, &daemon).await;
        is_reached(&lab, &pod).await;
    }

    lab.install(NODE, &settings(small)).unwrap();
    until("the file is good again", || async { refusal(&lab).await.is_empty() }).await;
    until("two are idle again", || async { shown(&lab, NODE, "/pool/idle").await == 2 }).await;
    is_reached(&lab, &pod).await;
    let check = lab.check_pod(&pod).await.unwrap();
    assert!(check.success, "{}", check.message());
    assert_eq!(lab.kernel_state(NODE).await.unwrap().difference(&before), [""; 0]);
    until("cloud and daemon agree", || async { lab.orphans(NODE).await.unwrap().is_empty() }).await;
    lab.del_pod(pod).await.unwrap();
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

/// Each with the words that its refusal has: file, key, value and rule.
fn refused_files() -> Vec<(String, Vec<&'static str>)> {
    let with = |more: Value| settings(more).eni_conf().to_string();
    vec![
        ("{ \"min_pool_size\": 3,".to_owned(), vec!["eni_conf"]),
        (
            with(json!({ "min_pool_size": 9, "max_pool_size": 3 })),
            vec!["eni_conf", "min_pool_size", "9", "3"],
        ),
        (with(json!({ "max_pool_size": "ten" })), vec!["eni_conf", "max_pool_size", "ten"]),
        (
            with(json!({ "vswitches": { "cn-hangzhou-h": ["vsw-nowhere"] } })),
            vec!["eni_conf", "vswitches", "vsw-nowhere"],
        ),
    ]
}

/// What was in force is in force: a pod that goes and one that comes find the same pool.
async fn stays(lab: &Lab, daemon: &Daemon) {
    let other = lab.add_pod(&PodRequest::shared(NODE, "other")).await.unwrap();
    lab.del_pod(other).await.unwrap();
    until("the pool is as large as before", || async {
        (7..=8).contains(&shown(lab, NODE, "/pool/idle").await)
    })
    .await;
    assert!(daemon.said().unwrap().contains("eni_conf"));
}
