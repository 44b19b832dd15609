//! The nouns: objects of the kernel, the state that they make up, and the ops between two states.
//!
//! An [`Object`] prints itself in the words of `ip`, so that a plan, a finding of CHECK and an
//! error all read the same.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use model::{IfName, LinkIndex, Mac, Mark, SandboxKey, TableId, VlanId};

use crate::bpf::{self, Direction, MemberMacs, Program};

/// Protocol number of our routes, rules and neighbours: we read back and remove only these.
pub(crate) const PROTOCOL: u8 = 0x7a;
/// Priority of the rules that choose an ENI's table, in both directions.
pub(crate) const PRIORITY_TABLE: u32 = 512;
/// Priority of the rule that ends what came in by an ENI and found no pod.
pub(crate) const PRIORITY_END: u32 = 513;
/// Metric of the last route in an ENI's table.
pub(crate) const METRIC_LAST: u32 = 4_278_198_272;

/// A link, by both of its names: a rule binds to the one, a route to the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dev {
    pub(crate) index: LinkIndex,
    pub(crate) name: IfName,
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// A switch under `/proc/sys/net`. The order is that of setting: what a link does with router
/// advertisements comes before forwarding, which would remove the node's default route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sysctl {
    DisableIpv6(IfName),
    AcceptRa(IfName),
    Autoconf(IfName),
    RpFilter(IfName),
    Ipv4Forward,
    Ipv6Forward,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisableIpv6(link) => write!(f, "net/ipv6/conf/{link}/disable_ipv6"),
            Self::AcceptRa(link) => write!(f, "net/ipv6/conf/{link}/accept_ra"),
            Self::Autoconf(link) => write!(f, "net/ipv6/conf/{link}/autoconf"),
            Self::RpFilter(link) => write!(f, "net/ipv4/conf/{link}/rp_filter"),
            Self::Ipv4Forward => f.write_str("net/ipv4/ip_forward"),
            Self::Ipv6Forward => f.write_str("net/ipv6/conf/all/forwarding"),
        }
    }
}

/// Where a program sits on a link; its handle there is always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hook {
    pub(crate) direction: Direction,
    pub(crate) priority: u16,
}

impl Hook {
    /// The place that the mission gives to `program`.
    pub(crate) const fn of(program: Program) -> Self {
        let point = program.attach_point();
        Self { direction: point.direction, priority: point.priority }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pref {}", self.direction.name(), self.priority)
    }
}

/// The pod's pair of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) host: Dev,
    pub(crate) host_mac: Mac,
    pub(crate) peer: Dev,
    pub(crate) peer_mac: Mac,
    pub(crate) mtu: u32,
    /// Of the host's end; the pod's end has its own [`Object::Up`].
    pub(crate) up: bool,
    /// Says that it is ours, and whose.
    pub(crate) alias: String,
    /// Where the peer is born.
    pub(crate) netns: PathBuf,
}

/// A route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Local,
    Main,
    /// That of a link: an ENI's, or a pod's further one.
    Link(TableId),
}

impl Table {
    pub(crate) const fn get(self) -> u32 {
        match self {
            Self::Local => 255,
            Self::Main => 254,
            Self::Link(table) => table.get(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Main => f.write_str("main"),
            Self::Link(table) => table.fmt(f),
        }
    }
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hop {
    Link(Dev),
    /// On the link, whatever the link's own addresses say.
    Gateway(Dev, IpAddr),
    /// Here, as it comes in by the link.
    Local(Dev),
    Unreachable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: Table,
    pub(crate) to: IpNetwork,
    pub(crate) metric: u32,
    pub(crate) hop: Hop,
    /// The node's own address on what it sends there itself.
    pub(crate) source: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = &self.to;
        match &self.hop {
            Hop::Link(dev) => write!(f, "route {to} dev {dev}")?,
            Hop::Gateway(dev, via) => write!(f, "route {to} via {via} dev {dev} onlink")?,
            Hop::Local(dev) => write!(f, "route local {to} dev {dev}")?,
            Hop::Unreachable => write!(f, "route unreachable {to}")?,
        }
        write!(f, " table {}", self.table)?;
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        self.source.map_or(Ok(()), |source| write!(f, " src {source}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selector {
    Iif(IfName),
    Mark(Mark),
    To(IpAddr),
    From(IpAddr),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Lookup(TableId),
    /// As [`Lookup`](Self::Lookup), but never by the default route.
    LookupNoDefault(TableId),
    Unreachable,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) family: Family,
    pub(crate) priority: u32,
    pub(crate) selector: Selector,
    pub(crate) verdict: Verdict,
}

impl Rule {
    /// As `ip rule` prints it, without the priority.
    pub(crate) fn text(&self) -> String {
        let selector = match &self.selector {
            Selector::Iif(link) => format!("from all iif {link}"),
            Selector::Mark(mark) => format!("from all fwmark {mark}"),
            Selector::To(address) => format!("from all to {address}"),
            Selector::From(address) => format!("from {address}"),
        };
        match self.verdict {
            Verdict::Lookup(table) => format!("{selector} lookup {table}"),
            Verdict::LookupNoDefault(table) => {
                format!("{selector} lookup {table} suppress_prefixlength 0")
            }
            Verdict::Unreachable => format!("{selector} unreachable"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V6 { " -6" } else { "" };
        write!(f, "rule{family} {}: {}", self.priority, self.text())
    }
}

/// One thing that the kernel should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    /// A switch of the whole namespace.
    Sysctl(Sysctl, u8),
    /// What the programs know of the node.
    Node(bpf::Node),
    /// The MAC with which an ENI answers who asks for its addresses.
    Eni {
        link: Dev,
        mac: Mac,
    },
    /// A member of a trunk.
    Member {
        trunk: Dev,
        vlan: VlanId,
        macs: Option<MemberMacs>,
    },
    /// What a pod may send.
    Endpoint {
        link: Dev,
        endpoint: bpf::Endpoint,
    },
    /// What may leave by an ENI.
    Allowed {
        link: Dev,
        address: IpAddr,
        entry: bpf::Address,
    },
    /// The pod's links.
    Pair(Pair),
    /// A switch of a link that is made here.
    LinkSysctl(Sysctl, u8),
    /// One of our programs, by its kernel id.
    Filter {
        link: Dev,
        program: Program,
        id: u32,
    },
    /// Bytes, of a link that is not made here.
    Mtu(Dev, u32),
    /// The link is up.
    Up(Dev),
    Address(Dev, IpNetwork),
    /// A permanent neighbour.
    Neighbour(Dev, IpAddr, Mac),
    Route(Route),
    Rule(Rule),
}

/// The place that an object takes: what is there is replaced. The order is that of making; what is
/// removed goes in reverse. So map entries come before links, filters before links come up, routes
/// before the rules that lead to them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Sysctl(Sysctl),
    Node,
    Eni(LinkIndex),
    Member(LinkIndex, VlanId),
    Endpoint(LinkIndex),
    Allowed(LinkIndex, IpAddr),
    Pair(LinkIndex),
    LinkSysctl(Sysctl),
    Filter(LinkIndex, Hook),
    Mtu(LinkIndex),
    Up(LinkIndex),
    Address(LinkIndex, IpNetwork),
    Neighbour(LinkIndex, IpAddr),
    Route(Table, IpNetwork, u32),
    Rule(Rule),
}

impl Object {
    pub(crate) fn slot(&self) -> Slot {
        match self {
            Self::Sysctl(sysctl, _) => Slot::Sysctl(sysctl.clone()),
            Self::Node(_) => Slot::Node,
            Self::Eni { link, .. } => Slot::Eni(link.index),
            Self::Member { trunk, vlan, .. } => Slot::Member(trunk.index, *vlan),
            Self::Endpoint { link, .. } => Slot::Endpoint(link.index),
            Self::Allowed { link, address, .. } => Slot::Allowed(link.index, *address),
            Self::Pair(pair) => Slot::Pair(pair.host.index),
            Self::LinkSysctl(sysctl, _) => Slot::LinkSysctl(sysctl.clone()),
            Self::Filter { link, program, .. } => Slot::Filter(link.index, Hook::of(*program)),
            Self::Mtu(dev, _) => Slot::Mtu(dev.index),
            Self::Up(dev) => Slot::Up(dev.index),
            Self::Address(dev, address) => Slot::Address(dev.index, *address),
            Self::Neighbour(dev, address, _) => Slot::Neighbour(dev.index, *address),
            Self::Route(route) => Slot::Route(route.table, route.to, route.metric),
            Self::Rule(rule) => Slot::Rule(rule.clone()),
        }
    }

    /// Whether it stays when nobody wants it any more: switches of the node are not ours to turn
    /// back, nor is an ENI's MTU, and its filters are never detached, or frames leave it untagged.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Self::Sysctl(..) | Self::LinkSysctl(..) | Self::Node(_) | Self::Mtu(..) => true,
            Self::Filter { program, .. } => *program != Program::SetMark,
            _ => false,
        }
    }

    /// The link with which it goes.
    pub(crate) fn goes_with(&self) -> Option<LinkIndex> {
        match self {
            Self::Filter { link, .. } => Some(link.index),
            Self::Neighbour(dev, ..) => Some(dev.index),
            _ => None,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(sysctl, value) | Self::LinkSysctl(sysctl, value) => {
                write!(f, "sysctl {sysctl} = {value}")
            }
            Self::Node(bpf::Node { link, v4, v6, mark_mask }) => {
                write!(f, "map node link {link}")?;
                v4.map_or(Ok(()), |v4| write!(f, " {v4}"))?;
                v6.map_or(Ok(()), |v6| write!(f, " {v6}"))?;
                write!(f, " mask {mark_mask:#x}")
            }
            Self::Eni { link, mac } => write!(f, "map eni {link} lladdr {mac}"),
            Self::Member { trunk, vlan, macs } => {
                write!(f, "map member vlan {vlan} of {trunk}")?;
                match macs {
                    None => Ok(()),
                    Some(macs) => write!(f, " lladdr {} via {}", macs.member, macs.gateway),
                }
            }
            Self::Endpoint { link, endpoint } => {
                let bpf::Endpoint { addresses, mac, mark } = endpoint;
                write!(f, "map endpoint {link}: {addresses} lladdr {mac} mark {mark}")
            }
            Self::Allowed { link, address, entry } => {
                write!(f, "map address {address} behind {link}")?;
                entry.vlan.map_or(Ok(()), |vlan| write!(f, " vlan {vlan}"))?;
                if entry.tombstone { f.write_str(" tombstone") } else { Ok(()) }
            }
            Self::Pair(pair) => pair.fmt(f),
            Self::Filter { link, program, .. } => {
                write!(f, "filter {link} {} {}", Hook::of(*program), program.name())
            }
            Self::Mtu(dev, mtu) => write!(f, "link {dev} mtu {mtu}"),
            Self::Up(dev) => write!(f, "link {dev} up"),
            Self::Address(dev, address) => write!(f, "address {address} dev {dev}"),
            Self::Neighbour(dev, address, mac) => {
                write!(f, "neighbour {address} lladdr {mac} dev {dev}")
            }
            Self::Route(route) => route.fmt(f),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, host_mac, peer, peer_mac, mtu, up, .. } = self;
        let state = if *up { "up" } else { "down" };
        write!(f, "pair {host} index {} lladdr {host_mac} {state}, ", host.index)?;
        write!(f, "peer {peer} index {} lladdr {peer_mac}, mtu {mtu}", peer.index)
    }
}

/// The objects of one namespace.
pub(crate) type Objects = BTreeMap<Slot, Object>;

/// Collects objects; the last one takes the slot.
pub(crate) fn objects(all: impl IntoIterator<Item = Object>) -> Objects {
    all.into_iter().map(|object| (object.slot(), object)).collect()
}

/// A pod's namespace, seen from inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) netns: PathBuf,
    pub(crate) objects: Objects,
}

/// All that is ours, or should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) node: Objects,
    pub(crate) pods: BTreeMap<SandboxKey, Inside>,
}

impl State {
    /// Adds all of `other`, which wins.
    pub(crate) fn extend(&mut self, other: &Self) {
        let node = other.node.iter();
        self.node.extend(node.map(|(slot, object)| (slot.clone(), object.clone())));
        self.pods.extend(other.pods.iter().map(|(key, inside)| (key.clone(), inside.clone())));
    }

    /// Only what has a slot in `scope`.
    pub(crate) fn within(mut self, scope: &Self) -> Self {
        self.node.retain(|slot, _| scope.node.contains_key(slot));
        self.pods.retain(|key, inside| {
            let scope = scope.pods.get(key);
            inside.objects.retain(|slot, _| scope.is_some_and(|s| s.objects.contains_key(slot)));
            scope.is_some()
        });
        self
    }
}

/// In which namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Node,
    Pod(SandboxKey, PathBuf),
}

/// One step from a state to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) place: Place,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Object),
    Replace { from: Object, to: Object },
    Remove(Object),
}

impl Op {
    pub(crate) const fn new(place: Place, change: Change) -> Self {
        Self { place, change }
    }

    /// The object in question.
    pub(crate) const fn object(&self) -> &Object {
        match &self.change {
            Change::Add(object) | Change::Replace { to: object, .. } | Change::Remove(object) => {
                object
            }
        }
    }

    /// Why this op is needed, as a sentence.
    pub(crate) fn finding(&self) -> String {
        let place = match &self.place {
            Place::Node => String::new(),
            Place::Pod(key, _) => format!("in the namespace of {key}: "),
        };
        match &self.change {
            Change::Add(object) => format!("{place}{object} is missing"),
            Change::Replace { from: Object::Filter { .. }, to } => {
                format!("{place}{to} runs another version of the program")
            }
            Change::Replace { from, to } => format!("{place}{from} should be {to}"),
            Change::Remove(object) => format!("{place}{object} should not be there"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::Node => "",
            Place::Pod(..) => "pod: ",
        };
        match &self.change {
            Change::Add(object) => write!(f, "{place}+ {object}"),
            Change::Replace { to, .. } => write!(f, "{place}~ {to}"),
            Change::Remove(object) => write!(f, "{place}- {object}"),
        }
    }
}
