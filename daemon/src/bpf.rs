//! The eBPF programs and maps: load, pin, attach at fixed priorities, replace without a gap.

use std::net::IpAddr;
use std::path::Path;

use model::{LinkIndex, Mac, Mark, VlanId};

/// What can be attached; the hook and priority of each is fixed by the mission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Trunk, ingress, 20000.
    VlanUntag,
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

/// What one pod may send, by its host veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: model::IpPair,
    /// MAC of its end.
    pub mac: Mac,
    /// Mark of its ENI.
    pub mark: Mark,
}

/// What an address behind an ENI's link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The member that owns it; `None` for the ENI itself.
    pub vlan: Option<VlanId>,
    /// The pod is gone and its last frames are dropped.
    pub tombstone: bool,
}

/// MACs of a member that does not use its trunk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMacs {
    /// The member's own.
    pub member: Mac,
    /// Its gateway's.
    pub gateway: Mac,
}

/// Why the programs could not be used.
#[derive(Debug, thiserror::Error)]
#[error("bpf")]
pub struct BpfError;

/// The loaded programs and their pinned maps.
#[derive(Debug)]
pub struct Bpf;

impl Bpf {
    /// Loads the object file, reusing the maps pinned under `pins` (made if missing; checked
    /// against the definitions: a pin of another shape is an error that names it).
    pub fn load(_object: &Path, _pins: &Path) -> Result<Self, BpfError> {
        unimplemented!("owner: ebpf")
    }

    /// Attaches, or swaps in place what is attached at the same place; idempotent.
    /// Must run in the namespace of the link (the caller's thread decides).
    pub fn attach(&mut self, _link: LinkIndex, _program: Program) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    /// Kernel id of a program, to compare with what is attached.
    pub fn id(&self, _program: Program) -> Result<u32, BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn set_endpoint(&mut self, _link: LinkIndex, _e: &Endpoint) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn remove_endpoint(&mut self, _link: LinkIndex) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn endpoints(&self) -> Result<Vec<(LinkIndex, Endpoint)>, BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn set_address(
        &mut self,
        _link: LinkIndex,
        _ip: IpAddr,
        _a: Address,
    ) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn remove_address(&mut self, _link: LinkIndex, _ip: IpAddr) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn addresses(&self) -> Result<Vec<(LinkIndex, IpAddr, Address)>, BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn set_member(
        &mut self,
        _trunk: LinkIndex,
        _vlan: VlanId,
        _macs: Option<MemberMacs>,
    ) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn remove_member(&mut self, _trunk: LinkIndex, _vlan: VlanId) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    pub fn members(&self) -> Result<Vec<(LinkIndex, VlanId, Option<MemberMacs>)>, BpfError> {
        unimplemented!("owner: ebpf")
    }

    /// The node's primary link and its addresses.
    pub fn set_node(
        &mut self,
        _link: LinkIndex,
        _v4: Option<std::net::Ipv4Addr>,
        _v6: Option<std::net::Ipv6Addr>,
    ) -> Result<(), BpfError> {
        unimplemented!("owner: ebpf")
    }

    /// Dropped frames by cause name, summed over CPUs.
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, BpfError> {
        unimplemented!("owner: ebpf")
    }
}
