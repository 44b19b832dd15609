//! What the cloud says there is, and what follows where it differs from what we think.

use std::collections::BTreeSet;
use std::time::Duration;

use cloud::{ClientToken, EniKind, EniStatus};
use controlplane::{
    Binding, CallError, Eni, EniSpec, Goal, Kind, Pace, Random, Stage, TOKEN_TAG, VSwitches,
};
use model::{EniId, IpPair};

use super::compare::{listed, listed_prefixes};
use super::shelf::SlotState;
use super::{EniRecord, Pool, Port};
use crate::checkpoint::{Change, RestKind, RestRecord};
use crate::ipam::Uplink;
use crate::ipam::disagreement::{Disagreement, DisagreementKind};
use crate::ipam::event::{Ask, Effect, Outcome};

/// Between two reads when nothing is under way.
const CALM: Duration = Duration::from_hours(6);
/// An ENI that was not found is looked for again after this.
pub(super) const MISSING: Duration = Duration::from_secs(3);
/// A vSwitch that must be known before an ENI can be taken over is waited for.
const SOON: Duration = Duration::from_secs(1);
/// One that cannot be described is looked for again after this.
const AGAIN: Duration = Duration::from_mins(5);
/// A read that failed is repeated.
const RETRY: Pace = Pace::doubling(Duration::from_secs(1), Duration::from_secs(25)).with_jitter(50);

/// When the cloud was read, and when it is to be again.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    /// When the last read that was answered began.
    read: Option<Duration>,
    busy: bool,
    /// When events asked for a read: one that begins earlier does not serve a later wish.
    wanted: BTreeSet<Duration>,
    pub(super) not_before: Duration,
    tries: u32,
    /// Why the last read failed.
    pub(super) trouble: Option<CallError>,
    /// ENIs on this instance that are not ours, without the primary one.
    pub(super) foreign: u32,
}

impl Truth {
    /// To be read at once, and again when nothing can be old news from before `now`.
    pub(super) fn new(now: Duration, lag: Duration) -> Self {
        let wanted = BTreeSet::from([now.saturating_add(lag)]);
        Self {
            read: None,
            busy: false,
            wanted,
            not_before: now,
            tries: 0,
            trouble: None,
            foreign: 0,
        }
    }

    pub(super) const fn is_known(&self) -> bool {
        self.read.is_some()
    }

    /// When the last read that was answered began.
    pub(super) const fn begun(&self) -> Option<Duration> {
        self.read
    }

    pub(super) fn want(&mut self, at: Duration) {
        self.wanted.insert(at);
    }

    pub(super) fn wake(&self, busy: bool, period: Duration) -> Option<Duration> {
        if self.busy {
            return None;
        }
        let Some(read) = self.read else { return Some(self.not_before) };
        let regular = read.saturating_add(if busy { period } else { CALM });
        let wanted = self.wanted.first().copied().unwrap_or(regular);
        Some(wanted.min(regular).max(self.not_before))
    }

    fn failed(&mut self, error: CallError, random: &mut Random, now: Duration) {
        let least = error.retry_after().unwrap_or_default();
        self.not_before = now + RETRY.pause(self.tries, least, random);
        self.tries = self.tries.saturating_add(1);
        self.trouble = Some(error);
    }

    fn succeeded(&mut self, begun: Duration, now: Duration) {
        self.read = Some(begun);
        self.wanted.retain(|wanted| *wanted > begun);
        (self.not_before, self.tries, self.trouble) = (now, 0, None);
    }
}

impl Pool {
    /// Reads the cloud when it is time to.
    pub(crate) fn look(&mut self, now: Duration, out: &mut Outcome) {
        if !self.stopping && self.look_due().is_some_and(|at| at <= now) {
            self.truth.busy = true;
            out.effects.push(Effect::Ask(Ask::Instance));
        }
    }

    /// When the cloud is to be read: where it is to be left alone, only if it never was.
    pub(super) fn look_due(&self) -> Option<Duration> {
        let due = self.truth.wake(self.is_busy(), self.settings.sync_period);
        let degradation = self.settings.degradation;
        let wanted = degradation.releases() || !self.truth.is_known();
        due.filter(|_| degradation.calls() && wanted)
    }

    /// Somebody wants to know more.
    pub(crate) fn look_at(&mut self, at: Duration) {
        self.truth.want(at);
    }

    /// The cloud's list of this instance's ENIs.
    pub(crate) fn looked(
        &mut self,
        result: Result<Vec<cloud::Eni>, CallError>,
        begun: Duration,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        self.truth.busy = false;
        let enis = match result {
            Ok(enis) => enis,
            Err(error) => return self.truth.failed(error, &mut self.random, now),
        };
        self.truth.succeeded(begun, now);
        self.creation_reread(begun, now);
        let (stack, lag) = (self.settings.stack, self.settings.timing.lag);
        let (mut rests, mut cooling) = (Vec::new(), Vec::new());
        for port in self.ports.values_mut().filter(|port| !port.is_closing()) {
            let seen = enis.iter().find(|eni| eni.id == port.id);
            match seen.filter(|eni| eni.status == EniStatus::InUse) {
                Some(eni) => {
                    port.found();
                    port.exclude(self.settings.tag_rules.blocks(&eni.tags));
                    let change = port.compare(eni, stack, lag, begun, now);
                    rests.extend(change.resting.into_iter().map(|a| (port.id.clone(), a)));
                    out.disagreements.extend(change.disagreements);
                    let gone = change.gone.into_iter();
                    out.notes.extend(gone.map(|a| Change::RemoveRest(port.id.clone(), a)));
                    cooling
                        .extend(change.cooling.into_iter().map(|(a, at)| (port.id.clone(), a, at)));
                }
                None => out.disagreements.extend(port.not_found(begun, lag, now)),
            }
        }
        for (eni, address, since) in cooling {
            let rest = self.rest(eni, address, RestKind::Cooling, since);
            self.rests.push(rest);
        }
        for (eni, address) in rests {
            let rest = self.rest(eni, address, RestKind::Cooling, now);
            out.notes.push(Change::PutRest(rest));
        }
        if self.ports.values().any(|port| port.missing.is_some() && !port.lost) {
            // Old news, or bad news: pods are not served from there until it is clear.
            self.truth.want(now + MISSING);
        }
        self.drop_rests(&enis, out);
        self.audit(out);
        self.meet_strangers(&enis, vswitches, now, out);
    }

    /// What was leaving an ENI that is neither in a record nor on this instance has left. What a pod
    /// had there rests to the end: the cloud may give it to another ENI.
    fn drop_rests(&mut self, enis: &[cloud::Eni], out: &mut Outcome) {
        let recorded = |id: &EniId| self.fleet.iter().any(|eni| eni.id() == Some(id));
        let (kept, gone) = std::mem::take(&mut self.rests).into_iter().partition(|rest| {
            rest.kind == RestKind::Cooling
                || recorded(&rest.eni)
                || enis.iter().any(|eni| eni.id == rest.eni)
        });
        self.rests = kept;
        let gone: Vec<RestRecord> = gone;
        out.disagreements.extend(gone.iter().map(stale));
        out.notes.extend(gone.into_iter().map(|rest| Change::RemoveRest(rest.eni, rest.address)));
    }

    /// ENIs that the cloud has forgotten go when their last pod, and the last member of a trunk, has
    /// gone.
    pub(crate) fn drop_lost<'a>(&mut self, trunks: impl Iterator<Item = &'a EniId>) {
        let trunks: BTreeSet<&EniId> = trunks.collect();
        let empty = |port: &Port| port.shelf.used() == 0 && !trunks.contains(&port.id);
        let lost = self.ports.iter().filter(|(_, port)| port.lost && empty(port));
        let lost: Vec<ClientToken> = lost.map(|(token, _)| token.clone()).collect();
        for token in lost {
            // What is somebody else's by its tags is not ours to delete.
            let excluded = self.ports.get(&token).is_some_and(|port| port.retired.is_some());
            if excluded { self.fleet.forget(&token) } else { self.fleet.release(&token) }
        }
    }

    /// ENIs of this instance that no record names.
    fn meet_strangers(
        &mut self,
        enis: &[cloud::Eni],
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) {
        let ours: BTreeSet<EniId> = self.fleet.iter().filter_map(|eni| eni.id().cloned()).collect();
        let mut foreign = 0;
        for eni in enis {
            let shared = matches!(eni.kind, EniKind::Secondary | EniKind::Trunk);
            if ours.contains(&eni.id) || !shared {
                continue;
            }
            if !self.is_mine(eni) || !self.adopt(eni, vswitches, now, out) {
                foreign += 1;
            }
        }
        self.truth.foreign = foreign;
    }

    /// Whether an ENI is in a record, also one that does not know its id yet.
    pub(crate) fn knows(&self, eni: &cloud::Eni) -> bool {
        let token = eni.tags.get(TOKEN_TAG).map(String::as_str);
        let is =
            |known: &EniRecord| known.id() == Some(&eni.id) || token == Some(known.token.as_str());
        self.fleet.iter().any(is)
    }

    /// Made by this node's daemon, or the trunk, of which there can be only one; and nobody else's by
    /// its tags.
    fn is_mine(&self, eni: &cloud::Eni) -> bool {
        if !self.settings.tag_rules.admits(&eni.tags) {
            return false;
        }
        let trunks = |e: &Eni<Uplink>| e.spec.kind == Kind::Trunk && e.goal == Goal::Bound;
        let trunk =
            self.settings.trunking && eni.kind == EniKind::Trunk && !self.fleet.iter().any(trunks);
        let mut tags = self.settings.own_tags.iter();
        trunk || tags.all(|(key, value)| eni.tags.get(key) == Some(value))
    }

    /// Takes over an attached ENI that the records have lost. Its addresses rest first: who knows
    /// who had them.
    fn adopt(
        &mut self,
        eni: &cloud::Eni,
        vswitches: &mut VSwitches,
        now: Duration,
        out: &mut Outcome,
    ) -> bool {
        let named = eni.tags.get(TOKEN_TAG).and_then(|t| ClientToken::try_from(t.clone()).ok());
        if named.as_ref().is_some_and(|token| self.fleet.get(token).is_some()) {
            // The record is there and does not know the id yet: its own life finds it.
            return true;
        }
        if eni.status != EniStatus::InUse {
            return false;
        }
        vswitches.watch([&eni.vswitch]);
        let Some(vswitch) = vswitches.get(&eni.vswitch).cloned() else {
            // Who cannot be described is somebody's we know nothing of.
            let awaited = vswitches.is_awaited(&eni.vswitch);
            self.truth.want(now + if awaited { SOON } else { AGAIN });
            return awaited;
        };
        let (Ok(gateway), Ok(number)) = (self.gateway(&vswitch), self.free_number()) else {
            return false;
        };
        let stack = self.settings.stack;
        let v4 = eni.v4.first().copied().filter(|_| stack.v4());
        let v6 = controlplane::first_v6(eni).filter(|_| stack.v6());
        let Some(addresses) = IpPair::new(v4, v6) else { return false };
        out.disagreements.push(Disagreement {
            kind: DisagreementKind::EniUnknown,
            subject: format!("ENI {} ({})", eni.id, eni.kind),
            ours: "in no record".to_owned(),
            theirs: "attached to this node, with our tags; it is taken over".to_owned(),
        });
        let token = named.unwrap_or_else(|| self.random.token());
        let id = eni.id.clone();
        let record = Eni {
            token: token.clone(),
            spec: EniSpec {
                kind: if eni.kind == EniKind::Trunk { Kind::Trunk } else { Kind::Secondary },
                vswitch: eni.vswitch.clone(),
                security_groups: eni.security_groups.clone(),
                stack,
                v4: u32::try_from(eni.v4.len()).unwrap_or(1),
                v6: u32::try_from(eni.v6.len()).unwrap_or(0),
                v4_prefixes: u32::try_from(eni.v4_prefixes.len()).unwrap_or(0),
                v6_prefixes: u32::try_from(eni.v6_prefixes.len()).unwrap_or(0),
                tags: eni.tags.clone(),
                resource_group: self.settings.resource_group.clone(),
                source_dest_check: self.settings.source_dest_check,
            },
            goal: Goal::Bound,
            stage: Stage::Bound(Binding { id, mac: eni.mac, addresses, vlan: None }),
            owner: Uplink { number, gateway },
        };
        self.open(&record, now);
        if let Some(port) = self.ports.get_mut(&token) {
            for prefix in listed_prefixes(eni, stack) {
                port.shelf.put_prefix(prefix, &SlotState::Resting, now);
            }
            for address in listed(eni, stack) {
                if port.shelf.get(address).is_none() {
                    port.shelf.put(address, false, SlotState::Resting, now);
                }
            }
            port.fill(eni, stack, now);
        }
        self.fleet.add(record);
        true
    }
}

fn stale(rest: &RestRecord) -> Disagreement {
    Disagreement {
        kind: DisagreementKind::RecordStale,
        subject: format!("{} on ENI {}", rest.address, rest.eni),
        ours: "resting, by the checkpoint".to_owned(),
        theirs: "its ENI is neither in a record nor on this node; the record is dropped".to_owned(),
    }
}
