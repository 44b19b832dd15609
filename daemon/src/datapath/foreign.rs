//! Somebody else's filters that run before ours. One that ends the chain (`TC_ACT_OK`) keeps ours
//! from running, and whether it does is seen only in traffic: so they are named, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{IfName, LinkIndex};

use super::types::Hook;
use super::{Direction, FilterView};
use crate::bpf::Program;

/// Where such filters sit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Eni(IfName),
    /// On pods' links; who filters one mostly filters all.
    Pods,
}

/// One of them, and the first of ours behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ahead {
    place: Place,
    direction: Direction,
    priority: u16,
    program: String,
    before: Program,
}

/// Those that were seen, and on which links.
pub(super) type Seen = BTreeMap<Ahead, BTreeSet<LinkIndex>>;

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, direction, priority, program, before } = self;
        let place = match place {
            Place::Eni(link) => link.as_str(),
            Place::Pods => "pods' links",
        };
        let (direction, own) = (direction.name(), Hook::of(*before).priority);
        write!(
            f,
            "{program} on {place} {direction} at {priority}, before {} at {own}",
            before.name()
        )
    }
}

impl Ahead {
    /// What becomes of frames if it ends the chain.
    pub(super) const fn if_it_ends_the_chain(&self) -> &'static str {
        match self.before {
            Program::VlanUntag => "what comes in for pods of members does not reach them",
            Program::EniIngress => "who asks for a pod's MAC gets no answer",
            Program::VlanTag => "frames of members leave untagged, and the VPC drops them",
            Program::SourceGuard => "frames leave with sources that the VPC drops",
            Program::FromPod => "pods' frames are neither checked nor led to their ENI",
            Program::ToPod => "frames to pods are not counted",
            Program::SetMark => "frames whose mark it overwrites leave by eth0, not by their ENI",
        }
    }
}

/// Those among the filters of our links, and on which links each.
pub(super) fn ahead(filters: &[FilterView], is_eni: impl Fn(LinkIndex) -> bool) -> Seen {
    let mut all = Seen::new();
    for foreign in filters.iter().filter(|filter| filter.foreign) {
        let beside = filters.iter().filter(|own| {
            !own.foreign && (own.index, own.direction) == (foreign.index, foreign.direction)
        });
        let behind = beside.filter(|own| own.priority > foreign.priority);
        let next = behind.min_by_key(|own| own.priority);
        let before = next
            .and_then(|own| Program::ALL.into_iter().find(|program| program.name() == own.program));
        let Some(before) = before else { continue };
        let place =
            if is_eni(foreign.index) { Place::Eni(foreign.link.clone()) } else { Place::Pods };
        let FilterView { direction, priority, ref program, .. } = *foreign;
        let program = program.clone();
        let ahead = Ahead { place, direction, priority, program, before };
        all.entry(ahead).or_default().insert(foreign.index);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(link: (&str, u32), side: Direction, priority: u16, name: &str) -> FilterView {
        FilterView {
            link: link.0.parse().unwrap(),
            index: link.1.try_into().unwrap(),
            direction: side,
            priority,
            handle: 1,
            program: name.to_owned(),
            program_id: 7,
            foreign: name.starts_with("cil"),
        }
    }

    #[test]
    fn what_runs_before_ours_is_named_with_what_it_may_cost() {
        use Direction::{Egress, Ingress};
        let (eni, a, b) = (("eth1", 3), ("calia", 100), ("calib", 101));
        let filters = [
            filter(eni, Egress, 25_000, "cil_to_netdev"),
            filter(eni, Egress, 50_001, "vlan_tag"),
            filter(eni, Ingress, 20_000, "vlan_untag"),
            // Behind ours.
            filter(eni, Ingress, 25_000, "cil_from_netdev"),
            filter(a, Ingress, 100, "from_pod"),
            filter(a, Ingress, 25_000, "cil_from_container"),
            filter(a, Ingress, 50_001, "set_mark"),
            filter(b, Ingress, 100, "from_pod"),
            filter(b, Ingress, 25_000, "cil_from_container"),
            filter(b, Ingress, 50_001, "set_mark"),
            filter(b, Ingress, 1, "cil_early"),
            filter(b, Egress, 100, "to_pod"),
            filter(b, Egress, 25_000, "cil_to_container"),
        ];
        let found = ahead(&filters, |index| index.get() == 3);
        let lines = found.iter().map(|(ahead, links)| {
            format!("{ahead} ({})\n    {}", links.len(), ahead.if_it_ends_the_chain())
        });
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
        cil_to_netdev on eth1 egress at 25000, before vlan_tag at 50001 (1)
            frames of members leave untagged, and the VPC drops them
        cil_early on pods' links ingress at 1, before from_pod at 100 (1)
            pods' frames are neither checked nor led to their ENI
        cil_from_container on pods' links ingress at 25000, before set_mark at 50001 (2)
            frames whose mark it overwrites leave by eth0, not by their ENI
        ");
    }
}
