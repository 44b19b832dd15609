//! What an instance type has room for. The formulas are those of Alibaba Cloud's documents on
//! Terway ("Work with Terway", section on the number of pods); all quotas count the primary ENI.

use crate::{InstanceTypeId, IpStack};

/// The quotas of an instance type (`DescribeInstanceTypes`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name.
    pub id: InstanceTypeId,
    /// `EniQuantity`: ENIs of their own NIC, the primary one included.
    pub enis: u32,
    /// `EniTotalQuantity`: those and the members of a trunk.
    pub total_enis: u32,
    /// `EniPrivateIpAddressQuantity`: IPv4 addresses of one ENI, its primary included.
    pub v4_per_eni: u32,
    /// `EniIpv6AddressQuantity`: IPv6 addresses of one ENI.
    pub v6_per_eni: u32,
    /// `EniTrunkSupported`.
    pub trunk: bool,
}

/// What a node of some type can hold, in one mode each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Secondary ENIs, a trunk among them.
    pub enis: u32,
    /// Addresses (or dual pairs) of one ENI.
    pub per_eni: u32,
    /// Pods that share ENIs.
    pub shared: u32,
    /// Member ENIs of the trunk.
    pub members: u32,
    /// Pods with an ENI of their own.
    pub exclusive: u32,
}

/// Why a node of some type cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Too few addresses.
    #[error(
        "instance type {kind} holds {pods} pods on shared ENIs, and a node must hold more than {}",
        Capacity::SHARED_FLOOR
    )]
    TooSmall {
        /// The type.
        kind: InstanceTypeId,
        /// How many it holds.
        pods: u32,
    },
    /// Too few ENIs for pods with one of their own.
    #[error(
        "instance type {kind} holds {pods} pods with an ENI of their own, and a node must hold more than {}",
        Capacity::EXCLUSIVE_FLOOR
    )]
    TooFewEnis {
        /// The type.
        kind: InstanceTypeId,
        /// How many it holds.
        pods: u32,
    },
    /// An ENI holds more addresses of one family than of the other.
    #[error(
        "ip_stack: \"dual\" needs as many IPv4 as IPv6 addresses on an ENI, and instance type {kind} has {v4} and {v6}; set \"ipv4\" or \"ipv6\", or take another type"
    )]
    UnevenStack {
        /// The type.
        kind: InstanceTypeId,
        /// `EniPrivateIpAddressQuantity`.
        v4: u32,
        /// `EniIpv6AddressQuantity`.
        v6: u32,
    },
    /// Trunking is asked for and not offered.
    #[error(
        "enable_eni_trunking: true needs trunk ENIs, and instance type {0} has none (EniTrunkSupported is false); set false, or take another type"
    )]
    NoTrunk(InstanceTypeId),
}

impl Capacity {
    /// A node joins only with more shared pods than this.
    pub const SHARED_FLOOR: u32 = 11;
    /// A node joins only with more pods with an ENI of their own than this.
    pub const EXCLUSIVE_FLOOR: u32 = 6;

    /// What `kind` holds.
    pub const fn of(kind: &InstanceType, stack: IpStack) -> Self {
        let enis = kind.enis.saturating_sub(1);
        let per_eni = match stack {
            IpStack::V6 => kind.v6_per_eni,
            IpStack::Dual if kind.v6_per_eni < kind.v4_per_eni => kind.v6_per_eni,
            IpStack::V4 | IpStack::Dual => kind.v4_per_eni,
        };
        let members = if kind.trunk { kind.total_enis.saturating_sub(kind.enis) } else { 0 };
        Self { enis, per_eni, shared: enis.saturating_mul(per_eni), members, exclusive: enis }
    }

    /// Whether a node of `kind` with this capacity may serve shared pods, and members when `trunking`
    /// is on.
    pub fn check(
        self,
        kind: &InstanceType,
        stack: IpStack,
        trunking: bool,
    ) -> Result<(), JoinError> {
        if stack == IpStack::Dual && kind.v4_per_eni != kind.v6_per_eni {
            let (v4, v6) = (kind.v4_per_eni, kind.v6_per_eni);
            return Err(JoinError::UnevenStack { kind: kind.id.clone(), v4, v6 });
        }
        if self.shared <= Self::SHARED_FLOOR {
            return Err(JoinError::TooSmall { kind: kind.id.clone(), pods: self.shared });
        }
        if trunking && self.members == 0 {
            return Err(JoinError::NoTrunk(kind.id.clone()));
        }
        Ok(())
    }

    /// Whether a node of `kind` may serve pods with an ENI of their own.
    pub fn check_exclusive(self, kind: &InstanceType) -> Result<(), JoinError> {
        if self.exclusive > Self::EXCLUSIVE_FLOOR {
            return Ok(());
        }
        Err(JoinError::TooFewEnis { kind: kind.id.clone(), pods: self.exclusive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(id: &str, enis: u32, total_enis: u32, v4: u32, v6: u32, trunk: bool) -> InstanceType {
        let id = InstanceTypeId::new(id);
        InstanceType { id, enis, total_enis, v4_per_eni: v4, v6_per_eni: v6, trunk }
    }

    #[test]
    fn capacity_is_what_the_documents_say() {
        let g7 = kind("ecs.g7.4xlarge", 8, 30, 30, 30, true);
        let capacity = Capacity::of(&g7, IpStack::Dual);
        assert_eq!((capacity.shared, capacity.members, capacity.exclusive), (210, 22, 7));
        assert_eq!(capacity.check(&g7, IpStack::Dual, true), Ok(()));
        assert_eq!(capacity.check_exclusive(&g7), Ok(()));
    }

    #[test]
    fn a_type_that_does_not_fit_says_why() {
        let small = kind("ecs.g6.large", 2, 2, 6, 1, false);
        let r6 = kind("ecs.r6.8xlarge", 8, 40, 20, 1, true);
        let ebm = kind("ecs.ebmg5.24xlarge", 32, 32, 10, 0, false);
        for (kind, stack, trunk, text) in [
            (&small, IpStack::V4, false, "holds 6 pods on shared ENIs"),
            (&r6, IpStack::Dual, false, "ip_stack: \"dual\" needs as many"),
            (&r6, IpStack::Dual, false, "ecs.r6.8xlarge has 20 and 1"),
            (&ebm, IpStack::V4, true, "enable_eni_trunking: true needs trunk ENIs"),
        ] {
            let capacity = Capacity::of(kind, stack);
            let error = capacity.check(kind, stack, trunk).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let error = Capacity::of(&small, IpStack::V4).check_exclusive(&small).unwrap_err();
        assert!(error.to_string().contains("holds 1 pods with an ENI"), "{error}");
    }

    #[test]
    fn one_pod_more_than_the_floor_is_enough() {
        for (v4, joins) in [(11, false), (12, true)] {
            let kind = kind("ecs.t", 2, 2, v4, 0, false);
            let found = Capacity::of(&kind, IpStack::V4).check(&kind, IpStack::V4, false);
            assert_eq!(found.is_ok(), joins);
        }
        for (enis, joins) in [(7, false), (8, true)] {
            let kind = kind("ecs.t", enis, enis, 20, 0, false);
            assert_eq!(Capacity::of(&kind, IpStack::V4).check_exclusive(&kind).is_ok(), joins);
        }
    }
}
