//! A stranger's tc programs, to be attached at 25000 where Cilium would be: they look, or they
//! overwrite the whole mark, and let every frame pass.
#![no_std]
#![no_main]

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::TcContext;
use terway_lab_ebpf_common::{NUMBER_BYTES, Numbered, Stream};

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

/// Each stream comes from one CPU, so that its entry has one writer.
#[map]
static STREAMS: HashMap<Stream, Numbered> = HashMap::with_max_entries(64, 0);

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const UDP: u8 = 17;

/// A datagram with nothing but a number.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Datagram {
    source: u16,
    port: u16,
    length: u16,
    checksum: u16,
    number: u64,
}

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
    follow(ctx, direction);
    TC_ACT_UNSPEC
}

/// Counts a numbered datagram in its stream.
#[inline(always)]
fn follow(ctx: &TcContext, direction: u32) -> Option<()> {
    let skb = ctx.skb.skb;
    // SAFETY: `skb` is the program's context.
    let (ether_type, tagged) = unsafe { ((*skb).protocol as u16, (*skb).vlan_present) };
    let (next_header, offset) = match ether_type {
        // Without options, as a socket sends it.
        IPV4 => (ctx.load::<u8>(ETHERNET + 9).ok()?, ETHERNET + 20),
        IPV6 => (ctx.load::<u8>(ETHERNET + 6).ok()?, ETHERNET + 40),
        _ => return None,
    };
    if next_header != UDP {
        return None;
    }
    let datagram = ctx.load::<Datagram>(offset).ok()?;
    if u16::from_be(datagram.length) != NUMBER_BYTES + 8 {
        return None;
    }
    let stream = Stream { direction, port: u32::from(u16::from_be(datagram.port)) };
    let number = u64::from_be(datagram.number);
    let first = Numbered { frames: 0, tagged: 0, late: 0, next: 0 };
    let mut entry = STREAMS.get_ptr_mut(&stream);
    if entry.is_none() {
        STREAMS.insert(&stream, &first, 0).ok()?;
        entry = STREAMS.get_ptr_mut(&stream);
    }
    // SAFETY: entries are never removed, and a stream comes from one CPU.
    let seen = unsafe { &mut *entry? };
    seen.frames += 1;
    seen.tagged += u64::from(tagged);
    if number < seen.next {
        seen.late += 1;
    } else {
        seen.next = number + 1;
    }
    Some(())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
