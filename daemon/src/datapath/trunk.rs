//! What is particular to pods behind a member of the trunk: their frames carry the member's tag.

use model::IpPair;

use super::MemberSpec;
use super::desired::Eni;
use super::types::Object;
use crate::bpf::{Address, Program};

/// The trunk also carries the untagged frames of shared pods: `vlan_tag` knows both by their source.
pub(super) const ENI_PROGRAMS: [Program; 2] = [Program::VlanTag, Program::VlanUntag];

/// The member, and the pod's addresses in its VLAN.
pub(super) fn behind(eni: &Eni, addresses: IpPair, member: &MemberSpec) -> Vec<Object> {
    let MemberSpec { vlan, macs } = *member;
    let entry = Address { vlan: Some(vlan), tombstone: false };
    let mut all = vec![Object::Member { trunk: eni.dev(), vlan, macs }];
    let allowed = |address| Object::Allowed { link: eni.dev(), address, entry };
    all.extend(addresses.iter().map(allowed));
    all
}
