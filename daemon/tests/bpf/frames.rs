//! Frames, byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Destination, source, `EtherType`, payload.
pub(crate) fn ethernet(destination: Mac, source: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let ether_type = ether_type.to_be_bytes();
    [&destination[..], &source, &ether_type, payload].concat()
}

/// The same frame with a tag behind its MACs.
pub(crate) fn tagged(frame: &[u8], kind: u16, vid: u16) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &kind.to_be_bytes(), &vid.to_be_bytes(), rest].concat()
}

/// An IPv4 header and what it carries.
pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    ipv4_with(source, destination, 0, &[], payload)
}

/// With a fragment field and options (a multiple of 4 bytes).
pub(crate) fn ipv4_with(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let length = u16::try_from(20 + options.len() + payload.len()).unwrap().to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let mut header = vec![0x40 | words, 0, length[0], length[1], 0, 1, fragment[0], fragment[1]];
    header.extend([64, UDP, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(options);
    let checksum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    header.extend(payload);
    header
}

/// UDP from port 7 to port 7.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    [&[0, 7, 0, 7, length[0], length[1], 0, 0], payload].concat()
}

/// An IPv6 header and what it carries.
pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let start = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    [&start[..], &source.octets(), &destination.octets(), payload].concat()
}

/// An extension header of eight bytes.
pub(crate) fn extension(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 0, 1, 4, 0, 0, 0, 0], payload].concat()
}

/// A fragment header with an offset in eights.
pub(crate) fn fragment(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let offset = (offset << 3 | 1).to_be_bytes();
    [&[next, 0, offset[0], offset[1], 0, 0, 0, 9], payload].concat()
}

/// `ICMPv6` of a type with a target, and options.
pub(crate) fn neighbour(kind: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
}

/// The option with a link-layer address: 1 of the source, 2 of the target.
pub(crate) fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

/// 1 asks, 2 answers.
pub(crate) fn arp(
    operation: u8,
    (sender_mac, sender): (Mac, Ipv4Addr),
    (target_mac, target): (Mac, Ipv4Addr),
) -> Vec<u8> {
    let start = [0, 1, 8, 0, 6, 4, 0, operation];
    [&start[..], &sender_mac, &sender.octets(), &target_mac, &target.octets()].concat()
}

/// The one's complement sum of everything, as it stands in a header.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The sum over an `ICMPv6` message and its pseudo-header: 0 if its checksum is right.
pub(crate) fn icmpv6_checksum(frame: &[u8]) -> u16 {
    let (ip, message) = frame[14..].split_at(40);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    checksum(&[&ip[8..40], &length, &[0, 0, 0, ICMPV6], message])
}
