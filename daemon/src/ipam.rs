//! Addresses and ENIs: the pool as a state machine `(state, event, now) -> (state, effects)`, and
//! the task that runs its effects against cloud and datapath.

mod error;

use std::sync::Arc;
use std::time::Duration;

pub use error::{AllocError, Quota};

use cloud::Ecs;
use futures::future::BoxFuture;
use model::{
    Capacity, EniId, InstanceId, IpPair, Mac, Mode, PodRef, SandboxKey, SecurityGroupId, VSwitchId,
    VlanId, ZoneId,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checkpoint::{Checkpoint, Contents};
use crate::config::Config;
use crate::datapath::{DatapathError, EniLink, EniSpec};
use crate::standalone::PodNetworkings;

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

/// A secondary or trunk ENI of this node, as the checkpoint keeps it.
pub type EniRecord = controlplane::Eni<Uplink>;

/// A pod's member ENI, as the checkpoint keeps it.
pub type MemberRecord = controlplane::Eni<controlplane::Owner>;

/// What the node needs of an ENI beside what the cloud says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// Small and its own, from 1: its pods' mark is made of it.
    pub number: u32,
    /// Gateway of its vSwitch, per family.
    pub gateway: IpPair,
}

/// This node, as the metadata service and `DescribeInstanceTypes` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its instance.
    pub instance: InstanceId,
    /// Where new ENIs go.
    pub zone: ZoneId,
    /// The vSwitch of its primary ENI: used when `eni_conf` names none for the zone.
    pub vswitch: VSwitchId,
    /// Checked by [`Capacity::check`].
    pub capacity: Capacity,
    /// Name for tags; the instance id in standalone mode.
    pub name: String,
}

/// The kernel side of an ENI: what the pool needs of the [`Datapath`](crate::datapath::Datapath).
pub trait Links: Send + Sync + 'static {
    /// As [`Datapath::set_eni`](crate::datapath::Datapath::set_eni).
    fn set_eni(
        &self,
        eni: EniSpec,
        wait: Duration,
    ) -> BoxFuture<'_, Result<EniLink, DatapathError>>;
    /// As [`Datapath::remove_eni`](crate::datapath::Datapath::remove_eni).
    fn remove_eni(&self, id: EniId) -> BoxFuture<'_, Result<(), DatapathError>>;
    /// As [`Datapath::bury`](crate::datapath::Datapath::bury).
    fn bury(&self, addresses: IpPair) -> BoxFuture<'_, Result<(), DatapathError>>;
}

/// What the pool is to be started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node.
    pub node: Node,
    /// From `eni_conf`.
    pub config: Config,
    /// From the directory's YAML.
    pub pod_networkings: PodNetworkings,
}

/// What the debug socket shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// ENIs, addresses and members.
    pub enis: proto::debug::EnisReply,
    /// Numbers.
    pub pool: proto::debug::Pool,
    /// Why an ADD could not be served now; `None` if it could.
    pub not_ready: Option<String>,
    /// The last error of the cloud's API, with its RequestId.
    pub last_cloud_error: Option<String>,
}

/// A handle to the task that owns the pool.
#[derive(Debug, Clone)]
pub struct Ipam;

impl Ipam {
    /// Rebuilds the pool from the checkpoint, sets the ENIs that it holds by [`Links::set_eni`]
    /// (so that pods can be restored next), and starts the task that owns it; the task ends when
    /// `stop` is cancelled and what is in flight has been written down. Waits for no cloud.
    pub async fn start<E: Ecs>(
        _options: Options,
        _cloud: Arc<E>,
        _links: Arc<dyn Links>,
        _checkpoint: Checkpoint,
        _contents: &Contents,
        _tasks: &TaskTracker,
        _stop: CancellationToken,
    ) -> Self {
        unimplemented!("owner: ipam")
    }

    /// At once from idle; else waits, at most `wait`. Dropped before it is done, it gives back what
    /// it would have got. A key that has an allocation gets the same again.
    pub async fn allocate(
        &self,
        _request: Request,
        _wait: Duration,
    ) -> Result<Allocation, AllocError> {
        unimplemented!("owner: ipam")
    }

    /// Removes the sandbox's record and gives its addresses back to rest, in one durable
    /// transaction; a member ENI is deleted in the background. A key without an allocation is
    /// success.
    pub async fn release(&self, _key: &SandboxKey) -> Result<(), AllocError> {
        unimplemented!("owner: ipam")
    }

    /// What the pool looks like, as of its last change.
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        unimplemented!("owner: ipam")
    }
}
