//! Members that were bound and that the cloud does not list any more: whose they are, since when,
//! and whether that can still be old news.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud::{ClientToken, EniStatus};
use controlplane::{Binding, Eni, Goal, Owner};
use model::{EniId, SandboxKey};

use super::{Confirmation, Members};
use crate::ipam::AllocError;
use crate::ipam::disagreement::{Disagreement, DisagreementKind};
use crate::ipam::error::seconds;
use crate::ipam::event::Outcome;

/// A member that was not found is looked for again after this.
const AGAIN: Duration = Duration::from_secs(3);

/// What is known of members that are not where they should be.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    /// How long a read may be old news.
    lag: Duration,
    /// When the process started: what was bound before was bound then at the latest.
    started: Duration,
    /// When the cloud was asked that said "attached".
    bound: BTreeMap<ClientToken, Duration>,
    enis: BTreeMap<ClientToken, Absence>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Absence {
    /// When the first look began that did not find it.
    since: Duration,
    /// No look can be old news any more.
    certain: bool,
}

impl Missing {
    pub(super) const fn new(lag: Duration, started: Duration) -> Self {
        Self { lag, started, bound: BTreeMap::new(), enis: BTreeMap::new() }
    }

    pub(super) fn bound(&mut self, token: ClientToken, at: Duration) {
        self.bound.insert(token, at);
    }

    pub(super) fn gone(&mut self, token: &ClientToken) {
        self.bound.remove(token);
        self.enis.remove(token);
    }

    /// From when on a look tells the truth of a member.
    fn settled_at(&self, token: &ClientToken) -> Duration {
        self.bound.get(token).unwrap_or(&self.started).saturating_add(self.lag)
    }

    /// A look that began then did not find it.
    fn see(&self, token: &ClientToken, begun: Duration) -> Absence {
        let Some(before) = self.enis.get(token) else {
            return Absence { since: begun, certain: false };
        };
        let twice = begun.saturating_sub(before.since) >= AGAIN;
        let settled = begun >= self.settled_at(token);
        Absence { certain: before.certain || (twice && settled), ..*before }
    }
}

impl Members {
    /// What the cloud lists on this instance: says whose member is gone. Its record stays until the
    /// pod is deleted, for then the pod gets another one. When it is to be looked at again, if
    /// anything may still be old news.
    pub(crate) fn looked(
        &mut self,
        enis: &[cloud::Eni],
        begun: Duration,
        now: Duration,
        out: &mut Outcome,
    ) -> Option<Duration> {
        let listed =
            |id: &EniId| enis.iter().any(|eni| eni.id == *id && eni.status == EniStatus::InUse);
        let mut found = BTreeMap::new();
        let mut again = None;
        for (member, binding) in bound(self.controller.enis()) {
            let before = self.missing.enis.get(&member.token);
            let (eni, sandbox) = (&binding.id, &member.owner.sandbox);
            if listed(eni) {
                if before.is_some() {
                    tracing::info!(%eni, %sandbox, "a pod's member ENI is back");
                }
                continue;
            }
            let absence = self.missing.see(&member.token, begun);
            if absence.certain && before.is_none_or(|before| !before.certain) {
                out.disagreements.push(Disagreement {
                    kind: DisagreementKind::EniVanished,
                    subject: format!("member ENI {eni}"),
                    ours: format!("attached, for {sandbox}"),
                    theirs: "not attached by the cloud's word, twice; the pod is cut off, delete it so that it is made again".to_owned(),
                });
            } else if before.is_none() {
                tracing::warn!(%eni, %sandbox, "the cloud does not list a pod's member ENI; it is looked for again");
            }
            if !absence.certain {
                again = Some(now + AGAIN);
            }
            found.insert(member.token.clone(), absence);
        }
        self.missing.enis = found;
        let (asked, later) = std::mem::take(&mut self.confirmations)
            .into_iter()
            .partition(|asked: &Confirmation| asked.since <= begun);
        self.confirmations = later;
        let asked: Vec<Confirmation> = asked;
        for Confirmation { ticket, key, .. } in asked {
            let answer = self.absent(&key, now).map_or(Ok(()), Err);
            out.confirmations.push((ticket, answer));
        }
        again
    }

    /// Why the pod of this sandbox is cut off, or may be.
    pub(crate) fn absent(&self, key: &SandboxKey, now: Duration) -> Option<AllocError> {
        let mut members = bound(self.controller.enis());
        let (member, binding) = members.find(|(member, _)| member.owner.sandbox == *key)?;
        let Absence { since, certain } = *self.missing.enis.get(&member.token)?;
        let passed = seconds(now.saturating_sub(since));
        let (phase, message, next) = if certain {
            (
                "Lost",
                format!(
                    "the cloud has not listed it on this instance for {passed}; the pod is cut off"
                ),
                "delete the pod, so that it is made again with another member ENI".to_owned(),
            )
        } else {
            let settled = self.missing.settled_at(&member.token).saturating_sub(now);
            (
                "Missing",
                "the cloud does not list it on this instance".to_owned(),
                format!(
                    "it is looked for again, and this is certain in {} at the latest; if it is \
                     gone, the pod has to be deleted and made again",
                    seconds(settled.max(AGAIN))
                ),
            )
        };
        Some(AllocError::PodEniNotBound { eni: Some(binding.id.clone()), phase, message, next })
    }

    /// Sandboxes whose pods are cut off, and how sure that is.
    pub(crate) fn cut_off(&self) -> impl Iterator<Item = (&SandboxKey, &EniId, bool)> {
        bound(self.controller.enis()).filter_map(|(member, binding)| {
            let absence = self.missing.enis.get(&member.token)?;
            Some((&member.owner.sandbox, &binding.id, absence.certain))
        })
    }

    /// A sandbox that has its member wants to know whether that is still so. `true`: the cloud is to
    /// be looked at.
    pub(crate) fn confirm(
        &mut self,
        asked: Confirmation,
        now: Duration,
        out: &mut Outcome,
    ) -> bool {
        let known = bound(self.controller.enis()).any(|(m, _)| m.owner.sandbox == asked.key);
        let absent = self.absent(&asked.key, now);
        let looks = known && absent.is_none();
        if looks {
            self.confirmations.push(asked);
        } else {
            // Of a member without a record nothing worse is known than what its pod says itself.
            out.confirmations.push((asked.ticket, absent.map_or(Ok(()), Err)));
        }
        looks
    }

    /// A cloud that does not answer takes no pod's network away.
    pub(super) fn confirm_late(&mut self, now: Duration, out: &mut Outcome) {
        for asked in self.confirmations.extract_if(.., |asked| asked.deadline <= now) {
            tracing::warn!(sandbox = %asked.key, "the cloud did not say in time whether a pod still has its member ENI; it is taken to have it");
            out.confirmations.push((asked.ticket, Ok(())));
        }
    }

    /// The trunks of the members that sandboxes have.
    pub(crate) fn trunks(&self) -> impl Iterator<Item = &EniId> {
        self.controller.enis().filter_map(|eni| eni.spec.kind.trunk())
    }
}

fn bound<'a>(
    enis: impl Iterator<Item = &'a Eni<Owner>>,
) -> impl Iterator<Item = (&'a Eni<Owner>, &'a Binding)> {
    let bound = enis.filter(|eni| eni.goal == Goal::Bound);
    bound.filter_map(|eni| Some((eni, eni.binding()?)))
}
