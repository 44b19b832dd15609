//! What each verb tells the daemon.

use std::collections::HashMap;

use proto::agent::{
    AddRequest, Attachment, Bandwidth, CheckRequest, DelRequest, GcRequest, Interface, Ip, Pod,
    Route, Sandbox,
};
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Namespace, Seen, conf, conf_of, plugin, variables};

fn sandbox() -> Sandbox {
    Sandbox {
        network: "terway".to_owned(),
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
    }
}

fn pod() -> Pod {
    Pod { namespace: "shop".to_owned(), name: "web-0".to_owned(), uid: "u1".to_owned() }
}

/// The requests that the daemon saw of `verb` with `more` in the configuration.
fn requests(verb: &str, netns: &str, more: Value) -> Vec<Seen> {
    let daemon = Daemon::start(Answer::Succeed);
    plugin(&variables(verb, &[("CNI_NETNS", netns)]), &conf_of(&daemon, more)).result();
    daemon.seen()
}

#[test]
fn add_tells_all_that_the_runtime_says() {
    let netns = Namespace::new();
    let runtime = json!({
        "bandwidth": { "ingressRate": 1_000_000, "ingressBurst": 2, "egressRate": 3 },
        "ips": ["10.0.1.7", "2408:4005::7/64"],
        "mac": "02:00:00:AA:bb:01",
        "io.kubernetes.cri.pod-annotations": { "k8s.aliyun.com/pod-networking": "fast" },
    });
    let annotations =
        HashMap::from([("k8s.aliyun.com/pod-networking".to_owned(), "fast".to_owned())]);
    let expected = AddRequest {
        sandbox: Some(sandbox()),
        netns: netns.path().to_owned(),
        pod: Some(pod()),
        annotations,
        mtu: 8500,
        bandwidth: Some(Bandwidth {
            ingress_rate: 1_000_000,
            ingress_burst: 2,
            egress_rate: 3,
            egress_burst: 0,
        }),
        ips: vec!["10.0.1.7/32".to_owned(), "2408:4005::7/64".to_owned()],
        mac: "02:00:00:aa:bb:01".to_owned(),
    };
    let more = json!({ "mtu": 8500, "runtimeConfig": runtime });
    assert_eq!(requests("ADD", netns.path(), more), [Seen::Add(expected)]);
}

#[test]
fn add_tells_nothing_that_nobody_said() {
    let netns = Namespace::new();
    let expected = AddRequest {
        sandbox: Some(sandbox()),
        netns: netns.path().to_owned(),
        pod: Some(pod()),
        ..AddRequest::default()
    };
    assert_eq!(requests("ADD", netns.path(), json!({})), [Seen::Add(expected)]);
}

#[test]
fn del_tells_the_namespace_also_when_it_is_gone_and_does_without() {
    for netns in ["/run/netns/gone-with-the-pod", ""] {
        let expected =
            DelRequest { sandbox: Some(sandbox()), netns: netns.to_owned(), pod: Some(pod()) };
        assert_eq!(requests("DEL", netns, json!({ "prevResult": {} })), [Seen::Del(expected)]);
    }
}

#[test]
fn check_passes_the_previous_result_on() {
    let netns = Namespace::new();
    let previous = json!({
        "interfaces": [
            { "name": "eth0", "mac": "0a:58:0a:00:01:07", "sandbox": "/run/netns/pod", "mtu": 1500 },
            { "name": "cali0", "of a later plugin": 1 },
        ],
        "ips": [
            { "address": "10.0.1.7/32", "gateway": "169.254.1.1", "interface": 0 },
            { "version": "4", "address": "192.0.2.1/24" },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "192.0.2.0/24" }],
    });
    let interface = |name: &str, mac: &str, sandbox: &str, mtu| Interface {
        name: name.to_owned(),
        mac: mac.to_owned(),
        sandbox: sandbox.to_owned(),
        mtu,
    };
    let route = |dst: &str, gw: &str| Route { dst: dst.to_owned(), gw: gw.to_owned() };
    let expected = CheckRequest {
        sandbox: Some(sandbox()),
        netns: netns.path().to_owned(),
        pod: Some(pod()),
        interfaces: vec![
            interface("eth0", "0a:58:0a:00:01:07", "/run/netns/pod", 1500),
            interface("cali0", "", "", 0),
        ],
        // The address without an interface is not one of ours.
        ips: vec![Ip {
            address: "10.0.1.7/32".to_owned(),
            gateway: "169.254.1.1".to_owned(),
            interface: 0,
        }],
        routes: vec![route("0.0.0.0/0", "169.254.1.1"), route("192.0.2.0/24", "")],
    };
    let more = json!({ "prevResult": previous });
    assert_eq!(requests("CHECK", netns.path(), more), [Seen::Check(expected)]);
}

#[test]
fn check_needs_a_previous_result_that_can_be_read() {
    let netns = Namespace::new();
    let check = |more| plugin(&variables("CHECK", &[("CNI_NETNS", netns.path())]), &conf(more));
    insta::assert_snapshot!(check(json!({})).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 7,
      "msg": "configuration key prevResult: CHECK needs the result of ADD, and the runtime gave none"
    }
    "#);
    let torn = json!({ "ips": [{ "address": "10.0.1.7/32" }, { "gateway": "10.0.1.1" }] });
    insta::assert_snapshot!(check(json!({ "prevResult": torn })).error(), @r#"
    {
      "cniVersion": "1.1.0",
      "code": 7,
      "msg": "configuration key prevResult.ips[1]: missing field `address`"
    }
    "#);
}

#[test]
fn gc_tells_which_attachments_to_keep() {
    let kept = |ids: &[&str]| {
        let attachment =
            |id: &&str| Attachment { container_id: (*id).to_owned(), ifname: "eth0".to_owned() };
        let valid = ids.iter().map(attachment).collect();
        vec![Seen::Gc(GcRequest { network: "terway".to_owned(), valid })]
    };
    let list = |id: &str| json!([{ "containerID": id, "ifname": "eth0" }]);
    let valid = "cni.dev/valid-attachments";
    let old = "cni.dev/attachments";
    assert_eq!(requests("GC", "", json!({ valid: list("a"), old: list("a") })), kept(&["a"]));
    assert_eq!(requests("GC", "", json!({ valid: list("a"), old: list("b") })), kept(&["a"]));
    assert_eq!(requests("GC", "", json!({ old: list("b") })), kept(&["b"]));
    assert_eq!(requests("GC", "", json!({ valid: [] })), kept(&[]));
    // How libcni writes an empty list.
    assert_eq!(requests("GC", "", json!({ valid: null, old: null })), kept(&[]));
}

#[test]
fn gc_without_a_list_removes_nothing() {
    assert_eq!(requests("GC", "", json!({})), []);
}
