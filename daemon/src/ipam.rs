//! Addresses and ENIs: the pool as a state machine `(state, event, now) -> (state, effects)`, and
//! the task that runs its effects against cloud and datapath.

use std::time::Duration;

use model::{EniId, IpPair, Mac, Mode, PodRef, SandboxKey, SecurityGroupId, VlanId};

/// What a sandbox asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub key: SandboxKey,
    /// Its pod, for messages and tags.
    pub pod: Option<PodRef>,
    /// What.
    pub want: Want,
}

/// Which kind of attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// An address of a shared ENI.
    Shared,
    /// A member ENI as this PodNetworking says.
    Member {
        /// Name of the PodNetworking.
        pod_networking: String,
    },
}

/// What a sandbox got. It lives in the sandbox's record in the checkpoint, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// How.
    pub mode: Mode,
    /// Its addresses.
    pub addresses: IpPair,
    /// The ENI that owns them: the member, for a member's pod.
    pub eni: EniId,
    /// The ENI whose link carries the frames: the trunk, or `eni` itself.
    pub parent: EniId,
    /// VLAN id of the member.
    pub vlan: Option<VlanId>,
    /// MAC of `eni`.
    pub mac: Mac,
    /// Groups in force.
    pub security_groups: Vec<SecurityGroupId>,
    /// The PodNetworking that chose.
    pub pod_networking: Option<String>,
}

/// An ENI of ours in the checkpoint (secondary or trunk): the owner of this type fills it in.
#[derive(Debug, Clone, PartialEq)]
pub struct EniRecord;

/// A member ENI in the checkpoint: the owner of this type fills it in.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberRecord;

/// Why there is no address: each says why in numbers, and what happens next.
#[derive(Debug, thiserror::Error)]
#[error("alloc")]
pub struct AllocError;

/// A handle to the task that owns the pool.
#[derive(Debug, Clone)]
pub struct Ipam;

impl Ipam {
    /// At once from idle; else waits, at most `wait`.
    pub async fn allocate(
        &self,
        _request: Request,
        _wait: Duration,
    ) -> Result<Allocation, AllocError> {
        unimplemented!("owner: ipam")
    }

    /// Gives the sandbox's addresses back to rest; durable together with the removal of its record.
    /// A key without an allocation is success.
    pub async fn release(&self, _key: &SandboxKey) -> Result<(), AllocError> {
        unimplemented!("owner: ipam")
    }
}
