//! Changes to ENIs that take time: what is to be done to the wires and when, and what becomes true
//! once it is done.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use model::EniId;

use super::fabric::PluggedEni;
use super::world::Eni;

/// A change in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OperationId(u64);

/// Something to do to the wires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Plug(PluggedEni),
    Unplug(PluggedEni),
    SetAddresses(PluggedEni),
    SetGroups(PluggedEni),
    SetSourceDestCheck(PluggedEni),
}

/// What becomes true when the wires have followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// `Attaching` to `InUse`; to `Available` if the wires refuse.
    Attach,
    /// `Detaching` to `Available`; stays so if the wires refuse.
    Detach,
    /// The ENI is no more.
    Remove,
    /// The ENI is this from now on.
    Replace {
        /// The new value.
        eni: Box<Eni>,
        /// Addresses that were taken for it; they are free again if the wires refuse.
        taken: Vec<IpNetwork>,
        /// Addresses that are free again if they do not.
        returned: Vec<IpNetwork>,
    },
}

/// A change in flight, and what it waits for.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) eni: EniId,
    pub(crate) change: Change,
    pub(crate) effects: Vec<Effect>,
    pub(crate) due: Timestamp,
    /// The `ClientToken` whose answer counts once it is done.
    pub(crate) token: Option<super::tokens::TokenKey>,
}

/// What the shell has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) id: OperationId,
    /// In this order.
    pub(crate) effects: Vec<Effect>,
}

/// All changes in flight; at most one for each ENI.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operations {
    last: u64,
    in_flight: BTreeMap<OperationId, Operation>,
    by_eni: BTreeMap<EniId, OperationId>,
    waiting: BTreeSet<(Timestamp, OperationId)>,
}

impl Operations {
    pub(crate) fn begin(&mut self, operation: Operation) -> OperationId {
        self.last = self.last.saturating_add(1);
        let id = OperationId(self.last);
        self.by_eni.insert(operation.eni.clone(), id);
        self.waiting.insert((operation.due, id));
        self.in_flight.insert(id, operation);
        id
    }

    /// Those that are due and have not been handed out yet.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        while let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            if let Some(operation) = self.in_flight.get(&id) {
                work.push(Work { id, effects: operation.effects.clone() });
            }
        }
        work
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(due, _)| *due)
    }

    pub(crate) fn finish(&mut self, id: OperationId) -> Option<Operation> {
        let operation = self.in_flight.remove(&id)?;
        self.waiting.remove(&(operation.due, id));
        self.by_eni.remove(&operation.eni);
        Some(operation)
    }

    /// Forgets the change of an ENI; what was begun is never finished.
    pub(crate) fn abandon(&mut self, eni: &EniId) {
        if let Some(id) = self.by_eni.get(eni).copied() {
            self.finish(id);
        }
    }

    pub(crate) fn get_mut(&mut self, id: OperationId) -> Option<&mut Operation> {
        self.in_flight.get_mut(&id)
    }

    /// What is in flight.
    #[cfg(test)]
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.in_flight.values().map(|operation| &operation.change)
    }

    pub(crate) fn is_busy(&self, eni: &EniId) -> bool {
        self.by_eni.contains_key(eni)
    }

    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }
}
