//! What becomes of a frame, and the account of those that are dropped.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
pub use ebpf_common::DropCause;
use ebpf_common::{Count, DropEvent, EVENTS_PER_SECOND, Ip, Rate};

use crate::frame::{self, Arp, Ipv4, Ipv6, ether_type};
use crate::maps::{DROPS, EVENTS, RATE, add_one, count, counters};

/// To the next filter. `TC_ACT_OK` would end the chain and hide the filters behind ours.
pub const PASS: i32 = TC_ACT_UNSPEC;

/// The frame is to be dropped.
pub struct Drop(pub DropCause);

/// The return value of a program, or why the frame is dropped.
pub trait Verdict {
    /// Counts a drop, tells it, and gives the number that the kernel wants.
    fn code(self, ctx: &TcContext) -> i32;
}

impl Verdict for Result<i32, Drop> {
    #[inline(always)]
    fn code(self, ctx: &TcContext) -> i32 {
        match self {
            Ok(code) => code,
            Err(Drop(cause)) => {
                account(ctx, cause);
                TC_ACT_SHOT
            }
        }
    }
}

/// A function of its own, so that it costs the good path nothing.
#[inline(never)]
fn account(ctx: &TcContext, cause: DropCause) {
    add_one(&DROPS, cause as u32);
    if let Some(counters) = counters(frame::ifindex(ctx)) {
        counters.dropped += 1;
    }
    if !cause.is_expected() && within_rate() {
        tell(ctx, cause);
    }
}

fn within_rate() -> bool {
    let Some(rate) = RATE.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the entry is of this CPU, and a tc program is not interrupted by another.
    let rate: &mut Rate = unsafe { &mut *rate };
    // SAFETY: the helper has no conditions.
    let second = unsafe { bpf_ktime_get_ns() } / 1_000_000_000;
    if rate.second != second {
        *rate = Rate { second, events: 0 };
    }
    rate.events += 1;
    let within = rate.events <= u64::from(EVENTS_PER_SECOND);
    if !within {
        count(Count::EventLimited);
    }
    within
}

fn tell(ctx: &TcContext, cause: DropCause) {
    let protocol = frame::protocol(ctx);
    let (source, destination) = addresses(ctx, protocol);
    let event = DropEvent {
        cause: cause as u32,
        ifindex: frame::ifindex(ctx),
        vid: frame::vlan(ctx).unwrap_or(0),
        protocol: u32::from(u16::from_be(protocol)),
        source,
        destination,
    };
    match EVENTS.reserve::<DropEvent>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => count(Count::EventLost),
    }
}

fn addresses(ctx: &TcContext, protocol: u16) -> (Ip, Ip) {
    let known = match protocol {
        ether_type::IPV4 => frame::load::<Ipv4>(ctx).map(|frame| {
            let ip = frame.network;
            (frame::mapped(ip.source), frame::mapped(ip.destination))
        }),
        ether_type::IPV6 => {
            frame::load::<Ipv6>(ctx).map(|frame| (frame.network.source, frame.network.destination))
        }
        ether_type::ARP => frame::load::<Arp>(ctx).map(|frame| {
            let arp = frame.network;
            (frame::mapped(arp.sender_ip()), frame::mapped(arp.target_ip()))
        }),
        _ => return ([0; 4], [0; 4]),
    };
    known.unwrap_or(([0; 4], [0; 4]))
}
