//! From an op to the messages that run it. No netlink type leaves `kernel`.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnetwork::IpNetwork;
use model::{IfName, LinkIndex, Mac};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::tc::{TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::super::types::{
    Change, Dev, Family, Hook, Hop, Object, PROTOCOL, Pair, Route, Rule, Selector, Verdict,
};
use super::socket::Request;
use crate::bpf::Direction;

const SET: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The request that runs this change; `None` if it is not one for a plain netlink request.
pub(super) fn request(change: &Change) -> Option<Request> {
    match change {
        Change::Add(object) | Change::Replace { to: object, .. } => set(object),
        Change::Remove(object) => remove(object),
    }
}

fn set(object: &Object) -> Option<Request> {
    Some(match object {
        Object::Mtu(dev, mtu) => set_link(dev.index, vec![LinkAttribute::Mtu(*mtu)]),
        Object::Up(dev) => Request::new(Message::SetLink(up(dev.index, true)), 0),
        Object::Address(dev, at) => Request::new(Message::NewAddress(address(dev, *at)), SET),
        Object::Neighbour(dev, at, mac) => {
            Request::new(Message::NewNeighbour(neighbour(dev, *at, Some(*mac))), SET)
        }
        Object::Route(way) => Request::new(Message::NewRoute(route(way)), SET),
        Object::Rule(wanted) => {
            Request::new(Message::NewRule(rule(wanted)), NLM_F_CREATE | NLM_F_EXCL)
        }
        _ => return None,
    })
}

fn remove(object: &Object) -> Option<Request> {
    Some(match object {
        Object::Up(dev) => Request::new(Message::SetLink(up(dev.index, false)), 0),
        Object::Address(dev, at) => Request::new(Message::DelAddress(address(dev, *at)), 0),
        Object::Neighbour(dev, at, _) => {
            Request::new(Message::DelNeighbour(neighbour(dev, *at, None)), 0)
        }
        Object::Route(way) => {
            let mut message = route(way);
            // Whatever its scope is.
            message.header.scope = RouteScope::NoWhere;
            Request::new(Message::DelRoute(message), 0)
        }
        Object::Rule(old) => Request::new(Message::DelRule(rule(old)), 0),
        Object::Filter { link, program, .. } => {
            Request::new(Message::DelTrafficFilter(filter(link.index, Hook::of(*program))), 0)
        }
        _ => return None,
    })
}

/// A pair whose peer is born in the namespace behind `netns`. A peer cannot be born up.
pub(super) fn pair(pair: &Pair, netns: RawFd) -> Request {
    let mut peer = LinkMessage::default();
    peer.header.index = pair.peer.index.get();
    peer.attributes = vec![
        LinkAttribute::IfName(pair.peer.name.to_string()),
        LinkAttribute::Address(pair.peer_mac.bytes().to_vec()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::NetNsFd(netns),
    ];
    let mut host = up(pair.host.index, true);
    host.attributes = vec![
        LinkAttribute::IfName(pair.host.name.to_string()),
        LinkAttribute::Address(pair.host_mac.bytes().to_vec()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request::new(Message::NewLink(host), NLM_F_CREATE | NLM_F_EXCL)
}

/// Sets attributes of a link that stands.
pub(super) fn set_link(index: LinkIndex, attributes: Vec<LinkAttribute>) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index.get();
    message.attributes = attributes;
    Request::new(Message::SetLink(message), 0)
}

/// The host's end as it should be, if it has this name and MAC now. A MAC that is set flushes the
/// link's neighbours, even if it is the same.
pub(super) fn mend_host(pair: &Pair, name: &IfName, mac: Option<Mac>) -> Request {
    let mut message = up(pair.host.index, true);
    message.attributes = vec![
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::IfAlias(pair.alias.clone()),
        LinkAttribute::Group(0),
    ];
    if mac != Some(pair.host_mac) {
        message.attributes.push(LinkAttribute::Address(pair.host_mac.bytes().to_vec()));
    }
    if *name != pair.host.name {
        message.attributes.push(LinkAttribute::IfName(pair.host.name.to_string()));
    }
    Request::new(Message::SetLink(message), 0)
}

/// The pod's end as it should be, if it has this MAC now.
pub(super) fn mend_peer(pair: &Pair, mac: Mac) -> Request {
    let mut attributes = vec![LinkAttribute::Mtu(pair.mtu)];
    if mac != pair.peer_mac {
        attributes.push(LinkAttribute::Address(pair.peer_mac.bytes().to_vec()));
    }
    set_link(pair.peer.index, attributes)
}

fn up(index: LinkIndex, wanted: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.get();
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if wanted { LinkFlags::Up } else { LinkFlags::empty() };
    message
}

fn address(dev: &Dev, network: IpNetwork) -> AddressMessage {
    let at = network.ip();
    let mut message = AddressMessage::default();
    message.header.family = family(Family::of(at));
    message.header.prefix_len = network.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = dev.index.get();
    // Duplicate address detection costs seconds, and the cloud has given the address to nobody else.
    let flags = match at {
        IpAddr::V4(_) => AddressFlags::Noprefixroute,
        IpAddr::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
    };
    message.attributes = vec![
        AddressAttribute::Local(at),
        AddressAttribute::Address(at),
        AddressAttribute::Flags(flags),
    ];
    message
}

fn neighbour(dev: &Dev, at: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(Family::of(at));
    message.header.ifindex = dev.index.get();
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![NeighbourAttribute::Destination(at.into())];
    if let Some(mac) = mac {
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    }
    message
}

fn route(way: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(Family::of(way.to.ip()));
    message.header.destination_prefix_length = way.to.prefix();
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    let (kind, scope) = match &way.hop {
        Hop::Link(_) => (RouteType::Unicast, RouteScope::Link),
        Hop::Gateway(..) => (RouteType::Unicast, RouteScope::Universe),
        Hop::Local(_) => (RouteType::Local, RouteScope::Host),
        Hop::Unreachable => (RouteType::Unreachable, RouteScope::Universe),
    };
    (message.header.kind, message.header.scope) = (kind, scope);
    message.attributes = vec![RouteAttribute::Table(way.table.get())];
    if let Some(to) = destination(way.to) {
        message.attributes.push(RouteAttribute::Destination(to.into()));
    }
    match &way.hop {
        Hop::Unreachable => {}
        Hop::Link(dev) | Hop::Local(dev) => {
            message.attributes.push(RouteAttribute::Oif(dev.index.get()));
        }
        Hop::Gateway(dev, via) => {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Oif(dev.index.get()));
            message.attributes.push(RouteAttribute::Gateway((*via).into()));
        }
    }
    if way.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(way.metric));
    }
    if let Some(source) = way.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message
}

fn destination(to: IpNetwork) -> Option<IpAddr> {
    (to.prefix() > 0).then(|| to.ip())
}

fn rule(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.family);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
    ];
    match &rule.selector {
        Selector::Iif(link) => message.attributes.push(RuleAttribute::Iifname(link.to_string())),
        Selector::Mark(mark) => {
            message.attributes.push(RuleAttribute::FwMark(mark.value()));
            message.attributes.push(RuleAttribute::FwMask(mark.mask()));
        }
        Selector::To(address) => {
            message.header.dst_len = IpNetwork::from(*address).prefix();
            message.attributes.push(RuleAttribute::Destination(*address));
        }
        Selector::From(address) => {
            message.header.src_len = IpNetwork::from(*address).prefix();
            message.attributes.push(RuleAttribute::Source(*address));
        }
    }
    message.header.action = match rule.verdict {
        Verdict::Unreachable => RuleAction::Unreachable,
        Verdict::Lookup(table) => {
            message.attributes.push(RuleAttribute::Table(table.get()));
            RuleAction::ToTable
        }
        Verdict::LookupNoDefault(table) => {
            message.attributes.push(RuleAttribute::Table(table.get()));
            message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
            RuleAction::ToTable
        }
    };
    message
}

/// What is at this place of the link.
fn filter(link: LinkIndex, hook: Hook) -> TcMessage {
    /// `ETH_P_ALL`.
    const ALL_PROTOCOLS: u16 = 3;
    let minor = match hook.direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    let mut message = TcMessage::with_index(link.get().cast_signed());
    message.header.parent = TcHandle { major: u16::MAX, minor };
    message.header.handle = TcHandle::from(1);
    message.header.info = u32::from(hook.priority) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message
}

pub(super) const fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
