//! Layout shared by the eBPF programs and the daemon. Every struct is `repr(C)` without padding,
//! and its size is asserted: maps are pinned, and a new layout needs a new [`SCHEMA`].
#![no_std]

/// Version of all layouts here: the pin directory is `/sys/fs/bpf/terway/v<SCHEMA>`.
pub const SCHEMA: u32 = 1;

/// Priority of `vlan_untag` on the trunk's ingress.
pub const PRIORITY_UNTAG: u16 = 20_000;
/// Priority of `vlan_tag` and `source_guard` on an ENI's egress, and of `set_mark` on a host veth.
pub const PRIORITY_GUARD: u16 = 50_001;
/// Priority of `from_pod` and `to_pod` on a host veth.
pub const PRIORITY_POD: u16 = 100;

/// Names of the maps, which are their pins' names too.
pub mod map {
    /// [`Endpoint`](crate::Endpoint) by host veth's ifindex (u32).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`Address`](crate::Address) by [`AddressKey`](crate::AddressKey).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`Member`](crate::Member) by [`MemberKey`](crate::MemberKey).
    pub const MEMBERS: &str = "MEMBERS";
    /// One [`Node`](crate::Node) at index 0.
    pub const NODE: &str = "NODE";
    /// Per-CPU u64 by [`DropCause`](crate::DropCause).
    pub const DROPS: &str = "DROPS";
    /// Per-CPU [`Counters`](crate::Counters) by host veth's ifindex (u32).
    pub const COUNTERS: &str = "COUNTERS";
    /// Ring buffer of [`DropEvent`](crate::DropEvent).
    pub const EVENTS: &str = "EVENTS";
}

/// What a pod behind a host veth may send, and the mark that routes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// IPv4 address, network order; zero if it has none.
    pub v4: [u8; 4],
    /// IPv6 address; zero if it has none.
    pub v6: [u8; 16],
    /// MAC of the pod's end.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
    /// Mark of the pod's ENI, inside `mask`.
    pub mark: u32,
    /// The bits of `skb->mark` that are ours.
    pub mask: u32,
}

/// Key of the allow-list: an address behind the link of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct AddressKey {
    /// Index of the ENI's link.
    pub ifindex: u32,
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// What an address behind an ENI is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Address {
    /// VLAN id of the member that owns it; 0 for an address of the ENI itself.
    pub vid: u32,
    /// [`Address::LIVE`] or [`Address::TOMBSTONE`].
    pub state: u32,
}

impl Address {
    /// Frames go through.
    pub const LIVE: u32 = 0;
    /// The pod is gone; frames already on their way are dropped until the address has rested.
    pub const TOMBSTONE: u32 = 1;
}

/// Key of a member of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MemberKey {
    /// Index of the trunk's link.
    pub ifindex: u32,
    /// VLAN id.
    pub vid: u32,
}

/// A member of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Member {
    /// MAC of the gateway and then MAC of the member: the first twelve bytes of a frame that the
    /// member sends.
    pub gateway_mac: [u8; 6],
    /// See `gateway_mac`.
    pub mac: [u8; 6],
    /// [`Member::OWN_MAC`] or 0 (the trunk's MAC is used, `mac` and `gateway_mac` are ignored).
    pub flags: u32,
}

impl Member {
    /// Frames carry the member's own MAC and its gateway's.
    pub const OWN_MAC: u32 = 1;
}

/// What the programs know of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// Index of the primary link (eth0).
    pub ifindex: u32,
    /// Its IPv4 address; zero if it has none.
    pub v4: [u8; 4],
    /// Its IPv6 address; zero if it has none.
    pub v6: [u8; 16],
}

/// Frames of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counters {
    /// From the pod.
    pub tx_packets: u64,
    /// From the pod.
    pub tx_bytes: u64,
    /// To the pod.
    pub rx_packets: u64,
    /// To the pod.
    pub rx_bytes: u64,
    /// From the pod, dropped.
    pub dropped: u64,
}

/// Why a frame was dropped. The numbers are indexes into the map `DROPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum DropCause {
    /// Trunk ingress: no member has this VLAN id.
    UnknownVlan = 0,
    /// Trunk ingress: the destination belongs to another member, or to none.
    WrongMember = 1,
    /// ENI egress: the source is neither the ENI's, a member's nor the node's.
    UnknownSource = 2,
    /// ENI egress: the source's pod is gone.
    RestingSource = 3,
    /// From a pod: not the pod's MAC.
    SpoofedMac = 4,
    /// From a pod: not one of the pod's addresses.
    SpoofedSource = 5,
    /// From a pod: ARP whose sender is not the pod.
    SpoofedArp = 6,
    /// From a pod: neighbour discovery whose sender or target is not the pod.
    SpoofedNd = 7,
    /// From a pod: the veth is not known.
    UnknownPod = 8,
    /// From a pod: tagged.
    TaggedByPod = 9,
    /// From a pod: link-local control frames (MLD, DAD, RS). Expected, and no sign of spoofing.
    PodControl = 10,
    /// Not understood: too short, or extension headers that cannot be followed.
    Malformed = 11,
}

impl DropCause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::UnknownVlan,
        Self::WrongMember,
        Self::UnknownSource,
        Self::RestingSource,
        Self::SpoofedMac,
        Self::SpoofedSource,
        Self::SpoofedArp,
        Self::SpoofedNd,
        Self::UnknownPod,
        Self::TaggedByPod,
        Self::PodControl,
        Self::Malformed,
    ];

    /// The name that metrics and `terwayctl` use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownVlan => "unknown_vlan",
            Self::WrongMember => "wrong_member",
            Self::UnknownSource => "unknown_source",
            Self::RestingSource => "resting_source",
            Self::SpoofedMac => "spoofed_mac",
            Self::SpoofedSource => "spoofed_source",
            Self::SpoofedArp => "spoofed_arp",
            Self::SpoofedNd => "spoofed_nd",
            Self::UnknownPod => "unknown_pod",
            Self::TaggedByPod => "tagged_by_pod",
            Self::PodControl => "pod_control",
            Self::Malformed => "malformed",
        }
    }
}

/// A drop, as told to the daemon (rate-limited per CPU).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DropEvent {
    /// A [`DropCause`].
    pub cause: u32,
    /// The link at which it happened.
    pub ifindex: u32,
    /// VLAN id, 0 if untagged.
    pub vid: u32,
    /// `EtherType`, host order.
    pub protocol: u32,
    /// As in [`AddressKey`].
    pub source: [u8; 16],
    /// As in [`AddressKey`].
    pub destination: [u8; 16],
}

const _: () = {
    assert!(size_of::<Endpoint>() == 36);
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<Address>() == 8);
    assert!(size_of::<MemberKey>() == 8);
    assert!(size_of::<Member>() == 16);
    assert!(size_of::<Node>() == 24);
    assert!(size_of::<Counters>() == 40);
    assert!(size_of::<DropEvent>() == 48);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use crate::{Address, AddressKey, Counters, DropEvent, Endpoint, Member, MemberKey, Node};

    // SAFETY: each is `repr(C)`, Copy, without padding and valid for every bit pattern.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AddressKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MemberKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Member {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Node {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DropEvent {}
}
