//! What several of these tests look at.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};
use terway_lab::driver::{Attachment, Outcome, Verb};
use terway_lab::lab::{Lab, LabPod, PodRequest};
use terway_lab::traffic::{Answer, Echo, probe};

/// For what the daemon does by itself.
const SOON: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// The calls that take something away from a node.
pub(crate) const TAKING: [&str; 4] = [
    "DetachNetworkInterface",
    "DeleteNetworkInterface",
    "UnassignPrivateIpAddresses",
    "UnassignIpv6Addresses",
];

/// Looks until `done`.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let looking = async {
        while !done().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(SOON, looking).await;
    assert!(waited.is_ok(), "in {SOON:?} it never came true that {what}");
}

/// All addresses of a pod, from outside.
pub(crate) async fn is_reached(lab: &Lab, pod: &LabPod) {
    let server = Echo::start(pod.netns.namespace(), "pod", 7007).await.unwrap();
    for address in &pod.addresses {
        let target = SocketAddr::new(*address, 7007);
        let probe = probe(lab.fabric().outside(), target, Duration::from_secs(5)).await.unwrap();
        assert!(matches!(probe.answer, Answer::Reached { .. }), "{address}: {:?}", probe.answer);
    }
    drop(server);
}

/// All addresses of the one pod, from within the other.
pub(crate) async fn is_reached_from(pod: &LabPod, from: &LabPod) {
    let server = Echo::start(pod.netns.namespace(), "pod", 7008).await.unwrap();
    for address in &pod.addresses {
        let target = SocketAddr::new(*address, 7008);
        let probe = probe(from.netns.namespace(), target, Duration::from_secs(5)).await.unwrap();
        assert!(matches!(probe.answer, Answer::Reached { .. }), "{address}: {:?}", probe.answer);
    }
    drop(server);
}

/// An ADD that may take so many seconds.
pub(crate) async fn add_within(lab: &Lab, request: &PodRequest, seconds: u32) -> (LabPod, Outcome) {
    let mut more = Map::new();
    more.insert("timeout".to_owned(), json!(seconds));
    lab.try_pod(request, &more).await.unwrap()
}

/// STATUS, by the plugin.
pub(crate) async fn status(lab: &Lab, node: &str) -> Outcome {
    let node = lab.node(node).unwrap();
    lab.cni(node, Verb::Status, &Attachment::default(), &Map::new()).await.unwrap()
}

/// A number of `terwayctl status`, by its JSON pointer.
pub(crate) async fn shown(lab: &Lab, node: &str, pointer: &str) -> u64 {
    let status = lab.terwayctl(node, "status").await.unwrap();
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// Calls of these actions that had an effect, of those that the cloud remembers.
pub(crate) fn effects(lab: &Lab, actions: &[&str]) -> Vec<String> {
    let calls = lab.ecs().calls().into_iter();
    let calls = calls.filter(|call| actions.contains(&call.action.as_str()));
    calls.filter(|call| call.outcome == "ok").map(|call| format!("{call:?}")).collect()
}

/// Keys of `eni_conf`.
pub(crate) fn keys(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(keys) => keys,
        other => panic!("{other} is no object"),
    }
}
