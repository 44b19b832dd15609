//! Neighbour discovery from a pod: it speaks only for itself. A chain of extension headers is
//! followed, or a forged message could hide behind one.

use aya_ebpf::programs::TcContext;
use ebpf_common::{Endpoint, Ip, MacWords};

use crate::frame::{self, ETHERNET, IPV6, Ipv6};
use crate::verdict::{Drop, DropCause};

/// Next header: ICMPv6.
pub const ICMPV6: u8 = 58;
/// ICMPv6 type: neighbour solicitation.
pub const TYPE_SOLICITATION: u8 = 135;
/// ICMPv6 type: neighbour advertisement.
pub const TYPE_ADVERTISEMENT: u8 = 136;
const TYPE_ROUTER_SOLICITATION: u8 = 133;
const TYPE_ROUTER_ADVERTISEMENT: u8 = 134;
const TYPE_REDIRECT: u8 = 137;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// Extension headers that are followed (RFC 8200 allows each once, and one of them twice).
const CHAIN: u32 = 8;
/// Options of a message that are read.
const OPTIONS: u32 = 4;

/// How an extension header begins.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extension {
    next: u8,
    length: u8,
    /// Of a fragment header: offset in eights, and flags.
    fragment: u16,
}

/// How a neighbour message or a router solicitation begins.
#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: u16,
    reserved: u32,
    target: Ip,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinkLayerOption {
    kind: u8,
    length: u8,
    mac: MacWords,
}

/// Whether what the frame carries may come from this pod. What is no neighbour discovery may.
#[inline(always)]
pub fn check(ctx: &TcContext, ip: &Ipv6, endpoint: &Endpoint) -> Result<(), Drop> {
    let Some(offset) = icmp(ctx, ip)? else {
        return Ok(());
    };
    let kind: u8 = frame::at(ctx, offset)?;
    match kind {
        TYPE_SOLICITATION | TYPE_ADVERTISEMENT => message(ctx, offset, ip, endpoint),
        TYPE_ROUTER_SOLICITATION => {
            own_options(ctx, offset + 8, ip, endpoint)?;
            Err(Drop(DropCause::PodControl))
        }
        TYPE_ROUTER_ADVERTISEMENT | TYPE_REDIRECT => Err(Drop(DropCause::SpoofedNd)),
        _ => Ok(()),
    }
}

/// Where the ICMPv6 message is, if there is one. A fragment is not looked into: neighbour
/// discovery in fragments is ignored by every receiver (RFC 6980).
#[inline(always)]
fn icmp(ctx: &TcContext, ip: &Ipv6) -> Result<Option<u32>, Drop> {
    let mut next = ip.next_header;
    let mut offset = ETHERNET + IPV6;
    for _ in 0..CHAIN {
        match next {
            ICMPV6 => return Ok(Some(offset)),
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | AUTHENTICATION => {}
            _ => return Ok(None),
        }
        let header: Extension = frame::at(ctx, offset)?;
        let length = u32::from(header.length);
        offset += if next == AUTHENTICATION { (length + 2) * 4 } else { (length + 1) * 8 };
        next = header.next;
    }
    Err(Drop(DropCause::Malformed))
}

#[inline(always)]
fn message(ctx: &TcContext, offset: u32, ip: &Ipv6, endpoint: &Endpoint) -> Result<(), Drop> {
    let message: Message = frame::at(ctx, offset)?;
    let own =
        frame::is_link_local(&message.target) || frame::same_ip(&message.target, &endpoint.v6);
    // An advertisement speaks for its target, and so does a probe for duplicates.
    let speaks = message.kind == TYPE_ADVERTISEMENT || frame::is_unspecified(&ip.source);
    if speaks && !own {
        return Err(Drop(DropCause::SpoofedNd));
    }
    own_options(ctx, offset + size_of::<Message>() as u32, ip, endpoint)
}

/// Every link-layer address that the options give is the pod's.
#[inline(always)]
fn own_options(ctx: &TcContext, first: u32, ip: &Ipv6, endpoint: &Endpoint) -> Result<(), Drop> {
    let end = ETHERNET + IPV6 + u32::from(u16::from_be(ip.payload_length));
    let mut offset = first;
    for _ in 0..OPTIONS {
        if offset >= end {
            return Ok(());
        }
        let option: LinkLayerOption = frame::at(ctx, offset)?;
        match option.kind {
            _ if option.length == 0 => return Err(Drop(DropCause::Malformed)),
            1 | 2 if !frame::same_mac(&option.mac, &endpoint.mac) => {
                return Err(Drop(DropCause::SpoofedNd));
            }
            _ => offset += u32::from(option.length) * 8,
        }
    }
    if offset >= end { Ok(()) } else { Err(Drop(DropCause::Malformed)) }
}
