//! ENIs and pods come and go.

use daemon::bpf::MemberMacs;
use daemon::datapath::{EniKind, Pod, RuleLayout};
use model::{IpStack, Mac, PodRef};
use serde_json::Value;

use crate::node::{Node, add, ip, on_a_node, ping, ping_between, settled};
use crate::witness::{self, assert_same, json, text};

#[test]
fn a_pod_is_set_up_twice_and_torn_down_twice() {
    for stack in [IpStack::V4, IpStack::Dual] {
        on_a_node(stack, async move |node| {
            let datapath = node.datapath().await;
            node.set_eni(&datapath, 1, EniKind::Secondary).await;
            let spec = node.pod(1, 5);
            let before = witness::node();

            let pod = add(&datapath, &spec).await;
            let (once, inside) = (witness::node(), witness::pod("p1-5"));
            assert_ne!(before, once);
            ping("p1-5", stack, ["10.9.9.9", "fd09::9"]);
            assert_eq!(datapath.plan_pod(&spec).await.unwrap(), pod.link);
            assert_eq!(datapath.add_pod(pod.clone()).await.unwrap(), pod.link);
            assert_same(&once, &witness::node(), "the second time");
            assert_same(&inside, &witness::pod("p1-5"), "the second time, in the pod");
            assert_eq!(datapath.check_pod(&spec.key).await.unwrap(), Vec::<String>::new());

            datapath.del_pod(&pod).await.unwrap();
            datapath.del_pod(&pod).await.unwrap();
            let stones: Vec<_> = spec.addresses.iter().collect();
            assert_eq!(datapath.tombstones().await.unwrap(), stones);
            datapath.bury(&[spec.addresses]).await.unwrap();
            settled(&datapath).await;
            assert_same(&before, &witness::node(), "after it all");
            assert_eq!(json("-n p1-5 link").as_array().unwrap().len(), 1, "only lo");
            let changes = datapath.changes().borrow().clone();
            assert_eq!(changes.count, 0, "own changes are nobody else's: {changes:?}");
        });
    }
}

fn lookup<'a>(routes: &'a Value, table: &str, to: &str) -> &'a Value {
    let found = routes.as_array().unwrap().iter().find(|route| {
        let own = text(route, "table");
        let own = if own.is_empty() { "main" } else { own.as_str() };
        own == table && text(route, "dst") == to
    });
    found.unwrap_or_else(|| panic!("no route to {to} in table {table}: {routes}"))
}

#[test]
fn the_kernel_holds_what_the_design_says() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        let trunk = node.set_eni(&datapath, 1, EniKind::Trunk).await;
        let other = node.set_eni(&datapath, 2, EniKind::Secondary).await;
        let pod = add(&datapath, &node.pod(1, 5)).await;
        let host = pod.link.host.as_str();
        let gateways = [
            ("-4", "10.0.1.5", "10.0.1.253", "10.0.0.10"),
            ("-6", "fd00:1::5", "fd00:1::fd", "fd00::a"),
        ];
        for (family, address, gateway, primary) in gateways {
            let routes = json(&format!("{family} route show table all"));
            for table in ["main", "1003", "1004"] {
                let route = lookup(&routes, table, address);
                assert_eq!(
                    (text(route, "dev").as_str(), text(route, "protocol").as_str()),
                    (host, "122")
                );
                let source = if table == "main" { primary } else { "" };
                assert_eq!(text(route, "prefsrc"), source);
            }
            let default = lookup(&routes, "1003", "default");
            assert_eq!(
                (text(default, "gateway").as_str(), text(default, "dev").as_str()),
                (gateway, "eth1")
            );
            assert!(default["flags"].to_string().contains("onlink"), "{default}");
            let last = routes
                .as_array()
                .unwrap()
                .iter()
                .filter(|route| text(route, "type") == "unreachable");
            let metrics: Vec<_> = last
                .filter(|route| text(route, "protocol") == "122")
                .map(|route| route["metric"].clone())
                .collect();
            assert_eq!(metrics, [4_278_198_272_u32, 4_278_198_272], "{routes}");
            let neighbours = json("neigh show nud permanent");
            let lladdr = |at: &str| {
                let found = neighbours.as_array().unwrap().iter().find(|n| text(n, "dst") == at);
                text(found.unwrap(), "lladdr")
            };
            assert_eq!(lladdr(gateway), "ee:ff:ff:ff:ff:ff");
            assert_eq!(lladdr(address), pod.link.pod_mac.to_string());
        }
        assert_eq!((trunk.index.get(), other.index.get()), (3, 4));
        assert_eq!(witness::filters("eth1", "ingress"), Value::from(vec!["20000 0x1 vlan_untag"]));
        assert_eq!(witness::filters("eth1", "egress"), Value::from(vec!["50001 0x1 vlan_tag"]));
        assert_eq!(witness::filters("eth2", "ingress"), Value::from(vec!["20000 0x1 eni_ingress"]));
        assert_eq!(witness::filters("eth2", "egress"), Value::from(vec!["50001 0x1 source_guard"]));
        assert_eq!(witness::filters(host, "ingress"), Value::from(vec!["100 0x1 from_pod"]));
        assert_eq!(witness::filters(host, "egress"), Value::from(vec!["100 0x1 to_pod"]));
        for (switch, value) in [
            ("ipv4/conf/eth1/rp_filter", "2"),
            (&format!("ipv4/conf/{host}/rp_filter"), "2"),
            ("ipv6/conf/eth1/accept_ra", "0"),
            ("ipv6/conf/eth1/autoconf", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
        ] {
            assert_eq!(witness::sysctl(switch), value, "{switch}");
        }
        let addresses = json("-4 addr show dev eth1");
        let own = &addresses[0]["addr_info"];
        assert_eq!(own.as_array().unwrap().len(), 1);
        assert_eq!(
            (
                text(&own[0], "local").as_str(),
                own[0]["prefixlen"].as_u64(),
                own[0]["noprefixroute"].as_bool()
            ),
            ("10.0.0.10", Some(32), Some(true))
        );
        let primary = datapath.primary().await.unwrap();
        assert_eq!(
            (primary.name.as_str(), primary.v4.unwrap().to_string().as_str()),
            ("eth0", "10.0.0.10")
        );
        let link = json("-n p1-5 link show eth0");
        assert_eq!(
            (link[0]["mtu"].as_u64(), text(&link[0], "address")),
            (Some(1500), pod.link.pod_mac.to_string())
        );
    });
}

#[test]
fn two_rules_at_512_and_one_at_513_for_each_eni_and_family_whatever_the_number_of_pods() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        for n in 1..=2 {
            node.set_eni(&datapath, n, EniKind::Secondary).await;
        }
        let none = datapath.rules().await.unwrap();
        for n in 1..=20 {
            add(&datapath, &node.pod(1 + n % 2, n)).await;
        }
        assert_eq!(datapath.rules().await.unwrap(), none);
        for family in ["-4", "-6"] {
            let rules = json(&format!("{family} rule"));
            let count = |priority: u32| {
                rules.as_array().unwrap().iter().filter(|rule| rule["priority"] == priority).count()
            };
            assert_eq!(
                (count(512), count(513), rules.as_array().unwrap().len()),
                (4, 2, if family == "-4" { 9 } else { 8 }),
                "{rules}"
            );
            let kernel = ip(&format!("{family} rule"));
            for rule in none.iter().filter(|rule| rule.v6 == (family == "-6")) {
                let line = format!("{}:\t{} proto 122", rule.priority, rule.text);
                assert!(kernel.lines().any(|own| own.trim() == line), "{line}\n{kernel}");
            }
        }
    });
}

#[test]
fn pods_reach_each_other_the_node_and_the_outside_on_every_layout_of_rules() {
    for layout in [RuleLayout::PerEni, RuleLayout::PerPod] {
        on_a_node(IpStack::Dual, async move |node| {
            let datapath = node.datapath_with(layout).await;
            node.set_eni(&datapath, 1, EniKind::Trunk).await;
            node.set_eni(&datapath, 2, EniKind::Secondary).await;
            for (eni, n) in [(1, 5), (1, 6), (2, 7)] {
                add(&datapath, &node.pod(eni, n)).await;
            }
            let member = node.member_pod(1, 8, 101, None);
            add(&datapath, &member).await;
            let pods = [
                ("p1-5", "10.0.1.5", "fd00:1::5"),
                ("p1-6", "10.0.1.6", "fd00:1::6"),
                ("p2-7", "10.0.2.7", "fd00:2::7"),
                ("p1-8", "10.0.1.8", "fd00:1::8"),
            ];
            for (name, ..) in pods {
                for (other, v4, v6) in pods {
                    if name != other {
                        ping(name, IpStack::Dual, [v4, v6]);
                    }
                }
                ping(name, IpStack::Dual, ["10.0.0.10", "fd00::a"]);
            }
            for (name, v4, v6) in &pods[..3] {
                ping(name, IpStack::Dual, ["10.9.9.9", "fd09::9"]);
                ping("vpc", IpStack::Dual, [v4, v6]);
            }
            for (_, v4, v6) in pods {
                ping("", IpStack::Dual, [v4, v6]);
            }
            assert!(datapath.repair().await.unwrap().mended.is_empty());
        });
    }
}

#[test]
fn a_packet_for_an_address_without_a_pod_dies_on_the_node_and_the_sender_is_told() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        // The VPC still sends what is for an address that was given to the ENI.
        let spec = node.pod(1, 5);
        for address in spec.addresses.iter() {
            let answer = ping_between("vpc", &address.to_string()).unwrap_err();
            assert!(answer.to_lowercase().contains("unreachable"), "{answer}");
        }
        let pod = add(&datapath, &spec).await;
        ping("vpc", IpStack::Dual, ["10.0.1.5", "fd00:1::5"]);
        datapath.del_pod(&pod).await.unwrap();
        for address in spec.addresses.iter() {
            let answer = ping_between("vpc", &address.to_string()).unwrap_err();
            assert!(answer.to_lowercase().contains("unreachable"), "{answer}");
        }
    });
}

#[test]
fn a_member_s_pod_is_in_the_maps_of_its_trunk_until_it_rests() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        let before = witness::node();
        let macs = MemberMacs { member: Mac::new([0, 0x16, 0x3e, 7, 7, 7]), gateway: Mac::GATEWAY };
        let spec = node.member_pod(1, 5, 101, Some(macs));
        let pod = add(&datapath, &spec).await;
        let after = witness::node();
        let count = |witness: &witness::Witness, map: &str| witness[map].as_array().unwrap().len();
        assert_eq!(
            ["MEMBERS", "ADDRESSES", "ENDPOINTS"]
                .map(|map| count(&after, map) - count(&before, map)),
            [1, 2, 1]
        );
        datapath.del_pod(&pod).await.unwrap();
        settled(&datapath).await;
        let resting = witness::node();
        assert_eq!(
            ["MEMBERS", "ADDRESSES", "ENDPOINTS"]
                .map(|map| count(&resting, map) - count(&before, map)),
            [0, 2, 0]
        );
        // A repair knows that they rest.
        assert!(datapath.repair().await.unwrap().mended.is_empty());
        // The address comes to life again with its next pod.
        let pod = add(&datapath, &spec).await;
        assert!(datapath.tombstones().await.unwrap().is_empty());
        datapath.del_pod(&pod).await.unwrap();
        datapath.bury(&[spec.addresses]).await.unwrap();
        settled(&datapath).await;
        assert_same(&before, &witness::node(), "after it all");
    });
}

#[test]
fn a_new_sandbox_of_the_same_pod_takes_the_address_over_before_the_old_one_goes() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let mut old = node.pod(1, 5);
        old.pod = Some(PodRef { namespace: "default".into(), name: "web-0".into(), uid: None });
        let mut new = old.clone();
        ip("netns add new");
        new.key.container_id = "new".into();
        new.netns = "/run/netns/new".into();
        let old = add(&datapath, &old).await;
        let new = add(&datapath, &new).await;
        assert_ne!(old.link.host, new.link.host);
        datapath.del_pod(&old).await.unwrap();
        assert!(datapath.tombstones().await.unwrap().is_empty());
        assert_eq!(datapath.check_pod(&new.spec.key).await.unwrap(), Vec::<String>::new());
        ping("new", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        ping("vpc", IpStack::Dual, ["10.0.1.5", "fd00:1::5"]);
    });
}

#[test]
fn a_tombstone_that_a_crash_left_is_buried_at_the_start() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let before = witness::node();
        let [rests, forgotten] = [node.pod(1, 5), node.pod(1, 6)];
        for spec in [&rests, &forgotten] {
            let pod = add(&datapath, spec).await;
            datapath.del_pod(&pod).await.unwrap();
        }
        settled(&datapath).await;
        drop(datapath);

        let datapath = node.datapath().await;
        let eni = node.eni(1, EniKind::Secondary);
        datapath.set_eni(eni, std::time::Duration::ZERO).await.unwrap();
        datapath.expect_tombstones(rests.addresses.iter().collect()).await.unwrap();
        datapath.restore(Vec::new()).await.unwrap();
        datapath.repair().await.unwrap();
        let stones: Vec<_> = rests.addresses.iter().collect();
        assert_eq!(datapath.tombstones().await.unwrap(), stones);
        datapath.bury(&[rests.addresses]).await.unwrap();
        let after = witness::node();
        assert_same(&before, &after, "after the last rest");
    });
}

#[test]
fn an_address_that_is_buried_before_the_pods_are_restored_gets_no_tombstone_back() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let before = witness::node();
        let spec = node.pod(1, 5);
        let pod = add(&datapath, &spec).await;
        datapath.del_pod(&pod).await.unwrap();
        settled(&datapath).await;
        drop(datapath);

        let datapath = node.datapath().await;
        datapath.expect_tombstones(spec.addresses.iter().collect()).await.unwrap();
        let eni = node.eni(1, EniKind::Secondary);
        datapath.set_eni(eni, std::time::Duration::ZERO).await.unwrap();
        // It had rested long enough when the daemon was down: the pool does not wait for the pods.
        datapath.bury(&[spec.addresses]).await.unwrap();
        datapath.restore(Vec::new()).await.unwrap();
        datapath.repair().await.unwrap();
        assert!(datapath.tombstones().await.unwrap().is_empty());
        assert_same(&before, &witness::node(), "after the repair");
    });
}

#[test]
fn a_namespace_whose_sandbox_has_just_gone_takes_the_next_one_at_once() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let mut spec = node.pod(1, 5);
        let before = witness::node();
        for round in 0..20 {
            // The same sandbox again, and another one.
            spec.key.container_id = format!("c{}", round / 2);
            let pod = add(&datapath, &spec).await;
            assert_eq!(datapath.check_pod(&spec.key).await.unwrap(), Vec::<String>::new());
            datapath.del_pod(&pod).await.unwrap();
            datapath.bury(&[spec.addresses]).await.unwrap();
        }
        settled(&datapath).await;
        assert_same(&before, &witness::node(), "after it all");
    });
}

#[test]
fn a_restart_disturbs_nothing_and_knows_all_pods() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Trunk).await;
        let one = add(&datapath, &node.pod(1, 5)).await;
        let gone = add(&datapath, &node.pod(1, 6)).await;
        datapath.del_pod(&gone).await.unwrap();
        settled(&datapath).await;
        let before = witness::node();
        drop(datapath);

        let datapath = node.datapath().await;
        let link = datapath.set_eni(node.eni(1, EniKind::Trunk), std::time::Duration::ZERO).await;
        assert!(link.is_ok(), "{link:?}");
        let rests = gone.spec.addresses.iter().collect();
        datapath.expect_tombstones(rests).await.unwrap();
        datapath.restore(vec![one.clone()]).await.unwrap();
        let repairs = datapath.repair().await.unwrap();
        let programs = [("ingress", "from_pod"), ("egress", "to_pod")].map(|(side, name)| {
            format!(
                "filter {} {side} pref 100 {name} runs another version of the program",
                one.link.host
            )
        });
        assert_eq!(repairs.mended, programs);
        assert_same(&before, &witness::node(), "after the restart");
        assert_eq!(datapath.check_pod(&one.spec.key).await.unwrap(), Vec::<String>::new());
        let stones: Vec<_> = gone.spec.addresses.iter().collect();
        assert_eq!(datapath.tombstones().await.unwrap(), stones);
        assert_eq!(datapath.plan_pod(&one.spec).await.unwrap(), one.link);
        let spec = node.pod(1, 7);
        let next = datapath.plan_pod(&spec).await.unwrap();
        assert!(next.host_index > one.link.pod_index, "numbers are not used again soon");
        datapath.del_pod(&one).await.unwrap();
        settled(&datapath).await;
    });
}

#[test]
fn an_eni_goes_and_nothing_of_it_is_left_but_its_filters() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        add(&datapath, &node.pod(1, 5)).await;
        Node::plug(2);
        let before = witness::node();
        let spec = node.eni(2, EniKind::Secondary);
        datapath.set_eni(spec.clone(), std::time::Duration::ZERO).await.unwrap();
        assert_ne!(before, witness::node());
        datapath.remove_eni(&spec.id).await.unwrap();
        datapath.remove_eni(&spec.id).await.unwrap();
        let mut after = witness::node();
        for kept in ["filter eth2 egress", "filter eth2 ingress"] {
            assert_eq!(after[kept].as_array().unwrap().len(), 1, "never detached");
        }
        let mut before = before;
        for kept in ["filter eth2 egress", "filter eth2 ingress", "rp_filter eth2", "link"] {
            before.remove(kept);
            after.remove(kept);
        }
        assert_same(&before, &after, "without the ENI");
        assert_eq!(text(&json("link show eth2")[0], "operstate"), "DOWN");
        Node::unplug(2);
        assert!(datapath.repair().await.unwrap().mended.is_empty());
    });
}

#[test]
fn a_pod_of_a_dual_stack_node_gets_ipv6_though_its_namespace_had_it_off() {
    on_a_node(IpStack::Dual, async |node| {
        let datapath = node.datapath().await;
        node.set_eni(&datapath, 1, EniKind::Secondary).await;
        let spec = node.pod(1, 5);
        ip(
            "netns exec p1-5 sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
        );
        let pod: Pod = add(&datapath, &spec).await;
        ping("p1-5", IpStack::Dual, ["10.9.9.9", "fd09::9"]);
        assert_eq!(datapath.check_pod(&pod.spec.key).await.unwrap(), Vec::<String>::new());
    });
}
