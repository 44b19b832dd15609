//! The fabric as the emulated cloud drives it.

use anyhow::Result;

use crate::ecs::{self, PluggedEni, SecurityGroup};

use super::Fabric;

impl ecs::Fabric for Fabric {
    async fn plug(&self, eni: &PluggedEni) -> Result<()> {
        self.plug_eni(eni).await
    }

    async fn unplug(&self, eni: &PluggedEni) -> Result<()> {
        self.unplug_eni(&eni.id).await
    }

    async fn set_addresses(&self, eni: &PluggedEni) -> Result<()> {
        self.change_eni(eni).await
    }

    async fn set_groups(&self, eni: &PluggedEni) -> Result<()> {
        self.change_eni(eni).await
    }

    async fn set_source_dest_check(&self, eni: &PluggedEni) -> Result<()> {
        self.change_eni(eni).await
    }

    async fn set_rules(&self, group: &SecurityGroup) -> Result<()> {
        let mut state = self.0.state.lock().await;
        state.groups.insert(group.id.clone(), group.clone());
        self.apply_groups(&mut state).await
    }
}
