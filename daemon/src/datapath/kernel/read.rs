//! From the kernel's messages to our nouns; only what is ours, or could be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use model::{IfName, LinkIndex, Mac, Mark, TableId};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::super::types::{
    Dev, Family, Hook, Hop, Object, PROTOCOL, Route, Rule, Selector, Slot, Table, Verdict,
};
use crate::bpf::Direction;

/// A link of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) dev: Dev,
    pub(crate) mac: Option<Mac>,
    /// Bytes.
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Frames can be sent by it.
    pub(crate) carries: bool,
    /// `None` for hardware.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) alias: Option<String>,
    pub(crate) group: u32,
    /// Index of a pair's other end, in its namespace.
    pub(crate) peer: Option<LinkIndex>,
}

impl Link {
    /// Whether it can be an ENI's NIC: links on top of one share its MAC. (A pair can: the NICs of
    /// the lab are pairs.)
    pub(crate) fn is_nic(&self) -> bool {
        !matches!(
            self.kind,
            Some(
                InfoKind::Vlan
                    | InfoKind::MacVlan
                    | InfoKind::MacVtap
                    | InfoKind::IpVlan
                    | InfoKind::IpVtap
                    | InfoKind::Bridge
                    | InfoKind::Bond
                    | InfoKind::Team
            )
        )
    }
}

/// Names of links, to tell a route's link by.
pub(crate) type Names = BTreeMap<LinkIndex, IfName>;

pub(crate) fn link(message: &LinkMessage) -> Option<Link> {
    let index = LinkIndex::try_from(message.header.index).ok()?;
    let mut found = Link {
        dev: Dev { index, name: "lo".parse().ok()? },
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carries: false,
        kind: None,
        alias: None,
        group: 0,
        peer: None,
    };
    let mut name = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Address(bytes) => {
                found.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
            }
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias.clone()),
            LinkAttribute::OperState(state) => found.carries = *state == State::Up,
            LinkAttribute::Group(group) => found.group = *group,
            LinkAttribute::Link(peer) => found.peer = LinkIndex::try_from(*peer).ok(),
            LinkAttribute::LinkInfo(infos) => {
                found.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    found.dev.name = name?;
    Some(found)
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    pub(crate) index: LinkIndex,
    /// With its own prefix length.
    pub(crate) address: IpNetwork,
    /// Not bound to the link, and to be used.
    pub(crate) global: bool,
}

pub(crate) fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let index = LinkIndex::try_from(message.header.index).ok()?;
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(address)?;
    let unusable = AddressFlags::Deprecated | AddressFlags::Dadfailed | AddressFlags::Tentative;
    // For IPv6, `Secondary` says that it is temporary.
    let temporary = address.is_ipv6() && flags.contains(AddressFlags::Secondary);
    let global =
        message.header.scope == AddressScope::Universe && !flags.intersects(unusable) && !temporary;
    let address = IpNetwork::new(address, message.header.prefix_len).ok()?;
    Some(LinkAddress { index, address, global })
}

/// The name of the link by which the kernel learned this route from a router advertisement.
pub(crate) fn advertised(message: &RouteMessage, names: &Names) -> Option<IfName> {
    let ra = message.header.protocol == RouteProtocol::Ra;
    ra.then(|| route_link(message, names)).flatten().map(|dev| dev.name)
}

/// A route in a table that can be ours, whoever made it; and whether we did.
pub(crate) fn route(message: &RouteMessage, names: &Names) -> Option<(Route, bool)> {
    let v6 = match message.header.address_family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let (mut table, mut metric) = (u32::from(message.header.table), 0);
    let (mut to, mut via, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let table = match table {
        255 => Table::Local,
        254 => Table::Main,
        other => Table::Link(TableId::try_from(other).ok()?),
    };
    let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
    let to = IpNetwork::new(to.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    let hop = match message.header.kind {
        RouteType::Unreachable => Hop::Unreachable,
        RouteType::Local => Hop::Local(route_link(message, names)?),
        RouteType::Unicast => {
            let dev = route_link(message, names)?;
            via.map_or_else(|| Hop::Link(dev.clone()), |via| Hop::Gateway(dev.clone(), via))
        }
        _ => return None,
    };
    let ours = message.header.protocol == RouteProtocol::from(PROTOCOL);
    Some((Route { table, to, metric, hop, source }, ours))
}

fn route_link(message: &RouteMessage, names: &Names) -> Option<Dev> {
    let index = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => LinkIndex::try_from(*index).ok(),
        _ => None,
    })?;
    Some(Dev { index, name: names.get(&index)?.clone() })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// A rule of ours. One that carries our number and is of another form is not.
pub(crate) fn rule(message: &RuleMessage) -> Option<Rule> {
    let family = match message.header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let (mut priority, mut table, mut suppress, mut protocol) = (0, None, None, None);
    let (mut iif, mut mark, mut bits, mut to, mut from) = (None, None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = TableId::try_from(*number).ok(),
            // The kernel shows "none" as -1.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(length) => suppress = Some(*length),
            RuleAttribute::Protocol(number) => protocol = Some(*number),
            RuleAttribute::Iifname(name) => iif = name.parse().ok().map(Selector::Iif),
            RuleAttribute::FwMark(number) => mark = Some(*number),
            RuleAttribute::FwMask(number) => bits = Some(*number),
            RuleAttribute::Destination(ip) => to = Some(Selector::To(*ip)),
            RuleAttribute::Source(ip) => from = Some(Selector::From(*ip)),
            _ => {}
        }
    }
    if protocol != Some(RouteProtocol::from(PROTOCOL)) {
        return None;
    }
    let mark = mark.and_then(|mark| Mark::new(mark, bits.unwrap_or(u32::MAX)).ok());
    let mut selectors = [iif, mark.map(Selector::Mark), to, from].into_iter().flatten();
    let selector = selectors.next().filter(|_| selectors.next().is_none())?;
    let verdict = match (message.header.action, table, suppress) {
        (RuleAction::ToTable, Some(table), None) => Verdict::Lookup(table),
        (RuleAction::ToTable, Some(table), Some(0)) => Verdict::LookupNoDefault(table),
        (RuleAction::Unreachable, ..) => Verdict::Unreachable,
        _ => return None,
    };
    Some(Rule { family, priority, selector, verdict })
}

/// Whose neighbour it is.
pub(crate) fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some((*v4).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}

/// The place of a neighbour, and what is there if it is permanent and ours.
pub(crate) fn neighbour(
    message: &NeighbourMessage,
    names: &Names,
) -> Option<(Slot, Option<Object>)> {
    let index = LinkIndex::try_from(message.header.ifindex).ok()?;
    let (mut mac, mut protocol) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
            }
            NeighbourAttribute::Protocol(number) => protocol = Some(*number),
            _ => {}
        }
    }
    let ours = protocol == Some(RouteProtocol::from(PROTOCOL))
        && message.header.state == NeighbourState::Permanent;
    let address = destination(message)?;
    let dev = Dev { index, name: names.get(&index)?.clone() };
    let object = mac.filter(|_| ours).map(|mac| Object::Neighbour(dev, address, mac));
    Some((Slot::Neighbour(index, address), object))
}

/// The link and the place of a filter.
pub(crate) fn filter(message: &TcMessage) -> Option<(LinkIndex, Hook)> {
    let index = LinkIndex::try_from(message.header.index.cast_unsigned()).ok()?;
    let direction = match message.header.parent {
        TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS } => Direction::Ingress,
        TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS } => Direction::Egress,
        _ => return None,
    };
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    Some((index, Hook { direction, priority }))
}
