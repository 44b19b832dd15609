//! ARP and neighbour solicitations for a pod's address, answered in place: the frame is turned
//! into its answer and sent back by the link (and the VLAN) that it came by.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use ebpf_common::{Address, AddressKey, Count, Ip, MacWords, Member};

use crate::frame::{self, Arp, ETHERNET, Ethernet, Frame, IPV6, Ipv6, ether_type};
use crate::maps::{address, count, member};
use crate::neighbour::{ICMPV6, TYPE_ADVERTISEMENT, TYPE_SOLICITATION};

/// A neighbour advertisement with its one option.
#[derive(Clone, Copy)]
#[repr(C)]
struct Advertisement {
    ip: Ipv6,
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u32,
    target: Ip,
    option: u8,
    option_length: u8,
    mac: MacWords,
}

/// Bytes of ICMPv6 in it.
const ADVERTISEMENT: u16 = 32;
/// Solicited, and overrides what was known.
const FLAGS: u32 = 0x6000_0000_u32.to_be();
/// Target link-layer address.
const OPTION_TARGET: u8 = 2;

/// What a neighbour solicitation has behind its IPv6 header, up to its options.
#[derive(Clone, Copy)]
#[repr(C)]
struct Solicitation {
    kind: u8,
    code: u8,
    checksum: u16,
    reserved: u32,
    target: Ip,
}

/// Answers a request for an address of this VLAN (0: of the ENI itself). If it did, the program is
/// to return `TC_ACT_REDIRECT`. A function of its own, since few frames are such requests.
#[inline(never)]
pub fn answer(ctx: &TcContext, vid: u32) -> bool {
    let answered = match frame::protocol(ctx) {
        ether_type::ARP => arp(ctx, vid),
        ether_type::IPV6 => solicitation(ctx, vid),
        _ => None,
    };
    answered.is_some()
}

#[inline(always)]
fn arp(ctx: &TcContext, vid: u32) -> Option<()> {
    let mut frame = frame::load::<Arp>(ctx).ok()?;
    let arp = &mut frame.network;
    // A sender that asks for its own address announces it and wants no answer.
    if !arp.is_ipv4() || arp.operation != Arp::REQUEST || arp.sender_ip() == arp.target_ip() {
        return None;
    }
    let own = own_mac(ctx, vid, frame::mapped(arp.target_ip()))?;
    let asked = arp.target;
    arp.operation = Arp::REPLY;
    arp.target_mac = arp.sender_mac;
    arp.target = arp.sender;
    arp.sender_mac = own;
    arp.sender = asked;
    frame.ethernet.destination = arp.target_mac;
    frame.ethernet.source = own;
    send_back(ctx, &frame)?;
    count(Count::ArpAnswered);
    Some(())
}

/// A probe for duplicates (source `::`) is not answered: what pods have is assigned by the cloud,
/// and cannot be somebody else's.
#[inline(always)]
fn solicitation(ctx: &TcContext, vid: u32) -> Option<()> {
    let next_header: u8 = frame::at(ctx, ETHERNET + 6).ok()?;
    if next_header != ICMPV6 {
        return None;
    }
    let asked: Solicitation = frame::at(ctx, ETHERNET + IPV6).ok()?;
    if asked.kind != TYPE_SOLICITATION || asked.code != 0 {
        return None;
    }
    let frame = frame::load_ipv6(ctx).ok()?;
    if frame.network.hop_limit != u8::MAX || frame::is_unspecified(&frame.network.source) {
        return None;
    }
    let own = own_mac(ctx, vid, asked.target)?;
    let answer = advertisement(&frame, asked.target, own);
    let length = (size_of::<Frame<Advertisement>>() - 2) as u32;
    // SAFETY: `skb` is the program's context.
    if ctx.len() != length && unsafe { bpf_skb_change_tail(frame::skb(ctx), length, 0) } != 0 {
        return None;
    }
    send_back(ctx, &answer)?;
    count(Count::NdAnswered);
    Some(())
}

/// The MAC of who has `target`, if it is a pod of this VLAN.
#[inline(always)]
fn own_mac(ctx: &TcContext, vid: u32, target: Ip) -> Option<MacWords> {
    let ifindex = frame::ifindex(ctx);
    let address = address(&AddressKey { ifindex, address: target })?;
    if address.vid != vid || address.state != Address::LIVE {
        return None;
    }
    match member(ifindex, vid)? {
        own if vid == 0 || own.flags & Member::OWN_MAC != 0 => Some(own.mac),
        _ => member(ifindex, 0).map(|eni| eni.mac),
    }
}

#[inline(always)]
fn advertisement(asked: &Frame<Ipv6>, target: Ip, own: MacWords) -> Frame<Advertisement> {
    let ethernet =
        Ethernet { destination: asked.ethernet.source, source: own, ether_type: ether_type::IPV6 };
    let ip = Ipv6 {
        version_and_class: 0x60,
        flow: [0; 3],
        payload_length: ADVERTISEMENT.to_be(),
        next_header: ICMPV6,
        hop_limit: u8::MAX,
        source: target,
        destination: asked.network.source,
    };
    let mut network = Advertisement {
        ip,
        kind: TYPE_ADVERTISEMENT,
        code: 0,
        checksum: 0,
        flags: FLAGS,
        target,
        option: OPTION_TARGET,
        option_length: 1,
        mac: own,
    };
    network.checksum = checksum(&network);
    Frame { align: 0, ethernet, network }
}

/// RFC 4443, 2.3: over the pseudo-header and the message. The sum of 16-bit words does not depend
/// on the order of bytes, and 32-bit words add up to the same.
#[inline(always)]
fn checksum(message: &Advertisement) -> u16 {
    let ip = &message.ip;
    let mut sum = u64::from(u32::from(ADVERTISEMENT).to_be());
    sum += u64::from(u32::from(ICMPV6).to_be());
    for words in [&ip.source, &ip.destination, &message.target] {
        sum += u64::from(words[0]);
        sum += u64::from(words[1]);
        sum += u64::from(words[2]);
        sum += u64::from(words[3]);
    }
    sum += u64::from(message.flags);
    sum += u64::from(u16::from_ne_bytes([message.kind, message.code]));
    sum += u64::from(u16::from_ne_bytes([message.option, message.option_length]));
    sum += u64::from(message.mac[0]);
    sum += u64::from(message.mac[1]);
    sum += u64::from(message.mac[2]);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
fn send_back<T>(ctx: &TcContext, frame: &Frame<T>) -> Option<()> {
    let length = (size_of::<Frame<T>>() - 2) as u32;
    let skb = frame::skb(ctx);
    // SAFETY: the frame starts two bytes into the structure and is `length` bytes long.
    let stored = unsafe {
        let from = (&raw const frame.ethernet).cast();
        bpf_skb_store_bytes(skb.cast(), 0, from, length, 0)
    };
    if stored != 0 {
        return None;
    }
    // SAFETY: the helper takes any index.
    unsafe { bpf_redirect(frame::ifindex(ctx), 0) };
    Some(())
}
