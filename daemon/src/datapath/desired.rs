//! What the kernel should hold for a node, its ENIs and its pods. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use model::{EniId, IfName, IpStack, LinkIndex, Mac, TableId, host_prefix};

use super::types::{
    Dev, Family, Hop, Inside, METRIC_LAST, Object, Objects, PRIORITY_END, PRIORITY_TABLE, Pair,
    Route, Rule, Selector, State, Sysctl, Table, Verdict, objects,
};
use super::{EniKind, EniLink, EniSpec, Pod, Primary, RuleLayout, names, shared, trunk};
use crate::bpf::{self, Program};

/// The gateway that a pod sees; its neighbour entry is permanent, nobody ever asks for it.
const POD_GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];
/// What the kernel gives to an IPv6 route that asks for no metric.
const METRIC_V6: u32 = 1024;
/// Loose source validation: strict fails where a packet comes back by another way, and the kernel
/// takes the larger of this and `all`.
const LOOSE: u8 = 2;

/// The node, as read; never changed but for what is listed in [`node_objects`].
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) primary: Primary,
    pub(crate) stack: IpStack,
    pub(crate) layout: RuleLayout,
    pub(crate) mark_mask: u32,
    /// Whether the kernel has IPv6 at all.
    pub(crate) ipv6: bool,
    /// Links by which the kernel learned a route from a router advertisement.
    pub(crate) advertised: BTreeSet<IfName>,
    /// Kernel ids of the programs as loaded.
    pub(crate) programs: BTreeMap<Program, u32>,
}

impl Node {
    fn families(&self) -> impl Iterator<Item = Family> {
        let v4 = self.stack.v4().then_some(Family::V4);
        v4.into_iter().chain(self.stack.v6().then_some(Family::V6))
    }

    pub(super) fn filter(&self, link: &Dev, program: Program) -> Option<Object> {
        let id = *self.programs.get(&program)?;
        Some(Object::Filter { link: link.clone(), program, id })
    }
}

/// An ENI and its link.
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) spec: EniSpec,
    pub(crate) link: EniLink,
}

impl Eni {
    pub(super) fn dev(&self) -> Dev {
        Dev { index: self.link.index, name: self.link.name.clone() }
    }

    fn table(&self) -> TableId {
        TableId::of(self.link.index)
    }
}

/// A pod and what is known of its links.
#[derive(Debug, Clone)]
pub(crate) struct PodNetwork {
    pub(crate) pod: Pod,
    /// Somebody else's filter sits on the host's end, or is to be expected there, and may take our
    /// mark away.
    pub(crate) foreign_filter: bool,
}

/// An address whose pod is gone and whose last frames must not slip out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tombstone {
    /// The ENI whose link it was behind.
    pub(crate) eni: EniId,
    pub(crate) address: IpAddr,
    pub(crate) vlan: Option<model::VlanId>,
}

/// All of it. A pod whose ENI has no link keeps what does not depend on that.
pub(crate) fn desired(
    node: &Node,
    enis: &[Eni],
    pods: &[PodNetwork],
    tombstones: &BTreeSet<Tombstone>,
) -> State {
    let mut state = State { node: node_objects(node), ..State::default() };
    state.node.extend(objects(tombstones.iter().filter_map(|stone| tombstone(enis, stone))));
    for eni in enis {
        state.node.extend(eni_objects(node, eni));
    }
    for pod in pods {
        state.extend(&pod_state(node, enis, pod));
    }
    state
}

/// What holds for the node, whatever its ENIs and pods.
pub(crate) fn node_objects(node: &Node) -> Objects {
    let Primary { index, v4, v6, .. } = node.primary;
    let mut all = vec![Object::Node(bpf::Node { link: index, v4, v6, mark_mask: node.mark_mask })];
    if node.stack.v4() {
        all.push(Object::Sysctl(Sysctl::Ipv4Forward, 1));
    }
    if node.stack.v6() {
        // A router's own advertisements are refused by default: the node would lose its route.
        let accept = |name: &IfName| Object::Sysctl(Sysctl::AcceptRa(name.clone()), 2);
        all.extend(node.advertised.iter().map(accept));
        all.push(Object::Sysctl(Sysctl::Ipv6Forward, 1));
    }
    objects(all)
}

/// What an ENI needs, whatever its pods.
pub(crate) fn eni_objects(node: &Node, eni: &Eni) -> Objects {
    let dev = eni.dev();
    let mut all = vec![
        Object::Eni { link: dev.clone(), mac: eni.spec.mac },
        Object::LinkSysctl(Sysctl::RpFilter(dev.name.clone()), LOOSE),
        Object::Mtu(dev.clone(), eni.link.mtu),
        Object::Up(dev.clone()),
    ];
    if node.ipv6 {
        all.push(Object::LinkSysctl(Sysctl::AcceptRa(dev.name.clone()), 0));
        all.push(Object::LinkSysctl(Sysctl::Autoconf(dev.name.clone()), 0));
    }
    let programs: &[Program] = match eni.spec.kind {
        EniKind::Secondary => &shared::ENI_PROGRAMS,
        EniKind::Trunk => &trunk::ENI_PROGRAMS,
    };
    all.extend(programs.iter().filter_map(|program| node.filter(&dev, *program)));
    // Without any address `rp_filter` drops all that comes in, and ARP leaves with eth0's.
    let own = node.primary.v4.map(|v4| host_prefix(v4.into()));
    all.extend(own.map(|own| Object::Address(dev.clone(), own)));
    for gateway in eni.spec.gateway.iter() {
        all.push(Object::Neighbour(dev.clone(), gateway, Mac::GATEWAY));
    }
    for family in node.families() {
        all.extend(eni_routes(eni, family));
        all.extend(eni_rules(node.layout, eni, family));
    }
    objects(all)
}

fn eni_routes(eni: &Eni, family: Family) -> impl Iterator<Item = Object> {
    let (table, to) = (Table::Link(eni.table()), default_route(family));
    let gateway = eni.spec.gateway.iter().find(|gateway| Family::of(*gateway) == family);
    let default = gateway.map(|gateway| {
        let hop = Hop::Gateway(eni.dev(), gateway);
        Route { table, to, metric: default_metric(family), hop, source: None }
    });
    // A lost default must not lead to the next rule, and so to eth0.
    let last = Route { table, to, metric: METRIC_LAST, hop: Hop::Unreachable, source: None };
    default.into_iter().chain([last]).map(Object::Route)
}

fn eni_rules(layout: RuleLayout, eni: &Eni, family: Family) -> Vec<Object> {
    let iif = Selector::Iif(eni.link.name.clone());
    let rule =
        |priority, selector, verdict| Object::Rule(Rule { family, priority, selector, verdict });
    let end = rule(PRIORITY_END, iif.clone(), Verdict::Unreachable);
    match layout {
        RuleLayout::PerEni => vec![
            rule(PRIORITY_TABLE, iif, Verdict::LookupNoDefault(eni.table())),
            rule(PRIORITY_TABLE, Selector::Mark(eni.spec.mark), Verdict::Lookup(eni.table())),
            end,
        ],
        RuleLayout::PerPod => vec![end],
    }
}

/// What a pod needs, in the node and in its own namespace.
pub(crate) fn pod_state(node: &Node, enis: &[Eni], network: &PodNetwork) -> State {
    let PodNetwork { pod, foreign_filter } = network;
    let Pod { spec, link } = pod;
    let host = Dev { index: link.host_index, name: link.host.clone() };
    let mut all = vec![
        Object::Pair(pair(pod)),
        Object::LinkSysctl(Sysctl::RpFilter(link.host.clone()), LOOSE),
    ];
    let mut programs = vec![Program::FromPod, Program::ToPod];
    if *foreign_filter {
        programs.push(Program::SetMark);
    }
    all.extend(programs.into_iter().filter_map(|program| node.filter(&host, program)));
    for address in spec.addresses.iter() {
        all.push(Object::Neighbour(host.clone(), address, link.pod_mac));
        all.push(Object::Route(main_route(node, &host, address)));
    }
    for eni in enis {
        all.extend(pod_routes(eni, pod));
    }
    if let Some(eni) = enis.iter().find(|eni| eni.spec.id == spec.eni) {
        all.extend(behind(node.layout, eni, pod, &host));
    }
    let inside = Inside { netns: spec.netns.clone(), objects: objects(inside(pod)) };
    State { node: objects(all), pods: [(spec.key.clone(), inside)].into() }
}

/// Every pod is in every ENI's table: local delivery does not depend on the order of rules.
pub(crate) fn pod_routes(eni: &Eni, pod: &Pod) -> impl Iterator<Item = Object> {
    let host = Dev { index: pod.link.host_index, name: pod.link.host.clone() };
    let table = Table::Link(eni.table());
    pod.spec.addresses.iter().map(move |address| Object::Route(local_route(table, &host, address)))
}

/// What depends on the pod's own ENI.
fn behind(layout: RuleLayout, eni: &Eni, pod: &Pod, host: &Dev) -> Vec<Object> {
    let spec = &pod.spec;
    let endpoint =
        bpf::Endpoint { addresses: spec.addresses, mac: pod.link.pod_mac, mark: eni.spec.mark };
    let mut all = vec![Object::Endpoint { link: host.clone(), endpoint }];
    all.extend(match &spec.member {
        None => shared::behind(eni, spec.addresses),
        Some(member) => trunk::behind(eni, spec.addresses, member),
    });
    if layout == RuleLayout::PerPod {
        all.extend(spec.addresses.iter().flat_map(|address| {
            [Selector::To(address), Selector::From(address)].map(|selector| {
                let (family, verdict) = (Family::of(address), Verdict::Lookup(eni.table()));
                Object::Rule(Rule { family, priority: PRIORITY_TABLE, selector, verdict })
            })
        }));
    }
    all
}

fn pair(pod: &Pod) -> Pair {
    let Pod { spec, link } = pod;
    Pair {
        host: Dev { index: link.host_index, name: link.host.clone() },
        host_mac: link.host_mac,
        peer: peer(pod),
        peer_mac: link.pod_mac,
        mtu: link.mtu,
        up: true,
        alias: names::alias(&spec.key),
        netns: spec.netns.clone(),
    }
}

/// Fills in what could not be seen of a pair's other end.
pub(crate) fn assume_peer(pair: &mut Pair, pod: &Pod) {
    pair.peer = peer(pod);
    pair.peer_mac = pod.link.pod_mac;
    pair.netns.clone_from(&pod.spec.netns);
}

fn peer(pod: &Pod) -> Dev {
    Dev { index: pod.link.pod_index, name: pod.spec.ifname.clone() }
}

fn main_route(node: &Node, host: &Dev, address: IpAddr) -> Route {
    // Without it the kernel chooses some ENI's address for what the node sends to the pod.
    let source = match Family::of(address) {
        Family::V4 => node.primary.v4.map(IpAddr::V4),
        Family::V6 => node.primary.v6.map(IpAddr::V6),
    };
    Route { source, ..local_route(Table::Main, host, address) }
}

fn local_route(table: Table, host: &Dev, address: IpAddr) -> Route {
    let metric = default_metric(Family::of(address));
    Route { table, to: host_prefix(address), metric, hop: Hop::Link(host.clone()), source: None }
}

/// The pod's own namespace.
fn inside(pod: &Pod) -> Vec<Object> {
    let Pod { spec, link } = pod;
    let (loopback, eth0) = (loopback(), peer(pod));
    let mut all = vec![Object::Up(loopback), Object::Up(eth0.clone())];
    if spec.addresses.v6().is_some() {
        let off = pod_sysctls(&eth0.name).map(|sysctl| Object::LinkSysctl(sysctl, 0));
        all.extend(off);
    }
    for address in spec.addresses.iter() {
        let family = Family::of(address);
        let via = match family {
            Family::V4 => POD_GATEWAY[0],
            Family::V6 => POD_GATEWAY[1],
        };
        all.push(Object::Address(eth0.clone(), host_prefix(address)));
        all.push(Object::Neighbour(eth0.clone(), via, link.host_mac));
        if family == Family::V6 {
            // The kernel's own comes later, when a work of its own gets to it (`addrconf_dad_work`);
            // until then the pod would not know its address.
            let (to, metric) = (host_prefix(address), METRIC_V6);
            let hop = Hop::Local(eth0.clone());
            all.push(Object::Route(Route { table: Table::Local, to, metric, hop, source: None }));
        }
        let default = Route {
            table: Table::Main,
            to: default_route(family),
            metric: default_metric(family),
            hop: Hop::Gateway(eth0.clone(), via),
            source: None,
        };
        if spec.is_first() {
            all.push(Object::Route(default));
        } else {
            all.extend(further(link.pod_index, address, default));
        }
    }
    all
}

/// A further interface of a pod. What has its address leaves by it, for the other's anti-spoof
/// would drop that; in main it comes behind every other default route, and takes no one's place.
fn further(link: LinkIndex, own: IpAddr, default: Route) -> [Object; 3] {
    let table = TableId::of(link);
    let rule = Rule {
        family: Family::of(own),
        priority: PRIORITY_TABLE,
        selector: Selector::From(own),
        verdict: Verdict::Lookup(table),
    };
    let last = Route { metric: link.get(), ..default.clone() };
    let by_source = Route { table: Table::Link(table), ..default };
    [Object::Route(by_source), Object::Route(last), Object::Rule(rule)]
}

/// What is off on a pod's link, if it has IPv6: a runtime may have turned IPv6 itself off in a
/// namespace that it made, and nobody is to advertise routes to a pod.
pub(crate) fn pod_sysctls(link: &IfName) -> [Sysctl; 2] {
    [Sysctl::DisableIpv6(link.clone()), Sysctl::AcceptRa(link.clone())]
}

/// The entry that keeps the last frames of a pod that is gone from leaving.
pub(crate) fn tombstone(enis: &[Eni], stone: &Tombstone) -> Option<Object> {
    let eni = enis.iter().find(|eni| eni.spec.id == stone.eni)?;
    let entry = bpf::Address { vlan: stone.vlan, tombstone: true };
    Some(Object::Allowed { link: eni.dev(), address: stone.address, entry })
}

/// The tombstones that a pod leaves behind.
pub(crate) fn tombstones(pod: &Pod) -> impl Iterator<Item = Tombstone> {
    let vlan = pod.spec.member.as_ref().map(|member| member.vlan);
    let eni = &pod.spec.eni;
    pod.spec.addresses.iter().map(move |address| Tombstone { eni: eni.clone(), address, vlan })
}

fn loopback() -> Dev {
    let index = LinkIndex::try_from(1).expect("1 is not 0");
    Dev { index, name: "lo".parse().expect("lo is a name") }
}

fn default_route(family: Family) -> IpNetwork {
    let unspecified: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNetwork::new(unspecified, 0).expect("0 is a prefix length")
}

const fn default_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => METRIC_V6,
    }
}
