//! What is read of a frame.

use aya_ebpf::programs::TcContext;
use terway_lab_ebpf_common::{Dropped, DroppedKey};

use crate::maps;

pub(crate) const ETHERNET: usize = 14;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ICMPV6: u8 = 58;
const TCP: u8 = 6;

/// A frame's headers; addresses are those of ARP too (sender, target).
#[repr(C)]
pub(crate) struct Frame {
    /// VLAN id, protocol and addresses, where a record of a drop wants them.
    pub(crate) key: DroppedKey,
    /// MACs and length, likewise.
    pub(crate) last: Dropped,
    pub(crate) ifindex: u32,
    pub(crate) tagged: bool,
    /// Of IPv6.
    pub(crate) next_header: u8,
    /// Of IPv6.
    pub(crate) hop_limit: u8,
}

impl Frame {
    /// What can be read; addresses stay zero where there are none.
    #[inline(always)]
    pub(crate) fn read(ctx: &TcContext) -> Option<&'static mut Self> {
        let frame = maps::scratch()?;
        let skb = ctx.skb.skb;
        // SAFETY: the context's fields are always readable.
        let (ifindex, present, tci, length) =
            unsafe { ((*skb).ifindex, (*skb).vlan_present, (*skb).vlan_tci, (*skb).len) };
        frame.ifindex = ifindex;
        frame.tagged = present != 0;
        frame.key.vid = if present == 0 { 0 } else { tci & 0xfff };
        frame.key.protocol = 0;
        frame.key.source = [0; 16];
        frame.key.destination = [0; 16];
        frame.last.length = length;
        frame.next_header = 0;
        frame.hop_limit = 0;
        let Ok(header) = ctx.load::<[u8; ETHERNET]>(0) else { return Some(frame) };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, p0, p1] = header;
        frame.last.destination_mac = [d0, d1, d2, d3, d4, d5];
        frame.last.source_mac = [s0, s1, s2, s3, s4, s5];
        let protocol = u16::from_be_bytes([p0, p1]);
        // 0 if it is too short for what it says it is.
        frame.key.protocol = if frame.read_addresses(ctx, protocol) { protocol as u32 } else { 0 };
        Some(frame)
    }

    #[inline(always)]
    pub(crate) fn protocol(&self) -> u16 {
        self.key.protocol as u16
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> &[u8; 16] {
        &self.key.source
    }

    #[inline(always)]
    pub(crate) fn destination(&self) -> &[u8; 16] {
        &self.key.destination
    }

    #[inline(always)]
    fn read_addresses(&mut self, ctx: &TcContext, protocol: u16) -> bool {
        match protocol {
            IPV4 => match ctx.load::<[[u8; 4]; 5]>(ETHERNET) {
                Ok([[version, ..], _, _, source, destination]) => {
                    self.key.source = mapped(source);
                    self.key.destination = mapped(destination);
                    version >> 4 == 4
                }
                Err(_) => false,
            },
            ARP => match (ctx.load::<[u8; 4]>(ETHERNET + 14), ctx.load::<[u8; 4]>(ETHERNET + 24)) {
                (Ok(sender), Ok(target)) => {
                    self.key.source = mapped(sender);
                    self.key.destination = mapped(target);
                    true
                }
                _ => false,
            },
            IPV6 => match (
                ctx.load::<[u8; 8]>(ETHERNET),
                ctx.load::<[u8; 16]>(ETHERNET + 8),
                ctx.load::<[u8; 16]>(ETHERNET + 24),
            ) {
                (Ok([version, .., next_header, hop_limit]), Ok(source), Ok(destination)) => {
                    self.key.source = source;
                    self.key.destination = destination;
                    self.next_header = next_header;
                    self.hop_limit = hop_limit;
                    version >> 4 == 6
                }
                _ => false,
            },
            _ => true,
        }
    }

    /// Whether a packet, or one segment of what the node left whole, is above `mtu` bytes.
    #[inline(always)]
    pub(crate) fn exceeds(&self, ctx: &TcContext, mtu: u32) -> bool {
        // SAFETY: the context's fields are always readable.
        let segment = unsafe { (*ctx.skb.skb).gso_size };
        if segment == 0 {
            return self.last.length > mtu + ETHERNET as u32;
        }
        let (network, transport) = if self.protocol() == IPV4 {
            let header = ctx.load::<[u8; 10]>(ETHERNET).unwrap_or_default();
            ((header[0] as u32 & 0xf) * 4, header[9])
        } else {
            (40, self.next_header)
        };
        let header = if transport == TCP {
            let offset = ETHERNET + (network & 0x3c) as usize + 12;
            (ctx.load::<u8>(offset).unwrap_or_default() as u32 >> 4) * 4
        } else {
            8
        };
        segment + network + header > mtu
    }
}

/// An IPv4 address as `::ffff:a.b.c.d`.
#[inline(always)]
pub(crate) fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Compared as numbers: comparing arrays becomes a call of `bcmp`.
#[inline(always)]
pub(crate) fn same_mac(one: &[u8; 6], other: &[u8; 6]) -> bool {
    number(one) == number(other)
}

#[inline(always)]
fn number(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// See [`same_mac`].
#[inline(always)]
pub(crate) fn same_address(one: &[u8; 16], other: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*one) == u128::from_ne_bytes(*other)
}
