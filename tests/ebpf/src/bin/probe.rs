//! A stranger's tc programs, to be attached at 25000 where Cilium would be: they look, or they
//! overwrite the whole mark, and let every frame pass.
#![no_std]
#![no_main]

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::TcContext;

/// What the stranger saw.
#[repr(C)]
pub struct Seen {
    frames: u64,
    tagged: u64,
}

/// The last frame of any CPU.
#[repr(C)]
pub struct Last {
    mark: u32,
    length: u32,
    /// Network order.
    ether_type: u32,
}

/// By direction: ingress, egress.
#[map]
static SEEN: PerCpuArray<Seen> = PerCpuArray::with_max_entries(2, 0);

/// By direction, as well.
#[map]
static LAST: Array<Last> = Array::with_max_entries(2, 0);

/// Looks at what comes in.
#[classifier]
pub fn probe_ingress(ctx: TcContext) -> i32 {
    see(&ctx, 0)
}

/// Looks at what goes out.
#[classifier]
pub fn probe_egress(ctx: TcContext) -> i32 {
    see(&ctx, 1)
}

/// Looks at what comes in, and overwrites its mark.
#[classifier]
pub fn probe_mark(ctx: TcContext) -> i32 {
    let code = see(&ctx, 0);
    ctx.set_mark(u32::MAX);
    code
}

#[inline(always)]
fn see(ctx: &TcContext, direction: u32) -> i32 {
    let skb = ctx.skb.skb;
    if let Some(seen) = SEEN.get_ptr_mut(direction) {
        // SAFETY: `skb` is the program's context; the entry is of this CPU.
        unsafe {
            (*seen).frames += 1;
            (*seen).tagged += u64::from((*skb).vlan_present);
        }
    }
    // SAFETY: `skb` is the program's context.
    let last =
        unsafe { Last { mark: (*skb).mark, length: (*skb).len, ether_type: (*skb).protocol } };
    // There is no such entry only if there is no such direction.
    let _ = LAST.set(direction, last, 0);
    TC_ACT_UNSPEC
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
