//! Addresses of a pod.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::OutOfRange;

/// Which families a pod gets (`eni_conf`'s `ip_stack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpStack {
    /// `ipv4`.
    V4,
    /// `ipv6`.
    V6,
    /// `dual`.
    Dual,
}

impl IpStack {
    /// Whether pods have an IPv4 address.
    pub const fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Dual)
    }

    /// Whether pods have an IPv6 address.
    pub const fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Dual)
    }
}

impl FromStr for IpStack {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        match text {
            "ipv4" => Ok(Self::V4),
            "ipv6" => Ok(Self::V6),
            "dual" => Ok(Self::Dual),
            _ => Err(OutOfRange::new("IP stack (one of ipv4, ipv6, dual)", text)),
        }
    }
}

impl fmt::Display for IpStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
            Self::Dual => "dual",
        })
    }
}

/// What a pod has: an address of either family or one of each; never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpPair {
    /// IPv4 only.
    V4(Ipv4Addr),
    /// IPv6 only.
    V6(Ipv6Addr),
    /// Both, from the same ENI.
    Dual(Ipv4Addr, Ipv6Addr),
}

impl IpPair {
    /// From what may be there; `None` if nothing is.
    pub const fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Dual(v4, v6)),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 address.
    pub const fn v4(self) -> Option<Ipv4Addr> {
        match self {
            Self::V4(v4) | Self::Dual(v4, _) => Some(v4),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 address.
    pub const fn v6(self) -> Option<Ipv6Addr> {
        match self {
            Self::V6(v6) | Self::Dual(_, v6) => Some(v6),
            Self::V4(_) => None,
        }
    }

    /// IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4().map(IpAddr::V4);
        v4.into_iter().chain(self.v6().map(IpAddr::V6))
    }
}

impl fmt::Display for IpPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => v4.fmt(f),
            Self::V6(v6) => v6.fmt(f),
            Self::Dual(v4, v6) => write!(f, "{v4} {v6}"),
        }
    }
}

/// The address as a network of itself alone: /32 or /128.
pub fn host_prefix(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}
