//! One ENI as the cloud lists it, held against the addresses that we know.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::IpStack;

use super::port::Retired;
use super::shelf::{Shelf, Slot, SlotState};
use super::tags::Tag;
use super::truth::MISSING;
use super::{Family, Port};
use crate::ipam::disagreement::{Disagreement, DisagreementKind};

/// What a look at an ENI changed.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) resting: Vec<IpAddr>,
    pub(super) gone: Vec<IpAddr>,
    pub(super) disagreements: Vec<Disagreement>,
    /// Gone before they had rested, and since when they do: the cloud may give them again.
    pub(super) cooling: Vec<(IpAddr, Duration)>,
}

impl Port {
    /// What the cloud lists is idle unless somebody has it.
    pub(super) fn fill(&mut self, eni: &cloud::Eni, stack: IpStack, now: Duration) {
        for prefix in listed_prefixes(eni, stack) {
            self.shelf.put_prefix(prefix, &SlotState::Idle, now);
        }
        for address in listed(eni, stack) {
            if self.shelf.get(address).is_none() {
                self.shelf.put(address, false, SlotState::Idle, now);
            }
        }
        if let Some(primary) = eni.primary_v4 {
            self.shelf.mark_primary(IpAddr::V4(primary));
        }
        self.known = true;
    }

    pub(super) fn found(&mut self) {
        if self.lost {
            tracing::info!(eni = %self.id, "an ENI is back");
        }
        (self.missing, self.lost) = (None, false);
    }

    /// Whether it is somebody else's by its tags.
    pub(super) fn exclude(&mut self, blocked: Option<&Tag>) {
        match (blocked, self.retired) {
            (Some(tag), None) => {
                tracing::warn!(eni = %self.id, %tag, pods = self.shelf.used(), "an ENI of ours carries a tag of eni_tag_block_list; it is left alone, and its pods keep their addresses");
                self.retired = Some(Retired::Excluded);
                self.asking.queued.clear();
            }
            (None, Some(Retired::Excluded)) => {
                tracing::info!(eni = %self.id, "an ENI carries no tag of eni_tag_block_list any more; it serves again");
                self.retired = None;
            }
            _ => {}
        }
    }

    /// Whether it is certain by now that it is not here any more.
    pub(super) fn not_found(
        &mut self,
        begun: Duration,
        lag: Duration,
        now: Duration,
    ) -> Option<Disagreement> {
        let since = *self.missing.get_or_insert(begun);
        let absent = begun.saturating_sub(since);
        let certain = absent >= lag || (absent >= MISSING && self.settled(begun, lag));
        if self.lost || !certain {
            return None;
        }
        self.lost = true;
        let pods = self.shelf.used();
        let used: Vec<_> = self
            .shelf
            .iter()
            .filter_map(|(a, slot)| Some((a, slot.state.owner()?.clone())))
            .collect();
        for (address, key) in used {
            self.shelf.set(address, SlotState::Invalid(key), now);
        }
        Some(Disagreement {
            kind: DisagreementKind::EniVanished,
            subject: format!("ENI {}", self.id),
            ours: format!("attached, with {pods} pods"),
            theirs: "not attached to this node by the cloud's word, twice; its pods are cut off"
                .to_owned(),
        })
    }

    /// Compares the shelf with what the cloud lists.
    pub(super) fn compare(
        &mut self,
        eni: &cloud::Eni,
        stack: IpStack,
        lag: Duration,
        begun: Duration,
        now: Duration,
    ) -> Difference {
        let settled = self.settled(begun, lag);
        let mut difference = Difference::default();
        if !self.known {
            self.fill(eni, stack, now);
        }
        if !settled {
            return difference;
        }
        self.asking.full = false;
        let addresses: BTreeSet<IpAddr> = listed(eni, stack).collect();
        let prefixes: BTreeSet<IpNetwork> = listed_prefixes(eni, stack).collect();
        let shelved: Vec<_> = self.shelf.iter().map(|(a, slot)| (a, slot.clone())).collect();
        for (address, Slot { state, since, .. }) in shelved {
            let here = addresses.contains(&address)
                || prefixes.iter().any(|prefix| prefix.contains(address));
            let counts = Family::all(stack).any(|family| family == Family::of(address));
            match (state, here) {
                // It is still there: the cloud did not take it.
                (SlotState::Leaving, true) => {
                    self.shelf.set(address, self.shelf.rested(address), now);
                    difference.gone.push(address);
                }
                (SlotState::Invalid(key), true) => {
                    self.shelf.set(address, SlotState::Used(key), now);
                }
                (SlotState::Used(key), false) if counts => {
                    difference.disagreements.push(Disagreement {
                        kind: DisagreementKind::AddressVanished,
                        subject: format!("{address} on ENI {}", self.id),
                        ours: format!("in use by {key}"),
                        theirs: "the cloud does not list it; the pod is cut off".to_owned(),
                    });
                    self.shelf.set(address, SlotState::Invalid(key), now);
                }
                (state @ SlotState::Resting, false) => {
                    difference.disagreements.push(Disagreement {
                        kind: DisagreementKind::AddressVanished,
                        subject: format!("{address} on ENI {}", self.id),
                        ours: state.name().to_owned(),
                        theirs: "the cloud does not list it; it is dropped".to_owned(),
                    });
                    self.shelf.remove(address);
                    difference.cooling.push((address, since));
                }
                (SlotState::Leaving, false) => {
                    self.shelf.remove(address);
                    difference.gone.push(address);
                }
                (state @ (SlotState::Idle | SlotState::Frozen), false) => {
                    difference.disagreements.push(Disagreement {
                        kind: DisagreementKind::AddressVanished,
                        subject: format!("{address} on ENI {}", self.id),
                        ours: state.name().to_owned(),
                        theirs: "the cloud does not list it; it is dropped".to_owned(),
                    });
                    self.shelf.remove(address);
                    difference.gone.push(address);
                }
                _ => {}
            }
        }
        self.shelf.keep_prefixes(&prefixes);
        let all = addresses.iter().map(|address| IpNetwork::from(*address)).chain(prefixes);
        self.greet(&all.collect(), begun, now, &mut difference);
        if let Some(primary) = eni.primary_v4 {
            // Also where it was dropped, and is taken in again.
            self.shelf.mark_primary(IpAddr::V4(primary));
        }
        self.doubt = !self.strangers.is_empty();
        difference
    }

    /// What nobody knows is taken in at its second sight, resting.
    fn greet(
        &mut self,
        listed: &BTreeSet<IpNetwork>,
        begun: Duration,
        now: Duration,
        difference: &mut Difference,
    ) {
        self.strangers.retain(|stranger, _| listed.contains(stranger));
        let known = |shelf: &Shelf, block: &IpNetwork| {
            if is_single(block) { shelf.get(block.ip()).is_some() } else { shelf.has_prefix(block) }
        };
        for block in listed {
            if known(&self.shelf, block) {
                self.strangers.remove(block);
                continue;
            }
            let Some(seen) = self.strangers.get(block) else {
                self.strangers.insert(*block, begun);
                continue;
            };
            if *seen >= begun {
                continue;
            }
            self.strangers.remove(block);
            difference.disagreements.push(Disagreement {
                kind: DisagreementKind::AddressUnknown,
                subject: format!("{} on ENI {}", shown(block), self.id),
                ours: "in no record".to_owned(),
                theirs: "listed by the cloud twice; it is taken in, and rests first".to_owned(),
            });
            let before: BTreeSet<IpAddr> = self.shelf.iter().map(|(address, _)| address).collect();
            if is_single(block) {
                self.shelf.put(block.ip(), false, SlotState::Resting, now);
            } else {
                self.shelf.put_prefix(*block, &SlotState::Resting, now);
            }
            let new = self.shelf.iter().map(|(address, _)| address);
            difference.resting.extend(new.filter(|address| !before.contains(address)));
        }
    }
}

fn is_single(block: &IpNetwork) -> bool {
    block.prefix() == if block.is_ipv4() { 32 } else { 128 }
}

fn shown(block: &IpNetwork) -> String {
    if is_single(block) { block.ip().to_string() } else { block.to_string() }
}

/// The prefixes that pods can have addresses of.
pub(super) fn listed_prefixes(eni: &cloud::Eni, stack: IpStack) -> impl Iterator<Item = IpNetwork> {
    let v4 = eni.v4_prefixes.iter().copied().map(IpNetwork::V4).filter(move |_| stack.v4());
    v4.chain(eni.v6_prefixes.iter().copied().map(IpNetwork::V6).filter(move |_| stack.v6()))
}

/// The addresses that pods can have.
pub(super) fn listed(eni: &cloud::Eni, stack: IpStack) -> impl Iterator<Item = IpAddr> {
    let v4 = eni.v4.iter().copied().map(IpAddr::V4).filter(move |_| stack.v4());
    v4.chain(eni.v6.iter().copied().map(IpAddr::V6).filter(move |_| stack.v6()))
}
