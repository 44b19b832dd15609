//! Member ENIs for pods: what a PodENI and its NetworkInterface are in a cluster is one record
//! here. Level by level: every pod that wants one and has none gets an intent, every ENI whose pod
//! is gone is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloud::{ClientToken, Meaning};
use model::{EniId, IpStack, PodRef, SandboxKey, ZoneId};

use crate::call::{Answer, Call, CallError, Verb};
use crate::eni::{Binding, Eni, EniSpec, Goal, Kind, Stage};
use crate::fleet::{Fleet, FleetSettings, Notice, Steps};
use crate::life::Failure;
use crate::pod_networking::{Defaults, NotReady, PodNetworking};
use crate::random::Random;
use crate::vswitches::{Exhausted, NoVSwitch, VSwitches};

/// Where pods and PodNetworkings come from: the CNI's requests and a directory, or a cluster.
pub trait Source {
    /// The pods that are to have a member ENI now.
    fn pods(&self) -> Vec<PodRequest>;

    /// One PodNetworking.
    fn pod_networking(&self, name: &str) -> Option<&PodNetworking>;

    /// The names of all, for messages.
    fn names(&self) -> Vec<String>;
}

/// Where the records are kept: the checkpoint, or a cluster. What is put with
/// [`Durability::Before`] must be durable before any call of the same step is made.
pub trait Store {
    /// Writes a record.
    fn put(&mut self, eni: &Eni<Owner>, durability: Durability);

    /// Removes it.
    fn remove(&mut self, token: &ClientToken);
}

/// When a write must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the calls of its step.
    Before,
    /// At some time: a restart mends its loss.
    Later,
}

/// A pod that is to have a member ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRequest {
    /// Its attachment.
    pub sandbox: SandboxKey,
    /// Its name, where there is one.
    pub pod: Option<PodRef>,
    /// Which PodNetworking it has.
    pub pod_networking: String,
}

/// Whose a member ENI is.
pub type Owner = PodRequest;

/// What the controller needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSettings {
    /// Of the ENIs.
    pub fleet: FleetSettings,
    /// Where new ones go.
    pub zone: ZoneId,
    /// The families of pods.
    pub stack: IpStack,
    /// Whether there is or will be a trunk.
    pub trunking: bool,
    /// How many members the instance type allows.
    pub members: u32,
    /// What `eni_conf` says where a PodNetworking does not.
    pub defaults: Defaults,
    /// On every ENI; the pod's name is added.
    pub tags: BTreeMap<String, String>,
    /// The resource group of new ENIs.
    pub resource_group: Option<String>,
    /// Whether the VPC drops sources that an ENI does not own.
    pub source_dest_check: bool,
}

/// What has become of a pod's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status<'a> {
    /// It has its ENI.
    Bound(&'a Eni<Owner>, &'a Binding),
    /// It will have none as things are.
    Refused(&'a Refusal),
    /// It is being worked on.
    Pending(Pending),
}

/// Why a pod will have no ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such PodNetworking.
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It has no effect here.
    NotReady(String, NotReady),
    /// One of its vSwitches does not exist, or none is in the zone.
    VSwitch(String, NoVSwitch),
    /// All its vSwitches are exhausted.
    Exhausted(String, Exhausted),
    /// The instance has all the members it may have.
    Quota {
        /// As many as that.
        max: u32,
    },
    /// The ENI did not become what it should.
    Failed(Option<EniId>, Failure),
}

/// What a pod's wish waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// The node's trunk.
    Trunk,
    /// What the cloud says of the vSwitches.
    VSwitches(Option<CallError>),
    /// A member that is being deleted, for all are taken.
    Room {
        /// How many members there may be.
        max: u32,
        /// How many are on their way out.
        leaving: usize,
    },
    /// Its ENI.
    Eni {
        /// Once it has an id.
        id: Option<EniId>,
        /// What is done for it.
        phase: &'static str,
        /// Why the last call failed.
        trouble: Option<CallError>,
        /// When the next call is due.
        next_try: Duration,
    },
}

/// Gives pods their member ENIs.
#[derive(Debug, Clone)]
pub struct Controller {
    settings: ControllerSettings,
    fleet: Fleet<Owner>,
    trunk: Option<EniId>,
    pods: BTreeMap<SandboxKey, Option<Setback>>,
    random: Random,
}

/// Why a pod has no ENI under way.
#[derive(Debug, Clone, PartialEq)]
enum Setback {
    Refused(Box<Refusal>),
    Pending(Box<Pending>),
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Pending> for Setback {
    fn from(pending: Pending) -> Self {
        Self::Pending(Box::new(pending))
    }
}

impl Controller {
    /// With the records as read after a restart.
    pub fn new(
        settings: ControllerSettings,
        records: Vec<Eni<Owner>>,
        seed: u64,
        now: Duration,
    ) -> Self {
        let mut random = Random::new(seed);
        let fleet = Fleet::new(settings.fleet.clone(), records, random.next(), now);
        Self { settings, fleet, trunk: None, pods: BTreeMap::new(), random }
    }

    /// From now on, for members that are still to be made; the others stay as they are.
    pub fn reconfigure(&mut self, settings: ControllerSettings) {
        self.fleet.reconfigure(settings.fleet.clone());
        self.settings = settings;
    }

    /// The node's trunk, once it carries frames.
    pub fn set_trunk(&mut self, trunk: Option<EniId>) {
        self.trunk = trunk;
    }

    /// How many members there may be, less what others have attached.
    pub const fn set_members(&mut self, members: u32) {
        self.settings.members = members;
    }

    /// All records.
    pub fn enis(&self) -> impl Iterator<Item = &Eni<Owner>> {
        self.fleet.iter()
    }

    /// When [`reconcile`](Self::reconcile) has something to do without any event.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        self.fleet.wake(now)
    }

    /// Takes an answer in; `begun` is when its call was handed out.
    pub fn answer(
        &mut self,
        answer: Answer,
        begun: Duration,
        vswitches: &mut VSwitches,
        now: Duration,
    ) {
        match &answer {
            Answer::Created(token, Ok(_)) => {
                if let Some(eni) = self.fleet.get(token) {
                    vswitches.take(&eni.spec.vswitch, 1);
                }
            }
            Answer::Changed(token, Verb::Delete, Ok(())) => {
                if let Some(eni) = self.fleet.get(token) {
                    vswitches.give_back(&eni.spec.vswitch, 1);
                }
            }
            _ => {}
        }
        let notices = self.fleet.answer(answer, begun, now);
        for notice in &notices {
            self.notice(notice, vswitches, now);
        }
    }

    /// What is to be done now: intents for pods without an ENI, an end for ENIs without a pod, and
    /// the next step of every one. Records go to `store`.
    pub fn reconcile(
        &mut self,
        source: &impl Source,
        store: &mut impl Store,
        vswitches: &mut VSwitches,
        now: Duration,
    ) -> (Vec<Call>, Vec<Notice>) {
        let pods = source.pods();
        let wanted: BTreeSet<&SandboxKey> = pods.iter().map(|pod| &pod.sandbox).collect();
        self.pods.retain(|sandbox, _| wanted.contains(sandbox));
        let orphans: Vec<_> = self
            .fleet
            .iter()
            .filter(|eni| !wanted.contains(&eni.owner.sandbox) || self.is_stranded(eni))
            .map(|eni| eni.token.clone())
            .collect();
        for token in orphans {
            self.fleet.release(&token);
        }
        let (mut calls, mut notices) = (Vec::new(), Vec::new());
        loop {
            for pod in &pods {
                self.intend(pod, source, vswitches, now);
            }
            let steps = self.fleet.advance(now);
            let failed = steps.notices.iter().any(|n| matches!(n, Notice::Failed(..)));
            for notice in &steps.notices {
                self.notice(notice, vswitches, now);
            }
            calls.extend(keep(steps, store, &mut notices));
            if !failed {
                return (calls, notices);
            }
        }
    }

    /// What has become of a pod's wish; `None` if it has none.
    pub fn status(&self, sandbox: &SandboxKey) -> Option<Status<'_>> {
        let setback = self.pods.get(sandbox)?;
        if let Some(eni) = self.live(sandbox) {
            return Some(match &eni.stage {
                Stage::Bound(binding) => Status::Bound(eni, binding),
                Stage::Intended | Stage::Made(_) => Status::Pending(self.progress(eni)),
            });
        }
        Some(match setback.as_ref()? {
            Setback::Refused(refusal) => Status::Refused(refusal),
            Setback::Pending(pending) => Status::Pending((**pending).clone()),
        })
    }

    /// Lets a pod that was refused be tried again.
    pub fn retry(&mut self, sandbox: &SandboxKey) {
        if let Some(setback) = self.pods.get_mut(sandbox) {
            *setback = None;
        }
    }

    fn live(&self, sandbox: &SandboxKey) -> Option<&Eni<Owner>> {
        let live = |eni: &&Eni<Owner>| eni.goal == Goal::Bound && &eni.owner.sandbox == sandbox;
        self.fleet.iter().find(live)
    }

    /// Meant for a trunk that another one has replaced: it gets nowhere, and the pod another one.
    fn is_stranded(&self, eni: &Eni<Owner>) -> bool {
        let replaced = self.trunk.as_ref().is_some_and(|t| eni.spec.kind.trunk() != Some(t));
        replaced && eni.goal == Goal::Bound && eni.binding().is_none()
    }

    fn progress(&self, eni: &Eni<Owner>) -> Pending {
        let view = self.fleet.view(&eni.token);
        let phase = match (&eni.stage, view.and_then(|view| view.changed)) {
            (Stage::Intended, _) => "Creating",
            (_, None) => "Created",
            (_, Some(_)) => "Attaching",
        };
        Pending::Eni {
            id: eni.id().cloned(),
            phase,
            trouble: view.and_then(|view| view.trouble.clone()),
            next_try: view.map(|view| view.not_before).unwrap_or_default(),
        }
    }

    /// Gives the pod an intent, a reason to wait, or a refusal, if it has no ENI.
    fn intend(
        &mut self,
        pod: &PodRequest,
        source: &impl Source,
        vswitches: &mut VSwitches,
        now: Duration,
    ) {
        let setback = self.pods.entry(pod.sandbox.clone()).or_default();
        if matches!(setback, Some(Setback::Refused(_))) || self.live(&pod.sandbox).is_some() {
            return;
        }
        let setback = match self.plan(pod, source, vswitches, now) {
            Ok(eni) => {
                self.fleet.add(eni);
                None
            }
            Err(setback) => Some(setback),
        };
        self.pods.insert(pod.sandbox.clone(), setback);
    }

    fn plan(
        &mut self,
        pod: &PodRequest,
        source: &impl Source,
        vswitches: &mut VSwitches,
        now: Duration,
    ) -> Result<Eni<Owner>, Setback> {
        let name = &pod.pod_networking;
        let unknown = || Refusal::Unknown { name: name.clone(), known: source.names() };
        let pod_networking = source.pod_networking(name).ok_or_else(unknown)?;
        let not_ready = |why| Refusal::NotReady(name.clone(), why);
        pod_networking.ready(self.settings.trunking).map_err(not_ready)?;
        let defaults = &self.settings.defaults;
        let ids = pod_networking.vswitches(defaults);
        let vswitch = vswitches.choose(ids, &self.settings.zone, pod_networking.policy, now);
        let vswitch = vswitch.map_err(|why| match why {
            NoVSwitch::Unknown(trouble) => Setback::from(Pending::VSwitches(trouble)),
            NoVSwitch::Exhausted(all) => Refusal::Exhausted(name.clone(), all).into(),
            other => Refusal::VSwitch(name.clone(), other).into(),
        })?;
        self.room()?;
        let trunk = self.trunk.clone().ok_or(Pending::Trunk)?;
        let spec = EniSpec {
            kind: Kind::Member(trunk),
            vswitch: vswitch.id,
            security_groups: pod_networking.security_groups(defaults).to_vec(),
            stack: self.settings.stack,
            v4: 1,
            v6: u32::from(self.settings.stack.v6()),
            v4_prefixes: 0,
            v6_prefixes: 0,
            tags: self.tags(pod),
            resource_group: self.settings.resource_group.clone(),
            source_dest_check: self.settings.source_dest_check,
        };
        Ok(Eni::intend(self.random.token(), spec, pod.clone()))
    }

    fn room(&self) -> Result<(), Setback> {
        let max = self.settings.members;
        let used = self.fleet.iter().count();
        let leaving = self.fleet.iter().filter(|eni| eni.goal == Goal::Gone).count();
        match (u32::try_from(used).unwrap_or(u32::MAX) < max, leaving) {
            (true, _) => Ok(()),
            (false, 0) => Err(Refusal::Quota { max }.into()),
            (false, leaving) => Err(Pending::Room { max, leaving }.into()),
        }
    }

    fn tags(&self, pod: &PodRequest) -> BTreeMap<String, String> {
        let mut tags = self.settings.tags.clone();
        let name =
            pod.pod.as_ref().map_or_else(|| pod.sandbox.container_id.clone(), ToString::to_string);
        tags.insert("pod".to_owned(), name.chars().take(128).collect());
        tags
    }

    fn notice(&mut self, notice: &Notice, vswitches: &mut VSwitches, now: Duration) {
        let Notice::Failed(token, failure) = notice else { return };
        let Some(eni) = self.fleet.get(token) else { return };
        if let Failure::Cloud(error) = failure
            && let Some(Meaning::VSwitchExhausted { .. }) = error.meaning()
        {
            // The next intent takes another one.
            vswitches.block(&eni.spec.vswitch, error.to_string(), now);
            return;
        }
        if let Some(setback) = self.pods.get_mut(&eni.owner.sandbox) {
            *setback = Some(Refusal::Failed(eni.id().cloned(), failure.clone()).into());
        }
    }
}

fn keep(steps: Steps<Owner>, store: &mut impl Store, notices: &mut Vec<Notice>) -> Vec<Call> {
    for eni in &steps.puts {
        store.put(eni, Durability::Before);
    }
    for eni in &steps.notes {
        store.put(eni, Durability::Later);
    }
    for token in &steps.removes {
        store.remove(token);
    }
    notices.extend(steps.notices);
    steps.calls
}

#[cfg(test)]
mod tests;
