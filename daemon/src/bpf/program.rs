//! What is attached where.

use ebpf_common::{PRIORITY_GUARD, PRIORITY_POD, PRIORITY_UNTAG};

/// What can be attached; the hook and priority of each is fixed by the mission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Trunk, ingress, 20000.
    VlanUntag,
    /// Any other ENI of ours, ingress, 20000: answers who asks for a pod's address.
    EniIngress,
    /// Trunk, egress, 50001.
    VlanTag,
    /// Any other ENI of ours, egress, 50001.
    SourceGuard,
    /// Host veth, ingress, 100.
    FromPod,
    /// Host veth, egress, 100.
    ToPod,
    /// Host veth, ingress, 50001, only where a foreign filter sits.
    SetMark,
}

/// Direction of frames at a link, as the node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Into the node.
    Ingress,
    /// Out of the node.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `tc` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Where a program sits on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachPoint {
    /// Side of the `clsact` qdisc.
    pub direction: Direction,
    /// Lower runs earlier.
    pub priority: u16,
    /// Fixed: with one that the kernel chooses a restart would add a second filter.
    pub handle: u32,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::VlanUntag,
        Self::EniIngress,
        Self::VlanTag,
        Self::SourceGuard,
        Self::FromPod,
        Self::ToPod,
        Self::SetMark,
    ];

    /// Name in the object file, of the filter and of the pin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VlanUntag => "vlan_untag",
            Self::EniIngress => "eni_ingress",
            Self::VlanTag => "vlan_tag",
            Self::SourceGuard => "source_guard",
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::SetMark => "set_mark",
        }
    }

    /// Where it sits.
    pub const fn attach_point(self) -> AttachPoint {
        let (direction, priority) = match self {
            Self::VlanUntag | Self::EniIngress => (Direction::Ingress, PRIORITY_UNTAG),
            Self::VlanTag | Self::SourceGuard => (Direction::Egress, PRIORITY_GUARD),
            Self::FromPod => (Direction::Ingress, PRIORITY_POD),
            Self::ToPod => (Direction::Egress, PRIORITY_POD),
            Self::SetMark => (Direction::Ingress, PRIORITY_GUARD),
        };
        AttachPoint { direction, priority, handle: 1 }
    }

    /// The program with this name at this place, if it is one of ours.
    pub fn at(point: AttachPoint, name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|program| program.attach_point() == point && program.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_sit_where_the_mission_says() {
        let table = Program::ALL.map(|program| {
            let point = program.attach_point();
            (program.name(), point.direction.name(), point.priority, point.handle)
        });
        assert_eq!(
            table,
            [
                ("vlan_untag", "ingress", 20_000, 1),
                ("eni_ingress", "ingress", 20_000, 1),
                ("vlan_tag", "egress", 50_001, 1),
                ("source_guard", "egress", 50_001, 1),
                ("from_pod", "ingress", 100, 1),
                ("to_pod", "egress", 100, 1),
                ("set_mark", "ingress", 50_001, 1),
            ]
        );
    }

    #[test]
    fn a_filter_is_ours_by_place_and_name() {
        for program in Program::ALL {
            assert_eq!(Program::at(program.attach_point(), program.name()), Some(program));
            assert_eq!(Program::at(program.attach_point(), "cil_from_netdev"), None);
            let elsewhere = AttachPoint { priority: 25_000, ..program.attach_point() };
            assert_eq!(Program::at(elsewhere, program.name()), None);
        }
    }
}
