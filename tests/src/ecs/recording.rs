//! Wires that are none: they take everything and remember it, for tests of what needs a cloud and
//! no kernel.

use std::sync::{Mutex, PoisonError};

use super::fabric::{Fabric, PluggedEni};
use super::rules::SecurityGroup;

/// A fabric that remembers what it was told.
#[derive(Debug, Default)]
pub struct RecordingFabric {
    done: Mutex<Vec<Recorded>>,
    refuses: Mutex<Option<String>>,
}

/// One thing it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// [`Fabric::plug`].
    Plug(PluggedEni),
    /// [`Fabric::unplug`].
    Unplug(PluggedEni),
    /// [`Fabric::set_addresses`].
    SetAddresses(PluggedEni),
    /// [`Fabric::set_groups`].
    SetGroups(PluggedEni),
    /// [`Fabric::set_source_dest_check`].
    SetSourceDestCheck(PluggedEni),
    /// [`Fabric::set_rules`].
    SetRules(SecurityGroup),
}

impl RecordingFabric {
    /// What was done so far, in order.
    pub fn done(&self) -> Vec<Recorded> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on everything is refused with these words, until `None`.
    pub fn refuse(&self, words: Option<&str>) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = words.map(str::to_owned);
    }

    fn record(&self, recorded: Recorded) -> anyhow::Result<()> {
        if let Some(words) = &*self.refuses.lock().unwrap_or_else(PoisonError::into_inner) {
            anyhow::bail!("{words}");
        }
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
        Ok(())
    }
}

impl Fabric for RecordingFabric {
    async fn plug(&self, eni: &PluggedEni) -> anyhow::Result<()> {
        self.record(Recorded::Plug(eni.clone()))
    }

    async fn unplug(&self, eni: &PluggedEni) -> anyhow::Result<()> {
        self.record(Recorded::Unplug(eni.clone()))
    }

    async fn set_addresses(&self, eni: &PluggedEni) -> anyhow::Result<()> {
        self.record(Recorded::SetAddresses(eni.clone()))
    }

    async fn set_groups(&self, eni: &PluggedEni) -> anyhow::Result<()> {
        self.record(Recorded::SetGroups(eni.clone()))
    }

    async fn set_source_dest_check(&self, eni: &PluggedEni) -> anyhow::Result<()> {
        self.record(Recorded::SetSourceDestCheck(eni.clone()))
    }

    async fn set_rules(&self, group: &SecurityGroup) -> anyhow::Result<()> {
        self.record(Recorded::SetRules(group.clone()))
    }
}
