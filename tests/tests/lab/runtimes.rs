//! The binary as real runtimes call it: containerd over CRI, and libcni's own driver `cnitool`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use terway_lab::containerd::{Containerd, binaries};
use terway_lab::driver::ANNOTATIONS;
use terway_lab::lab::{DaemonSettings, Lab, LabOptions};
use terway_lab::traffic::{Answer, Echo, probe};

const NODE: &str = "node1";
const POD_NETWORKING: &str = "k8s.aliyun.com/pod-networking";

/// Every address takes a connection from the client outside.
async fn is_reached(lab: &Lab, netns: &terway_lab::namespace::Namespace, addresses: &[IpAddr]) {
    let server = Echo::start(netns, "pod", 7007).await.unwrap();
    for address in addresses {
        let target = SocketAddr::new(*address, 7007);
        let place = lab.fabric().outside();
        let probe = probe(place, target, Duration::from_secs(2)).await.unwrap();
        assert!(matches!(probe.answer, Answer::Reached { .. }), "{address}: {:?}", probe.answer);
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_runs_and_removes_sandboxes_in_both_modes() {
    let lab = Lab::up(LabOptions::for_test("cri", 1).unwrap()).await.unwrap();
    let node = lab.node(NODE).unwrap().node.clone();
    let settings = DaemonSettings::default();
    lab.install(NODE, &settings).unwrap();
    let mut containerd = Containerd::start(&node, &lab.logs()).await.unwrap();
    let (ready, why) = containerd.cri.network_ready().await.unwrap();
    assert!(!ready, "without a conflist there is no network: {why}");

    let mut daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
    daemon.wait_ready().await.unwrap();
    lab.wait_filled(NODE).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    // containerd takes the conflist up when it sees the file change.
    let mut network = containerd.cri.network_ready().await.unwrap();
    for _ in 0..100 {
        if network.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        network = containerd.cri.network_ready().await.unwrap();
    }
    assert!(network.0, "{}", network.1);

    for (name, pod_networking) in [("shared", None), ("member", Some("web"))] {
        let mut pod = containerd.pod("default", name, &format!("uid-{name}"));
        if let Some(pod_networking) = pod_networking {
            pod.annotations.insert(POD_NETWORKING.to_owned(), pod_networking.to_owned());
        }
        let id = containerd.cri.run(&pod).await.unwrap();
        let addresses = containerd.cri.addresses(&id).await.unwrap();
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
        assert_eq!(addresses.len(), 2, "{addresses:?}");
        let subnet = if pod_networking.is_some() { "10.0.2." } else { "10.0.1." };
        assert!(addresses.iter().any(|one| one.to_string().starts_with(subnet)), "{addresses:?}");
        let (_, info) = containerd.cri.status(&id).await.unwrap();
        let pid = info.get("pid").and_then(Value::as_u64).unwrap();
        let netns = format!("/proc/{pid}/ns/net");
        let netns = node.open_namespace(netns.as_ref()).await.unwrap();
        is_reached(&lab, &netns, &addresses).await;
        drop(netns);
        containerd.cri.remove(&id).await.unwrap();
    }
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "left:\n{}", left.join("\n"));

    // Without the daemon STATUS fails, and the runtime says the network is not ready.
    daemon.stop().await.unwrap();
    let (ready, why) = containerd.cri.network_ready().await.unwrap();
    assert!(!ready, "the daemon is down: {why}");
    containerd.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cnitool_adds_checks_deletes_and_collects() {
    let lab = Lab::up(LabOptions::for_test("cnitool", 1).unwrap()).await.unwrap();
    let node = lab.node(NODE).unwrap().node.clone();
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let cnitool = binaries().unwrap().join("cnitool");
    let pod = node.pod("tool").await.unwrap();
    let call = |verb: &'static str, capabilities: String| {
        let mut command = node.command(&cnitool);
        command
            .args([verb, "terway", "/run/netns/tool"])
            .env("CNI_PATH", "/opt/cni/bin")
            .env("NETCONFPATH", "/etc/cni/net.d")
            .env("CAP_ARGS", capabilities);
        command
    };
    for annotations in [serde_json::json!({}), serde_json::json!({ POD_NETWORKING: "web" })] {
        let capabilities = serde_json::json!({ ANNOTATIONS: annotations }).to_string();
        let added = call("add", capabilities.clone()).output().await.unwrap();
        let said = String::from_utf8_lossy(&added.stderr).into_owned();
        assert!(added.status.success(), "add: {said}");
        let result: Value = serde_json::from_slice(&added.stdout).unwrap();
        let ips = result.get("ips").and_then(Value::as_array).unwrap();
        let addresses: Vec<IpAddr> = ips
            .iter()
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(addresses.len(), 2, "{result}");
        is_reached(&lab, pod.namespace(), &addresses).await;
        for verb in ["check", "status", "del", "del", "gc"] {
            let output = call(verb, capabilities.clone()).output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{verb}: {said}");
        }
    }
    drop(pod);
    let left = lab.settle(NODE, &before).await.unwrap();
    assert!(left.is_empty(), "left:\n{}", left.join("\n"));
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
