//! The instance types of the lab: quotas as public answers of `DescribeInstanceTypes` give them.

/// A type and its quotas; all count the primary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceKind {
    /// `InstanceTypeId`.
    pub id: &'static str,
    /// `EniQuantity`.
    pub enis: usize,
    /// `EniTotalQuantity`: with the members of a trunk.
    pub total_enis: usize,
    /// `EniPrivateIpAddressQuantity`: of one ENI, its primary address included.
    pub v4_per_eni: usize,
    /// `EniIpv6AddressQuantity`: of one ENI.
    pub v6_per_eni: usize,
    /// `EniTrunkSupported`.
    pub trunk: bool,
    /// `JumboFrameSupport`.
    pub jumbo: bool,
    /// `CpuCoreCount`.
    pub cores: u32,
    /// `MemorySize` in GiB.
    pub memory: u32,
}

impl InstanceKind {
    /// The type of that name.
    pub fn named(id: &str) -> Option<&'static Self> {
        TABLE.iter().find(|kind| kind.id == id)
    }

    /// All of them.
    pub const fn all() -> &'static [Self] {
        TABLE
    }

    /// How many members its trunk carries.
    pub const fn members(&self) -> usize {
        if self.trunk { self.total_enis - self.enis } else { 0 }
    }

    /// `InstanceTypeFamily`: the name without its size.
    pub fn family(&self) -> &'static str {
        self.id.rsplit_once('.').map_or(self.id, |(family, _)| family)
    }
}

/// `ecs.lab.huge` exists only here: 600 pods and more on seven ENIs, and 60 members.
const TABLE: &[InstanceKind] = &[
    row("ecs.g7.4xlarge", [8, 30, 30, 30], true, true, 16, 64),
    row("ecs.g7.2xlarge", [4, 10, 15, 15], true, true, 8, 32),
    row("ecs.g7.xlarge", [4, 20, 15, 15], true, true, 4, 16),
    row("ecs.g6.16xlarge", [8, 60, 20, 1], true, false, 64, 256),
    row("ecs.r6.8xlarge", [8, 40, 20, 1], true, false, 32, 256),
    row("ecs.u1-c1m4.xlarge", [3, 6, 10, 1], true, false, 4, 16),
    row("ecs.g6.large", [2, 2, 6, 1], false, false, 2, 8),
    row("ecs.ic5.large", [2, 2, 6, 0], false, false, 2, 2),
    row("ecs.ebmg5.24xlarge", [32, 32, 10, 0], false, false, 96, 384),
    row("ecs.lab.huge", [8, 68, 100, 100], true, true, 64, 256),
];

const fn row(
    id: &'static str,
    [enis, total_enis, v4_per_eni, v6_per_eni]: [usize; 4],
    trunk: bool,
    jumbo: bool,
    cores: u32,
    memory: u32,
) -> InstanceKind {
    InstanceKind { id, enis, total_enis, v4_per_eni, v6_per_eni, trunk, jumbo, cores, memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_huge_type_has_room_for_600_shared_pods_and_60_members() {
        let huge = InstanceKind::named("ecs.lab.huge").unwrap();
        assert!((huge.enis - 2) * huge.v4_per_eni >= 600, "one of the ENIs may be the trunk");
        assert_eq!(huge.members(), 60);
        assert_eq!(huge.family(), "ecs.lab");
    }

    #[test]
    fn a_type_without_trunk_has_no_members() {
        for kind in InstanceKind::all() {
            assert!(kind.total_enis >= kind.enis, "{}", kind.id);
            assert_eq!(kind.members() > 0, kind.trunk, "{}", kind.id);
        }
    }
}
