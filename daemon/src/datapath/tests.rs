//! What the plans look like, and the laws they keep.

use std::collections::BTreeSet;
use std::path::PathBuf;

use insta::assert_snapshot;
use model::{EniId, IpPair, IpStack, LinkIndex, Mac, Mark, SandboxKey};
use proptest::prelude::*;

use super::desired::{self, Eni, Node, PodNetwork, Tombstone, desired};
use super::diff::diff;
use super::types::{Change, Inside, Object, Objects, Op, Place, State};
use super::{
    EniKind, EniLink, EniSpec, MemberSpec, Pod, PodLink, PodSpec, Primary, RuleLayout, names,
};
use crate::bpf::{MemberMacs, Program};

fn index(number: u32) -> LinkIndex {
    LinkIndex::try_from(number).unwrap()
}

fn node() -> Node {
    let v6 = "fd00::a".parse().unwrap();
    Node {
        primary: Primary {
            index: index(2),
            name: "eth0".parse().unwrap(),
            v4: Some([10, 0, 0, 10].into()),
            v6: Some(v6),
        },
        stack: IpStack::Dual,
        layout: RuleLayout::PerEni,
        mark_mask: Mark::DEFAULT_MASK,
        ipv6: true,
        advertised: BTreeSet::new(),
        programs: Program::ALL.into_iter().zip(1..).collect(),
    }
}

/// `eni-<n>` as `eth<n>`, with index 2 + n.
fn eni(n: u8, kind: EniKind) -> Eni {
    let gateway = format!("fd00:{n}::fd").parse().unwrap();
    let spec = EniSpec {
        id: EniId::new(format!("eni-{n}")),
        kind,
        mac: Mac::new([0x00, 0x16, 0x3e, 0, 1, n]),
        mark: Mark::new(n.into(), Mark::DEFAULT_MASK).unwrap(),
        gateway: IpPair::Dual([10, 0, n, 253].into(), gateway),
    };
    let name = format!("eth{n}").parse().unwrap();
    Eni { spec, link: EniLink { index: index(2 + u32::from(n)), name, mtu: 1500 } }
}

/// The pod with number `n` on `eni-1`: the addresses end in it, and so do the MACs.
pub(super) fn pod(n: u8) -> Pod {
    let key = SandboxKey {
        network: "terway".to_owned(),
        container_id: format!("c{n}"),
        ifname: "eth0".to_owned(),
    };
    let v6 = format!("fd00:1::{n:x}").parse().unwrap();
    let spec = PodSpec {
        key,
        pod: None,
        netns: PathBuf::from(format!("/run/netns/c{n}")),
        ifname: "eth0".parse().unwrap(),
        addresses: IpPair::Dual([10, 0, 1, n].into(), v6),
        eni: EniId::new("eni-1"),
        member: None,
        mtu: None,
        mac: None,
    };
    let link = PodLink {
        host: format!("cali{n}").parse().unwrap(),
        host_index: index(100_000 + u32::from(n)),
        host_mac: Mac::new([2, 0, 0, 0, 1, n]),
        pod_index: index(200_000 + u32::from(n)),
        pod_mac: Mac::new([2, 0, 0, 0, 2, n]),
        mtu: 1500,
    };
    Pod { spec, link }
}

fn member_pod(n: u8, vlan: u32, macs: Option<MemberMacs>) -> Pod {
    let mut pod = pod(n);
    pod.spec.member = Some(MemberSpec { vlan: vlan.try_into().unwrap(), macs });
    pod
}

fn network(pod: Pod) -> PodNetwork {
    PodNetwork { pod, foreign_filter: false }
}

fn on_node(node: Objects) -> State {
    State { node, ..State::default() }
}

fn plan(from: &State, to: &State) -> String {
    let lines: Vec<String> = diff(from, to).iter().map(Op::to_string).collect();
    lines.join("\n")
}

fn made(state: &State) -> String {
    plan(&State::default(), state)
}

#[test]
fn a_node_forwards_and_keeps_the_route_that_a_router_advertised() {
    let mut node = node();
    node.advertised.insert("eth0".parse().unwrap());
    assert_snapshot!(made(&on_node(desired::node_objects(&node))), @r"
    + sysctl net/ipv6/conf/eth0/accept_ra = 2
    + sysctl net/ipv4/ip_forward = 1
    + sysctl net/ipv6/conf/all/forwarding = 1
    + map node link 2 10.0.0.10 fd00::a mask 0x7f
    ");
}

#[test]
fn a_secondary_eni_is_guarded_before_it_comes_up() {
    let eni = eni(1, EniKind::Secondary);
    assert_snapshot!(made(&on_node(desired::eni_objects(&node(), &eni))), @r"
    + map eni eth1 lladdr 00:16:3e:00:01:01
    + sysctl net/ipv6/conf/eth1/accept_ra = 0
    + sysctl net/ipv6/conf/eth1/autoconf = 0
    + sysctl net/ipv4/conf/eth1/rp_filter = 2
    + filter eth1 ingress pref 20000 eni_ingress
    + filter eth1 egress pref 50001 source_guard
    + link eth1 mtu 1500
    + link eth1 up
    + address 10.0.0.10/32 dev eth1
    + neighbour 10.0.1.253 lladdr ee:ff:ff:ff:ff:ff dev eth1
    + neighbour fd00:1::fd lladdr ee:ff:ff:ff:ff:ff dev eth1
    + route 0.0.0.0/0 via 10.0.1.253 dev eth1 onlink table 1003
    + route unreachable 0.0.0.0/0 table 1003 metric 4278198272
    + route ::/0 via fd00:1::fd dev eth1 onlink table 1003 metric 1024
    + route unreachable ::/0 table 1003 metric 4278198272
    + rule 512: from all iif eth1 lookup 1003 suppress_prefixlength 0
    + rule 512: from all fwmark 0x1/0x7f lookup 1003
    + rule 513: from all iif eth1 unreachable
    + rule -6 512: from all iif eth1 lookup 1003 suppress_prefixlength 0
    + rule -6 512: from all fwmark 0x1/0x7f lookup 1003
    + rule -6 513: from all iif eth1 unreachable
    ");
}

#[test]
fn a_trunk_tags_before_it_comes_up() {
    let eni = eni(1, EniKind::Trunk);
    let plan = made(&on_node(desired::eni_objects(&node(), &eni)));
    let filters: Vec<&str> = plan.lines().filter(|line| line.contains("filter eth1")).collect();
    assert_snapshot!(filters.join("\n"), @r"
    + filter eth1 ingress pref 20000 vlan_untag
    + filter eth1 egress pref 50001 vlan_tag
    ");
}

#[test]
fn a_shared_pod_is_local_in_every_table() {
    let enis = [eni(1, EniKind::Secondary), eni(2, EniKind::Secondary)];
    let state = desired::pod_state(&node(), &enis, &network(pod(5)));
    assert_snapshot!(made(&state), @r"
    + map endpoint cali5: 10.0.1.5 fd00:1::5 lladdr 02:00:00:00:02:05 mark 0x1/0x7f
    + map address 10.0.1.5 behind eth1
    + map address fd00:1::5 behind eth1
    + pair cali5 index 100005 lladdr 02:00:00:00:01:05 up, peer eth0 index 200005 lladdr 02:00:00:00:02:05, mtu 1500
    + sysctl net/ipv4/conf/cali5/rp_filter = 2
    + filter cali5 ingress pref 100 from_pod
    + filter cali5 egress pref 100 to_pod
    + neighbour 10.0.1.5 lladdr 02:00:00:00:02:05 dev cali5
    + neighbour fd00:1::5 lladdr 02:00:00:00:02:05 dev cali5
    + route 10.0.1.5/32 dev cali5 table main src 10.0.0.10
    + route fd00:1::5/128 dev cali5 table main metric 1024 src fd00::a
    + route 10.0.1.5/32 dev cali5 table 1003
    + route fd00:1::5/128 dev cali5 table 1003 metric 1024
    + route 10.0.1.5/32 dev cali5 table 1004
    + route fd00:1::5/128 dev cali5 table 1004 metric 1024
    pod: + sysctl net/ipv6/conf/eth0/disable_ipv6 = 0
    pod: + sysctl net/ipv6/conf/eth0/accept_ra = 0
    pod: + link lo up
    pod: + link eth0 up
    pod: + address 10.0.1.5/32 dev eth0
    pod: + address fd00:1::5/128 dev eth0
    pod: + neighbour 169.254.1.1 lladdr 02:00:00:00:01:05 dev eth0
    pod: + neighbour fe80::1 lladdr 02:00:00:00:01:05 dev eth0
    pod: + route local fd00:1::5/128 dev eth0 table local metric 1024
    pod: + route 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink table main
    pod: + route ::/0 via fe80::1 dev eth0 onlink table main metric 1024
    ");
}

#[test]
fn a_member_s_pod_has_its_vlan_in_the_maps_of_the_trunk() {
    let macs = MemberMacs { member: Mac::new([0, 0x16, 0x3e, 7, 7, 7]), gateway: Mac::GATEWAY };
    let enis = [eni(1, EniKind::Trunk)];
    let state = desired::pod_state(&node(), &enis, &network(member_pod(5, 101, Some(macs))));
    let plan = made(&state);
    let entries: Vec<&str> = plan.lines().filter(|line| line.contains("map ")).collect();
    assert_snapshot!(entries.join("\n"), @r"
    + map member vlan 101 of eth1 lladdr 00:16:3e:07:07:07 via ee:ff:ff:ff:ff:ff
    + map endpoint cali5: 10.0.1.5 fd00:1::5 lladdr 02:00:00:00:02:05 mark 0x1/0x7f
    + map address 10.0.1.5 behind eth1 vlan 101
    + map address fd00:1::5 behind eth1 vlan 101
    ");
}

#[test]
fn a_foreign_filter_on_a_pod_s_link_is_followed_by_set_mark() {
    let enis = [eni(1, EniKind::Secondary)];
    let before = desired::pod_state(&node(), &enis, &network(pod(5)));
    let with = PodNetwork { foreign_filter: true, ..network(pod(5)) };
    let after = desired::pod_state(&node(), &enis, &with);
    assert_snapshot!(plan(&before, &after), @"+ filter cali5 ingress pref 50001 set_mark");
    assert_snapshot!(plan(&after, &before), @"- filter cali5 ingress pref 50001 set_mark");
}

#[test]
fn a_pod_that_goes_leaves_tombstones() {
    let (node, enis) = (node(), [eni(1, EniKind::Trunk), eni(2, EniKind::Secondary)]);
    let pod = member_pod(5, 101, None);
    let stones: BTreeSet<Tombstone> = desired::tombstones(&pod).collect();
    let before = desired(&node, &enis, &[network(pod)], &BTreeSet::new());
    let after = desired(&node, &enis, &[], &stones);
    assert_snapshot!(plan(&before, &after), @r"
    - route fd00:1::5/128 dev cali5 table 1004 metric 1024
    - route 10.0.1.5/32 dev cali5 table 1004
    - route fd00:1::5/128 dev cali5 table 1003 metric 1024
    - route 10.0.1.5/32 dev cali5 table 1003
    - route fd00:1::5/128 dev cali5 table main metric 1024 src fd00::a
    - route 10.0.1.5/32 dev cali5 table main src 10.0.0.10
    - pair cali5 index 100005 lladdr 02:00:00:00:01:05 up, peer eth0 index 200005 lladdr 02:00:00:00:02:05, mtu 1500
    - map endpoint cali5: 10.0.1.5 fd00:1::5 lladdr 02:00:00:00:02:05 mark 0x1/0x7f
    - map member vlan 101 of eth1
    ~ map address 10.0.1.5 behind eth1 vlan 101 tombstone
    ~ map address fd00:1::5 behind eth1 vlan 101 tombstone
    ");
    let buried = desired(&node, &enis, &[], &BTreeSet::new());
    assert_snapshot!(plan(&after, &buried), @r"
    - map address fd00:1::5 behind eth1 vlan 101 tombstone
    - map address 10.0.1.5 behind eth1 vlan 101 tombstone
    ");
}

#[test]
fn an_eni_that_was_plugged_again_gets_its_own_table() {
    let node = node();
    let old = eni(1, EniKind::Secondary);
    let mut new = old.clone();
    new.link.index = index(9);
    let stones = BTreeSet::new();
    let before = desired(&node, &[old], &[network(pod(5))], &stones);
    let after = desired(&node, &[new], &[network(pod(5))], &stones);
    let plan = plan(&before, &after);
    let rules: Vec<&str> = plan.lines().filter(|line| line.contains("rule 512")).collect();
    assert_snapshot!(rules.join("\n"), @r"
    - rule 512: from all fwmark 0x1/0x7f lookup 1003
    - rule 512: from all iif eth1 lookup 1003 suppress_prefixlength 0
    + rule 512: from all iif eth1 lookup 1009 suppress_prefixlength 0
    + rule 512: from all fwmark 0x1/0x7f lookup 1009
    ");
}

#[test]
fn where_marks_cannot_be_used_the_rules_go_by_the_pod() {
    let node = Node { layout: RuleLayout::PerPod, stack: IpStack::V4, ..node() };
    let enis = [eni(1, EniKind::Secondary)];
    let mut pod = pod(5);
    pod.spec.addresses = IpPair::V4([10, 0, 1, 5].into());
    let plan = made(&desired(&node, &enis, &[network(pod)], &BTreeSet::new()));
    let rules: Vec<&str> = plan.lines().filter(|line| line.contains("rule")).collect();
    assert_snapshot!(rules.join("\n"), @r"
    + rule 512: from all to 10.0.1.5 lookup 1003
    + rule 512: from 10.0.1.5 lookup 1003
    + rule 513: from all iif eth1 unreachable
    ");
}

#[test]
fn a_difference_reads_as_a_sentence() {
    let enis = [eni(1, EniKind::Secondary)];
    let wanted = desired::pod_state(&node(), &enis, &network(pod(5)));
    let mut actual = wanted.clone();
    let mut other = pod(5);
    other.link.mtu = 1400;
    actual.node = desired::pod_state(&node(), &[], &network(other)).node;
    for object in actual.node.values_mut() {
        if let Object::Filter { id, .. } = object {
            *id = 99;
        }
    }
    let inside = &mut actual.pods.values_mut().next().unwrap().objects;
    inside.retain(|_, object| !matches!(object, Object::Route(_)));
    let findings: Vec<String> = diff(&actual, &wanted).iter().map(Op::finding).collect();
    assert_snapshot!(findings.join("\n"), @r"
    map endpoint cali5: 10.0.1.5 fd00:1::5 lladdr 02:00:00:00:02:05 mark 0x1/0x7f is missing
    map address 10.0.1.5 behind eth1 is missing
    map address fd00:1::5 behind eth1 is missing
    pair cali5 index 100005 lladdr 02:00:00:00:01:05 up, peer eth0 index 200005 lladdr 02:00:00:00:02:05, mtu 1400 should be pair cali5 index 100005 lladdr 02:00:00:00:01:05 up, peer eth0 index 200005 lladdr 02:00:00:00:02:05, mtu 1500
    filter cali5 ingress pref 100 from_pod runs another version of the program
    filter cali5 egress pref 100 to_pod runs another version of the program
    route 10.0.1.5/32 dev cali5 table 1003 is missing
    route fd00:1::5/128 dev cali5 table 1003 metric 1024 is missing
    in the namespace of terway/c5/eth0: route local fd00:1::5/128 dev eth0 table local metric 1024 is missing
    in the namespace of terway/c5/eth0: route 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink table main is missing
    in the namespace of terway/c5/eth0: route ::/0 via fe80::1 dev eth0 onlink table main metric 1024 is missing
    ");
}

#[test]
fn a_pod_without_the_link_of_its_eni_may_send_nothing() {
    let state = desired::pod_state(&node(), &[], &network(pod(5)));
    let sends = |object: &&Object| {
        matches!(object, Object::Endpoint { .. } | Object::Allowed { .. } | Object::Rule(_))
    };
    assert_eq!(state.node.values().filter(sends).count(), 0);
}

#[test]
fn the_number_of_rules_does_not_grow_with_the_pods() {
    let enis = [eni(1, EniKind::Trunk), eni(2, EniKind::Secondary)];
    let count = |pods: &[PodNetwork]| {
        let state = desired(&node(), &enis, pods, &BTreeSet::new());
        state.node.values().filter(|object| matches!(object, Object::Rule(_))).count()
    };
    let pods: Vec<PodNetwork> = (1..=100).map(pod).map(network).collect();
    // Three for each ENI and family.
    assert_eq!((count(&[]), count(&pods)), (12, 12));
}

/// What running `op` does to `state`.
fn apply(state: &mut State, op: &Op) {
    let objects = match &op.place {
        Place::Node => &mut state.node,
        Place::Pod(key, netns) => {
            let inside = Inside { netns: netns.clone(), objects: Objects::new() };
            &mut state.pods.entry(key.clone()).or_insert(inside).objects
        }
    };
    match &op.change {
        Change::Add(object) => {
            let before = objects.insert(object.slot(), object.clone());
            assert_eq!(before, None, "{object} is there already");
        }
        Change::Replace { from, to } => {
            assert_eq!(objects.insert(to.slot(), to.clone()).as_ref(), Some(from));
        }
        Change::Remove(object) => {
            assert_eq!(objects.remove(&object.slot()).as_ref(), Some(object));
            if let Object::Pair(pair) = object {
                // What hangs on the link goes with it, and so does the pod's end.
                state.node.retain(|_, other| other.goes_with() != Some(pair.host.index));
                state.pods.retain(|key, _| names::alias(key) != pair.alias);
            }
        }
    }
}

/// Without what nobody ever takes back.
fn passing(state: &State) -> State {
    let mut state = state.clone();
    state.node.retain(|_, object| !object.lasts());
    state
}

fn any_pod() -> impl Strategy<Value = PodNetwork> {
    (1_u8..12, 100_u32..104, 1_u8..4, any::<bool>(), any::<bool>()).prop_map(
        |(n, vlan, eni, member, foreign_filter)| {
            let mut pod = if member { member_pod(n, vlan, None) } else { pod(n) };
            pod.spec.eni = EniId::new(format!("eni-{eni}"));
            PodNetwork { pod, foreign_filter }
        },
    )
}

prop_compose! {
    fn any_state()(
        kinds in prop::collection::vec(prop::option::of(any::<bool>()), 3),
        pods in prop::collection::vec(any_pod(), 0..8),
        stones in prop::collection::btree_set((1_u8..4, 1_u8..12), 0..4),
        per_pod in any::<bool>(),
    ) -> State {
        let enis: Vec<Eni> = (1..).zip(kinds).filter_map(|(n, trunk)| {
            let kind = if trunk? { EniKind::Trunk } else { EniKind::Secondary };
            Some(eni(n, kind))
        }).collect();
        let stones = stones.into_iter().map(|(n, last)| Tombstone {
            eni: EniId::new(format!("eni-{n}")),
            address: [10, 0, n, last].into(),
            vlan: None,
        }).collect();
        let layout = if per_pod { RuleLayout::PerPod } else { RuleLayout::PerEni };
        desired(&Node { layout, ..node() }, &enis, &pods, &stones)
    }
}

#[test]
fn a_further_interface_of_a_pod_takes_no_default_route_and_answers_by_itself() {
    let mut further = pod(5);
    further.spec.ifname = "net1".parse().unwrap();
    let state = desired::pod_state(&node(), &[], &network(further));
    let inside = State { node: Objects::new(), pods: state.pods };
    assert_snapshot!(made(&inside), @r"
    pod: + sysctl net/ipv6/conf/net1/disable_ipv6 = 0
    pod: + sysctl net/ipv6/conf/net1/accept_ra = 0
    pod: + link lo up
    pod: + link net1 up
    pod: + address 10.0.1.5/32 dev net1
    pod: + address fd00:1::5/128 dev net1
    pod: + neighbour 169.254.1.1 lladdr 02:00:00:00:01:05 dev net1
    pod: + neighbour fe80::1 lladdr 02:00:00:00:01:05 dev net1
    pod: + route local fd00:1::5/128 dev net1 table local metric 1024
    pod: + route 0.0.0.0/0 via 169.254.1.1 dev net1 onlink table main metric 200005
    pod: + route ::/0 via fe80::1 dev net1 onlink table main metric 200005
    pod: + route 0.0.0.0/0 via 169.254.1.1 dev net1 onlink table 201005
    pod: + route ::/0 via fe80::1 dev net1 onlink table 201005 metric 1024
    pod: + rule 512: from 10.0.1.5 lookup 201005
    pod: + rule -6 512: from fd00:1::5 lookup 201005
    ");
}

proptest! {
    #[test]
    fn the_ops_lead_to_what_is_desired_and_then_there_is_nothing_to_do(
        from in any_state(),
        to in any_state(),
    ) {
        let mut state = from.clone();
        for op in diff(&from, &to) {
            apply(&mut state, &op);
        }
        prop_assert_eq!(passing(&state), passing(&to));
        prop_assert_eq!(diff(&state, &to), vec![]);
    }

    #[test]
    fn maps_come_before_links_and_a_link_s_filters_before_its_pod_comes_up(to in any_state()) {
        let ops = diff(&State::default(), &to);
        let at = |wanted: &dyn Fn(&Op) -> bool| ops.iter().position(wanted);
        let last = |wanted: &dyn Fn(&Op) -> bool| ops.iter().rposition(wanted);
        let map = |op: &Op| matches!(op.object(), Object::Endpoint { .. } | Object::Allowed { .. });
        let filter = |op: &Op| matches!(op.object(), Object::Filter { .. });
        let up = |op: &Op| matches!(op.object(), Object::Up(_));
        let pair = |op: &Op| matches!(op.object(), Object::Pair(_));
        for (before, after) in [(last(&map), at(&pair)), (last(&pair), at(&filter)), (last(&filter), at(&up))] {
            if let (Some(before), Some(after)) = (before, after) {
                prop_assert!(before < after);
            }
        }
    }
}
