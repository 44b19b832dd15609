//! Calls to the cloud that give an ENI addresses and prefixes, or take them away.

use std::net::IpAddr;

use cloud::{
    AddressRequest, AssignAddresses, AssignPrefixes, CallOptions, ClientToken, CloudError, Ecs,
};
use controlplane::CallError;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use model::EniId;

use super::lot::Lot;

/// As many more as asked for, of the cloud's choice.
pub(super) async fn assign<E: Ecs>(
    cloud: &E,
    token: ClientToken,
    eni: EniId,
    (lot, count): (Lot, u32),
    options: CallOptions,
) -> Result<Vec<IpNetwork>, CloudError> {
    match lot {
        Lot::V4 => {
            let addresses = AddressRequest::Any(count);
            let all = cloud.assign_v4(&AssignAddresses { token, eni, addresses }, options).await?;
            Ok(all.into_iter().map(|address| IpNetwork::from(IpAddr::V4(address))).collect())
        }
        Lot::V6 => {
            let addresses = AddressRequest::Any(count);
            let all = cloud.assign_v6(&AssignAddresses { token, eni, addresses }, options).await?;
            Ok(all.into_iter().map(|address| IpNetwork::from(IpAddr::V6(address))).collect())
        }
        Lot::V4Prefix => {
            let request = AssignPrefixes { token, eni, count };
            let all = cloud.assign_v4_prefixes(&request, options).await?;
            Ok(all.into_iter().map(IpNetwork::V4).collect())
        }
        Lot::V6Prefix => {
            let request = AssignPrefixes { token, eni, count };
            let all = cloud.assign_v6_prefixes(&request, options).await?;
            Ok(all.into_iter().map(IpNetwork::V6).collect())
        }
    }
}

/// Takes them away: IPv4 first, and single addresses apart from prefixes.
pub(super) async fn unassign<E: Ecs>(
    cloud: &E,
    eni: &EniId,
    blocks: &[IpNetwork],
    options: CallOptions,
) -> Result<(), CallError> {
    let Parts { v4, v6, v4_prefixes, v6_prefixes } = Parts::of(blocks);
    if !v4.is_empty() {
        cloud.unassign_v4(eni, &v4, options).await?;
    }
    if !v4_prefixes.is_empty() {
        cloud.unassign_v4_prefixes(eni, &v4_prefixes, options).await?;
    }
    if !v6.is_empty() {
        cloud.unassign_v6(eni, &v6, options).await?;
    }
    if !v6_prefixes.is_empty() {
        cloud.unassign_v6_prefixes(eni, &v6_prefixes, options).await?;
    }
    Ok(())
}

/// Single addresses and prefixes of both families.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) v4: Vec<std::net::Ipv4Addr>,
    pub(super) v6: Vec<std::net::Ipv6Addr>,
    pub(super) v4_prefixes: Vec<Ipv4Network>,
    pub(super) v6_prefixes: Vec<Ipv6Network>,
}

impl Parts {
    /// A block that has all the bits of its family is a single address.
    pub(super) fn of(blocks: &[IpNetwork]) -> Self {
        let mut parts = Self::default();
        for block in blocks {
            match block {
                IpNetwork::V4(block) if block.prefix() == 32 => parts.v4.push(block.ip()),
                IpNetwork::V4(block) => parts.v4_prefixes.push(*block),
                IpNetwork::V6(block) if block.prefix() == 128 => parts.v6.push(block.ip()),
                IpNetwork::V6(block) => parts.v6_prefixes.push(*block),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_are_told_apart() {
        let blocks = ["10.0.0.1/32", "10.0.0.16/28", "2408::1/128", "2408::/80"];
        let blocks: Vec<IpNetwork> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        let parts = Parts::of(&blocks);
        assert_eq!(parts.v4, ["10.0.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(parts.v6, ["2408::1".parse::<std::net::Ipv6Addr>().unwrap()]);
        assert_eq!(parts.v4_prefixes, ["10.0.0.16/28".parse().unwrap()]);
        assert_eq!(parts.v6_prefixes, ["2408::/80".parse().unwrap()]);
    }
}
