//! Every frame that a pod must not send, one of each kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::{Mac, VlanId};
use terway_lab::fabric::{OUTSIDE_V4, OUTSIDE_V6};
use terway_lab::traffic::Frame;

const STRANGER: Mac = Mac::new([2, 0x66, 0x66, 0x66, 0x66, 0x66]);
/// 802.1Q, 802.1ad, and a number that nobody has.
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const EXPERIMENT: u16 = 0x88b5;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const IPV6_HEADER: usize = 40;

/// What a pod is on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) mac: Mac,
    /// MAC of the host's end.
    pub(crate) next_hop: Mac,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// A frame, and what its drop is counted as.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) frame: Frame,
    pub(crate) cause: &'static str,
}

fn case(what: &'static str, frame: Frame, cause: &'static str) -> Case {
    Case { what, frame, cause }
}

impl Identity {
    /// A datagram to the client outside, in the family of `source`.
    fn udp(&self, mac: Mac, source: IpAddr, text: &str) -> Frame {
        let client: IpAddr = if source.is_ipv4() { OUTSIDE_V4.into() } else { OUTSIDE_V6.into() };
        let (from, to) = (SocketAddr::new(source, 9), SocketAddr::new(client, 9));
        Frame::udp((mac, from), (self.next_hop, to), text.as_bytes())
    }

    /// What it may send.
    pub(crate) fn honest(&self, text: &str) -> Frame {
        self.udp(self.mac, self.v4.into(), text)
    }

    fn forged(&self, source: impl Into<IpAddr>) -> Frame {
        self.udp(self.mac, source.into(), "a frame with a forged source")
    }
}

/// All that `me` must not send, with what is `victim`'s, a pod's on the same ENI or trunk, and with
/// what is the `node`'s.
pub(crate) fn cases(me: &Identity, victim: &Identity, node: &[IpAddr], vlan: VlanId) -> Vec<Case> {
    let mut all = sources(me, victim);
    for address in node {
        all.push(case("the node's source", me.forged(*address), "spoofed_source"));
    }
    all.extend(macs(me));
    all.extend(arp(me, victim));
    all.extend(solicitations(me, victim));
    all.extend(advertisements(me, victim));
    all.extend(tags(me, victim, vlan));
    all.extend(others(me));
    all
}

fn sources(me: &Identity, victim: &Identity) -> Vec<Case> {
    let nobody = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
    vec![
        case("its neighbour's IPv4 source", me.forged(victim.v4), "spoofed_source"),
        case("its neighbour's IPv6 source", me.forged(victim.v6), "spoofed_source"),
        case("the client's source", me.forged(OUTSIDE_V4), "spoofed_source"),
        case("nobody's IPv6 source", me.forged(nobody), "spoofed_source"),
        case("a loopback source", me.forged(Ipv4Addr::LOCALHOST), "spoofed_source"),
    ]
}

fn macs(me: &Identity) -> Vec<Case> {
    let text = "a frame with a forged MAC";
    vec![
        case("a stranger's MAC", me.udp(STRANGER, me.v4.into(), text), "spoofed_mac"),
        case("a stranger's MAC, IPv6", me.udp(STRANGER, me.v6.into(), text), "spoofed_mac"),
        case("its gateway's MAC", me.udp(me.next_hop, me.v4.into(), text), "spoofed_mac"),
    ]
}

fn arp(me: &Identity, victim: &Identity) -> Vec<Case> {
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let ask = |from, sender, target| Frame::arp_request(from, sender, target);
    let cause = "spoofed_arp";
    vec![
        case("ARP in its neighbour's name", ask(me.mac, (me.mac, victim.v4), gateway), cause),
        case("ARP that names another MAC", ask(me.mac, (STRANGER, me.v4), gateway), cause),
        case("its neighbour's ARP announced", ask(me.mac, (me.mac, victim.v4), victim.v4), cause),
        case("ARP from another MAC", ask(STRANGER, (me.mac, me.v4), gateway), "spoofed_mac"),
        case(
            "an ARP answer in its gateway's name",
            Frame::arp_reply(me.mac, (me.mac, gateway), (me.next_hop, victim.v4)),
            cause,
        ),
        case(
            "an ARP answer in its neighbour's name",
            Frame::arp_reply(me.mac, (me.mac, victim.v4), (me.next_hop, me.v4)),
            cause,
        ),
    ]
}

fn solicitations(me: &Identity, victim: &Identity) -> Vec<Case> {
    let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let ask = |sender, target| Frame::neighbour_solicitation(me.mac, sender, target);
    vec![
        case(
            "a solicitation in its neighbour's name",
            ask((me.mac, victim.v6), gateway),
            "spoofed_source",
        ),
        case(
            "a solicitation that names another MAC",
            ask((STRANGER, me.v6), gateway),
            "spoofed_nd",
        ),
        case(
            "a probe for its neighbour's address",
            ask((me.mac, Ipv6Addr::UNSPECIFIED), victim.v6),
            "spoofed_nd",
        ),
    ]
}

fn advertisements(me: &Identity, victim: &Identity) -> Vec<Case> {
    let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, 0x66);
    let say = |source, target| {
        Frame::neighbour_advertisement(me.mac, (me.next_hop, gateway), source, target)
    };
    let as_kind = |kind, mut frame: Frame| {
        frame.payload[IPV6_HEADER] = kind;
        frame
    };
    let (honest, theirs) = (say(me.v6, (me.mac, me.v6)), say(me.v6, (me.mac, victim.v6)));
    let cause = "spoofed_nd";
    vec![
        case("an advertisement of its neighbour's address", theirs.clone(), cause),
        case("the same from its link-local address", say(own, (me.mac, victim.v6)), cause),
        case("the same behind an extension header", behind_options(theirs), cause),
        case("an advertisement that names another MAC", say(me.v6, (STRANGER, me.v6)), cause),
        case(
            "an advertisement from its neighbour's address",
            say(victim.v6, (me.mac, me.v6)),
            "spoofed_source",
        ),
        case("a router advertisement", as_kind(ROUTER_ADVERTISEMENT, honest.clone()), cause),
        case("a redirect", as_kind(REDIRECT, honest), cause),
    ]
}

/// With a hop-by-hop header of padding in front of the message.
fn behind_options(mut frame: Frame) -> Frame {
    let message = frame.payload.split_off(IPV6_HEADER);
    let next = std::mem::replace(&mut frame.payload[6], 0);
    let length = u16::try_from(message.len() + 8).unwrap();
    frame.payload[4..6].copy_from_slice(&length.to_be_bytes());
    frame.payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    frame.payload.extend(message);
    frame
}

/// The pod's own source each time: the tag alone is the lie.
fn tags(me: &Identity, victim: &Identity, vlan: VlanId) -> Vec<Case> {
    let honest = |text| me.honest(text);
    let wrapped = |mut frame: Frame, kind: u16| {
        let inner = frame.protocol.to_be_bytes();
        let tag = vlan.get().to_be_bytes().into_iter().chain(inner);
        frame.payload.splice(0..0, tag);
        frame.protocol = kind;
        frame
    };
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let arp = Frame::arp_request(me.mac, (me.mac, victim.v4), gateway);
    let double = wrapped(honest("a frame with two tags, one too many"), VLAN).tagged(vlan);
    let service = wrapped(honest("a frame with a provider's tag"), SERVICE_VLAN);
    let cause = "tagged_by_pod";
    vec![
        case("a member's tag", honest("a frame with a member's tag").tagged(vlan), cause),
        case("a member's tag and source", me.forged(victim.v4).tagged(vlan), cause),
        case("ARP with a member's tag", arp.tagged(vlan), cause),
        case("two tags", double, cause),
        case("a provider's tag", service, cause),
    ]
}

/// What is no lie, and has no business in the VPC either.
fn others(me: &Identity) -> Vec<Case> {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, 0x66);
    let mut strange = me.honest("a frame that is neither IP nor ARP");
    strange.protocol = EXPERIMENT;
    vec![
        case("a link-local source", me.forged(link_local), "pod_control"),
        case("no IPv4 source", me.forged(Ipv4Addr::UNSPECIFIED), "pod_control"),
        case("neither IP nor ARP", strange, "malformed"),
    ]
}
