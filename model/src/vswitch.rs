//! vSwitches: their gateways, and which one a new ENI goes into.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::{OutOfRange, VSwitchId, ZoneId};

/// What is known of a vSwitch (`DescribeVSwitches`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VSwitch {
    /// Its id.
    pub id: VSwitchId,
    /// Its zone.
    pub zone: ZoneId,
    /// `CidrBlock`.
    pub v4: IpNetwork,
    /// `Ipv6CidrBlock`.
    pub v6: Option<IpNetwork>,
    /// `AvailableIpAddressCount`.
    pub available: u64,
}

/// `vswitch_selection_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectionPolicy {
    /// The first of the list that has an address.
    #[default]
    Ordered,
    /// The one with the most free addresses.
    Most,
    /// Any that has an address.
    Random,
}

impl FromStr for SelectionPolicy {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        match text {
            "ordered" => Ok(Self::Ordered),
            "most" => Ok(Self::Most),
            "random" => Ok(Self::Random),
            _ => Err(OutOfRange::new("vSwitch policy (one of ordered, most, random)", text)),
        }
    }
}

/// The vSwitch for a new ENI among `candidates` (in the order of the configuration) that lie in
/// `zone` and have an address free. `random` decides for [`SelectionPolicy::Random`].
pub fn choose<'a>(
    candidates: impl IntoIterator<Item = &'a VSwitch>,
    zone: &ZoneId,
    policy: SelectionPolicy,
    random: usize,
) -> Option<&'a VSwitch> {
    let usable: Vec<_> =
        candidates.into_iter().filter(|v| &v.zone == zone && v.available > 0).collect();
    match policy {
        SelectionPolicy::Ordered => usable.first().copied(),
        // `max_by_key` takes the last of equals; the first of the list is meant.
        SelectionPolicy::Most => usable.iter().rev().max_by_key(|v| v.available).copied(),
        SelectionPolicy::Random => {
            random.checked_rem(usable.len()).and_then(|index| usable.get(index)).copied()
        }
    }
}

/// The gateway of a vSwitch: the third address from the end of its block.
pub fn gateway(block: IpNetwork) -> Option<IpAddr> {
    let gateway = match block {
        IpNetwork::V4(block) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(block.broadcast()).checked_sub(2)?))
        }
        IpNetwork::V6(block) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(block.broadcast()).checked_sub(2)?))
        }
    };
    block.contains(gateway).then_some(gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vswitch(id: &str, zone: &str, available: u64) -> VSwitch {
        let v4 = "10.0.1.0/24".parse().unwrap();
        VSwitch { id: VSwitchId::new(id), zone: ZoneId::new(zone), v4, v6: None, available }
    }

    #[test]
    fn the_gateway_is_the_third_address_from_the_end() {
        for (block, expected) in [
            ("10.0.1.0/24", "10.0.1.253"),
            ("10.0.16.0/20", "10.0.31.253"),
            ("2408:1:2:3::/64", "2408:1:2:3:ffff:ffff:ffff:fffd"),
        ] {
            let gateway = gateway(block.parse().unwrap()).unwrap();
            assert_eq!(gateway.to_string(), expected);
        }
        assert_eq!(gateway("10.0.0.1/32".parse().unwrap()), None);
    }

    #[test]
    fn a_policy_chooses_among_those_of_the_zone_with_room() {
        let all = [
            vswitch("full", "h", 0),
            vswitch("elsewhere", "i", 9),
            vswitch("a", "h", 2),
            vswitch("b", "h", 7),
            vswitch("c", "h", 7),
        ];
        let zone = ZoneId::new("h");
        let chosen = |policy, random| choose(&all, &zone, policy, random).unwrap().id.as_str();
        assert_eq!(chosen(SelectionPolicy::Ordered, 0), "a");
        assert_eq!(chosen(SelectionPolicy::Most, 0), "b");
        assert_eq!(chosen(SelectionPolicy::Random, 5), "c");
        assert!(choose(&all, &ZoneId::new("x"), SelectionPolicy::Random, 3).is_none());
    }
}
