//! The tc programs of the VPC: what a port of the fabric lets in, where it takes it, and what it
//! drops and counts.
#![no_std]
#![no_main]

mod admit;
mod answer;
mod deliver;
mod frame;
mod maps;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// Ingress of a NIC's port: what a node sent, tagged or not.
#[classifier]
pub fn from_node(ctx: TcContext) -> i32 {
    admit::from_node(&ctx)
}

/// Ingress of the link to the outside.
#[classifier]
pub fn from_outside(ctx: TcContext) -> i32 {
    admit::from_outside(&ctx)
}

/// Egress of an ENI's port: what the VPC sends to it; a member's frames leave by the trunk's port.
#[classifier]
pub fn to_eni(ctx: TcContext) -> i32 {
    deliver::to_eni(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// `bpf_redirect` and LRU maps are for programs under a licence that is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
