//! What is particular to pods that share an ENI: their frames leave untagged.

use model::IpPair;

use super::desired::Eni;
use super::types::Object;
use crate::bpf::{Address, Program};

/// Nothing leaves such an ENI with a source that is not its own; who asks for a pod is answered.
pub(super) const ENI_PROGRAMS: [Program; 2] = [Program::SourceGuard, Program::EniIngress];

/// The pod's addresses may leave by the ENI.
pub(super) fn behind(eni: &Eni, addresses: IpPair) -> Vec<Object> {
    let entry = Address { vlan: None, tombstone: false };
    let allowed = |address| Object::Allowed { link: eni.dev(), address, entry };
    addresses.iter().map(allowed).collect()
}
