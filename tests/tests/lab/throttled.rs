//! A cloud that throttles every call for a while.

use std::sync::Arc;

use model::IpStack;
use serde_json::json;
use terway_lab::ecs::{Fault, FaultKind};
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, PodRequest};

use crate::support::{TAKING, add_within, effects, is_reached, keys, shown, status, until};

const NODE: &str = "node1";
const BRINGING: [&str; 2] = ["CreateNetworkInterface", "AssignPrivateIpAddresses"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_every_call_is_throttled_nobody_loses_anything_and_then_who_waits_is_first() {
    let lab = Arc::new(Lab::up(LabOptions::for_test("throttall", 1).unwrap()).await.unwrap());
    let more = keys(json!({
        "min_pool_size": 2, "max_pool_size": 2, "max_eni": 1, "request_batch": 5, "ip_cooldown": "1s"
    }));
    let settings =
        DaemonSettings { stack: IpStack::V4, trunking: false, more, ..DaemonSettings::default() };
    let daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let mut pods = Vec::new();
    for name in ["run1", "run2"] {
        pods.push(lab.add_pod(&PodRequest::shared(NODE, name)).await.unwrap());
    }
    lab.wait_filled(NODE).await.unwrap();

    // Not `for_ms`: how long it lasts is what is shown below, and not a time.
    lab.ecs().add_fault(Fault::new("*", FaultKind::Throttle)).unwrap();
    lab.ecs().forget_calls();
    // What is idle serves whatever the cloud says.
    for name in ["idle1", "idle2"] {
        pods.push(lab.add_pod(&PodRequest::shared(NODE, name)).await.unwrap());
    }
    let (_pod, refused) = add_within(&lab, &PodRequest::shared(NODE, "short"), 3).await;
    let message = refused.message();
    assert_eq!(refused.code(), 102, "{message}");
    for word in ["short", "Throttling.User", "request "] {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    // No warm pool is filled while somebody waits: looked at whenever it is said who waits.
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..5 {
        let lab = Arc::clone(&lab);
        waiting.spawn(async move {
            add_within(&lab, &PodRequest::shared(NODE, &format!("wait{number}")), 100).await
        });
    }
    until("five pods wait", || async { shown(&lab, NODE, "/pool/waiting").await == 5 }).await;
    let shows = lab.terwayctl(NODE, "status").await.unwrap();
    let last = shows["last_cloud_error"].as_str().unwrap();
    assert!(last.contains("Throttling.User") && last.contains("request "), "{shows}");
    let request_ids: Vec<_> = lab.ecs().calls().into_iter().map(|call| call.request_id).collect();
    assert!(request_ids.iter().any(|id| last.contains(id.as_str())), "{last}");
    // The pool is known and pods may come back to it: the node takes pods, and they wait their turn.
    let said = status(&lab, NODE).await;
    assert!(said.success, "{}", said.message());
    for pod in &pods {
        is_reached(&lab, pod).await;
    }
    assert_eq!(shown(&lab, NODE, "/pool/used").await, 4);
    assert_eq!(effects(&lab, &TAKING), [""; 0]);
    assert_eq!(effects(&lab, &BRINGING), [""; 0]);

    lab.ecs().clear_faults();
    loop {
        // One look is one moment of the daemon.
        let shows = lab.terwayctl(NODE, "status").await.unwrap();
        let number = |key: &str| shows["pool"][key].as_u64().unwrap_or_default();
        assert!(number("waiting") == 0 || number("idle") == 0, "idle while pods wait: {shows}");
        if number("waiting") == 0 {
            break;
        }
    }
    while let Some(added) = waiting.join_next().await {
        let (pod, outcome) = added.unwrap();
        assert!(outcome.success, "{}", outcome.message());
        pods.push(pod);
    }
    assert_eq!(effects(&lab, &TAKING), [""; 0], "something was given back before");
    lab.wait_filled(NODE).await.unwrap();
    for pod in &pods {
        is_reached(&lab, pod).await;
        let check = lab.check_pod(pod).await.unwrap();
        assert!(check.success, "{}", check.message());
    }
    assert_eq!(lab.orphans(NODE).await.unwrap(), [""; 0]);

    // Now there is something to give back, and it is.
    for pod in pods {
        lab.del_pod(pod).await.unwrap();
    }
    until("what is too much is given back", || async {
        !effects(&lab, &["UnassignPrivateIpAddresses"]).is_empty()
    })
    .await;
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "{left:#?}\n{}", daemon.tail());
    daemon.stop().await.unwrap();
    Arc::into_inner(lab).unwrap().down().await.unwrap();
}
