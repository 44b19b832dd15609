//! Map entries in domain types, and how they lie in the maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ebpf_common as layout;
use model::{IpPair, LinkIndex, Mac, Mark, OutOfRange, VlanId};

/// What one pod may send, by its host veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: IpPair,
    /// MAC of its end.
    pub mac: Mac,
    /// Mark of its ENI.
    pub mark: Mark,
}

/// What an address behind an ENI's link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The member that owns it; `None` for the ENI itself.
    pub vlan: Option<VlanId>,
    /// The pod is gone and its last frames are dropped.
    pub tombstone: bool,
}

/// MACs of a member that does not use its trunk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMacs {
    /// The member's own.
    pub member: Mac,
    /// Its gateway's.
    pub gateway: Mac,
}

/// The node's primary link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its index.
    pub link: LinkIndex,
    /// Its address, if it has one.
    pub v4: Option<Ipv4Addr>,
    /// Its global address, if it has one.
    pub v6: Option<Ipv6Addr>,
    /// The bits of the packet mark that are ours, as in every [`Mark`].
    pub mark_mask: u32,
}

impl From<&Endpoint> for layout::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            v6: optional_v6(endpoint.addresses.v6()),
            v4: optional_v4(endpoint.addresses.v4()),
            mark: endpoint.mark.value(),
            mask: endpoint.mark.mask(),
            mac: mac_words(endpoint.mac),
            pad: 0,
        }
    }
}

impl TryFrom<layout::Endpoint> for Endpoint {
    type Error = OutOfRange;

    fn try_from(entry: layout::Endpoint) -> Result<Self, OutOfRange> {
        let addresses = IpPair::new(known_v4(entry.v4), known_v6(entry.v6));
        Ok(Self {
            addresses: addresses.ok_or_else(|| OutOfRange {
                what: "addresses of an endpoint",
                value: "none".to_owned(),
            })?,
            mac: mac(entry.mac),
            mark: Mark::new(entry.mark, entry.mask)?,
        })
    }
}

impl From<Address> for layout::Address {
    fn from(address: Address) -> Self {
        Self {
            vid: address.vlan.map_or(0, |vlan| u32::from(vlan.get())),
            state: if address.tombstone { Self::TOMBSTONE } else { Self::LIVE },
        }
    }
}

impl TryFrom<layout::Address> for Address {
    type Error = OutOfRange;

    fn try_from(entry: layout::Address) -> Result<Self, OutOfRange> {
        let vlan = if entry.vid == 0 { None } else { Some(VlanId::try_from(entry.vid)?) };
        Ok(Self { vlan, tombstone: entry.state != layout::Address::LIVE })
    }
}

impl From<&Node> for layout::Node {
    fn from(node: &Node) -> Self {
        Self {
            v6: optional_v6(node.v6),
            v4: optional_v4(node.v4),
            ifindex: node.link.get(),
            mask: node.mark_mask,
        }
    }
}

impl TryFrom<layout::Node> for Node {
    type Error = OutOfRange;

    fn try_from(entry: layout::Node) -> Result<Self, OutOfRange> {
        Ok(Self {
            link: link(entry.ifindex)?,
            v4: known_v4(entry.v4),
            v6: known_v6(entry.v6),
            mark_mask: entry.mask,
        })
    }
}

pub(super) fn address_key(link: LinkIndex, ip: IpAddr) -> layout::AddressKey {
    let mapped = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    layout::AddressKey { ifindex: link.get(), address: words(mapped) }
}

pub(super) fn member_key(link: LinkIndex, vlan: Option<VlanId>) -> layout::MemberKey {
    let vid = vlan.map_or(0, |vlan| u32::from(vlan.get()));
    layout::MemberKey { ifindex: link.get(), vid }
}

pub(super) fn eni(mac: Mac) -> layout::Member {
    layout::Member { gateway_mac: [0; 3], mac: mac_words(mac), flags: 0 }
}

pub(super) fn member(macs: Option<MemberMacs>) -> layout::Member {
    match macs {
        Some(macs) => layout::Member {
            gateway_mac: mac_words(macs.gateway),
            mac: mac_words(macs.member),
            flags: layout::Member::OWN_MAC,
        },
        None => layout::Member { gateway_mac: [0; 3], mac: [0; 3], flags: 0 },
    }
}

pub(super) fn macs(entry: layout::Member) -> Option<MemberMacs> {
    (entry.flags & layout::Member::OWN_MAC != 0)
        .then(|| MemberMacs { member: mac(entry.mac), gateway: mac(entry.gateway_mac) })
}

pub(super) fn link(ifindex: u32) -> Result<LinkIndex, OutOfRange> {
    LinkIndex::try_from(ifindex)
}

pub(super) fn ip(entry: layout::Ip) -> IpAddr {
    Ipv6Addr::from(bytes(entry)).to_canonical()
}

pub(super) fn mac(entry: layout::MacWords) -> Mac {
    let [first, second, third] = entry.map(u16::to_ne_bytes);
    Mac::new([first[0], first[1], second[0], second[1], third[0], third[1]])
}

fn mac_words(mac: Mac) -> layout::MacWords {
    let bytes = mac.bytes();
    [0, 2, 4].map(|at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
}

fn optional_v4(ip: Option<Ipv4Addr>) -> u32 {
    ip.map_or(0, |v4| u32::from_ne_bytes(v4.octets()))
}

fn optional_v6(ip: Option<Ipv6Addr>) -> layout::Ip {
    ip.map_or([0; 4], words)
}

fn known_v4(entry: u32) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(entry.to_ne_bytes())).filter(|v4| !v4.is_unspecified())
}

fn known_v6(entry: layout::Ip) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(bytes(entry))).filter(|v6| !v6.is_unspecified())
}

fn words(ip: Ipv6Addr) -> layout::Ip {
    let bytes = ip.octets();
    [0, 4, 8, 12]
        .map(|at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

fn bytes(entry: layout::Ip) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(entry) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_comes_back_as_it_was_written() {
        for addresses in [
            IpPair::V4("10.0.0.5".parse().unwrap()),
            IpPair::V6("fd00::5".parse().unwrap()),
            IpPair::Dual("10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()),
        ] {
            let endpoint = Endpoint {
                addresses,
                mac: "00:16:3e:01:02:03".parse().unwrap(),
                mark: Mark::new(2, 0x7f).unwrap(),
            };
            let entry = layout::Endpoint::from(&endpoint);
            assert_eq!(Endpoint::try_from(entry).unwrap(), endpoint);
        }
    }

    #[test]
    fn addresses_lie_in_the_map_as_on_the_wire() {
        let link = LinkIndex::try_from(3).unwrap();
        let key = address_key(link, "10.1.2.3".parse().unwrap());
        assert_eq!(bytes(key.address), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
        for text in ["10.1.2.3", "fd00::1:2"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(address_key(link, address).address), address);
        }
        assert_eq!(layout::V4_MAPPED, key.address[2]);
    }

    #[test]
    fn a_member_with_its_own_macs_keeps_them() {
        let macs_of_its_own =
            MemberMacs { member: "00:16:3e:01:02:03".parse().unwrap(), gateway: Mac::GATEWAY };
        assert_eq!(macs(member(Some(macs_of_its_own))), Some(macs_of_its_own));
        assert_eq!(macs(member(None)), None);
    }
}
