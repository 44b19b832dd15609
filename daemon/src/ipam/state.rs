//! The whole as one state machine: `(state, event, now) -> (state, outcome)`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controlplane::{
    ControllerSettings, Defaults, FleetSettings, Owner, PodRequest, Random, VSwitches,
};
use model::{IpPair, SandboxKey, VSwitchId};

use super::event::{Ask, Effect, Event, Outcome, Ticket, Told, Whose};
use super::members::{self, Members};
use super::orphans::{self, Orphans};
use super::pool::{self, Pool, Settings, Tag, TagRules};
use super::{AllocError, Options, Request, Want, timing};
use crate::checkpoint::Contents;
use crate::config::Config;

mod unwritten;

use unwritten::Unwritten;

/// Who made an ENI, and so collects it.
const CREATOR_TAG: &str = "creator";
/// Of which cluster it is.
const CLUSTER_TAG: &str = "ack.aliyun.com";
/// For which node it was made.
const NODE_TAG: &str = "node";
/// [`CREATOR_TAG`] of the pool's ENIs.
const DAEMON: &str = "terway";
/// [`CREATOR_TAG`] of members.
const CONTROL_PLANE: &str = "terway-controller";

/// Everything that hands out addresses on this node.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) pool: Pool,
    pub(crate) members: Members,
    orphans: Orphans,
    pub(crate) vswitches: VSwitches,
    foreign_members: u32,
    pub(crate) last_cloud_error: Option<String>,
    unwritten: Unwritten,
    stopping: bool,
}

impl State {
    /// Rebuilt from the checkpoint. `seed` makes tokens, and must never be the same twice.
    pub(crate) fn new(
        options: &Options,
        contents: &Contents,
        boot_id: String,
        seed: u64,
        now: Duration,
    ) -> Self {
        let mut random = Random::new(seed);
        let settings = settings(options, boot_id);
        let members = Members::new(
            member_settings(options, &settings),
            options.pod_networkings.clone(),
            contents,
            settings.cooldown,
            random.next(),
            now,
        );
        let mut vswitches = VSwitches::new(random.next());
        vswitches.watch(&watched(options, &settings));
        let orphans = Orphans::new(orphan_settings(options, &settings), random.next(), now);
        Self {
            pool: Pool::new(settings, contents, random.next(), now),
            members,
            orphans,
            vswitches,
            foreign_members: 0,
            last_cloud_error: None,
            unwritten: Unwritten::default(),
            stopping: false,
        }
    }

    /// One step.
    pub(crate) fn step(&mut self, event: Event, now: Duration) -> Outcome {
        let mut out = Outcome::default();
        let news = matches!(event, Event::Told { .. });
        self.take(event, now, &mut out);
        if news {
            self.pool.one_home(now, &mut out);
        }
        self.pool.withhold(self.members.addresses(), now, &mut out);
        self.pool.serve(now, &mut out);
        self.pool.drop_lost(self.members.trunks());
        self.pool.plan(&mut self.vswitches, now);
        self.pool.advance(&mut self.vswitches, now, &mut out);
        self.pool.refuse(now, &mut out);
        self.pool.expire(&self.vswitches, now, &mut out);
        self.pool.links(now, &mut out);
        self.pool.ask(now, &mut out);
        self.pool.bury(now, &mut out);
        self.pool.warm_up(&mut out);
        self.pool.reclaim(now);
        self.pool.shrink(now, &mut out);
        self.pool.forget(now, &mut out);
        self.pool.look(now, &mut out);
        self.members.observe(self.pool.trunk(), self.foreign_members);
        let held = self.pool.held();
        self.members.advance(&held, &mut self.vswitches, now, &mut out);
        self.orphans.advance(now, &mut out);
        if !self.stopping && self.pool.settings().degradation.calls() {
            let due = self.vswitches.due(now).into_iter();
            out.effects.extend(due.map(|id| Effect::Ask(Ask::VSwitch(id))));
        }
        self.write_again(now, &mut out);
        out
    }

    /// When the next step is due without any event.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let calls = self.pool.settings().degradation.calls();
        let vswitches = self.vswitches.wake(now).filter(|_| calls);
        let orphans = self.orphans.wake(now);
        let unwritten = self.unwritten.wake();
        [self.pool.wake(now), self.members.wake(now), orphans, vswitches, unwritten]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a pod waits for an address.
    pub(crate) fn has_waiters(&self) -> bool {
        self.pool.waiting() + self.members.waiting() > 0
    }

    fn take(&mut self, event: Event, now: Duration, out: &mut Outcome) {
        match event {
            Event::Tick => {}
            Event::Allocate { ticket, .. } if self.stopping => {
                out.answers.push((ticket, Err(AllocError::Stopping)));
            }
            Event::Allocate { ticket, request, deadline } => {
                self.allocate(ticket, request, deadline, now, out);
            }
            Event::Cancel { ticket, key } => {
                self.pool.cancel(ticket, &key, now);
                self.members.cancel(ticket, &key);
            }
            Event::Release { ticket, key } => self.release(ticket, &key, now, out),
            Event::Confirm { ticket, .. } if self.stopping => {
                out.confirmations.push((ticket, Err(AllocError::Stopping)));
            }
            Event::Confirm { ticket, key, deadline } => {
                self.confirm(ticket, key, deadline, now, out);
            }
            Event::Reconfigure(options) => self.reconfigure(&options, now),
            Event::LinkGone(eni) => self.pool.link_gone(&eni, now, out),
            Event::Told { begun, told } => self.told(told, begun, now, out),
            Event::Unwritten { begun, effects, error } => {
                self.unwritten.failed(&effects, now);
                for effect in effects {
                    if let Some(told) = effect.undone(&error) {
                        self.told(told, begun, now, out);
                    }
                }
            }
            Event::Stop => {
                self.stopping = true;
                self.pool.stop(out);
                self.members.stop(out);
                self.orphans.stop();
            }
        }
    }

    /// Who waits is planned anew by the rest of this step.
    fn reconfigure(&mut self, options: &Options, now: Duration) {
        let settings = settings(options, self.pool.settings().boot_id.clone());
        let members = member_settings(options, &settings);
        let pod_networkings = options.pod_networkings.clone();
        self.members.reconfigure(members, pod_networkings, settings.cooldown);
        self.vswitches.watch_only(&watched(options, &settings));
        self.orphans.reconfigure(orphan_settings(options, &settings));
        self.pool.reconfigure(settings);
        // Tags that give ENIs to others are in the cloud.
        self.pool.look_at(now);
    }

    fn allocate(
        &mut self,
        ticket: Ticket,
        request: Request,
        deadline: Duration,
        now: Duration,
        out: &mut Outcome,
    ) {
        let Request { key, pod, want } = request;
        match want {
            Want::Shared => {
                self.members.forsake(&key, out);
                let waiter = pool::Waiter { ticket, key, since: now, deadline };
                self.pool.allocate(waiter, out);
            }
            Want::Member { pod_networking } => {
                self.pool.forsake(&key, out);
                let pod = PodRequest { sandbox: key, pod, pod_networking };
                let waiter = members::Waiter { ticket, pod, since: now, deadline };
                self.members.allocate(waiter, out);
            }
        }
    }

    /// What the pool knows is enough of a shared ENI; of a member the cloud is asked.
    fn confirm(
        &mut self,
        ticket: Ticket,
        key: SandboxKey,
        deadline: Duration,
        now: Duration,
        out: &mut Outcome,
    ) {
        if let Some(answer) = self.pool.confirm(&key) {
            out.confirmations.push((ticket, answer));
            return;
        }
        let asked = members::Confirmation { ticket, key, since: now, deadline };
        if self.members.confirm(asked, now, out) {
            self.pool.look_at(now);
        }
    }

    /// The members' part of the transaction is written by their next round, in the same step.
    fn release(&mut self, ticket: Ticket, key: &SandboxKey, now: Duration, out: &mut Outcome) {
        self.pool.release(key, now, out);
        if let Some((eni, addresses)) = self.members.release(key, now, out) {
            self.pool.rest_wherever(&eni, addresses.iter(), now, out);
        }
        out.effects.push(Effect::Released(ticket, key.clone()));
    }

    fn told(&mut self, told: Told, begun: Duration, now: Duration, out: &mut Outcome) {
        if let Some(error) = told.error() {
            self.last_cloud_error = Some(error.to_string());
        }
        if told.doubts_enis() {
            self.pool.look_at(now);
        }
        let vswitches = &mut self.vswitches;
        match told {
            Told::Eni(Whose::Pool, answer) => {
                self.pool.answer(answer, begun, vswitches, now, out);
            }
            Told::Eni(Whose::Members, answer) => {
                self.members.answer(answer, begun, vswitches, now);
            }
            Told::Eni(Whose::Orphans, answer) => self.orphans.answer(answer, begun, now),
            Told::Tagged(result) => {
                let (pool, members) = (&self.pool, &self.members);
                let known = |eni: &cloud::Eni| pool.knows(eni) || members.knows(eni);
                self.orphans.looked(result, known, (begun, now), out);
            }
            Told::Rewritten(tried) => self.unwritten.written(tried),
            Told::Audited(result) => self.pool.audited(result, now, out),
            Told::OrphanWitnessed { eni, result } => self.orphans.witnessed(&eni, result),
            Told::Instance(result) => {
                if let Ok(enis) = &result {
                    if let Some(again) = self.members.looked(enis, begun, now, out) {
                        self.pool.look_at(again);
                    }
                    self.foreign_members = self.members.foreign(enis);
                }
                self.pool.looked(result, begun, vswitches, now, out);
            }
            Told::VSwitch(id, result) => vswitches.answer(&id, result, now),
            Told::Assigned { port, lot, result } => {
                self.pool.assigned(&port, lot, result, vswitches, now, out);
            }
            Told::Unassigned { port, blocks, result } => {
                self.pool.unassigned(&port, &blocks, result, vswitches, now, out);
            }
            Told::LinkSet(port, result) => self.pool.link_set(&port, result, now),
            Told::LinkRemoved(eni, result) => {
                if let Err(error) = result {
                    tracing::warn!(%eni, error, "the link of an ENI that is gone cannot be removed");
                }
            }
            Told::Witnessed { port, result } => self.pool.witnessed(&port, result, now, out),
            Told::Buried(addresses, result) => {
                self.buried(&addresses, &result, now, out);
            }
        }
    }

    /// Members' addresses are on no shelf: only a failure matters to them.
    fn buried(
        &mut self,
        addresses: &[IpPair],
        result: &Result<(), String>,
        now: Duration,
        out: &mut Outcome,
    ) {
        let (shared, members): (Vec<_>, Vec<_>) =
            addresses.iter().partition(|pair| self.pool.has(**pair));
        if result.is_err() {
            self.members.not_buried(&members, now);
        }
        self.pool.buried(&shared, result, now, out);
    }
}

fn settings(options: &Options, boot_id: String) -> Settings {
    let Options { node, config, .. } = options;
    let zone = config.vswitches.get(&node.zone);
    let mut tags = tags(options, DAEMON);
    tags.insert(NODE_TAG.to_owned(), node.name.clone());
    Settings {
        instance: node.instance.clone(),
        zone: node.zone.clone(),
        stack: config.stack,
        capacity: super::capacity(node.capacity, config),
        idle: config.idle,
        warm_up: config.warm_up,
        reclaim: config.reclaim,
        prefixes: config.prefixes,
        min_enis: config.min_enis,
        max_enis: config.max_enis.map(std::num::NonZero::get),
        batch: config.batch,
        cooldown: config.cooldown,
        sync_period: config.sync_period,
        trunking: config.trunking,
        mark_mask: config.mark_mask,
        vswitches: zone.cloned().unwrap_or_else(|| vec![node.vswitch.clone()]),
        policy: config.vswitch_policy,
        eni_policy: config.eni_policy,
        security_groups: config.security_groups.clone(),
        own_tags: own_tags(options),
        tags,
        tag_rules: tag_rules(config),
        resource_group: config.resource_group.clone(),
        source_dest_check: config.source_dest_check,
        boot_id,
        timing: timing::of_enis(config),
        degradation: config.degradation,
    }
}

/// The vSwitches where something may be made.
fn watched(options: &Options, settings: &Settings) -> BTreeSet<VSwitchId> {
    let of_pods = options.pod_networkings.iter().flat_map(|it| it.vswitches.iter().flatten());
    settings.vswitches.iter().chain(of_pods).cloned().collect()
}

fn tag_rules(config: &Config) -> TagRules {
    let blocked = config.tag_block_list.iter().cloned().map(|(key, value)| Tag { key, value });
    TagRules { filter: config.tag_filter.clone(), blocked: blocked.collect() }
}

/// What says that an ENI is this node's daemon's.
fn own_tags(options: &Options) -> BTreeMap<String, String> {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        tag(CREATOR_TAG, DAEMON),
        tag(CLUSTER_TAG, options.node.instance.as_str()),
        tag(NODE_TAG, &options.node.name),
    ])
}

/// A node that stands alone is its own cluster, and its daemon its own control plane.
fn orphan_settings(options: &Options, settings: &Settings) -> orphans::Settings {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let cluster = tag(CLUSTER_TAG, options.node.instance.as_str());
    let daemon = [tag(CREATOR_TAG, DAEMON), tag(NODE_TAG, &options.node.name)];
    orphans::Settings {
        fleet: settings.fleet(),
        cluster: BTreeMap::from([cluster]),
        makers: vec![BTreeMap::from(daemon), BTreeMap::from([tag(CREATOR_TAG, CONTROL_PLANE)])],
        tag_rules: settings.tag_rules.clone(),
    }
}

fn member_settings(options: &Options, settings: &Settings) -> ControllerSettings {
    ControllerSettings {
        fleet: FleetSettings { timing: timing::of_members(&options.config), ..settings.fleet() },
        zone: settings.zone.clone(),
        stack: settings.stack,
        trunking: settings.trunking,
        members: settings.capacity.members,
        defaults: Defaults {
            vswitches: settings.vswitches.clone(),
            security_groups: settings.security_groups.clone(),
        },
        tags: tags(options, CONTROL_PLANE),
        resource_group: settings.resource_group.clone(),
        source_dest_check: settings.source_dest_check,
    }
}

/// Who collects an ENI, and the user's own. A node that stands alone is its own cluster.
fn tags(options: &Options, creator: &str) -> BTreeMap<String, String> {
    let mut tags = options.config.eni_tags.clone();
    tags.insert(CREATOR_TAG.to_owned(), creator.to_owned());
    tags.insert(CLUSTER_TAG.to_owned(), options.node.instance.to_string());
    tags
}

/// As the log and `terwayctl` name a member's owner.
pub(crate) fn owner_name(owner: &Owner) -> String {
    let container = || owner.sandbox.container_id.clone();
    owner.pod.as_ref().map_or_else(container, ToString::to_string)
}
