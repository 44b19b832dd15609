//! What others change is seen, and put right; what is theirs is left.

use std::time::Duration;

use daemon::datapath::{Datapath, EniKind, Pod};
use model::IpStack;
use serde_json::Value;

use crate::node::{Node, add, eventually, ip, on_a_node, ping, run, settled};
use crate::witness::{self, assert_same};

/// Whether the kernel tells of it.
#[derive(Clone, Copy, PartialEq)]
enum Heard {
    AtOnce,
    /// Only the timer finds it.
    Never,
}

/// What is done to the node; `HOST` is the pod's link, `FIRST` the pod's MAC.
const DAMAGES: [(&str, Heard); 36] = [
    ("ip rule del pref 512 iif eth1", Heard::AtOnce),
    ("ip rule del pref 512 fwmark 0x1/0x7f", Heard::AtOnce),
    ("ip rule del pref 513 iif eth1", Heard::AtOnce),
    ("ip -6 rule del pref 512 iif eth1", Heard::AtOnce),
    ("ip -6 rule del pref 513", Heard::AtOnce),
    ("ip rule add pref 512 iif eth7 lookup 1009 protocol 122", Heard::AtOnce),
    ("ip route del default table 1003 via 10.0.1.253", Heard::AtOnce),
    ("ip route del unreachable default table 1003 metric 4278198272", Heard::AtOnce),
    ("ip -6 route del unreachable default table 1003 metric 4278198272", Heard::AtOnce),
    ("ip route del 10.0.1.5 table main", Heard::AtOnce),
    ("ip -6 route del fd00:1::5 table 1003", Heard::AtOnce),
    ("ip route replace 10.0.1.5 dev eth0 table main", Heard::AtOnce),
    ("ip route change 10.0.1.5 dev HOST table main proto 122", Heard::AtOnce),
    ("ip route flush table 1003", Heard::AtOnce),
    ("ip route add 10.0.1.77 dev HOST table 1003 proto 122", Heard::AtOnce),
    ("ip neigh del 10.0.1.253 dev eth1", Heard::AtOnce),
    ("ip neigh replace 10.0.1.5 dev HOST lladdr 02:00:00:00:00:01 nud permanent", Heard::AtOnce),
    ("ip neigh del fd00:1::5 dev HOST", Heard::AtOnce),
    ("ip addr del 10.0.0.10/32 dev eth1", Heard::AtOnce),
    ("ip addr add 10.0.1.5/24 dev eth1", Heard::AtOnce),
    ("ip link set eth1 down", Heard::AtOnce),
    ("ip link set eth1 mtu 1400", Heard::AtOnce),
    ("ip link set HOST down", Heard::AtOnce),
    ("ip link set HOST mtu 1280", Heard::AtOnce),
    ("ip link set HOST name renamed", Heard::AtOnce),
    ("ip link del HOST", Heard::AtOnce),
    ("tc filter del dev eth1 egress pref 50001", Heard::AtOnce),
    ("tc filter del dev HOST ingress pref 100", Heard::AtOnce),
    ("tc qdisc del dev HOST clsact", Heard::AtOnce),
    ("sysctl -qw net.ipv4.conf.eth1.rp_filter=1", Heard::AtOnce),
    ("sysctl -qw net.ipv4.ip_forward=0", Heard::AtOnce),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", Heard::AtOnce),
    ("ip -n p1-5 addr del 10.0.1.5/32 dev eth0", Heard::Never),
    ("ip -n p1-5 -6 route del default", Heard::Never),
    ("ip -n p1-5 link set eth0 address 02:00:00:00:00:02", Heard::Never),
    ("ip -n p1-5 link set lo down", Heard::Never),
];

async fn node_with_a_pod(node: &Node) -> (Datapath, Pod) {
    let datapath = node.datapath().await;
    node.set_eni(&datapath, 1, EniKind::Secondary).await;
    let pod = add(&datapath, &node.pod(1, 5)).await;
    (datapath, pod)
}

#[test]
fn each_damage_is_heard_of_named_by_check_and_put_right() {
    on_a_node(IpStack::Dual, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        let before = (witness::node(), witness::pod("p1-5"));
        for (damage, heard) in DAMAGES {
            let mut changes = datapath.changes();
            changes.borrow_and_update();
            run(&damage.replace("HOST", pod.link.host.as_str()));
            if heard == Heard::AtOnce {
                let told = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
                assert!(told.is_ok(), "{damage}: nobody heard of it");
            }
            let found = datapath.check_pod(&pod.spec.key).await.unwrap();
            // What is too much is no pod's.
            assert_eq!(found.is_empty(), damage.contains(" add "), "{damage}: {found:?}");
            let repairs = datapath.repair().await.unwrap();
            assert!(
                !repairs.mended.is_empty() && repairs.left.is_empty(),
                "{damage}: {repairs:#?}"
            );
            assert_same(&before.0, &witness::node(), damage);
            assert_same(&before.1, &witness::pod("p1-5"), damage);
            assert_eq!(datapath.check_pod(&pod.spec.key).await.unwrap(), Vec::<String>::new());
            let again = datapath.repair().await.unwrap();
            assert!(again.mended.is_empty(), "{damage}: {again:#?}");
        }
        ping("p1-5", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        ping("vpc", IpStack::Dual, ["10.0.1.5", "fd00:1::5"]);
    });
}

#[test]
fn check_names_what_is_wrong() {
    on_a_node(IpStack::V4, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        let host = pod.link.host.as_str();
        ip("route del 10.0.1.5 table main");
        ip("rule del pref 513 iif eth1");
        ip(&format!("link set {host} mtu 1400"));
        ip("-n p1-5 route del default");
        run(&format!("tc filter del dev {host} egress pref 100"));
        let findings = datapath.check_pod(&pod.spec.key).await.unwrap();
        assert_eq!(findings.len(), 5, "{findings:#?}");
        assert!(findings[0].contains("mtu 1400 should be"), "{findings:#?}");
        assert_eq!(
            findings[1..],
            [
                format!("filter {host} egress pref 100 to_pod is missing"),
                format!("route 10.0.1.5/32 dev {host} table main src 10.0.0.10 is missing"),
                "rule 513: from all iif eth1 unreachable is missing".to_owned(),
                "in the namespace of terway/p1-5/eth0: route 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink table main is missing".to_owned(),
            ]
        );
    });
}

#[test]
fn what_others_made_is_left() {
    on_a_node(IpStack::Dual, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        let host = pod.link.host.as_str();
        for foreign in [
            "ip rule add pref 100 to 10.8.0.0/16 lookup main",
            "ip rule add pref 512 to 10.7.0.0/16 lookup main",
            "ip route add 10.8.0.0/16 via 10.0.0.253",
            "ip route add 10.8.1.0/24 dev eth1 table 1003 proto static",
            "ip link add cali00000000000 type veth peer peer0",
            "ip neigh add 10.0.1.99 dev eth1 lladdr 02:00:00:00:00:01 nud permanent",
            "ip -n p1-5 route add 10.8.0.0/16 via 169.254.1.1 dev eth0 onlink",
            "ip -n p1-5 addr add 10.8.8.8/32 dev eth0",
        ] {
            run(foreign);
        }
        let before = (witness::node(), witness::pod("p1-5"));
        assert_eq!(datapath.repair().await.unwrap().mended, Vec::<String>::new());
        ip("route del 10.0.1.5 table main");
        datapath.repair().await.unwrap();
        assert_same(&before.0, &witness::node(), "on the node");
        assert_same(&before.1, &witness::pod("p1-5"), "in the pod");
        assert!(witness::links().iter().any(|link| link == host));
    });
}

#[test]
fn the_mark_is_set_again_behind_a_foreign_filter_as_long_as_there_is_one() {
    on_a_node(IpStack::V4, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        let host = pod.link.host.as_str();
        let before = witness::node();
        let mut changes = datapath.changes();
        changes.borrow_and_update();
        run(&format!(
            "tc filter add dev {host} ingress pref 25000 protocol all u32 match u32 0 0 flowid 1:1"
        ));
        eventually("the foreign filter is heard of", || changes.has_changed().unwrap()).await;
        assert!(changes.borrow_and_update().last.contains("foreign filter"));
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(
            repairs.mended,
            [format!("filter {host} ingress pref 50001 set_mark is missing")]
        );
        let places = |side: &str| {
            let found = witness::filters(host, side);
            found
                .as_array()
                .unwrap()
                .iter()
                .map(|place| place.as_str().unwrap().split(' ').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert!(places("ingress").contains(&"25000".to_owned()), "it stays");
        assert!(places("ingress").contains(&"50001".to_owned()));
        let foreign: Vec<bool> = datapath
            .filters()
            .await
            .unwrap()
            .iter()
            .filter(|filter| filter.priority == 25000)
            .map(|filter| filter.foreign)
            .collect();
        assert!(!foreign.is_empty() && foreign.iter().all(|foreign| *foreign));
        run(&format!("tc filter del dev {host} ingress pref 25000"));
        eventually("its end is heard of", || changes.has_changed().unwrap()).await;
        datapath.repair().await.unwrap();
        assert_same(&before, &witness::node(), "without it");
    });
}

#[test]
fn the_mtu_of_an_eni_stays_what_it_came_with_and_a_new_nic_brings_its_own() {
    on_a_node(IpStack::Dual, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        ip("link set eth1 mtu 1400");
        let found = datapath.check_pod(&pod.spec.key).await.unwrap();
        assert_eq!(found, ["link eth1 mtu 1400 should be link eth1 mtu 1500"]);
        // A pod that comes meanwhile has what the ENI will have again.
        let other = add(&datapath, &node.pod(1, 6)).await;
        assert_eq!(other.link.mtu, 1500);
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(repairs.mended, ["link eth1 mtu 1400 should be link eth1 mtu 1500"]);
        assert_eq!(witness::json("link show eth1")[0]["mtu"], 1500);
        assert_eq!(datapath.enis().await.unwrap()[0].1.as_ref().unwrap().mtu, 1500);

        Node::unplug(1);
        Node::plug(1);
        ip("link set eth1 mtu 1450");
        datapath.repair().await.unwrap();
        assert_eq!(witness::json("link show eth1")[0]["mtu"], 1450);
        let third = add(&datapath, &node.pod(1, 7)).await;
        assert_eq!((third.link.mtu, pod.link.mtu), (1450, 1500));
        for pod in [pod, other, third] {
            let found = datapath.check_pod(&pod.spec.key).await.unwrap();
            assert_eq!(found, Vec::<String>::new());
        }
    });
}

#[test]
fn a_foreign_filter_before_ours_is_named_as_long_as_it_is_there() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        datapath.repair().await.unwrap();
        assert_eq!(datapath.foreign_ahead().await.unwrap(), Vec::<String>::new());
        let at = |side: &str, priority: u16| {
            format!("dev eth1 {side} pref {priority} protocol all u32 match u32 0 0 flowid 1:1")
        };
        let mut changes = datapath.changes();
        changes.borrow_and_update();
        // Behind ours: neither heard of nor named.
        run(&format!("tc filter add {}", at("ingress", 25_000)));
        run(&format!("tc filter add {}", at("egress", 50_002)));
        run(&format!("tc filter add {}", at("egress", 25_000)));
        eventually("it is heard of", || changes.has_changed().unwrap()).await;
        assert_eq!(changes.borrow_and_update().last, "a foreign filter sits on link 3");
        assert_eq!(datapath.repair().await.unwrap().mended, Vec::<String>::new());
        assert_eq!(
            datapath.foreign_ahead().await.unwrap(),
            ["u32 on eth1 egress at 25000, before vlan_tag at 50001"]
        );
        run("tc filter del dev eth1 egress pref 25000");
        eventually("its end is heard of", || changes.has_changed().unwrap()).await;
        datapath.repair().await.unwrap();
        assert_eq!(datapath.foreign_ahead().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn an_eni_that_is_plugged_again_moves_to_its_new_table() {
    on_a_node(IpStack::Dual, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        let mut changes = datapath.changes();
        changes.borrow_and_update();
        Node::unplug(1);
        eventually("the loss is heard of", || changes.has_changed().unwrap()).await;
        changes.borrow_and_update();
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(repairs.left, ["the link of eni-1 is gone"]);
        assert_eq!(datapath.rules().await.unwrap(), []);
        assert_eq!(datapath.enis().await.unwrap()[0].1, None);
        Node::plug(1);
        eventually("the link is heard of", || changes.has_changed().unwrap()).await;
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(repairs.left, Vec::<String>::new());
        let link = datapath.enis().await.unwrap()[0].1.clone().unwrap();
        assert!(link.index.get() > 3);
        let tables: Vec<_> =
            datapath.rules().await.unwrap().iter().filter_map(|rule| rule.table).collect();
        assert_eq!(tables, [model::TableId::of(link.index); 4]);
        Node::route_to_pods(1, 5);
        ping("p1-5", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        assert_eq!(datapath.check_pod(&pod.spec.key).await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn what_nobody_wants_any_more_is_removed_after_a_restart() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        let before = witness::node();
        add(&datapath, &node.member_pod(1, 5, 101, None)).await;
        add(&datapath, &node.pod(1, 6)).await;
        drop(datapath);
        let datapath = node.datapath().await;
        datapath.set_eni(node.eni(1, EniKind::Trunk), Duration::ZERO).await.unwrap();
        datapath.restore(vec![]).await.unwrap();
        assert!(!datapath.repair().await.unwrap().mended.is_empty());
        settled(&datapath).await;
        assert_same(&before, &witness::node(), "without its pods");
    });
}

#[test]
fn a_pod_whose_namespace_is_closed_is_left_as_it_is() {
    on_a_node(IpStack::V4, async |node| {
        let (datapath, pod) = node_with_a_pod(&node).await;
        // Something still lives in there.
        let mut child = std::process::Command::new("ip")
            .args(["netns", "exec", "p1-5", "sleep", "60"])
            .spawn()
            .unwrap();
        let pid = child.id();
        eventually("it lives there", || ip("netns pids p1-5").contains(&pid.to_string())).await;
        let before = witness::node();
        ip("netns del p1-5");
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(repairs.mended, Vec::<String>::new());
        assert!(repairs.left[0].contains("/run/netns/p1-5"), "{repairs:?}");
        assert_same(&before, &witness::node(), "with it closed");
        child.kill().unwrap();
        child.wait().unwrap();
        let host = pod.link.host.as_str();
        eventually("the link goes with its namespace", || {
            !witness::links().iter().any(|link| link == host)
        })
        .await;
        let repairs = datapath.repair().await.unwrap();
        assert_eq!(repairs.left.len(), 1, "{repairs:?}");
        assert_eq!(witness::node()["ENDPOINTS"], Value::Array(vec![]));
        datapath.del_pod(&pod).await.unwrap();
        datapath.bury(&[pod.spec.addresses]).await.unwrap();
        assert_eq!(datapath.repair().await.unwrap().left, Vec::<String>::new());
    });
}
