//! What goes wrong leaves nothing behind, and says what it was.

use std::error::Error;
use std::time::Duration;

use daemon::datapath::{DatapathError, EniKind, Pod};
use model::{EniId, IpPair, IpStack};

use crate::node::{Node, add, eventually, ip, on_a_node, settled};
use crate::witness::{self, assert_same};

fn chain(error: &dyn Error) -> String {
    let source = error.source().map_or_else(String::new, |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

#[test]
fn a_failed_add_leaves_nothing() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        let gone = node.member_pod(1, 5, 101, None);
        let occupied = node.pod(1, 6);
        ip("-n p1-6 link add eth0 type veth peer other");
        // The test's node is not the machine. Some machines let nobody look at it.
        let mut host = node.pod(1, 9);
        host.netns = "/proc/1/ns/net".into();
        let mut own = node.pod(1, 7);
        own.netns = Node::own_netns();
        let mut huge = node.pod(1, 8);
        huge.mtu = Some(1_000_000);
        let before = witness::node();
        for (spec, words) in [
            (gone, "/run/netns/nowhere"),
            (occupied, "a link eth0 already"),
            (host, "network namespace of"),
            (own, "is the node's own"),
            (huge, "mtu"),
        ] {
            let link = datapath.plan_pod(&spec).await.unwrap();
            let mut spec = spec;
            if words.contains("nowhere") {
                spec.netns = words.into();
            }
            let error = datapath.add_pod(Pod { spec: spec.clone(), link }).await.unwrap_err();
            let text = chain(&error);
            assert!(text.to_lowercase().contains(words), "{text}");
            let named = [spec.key.to_string(), spec.netns.display().to_string()];
            assert!(named.iter().any(|name| text.contains(name)), "{text}");
            settled(&datapath).await;
            assert_same(&before, &witness::node(), words);
            let unknown = datapath.check_pod(&spec.key).await;
            assert!(matches!(unknown, Err(DatapathError::UnknownPod(_))));
        }
        assert!(datapath.repair().await.unwrap().mended.is_empty());
    });
}

#[test]
fn an_add_that_fails_inside_the_pod_is_undone() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let mut spec = node.pod(1, 5);
        let link = datapath.plan_pod(&spec).await.unwrap();
        // The kernel routes to it, and takes it for no link's own address.
        spec.addresses = IpPair::V6("ff02::5".parse().unwrap());
        let before = witness::node();
        let error = datapath.add_pod(Pod { spec, link }).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("pod: + address ff02::5/128 dev eth0"), "{text}");
        settled(&datapath).await;
        assert_same(&before, &witness::node(), "after the failure");
    });
}

#[test]
fn a_number_that_somebody_took_meanwhile_is_left_to_him() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let spec = node.pod(1, 5);
        let planned = datapath.plan_pod(&spec).await.unwrap();
        ip(&format!(
            "link add foreign index {} alias mine type veth peer other",
            planned.host_index
        ));
        let foreign = ip("-d -j link show foreign");
        let link =
            datapath.add_pod(Pod { spec: spec.clone(), link: planned.clone() }).await.unwrap();
        assert_ne!(link.host_index, planned.host_index);
        assert_eq!(ip("-d -j link show foreign"), foreign);
        assert_eq!(datapath.check_pod(&spec.key).await.unwrap(), Vec::<String>::new());
        datapath.del_pod(&Pod { spec, link: planned }).await.unwrap();
        settled(&datapath).await;
        assert_eq!(witness::links().iter().filter(|link| link.starts_with("cali")).count(), 0);
        assert_eq!(ip("-d -j link show foreign"), foreign);
    });
}

#[test]
fn a_name_that_is_taken_is_not_taken_again() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let spec = node.pod(1, 5);
        let planned = datapath.plan_pod(&spec).await.unwrap();
        ip(&format!("link add {} type veth peer other", planned.host));
        let other = datapath.plan_pod(&spec).await.unwrap();
        assert_ne!(other.host, planned.host);
        // Also when it was taken only between plan and ADD.
        let link =
            datapath.add_pod(Pod { spec: spec.clone(), link: planned.clone() }).await.unwrap();
        assert_ne!(link.host, planned.host);
        assert_eq!(datapath.check_pod(&spec.key).await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_del_never_hits_a_link_that_only_has_the_same_number() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        // As recorded before a reboot; now the number is somebody else's.
        let spec = node.pod(1, 5);
        let link = datapath.plan_pod(&spec).await.unwrap();
        ip(&format!("link add foreign index {} type veth peer other", link.host_index));
        datapath.del_pod(&Pod { spec: spec.clone(), link }).await.unwrap();
        datapath.bury(&[spec.addresses]).await.unwrap();
        settled(&datapath).await;
        assert!(witness::links().contains(&"foreign".to_owned()));
    });
}

#[test]
fn an_eni_is_waited_for_and_found_by_its_own_link() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let spec = node.eni(1, EniKind::Secondary);
        let wait = Duration::from_millis(50);
        let error = datapath.set_eni(spec.clone(), wait).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no link with MAC 00:16:3e:00:01:01 for eni-1 after 50ms; is the ENI attached to this instance?"
        );
        // A bridge has the MAC of its first port.
        ip("link add br0 address 00:16:3e:00:01:01 type bridge");
        let (found, ()) = tokio::join!(datapath.set_eni(spec, Duration::from_secs(20)), async {
            tokio::task::yield_now().await;
            Node::plug(1);
        });
        assert_eq!(found.unwrap().name.as_str(), "eth1");
        let mut stray = node.pod(1, 5);
        stray.eni = EniId::new("eni-9");
        let unknown = datapath.plan_pod(&stray).await.unwrap_err().to_string();
        assert_eq!(unknown, "sandbox terway/p1-5/eth0 needs eni-9, which has no link on this node");
    });
}

#[test]
fn the_route_that_a_router_advertised_outlives_forwarding() {
    on_a_node(IpStack::Dual, async |node| {
        ip("-6 route del default");
        ip("-6 route add default via fd00::fd dev eth0 proto ra");
        let datapath = node.datapath().await;
        assert_eq!(witness::sysctl("ipv6/conf/eth0/accept_ra"), "2");
        assert_eq!(witness::sysctl("ipv6/conf/all/forwarding"), "1");
        drop(datapath);
    });
}

#[test]
fn links_in_the_reaper_s_group_go_at_once_and_strangers_stay() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        ip("link add stranger group 4242 type veth peer other");
        let mut pods = Vec::new();
        for n in 1..=10 {
            pods.push(add(&datapath, &node.pod(1, n)).await);
        }
        for pod in &pods {
            datapath.del_pod(pod).await.unwrap();
        }
        assert!(datapath.reaper_queue() > 0);
        settled(&datapath).await;
        let left = witness::links();
        assert_eq!(left.iter().filter(|link| link.starts_with("cali")).count(), 0, "{left:?}");
        assert!(left.contains(&"stranger".to_owned()));
    });
}

#[test]
fn what_the_reaper_had_to_leave_is_taken_at_the_next_start() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let pod = add(&datapath, &node.pod(1, 5)).await;
        drop(datapath);
        ip(&format!("link set {} group 4242", pod.link.host));
        let datapath = node.datapath().await;
        assert_eq!(datapath.reaper_queue(), 1);
        eventually("it is gone", || !witness::links().contains(&pod.link.host.to_string())).await;
    });
}
