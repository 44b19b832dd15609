//! What one namespace may have of us: further interfaces beside the first, and each name once.

use daemon::datapath::{Datapath, DatapathError, EniKind, Pod, PodSpec};
use model::IpStack;

use crate::node::{Node, add, ip, on_a_node, ping, run, settled};
use crate::witness::{self, assert_same};

/// A further interface of the first pod, with addresses on `eni-<eni>` that end in `n`.
fn further(node: &Node, first: &PodSpec, ifname: &str, eni: u8, n: u8) -> PodSpec {
    let mut spec = node.pod(eni, n);
    spec.netns.clone_from(&first.netns);
    spec.key.container_id.clone_from(&first.key.container_id);
    ifname.clone_into(&mut spec.key.ifname);
    spec.ifname = ifname.parse().unwrap();
    spec
}

async fn agrees(datapath: &Datapath, pods: &[&Pod]) {
    for pod in pods {
        let key = &pod.spec.key;
        let found = datapath.check_pod(key).await.unwrap();
        assert_eq!(found, Vec::<String>::new(), "{key}");
    }
    assert_eq!(datapath.repair().await.unwrap().mended, Vec::<String>::new());
}

#[test]
fn a_further_interface_leaves_the_first_one_as_it_is_and_both_answer() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        node.set_eni(&datapath, 2, EniKind::Secondary).await;
        let first = add(&datapath, &node.pod(1, 5)).await;
        let (alone, before) = (witness::pod("p1-5"), witness::node());
        let mut pods = vec![];
        for (ifname, n) in [("net1", 6), ("net2", 7)] {
            pods.push(add(&datapath, &further(&node, &first.spec, ifname, 2, n)).await);
        }
        // As a distribution may have it: what comes in by an interface must leave by it.
        run("ip netns exec p1-5 sysctl -qw net.ipv4.conf.all.rp_filter=1");
        for (family, outside) in [("-4", "10.9.9.9"), ("-6", "fd09::9")] {
            let way = witness::json(&format!("-n p1-5 {family} route get {outside}"));
            assert_eq!(witness::text(&way[0], "dev"), "eth0", "{way}");
        }
        agrees(&datapath, &[&first, &pods[0], &pods[1]]).await;
        // From the outside to each of them: a reply by another one's link is dropped there.
        for to in [["10.0.1.5", "fd00:1::5"], ["10.0.2.6", "fd00:2::6"], ["10.0.2.7", "fd00:2::7"]]
        {
            ping("vpc", IpStack::Dual, to);
            ping("", IpStack::Dual, to);
        }
        ping("p1-5", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        // By which interface a program asks for.
        run("ip netns exec p1-5 ping -c 1 -W 2 -I 10.0.2.6 10.9.9.9");
        let mut drops = datapath.drops().await.unwrap();
        // What a pod's kernel says of itself when a link comes up is dropped as designed.
        drops.retain(|(cause, count)| *count > 0 && *cause != "pod_control");
        assert_eq!(drops, []);

        // What is lost is put right; what belongs to the first is not touched.
        ip("-n p1-5 rule del pref 512 from 10.0.2.6");
        let found = datapath.check_pod(&pods[0].spec.key).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(datapath.check_pod(&first.spec.key).await.unwrap(), Vec::<String>::new());
        assert_eq!(datapath.repair().await.unwrap().mended, found);
        agrees(&datapath, &[&first, &pods[0], &pods[1]]).await;

        for pod in &pods {
            datapath.del_pod(pod).await.unwrap();
            datapath.bury(&[pod.spec.addresses]).await.unwrap();
        }
        settled(&datapath).await;
        assert_same(&alone, &witness::pod("p1-5"), "the first alone again");
        assert_same(&before, &witness::node(), "the node");
        agrees(&datapath, &[&first]).await;
    });
}

#[test]
fn a_further_interface_stays_when_the_first_goes_and_needs_none() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let first = add(&datapath, &node.pod(1, 5)).await;
        let other = add(&datapath, &further(&node, &first.spec, "net1", 1, 6)).await;
        datapath.del_pod(&first).await.unwrap();
        settled(&datapath).await;
        agrees(&datapath, &[&other]).await;
        ping("p1-5", IpStack::V4, ["10.9.9.9", ""]);
        // Somebody else's first interface, as Multus may have it.
        ip("-n p1-5 link add eth0 type veth peer other");
        ip("-n p1-5 link set eth0 up");
        ip("-n p1-5 link set other up");
        ip("-n p1-5 route add default dev eth0");
        agrees(&datapath, &[&other]).await;
        let way = witness::json("-n p1-5 route get 10.9.9.9");
        assert_eq!(witness::text(&way[0], "dev"), "eth0", "{way}");
        ping("vpc", IpStack::V4, ["10.0.1.6", ""]);
        ip("netns del p1-5");
        datapath.del_pod(&other).await.unwrap();
    });
}

#[test]
fn a_name_that_the_namespace_has_already_is_refused_with_its_owner() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let strange = node.pod(1, 5);
        ip("-n p1-5 link add eth0 type veth peer other");
        let first = add(&datapath, &node.pod(1, 6)).await;
        let mut second = node.pod(1, 7);
        second.netns.clone_from(&first.spec.netns);
        let before = (witness::node(), witness::pod("p1-5"), witness::pod("p1-6"));
        for (spec, text) in [
            (
                strange,
                "CNI_IFNAME eth0: the namespace /run/netns/p1-5 (CNI_NETNS) has a link eth0 \
                 already, which is none of terwayd's",
            ),
            (
                second,
                "CNI_IFNAME eth0: the namespace /run/netns/p1-6 (CNI_NETNS) has a link eth0 \
                 already, that of sandbox terway/p1-6/eth0",
            ),
        ] {
            let link = datapath.plan_pod(&spec).await.unwrap();
            let error = datapath.add_pod(Pod { spec, link }).await.unwrap_err();
            assert!(matches!(error, DatapathError::Occupied { .. }), "{error:?}");
            assert_eq!(error.to_string(), text);
            settled(&datapath).await;
            assert_same(&before.0, &witness::node(), "the node");
            assert_same(&before.1, &witness::pod("p1-5"), "the stranger's namespace");
            assert_same(&before.2, &witness::pod("p1-6"), "the first one's namespace");
        }
        agrees(&datapath, &[&first]).await;
        ping("p1-6", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
    });
}
