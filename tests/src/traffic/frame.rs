//! Frames made by hand, right or wrong in every field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::{Mac, VlanId};

const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// An Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Destination.
    pub to: Mac,
    /// Source.
    pub from: Mac,
    /// 802.1Q tag.
    pub vlan: Option<VlanId>,
    /// `EtherType`.
    pub protocol: u16,
    /// What follows.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A datagram in IPv4 or IPv6, as the addresses are.
    ///
    /// # Panics
    ///
    /// If the addresses are of different families, or the payload is above 64 KiB.
    pub fn udp(from: (Mac, SocketAddr), to: (Mac, SocketAddr), payload: &[u8]) -> Self {
        let ((from, source), (to, target)) = (from, to);
        let mut datagram = Vec::new();
        datagram.extend(source.port().to_be_bytes());
        datagram.extend(target.port().to_be_bytes());
        datagram.extend(length(payload.len().saturating_add(8)));
        datagram.extend([0, 0]);
        datagram.extend(payload);
        let sum = checksum(source.ip(), target.ip(), UDP, &datagram);
        // Zero means "none" (RFC 768).
        put(&mut datagram, 6, if sum == 0 { u16::MAX } else { sum });
        Self::ip(from, to, source.ip(), target.ip(), UDP, &datagram)
    }

    /// An ARP question: who has `target`, asked by `sender` with the MAC `sender_mac`.
    pub fn arp_request(from: Mac, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Self {
        let payload = arp(1, sender, (Mac::new([0; 6]), target));
        Self { to: Mac::new([0xff; 6]), from, vlan: None, protocol: ARP, payload }
    }

    /// An ARP answer: `sender` is at the MAC beside it.
    pub fn arp_reply(from: Mac, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        let payload = arp(2, sender, target);
        Self { to: target.0, from, vlan: None, protocol: ARP, payload }
    }

    /// A neighbour solicitation: who has `target`, asked by `sender` with the MAC `sender_mac`.
    pub fn neighbour_solicitation(from: Mac, sender: (Mac, Ipv6Addr), target: Ipv6Addr) -> Self {
        let [.., high, middle, low] = target.octets();
        let group = Ipv6Addr::new(
            0xff02,
            0,
            0,
            0,
            0,
            1,
            u16::from_be_bytes([0xff, high]),
            u16::from_be_bytes([middle, low]),
        );
        let message = neighbour(NEIGHBOUR_SOLICITATION, 0, target, 1, sender.0);
        let to = Mac::new([0x33, 0x33, 0xff, high, middle, low]);
        Self::icmpv6(from, to, sender.1, group, message)
    }

    /// A neighbour advertisement: `target` is at the MAC beside it.
    pub fn neighbour_advertisement(
        from: Mac,
        to: (Mac, Ipv6Addr),
        source: Ipv6Addr,
        target: (Mac, Ipv6Addr),
    ) -> Self {
        // Solicited, override.
        let message = neighbour(NEIGHBOUR_ADVERTISEMENT, 0x60, target.1, 2, target.0);
        Self::icmpv6(from, to.0, source, to.1, message)
    }

    /// The same with a tag.
    #[must_use]
    pub fn tagged(self, vlan: VlanId) -> Self {
        Self { vlan: Some(vlan), ..self }
    }

    /// As it is on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.to.bytes());
        bytes.extend(self.from.bytes());
        if let Some(vlan) = self.vlan {
            bytes.extend(VLAN.to_be_bytes());
            bytes.extend(vlan.get().to_be_bytes());
        }
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn icmpv6(
        from: Mac,
        to: Mac,
        source: Ipv6Addr,
        target: Ipv6Addr,
        mut message: Vec<u8>,
    ) -> Self {
        let sum = checksum(source.into(), target.into(), ICMPV6, &message);
        put(&mut message, 2, sum);
        Self::ip(from, to, source.into(), target.into(), ICMPV6, &message)
    }

    fn ip(
        from: Mac,
        to: Mac,
        source: IpAddr,
        target: IpAddr,
        protocol: u8,
        content: &[u8],
    ) -> Self {
        let mut payload = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                ipv4(source, target, protocol, content.len())
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                ipv6(source, target, protocol, content.len())
            }
            (source, target) => panic!("{source} and {target} are of different families"),
        };
        payload.extend(content);
        let protocol = if source.is_ipv4() { 0x0800 } else { 0x86dd };
        Self { to, from, vlan: None, protocol, payload }
    }
}

fn ipv4(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, content: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length(content.saturating_add(20)));
    // Identification; do not fragment; time to live.
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(target.octets());
    let sum = !fold(sum(&header));
    put(&mut header, 10, sum);
    header
}

/// Neighbour discovery wants the hop limit 255; nothing else minds.
fn ipv6(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, content: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length(content));
    header.extend([protocol, 255]);
    header.extend(source.octets());
    header.extend(target.octets());
    header
}

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        packet.extend(mac.bytes());
        packet.extend(address.octets());
    }
    packet
}

fn neighbour(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([option, 1]);
    message.extend(mac.bytes());
    message
}

/// With the pseudo header; of IPv4 and IPv6 it sums up alike.
fn checksum(source: IpAddr, target: IpAddr, protocol: u8, content: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let parts = [octets(source), octets(target), vec![0, protocol]];
    let parts = parts.iter().map(|part| sum(part)).sum::<u64>();
    let length = sum(&length(content.len()));
    !fold(parts.saturating_add(length).saturating_add(sum(content)))
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(*high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    loop {
        match u16::try_from(sum) {
            Ok(folded) => return folded,
            Err(_above) => sum = (sum >> 16).saturating_add(sum & 0xffff),
        }
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a packet is at most 64 KiB").to_be_bytes()
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    for (offset, byte) in value.to_be_bytes().into_iter().enumerate() {
        if let Some(place) = bytes.get_mut(at.saturating_add(offset)) {
            *place = byte;
        }
    }
}
