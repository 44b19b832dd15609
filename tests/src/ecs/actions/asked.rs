//! The addresses and prefixes that a call asks for, by name or by number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::ecs::addresses::{ADDRESSES_OF_PREFIX, PREFIX_V4, PREFIX_V6};
use crate::ecs::arguments::Arguments;
use crate::ecs::refusal::Refusal;

/// Prefixes of one call.
const MOST_PREFIXES: usize = 10;

/// What the parameters of one family are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) address: &'static str,
    pub(super) count: &'static str,
    pub(super) prefix: &'static str,
    prefix_count: &'static str,
    /// Bits of one of its prefixes.
    bits: u8,
    is_v4: bool,
}

pub(super) const IPV4: Family = Family {
    address: "PrivateIpAddress",
    count: "SecondaryPrivateIpAddressCount",
    prefix: "Ipv4Prefix",
    prefix_count: "Ipv4PrefixCount",
    bits: PREFIX_V4,
    is_v4: true,
};

pub(super) const IPV6: Family = Family {
    address: "Ipv6Address",
    count: "Ipv6AddressCount",
    prefix: "Ipv6Prefix",
    prefix_count: "Ipv6PrefixCount",
    bits: PREFIX_V6,
    is_v4: false,
};

/// What a call asks for of one family: addresses or prefixes, by name or by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) named: Vec<IpNetwork>,
    /// Addresses that the cloud is to choose.
    pub(super) addresses: usize,
    /// Prefixes that the cloud is to choose.
    pub(super) prefixes: usize,
}

impl Asked {
    /// Slots of the type's quota.
    pub(super) const fn slots(&self) -> usize {
        self.named.len().saturating_add(self.addresses).saturating_add(self.prefixes)
    }

    /// IPv4 addresses that the vSwitch and the VPC will have less.
    pub(super) fn v4_addresses(&self) -> usize {
        let blocks = self.named.iter().filter(|named| named.prefix() == PREFIX_V4).count();
        let single = self.named.len().saturating_sub(blocks).saturating_add(self.addresses);
        single.saturating_add(blocks.saturating_add(self.prefixes) * ADDRESSES_OF_PREFIX)
    }
}

impl Family {
    /// What a call asks for: names or a number, addresses or prefixes, and `most` addresses.
    pub(super) fn asked(&self, arguments: &Arguments, most: usize) -> Result<Asked, Refusal> {
        let named = self.named_addresses(arguments)?;
        let count = arguments.number(self.count)?;
        check_amount(self.count, named.len(), count, most)?;
        let prefixes = self.named_prefixes(arguments)?;
        let prefix_count = arguments.number(self.prefix_count)?;
        check_amount(self.prefix_count, prefixes.len(), prefix_count, MOST_PREFIXES)?;
        let addresses = named.len().saturating_add(count.unwrap_or(0));
        if addresses > 0 && prefixes.len().saturating_add(prefix_count.unwrap_or(0)) > 0 {
            return Err(Refusal::invalid(self.prefix, "addresses are asked for as well"));
        }
        let named: Vec<_> = named.into_iter().chain(prefixes).collect();
        check_repeated(named.iter().copied())?;
        let (addresses, prefixes) = (count.unwrap_or(0), prefix_count.unwrap_or(0));
        Ok(Asked { named, addresses, prefixes })
    }

    /// `PrivateIpAddress.N`, `Ipv6Address.N`.
    pub(super) fn named_addresses(&self, arguments: &Arguments) -> Result<Vec<IpNetwork>, Refusal> {
        let named: Vec<IpAddr> = arguments.parsed(self.address)?;
        match named.iter().find(|address| address.is_ipv4() != self.is_v4) {
            Some(stranger) => Err(Refusal::invalid(self.address, stranger)),
            None => Ok(named.into_iter().map(IpNetwork::from).collect()),
        }
    }

    /// `Ipv4Prefix.N`, `Ipv6Prefix.N`: a whole /28 or /80.
    pub(super) fn named_prefixes(&self, arguments: &Arguments) -> Result<Vec<IpNetwork>, Refusal> {
        let named: Vec<IpNetwork> = arguments.parsed(self.prefix)?;
        let is_whole = |prefix: &IpNetwork| {
            prefix.is_ipv4() == self.is_v4
                && prefix.prefix() == self.bits
                && prefix.ip() == prefix.network()
        };
        match named.iter().find(|prefix| !is_whole(prefix)) {
            Some(other) => {
                let why = format!("{other} is no prefix of {} bits", self.bits);
                Err(Refusal::invalid(self.prefix, why))
            }
            None => Ok(named),
        }
    }
}

/// Names or a number, not both, and 1 to `most` of either.
fn check_amount(
    count_name: &str,
    named: usize,
    count: Option<usize>,
    most: usize,
) -> Result<(), Refusal> {
    if named > 0 && count.is_some() {
        return Err(Refusal::invalid(count_name, "they are named as well"));
    }
    if count == Some(0) || count.unwrap_or(named) > most {
        return Err(Refusal::amount(count_name, format!("1 to {most} at once")));
    }
    Ok(())
}

pub(super) fn check_repeated(named: impl IntoIterator<Item = IpNetwork>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    match named.into_iter().find(|address| !seen.insert(*address)) {
        None => Ok(()),
        Some(address) => {
            let text = format!("The specified IP {address} is repeated.");
            Err(Refusal::new(403, "InvalidIp.IpRepeated", text))
        }
    }
}

/// Prefixes in one call that takes them away.
pub(super) fn check_prefix_amount(name: &str, named: usize) -> Result<(), Refusal> {
    check_amount(name, named, None, MOST_PREFIXES)
}
