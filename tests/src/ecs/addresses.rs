//! The addresses of a vSwitch: which are taken, and which is next.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::random::Random;

/// First address and the last three (`.0`, `.253` to `.255` of a /24) belong to the cloud.
const RESERVED_LAST_V4: u32 = 3;
/// First address and the last nine of a /64 belong to the cloud.
const RESERVED_LAST_V6: u128 = 9;

/// Bits of a delegated IPv4 prefix: 16 addresses.
pub(crate) const PREFIX_V4: u8 = 28;
/// Bits of a delegated IPv6 prefix.
pub(crate) const PREFIX_V6: u8 = 80;
/// Addresses that a delegated IPv4 prefix takes of its vSwitch.
pub(crate) const ADDRESSES_OF_PREFIX: usize = 16;

/// What of a vSwitch is taken.
#[derive(Debug, Clone)]
pub(crate) struct AddressPool {
    v4: Ipv4Network,
    v6: Option<Ipv6Network>,
    /// Single addresses as /32 and /128, delegated prefixes as /28 and /80; none lies in another.
    taken: BTreeSet<IpNetwork>,
}

/// What is to be taken, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// Addresses and prefixes by name; they come first in the answer.
    pub(crate) named: Vec<IpNetwork>,
    /// How many the cloud is to choose.
    pub(crate) v4: usize,
    pub(crate) v6: usize,
    pub(crate) v4_prefixes: usize,
    pub(crate) v6_prefixes: usize,
}

/// Why an address cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It lies outside of the block, or is one of the cloud's own.
    NotOfThisBlock(IpNetwork),
    /// Somebody has it, or a part of it.
    Taken(IpNetwork),
    /// None is left: no address, or no free prefix though there may be addresses.
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
    pub(crate) fn taken(&self) -> impl Iterator<Item = &IpNetwork> {
        self.taken.iter()
    }

    /// How many IPv4 addresses are taken, those of prefixes included.
    pub(crate) fn taken_v4(&self) -> usize {
        let sizes = self.taken.iter().filter_map(|taken| match taken {
            IpNetwork::V4(v4) => usize::try_from(v4.size()).ok(),
            IpNetwork::V6(_) => None,
        });
        sizes.sum()
    }

    /// All of `ask`, in its order, or nothing.
    pub(crate) fn take(
        &mut self,
        ask: &Ask,
        random: &mut Random,
    ) -> Result<Vec<IpNetwork>, Denied> {
        let mut taken = Vec::new();
        let outcome = self.take_into(ask, random, &mut taken);
        if outcome.is_err() {
            self.give_back(taken.iter().copied());
        }
        outcome.map(|()| taken)
    }

    fn take_into(
        &mut self,
        ask: &Ask,
        random: &mut Random,
        taken: &mut Vec<IpNetwork>,
    ) -> Result<(), Denied> {
        for named in &ask.named {
            self.check(*named)?;
            self.taken.insert(*named);
            taken.push(*named);
        }
        for (bits, count) in [(32, ask.v4), (PREFIX_V4, ask.v4_prefixes)] {
            let chosen = self.choose_v4(bits, count)?;
            self.taken.extend(chosen.iter().copied());
            taken.extend(chosen);
        }
        for (bits, count) in [(128, ask.v6), (PREFIX_V6, ask.v6_prefixes)] {
            let chosen = self.choose_v6(bits, count, random)?;
            self.taken.extend(chosen.iter().copied());
            taken.extend(chosen);
        }
        Ok(())
    }

    /// The lowest free ones, so that an address just returned is the first to be given again:
    /// whoever reuses too early is found out.
    fn choose_v4(&self, bits: u8, count: usize) -> Result<Vec<IpNetwork>, Denied> {
        let step = 1_usize << 32_u8.saturating_sub(bits);
        let (first, last) = (u32::from(self.v4.network()), u32::from(self.v4.broadcast()));
        let aligned = (first..=last).step_by(step);
        let blocks = aligned.filter_map(|at| Ipv4Network::new(at.into(), bits).ok());
        let free = blocks.map(IpNetwork::V4).filter(|block| self.check(*block).is_ok());
        let chosen: Vec<_> = free.take(count).collect();
        if chosen.len() < count { Err(Denied::UsedUp) } else { Ok(chosen) }
    }

    /// From anywhere in the block.
    fn choose_v6(
        &self,
        bits: u8,
        count: usize,
        random: &mut Random,
    ) -> Result<Vec<IpNetwork>, Denied> {
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
            let Ok(around) = Ipv6Network::new(address, bits) else { break };
            let Ok(found) = Ipv6Network::new(around.network(), bits) else { break };
            if self.check(found.into()).is_ok() {
                chosen.insert(found.into());
            }
        }
        if chosen.len() < count { Err(Denied::UsedUp) } else { Ok(chosen.into_iter().collect()) }
    }

    pub(crate) fn give_back(&mut self, addresses: impl IntoIterator<Item = IpNetwork>) {
        for address in addresses {
            self.taken.remove(&address);
        }
    }

    fn check(&self, wanted: IpNetwork) -> Result<(), Denied> {
        let fits = match wanted {
            IpNetwork::V4(v4) => {
                let last = u32::from(self.v4.broadcast()).saturating_sub(RESERVED_LAST_V4);
                v4.is_subnet_of(self.v4)
                    && v4.network() != self.v4.network()
                    && u32::from(v4.broadcast()) <= last
            }
            IpNetwork::V6(v6) => self.v6.ok_or(Denied::NoIpv6).map(|block| {
                let last = u128::from(block.broadcast()).saturating_sub(RESERVED_LAST_V6);
                v6.is_subnet_of(block)
                    && v6.network() != block.network()
                    && u128::from(v6.broadcast()) <= last
            })?,
        };
        match (fits, self.is_touched(wanted)) {
            (false, _) => Err(Denied::NotOfThisBlock(wanted)),
            (true, true) => Err(Denied::Taken(wanted)),
            (true, false) => Ok(()),
        }
    }

    /// Whether it, a part of it or a prefix around it is taken.
    fn is_touched(&self, wanted: IpNetwork) -> bool {
        let bits = if wanted.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
        let around = IpNetwork::new(wanted.ip(), bits).ok();
        let around = around.and_then(|around| IpNetwork::new(around.network(), bits).ok());
        // Prefixes are ordered by their address: those inside lie between its ends.
        let whole = if wanted.is_ipv4() { 32 } else { 128 };
        let first = IpNetwork::new(wanted.network(), 0);
        let last = IpNetwork::new(wanted.broadcast(), whole);
        let (Ok(first), Ok(last)) = (first, last) else { return true };
        around.is_some_and(|around| self.taken.contains(&around))
            || self.taken.range(first..=last).next().is_some()
    }
}

/// The single IPv4 addresses of what was taken.
pub(crate) fn single_v4(taken: &[IpNetwork]) -> Vec<Ipv4Addr> {
    taken
        .iter()
        .filter_map(|one| as_v4(one).filter(|v4| v4.prefix() == 32))
        .map(Ipv4Network::ip)
        .collect()
}

/// The single IPv6 addresses of what was taken.
pub(crate) fn single_v6(taken: &[IpNetwork]) -> Vec<Ipv6Addr> {
    taken
        .iter()
        .filter_map(|one| as_v6(one).filter(|v6| v6.prefix() == 128))
        .map(|v6| v6.ip())
        .collect()
}

/// The delegated IPv4 prefixes of what was taken.
pub(crate) fn prefixes_v4(taken: &[IpNetwork]) -> Vec<Ipv4Network> {
    taken.iter().filter_map(|one| as_v4(one).filter(|v4| v4.prefix() != 32)).collect()
}

/// The delegated IPv6 prefixes of what was taken.
pub(crate) fn prefixes_v6(taken: &[IpNetwork]) -> Vec<Ipv6Network> {
    taken.iter().filter_map(|one| as_v6(one).filter(|v6| v6.prefix() != 128)).collect()
}

const fn as_v4(address: &IpNetwork) -> Option<Ipv4Network> {
    match address {
        IpNetwork::V4(v4) => Some(*v4),
        IpNetwork::V6(_) => None,
    }
}

const fn as_v6(address: &IpNetwork) -> Option<Ipv6Network> {
    match address {
        IpNetwork::V6(v6) => Some(*v6),
        IpNetwork::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(v4: &str) -> AddressPool {
        let v6 = Some("2408:4005:3a0:1::/64".parse().unwrap());
        AddressPool::new(v4.parse().unwrap(), v6)
    }

    fn take(pool: &mut AddressPool, ask: &Ask) -> Result<Vec<String>, Denied> {
        let taken = pool.take(ask, &mut Random::new(1))?;
        Ok(taken.iter().map(ToString::to_string).collect())
    }

    fn named(text: &str) -> Ask {
        Ask { named: vec![text.parse().unwrap()], ..Ask::default() }
    }

    #[test]
    fn the_clouds_own_addresses_are_never_given() {
        let mut pool = pool("10.0.1.0/28");
        let all = take(&mut pool, &Ask { v4: 12, ..Ask::default() }).unwrap();
        assert_eq!(all.first().unwrap(), "10.0.1.1/32");
        assert_eq!(all.last().unwrap(), "10.0.1.12/32");
        assert_eq!(AddressPool::capacity("10.0.1.0/28".parse().unwrap()), 12);
        assert_eq!(take(&mut pool, &Ask { v4: 1, ..Ask::default() }), Err(Denied::UsedUp));
        for own in [
            "10.0.1.0/32",
            "10.0.1.13/32",
            "10.0.1.14/32",
            "10.0.1.15/32",
            "10.0.2.1/32",
            "10.0.1.0/28",
            "2408:4005:3a0:1::/128",
            "2408:4005:3a0:1:ffff:ffff:ffff:fffd/128",
            "2408::1/128",
            "2408:4005:3a0:1::/80",
            "2408:4005:3a0:1:ffff::/80",
        ] {
            let refused = take(&mut pool, &named(own));
            assert_eq!(refused, Err(Denied::NotOfThisBlock(own.parse().unwrap())), "{own}");
        }
    }

    #[test]
    fn an_address_given_back_is_the_first_to_be_given_again() {
        let mut pool = pool("10.0.1.0/28");
        take(&mut pool, &Ask { v4: 3, ..Ask::default() }).unwrap();
        let second = "10.0.1.2/32".parse().unwrap();
        pool.give_back([second]);
        assert_eq!(take(&mut pool, &Ask { v4: 1, ..Ask::default() }).unwrap(), ["10.0.1.2/32"]);
        assert_eq!(take(&mut pool, &named("10.0.1.2/32")), Err(Denied::Taken(second)));
    }

    #[test]
    fn ipv6_needs_a_block_and_fills_it_without_order() {
        let mut pool = pool("10.0.1.0/28");
        let ask = Ask { v6: 50, v6_prefixes: 10, ..Ask::default() };
        let taken = take(&mut pool, &ask).unwrap();
        let distinct: BTreeSet<_> = taken.iter().collect();
        assert_eq!(distinct.len(), 60);
        assert_eq!(taken.iter().filter(|one| one.ends_with("/80")).count(), 10);
        let mut without = AddressPool::new("10.0.1.0/28".parse().unwrap(), None);
        for ask in [Ask { v6: 1, ..Ask::default() }, Ask { v6_prefixes: 1, ..Ask::default() }] {
            assert_eq!(take(&mut without, &ask), Err(Denied::NoIpv6));
        }
    }

    #[test]
    fn a_prefix_is_the_lowest_aligned_block_without_a_taken_address() {
        let mut pool = pool("10.0.1.0/24");
        take(&mut pool, &named("10.0.1.40/32")).unwrap();
        let two = Ask { v4_prefixes: 2, ..Ask::default() };
        assert_eq!(take(&mut pool, &two).unwrap(), ["10.0.1.16/28", "10.0.1.48/28"]);
        assert_eq!(pool.taken_v4(), 33);
        for inside in ["10.0.1.16/32", "10.0.1.31/32", "10.0.1.16/28", "10.0.1.32/28"] {
            let denied = Denied::Taken(inside.parse().unwrap());
            assert_eq!(take(&mut pool, &named(inside)), Err(denied), "{inside}");
        }
        // The first and the last block of a /24 hold addresses of the cloud's own.
        let rest = Ask { v4_prefixes: 11, ..Ask::default() };
        assert_eq!(take(&mut pool, &rest).unwrap().len(), 11);
        let one = Ask { v4_prefixes: 1, ..Ask::default() };
        assert_eq!(take(&mut pool, &one), Err(Denied::UsedUp), "fragments are no prefix");
        assert!(take(&mut pool, &Ask { v4: 20, ..Ask::default() }).is_ok());
    }

    #[test]
    fn an_ask_that_fails_takes_nothing() {
        let mut pool = pool("10.0.1.0/24");
        let too_much = Ask { v4: 5, v4_prefixes: 15, ..Ask::default() };
        assert_eq!(take(&mut pool, &too_much), Err(Denied::UsedUp));
        assert_eq!(pool.taken_v4(), 0);
    }
}
