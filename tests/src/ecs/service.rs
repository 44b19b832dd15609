//! The running emulator: the state behind one lock, and the task that carries changes to the wires.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use model::{EniId, InstanceId, SecurityGroupId, VSwitchId, VpcId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cloud::{Answer, Cloud};
use super::credentials::{AccessKey, Keyring};
use super::fabric::Fabric;
use super::faults::Faults;
use super::journal::Journal;
use super::metadata::Metadata;
use super::operations::{Effect, OperationId, Work};
use super::refusal::Refusal;
use super::rules::SecurityGroup;
use super::settings::Settings;
use super::setup::{InstanceSpec, VSwitchSpec, VpcSpec};
use super::signature::Nonces;
use super::verdict::{Flow, Party, Verdict, verdict};
use super::world::InstanceState;

/// The emulated cloud, running. Clones are the same cloud.
#[derive(Debug, Clone)]
pub struct Ecs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    rules: mpsc::UnboundedSender<RulesJob>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// All that a call may read or change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cloud: Cloud,
    pub(crate) keyring: Keyring,
    pub(crate) nonces: Nonces,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) metadata: Metadata,
    waiters: HashMap<OperationId, Vec<oneshot::Sender<Result<(), String>>>>,
}

/// The wires are to learn the rules of a group.
#[derive(Debug)]
struct RulesJob {
    group: SecurityGroup,
    done: oneshot::Sender<Result<(), String>>,
}

impl Ecs {
    /// Starts a cloud without a VPC. `seed` decides what is left to chance; `key` may call it.
    /// Runs on the tokio runtime that it is called on, until [`Self::stop`].
    pub fn start<F: Fabric>(settings: Settings, seed: u64, key: AccessKey, fabric: Arc<F>) -> Self {
        let (rules, jobs) = mpsc::unbounded_channel();
        let mut keyring = Keyring::default();
        keyring.add(key);
        let state = State {
            cloud: Cloud::new(settings, seed),
            keyring,
            nonces: Nonces::default(),
            faults: Faults::new(seed),
            journal: Journal::default(),
            metadata: Metadata::default(),
            waiters: HashMap::new(),
        };
        let shared = Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            rules,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let ecs = Self { shared: Arc::new(shared) };
        ecs.spawn(ecs.clone().run(Arc::clone(&fabric)));
        ecs.spawn(teach_rules(fabric, jobs, ecs.shared.stop.clone()));
        ecs
    }

    /// Ends everything that was started, and waits for it. What is plugged stays plugged.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// Adds a VPC.
    pub fn add_vpc(&self, spec: &VpcSpec) -> Result<(), Refusal> {
        self.lock().cloud.add_vpc(spec, now())
    }

    /// Adds a vSwitch; its blocks are a part of its VPC's and of no other vSwitch's.
    pub fn add_vswitch(&self, spec: &VSwitchSpec) -> Result<(), Refusal> {
        self.lock().cloud.add_vswitch(spec, now())
    }

    /// Exactly these addresses of a vSwitch belong to somebody who is no ENI.
    pub fn reserve(&self, id: &VSwitchId, addresses: BTreeSet<Ipv4Addr>) -> Result<(), Refusal> {
        self.lock().cloud.reserve(id, addresses)
    }

    /// Adds a basic security group without rules, or, if `open`, with one that lets all in.
    pub async fn add_group(
        &self,
        id: &SecurityGroupId,
        vpc: &VpcId,
        open: bool,
    ) -> Result<(), Refusal> {
        self.lock().cloud.add_group(id, vpc, open, now())?;
        self.teach(id).await
    }

    /// Lets the members of the group `peer` into the members of the group `id`.
    pub async fn admit(&self, id: &SecurityGroupId, peer: &SecurityGroupId) -> Result<(), Refusal> {
        self.lock().cloud.admit(id, peer, now())?;
        self.teach(id).await
    }

    /// Boots an instance; its primary ENI is plugged when this returns.
    pub async fn boot(&self, spec: &InstanceSpec) -> Result<InstanceId, Refusal> {
        let (id, done) = {
            let mut state = self.lock();
            let (id, operation) = state.cloud.add_instance(spec, now())?;
            (id, state.wait_for(operation))
        };
        self.shared.changed.notify_one();
        settled(done).await?;
        Ok(id)
    }

    /// Starts or stops an instance; its ENIs stay where they are.
    pub fn set_instance_state(&self, id: &str, state: InstanceState) -> Result<(), Refusal> {
        self.lock().cloud.set_instance_state(id, state, now())
    }

    /// Releases an instance: its ENIs are taken out, those with `DeleteOnRelease` deleted.
    pub async fn release(&self, id: &str) -> Result<(), Refusal> {
        self.set_instance_state(id, InstanceState::Released)?;
        let instance = InstanceId::new(id);
        // Members go before their trunk, and one that is busy is waited for.
        for _round in 0..1000 {
            let done = {
                let mut state = self.lock();
                let Some(begun) = state.cloud.take_out(&instance, now())? else { return Ok(()) };
                begun.into_iter().map(|id| state.wait_for(id)).collect::<Vec<_>>()
            };
            self.shared.changed.notify_one();
            if done.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for done in done {
                settled(done).await?;
            }
        }
        Err(Refusal::internal(format!("the ENIs of {id} do not get out")))
    }

    /// An ENI is gone, as if it had never been: unplugged, deleted, its addresses free.
    pub async fn vanish(&self, eni: &str) -> Result<(), Refusal> {
        let done = {
            let mut state = self.lock();
            let begun = state.cloud.vanish(eni, now())?;
            begun.map(|id| state.wait_for(id))
        };
        self.shared.changed.notify_one();
        match done {
            Some(done) => settled(done).await,
            None => Ok(()),
        }
    }

    /// The instance that an address belongs to.
    pub fn instance_at(&self, address: IpAddr) -> Option<InstanceId> {
        let state = self.lock();
        let mut enis = state.cloud.view().enis();
        let owner = enis.find(|eni| eni.is_plugged() && eni.owns(address));
        owner?.instance().cloned()
    }

    /// What the groups of the addresses' ENIs say to a flow that crosses the VPC. An address that
    /// no ENI has is guarded by nothing.
    pub fn verdict(&self, from: IpAddr, to: IpAddr, flow: Flow) -> Verdict {
        let state = self.lock();
        let (from_groups, to_groups) = (state.groups_at(from), state.groups_at(to));
        let from = Party { address: from, groups: &from_groups };
        verdict(from, Party { address: to, groups: &to_groups }, flow)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Runs a task that ends by itself or when the cloud stops.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.shared.tracker.spawn(task)
    }

    /// The answer of an action, when what it waits for is done. `now_or_later` runs under the lock.
    pub(crate) async fn settle(
        &self,
        begin: impl FnOnce(&mut State) -> Result<Answer, Refusal>,
    ) -> Result<serde_json::Value, Refusal> {
        let (answer, done) = {
            let mut state = self.lock();
            let answer = begin(&mut state)?;
            let done = answer.wait.map(|id| state.wait_for(id));
            (answer, done)
        };
        self.shared.changed.notify_one();
        if let Some(done) = done {
            settled(done).await?;
        }
        if let Some(group) = &answer.rules {
            self.teach(group).await?;
        }
        Ok(answer.body)
    }

    /// Returns when the wires know the rules of a group.
    async fn teach(&self, group: &SecurityGroupId) -> Result<(), Refusal> {
        let (done, learned) = oneshot::channel();
        {
            // Sent under the lock: the last job of a group is its latest rules.
            let state = self.lock();
            let Some(group) = state.cloud.world.groups.get(group) else { return Ok(()) };
            let job = RulesJob { group: group.rules.clone(), done };
            if self.shared.rules.send(job).is_err() {
                return Err(Refusal::internal("the lab stops"));
            }
        }
        settled(learned).await
    }

    async fn run<F: Fabric>(self, fabric: Arc<F>) {
        loop {
            let (work, next) = {
                let mut state = self.lock();
                let work = state.cloud.tick(now());
                (work, state.cloud.operations.next_due())
            };
            for work in work {
                self.spawn(self.clone().carry_out(Arc::clone(&fabric), work));
            }
            let due = next.map_or(Duration::from_mins(1), |next| {
                next.duration_since(now()).try_into().unwrap_or(Duration::ZERO)
            });
            // All three may be dropped: the state says what is due.
            tokio::select! {
                () = self.shared.stop.cancelled() => return,
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(due) => {}
            }
        }
    }

    async fn carry_out<F: Fabric>(self, fabric: Arc<F>, work: Work) {
        let mut outcome = Ok(());
        for effect in &work.effects {
            outcome = apply(fabric.as_ref(), effect).await.map_err(|error| format!("{error:#}"));
            if outcome.is_err() {
                break;
            }
        }
        let mut state = self.lock();
        state.cloud.finish(work.id, &outcome, now());
        for waiter in state.waiters.remove(&work.id).unwrap_or_default() {
            // Who does not wait any more need not know.
            drop(waiter.send(outcome.clone()));
        }
    }
}

impl State {
    fn wait_for(&mut self, id: OperationId) -> oneshot::Receiver<Result<(), String>> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.entry(id).or_default().push(sender);
        receiver
    }

    /// The groups of the ENI that has an address.
    fn groups_at(&self, address: IpAddr) -> Vec<&SecurityGroup> {
        let mut enis = self.cloud.view().enis();
        let owner = enis.find(|eni| eni.owns(address));
        let groups = owner.map(|eni| eni.groups.as_slice()).unwrap_or_default();
        let known = groups.iter().filter_map(|group| self.cloud.world.groups.get(group));
        known.map(|group| &group.rules).collect()
    }

    /// What a fault does to a detach: it is answered, and nothing happens.
    pub(crate) fn stick(&mut self, eni: &str) {
        self.cloud.operations.abandon(&EniId::new(eni));
    }
}

async fn apply<F: Fabric>(fabric: &F, effect: &Effect) -> anyhow::Result<()> {
    match effect {
        Effect::Plug(eni) => fabric.plug(eni).await,
        Effect::Unplug(eni) => fabric.unplug(eni).await,
        Effect::SetAddresses(eni) => fabric.set_addresses(eni).await,
        Effect::SetGroups(eni) => fabric.set_groups(eni).await,
        Effect::SetSourceDestCheck(eni) => fabric.set_source_dest_check(eni).await,
    }
}

async fn teach_rules<F: Fabric>(
    fabric: Arc<F>,
    mut jobs: mpsc::UnboundedReceiver<RulesJob>,
    stop: CancellationToken,
) {
    // Receiving may be dropped: a job stays in the channel.
    while let Some(Some(job)) = stop.run_until_cancelled(jobs.recv()).await {
        let outcome = fabric.set_rules(&job.group).await.map_err(|error| format!("{error:#}"));
        drop(job.done.send(outcome));
    }
}

async fn settled(done: oneshot::Receiver<Result<(), String>>) -> Result<(), Refusal> {
    match done.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Refusal::internal(why)),
        Err(_stopped) => Err(Refusal::internal("the lab stops")),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell of the emulator; all below takes a time")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
