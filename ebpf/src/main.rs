//! The tc programs: what leaves an ENI has a source of that ENI, what comes in by a VLAN reaches
//! only its member, and a pod speaks only for itself.
//!
//! Every program returns [`PASS`](verdict::PASS) for what it lets through, so that later filters
//! (Cilium's at 25000 among them) see the frame.
#![no_std]
#![no_main]

mod answer;
mod egress;
mod frame;
mod ingress;
mod maps;
mod neighbour;
mod pod;
mod verdict;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::verdict::Verdict;

/// Trunk, ingress.
#[classifier]
pub fn vlan_untag(ctx: TcContext) -> i32 {
    ingress::trunk(&ctx).code(&ctx)
}

/// Any other ENI, ingress.
#[classifier]
pub fn eni_ingress(ctx: TcContext) -> i32 {
    ingress::secondary(&ctx).code(&ctx)
}

/// Trunk, egress.
#[classifier]
pub fn vlan_tag(ctx: TcContext) -> i32 {
    egress::trunk(&ctx).code(&ctx)
}

/// Any other ENI, egress.
#[classifier]
pub fn source_guard(ctx: TcContext) -> i32 {
    egress::secondary(&ctx).code(&ctx)
}

/// Host veth, ingress.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    pod::send(&ctx).code(&ctx)
}

/// Host veth, egress.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    pod::receive(&ctx).code(&ctx)
}

/// Host veth, ingress, behind a foreign filter that may have overwritten the mark.
#[classifier]
pub fn set_mark(ctx: TcContext) -> i32 {
    pod::mark_again(&ctx).code(&ctx)
}

/// Every helper in use is open to programs of any license.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
