//! The addresses of a vSwitch: which are taken, and which is next.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::random::Random;

/// First address and the last three (`.0`, `.253` to `.255` of a /24) belong to the cloud.
const RESERVED_LAST_V4: u32 = 3;
/// First address and the last nine of a /64 belong to the cloud.
const RESERVED_LAST_V6: u128 = 9;

/// What of a vSwitch is taken.
#[derive(Debug, Clone)]
pub(crate) struct AddressPool {
    v4: Ipv4Network,
    v6: Option<Ipv6Network>,
    taken: BTreeSet<IpAddr>,
}

/// Why an address cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It lies outside of the block, or is one of the cloud's own.
    NotOfThisBlock,
    /// Somebody has it.
    Taken,
    /// None is left.
    UsedUp,
    /// The vSwitch has no IPv6 block.
    NoIpv6,
}

impl AddressPool {
    pub(crate) const fn new(v4: Ipv4Network, v6: Option<Ipv6Network>) -> Self {
        Self { v4, v6, taken: BTreeSet::new() }
    }

    /// How many IPv4 addresses a block can give at all.
    pub(crate) fn capacity(block: Ipv4Network) -> usize {
        usize::try_from(block.size()).unwrap_or(usize::MAX).saturating_sub(4)
    }

    /// Everything that is taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> impl Iterator<Item = &IpAddr> {
        self.taken.iter()
    }

    /// How many IPv4 addresses are taken.
    pub(crate) fn taken_v4(&self) -> usize {
        self.taken.iter().filter(|address| address.is_ipv4()).count()
    }

    /// `count` IPv4 addresses or none. The lowest free ones, so that an address just returned is the
    /// first to be given again: whoever reuses too early is found out.
    pub(crate) fn take_v4(&mut self, count: usize) -> Result<Vec<Ipv4Addr>, Denied> {
        let first = u32::from(self.v4.network()).saturating_add(1);
        let last = u32::from(self.v4.broadcast()).saturating_sub(RESERVED_LAST_V4);
        let free = |address: &Ipv4Addr| !self.taken.contains(&IpAddr::V4(*address));
        let chosen: Vec<_> = (first..=last).map(Ipv4Addr::from).filter(free).take(count).collect();
        if chosen.len() < count {
            return Err(Denied::UsedUp);
        }
        self.taken.extend(chosen.iter().copied().map(IpAddr::V4));
        Ok(chosen)
    }

    /// `count` IPv6 addresses or none, from anywhere in the block.
    pub(crate) fn take_v6(
        &mut self,
        count: usize,
        random: &mut Random,
    ) -> Result<Vec<Ipv6Addr>, Denied> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let block = self.v6.ok_or(Denied::NoIpv6)?;
        let mut chosen = BTreeSet::new();
        for _attempt in 0..count.saturating_mul(64) {
            if chosen.len() == count {
                break;
            }
            let host = u128::from(random.next()) & !u128::from(block.mask());
            let address = Ipv6Addr::from(u128::from(block.network()) | host);
            if self.check(IpAddr::V6(address)).is_ok() {
                chosen.insert(address);
            }
        }
        if chosen.len() < count {
            return Err(Denied::UsedUp);
        }
        self.taken.extend(chosen.iter().copied().map(IpAddr::V6));
        Ok(chosen.into_iter().collect())
    }

    /// This one.
    pub(crate) fn take(&mut self, address: IpAddr) -> Result<(), Denied> {
        self.check(address)?;
        self.taken.insert(address);
        Ok(())
    }

    pub(crate) fn give_back(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.taken.remove(&address);
        }
    }

    fn check(&self, address: IpAddr) -> Result<(), Denied> {
        let fits = match address {
            IpAddr::V4(v4) => {
                let last = u32::from(self.v4.broadcast()).saturating_sub(RESERVED_LAST_V4);
                self.v4.contains(v4) && v4 != self.v4.network() && u32::from(v4) <= last
            }
            IpAddr::V6(v6) => self.v6.ok_or(Denied::NoIpv6).map(|block| {
                let last = u128::from(block.broadcast()).saturating_sub(RESERVED_LAST_V6);
                block.contains(v6) && v6 != block.network() && u128::from(v6) <= last
            })?,
        };
        match (fits, self.taken.contains(&address)) {
            (false, _) => Err(Denied::NotOfThisBlock),
            (true, true) => Err(Denied::Taken),
            (true, false) => Ok(()),
        }
    }
}

pub(crate) const fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

pub(crate) const fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> AddressPool {
        let v6 = Some("2408:4005:3a0:1::/64".parse().unwrap());
        AddressPool::new("10.0.1.0/28".parse().unwrap(), v6)
    }

    #[test]
    fn the_clouds_own_addresses_are_never_given() {
        let mut pool = pool();
        let all = pool.take_v4(12).unwrap();
        assert_eq!(all.first().unwrap().to_string(), "10.0.1.1");
        assert_eq!(all.last().unwrap().to_string(), "10.0.1.12");
        assert_eq!(AddressPool::capacity("10.0.1.0/28".parse().unwrap()), 12);
        assert_eq!(pool.take_v4(1), Err(Denied::UsedUp));
        for own in ["10.0.1.0", "10.0.1.13", "10.0.1.14", "10.0.1.15", "10.0.2.1"] {
            assert_eq!(pool.take(own.parse().unwrap()), Err(Denied::NotOfThisBlock), "{own}");
        }
        for own in ["2408:4005:3a0:1::", "2408:4005:3a0:1:ffff:ffff:ffff:fffd", "2408::1"] {
            assert_eq!(pool.take(own.parse().unwrap()), Err(Denied::NotOfThisBlock), "{own}");
        }
    }

    #[test]
    fn an_address_given_back_is_the_first_to_be_given_again() {
        let mut pool = pool();
        let first = pool.take_v4(3).unwrap();
        pool.give_back([IpAddr::V4(first[1])]);
        assert_eq!(pool.take_v4(1).unwrap(), [first[1]]);
        assert_eq!(pool.take(IpAddr::V4(first[1])), Err(Denied::Taken));
    }

    #[test]
    fn ipv6_needs_a_block_and_fills_it_without_order() {
        let mut random = Random::new(1);
        let mut pool = pool();
        let v6 = pool.take_v6(50, &mut random).unwrap();
        let distinct: BTreeSet<_> = v6.iter().collect();
        assert_eq!(distinct.len(), 50);
        let mut without = AddressPool::new("10.0.1.0/28".parse().unwrap(), None);
        assert_eq!(without.take_v6(1, &mut random), Err(Denied::NoIpv6));
    }
}
