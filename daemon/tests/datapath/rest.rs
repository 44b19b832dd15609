//! What the kernel knows of addresses: who uses them, and that nothing of a last owner is left.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use daemon::datapath::{Datapath, EniKind, RuleLayout};
use model::{EniId, IpPair, IpStack};

use crate::node::{add, eventually, ip, on_a_node, settled};
use crate::witness::links;

fn all(pairs: &[IpPair]) -> BTreeSet<IpAddr> {
    pairs.iter().flat_map(|pair| pair.iter()).collect()
}

async fn users(datapath: &Datapath, of: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    datapath.users(of.iter().copied().collect()).await.unwrap()
}

#[test]
fn the_kernel_names_the_addresses_of_a_pod_until_the_pod_is_removed() {
    for layout in [RuleLayout::PerEni, RuleLayout::PerPod] {
        on_a_node(IpStack::Dual, async move |node| {
            let datapath = node.datapath_with(layout).await;
            node.set_eni(&datapath, 1, EniKind::Trunk).await;
            node.set_eni(&datapath, 2, EniKind::Secondary).await;
            let [shared, other, free] = [node.pod(1, 5), node.pod(2, 6), node.pod(1, 7)];
            let member = node.member_pod(1, 8, 101, None);
            let pods = [&shared, &other, &free, &member].map(|spec| spec.addresses);
            let asked = all(&pods);
            assert_eq!(users(&datapath, &asked).await, BTreeSet::new());

            let mut made = Vec::new();
            for spec in [&shared, &other, &member] {
                made.push(add(&datapath, spec).await);
            }
            let [shared, other, free, member] = pods;
            assert_eq!(users(&datapath, &asked).await, all(&[shared, other, member]));
            assert_eq!(users(&datapath, &all(&[free])).await, BTreeSet::new());
            let [first, second] = ["eni-1", "eni-2"].map(EniId::new);
            let behind = datapath.eni_users(&first).await.unwrap();
            assert_eq!(behind, all(&[shared, member]));
            assert_eq!(datapath.eni_users(&second).await.unwrap(), all(&[other]));

            for pod in &made {
                datapath.del_pod(pod).await.unwrap();
            }
            assert_eq!(datapath.tombstones().await.unwrap().len(), 6);
            assert_eq!(users(&datapath, &asked).await, BTreeSet::new());
            for eni in [&first, &second] {
                assert_eq!(datapath.eni_users(eni).await.unwrap(), BTreeSet::new());
            }
        });
    }
}

#[test]
fn the_kernel_names_the_addresses_of_a_pod_that_the_daemon_does_not_know() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let spec = node.pod(1, 5);
        add(&datapath, &spec).await;
        settled(&datapath).await;
        drop(datapath);
        // Its record was lost: nothing is restored.
        let datapath = node.datapath().await;
        datapath.set_eni(node.eni(1, EniKind::Secondary), Duration::ZERO).await.unwrap();
        let own = all(&[spec.addresses]);
        assert_eq!(users(&datapath, &own).await, own);
        assert_eq!(datapath.eni_users(&EniId::new("eni-1")).await.unwrap(), own);
        let host = links().into_iter().find(|link| link.starts_with("cali")).unwrap();
        ip("netns del p1-5");
        eventually("its link goes", || !links().contains(&host)).await;
        assert_eq!(users(&datapath, &own).await, own, "the maps' entries stay");
        datapath.repair().await.unwrap();
        assert_eq!(users(&datapath, &own).await, BTreeSet::new(), "nothing is left");
    });
}

#[test]
fn the_kernel_names_an_address_that_somebody_else_put_on_the_node() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let asked: BTreeSet<IpAddr> =
            ["10.0.1.5", "10.0.1.6", "10.0.1.7", "fd00:1::5", "fd00:1::6", "fd00:1::7"]
                .map(|text| text.parse().unwrap())
                .into();
        ip("link add foreign type veth peer other");
        ip("link set foreign up");
        ip("link set other up");
        assert_eq!(users(&datapath, &asked).await, BTreeSet::new());
        for (family, own, behind, nowhere) in [
            ("-4", "10.0.1.5/24", "10.0.1.6/32", "10.0.1.7/32"),
            ("-6", "fd00:1::5/64", "fd00:1::6/128", "fd00:1::7/128"),
        ] {
            ip(&format!("{family} addr add {own} dev foreign"));
            ip(&format!("{family} route add {behind} dev foreign table 77"));
            ip(&format!("{family} route add unreachable {nowhere}"));
        }
        let used: BTreeSet<IpAddr> = ["10.0.1.5", "10.0.1.6", "fd00:1::5", "fd00:1::6"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(users(&datapath, &asked).await, used);
    });
}
