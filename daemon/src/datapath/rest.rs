//! Addresses after their pods: they rest behind a tombstone, and are buried when nothing of their
//! last owner is left. And who uses one, by the kernel's word.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{EniId, IpPair, Mac, Mark};

use super::actor::Actor;
use super::desired::{self, Tombstone};
use super::diff::diff;
use super::kernel::forget::forget;
use super::kernel::users::{Allowed, Uses};
use super::types::{State, objects};
use super::{Datapath, DatapathError};

impl Datapath {
    /// Leaves nothing of addresses that have rested: deletes their connections (conntrack) and
    /// neighbours on the node, then their tombstones. After an error they still have those.
    pub async fn bury(&self, addresses: &[IpPair]) -> Result<(), DatapathError> {
        let addresses: BTreeSet<IpAddr> = addresses.iter().flat_map(|pair| pair.iter()).collect();
        let asked = addresses.clone();
        self.0.owner.ask(move |actor| actor.may_bury(&asked)).await??;
        let rested = addresses.clone();
        self.0.forgetter.ask(move |()| forget(&rested)).await??;
        self.0.owner.ask(move |actor| actor.bury(&addresses)).await?
    }

    /// Which of these addresses are in use on this node, by the kernel's word of now: on a link,
    /// directly behind one, in a rule of ours, or in the maps (tombstones apart).
    pub async fn users(&self, addresses: Vec<IpAddr>) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let uses = self.uses().await?;
        Ok(uses.of(&addresses.into_iter().collect()))
    }

    /// Addresses of the pods whose frames leave by this ENI, by the kernel's word of now. An ENI
    /// that was not set (or was removed) has no table and no mark here: nobody's do.
    pub async fn eni_users(&self, id: &EniId) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let id = id.clone();
        let marks = self.0.owner.ask(move |actor| actor.eni_marks(&id)).await?;
        let Some((mac, mark)) = marks else { return Ok(BTreeSet::new()) };
        Ok(self.uses().await?.behind(mac, mark))
    }

    async fn uses(&self) -> Result<Uses, DatapathError> {
        let allowed = self.0.owner.ask(|actor| actor.allowed()).await??;
        self.0.reader.ask(move |()| Uses::read(allowed)).await?
    }

    /// The addresses that have a tombstone.
    pub async fn tombstones(&self) -> Result<Vec<IpAddr>, DatapathError> {
        self.0.owner.ask(|actor| actor.tombstones()).await
    }

    /// Which addresses may have a tombstone. Others that a crash left are not taken over by
    /// [`restore`](Self::restore), and the repair after it buries them.
    pub async fn expect_tombstones(&self, of: BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        self.0.owner.ask(move |actor| actor.expected_tombstones = of).await
    }
}

impl Actor {
    /// Whether one of these addresses belongs to a pod that is to have it.
    pub(super) fn may_bury(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        let mut pods = self.pods.iter();
        let owned = pods.find_map(|(key, known)| {
            let address = addresses.iter().find(|address| known.pod.has(**address))?;
            Some(DatapathError::Owned { address: *address, key: Box::new(key.clone()) })
        });
        owned.map_or(Ok(()), Err)
    }

    pub(super) fn bury(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        let of_them = |stone: &Tombstone| addresses.contains(&stone.address);
        let enis = self.found_enis();
        let stones: Vec<Tombstone> =
            self.tombstones.iter().filter(|stone| of_them(stone)).cloned().collect();
        self.tombstones.retain(|stone| !of_them(stone));
        // The pool may be quicker than the pods' restoring, which would take them over from the map.
        self.expected_tombstones.retain(|address| !addresses.contains(address));
        let before = stones.iter().filter_map(|stone| desired::tombstone(&enis, stone));
        let before = State { node: objects(before), ..State::default() };
        self.forget(&before, &State::default());
        self.run(&"addresses that have rested", &diff(&before, &State::default()))
    }

    /// What the programs let through, as the maps have it.
    pub(super) fn allowed(&self) -> Result<Allowed, DatapathError> {
        let what = "cannot read the maps";
        Allowed::read(&self.kernel.bpf)
            .map_err(|source| DatapathError::Bpf { what: what.into(), source })
    }

    /// What tells the ENI's pods from others'.
    pub(super) fn eni_marks(&self, id: &EniId) -> Option<(Mac, Mark)> {
        self.enis.get(id).map(|(spec, _)| (spec.mac, spec.mark))
    }

    pub(super) fn tombstones(&self) -> Vec<IpAddr> {
        self.tombstones.iter().map(|stone| stone.address).collect()
    }
}
