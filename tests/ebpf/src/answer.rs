//! ARP and neighbour discovery: the gateway's answers, written into the question.

use aya_ebpf::bindings::BPF_F_RECOMPUTE_CSUM;
use aya_ebpf::programs::TcContext;
use terway_lab_ebpf_common::{DropCause, FIRST_ENI, GATEWAY_LINK_LOCAL, GATEWAY_MAC, Port};

use crate::admit::{Verdict, is_link_local, owned_by};
use crate::frame::{ETHERNET, Frame, ICMPV6, same_address, same_mac};
use crate::maps;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet, IPv4, lengths 6 and 4.
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// The 28 bytes of ARP for IPv4 over Ethernet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    kind: [u8; 6],
    operation: [u8; 2],
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

#[inline(never)]
pub(crate) fn arp(ctx: &TcContext, frame: &Frame, port: &Port) -> Verdict {
    let Ok(packet) = ctx.load::<Arp>(ETHERNET) else {
        return Verdict::Drop(DropCause::Malformed);
    };
    let to_us = same_mac(&frame.last.destination_mac, &GATEWAY_MAC);
    if !same_mac(&packet.kind, &ARP_KIND) {
        return Verdict::Drop(DropCause::Malformed);
    }
    if !to_us && !same_mac(&frame.last.destination_mac, &BROADCAST) {
        return Verdict::Drop(DropCause::DestinationMac);
    }
    if !same_mac(&packet.sender_mac, &port.mac) {
        return Verdict::Drop(DropCause::ArpSender);
    }
    let (sender, target) = (u32::from_be_bytes(packet.sender), u32::from_be_bytes(packet.target));
    if sender == 0 {
        // Duplicate address detection (RFC 5227).
        return Verdict::Control;
    }
    if !owned_by(frame.source(), port.eni) {
        return Verdict::Drop(DropCause::ArpSender);
    }
    match u16::from_be_bytes(packet.operation) {
        REQUEST if sender == target => Verdict::Control,
        REQUEST if target == u32::from_be_bytes(port.gateway_v4) || answers(frame, port) => {
            arp_reply(ctx, &packet)
        }
        REQUEST => Verdict::Unanswered,
        REPLY if port.flags & Port::ASK != 0 => Verdict::Admit,
        REPLY => Verdict::Control,
        _ => Verdict::Drop(DropCause::Malformed),
    }
}

#[inline(always)]
fn arp_reply(ctx: &TcContext, request: &Arp) -> Verdict {
    let reply = Arp {
        kind: request.kind,
        operation: REPLY.to_be_bytes(),
        sender_mac: GATEWAY_MAC,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    let written = ctx.store(0, &request.sender_mac, 0).is_ok()
        && ctx.store(6, &GATEWAY_MAC, 0).is_ok()
        && ctx.store(ETHERNET, &reply, 0).is_ok();
    if written { Verdict::Answer } else { Verdict::Drop(DropCause::Malformed) }
}

/// Whether the vSwitch of `port` answers for the target, which another ENI in it has.
#[inline(always)]
fn answers(frame: &Frame, port: &Port) -> bool {
    port.flags & Port::ANSWER_VSWITCH != 0 && is_neighbour(frame.destination(), port)
}

#[inline(always)]
fn is_neighbour(address: &[u8; 16], port: &Port) -> bool {
    matches!(
        maps::owner(address),
        Some(owner)
            if owner.vswitch == port.vswitch && owner.eni != port.eni && owner.eni >= FIRST_ENI
    )
}

const IPV6_HEADER: usize = 40;
const ICMP: usize = ETHERNET + IPV6_HEADER;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// A solicitation or an advertisement without its option.
#[repr(C)]
#[derive(Clone, Copy)]
struct Neighbour {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    flags: [u8; 4],
    target: [u8; 16],
}

/// The one option that matters: a MAC.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkLayer {
    kind: u8,
    /// In 8 bytes.
    length: u8,
    mac: [u8; 6],
}

/// `None` if it is another kind of ICMPv6.
#[inline(never)]
pub(crate) fn neighbour_discovery(ctx: &TcContext, frame: &Frame, port: &Port) -> Option<Verdict> {
    let Ok(kind) = ctx.load::<u8>(ICMP) else { return Some(Verdict::Drop(DropCause::Malformed)) };
    if !(ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
        return None;
    }
    if kind == ROUTER_SOLICITATION {
        return Some(Verdict::Control);
    }
    if kind != NEIGHBOUR_SOLICITATION && kind != NEIGHBOUR_ADVERTISEMENT {
        // An instance is no router.
        return Some(Verdict::Drop(DropCause::NdSender));
    }
    let Ok(packet) = ctx.load::<Neighbour>(ICMP) else {
        return Some(Verdict::Drop(DropCause::Malformed));
    };
    if frame.hop_limit != 255 || packet.code != 0 {
        return Some(Verdict::Drop(DropCause::Malformed));
    }
    let option = ctx.load::<LinkLayer>(ICMP + size_of::<Neighbour>()).ok();
    Some(if kind == NEIGHBOUR_SOLICITATION {
        solicitation(ctx, frame, port, &packet, option.as_ref())
    } else {
        advertisement(frame, port, &packet, option.as_ref())
    })
}

#[inline(always)]
fn solicitation(
    ctx: &TcContext,
    frame: &Frame,
    port: &Port,
    packet: &Neighbour,
    option: Option<&LinkLayer>,
) -> Verdict {
    if u128::from_ne_bytes(*frame.source()) == 0 {
        // Duplicate address detection.
        return Verdict::Control;
    }
    if !is_link_local(frame.source()) && !owned_by(frame.source(), port.eni) {
        return Verdict::Drop(DropCause::NdSender);
    }
    if !is_own(option, SOURCE_LINK_LAYER, port) {
        return Verdict::Drop(DropCause::NdSender);
    }
    let gateway =
        u128::from_ne_bytes(port.gateway_v6) != 0 && same_address(&packet.target, &port.gateway_v6);
    let router = gateway || same_address(&packet.target, &GATEWAY_LINK_LOCAL);
    let neighbour = port.flags & Port::ANSWER_VSWITCH != 0 && is_neighbour(&packet.target, port);
    if !router && !neighbour {
        return Verdict::Unanswered;
    }
    advertise(ctx, frame, packet, option.is_some(), router)
}

/// What an ENI says of itself: only of its own addresses.
#[inline(always)]
fn advertisement(
    frame: &Frame,
    port: &Port,
    packet: &Neighbour,
    option: Option<&LinkLayer>,
) -> Verdict {
    let known = |address: &[u8; 16]| is_link_local(address) || owned_by(address, port.eni);
    if !known(&packet.target) || !known(frame.source()) || !is_own(option, TARGET_LINK_LAYER, port)
    {
        return Verdict::Drop(DropCause::NdSender);
    }
    if port.flags & Port::ASK != 0 { Verdict::Admit } else { Verdict::Control }
}

/// No option is no lie.
#[inline(always)]
fn is_own(option: Option<&LinkLayer>, kind: u8, port: &Port) -> bool {
    match option {
        Some(option) => {
            option.kind == kind && option.length == 1 && same_mac(&option.mac, &port.mac)
        }
        None => true,
    }
}

/// Turns the solicitation into the gateway's advertisement.
#[inline(always)]
fn advertise(
    ctx: &TcContext,
    frame: &Frame,
    packet: &Neighbour,
    with_option: bool,
    router: bool,
) -> Verdict {
    // Router, solicited, override (RFC 4861, section 4.4).
    let flags = if router { 0xe0 } else { 0x60 };
    let mut answer = Neighbour {
        kind: NEIGHBOUR_ADVERTISEMENT,
        code: 0,
        checksum: [0; 2],
        flags: [flags, 0, 0, 0],
        target: packet.target,
    };
    let option = LinkLayer { kind: TARGET_LINK_LAYER, length: 1, mac: GATEWAY_MAC };
    // The answer comes from what was asked for and goes to who asked.
    let mut sum = sum_address(&packet.target) + sum_address(frame.source());
    let length: u32 = if with_option { 32 } else { 24 };
    sum += length + ICMPV6 as u32;
    sum += u32::from_be_bytes([0, 0, NEIGHBOUR_ADVERTISEMENT, 0]);
    sum += u32::from_be_bytes([0, 0, flags, 0]);
    sum += sum_address(&packet.target);
    if with_option {
        let [a, b, c, d, e, f] = GATEWAY_MAC;
        sum += u32::from_be_bytes([0, 0, TARGET_LINK_LAYER, 1]);
        sum += u32::from_be_bytes([0, 0, a, b]);
        sum += u32::from_be_bytes([0, 0, c, d]);
        sum += u32::from_be_bytes([0, 0, e, f]);
    }
    answer.checksum = fold(sum).to_be_bytes();
    // The device may not believe in a checksum that it has not computed.
    let flags = BPF_F_RECOMPUTE_CSUM as u64;
    let written = ctx.store(0, &frame.last.source_mac, flags).is_ok()
        && ctx.store(6, &GATEWAY_MAC, flags).is_ok()
        && ctx.store(ETHERNET + 8, &packet.target, flags).is_ok()
        && ctx.store(ETHERNET + 24, frame.source(), flags).is_ok()
        && ctx.store(ICMP, &answer, flags).is_ok()
        && (!with_option || ctx.store(ICMP + size_of::<Neighbour>(), &option, flags).is_ok());
    if written { Verdict::Answer } else { Verdict::Drop(DropCause::Malformed) }
}

#[inline(always)]
fn sum_address(address: &[u8; 16]) -> u32 {
    let mut sum = 0;
    let mut index = 0;
    while index < 16 {
        sum += u32::from_be_bytes([0, 0, address[index], address[index + 1]]);
        index += 2;
    }
    sum
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
