//! The source guard: nothing leaves an ENI with a source that is not its own. On the trunk the
//! source also chooses the VLAN.

use aya_ebpf::helpers::generated::{bpf_redirect_neigh, bpf_skb_store_bytes, bpf_skb_vlan_push};
use aya_ebpf::programs::TcContext;
use ebpf_common::{Address, AddressKey, Count, Ip, Member, Node};

use crate::frame::{self, ether_type};
use crate::maps::{NODE, address, count, member};
use crate::verdict::{Drop, DropCause, PASS};

/// `vlan_tag`: what is already tagged was tagged by us (an answer) or by root of the node.
#[inline(always)]
pub fn trunk(ctx: &TcContext) -> Result<i32, Drop> {
    if frame::is_tagged(ctx) { Ok(PASS) } else { guard(ctx) }
}

/// `source_guard`: no tag belongs on such an ENI.
#[inline(always)]
pub fn secondary(ctx: &TcContext) -> Result<i32, Drop> {
    if frame::is_tagged(ctx) { Err(Drop(DropCause::UnknownVlan)) } else { guard(ctx) }
}

#[inline(always)]
fn guard(ctx: &TcContext) -> Result<i32, Drop> {
    match frame::protocol(ctx) {
        ether_type::IPV4 => {
            let ip = frame::load_ipv4(ctx)?.network;
            match allowed(ctx, frame::mapped(ip.source)) {
                Some(address) => send(ctx, address),
                None if ip.source == 0 || frame::is_v4_link_multicast(ip.destination) => Ok(PASS),
                None => by_primary_link(ctx, |node| node.v4 != 0 && node.v4 == ip.source),
            }
        }
        ether_type::IPV6 => {
            let ip = frame::load_ipv6(ctx)?.network;
            match allowed(ctx, ip.source) {
                Some(address) => send(ctx, address),
                None if is_control(&ip.source, &ip.destination) => Ok(PASS),
                None => by_primary_link(ctx, |node| frame::same_ip(&node.v6, &ip.source)),
            }
        }
        ether_type::ARP => Ok(PASS),
        _ => Err(Drop(DropCause::UnknownSource)),
    }
}

#[inline(always)]
fn allowed(ctx: &TcContext, source: Ip) -> Option<&'static Address> {
    address(&AddressKey { ifindex: frame::ifindex(ctx), address: source })
}

/// Frames that the node's own kernel sends on every link, and never forwards.
#[inline(always)]
fn is_control(source: &Ip, destination: &Ip) -> bool {
    frame::is_link_local(source)
        || frame::is_unspecified(source)
        || frame::is_link_multicast(destination)
}

#[inline(always)]
fn send(ctx: &TcContext, address: &Address) -> Result<i32, Drop> {
    if address.state != Address::LIVE {
        return Err(Drop(DropCause::RestingSource));
    }
    if address.vid == 0 { Ok(PASS) } else { tag(ctx, address.vid) }
}

#[inline(always)]
fn tag(ctx: &TcContext, vid: u32) -> Result<i32, Drop> {
    let member = member(frame::ifindex(ctx), vid).ok_or(Drop(DropCause::UnknownVlan))?;
    let skb = frame::skb(ctx);
    if member.flags & Member::OWN_MAC != 0 {
        let macs = (&raw const member.gateway_mac).cast();
        // SAFETY: twelve bytes start at `gateway_mac`.
        if unsafe { bpf_skb_store_bytes(skb.cast(), 0, macs, 12, 0) } != 0 {
            return Err(Drop(DropCause::Malformed));
        }
    }
    // SAFETY: `skb` is the program's context.
    if unsafe { bpf_skb_vlan_push(skb, ether_type::VLAN, vid as u16) } != 0 {
        return Err(Drop(DropCause::Malformed));
    }
    count(Count::Tagged);
    Ok(PASS)
}

/// A reply of a flow whose destination was translated is routed before its source is restored, so
/// it comes by the pod's ENI with the node's address: it belongs on the primary link.
#[inline(always)]
fn by_primary_link(ctx: &TcContext, is_own: impl FnOnce(&Node) -> bool) -> Result<i32, Drop> {
    let node = NODE.get(0).ok_or(Drop(DropCause::UnknownSource))?;
    if node.ifindex == 0 || !is_own(node) {
        return Err(Drop(DropCause::UnknownSource));
    }
    if node.ifindex == frame::ifindex(ctx) {
        return Ok(PASS);
    }
    // SAFETY: `skb` is the program's context.
    let mark = unsafe { (*frame::skb(ctx)).mark };
    ctx.set_mark(mark & !node.mask);
    count(Count::Redirected);
    // SAFETY: no parameters are given, so the kernel looks the neighbour up.
    let code = unsafe { bpf_redirect_neigh(node.ifindex, core::ptr::null_mut(), 0, 0) };
    Ok(code as i32)
}
