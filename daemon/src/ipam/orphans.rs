//! ENIs that carry our tags and are in no record: a crash, or a lost checkpoint, left them behind.
//! Seen twice with ten minutes between, and used by nobody as the kernel says, they are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cloud::{ClientToken, EniKind, EniStatus};
use controlplane::{
    Answer, CallError, Eni, EniSpec, Fleet, FleetSettings, Goal, Kind, Notice, Random, Stage,
    TOKEN_TAG,
};
use model::{EniId, IpStack};

use super::disagreement::{Disagreement, DisagreementKind};
use super::event::{Ask, Effect, Outcome, Whose};
use super::pool::TagRules;

/// Nothing younger is collected: its record may be on its way.
const AGE: Duration = Duration::from_mins(10);
/// Between two looks when there was nothing to collect.
const CALM: Duration = Duration::from_hours(6);
/// A look that failed is repeated after this.
const RETRY: Duration = Duration::from_mins(1);

/// What is collected, and by which tags.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) fleet: FleetSettings,
    /// All that are ours carry these; the list is asked for by them.
    pub(crate) cluster: BTreeMap<String, String>,
    /// Who made it, of those that we collect: each a set of tags.
    pub(crate) makers: Vec<BTreeMap<String, String>>,
    /// What is never touched.
    pub(crate) tag_rules: TagRules,
}

/// The collector.
#[derive(Debug, Clone)]
pub(crate) struct Orphans {
    settings: Settings,
    fleet: Fleet<()>,
    /// Since when each is seen.
    seen: BTreeMap<EniId, Duration>,
    /// Those that the kernel is asked about.
    asked: BTreeMap<EniId, cloud::Eni>,
    busy: bool,
    due: Duration,
    random: Random,
    stopping: bool,
}

impl Orphans {
    /// Looks for the first time when no read can be old news from before `now`.
    pub(crate) fn new(settings: Settings, seed: u64, now: Duration) -> Self {
        let mut random = Random::new(seed);
        let due = now.saturating_add(settings.fleet.timing.lag);
        let fleet = Fleet::new(settings.fleet.clone(), Vec::new(), random.next(), now);
        let (seen, asked) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, fleet, seen, asked, busy: false, due, random, stopping: false }
    }

    pub(crate) fn reconfigure(&mut self, settings: Settings) {
        self.fleet.reconfigure(settings.fleet.clone());
        self.settings = settings;
    }

    pub(crate) const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Looks when it is time to, and leads to their end those that were found.
    pub(crate) fn advance(&mut self, now: Duration, out: &mut Outcome) {
        if self.stopping || !self.settings.fleet.degradation.releases() {
            return;
        }
        if !self.busy && self.due <= now {
            self.busy = true;
            out.effects.push(Effect::Ask(Ask::Tagged(self.settings.cluster.clone())));
        }
        // What is found again after a restart needs no record.
        let steps = self.fleet.advance(now);
        let calls = steps.calls.into_iter();
        out.effects.extend(calls.map(|call| Effect::Ask(Ask::Eni(Whose::Orphans, call))));
        tell(&steps.notices);
    }

    /// The cloud's answer for one ENI's life.
    pub(crate) fn answer(&mut self, answer: Answer, begun: Duration, now: Duration) {
        let notices = self.fleet.answer(answer, begun, now);
        tell(&notices);
    }

    /// The cloud's list of ENIs with our tags; `known` says which of them are in a record.
    pub(crate) fn looked(
        &mut self,
        result: Result<Vec<cloud::Eni>, CallError>,
        known: impl Fn(&cloud::Eni) -> bool,
        (begun, now): (Duration, Duration),
        out: &mut Outcome,
    ) {
        self.busy = false;
        let Ok(enis) = result else {
            self.due = now + self.random.stretch(RETRY, 50);
            return;
        };
        let lost: Vec<_> =
            enis.into_iter().filter(|eni| self.is_ours(eni) && !known(eni)).collect();
        self.seen.retain(|id, _| lost.iter().any(|eni| eni.id == *id));
        for eni in lost {
            let since = *self.seen.entry(eni.id.clone()).or_insert(begun);
            let going = self.fleet.iter().any(|going| going.id() == Some(&eni.id));
            if going || begun < since.saturating_add(AGE) || self.asked.contains_key(&eni.id) {
                continue;
            }
            out.disagreements.push(Disagreement {
                kind: DisagreementKind::EniUnknown,
                subject: format!("ENI {} ({}, {})", eni.id, eni.kind, eni.status),
                ours: "in no record".to_owned(),
                theirs: "in the cloud with our tags, for ten minutes; it is deleted".to_owned(),
            });
            let addresses = addresses(&eni);
            out.effects.push(Effect::WitnessOrphan { eni: eni.id.clone(), addresses });
            self.asked.insert(eni.id.clone(), eni);
        }
        self.due = now + if self.seen.is_empty() { CALM } else { AGE };
    }

    /// Made by us, and on its own; a member of this node's trunk counts, for its pod is in no record
    /// either. What is attached otherwise is the pool's to take over, or not ours.
    fn is_ours(&self, eni: &cloud::Eni) -> bool {
        let settings = &self.settings;
        let has = |tags: &BTreeMap<String, String>| {
            tags.iter().all(|(key, value)| eni.tags.get(key) == Some(value))
        };
        let here = eni.instance.as_ref() == Some(&settings.fleet.instance);
        let loose = match eni.status {
            EniStatus::Available => true,
            EniStatus::InUse => eni.kind == EniKind::Member && here,
            _ => false,
        };
        let ours = has(&settings.cluster) && settings.makers.iter().any(has);
        loose && ours && settings.tag_rules.blocks(&eni.tags).is_none()
    }

    /// The kernel has said which of its addresses are in use.
    pub(crate) fn witnessed(&mut self, id: &EniId, result: Result<BTreeSet<IpAddr>, String>) {
        let Some(eni) = self.asked.remove(id) else { return };
        match result {
            Ok(in_use) if in_use.is_empty() => {
                let record = self.record(eni);
                self.fleet.add(record);
            }
            Ok(in_use) => {
                tracing::error!(eni = %id, ?in_use, "an ENI is in no record, and its addresses are in use on this node; it is left alone");
            }
            Err(error) => {
                tracing::warn!(eni = %id, error, "the kernel does not say who uses an ENI that is in no record; it is left alone for now");
            }
        }
    }

    fn record(&mut self, eni: cloud::Eni) -> Eni<()> {
        let named = eni.tags.get(TOKEN_TAG).and_then(|t| ClientToken::try_from(t.clone()).ok());
        let kind = match (eni.kind, eni.trunk) {
            (EniKind::Trunk, _) => Kind::Trunk,
            (_, Some(trunk)) => Kind::Member(trunk),
            (_, None) => Kind::Secondary,
        };
        let spec = EniSpec {
            kind,
            vswitch: eni.vswitch,
            security_groups: eni.security_groups,
            stack: IpStack::V4,
            v4: 0,
            v6: 0,
            v4_prefixes: 0,
            v6_prefixes: 0,
            tags: eni.tags,
            resource_group: None,
            source_dest_check: true,
        };
        let token = named.unwrap_or_else(|| self.random.token());
        Eni { token, spec, goal: Goal::Gone, stage: Stage::Made(eni.id), owner: () }
    }

    /// When something is to be done without any event.
    pub(crate) fn wake(&self, now: Duration) -> Option<Duration> {
        if !self.settings.fleet.degradation.releases() {
            return None;
        }
        let look = (!self.busy).then_some(self.due);
        self.fleet.wake(now).into_iter().chain(look).min()
    }
}

fn tell(notices: &[Notice]) {
    for notice in notices {
        if let Notice::Gone(token) = notice {
            tracing::info!(%token, "an ENI that was in no record is gone");
        }
    }
}

/// Single ones; a prefix's addresses are nowhere without a record.
fn addresses(eni: &cloud::Eni) -> Vec<IpAddr> {
    let v4 = eni.v4.iter().copied().map(IpAddr::V4);
    v4.chain(eni.v6.iter().copied().map(IpAddr::V6)).collect()
}
