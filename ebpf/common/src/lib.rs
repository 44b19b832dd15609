//! Layout shared by the eBPF programs and the daemon. Every struct is `repr(C)` without padding,
//! and its size is asserted: maps are pinned, and a new layout needs a new [`SCHEMA`].
#![no_std]

/// Version of all layouts here: the pin directory is `/sys/fs/bpf/terway/v<SCHEMA>`.
pub const SCHEMA: u32 = 1;

/// Priority of `vlan_untag` and `eni_ingress` on an ENI's ingress.
pub const PRIORITY_UNTAG: u16 = 20_000;
/// Priority of `vlan_tag` and `source_guard` on an ENI's egress, and of `set_mark` on a host veth.
pub const PRIORITY_GUARD: u16 = 50_001;
/// Priority of `from_pod` and `to_pod` on a host veth.
pub const PRIORITY_POD: u16 = 100;

/// Drop events per CPU and second; what is above is only counted ([`Count::EventLimited`]).
pub const EVENTS_PER_SECOND: u32 = 1000;

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
    /// Per-CPU u64 by [`Count`](crate::Count).
    pub const COUNTS: &str = "COUNTS";
    /// Per-CPU [`Counters`](crate::Counters) by host veth's ifindex (u32).
    pub const COUNTERS: &str = "COUNTERS";
    /// Ring buffer of [`DropEvent`](crate::DropEvent).
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU [`Rate`](crate::Rate) at index 0.
    pub const RATE: &str = "RATE";
}

/// How many entries the maps hold; [`EVENTS`](size::EVENTS) is in bytes.
pub mod size {
    use crate::{Count, DropCause};

    /// Pods of a node, with room for those that are being replaced.
    pub const ENDPOINTS: u32 = 4096;
    /// Two families for each pod, and tombstones.
    pub const ADDRESSES: u32 = 4 * ENDPOINTS;
    /// Members of all trunks, and one record for each ENI.
    pub const MEMBERS: u32 = 2048;
    /// One for each endpoint.
    pub const COUNTERS: u32 = ENDPOINTS;
    /// One for each cause.
    pub const DROPS: u32 = array(DropCause::ALL.len());
    /// One for each count.
    pub const COUNTS: u32 = array(Count::ALL.len());
    /// Bytes: 4096 events and more.
    pub const EVENTS: u32 = 256 * 1024;

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "`try_from` is not const, and the arrays above are short"
    )]
    const fn array(length: usize) -> u32 {
        length as u32
    }
}

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d`: 16 bytes in network order, kept as
/// the words that a program compares.
pub type Ip = [u32; 4];

/// A MAC address: 6 bytes in network order, kept as the words that a program compares.
pub type MacWords = [u16; 3];

/// The third word of an IPv4 address in an [`Ip`]; the first two are 0.
pub const V4_MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// What a pod behind a host veth may send, and the mark that routes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// IPv6 address; zero if it has none.
    pub v6: Ip,
    /// IPv4 address, network order; zero if it has none.
    pub v4: u32,
    /// Mark of the pod's ENI, inside `mask`.
    pub mark: u32,
    /// The bits of `skb->mark` that are ours.
    pub mask: u32,
    /// MAC of the pod's end.
    pub mac: MacWords,
    /// Zero.
    pub pad: u16,
}

/// Key of the allow-list: an address behind the link of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct AddressKey {
    /// Index of the ENI's link.
    pub ifindex: u32,
    /// The address.
    pub address: Ip,
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
    /// Frames go through, and who asks for the address is answered.
    pub const LIVE: u32 = 0;
    /// The pod is gone; frames already on their way are dropped until the address has rested.
    pub const TOMBSTONE: u32 = 1;
}

/// Key of a member of a trunk, or of an ENI itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MemberKey {
    /// Index of the ENI's link.
    pub ifindex: u32,
    /// VLAN id; 0 is the ENI itself.
    pub vid: u32,
}

/// A member of a trunk, or an ENI itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Member {
    /// MAC of the gateway and then MAC of the member: the first twelve bytes of a frame that the
    /// member sends. Of an ENI itself only `mac` is used.
    pub gateway_mac: MacWords,
    /// See `gateway_mac`.
    pub mac: MacWords,
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
    /// Its IPv6 address; zero if it has none.
    pub v6: Ip,
    /// Its IPv4 address, network order; zero if it has none.
    pub v4: u32,
    /// Index of the primary link (eth0); 0 if it is not known.
    pub ifindex: u32,
    /// The bits of `skb->mark` that are ours: cleared on what is sent by the primary link, or the
    /// mark would choose the table of the ENI that the frame is to leave.
    pub mask: u32,
}

/// Frames of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counters {
    /// From the pod; a frame that the kernel has still to cut (GSO) counts as what it becomes.
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

/// The events that one CPU sent within one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Since boot.
    pub second: u64,
    /// How many.
    pub events: u64,
}

/// What the programs count beside drops. The numbers are indexes into the map `COUNTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Count {
    /// Trunk ingress: frames of members, whose tag was taken off.
    Untagged = 0,
    /// Trunk egress: frames of members, which were tagged.
    Tagged = 1,
    /// ENI egress: frames with the node's source, sent by its primary link instead.
    Redirected = 2,
    /// ENI ingress: ARP requests answered.
    ArpAnswered = 3,
    /// ENI ingress: neighbour solicitations answered.
    NdAnswered = 4,
    /// Drop events not sent because there were more than [`EVENTS_PER_SECOND`].
    EventLimited = 5,
    /// Drop events not sent because the ring buffer was full.
    EventLost = 6,
}

impl Count {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Untagged,
        Self::Tagged,
        Self::Redirected,
        Self::ArpAnswered,
        Self::NdAnswered,
        Self::EventLimited,
        Self::EventLost,
    ];

    /// The name that metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untagged => "untagged",
            Self::Tagged => "tagged",
            Self::Redirected => "redirected",
            Self::ArpAnswered => "arp_answered",
            Self::NdAnswered => "nd_answered",
            Self::EventLimited => "event_limited",
            Self::EventLost => "event_lost",
        }
    }
}

/// Why a frame was dropped. The numbers are indexes into the map `DROPS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum DropCause {
    /// ENI ingress or egress: no member has this VLAN id.
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
    /// Not understood: too short, neither IP nor ARP, or extension headers that cannot be followed.
    Malformed = 11,
    /// Trunk ingress: tagged frames that no pod needs (multicast, broadcast, router
    /// advertisements, requests for addresses that are not the member's). Expected.
    VlanControl = 12,
}

impl DropCause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
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
        Self::VlanControl,
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
            Self::VlanControl => "vlan_control",
        }
    }

    /// Whether a healthy node has such drops all the time: counted, but no event.
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::PodControl | Self::VlanControl)
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
    /// Source address; of ARP the sender's; zero if there is none.
    pub source: Ip,
    /// Destination address; of ARP the target's; zero if there is none.
    pub destination: Ip,
}

const _: () = {
    assert!(size_of::<Endpoint>() == 36);
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<Address>() == 8);
    assert!(size_of::<MemberKey>() == 8);
    assert!(size_of::<Member>() == 16);
    assert!(size_of::<Node>() == 28);
    assert!(size_of::<Rate>() == 16);
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
