//! What comes in by an ENI: a tagged frame reaches only the member of its VLAN, and who asks for
//! the address of a pod is answered in place (the node does not have the address).

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use aya_ebpf::helpers::generated::{bpf_skb_change_type, bpf_skb_vlan_pop};
use aya_ebpf::programs::TcContext;
use ebpf_common::{AddressKey, Count, Ip, MacWords, Member};

use crate::answer;
use crate::frame::{self, ether_type};
use crate::maps::{address, count, member};
use crate::verdict::{Drop, DropCause, PASS};

/// `PACKET_HOST`: for this node.
const PACKET_HOST: u32 = 0;

/// `vlan_untag`
#[inline(always)]
pub fn trunk(ctx: &TcContext) -> Result<i32, Drop> {
    match frame::vlan(ctx) {
        None | Some(0) => untagged(ctx),
        Some(vid) => tagged(ctx, vid),
    }
}

/// `eni_ingress`: no VLAN belongs on such an ENI.
#[inline(always)]
pub fn secondary(ctx: &TcContext) -> Result<i32, Drop> {
    match frame::vlan(ctx) {
        None | Some(0) => untagged(ctx),
        Some(_vid) => Err(Drop(DropCause::UnknownVlan)),
    }
}

#[inline(always)]
fn untagged(ctx: &TcContext) -> Result<i32, Drop> {
    // VLAN id 0 carries a priority and names no VLAN.
    if frame::vlan(ctx).is_some() {
        pop(ctx)?;
    }
    if answer::answer(ctx, 0) { Ok(TC_ACT_REDIRECT) } else { Ok(PASS) }
}

#[inline(always)]
fn tagged(ctx: &TcContext, vid: u32) -> Result<i32, Drop> {
    // SAFETY: `skb` is the program's context.
    let kind = unsafe { (*frame::skb(ctx)).vlan_proto } as u16;
    if kind != ether_type::VLAN {
        return Err(Drop(DropCause::UnknownVlan));
    }
    let member = member(frame::ifindex(ctx), vid).ok_or(Drop(DropCause::UnknownVlan))?;
    if answer::answer(ctx, vid) {
        return Ok(TC_ACT_REDIRECT);
    }
    match frame::protocol(ctx) {
        ether_type::IPV4 => {
            let frame = frame::load_ipv4(ctx)?;
            if frame::is_v4_multicast(frame.network.destination) {
                return Err(Drop(DropCause::VlanControl));
            }
            let destination = frame::mapped(frame.network.destination);
            deliver(ctx, vid, member, destination, &frame.ethernet.destination)
        }
        ether_type::IPV6 => {
            let frame = frame::load_ipv6(ctx)?;
            let destination = frame.network.destination;
            if frame::is_multicast(&destination) || frame::is_link_local(&destination) {
                return Err(Drop(DropCause::VlanControl));
            }
            deliver(ctx, vid, member, destination, &frame.ethernet.destination)
        }
        _ => Err(Drop(DropCause::VlanControl)),
    }
}

/// A destination that rests is let in as well: the node tells the sender that it is gone.
#[inline(always)]
fn deliver(
    ctx: &TcContext,
    vid: u32,
    member: &Member,
    destination: Ip,
    mac: &MacWords,
) -> Result<i32, Drop> {
    let key = AddressKey { ifindex: frame::ifindex(ctx), address: destination };
    match address(&key) {
        Some(address) if address.vid == vid => {}
        _ => return Err(Drop(DropCause::WrongMember)),
    }
    // The kernel has compared the destination with the trunk's MAC, before us.
    if member.flags & Member::OWN_MAC != 0 && frame::same_mac(&member.mac, mac) {
        // SAFETY: `skb` is the program's context.
        unsafe { bpf_skb_change_type(frame::skb(ctx), PACKET_HOST) };
    }
    pop(ctx)?;
    count(Count::Untagged);
    Ok(PASS)
}

#[inline(always)]
fn pop(ctx: &TcContext) -> Result<(), Drop> {
    // SAFETY: `skb` is the program's context.
    match unsafe { bpf_skb_vlan_pop(frame::skb(ctx)) } {
        0 => Ok(()),
        _ => Err(Drop(DropCause::Malformed)),
    }
}
