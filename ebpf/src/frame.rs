//! Headers, as they lie in a frame, and how they are read.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use ebpf_common::{Ip, MacWords, V4_MAPPED};

use crate::verdict::{Drop, DropCause};

/// `EtherType`s in network order.
pub mod ether_type {
    pub const IPV4: u16 = 0x0800_u16.to_be();
    pub const ARP: u16 = 0x0806_u16.to_be();
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    pub const VLAN: u16 = 0x8100_u16.to_be();
    pub const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();
}

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;
/// Bytes of an IPv6 header.
pub const IPV6: u32 = 40;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ethernet {
    pub destination: MacWords,
    pub source: MacWords,
    pub ether_type: u16,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4 {
    pub version_and_length: u8,
    pub service: u8,
    pub total_length: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6 {
    pub version_and_class: u8,
    pub flow: [u8; 3],
    pub payload_length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Ip,
    pub destination: Ip,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub hardware_length: u8,
    pub protocol_length: u8,
    pub operation: u16,
    pub sender_mac: MacWords,
    pub sender: [u16; 2],
    pub target_mac: MacWords,
    pub target: [u16; 2],
}

impl Arp {
    pub const REQUEST: u16 = 1_u16.to_be();
    pub const REPLY: u16 = 2_u16.to_be();

    /// Whether it is about IPv4 on Ethernet.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.hardware == 1_u16.to_be()
            && self.protocol == ether_type::IPV4
            && self.hardware_length == 6
            && self.protocol_length == 4
    }

    #[inline(always)]
    pub fn sender_ip(&self) -> u32 {
        word(self.sender)
    }

    #[inline(always)]
    pub fn target_ip(&self) -> u32 {
        word(self.target)
    }
}

/// A frame from its first byte on. Two bytes in front of it align the network header.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame<T> {
    pub align: u16,
    pub ethernet: Ethernet,
    pub network: T,
}

/// Reads the Ethernet header and the network header behind it. Works on frames whose data is not
/// linear, and needs no bounds of ours.
#[inline(always)]
pub fn load<T: Copy>(ctx: &TcContext) -> Result<Frame<T>, Drop> {
    let mut frame = MaybeUninit::<Frame<T>>::uninit();
    let length = (size_of::<Frame<T>>() - 2) as u32;
    // SAFETY: two bytes into the frame there are `length` bytes.
    let result = unsafe {
        let to = frame.as_mut_ptr().cast::<u8>().add(2);
        bpf_skb_load_bytes(skb(ctx).cast(), 0, to.cast(), length)
    };
    if result != 0 {
        return Err(Drop(DropCause::Malformed));
    }
    // SAFETY: as above; the two bytes of `align` are written here.
    Ok(unsafe {
        (*frame.as_mut_ptr()).align = 0;
        frame.assume_init()
    })
}

/// Reads an IPv4 header.
#[inline(always)]
pub fn load_ipv4(ctx: &TcContext) -> Result<Frame<Ipv4>, Drop> {
    let frame = load::<Ipv4>(ctx)?;
    let version_and_length = frame.network.version_and_length;
    if version_and_length >> 4 == 4 && version_and_length & 0xf >= 5 {
        Ok(frame)
    } else {
        Err(Drop(DropCause::Malformed))
    }
}

/// Reads an IPv6 header.
#[inline(always)]
pub fn load_ipv6(ctx: &TcContext) -> Result<Frame<Ipv6>, Drop> {
    let frame = load::<Ipv6>(ctx)?;
    if frame.network.version_and_class >> 4 == 6 {
        Ok(frame)
    } else {
        Err(Drop(DropCause::Malformed))
    }
}

/// Reads what is at `offset`.
#[inline(always)]
pub fn at<T: Copy>(ctx: &TcContext, offset: u32) -> Result<T, Drop> {
    ctx.load(offset as usize).map_err(|_too_short| Drop(DropCause::Malformed))
}

#[inline(always)]
pub fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.skb.skb
}

/// The link at which the program runs.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel gave us this pointer.
    unsafe { (*skb(ctx)).ifindex }
}

/// `EtherType` behind the tag that is kept beside the frame, network order.
#[inline(always)]
pub fn protocol(ctx: &TcContext) -> u16 {
    // SAFETY: as in `ifindex`.
    unsafe { (*skb(ctx)).protocol as u16 }
}

/// The VLAN id that is kept beside the frame, if there is one. The kernel moves a tag out of the
/// frame before tc ingress.
#[inline(always)]
pub fn vlan(ctx: &TcContext) -> Option<u32> {
    // SAFETY: as in `ifindex`.
    unsafe {
        let skb = skb(ctx);
        if (*skb).vlan_present == 0 { None } else { Some((*skb).vlan_tci & 0xfff) }
    }
}

/// Whether the frame is tagged, be it inside or beside.
#[inline(always)]
pub fn is_tagged(ctx: &TcContext) -> bool {
    let protocol = protocol(ctx);
    vlan(ctx).is_some() || protocol == ether_type::VLAN || protocol == ether_type::SERVICE_VLAN
}

/// `::ffff:a.b.c.d`
#[inline(always)]
pub const fn mapped(v4: u32) -> Ip {
    [0, 0, V4_MAPPED, v4]
}

#[inline(always)]
pub fn is_unspecified(ip: &Ip) -> bool {
    ip[0] | ip[1] | ip[2] | ip[3] == 0
}

/// fe80::/10
#[inline(always)]
pub fn is_link_local(ip: &Ip) -> bool {
    ip[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be()
}

/// ff00::/8
#[inline(always)]
pub fn is_multicast(ip: &Ip) -> bool {
    ip[0] & 0xff00_0000_u32.to_be() == 0xff00_0000_u32.to_be()
}

/// ff01::/16 and ff02::/16: never leaves the link.
#[inline(always)]
pub fn is_link_multicast(ip: &Ip) -> bool {
    let group = ip[0] & 0xffff_0000_u32.to_be();
    group == 0xff01_0000_u32.to_be() || group == 0xff02_0000_u32.to_be()
}

/// 224.0.0.0/4 and 255.255.255.255, and the rest of what was class E.
#[inline(always)]
pub fn is_v4_multicast(ip: u32) -> bool {
    ip & 0xe000_0000_u32.to_be() == 0xe000_0000_u32.to_be()
}

/// 224.0.0.0/24 and 255.255.255.255: never leaves the link.
#[inline(always)]
pub fn is_v4_link_multicast(ip: u32) -> bool {
    ip & 0xffff_ff00_u32.to_be() == 0xe000_0000_u32.to_be() || ip == u32::MAX
}

/// Compared by words: a comparison of arrays becomes a call that walks bytes.
#[inline(always)]
pub fn same_ip(a: &Ip, b: &Ip) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// As [`same_ip`].
#[inline(always)]
pub fn same_mac(a: &MacWords, b: &MacWords) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2]
}

#[inline(always)]
fn word(halves: [u16; 2]) -> u32 {
    let (first, second) = (halves[0].to_ne_bytes(), halves[1].to_ne_bytes());
    u32::from_ne_bytes([first[0], first[1], second[0], second[1]])
}
