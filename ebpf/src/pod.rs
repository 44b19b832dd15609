//! The host's end of a pod: a pod sends only with its own MAC and addresses, gets the mark of its
//! ENI, and is counted.

use aya_ebpf::programs::TcContext;
use ebpf_common::{Endpoint, MacWords};

use crate::frame::{self, Arp, Ethernet, ether_type};
use crate::maps::{counters, endpoint};
use crate::neighbour;
use crate::verdict::{Drop, DropCause, PASS};

/// `from_pod`
#[inline(always)]
pub fn send(ctx: &TcContext) -> Result<i32, Drop> {
    let endpoint = endpoint(frame::ifindex(ctx)).ok_or(Drop(DropCause::UnknownPod))?;
    if frame::is_tagged(ctx) {
        return Err(Drop(DropCause::TaggedByPod));
    }
    match frame::protocol(ctx) {
        ether_type::IPV4 => ipv4(ctx, endpoint)?,
        ether_type::IPV6 => ipv6(ctx, endpoint)?,
        ether_type::ARP => arp(ctx, endpoint)?,
        _ => return Err(Drop(DropCause::Malformed)),
    }
    mark(ctx, endpoint);
    if let Some(counters) = counters(frame::ifindex(ctx)) {
        counters.tx_packets += packets(ctx);
        counters.tx_bytes += u64::from(ctx.len());
    }
    Ok(PASS)
}

/// `to_pod`
#[inline(always)]
pub fn receive(ctx: &TcContext) -> Result<i32, Drop> {
    if let Some(counters) = counters(frame::ifindex(ctx)) {
        counters.rx_packets += packets(ctx);
        counters.rx_bytes += u64::from(ctx.len());
    }
    Ok(PASS)
}

/// `set_mark`
#[inline(always)]
pub fn mark_again(ctx: &TcContext) -> Result<i32, Drop> {
    let endpoint = endpoint(frame::ifindex(ctx)).ok_or(Drop(DropCause::UnknownPod))?;
    mark(ctx, endpoint);
    Ok(PASS)
}

#[inline(always)]
fn mark(ctx: &TcContext, endpoint: &Endpoint) {
    // SAFETY: `skb` is the program's context.
    let others = unsafe { (*frame::skb(ctx)).mark } & !endpoint.mask;
    ctx.set_mark(others | endpoint.mark);
}

/// Frames that this one becomes on the wire.
#[inline(always)]
fn packets(ctx: &TcContext) -> u64 {
    // SAFETY: as in `mark`.
    match unsafe { (*frame::skb(ctx)).gso_segs } {
        0 => 1,
        segments => u64::from(segments),
    }
}

#[inline(always)]
fn ipv4(ctx: &TcContext, endpoint: &Endpoint) -> Result<(), Drop> {
    let frame = frame::load_ipv4(ctx)?;
    own_mac(&frame.ethernet, endpoint)?;
    match frame.network.source {
        0 => Err(Drop(DropCause::PodControl)),
        source if source == endpoint.v4 => Ok(()),
        _ => Err(Drop(DropCause::SpoofedSource)),
    }
}

#[inline(always)]
fn ipv6(ctx: &TcContext, endpoint: &Endpoint) -> Result<(), Drop> {
    let frame = frame::load_ipv6(ctx)?;
    own_mac(&frame.ethernet, endpoint)?;
    let source = &frame.network.source;
    let control = frame::is_unspecified(source) || frame::is_link_local(source);
    if !control && !frame::same_ip(source, &endpoint.v6) {
        return Err(Drop(DropCause::SpoofedSource));
    }
    neighbour::check(ctx, &frame.network, endpoint)?;
    if control { Err(Drop(DropCause::PodControl)) } else { Ok(()) }
}

#[inline(always)]
fn arp(ctx: &TcContext, endpoint: &Endpoint) -> Result<(), Drop> {
    let frame = frame::load::<Arp>(ctx)?;
    own_mac(&frame.ethernet, endpoint)?;
    let arp = &frame.network;
    if !arp.is_ipv4() {
        return Err(Drop(DropCause::Malformed));
    }
    if !frame::same_mac(&arp.sender_mac, &endpoint.mac) {
        return Err(Drop(DropCause::SpoofedArp));
    }
    match arp.sender_ip() {
        0 => Err(Drop(DropCause::PodControl)),
        sender if sender == endpoint.v4 => Ok(()),
        _ => Err(Drop(DropCause::SpoofedArp)),
    }
}

#[inline(always)]
fn own_mac(ethernet: &Ethernet, endpoint: &Endpoint) -> Result<(), Drop> {
    let source: &MacWords = &ethernet.source;
    if frame::same_mac(source, &endpoint.mac) { Ok(()) } else { Err(Drop(DropCause::SpoofedMac)) }
}
