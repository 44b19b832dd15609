//! Links, addresses, routes and neighbours of the lab's namespaces, by netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use ipnetwork::IpNetwork;
use model::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::namespace::Namespace;

/// One end of a veth pair that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    /// Chosen by the kernel if 0.
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) alias: &'a str,
}

/// A route; a host's or a prefix's or the default one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) to: IpNetwork,
    pub(crate) link: u32,
    /// On the link whether or not an address there says so.
    pub(crate) via: Option<IpAddr>,
    /// In bytes; the link's if `None`.
    pub(crate) mtu: Option<u32>,
}

/// What a link is called and numbered.
#[derive(Debug, Clone)]
pub(crate) struct LinkName {
    pub(crate) index: u32,
    pub(crate) name: String,
}

/// A netlink socket in one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: rtnetlink::Handle,
    namespace: String,
}

impl Netlink {
    pub(crate) async fn open(namespace: &Namespace) -> Result<Self> {
        let (connection, handle, _messages) =
            namespace.run(rtnetlink::new_connection).await?.context("cannot open netlink")?;
        tokio::spawn(connection);
        Ok(Self { handle, namespace: namespace.name().to_owned() })
    }

    /// Makes a veth pair; the far end is born in `far_namespace`, or here.
    pub(crate) async fn add_veth(
        &self,
        near: &End<'_>,
        far: &End<'_>,
        far_namespace: Option<&Namespace>,
    ) -> Result<()> {
        let mut peer = end(far);
        if let Some(namespace) = far_namespace {
            peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        }
        let mut message = end(near);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.send(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .await
            .with_context(|| format!("cannot add the links {} and {}", near.name, far.name))?;
        // A peer's message has no alias; only the near end can be named here.
        self.set_alias(near.name, near.alias).await
    }

    async fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        let sent = self.send(RouteNetlinkMessage::SetLink(message), 0).await;
        sent.with_context(|| format!("cannot set the alias of {name}"))
    }

    pub(crate) async fn set_up(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let sent = self.send(RouteNetlinkMessage::SetLink(message), 0).await;
        sent.with_context(|| format!("cannot set link {index} up"))
    }

    /// Succeeds if it is not there.
    pub(crate) async fn delete_link(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let sent = self.send(RouteNetlinkMessage::DelLink(message), 0).await;
        absent_is_fine(sent).with_context(|| format!("cannot delete link {index}"))
    }

    pub(crate) async fn links(&self) -> Result<Vec<LinkName>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(request).await.context("cannot list links")?;
        Ok(answers.into_iter().filter_map(link_name).collect())
    }

    /// The index of a link by its name.
    pub(crate) async fn index_of(&self, name: &str) -> Result<u32> {
        let links = self.links().await?;
        let link = links.iter().find(|link| link.name == name);
        link.map(|link| link.index).with_context(|| format!("{} has no {name}", self.namespace))
    }

    /// Without duplicate address detection.
    pub(crate) async fn add_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip());
        message.header.prefix_len = address.prefix();
        message.header.index = index;
        if address.is_ipv4() {
            message.attributes.push(AddressAttribute::Local(address.ip()));
        } else {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message.attributes.push(AddressAttribute::Address(address.ip()));
        let sent =
            self.send(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE).await;
        sent.with_context(|| format!("cannot add the address {address} to link {index}"))
    }

    pub(crate) async fn replace_route(&self, route: Route) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        let sent = self.send(message, NLM_F_CREATE | NLM_F_REPLACE).await;
        sent.with_context(|| format!("cannot add the route to {} by link {}", route.to, route.link))
    }

    /// Only the route by this link; succeeds if it is not there.
    pub(crate) async fn delete_route(&self, route: Route) -> Result<()> {
        let sent = self.send(RouteNetlinkMessage::DelRoute(route_message(route)), 0).await;
        absent_is_fine(sent).with_context(|| format!("cannot delete the route to {}", route.to))
    }

    /// Whether there is a default route of IPv6.
    pub(crate) async fn has_v6_default(&self) -> Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let answers = self.dump(RouteNetlinkMessage::GetRoute(message)).await?;
        Ok(answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => {
                route.header.destination_prefix_length == 0
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast
            }
            _ => false,
        }))
    }

    /// A permanent neighbour.
    pub(crate) async fn replace_neighbour(
        &self,
        index: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
        let sent = self
            .send(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .await;
        sent.with_context(|| format!("cannot add the neighbour {address} to link {index}"))
    }

    async fn send(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.request(message, flags | NLM_F_ACK).await.map(drop)
    }

    async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_DUMP).await
    }

    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(message)?;
        let mut list = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io().into());
                }
                NetlinkPayload::InnerMessage(inner) => list.push(inner),
                _ => {}
            }
        }
        Ok(list)
    }
}

fn end(end: &End<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index;
    message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    message.attributes.push(LinkAttribute::Address(end.mac.bytes().to_vec()));
    message.attributes.push(LinkAttribute::Mtu(end.mtu));
    message
}

fn link_name(message: RouteNetlinkMessage) -> Option<LinkName> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let name = link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })?;
    Some(LinkName { index: link.header.index, name })
}

fn route_message(route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.ip());
    message.header.destination_prefix_length = route.to.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Link;
    message.attributes.push(RouteAttribute::Oif(route.link));
    if route.to.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(route_address(route.to.network())));
    }
    if let Some(via) = route.via {
        message.header.scope = RouteScope::Universe;
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(route_address(via)));
    }
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    let absent = |error: &anyhow::Error| {
        let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let gone = [nix::libc::ENODEV, nix::libc::ENOENT, nix::libc::ESRCH];
        code.is_some_and(|code| gone.contains(&code))
    };
    match result {
        Err(error) if absent(&error) => Ok(()),
        other => other,
    }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

const fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

/// The default route's destination in the family of `address`.
pub(crate) fn everything(address: IpAddr) -> IpNetwork {
    match address {
        IpAddr::V4(_) => IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNetwork::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
    .unwrap_or_else(|_infallible| IpNetwork::from(address))
}
