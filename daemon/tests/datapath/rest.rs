//! What the kernel knows of addresses: who uses them, and that nothing of a last owner is left.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use daemon::datapath::{Datapath, DatapathError, EniKind, RuleLayout};
use model::{EniId, IpPair, IpStack};

use crate::node::{add, eventually, ip, on_a_node, ping, run, settled};
use crate::witness::{json, links, text};

/// Of a pod that need not be there.
fn pair(n: u8) -> IpPair {
    IpPair::Dual([10, 0, 1, n].into(), [0xfd00, 1, 0, 0, 0, 0, 0, n.into()].into())
}

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

/// Connections in which `of` has a part, in each way there is; the number is how many.
fn connect(of: IpPair) -> usize {
    let (v4, v6) = (of.v4().unwrap(), of.v6().unwrap());
    let n = v4.octets()[3];
    let ports = "--reply-port-src 5353 --reply-port-dst 1002";
    let connections = [
        format!("-p tcp -s {v4} -d 10.9.9.9 --sport 1000 --dport 80 --state ESTABLISHED"),
        format!("-p udp -s 10.9.9.9 -d {v4} --sport 1001 --dport 53"),
        // A service's address is in its place.
        format!(
            "-p udp -s 10.9.9.9 -d 172.16.0.{n} --sport 1002 --dport 53 -r {v4} -q 10.9.9.9 {ports}"
        ),
        format!(
            "-p udp -s 10.0.2.{n} -d 10.9.9.9 --sport 1003 --dport 53 -r 10.9.9.9 -q {v4} {ports}"
        ),
        format!("-p udp -s {v4} -d 10.9.9.9 --sport 1004 --dport 53 --zone 7"),
        format!("-p udp -s {v4} -d 10.9.9.9 --sport 1005 --dport 53 --orig-zone 8"),
        format!("-p udp -s {v4} -d 10.9.9.9 --sport 1006 --dport 53 --reply-zone 9"),
        format!("-p icmp -s {v4} -d 10.9.9.9 --icmp-type 8 --icmp-code 0 --icmp-id 77"),
        format!(
            "-p sctp -s {v4} -d 10.9.9.9 --sport 7 --dport 8 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2"
        ),
        format!("-p 89 -s {v4} -d 10.9.9.9"),
        format!("-p tcp -s {v6} -d fd09::9 --sport 1000 --dport 80 --state ESTABLISHED"),
        format!("-p udp -s fd09::9 -d {v6} --sport 1001 --dport 53"),
        format!(
            "-p udp -s fd09::9 -d fd16::{n} --sport 1002 --dport 53 -r {v6} -q fd09::9 {ports}"
        ),
        format!("-p icmpv6 -s {v6} -d fd09::9 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 77"),
    ];
    for connection in &connections {
        run(&format!("conntrack -I -t 300 {connection}"));
    }
    connections.len()
}

/// What `conntrack` lists, each with its number in the kernel.
fn connections() -> Vec<String> {
    let mut lines: Vec<String> = run("conntrack -L -o id").lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

fn ids(lines: &[String]) -> BTreeSet<&str> {
    lines.iter().map(|line| line.split_once("id=").unwrap().1).collect()
}

fn naming(lines: &[String], of: IpPair) -> usize {
    let ends: Vec<_> = of
        .iter()
        .flat_map(|address| [format!("src={address} "), format!("dst={address} ")])
        .collect();
    lines.iter().filter(|line| ends.iter().any(|end| line.contains(end))).count()
}

#[test]
fn after_a_burial_no_connection_names_the_address_and_those_of_others_stay() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let [one, two, other] = [5, 6, 50].map(pair);
        connect(other);
        let others = connections();
        let count = connect(one) + connect(two);
        let all = connections();
        assert_eq!(
            (naming(&all, one) + naming(&all, two), all.len()),
            (count, count + others.len())
        );

        datapath.bury(&[one, two]).await.unwrap();
        let left = connections();
        assert_eq!((naming(&left, one), naming(&left, two)), (0, 0), "{left:#?}");
        assert_eq!(ids(&left), ids(&others));
        // There is nothing to do, and that is fine.
        datapath.bury(&[one]).await.unwrap();
        run("conntrack -F");
        datapath.bury(&[one, two]).await.unwrap();
    });
}

#[test]
fn a_burial_of_one_family_leaves_the_other_s_connections() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let of = pair(5);
        let count = connect(of);
        let (v4, v6) = (IpPair::new(of.v4(), None).unwrap(), IpPair::new(None, of.v6()).unwrap());
        datapath.bury(&[v4]).await.unwrap();
        let left = connections();
        assert_eq!((naming(&left, v4), naming(&left, v6), left.len()), (0, 4, 4), "of {count}");
        datapath.bury(&[v6]).await.unwrap();
        assert_eq!(connections(), Vec::<String>::new());
    });
}

#[test]
fn a_burial_finds_all_connections_of_an_address_among_many() {
    on_a_node(IpStack::V4, async |node| {
        let datapath = node.datapath().await;
        let of = IpPair::V4([10, 0, 1, 5].into());
        let mut lines = String::new();
        for n in 0..3000 {
            let source = if n % 3 == 0 { of.to_string() } else { format!("10.1.{}.5", n % 256) };
            let port = 1000 + n;
            writeln!(lines, "-A -t 300 -p udp -s {source} -d 10.9.9.9 --sport {port} --dport 53")
                .unwrap();
        }
        fs::write("/mnt/connections", lines).unwrap();
        run("conntrack -R /mnt/connections");
        let before = connections();
        assert_eq!((naming(&before, of), before.len()), (1000, 3000));
        datapath.bury(&[of]).await.unwrap();
        let after = connections();
        assert_eq!((naming(&after, of), after.len()), (0, 2000));
    });
}

#[test]
fn what_the_kernel_tracked_of_a_pod_is_gone_after_its_burial() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        run("nft add table inet track");
        run("nft add chain inet track seen { type filter hook prerouting priority 0 ; }");
        run("nft add rule inet track seen ct state new counter");
        let [gone, stays] = [node.pod(1, 5), node.pod(1, 6)];
        let pod = add(&datapath, &gone).await;
        add(&datapath, &stays).await;
        for name in ["p1-5", "p1-6"] {
            ping(name, IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        }
        // The node has spoken with it too.
        ping("", IpStack::Dual, ["10.0.1.5", "fd00:1::5"]);
        let of = |addresses| naming(&connections(), addresses);
        assert!(of(gone.addresses) >= 2 && of(stays.addresses) >= 2, "{:#?}", connections());

        // A pod lives: what it speaks is not cut off.
        let refused = datapath.bury(&[gone.addresses]).await;
        assert!(matches!(refused, Err(DatapathError::Owned { .. })), "{refused:?}");
        assert!(of(gone.addresses) >= 2, "{:#?}", connections());
        datapath.del_pod(&pod).await.unwrap();
        assert!(of(gone.addresses) >= 2, "the rest has just begun");
        datapath.bury(&[gone.addresses]).await.unwrap();
        assert_eq!(of(gone.addresses), 0, "{:#?}", connections());
        assert!(of(stays.addresses) >= 2, "{:#?}", connections());
        assert_eq!(datapath.tombstones().await.unwrap(), Vec::<IpAddr>::new());
    });
}

#[test]
fn after_a_burial_no_neighbour_is_the_address_and_those_of_others_stay() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let spec = node.pod(1, 5);
        let pod = add(&datapath, &spec).await;
        ip("link add other type veth peer another");
        ip("link set other up");
        let mac = "lladdr 02:00:00:00:00:07";
        let known = |text: &str| -> BTreeSet<(String, String)> {
            let all = json("neigh");
            let of = all.as_array().unwrap().iter().filter(|one| one["dst"] == text);
            of.map(|one| (self::text(one, "dev"), one["state"][0].to_string())).collect()
        };
        for (own, other) in [("10.0.1.5", "10.0.1.6"), ("fd00:1::5", "fd00:1::6")] {
            for address in [own, other] {
                ip(&format!("neigh add {address} dev eth0 {mac} nud stale"));
                ip(&format!("neigh add {address} dev eth1 {mac} nud reachable"));
                ip(&format!("neigh add {address} dev other {mac} nud permanent"));
            }
        }
        datapath.del_pod(&pod).await.unwrap();
        datapath.bury(&[spec.addresses]).await.unwrap();
        // Somebody wrote that one down for good: it is no memory of the pod.
        let written = ("other".to_owned(), "\"PERMANENT\"".to_owned());
        for (own, other) in [("10.0.1.5", "10.0.1.6"), ("fd00:1::5", "fd00:1::6")] {
            assert_eq!(known(own), [written.clone()].into());
            assert_eq!(known(other).len(), 3, "{other}");
        }
    });
}
