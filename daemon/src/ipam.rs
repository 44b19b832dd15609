//! Addresses and ENIs: the pool as a state machine `(state, event, now) -> (state, effects)`, and
//! the task that runs its effects against cloud and datapath.

use std::sync::Arc;
use std::time::Duration;

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

/// What names an intent towards the cloud: ClientToken, tag and key of the record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(String);

/// An ENI of ours in the checkpoint (secondary or trunk): the owner of this type fills it in.
#[derive(Debug, Clone, PartialEq)]
pub struct EniRecord;

/// A member ENI in the checkpoint: the owner of this type fills it in.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberRecord;

/// Why there is no address. `Display` is one sentence with the numbers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("alloc")]
pub struct AllocError;

impl AllocError {
    /// Decides the CNI code.
    pub fn reason(&self) -> proto::agent::Reason {
        unimplemented!("owner: ipam")
    }

    /// What happens next and what to do: next try, quota, RequestId of the cloud's answer.
    pub fn details(&self) -> String {
        unimplemented!("owner: ipam")
    }
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
    pub async fn start(
        _options: Options,
        _cloud: Arc<dyn Cloud>,
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

/// Stands in until the crate `cloud` has its trait.
pub trait Cloud: Send + Sync + 'static {}
