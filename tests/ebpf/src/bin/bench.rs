//! The two ends of the benchmark of forwarding: an XDP program that makes the same frame again and
//! again, and a tc program that takes those frames away and counts them.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::{TcContext, XdpContext};

/// A whole frame, the shortest there is but for its checksum; nothing else on the links of a lab
/// has its length.
type Frame = [u64; 8];

const LENGTH: usize = core::mem::size_of::<Frame>();

#[map]
static TEMPLATE: Array<Frame> = Array::with_max_entries(1, 0);

#[map]
static TAKEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// To be run by `BPF_PROG_TEST_RUN` with live frames: the link receives the template. The kernel
/// uses a frame's memory again as the way through the node left it, so all of it is written.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(template) = TEMPLATE.get(0) else { return xdp_action::XDP_ABORTED };
    let start = ctx.data();
    if start + LENGTH > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let frame = start as *mut u64;
    for (number, word) in template.iter().enumerate() {
        // SAFETY: so many words are there, and the kernel aligns a live frame to words. Volatile,
        // or the compiler makes a function of the copy, in which the verifier loses the bounds.
        unsafe { frame.add(number).write_volatile(*word) };
    }
    xdp_action::XDP_PASS
}

/// Takes generated frames away, and lets everything else pass.
#[classifier]
pub fn take_away(ctx: TcContext) -> i32 {
    if ctx.len() as usize != LENGTH {
        return TC_ACT_UNSPEC;
    }
    if let Some(taken) = TAKEN.get_ptr_mut(0) {
        // SAFETY: the entry is of this CPU.
        unsafe { *taken += 1 };
    }
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
