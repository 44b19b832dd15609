//! Addresses and ENIs: the pool as a state machine `(state, event, now) -> (state, effects)`, and
//! the task that runs its effects against cloud and datapath.

mod addresses;
mod clock;
mod disagreement;
mod driver;
mod error;
mod event;
mod links;
mod lot;
mod members;
mod orphans;
mod pool;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod timing;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloud::Ecs;
use model::{
    Capacity, EniId, InstanceId, IpPair, Mac, Mode, PodRef, SandboxKey, SecurityGroupId, VSwitchId,
    VlanId, ZoneId,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, Contents};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::standalone::PodNetworkings;

use clock::Clock;
use driver::{Driver, Hands, Message};
use event::{Event, Ticket};
use lot::Grain;
use state::State;

pub use disagreement::DisagreementKind;
pub use error::{AllocError, Quota};
pub use links::Links;
pub use lot::Lot;
pub use snapshot::{Carrier, Snapshot, Standing};

/// How long the start waits for links that should be there.
const RESTORE: Duration = Duration::from_secs(10);

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
    /// What its type holds, before [`capacity`].
    pub capacity: Capacity,
    /// Name for tags; the instance id in standalone mode.
    pub name: String,
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
    /// Where disagreements are counted.
    pub metrics: Metrics,
}

/// What a type holds, less what `eni_cap_ratio` and `eni_cap_shift` leave to others, with prefixes
/// if `enable_ip_prefix` is on.
pub fn capacity(of_type: Capacity, config: &Config) -> Capacity {
    let enis = config.eni_capacity.adapters(of_type.enis.saturating_add(1));
    let grain = if config.prefixes.is_some() { Grain::Prefixes } else { Grain::Addresses };
    let pods = grain.pods(config.stack, of_type.per_eni);
    Capacity { enis, shared: enis.saturating_mul(pods), exclusive: enis, ..of_type }
}

/// A handle to the task that owns the pool. The task ends with the last of them.
#[derive(Debug, Clone)]
pub struct Ipam {
    messages: mpsc::UnboundedSender<Message>,
    tickets: Arc<AtomicU64>,
    standing: watch::Receiver<Arc<Standing>>,
    options: Arc<Options>,
}

impl Ipam {
    /// Rebuilds the pool from the checkpoint, sets the ENIs that it holds by [`Links::set_eni`]
    /// (so that pods can be restored next), and starts the task that owns it. Waits for no cloud.
    /// When `stop` is cancelled, everybody who waits is answered and nothing more is asked for; the
    /// task ends when what is in flight is written down.
    pub async fn start<E: Ecs>(
        options: Options,
        cloud: Arc<E>,
        links: Arc<dyn Links>,
        checkpoint: Checkpoint,
        contents: &Contents,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let clock: Clock = clock::boot_time;
        let boot_id = clock::boot_id().unwrap_or_else(|error| {
            tracing::warn!(%error, "the boot has no name; addresses at rest rest anew");
            Uuid::new_v4().to_string()
        });
        let state = State::new(&options, contents, boot_id, seed, clock());
        let (ipam, driver, restored) =
            Self::assemble(state, clock, &options, cloud, links, checkpoint);
        tasks.spawn(driver.run(stop).instrument(tracing::info_span!("pool")));
        // A link that does not come back must not keep the others from working.
        if tokio::time::timeout(RESTORE, restored).await.is_err() {
            tracing::warn!(waited = ?RESTORE, "not all links of known ENIs are set; going on");
        }
        ipam
    }

    fn assemble<E: Ecs>(
        state: State,
        clock: Clock,
        options: &Options,
        cloud: Arc<E>,
        links: Arc<dyn Links>,
        checkpoint: Checkpoint,
    ) -> (Self, Driver<E>, oneshot::Receiver<()>) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let (standing, told) = watch::channel(Arc::new(Standing::of(&state)));
        let (restored, wait) = oneshot::channel();
        let driver = Driver {
            state,
            clock,
            instance: options.node.instance.clone(),
            metrics: options.metrics.clone(),
            hands: Hands::new(cloud, links, messages.downgrade()),
            checkpoint,
            messages: inbox,
            standing,
            restored: Some(restored),
            allocating: HashMap::new(),
            releasing: HashMap::new(),
            confirming: HashMap::new(),
        };
        let tickets = Arc::new(AtomicU64::new(1));
        let options = Arc::new(options.clone());
        (Self { messages, tickets, standing: told, options }, driver, wait)
    }

    /// At once from idle; else waits, at most `wait`. Dropped before it is done, it gives back what
    /// it would have got. A key that has an allocation gets the same again.
    pub async fn allocate(
        &self,
        request: Request,
        wait: Duration,
    ) -> Result<Allocation, AllocError> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut guard = Guard {
            messages: self.messages.clone(),
            question: Some((ticket, request.key.clone())),
        };
        let (reply, answer) = oneshot::channel();
        let message = Message::Allocate { ticket, request, wait, reply };
        self.messages.send(message).map_err(|_ended| AllocError::Stopping)?;
        let answer = answer.await.map_err(|_ended| AllocError::Stopping)?;
        guard.question = None;
        answer
    }

    /// Whether a sandbox still has what it was given: from memory for an address of a shared ENI; for
    /// a member the cloud is asked, and `wait` without an answer is a yes.
    pub async fn confirm(&self, key: &SandboxKey, wait: Duration) -> Result<(), AllocError> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let message = Message::Confirm { ticket, key: key.clone(), wait, reply };
        self.messages.send(message).map_err(|_ended| AllocError::Stopping)?;
        answer.await.map_err(|_ended| AllocError::Stopping)?
    }

    /// Removes the sandbox's record and gives its addresses back to rest, in one durable
    /// transaction; a member ENI is deleted in the background. A key without an allocation is
    /// success.
    pub async fn release(&self, key: &SandboxKey) -> Result<(), AllocError> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let message = Message::Release { ticket, key: key.clone(), reply };
        self.messages.send(message).map_err(|_ended| AllocError::Stopping)?;
        answer.await.map_err(|_ended| AllocError::Stopping)?
    }

    /// Takes up another configuration: for what is asked for, made and given back from now on, and for
    /// who waits. Keys that need a restart must have their old values ([`Config::taking_up`]).
    pub fn reconfigure(&self, config: Config, pod_networkings: PodNetworkings) {
        let options = Options { config, pod_networkings, ..self.options.as_ref().clone() };
        // A task that has ended asks for nothing.
        let _ended = self.messages.send(Message::Event(Event::Reconfigure(Box::new(options))));
    }

    /// The kernel has no link of this ENI any more: nobody is served from it until it has.
    pub fn link_gone(&self, eni: EniId) {
        // A task that has ended serves nobody.
        let _ended = self.messages.send(Message::Event(Event::LinkGone(eni)));
    }

    /// How the pool stands, as of its last change.
    pub fn standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.standing.clone()
    }

    /// All that the pool has now.
    pub async fn snapshot(&self) -> Result<Snapshot, AllocError> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Look(reply)).map_err(|_ended| AllocError::Stopping)?;
        answer.await.map_err(|_ended| AllocError::Stopping)
    }
}

/// Takes a question back whose answer nobody will see.
struct Guard {
    messages: mpsc::UnboundedSender<Message>,
    question: Option<(Ticket, SandboxKey)>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((ticket, key)) = self.question.take() {
            // A task that has ended has nothing to give back.
            let _ended = self.messages.send(Message::Cancel { ticket, key });
        }
    }
}
