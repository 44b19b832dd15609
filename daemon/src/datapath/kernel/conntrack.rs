//! Connections that the kernel remembers (ctnetlink): those of an address are deleted one by one,
//! each by its own tuple and number.
//!
//! What netfilter calls a flush deletes all that an optional filter does not spare, and is never
//! sent: a kernel before 5.8 does not know the filter, 6.6 refuses it, 6.12 takes it, and in 6.18 its
//! comparison of IPv6 addresses is the wrong way round (`ctnetlink_filter_match_tuple`). A message
//! that names an entry can only delete that entry, on every kernel.
//!
//! Nor is the dump filtered. Each address would need four, for it has four places in an entry, and
//! one that finds little goes through the whole table with softirqs off (27 ms with 200,000
//! entries). Without a filter the kernel stops whenever 32 KiB are full; the whole is 0.2 s.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::errno;
use super::socket::{Request, Socket};

/// How many connections of this namespace the kernel remembers; there is no such file without
/// conntrack.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// How often is looked until each connection that was seen was also deleted by us.
const LOOKS: u32 = 3;
/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of a type.
const SUBSYSTEM: u16 = 1 << 8;
/// Bytes of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

// Of `linux/netfilter/nfnetlink_conntrack.h`.
const CT_GET: u16 = SUBSYSTEM | 1;
const CT_DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_DST: u16 = 4;
/// The upper bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Bytes of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;
const AF_UNSPEC: u8 = 0;

/// Why connections are still remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConntrackError {
    #[error("the kernel tracks connections and does not show them")]
    Unseen(#[source] io::Error),
    #[error("cannot read the connections")]
    Read(#[source] io::Error),
    #[error("cannot delete a connection")]
    Delete(#[source] io::Error),
    #[error("the kernel shows connections and does not find them when they are to be deleted")]
    Stuck,
}

/// Deletes all connections of the caller's namespace in which one of `addresses` has a part, before
/// or after translation. How many there were.
pub(crate) fn flush(addresses: &BTreeSet<IpAddr>) -> Result<usize, ConntrackError> {
    let mut deleted = 0;
    if count().map_err(ConntrackError::Read)? == 0 {
        return Ok(deleted);
    }
    let mut socket = Socket::of(NETLINK_NETFILTER).map_err(unseen)?;
    for _ in 0..LOOKS {
        let Pass { gone, unknown } = pass(&mut socket, addresses)?;
        deleted += gone;
        if unknown == 0 {
            return Ok(deleted);
        }
    }
    Err(ConntrackError::Stuck)
}

/// What became of the deletions of one pass.
struct Pass {
    gone: usize,
    /// The kernel did not find the connection: it has ended by itself, or was not understood.
    unknown: usize,
}

fn pass(
    socket: &mut Socket<Message>,
    addresses: &BTreeSet<IpAddr>,
) -> Result<Pass, ConntrackError> {
    let mut deletions = Vec::new();
    let look = |entry: Message| {
        if entry.has_any(addresses) {
            deletions.extend(entry.deletion().map(|message| Request::new(message, 0)));
        }
    };
    socket.dump_each(&Message::dump(), look).map_err(unseen)?;
    let mut pass = Pass { gone: 0, unknown: 0 };
    for answer in socket.run(deletions).map_err(ConntrackError::Delete)? {
        match answer {
            Ok(()) => pass.gone += 1,
            Err(error) if errno(&error) == Some(Errno::ENOENT) => pass.unknown += 1,
            Err(error) => return Err(ConntrackError::Delete(error)),
        }
    }
    Ok(pass)
}

fn count() -> io::Result<u32> {
    match fs::read_to_string(COUNT) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Without ctnetlink the kernel knows neither the protocol nor the message.
fn unseen(error: io::Error) -> ConntrackError {
    match errno(&error) {
        Some(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT) => {
            ConntrackError::Unseen(error)
        }
        _ => ConntrackError::Read(error),
    }
}

/// A message of ctnetlink; the kernel's describes one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    kind: u16,
    family: u8,
    attributes: Vec<u8>,
}

impl Message {
    /// Asks for all.
    const fn dump() -> Self {
        Self { kind: CT_GET, family: AF_UNSPEC, attributes: Vec::new() }
    }

    fn has_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let tuples = attributes(&self.attributes);
        let mut tuples = tuples.filter(|one| matches!(one.kind, CTA_TUPLE_ORIG | CTA_TUPLE_REPLY));
        tuples.any(|tuple| ends(tuple.value).any(|end| addresses.contains(&end)))
    }

    /// Deletes this connection and no other: `None` if it cannot be named, for a message without a
    /// tuple would delete all.
    fn deletion(&self) -> Option<Self> {
        let (mut bytes, mut tuple) = (Vec::new(), false);
        for attribute in attributes(&self.attributes) {
            if matches!(attribute.kind, CTA_TUPLE_ORIG | CTA_ZONE | CTA_ID) {
                tuple |= attribute.kind == CTA_TUPLE_ORIG;
                bytes.extend_from_slice(attribute.whole);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        tuple.then_some(Self { kind: CT_DELETE, family: self.family, attributes: bytes })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        FAMILY_HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        buffer[0] = self.family;
        buffer[FAMILY_HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            kind: header.message_type,
            family: payload.first().copied().unwrap_or(AF_UNSPEC),
            attributes: payload.get(FAMILY_HEADER..).unwrap_or_default().to_vec(),
        })
    }
}

struct Attribute<'bytes> {
    kind: u16,
    whole: &'bytes [u8],
    value: &'bytes [u8],
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let &[length, more, kind, flags] = bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([length, more]));
        let kind = u16::from_ne_bytes([kind, flags]) & NLA_TYPE_MASK;
        let whole = bytes.get(..length)?;
        let value = whole.get(ATTRIBUTE_HEADER..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, whole, value })
    })
}

/// Source and destination of a tuple.
fn ends(tuple: &[u8]) -> impl Iterator<Item = IpAddr> {
    let ips = attributes(tuple).filter(|attribute| attribute.kind == CTA_TUPLE_IP);
    let ends = ips.flat_map(|ip| attributes(ip.value));
    let ends = ends.filter(|end| (CTA_IP_V4_SRC..=CTA_IP_V6_DST).contains(&end.kind));
    ends.filter_map(|end| {
        let v4 = <[u8; 4]>::try_from(end.value).ok().map(IpAddr::from);
        v4.or_else(|| <[u8; 16]>::try_from(end.value).ok().map(IpAddr::from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AF_INET: u8 = 2;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let ip = [attribute(1, &source), attribute(2, &destination)].concat();
        let proto = [attribute(1, &[17]), attribute(2, &[0, 53]), attribute(3, &[0, 54])].concat();
        let nested = 0x8000;
        let inner = [attribute(nested | 1, &ip), attribute(nested | 2, &proto)].concat();
        attribute(nested | kind, &inner)
    }

    fn entry(attributes: &[Vec<u8>]) -> Message {
        Message { kind: SUBSYSTEM, family: AF_INET, attributes: attributes.concat() }
    }

    #[test]
    fn every_end_of_both_directions_is_seen() {
        let entry = entry(&[
            tuple(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 0, 0, 2]),
            tuple(CTA_TUPLE_REPLY, [10, 0, 0, 3], [10, 0, 0, 4]),
            tuple(14, [10, 0, 0, 5], [10, 0, 0, 5]),
        ]);
        let seen = |last: u8| entry.has_any(&[IpAddr::from([10, 0, 0, last])].into());
        assert_eq!((0..7).filter(|last| seen(*last)).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_deletion_names_the_tuple_the_zone_and_the_number_and_nothing_else() {
        let original = tuple(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 0, 0, 2]);
        let [status, id] = [attribute(3, &[0, 0, 0, 8]), attribute(CTA_ID, &[1, 2, 3, 4])];
        let zone = attribute(CTA_ZONE, &[0, 7]);
        let reply = tuple(CTA_TUPLE_REPLY, [10, 0, 0, 2], [10, 0, 0, 1]);
        let whole = entry(&[original.clone(), reply.clone(), zone.clone(), status, id.clone()]);
        let deletion = whole.deletion().unwrap();
        assert_eq!(deletion.message_type(), 0x102);
        let mut bytes = vec![0xff; deletion.buffer_len()];
        deletion.serialize(&mut bytes);
        let expected = [vec![AF_INET, 0, 0, 0], original, zone, id].concat();
        assert_eq!(bytes, expected);
        // Without a tuple it would be a flush of everything.
        assert_eq!(entry(&[reply]).deletion(), None);
        assert_eq!(entry(&[]).deletion(), None);
    }

    #[test]
    fn what_is_cut_short_names_nobody() {
        let whole = tuple(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 0, 0, 2]);
        for length in 0..whole.len() {
            let cut = entry(&[whole[..length].to_vec()]);
            assert!(!cut.has_any(&[IpAddr::from([10, 0, 0, 1])].into()), "{length}");
            assert_eq!(cut.deletion(), None, "{length}");
        }
        assert!(entry(&[whole]).deletion().is_some());
    }
}
