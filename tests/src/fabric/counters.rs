//! What the ports of the VPC counted, as typed facts read from the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use model::{EniId, Mac, VlanId};
use terway_lab_ebpf_common::{Counters as Raw, Dropped, DroppedKey};

pub use terway_lab_ebpf_common::DropCause;

/// Who sent a frame into the VPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// An ENI.
    Eni(EniId),
    /// The outside client.
    Outside,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eni(eni) => eni.fmt(f),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// Frames of one ENI since it was first plugged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortCounters {
    /// From the ENI into the VPC.
    pub admitted: u64,
    /// From the VPC to the ENI.
    pub delivered: u64,
    /// From the ENI and swallowed: multicast, link-local, DAD, gratuitous ARP.
    pub control: u64,
    /// ARP and NS from the ENI that were answered.
    pub answered: u64,
    /// ARP and NS from the ENI for an address that the VPC does not answer for.
    pub unanswered: u64,
    /// From the ENI and dropped; causes that happened.
    pub drops: BTreeMap<DropCause, u64>,
}

impl PortCounters {
    /// Sums the values of all CPUs.
    pub(super) fn sum(values: &[Raw]) -> Self {
        let total = |field: fn(&Raw) -> u64| values.iter().map(field).sum();
        let drops = DropCause::ALL.into_iter().enumerate().map(|(index, cause)| {
            let sum = values.iter().filter_map(|value| value.drops.get(index)).sum();
            (cause, sum)
        });
        Self {
            admitted: total(|value| value.admitted),
            delivered: total(|value| value.delivered),
            control: total(|value| value.control),
            answered: total(|value| value.answered),
            unanswered: total(|value| value.unanswered),
            drops: drops.filter(|(_, sum)| *sum > 0).collect(),
        }
    }
}

/// Dropped frames by who sent them and why; only what happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropCounters(BTreeMap<(Sender, DropCause), u64>);

impl DropCounters {
    pub(super) fn of_ports(ports: &BTreeMap<Sender, PortCounters>) -> Self {
        let each = |(sender, counters): (&Sender, &PortCounters)| {
            let sender = sender.clone();
            counters
                .drops
                .iter()
                .map(move |(cause, frames)| ((sender.clone(), *cause), *frames))
                .collect::<Vec<_>>()
        };
        Self(ports.iter().flat_map(each).collect())
    }

    /// What was counted after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let each = self.0.iter().filter_map(|(key, frames)| {
            let more = frames.saturating_sub(before.0.get(key).copied().unwrap_or_default());
            (more > 0).then(|| (key.clone(), more))
        });
        Self(each.collect())
    }

    /// Frames of one ENI with one cause.
    pub fn of(&self, eni: &EniId, cause: DropCause) -> u64 {
        self.0.get(&(Sender::Eni(eni.clone()), cause)).copied().unwrap_or_default()
    }

    /// Frames of all ENIs with one cause.
    pub fn with(&self, cause: DropCause) -> u64 {
        self.iter().filter(|(_, of, _)| *of == cause).map(|(.., frames)| frames).sum()
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether nothing was dropped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ordered by sender, then cause.
    pub fn iter(&self) -> impl Iterator<Item = (&Sender, DropCause, u64)> {
        self.0.iter().map(|((sender, cause), frames)| (sender, *cause, *frames))
    }
}

impl fmt::Display for DropCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing dropped");
        }
        for (index, (sender, cause, frames)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{sender}: {} ({frames})", cause.name())?;
        }
        Ok(())
    }
}

/// Dropped frames that are alike. Old ones are forgotten when there are thousands of kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropRecord {
    /// Whose port dropped them.
    pub sender: Sender,
    /// Why.
    pub cause: DropCause,
    /// Their tag.
    pub vlan: Option<VlanId>,
    /// `EtherType`, e.g. 0x0800.
    pub protocol: u16,
    /// Source, or sender of ARP.
    pub source: Option<IpAddr>,
    /// Destination, or target of ARP.
    pub destination: Option<IpAddr>,
    /// How many, about.
    pub frames: u64,
    /// Of the last one.
    pub source_mac: Mac,
    /// Of the last one.
    pub destination_mac: Mac,
    /// Of the longest one, in bytes with the Ethernet header, without the tag. One that the node
    /// left whole for its NIC to cut counts as a whole.
    pub length: u32,
}

impl DropRecord {
    /// `None` if the kernel holds a number that is no cause.
    pub(super) fn new(sender: Sender, key: &DroppedKey, value: &Dropped) -> Option<Self> {
        let cause = DropCause::ALL.get(usize::try_from(key.cause).ok()?).copied()?;
        Some(Self {
            sender,
            cause,
            vlan: VlanId::try_from(key.vid).ok(),
            protocol: u16::try_from(key.protocol).ok()?,
            source: address(key.source),
            destination: address(key.destination),
            frames: value.frames,
            source_mac: Mac::new(value.source_mac),
            destination_mac: Mac::new(value.destination_mac),
            length: value.length,
        })
    }
}

fn address(bytes: [u8; 16]) -> Option<IpAddr> {
    let address = Ipv6Addr::from(bytes);
    (!address.is_unspecified()).then(|| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(eni: &str, cause: DropCause, frames: u64) -> DropCounters {
        let port = PortCounters { drops: [(cause, frames)].into(), ..PortCounters::default() };
        DropCounters::of_ports(&[(Sender::Eni(EniId::new(eni)), port)].into())
    }

    #[test]
    fn only_what_rose_is_left_of_two_moments() {
        let before = counters("eni-1", DropCause::SourceMac, 3);
        let after = counters("eni-1", DropCause::SourceMac, 5);
        let rose = after.since(&before);
        assert_eq!(rose.of(&EniId::new("eni-1"), DropCause::SourceMac), 2);
        assert_eq!(rose.to_string(), "eni-1: source MAC not the ENI's (2)");
        assert!(after.since(&after).is_empty());
        assert_eq!(after.since(&after).to_string(), "nothing dropped");
    }

    #[test]
    fn an_ipv4_address_is_read_from_its_mapped_form() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 1, 2];
        assert_eq!(address(mapped), Some(IpAddr::from([10, 0, 1, 2])));
        assert_eq!(address([0; 16]), None);
    }
}
