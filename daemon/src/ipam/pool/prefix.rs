//! Prefixes of an ENI: many addresses that come and go together.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::shelf::{Family, Shelf, Slot, SlotState};
use crate::ipam::lot::Lot;

/// One prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// It is to become empty; served from again after this.
    pub(crate) frozen_until: Option<Duration>,
    /// IPv6: so many of its addresses, from the first on, have or had a slot.
    touched: u32,
}

impl Shelf {
    /// The prefix of an address.
    pub(super) fn prefix_of(&self, address: IpAddr) -> Option<IpNetwork> {
        self.prefixes.keys().find(|prefix| prefix.contains(address)).copied()
    }

    /// How many prefixes of a family there are.
    pub(crate) fn prefixes(&self, family: Family) -> u32 {
        let of = self.prefixes.keys().filter(|prefix| Family::of(prefix.ip()) == family);
        u32::try_from(of.count()).unwrap_or(u32::MAX)
    }

    /// Whether it has this prefix.
    pub(crate) fn has_prefix(&self, prefix: &IpNetwork) -> bool {
        self.prefixes.contains_key(prefix)
    }

    /// How many of the ENI's places for a family are taken: an address of its own takes one, and so
    /// does a prefix.
    pub(crate) fn places(&self, family: Family) -> u32 {
        let single =
            |(address, slot): &(&IpAddr, &Slot)| Family::of(**address) == family && !slot.prefixed;
        let singles = u32::try_from(self.slots.iter().filter(single).count());
        singles.unwrap_or(u32::MAX).saturating_add(self.prefixes(family))
    }

    /// A prefix has come: its addresses are in `state`, but for those that are known already.
    pub(crate) fn put_prefix(&mut self, prefix: IpNetwork, state: &SlotState, now: Duration) {
        self.prefixes.entry(prefix).or_default();
        for (address, slot) in &mut self.slots {
            slot.prefixed |= prefix.contains(*address);
        }
        let IpNetwork::V4(block) = prefix else { return };
        for address in block.iter().map(IpAddr::V4) {
            if self.get(address).is_none() {
                self.put(address, false, state.clone(), now);
            }
        }
    }

    /// Only these prefixes are left.
    pub(super) fn keep_prefixes(&mut self, left: &BTreeSet<IpNetwork>) {
        let gone: Vec<_> = self.prefixes.keys().filter(|p| !left.contains(p)).copied().collect();
        for prefix in gone {
            self.remove_prefix(&prefix);
        }
    }

    /// A prefix is gone, and with it all of its addresses that no sandbox has.
    pub(crate) fn remove_prefix(&mut self, prefix: &IpNetwork) {
        self.prefixes.remove(prefix);
        self.slots
            .retain(|address, slot| !prefix.contains(*address) || slot.state.owner().is_some());
    }

    /// Addresses of prefixes that never had a slot.
    pub(super) fn untouched(&self, family: Family) -> u32 {
        if family == Family::V4 {
            return 0;
        }
        let prefixes = self.prefixes.iter().filter(|(prefix, _)| prefix.is_ipv6());
        let left = prefixes.map(|(_, prefix)| Lot::V6_PREFIX.saturating_sub(prefix.touched));
        left.sum()
    }

    /// Makes a slot for the next address of an IPv6 prefix.
    pub(super) fn touch(&mut self, now: Duration) -> Option<IpAddr> {
        for (network, prefix) in &mut self.prefixes {
            let IpNetwork::V6(network) = network else { continue };
            while prefix.touched < Lot::V6_PREFIX {
                prefix.touched += 1;
                let address = u128::from(network.network()) + u128::from(prefix.touched);
                let address = IpAddr::V6(Ipv6Addr::from(address));
                if self.slots.contains_key(&address) {
                    continue;
                }
                let state = SlotState::Idle;
                self.slots
                    .insert(address, Slot { primary: false, prefixed: true, state, since: now });
                return Some(address);
            }
        }
        None
    }

    /// IPv4 prefixes that nobody has an address of, and how many idle addresses each would take along.
    pub(crate) fn spare_prefixes(&self) -> Vec<(Ipv4Network, u32)> {
        self.v4_prefixes()
            .filter_map(|prefix| {
                let free = |state: &SlotState| matches!(state, SlotState::Idle | SlotState::Frozen);
                let all_free = self.of(prefix).all(|slot| free(&slot.state) && !slot.primary);
                all_free.then(|| (prefix, self.idle_of(prefix)))
            })
            .collect()
    }

    /// The prefix that is the nearest to being empty, with its number of idle addresses.
    pub(crate) fn thinnest_prefix(&self) -> Option<(Ipv4Network, u32)> {
        let thawed = self.v4_prefixes().filter(|prefix| {
            let prefix = self.prefixes.get(&IpNetwork::V4(*prefix));
            prefix.is_some_and(|prefix| prefix.frozen_until.is_none())
        });
        let in_part = thawed.map(|prefix| (prefix, self.idle_of(prefix)));
        in_part.filter(|(_, idle)| *idle > 0).max_by_key(|(prefix, idle)| (*idle, prefix.ip()))
    }

    /// Nobody new is served from it until then.
    pub(crate) fn freeze(&mut self, prefix: Ipv4Network, until: Duration, now: Duration) {
        if let Some(found) = self.prefixes.get_mut(&IpNetwork::V4(prefix)) {
            found.frozen_until = Some(until);
        }
        self.change(prefix, &SlotState::Idle, &SlotState::Frozen, now);
    }

    /// Serves again from prefixes that were frozen, `now` only from those whose time is over unless
    /// `all`. Whether there were any.
    pub(crate) fn thaw(&mut self, now: Duration, all: bool) -> bool {
        let over = |prefix: &Prefix| prefix.frozen_until.is_some_and(|until| all || until <= now);
        let is_over =
            |prefix: &Ipv4Network| self.prefixes.get(&IpNetwork::V4(*prefix)).is_some_and(over);
        let frozen: Vec<_> = self.v4_prefixes().filter(is_over).collect();
        for prefix in &frozen {
            if let Some(found) = self.prefixes.get_mut(&IpNetwork::V4(*prefix)) {
                found.frozen_until = None;
            }
            self.change(*prefix, &SlotState::Frozen, &SlotState::Idle, now);
        }
        !frozen.is_empty()
    }

    /// When the first frozen prefix is served from again.
    pub(crate) fn thaws_at(&self) -> Option<Duration> {
        self.prefixes.values().filter_map(|prefix| prefix.frozen_until).min()
    }

    /// What an address becomes when it has rested.
    pub(crate) fn rested(&self, address: IpAddr) -> SlotState {
        let prefix = self.prefix_of(address).and_then(|prefix| self.prefixes.get(&prefix));
        let frozen = prefix.is_some_and(|prefix| prefix.frozen_until.is_some());
        if frozen { SlotState::Frozen } else { SlotState::Idle }
    }

    fn change(&mut self, prefix: Ipv4Network, from: &SlotState, to: &SlotState, now: Duration) {
        for (address, slot) in &mut self.slots {
            if IpNetwork::V4(prefix).contains(*address) && slot.state == *from {
                (slot.state, slot.since) = (to.clone(), now);
            }
        }
    }

    fn v4_prefixes(&self) -> impl Iterator<Item = Ipv4Network> {
        self.prefixes.keys().filter_map(|prefix| match prefix {
            IpNetwork::V4(prefix) => Some(*prefix),
            IpNetwork::V6(_) => None,
        })
    }

    fn of(&self, prefix: Ipv4Network) -> impl Iterator<Item = &Slot> {
        let inside =
            move |(address, _): &(&IpAddr, &Slot)| IpNetwork::V4(prefix).contains(**address);
        self.slots.iter().filter(inside).map(|(_, slot)| slot)
    }

    pub(super) fn idle_of(&self, prefix: Ipv4Network) -> u32 {
        let idle = self.of(prefix).filter(|slot| slot.state == SlotState::Idle).count();
        u32::try_from(idle).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use model::{IpStack, SandboxKey};

    use super::*;

    fn key(n: u32) -> SandboxKey {
        SandboxKey {
            network: "n".to_owned(),
            container_id: n.to_string(),
            ifname: "eth0".to_owned(),
        }
    }

    const NOW: Duration = Duration::from_secs(100);

    fn v4() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.put("10.0.0.9".parse().unwrap(), true, SlotState::Idle, NOW);
        shelf.put_prefix("10.0.0.16/28".parse().unwrap(), &SlotState::Idle, NOW);
        shelf
    }

    #[test]
    fn a_prefix_of_sixteen_addresses_takes_one_place() {
        let shelf = v4();
        assert_eq!((shelf.places(Family::V4), shelf.available(Family::V4)), (2, 17));
        assert!(shelf.releasable(Family::V4).is_empty(), "addresses of a prefix go with it");
    }

    #[test]
    fn addresses_of_an_ipv6_prefix_are_handed_out_one_by_one_and_never_the_first() {
        let mut shelf = Shelf::default();
        let used: IpAddr = "2408::2".parse().unwrap();
        shelf.put(used, false, SlotState::Used(key(9)), NOW);
        shelf.put_prefix("2408::/80".parse().unwrap(), &SlotState::Idle, NOW);
        let mut take = |n| shelf.take(IpStack::V6, &key(n), NOW).unwrap().to_string();
        assert_eq!([take(0), take(1), take(2)], ["2408::1", "2408::3", "2408::4"]);
        assert_eq!(shelf.available(Family::V6), 65_535 - 4);
        assert_eq!(shelf.places(Family::V6), 1);
    }

    #[test]
    fn a_frozen_prefix_serves_nobody_until_it_thaws() {
        let mut shelf = v4();
        let (prefix, idle) = shelf.thinnest_prefix().unwrap();
        assert_eq!(idle, 16);
        shelf.freeze(prefix, NOW * 2, NOW);
        assert_eq!(shelf.available(Family::V4), 1);
        assert_eq!(shelf.rested("10.0.0.20".parse().unwrap()), SlotState::Frozen);
        assert_eq!(shelf.spare_prefixes(), [(prefix, 0)]);
        assert!(!shelf.thaw(NOW, false), "too early");
        assert_eq!(shelf.thaws_at(), Some(NOW * 2));
        assert!(shelf.thaw(NOW * 2, false));
        assert_eq!(shelf.available(Family::V4), 17);
        assert_eq!(shelf.rested("10.0.0.20".parse().unwrap()), SlotState::Idle);
    }

    #[test]
    fn a_prefix_that_is_gone_leaves_only_what_a_pod_has() {
        let mut shelf = v4();
        for n in 0..2 {
            shelf.take(IpStack::V4, &key(n), NOW).unwrap();
        }
        assert!(shelf.spare_prefixes().is_empty(), "a pod has an address of it");
        shelf.remove_prefix(&"10.0.0.16/28".parse().unwrap());
        assert_eq!(shelf.iter().count(), 2);
        assert_eq!(shelf.places(Family::V4), 1, "until the cloud has its say");
    }
}
