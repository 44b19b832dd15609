//! What leaves the VPC towards an ENI.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_vlan_push};
use aya_ebpf::programs::TcContext;

use crate::frame::{ETHERNET, Frame, ICMPV6, IPV4, IPV6};
use crate::maps::{self, Count, count};

/// 802.1Q, in network order.
const VLAN: u16 = 0x8100_u16.to_be();
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const REDIRECT: u8 = 137;

pub(crate) fn to_eni(ctx: &TcContext) -> i32 {
    let Some(frame) = Frame::read(ctx) else { return TC_ACT_SHOT as i32 };
    if frame.tagged {
        // A member's frame on its way out of the trunk's port.
        return TC_ACT_OK as i32;
    }
    let Some(way) = maps::delivery(frame.ifindex) else { return TC_ACT_SHOT as i32 };
    if is_chatter(ctx, frame) {
        return TC_ACT_SHOT as i32;
    }
    count(way.eni, Count::Delivered);
    if way.trunk_ifindex == 0 {
        return TC_ACT_OK as i32;
    }
    // SAFETY: the context is this program's.
    if unsafe { bpf_skb_vlan_push(ctx.skb.skb, VLAN, way.vid as u16) } != 0 {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: a helper without preconditions.
    (unsafe { bpf_redirect(way.trunk_ifindex, 0) }) as i32
}

/// What Linux says on a link and a VPC does not: MLD, IGMP, its own DAD and RS, redirects.
#[inline(always)]
fn is_chatter(ctx: &TcContext, frame: &Frame) -> bool {
    match frame.protocol() {
        IPV4 => frame.destination()[12] >= 0xe0,
        IPV6 => {
            let multicast = frame.destination()[0] == 0xff;
            let nobody = u128::from_ne_bytes(*frame.source()) == 0;
            let kind = if frame.next_header == ICMPV6 {
                ctx.load::<u8>(ETHERNET + 40).unwrap_or_default()
            } else {
                0
            };
            let question = kind == ROUTER_ADVERTISEMENT || kind == NEIGHBOUR_SOLICITATION;
            nobody || kind == REDIRECT || (multicast && !question)
        }
        _ => false,
    }
}
