//! Layout shared by the VPC's tc programs and the lab. Every struct is `repr(C)` without padding,
//! and its size is asserted.
#![no_std]

/// Names of the programs.
pub mod program {
    /// On the ingress of every NIC's port: what the node sent.
    pub const FROM_NODE: &str = "from_node";
    /// On the egress of every ENI's port: what the VPC sends to it.
    pub const TO_ENI: &str = "to_eni";
    /// On the ingress of the link to the outside.
    pub const FROM_OUTSIDE: &str = "from_outside";
}

/// Names of the maps.
pub mod map {
    /// [`Port`](crate::Port) by [`PortKey`](crate::PortKey).
    pub const PORTS: &str = "PORTS";
    /// [`Delivery`](crate::Delivery) by the ifindex of an ENI's port (u32).
    pub const DELIVERIES: &str = "DELIVERIES";
    /// [`Owner`](crate::Owner) by prefix: 128 bits, IPv4 as `::ffff:a.b.c.d`.
    pub const OWNERS: &str = "OWNERS";
    /// Per-CPU [`Counters`](crate::Counters) by number of the ENI (u32).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`Dropped`](crate::Dropped) by [`DroppedKey`](crate::DroppedKey).
    pub const DROPPED: &str = "DROPPED";
    /// [`Numbered`](crate::Numbered) by [`Stream`](crate::Stream); of the stranger.
    pub const STREAMS: &str = "STREAMS";
}

/// MAC of every gateway, and of every port of the VPC.
pub const GATEWAY_MAC: [u8; 6] = [0xee, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Link-local address of every gateway: the EUI-64 of [`GATEWAY_MAC`].
pub const GATEWAY_LINK_LOCAL: [u8; 16] =
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xec, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff];

/// Number of the outside, which has counters as an ENI has.
pub const OUTSIDE: u32 = 1;
/// Owner of what is neither an ENI's nor the outside's: services of the VPC itself.
pub const SERVICES: u32 = 2;
/// The first number of an ENI.
pub const FIRST_ENI: u32 = 3;
/// No number.
pub const NOBODY: u32 = 0;

/// Who sends through a NIC's port: the NIC itself (`vid` 0), or a member of the trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct PortKey {
    /// Index of the NIC's port.
    pub ifindex: u32,
    /// VLAN id; 0 for the NIC itself.
    pub vid: u32,
}

/// What an ENI may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// Number of the ENI.
    pub eni: u32,
    /// Number of its vSwitch.
    pub vswitch: u32,
    /// A member's port in the VPC; 0 if frames stay where they came in.
    pub ifindex: u32,
    /// Largest packet, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// [`Port::TRUNK`] and so on.
    pub flags: u32,
    /// The vSwitch's gateway.
    pub gateway_v4: [u8; 4],
    /// The vSwitch's gateway; zero if it has no IPv6.
    pub gateway_v6: [u8; 16],
    /// Source MAC of its frames.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

impl Port {
    /// Takes tagged frames.
    pub const TRUNK: u32 = 1;
    /// A source must be the ENI's own address.
    pub const SOURCE_CHECK: u32 = 2;
    /// Answers ARP and NS not only for the gateway but for every address of the vSwitch.
    pub const ANSWER_VSWITCH: u32 = 4;
    /// The VPC asks for the ENI's MAC: answers go to its stack.
    pub const ASK: u32 = 8;
}

/// How frames get from an ENI's port in the VPC to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Delivery {
    /// Number of the ENI.
    pub eni: u32,
    /// Index of the trunk's port; 0 if the ENI has a NIC of its own.
    pub trunk_ifindex: u32,
    /// VLAN id to push; 0 if the ENI has a NIC of its own.
    pub vid: u32,
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Number of the ENI, or [`OUTSIDE`], or [`SERVICES`].
    pub eni: u32,
    /// Number of the trunk whose member it is; [`NOBODY`] if it is none.
    pub trunk: u32,
    /// Number of the vSwitch.
    pub vswitch: u32,
}

/// Frames of one ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// From the ENI into the VPC.
    pub admitted: u64,
    /// From the VPC to the ENI.
    pub delivered: u64,
    /// From the ENI and swallowed: multicast, link-local, DAD, gratuitous ARP.
    pub control: u64,
    /// ARP and NS from the ENI that were answered.
    pub answered: u64,
    /// ARP and NS from the ENI for an address that is not answered for.
    pub unanswered: u64,
    /// From the ENI and dropped, by [`DropCause`].
    pub drops: [u64; DropCause::ALL.len()],
}

/// Why a port dropped a frame. The numbers are indexes into [`Counters::drops`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DropCause {
    /// The trunk has no member with this VLAN id.
    UnknownVlan = 0,
    /// A tag, and the NIC is no trunk.
    TagOnNonTrunk = 1,
    /// The source MAC is not the ENI's.
    SourceMac = 2,
    /// The destination MAC is not the gateway's.
    DestinationMac = 3,
    /// ARP whose sender is not the ENI.
    ArpSender = 4,
    /// Neighbour discovery whose sender or target is not the ENI.
    NdSender = 5,
    /// The source address is not assigned to the ENI.
    SourceAddress = 6,
    /// The source address is a member's, and the frame has no tag.
    UntaggedMember = 7,
    /// Nobody owns the destination.
    NoOwner = 8,
    /// Larger than the MTU.
    Oversize = 9,
    /// Neither IP nor ARP, or too short.
    Malformed = 10,
}

impl DropCause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::UnknownVlan,
        Self::TagOnNonTrunk,
        Self::SourceMac,
        Self::DestinationMac,
        Self::ArpSender,
        Self::NdSender,
        Self::SourceAddress,
        Self::UntaggedMember,
        Self::NoOwner,
        Self::Oversize,
        Self::Malformed,
    ];

    /// As people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownVlan => "unknown VLAN",
            Self::TagOnNonTrunk => "tag on a non-trunk",
            Self::SourceMac => "source MAC not the ENI's",
            Self::DestinationMac => "destination MAC not the gateway's",
            Self::ArpSender => "ARP sender not assigned",
            Self::NdSender => "ND sender not assigned",
            Self::SourceAddress => "source address not assigned",
            Self::UntaggedMember => "untagged with a member's address",
            Self::NoOwner => "destination nobody owns",
            Self::Oversize => "above the MTU",
            Self::Malformed => "malformed",
        }
    }
}

/// Dropped frames that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct DroppedKey {
    /// Number of the ENI (of the trunk for an unknown VLAN).
    pub eni: u32,
    /// A [`DropCause`].
    pub cause: u32,
    /// VLAN id; 0 if untagged.
    pub vid: u32,
    /// `EtherType`, host order.
    pub protocol: u32,
    /// As in [`map::OWNERS`]; zero if it was not read.
    pub source: [u8; 16],
    /// As in [`map::OWNERS`]; zero if it was not read.
    pub destination: [u8; 16],
}

/// How often, and how they looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Dropped {
    /// Approximate where several CPUs drop at once; [`Counters::drops`] is exact.
    pub frames: u64,
    /// Source MAC of the last one.
    pub source_mac: [u8; 6],
    /// Destination MAC of the last one.
    pub destination_mac: [u8; 6],
    /// Length of the longest one in bytes, Ethernet header included, tag not.
    pub length: u32,
}

/// Length of a numbered datagram's payload: its number, u64 in network order.
pub const NUMBER_BYTES: u16 = 8;

/// A stream of numbered datagrams, as a stranger's program at 25000 meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Stream {
    /// 0 for what comes in by the link, 1 for what goes out.
    pub direction: u32,
    /// Destination port, host order.
    pub port: u32,
}

/// What the stranger saw of a stream. All of it came in order if `frames` is `next` and `late`
/// is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Numbered {
    /// Frames.
    pub frames: u64,
    /// Frames with a tag.
    pub tagged: u64,
    /// Frames behind one with a higher or the same number.
    pub late: u64,
    /// The highest number, and one.
    pub next: u64,
}

const _: () = {
    assert!(size_of::<Stream>() == 8);
    assert!(size_of::<Numbered>() == 32);
    assert!(size_of::<PortKey>() == 8);
    assert!(size_of::<Port>() == 48);
    assert!(size_of::<Delivery>() == 12);
    assert!(size_of::<Owner>() == 12);
    assert!(size_of::<Counters>() == 128);
    assert!(size_of::<DroppedKey>() == 48);
    assert!(size_of::<Dropped>() == 24);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use crate::{Counters, Delivery, Dropped, DroppedKey, Numbered, Owner, Port, PortKey, Stream};

    // SAFETY: each is `repr(C)`, Copy, without padding and valid for every bit pattern.
    unsafe impl aya::Pod for PortKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Delivery {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Owner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DroppedKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Dropped {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Stream {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Numbered {}
}
