//! What may enter the VPC.

use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_vlan_pop};
use aya_ebpf::programs::TcContext;
use terway_lab_ebpf_common::{DropCause, GATEWAY_MAC, OUTSIDE, Port};

use crate::answer::{arp, neighbour_discovery};
use crate::frame::{ARP, Frame, ICMPV6, IPV4, IPV6, same_mac};
use crate::maps::{self, Count, count, count_drop};

/// What becomes of a frame.
pub(crate) enum Verdict {
    Admit,
    /// Turned into its answer; goes back where it came from.
    Answer,
    /// Not for a VPC, and nobody's fault.
    Control,
    /// Asks for somebody else.
    Unanswered,
    Drop(DropCause),
}

pub(crate) fn from_node(ctx: &TcContext) -> i32 {
    let Some(frame) = Frame::read(ctx) else { return TC_ACT_SHOT as i32 };
    let Some(nic) = maps::port(frame.ifindex, 0) else { return TC_ACT_SHOT as i32 };
    let (port, verdict) = match sender(frame, nic) {
        Ok(port) => (port, judge(ctx, frame, port)),
        Err(cause) => (nic, Verdict::Drop(cause)),
    };
    match verdict {
        Verdict::Admit => {
            count(port.eni, Count::Admitted);
            admit(ctx, port)
        }
        Verdict::Answer => {
            count(port.eni, Count::Answered);
            // SAFETY: a helper without preconditions. The tag is still beside the frame.
            (unsafe { bpf_redirect(frame.ifindex, 0) }) as i32
        }
        Verdict::Control => swallow(port, Count::Control),
        Verdict::Unanswered => swallow(port, Count::Unanswered),
        Verdict::Drop(cause) => {
            count_drop(port.eni, cause, frame);
            TC_ACT_SHOT as i32
        }
    }
}

pub(crate) fn from_outside(ctx: &TcContext) -> i32 {
    let Some(frame) = Frame::read(ctx) else { return TC_ACT_SHOT as i32 };
    let cause = match frame.protocol() {
        IPV4 | IPV6 if is_control(frame) => return TC_ACT_OK as i32,
        IPV4 | IPV6 if !owned_by(frame.source(), OUTSIDE) => DropCause::SourceAddress,
        IPV4 | IPV6 if maps::owner(frame.destination()).is_none() => DropCause::NoOwner,
        _ => {
            count(OUTSIDE, Count::Admitted);
            return TC_ACT_OK as i32;
        }
    };
    count_drop(OUTSIDE, cause, frame);
    TC_ACT_SHOT as i32
}

/// The NIC itself, or the member that the tag names.
#[inline(always)]
fn sender(frame: &Frame, nic: &'static Port) -> Result<&'static Port, DropCause> {
    if !frame.tagged {
        return Ok(nic);
    }
    if nic.flags & Port::TRUNK == 0 {
        return Err(DropCause::TagOnNonTrunk);
    }
    if frame.key.vid == 0 {
        return Err(DropCause::UnknownVlan);
    }
    maps::port(frame.ifindex, frame.key.vid).ok_or(DropCause::UnknownVlan)
}

#[inline(always)]
fn judge(ctx: &TcContext, frame: &Frame, port: &Port) -> Verdict {
    if !same_mac(&frame.last.source_mac, &port.mac) {
        return Verdict::Drop(DropCause::SourceMac);
    }
    match frame.protocol() {
        ARP => arp(ctx, frame, port),
        IPV6 if frame.next_header == ICMPV6 => match neighbour_discovery(ctx, frame, port) {
            Some(verdict) => verdict,
            None => packet(ctx, frame, port),
        },
        IPV4 | IPV6 => packet(ctx, frame, port),
        _ => Verdict::Drop(DropCause::Malformed),
    }
}

#[inline(always)]
fn packet(ctx: &TcContext, frame: &Frame, port: &Port) -> Verdict {
    if is_control(frame) {
        return Verdict::Control;
    }
    if !same_mac(&frame.last.destination_mac, &GATEWAY_MAC) {
        return Verdict::Drop(DropCause::DestinationMac);
    }
    if port.flags & Port::SOURCE_CHECK != 0 {
        match maps::owner(frame.source()) {
            Some(owner) if owner.eni == port.eni => {}
            Some(owner) if !frame.tagged && owner.trunk == port.eni => {
                return Verdict::Drop(DropCause::UntaggedMember);
            }
            _ => return Verdict::Drop(DropCause::SourceAddress),
        }
    }
    if maps::owner(frame.destination()).is_none() {
        return Verdict::Drop(DropCause::NoOwner);
    }
    if frame.exceeds(ctx, port.mtu) {
        return Verdict::Drop(DropCause::Oversize);
    }
    Verdict::Admit
}

/// Multicast, link-local, or from nobody yet.
#[inline(always)]
fn is_control(frame: &Frame) -> bool {
    let (source, destination) = (frame.source(), frame.destination());
    if frame.protocol() == IPV4 {
        let unspecified = source[12] == 0;
        let multicast = destination[12] >= 0xe0;
        return unspecified
            || multicast
            || is_v4_link_local(source)
            || is_v4_link_local(destination);
    }
    let unspecified = u128::from_ne_bytes(*source) == 0;
    unspecified || destination[0] == 0xff || is_link_local(source) || is_link_local(destination)
}

#[inline(always)]
fn is_v4_link_local(address: &[u8; 16]) -> bool {
    address[12] == 169 && address[13] == 254
}

#[inline(always)]
pub(crate) fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

#[inline(always)]
pub(crate) fn owned_by(address: &[u8; 16], eni: u32) -> bool {
    matches!(maps::owner(address), Some(owner) if owner.eni == eni)
}

/// Into the VPC's stack; a member's frame by the member's port, without its tag.
#[inline(always)]
fn admit(ctx: &TcContext, port: &Port) -> i32 {
    if port.ifindex == 0 {
        return TC_ACT_OK as i32;
    }
    // SAFETY: the context is this program's.
    if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: a helper without preconditions.
    (unsafe { bpf_redirect(port.ifindex, BPF_F_INGRESS as u64) }) as i32
}

#[inline(always)]
fn swallow(port: &Port, what: Count) -> i32 {
    count(port.eni, what);
    TC_ACT_SHOT as i32
}
