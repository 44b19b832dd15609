//! What an ENI can get more of: single addresses, or prefixes of them.

use std::fmt;

use super::pool::Family;

/// What an ENI can get more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lot {
    /// Single IPv4 addresses.
    V4,
    /// Single IPv6 addresses.
    V6,
    /// IPv4 prefixes /28.
    V4Prefix,
    /// IPv6 prefixes /80.
    V6Prefix,
}

impl Lot {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::V4, Self::V6, Self::V4Prefix, Self::V6Prefix];

    /// Addresses of an IPv4 prefix.
    pub(crate) const V4_PREFIX: u32 = 16;

    /// Addresses that we use of an IPv6 prefix: its last 16 bits, without the first, which is the
    /// anycast address of its routers (RFC 4291, 2.6.1).
    pub(crate) const V6_PREFIX: u32 = 65_535;

    /// The most prefixes of one call.
    pub(crate) const PREFIXES_AT_MOST: u32 = 10;

    /// The most IPv6 addresses of one call.
    pub(crate) const V6_AT_MOST: u32 = 10;

    /// Whose addresses.
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::V4 | Self::V4Prefix => Family::V4,
            Self::V6 | Self::V6Prefix => Family::V6,
        }
    }

    /// Addresses of one.
    pub(crate) const fn size(self) -> u32 {
        match self {
            Self::V4 | Self::V6 => 1,
            Self::V4Prefix => Self::V4_PREFIX,
            Self::V6Prefix => Self::V6_PREFIX,
        }
    }

    /// The most that one call may ask for, when it is `batch` for single addresses.
    pub(crate) fn at_most(self, batch: u32) -> u32 {
        match self {
            Self::V4 => batch,
            Self::V6 => batch.min(Self::V6_AT_MOST),
            Self::V4Prefix | Self::V6Prefix => Self::PREFIXES_AT_MOST,
        }
    }
}

impl fmt::Display for Lot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4 addresses",
            Self::V6 => "IPv6 addresses",
            Self::V4Prefix => "IPv4 prefixes",
            Self::V6Prefix => "IPv6 prefixes",
        })
    }
}

/// Whether an ENI gets single addresses or prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    Addresses,
    Prefixes,
}

impl Grain {
    /// What is asked for, for more of a family.
    pub(crate) const fn lot(self, family: Family) -> Lot {
        match (self, family) {
            (Self::Addresses, Family::V4) => Lot::V4,
            (Self::Addresses, Family::V6) => Lot::V6,
            (Self::Prefixes, Family::V4) => Lot::V4Prefix,
            (Self::Prefixes, Family::V6) => Lot::V6Prefix,
        }
    }

    /// Pods that an ENI can serve with so many places for addresses. The primary IPv4 address takes
    /// one and is no prefix.
    pub(crate) fn pods(self, stack: model::IpStack, per_eni: u32) -> u32 {
        match self {
            Self::Addresses => per_eni,
            Self::Prefixes if stack.v4() => {
                per_eni.saturating_sub(1).saturating_mul(Lot::V4_PREFIX).saturating_add(1)
            }
            Self::Prefixes => Lot::V6_PREFIX,
        }
    }
}
