//! The kernel as a witness of what is idle: asked with every look at the cloud.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::Pool;
use super::shelf::SlotState;
use crate::checkpoint::{Change, RestKind};
use crate::ipam::disagreement::{Disagreement, DisagreementKind};
use crate::ipam::event::{Effect, Outcome};

impl Pool {
    /// Has the kernel asked whether anybody uses what is idle.
    pub(super) fn audit(&self, out: &mut Outcome) {
        let idle: Vec<IpAddr> = self
            .ports
            .values()
            .flat_map(|port| port.shelf.in_state(&SlotState::Idle))
            .map(|(address, _)| address)
            .collect();
        if !idle.is_empty() {
            out.effects.push(Effect::Audit(idle));
        }
    }

    /// The kernel's answer.
    pub(crate) fn audited(
        &mut self,
        result: Result<BTreeSet<IpAddr>, String>,
        now: Duration,
        out: &mut Outcome,
    ) {
        match result {
            Ok(in_use) => self.rest_in_use(&in_use, now, out),
            Err(error) => {
                tracing::warn!(error, "the kernel does not say whether idle addresses are in use");
            }
        }
    }

    /// What the kernel knows in use and is idle by our records rests, and is looked at again before
    /// anybody gets it.
    pub(super) fn rest_in_use(
        &mut self,
        in_use: &BTreeSet<IpAddr>,
        now: Duration,
        out: &mut Outcome,
    ) {
        let mut rested = Vec::new();
        for port in self.ports.values_mut() {
            for address in in_use {
                let idle = port
                    .shelf
                    .get(*address)
                    .is_some_and(|slot| matches!(slot.state, SlotState::Idle | SlotState::Frozen));
                if idle {
                    port.shelf.set(*address, SlotState::Resting, now);
                    rested.push((port.id.clone(), *address));
                }
            }
        }
        for (eni, address) in rested {
            out.disagreements.push(Disagreement {
                kind: DisagreementKind::AddressInUse,
                subject: format!("{address} on ENI {eni}"),
                ours: "idle".to_owned(),
                theirs: "in use by the kernel of this node; it rests".to_owned(),
            });
            let rest = self.rest(eni, address, RestKind::Cooling, now);
            out.notes.push(Change::PutRest(rest));
        }
    }
}
