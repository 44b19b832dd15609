//! What the pool is told by `eni_conf` and by the node.

use std::collections::BTreeMap;
use std::time::Duration;

use controlplane::{Degradation, FleetSettings, Timing};
use model::{Capacity, InstanceId, IpStack, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId};

use super::tags::TagRules;
use crate::config::{EniPolicy, IdleRange, IdleReclaim, Prefixes};
use crate::ipam::lot::Grain;

/// What the pool needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) instance: InstanceId,
    pub(crate) zone: ZoneId,
    pub(crate) stack: IpStack,
    pub(crate) capacity: Capacity,
    pub(crate) idle: IdleRange,
    pub(crate) warm_up: u32,
    pub(crate) reclaim: Option<IdleReclaim>,
    pub(crate) prefixes: Option<Prefixes>,
    pub(crate) min_enis: u32,
    pub(crate) max_enis: Option<u32>,
    pub(crate) batch: u32,
    pub(crate) cooldown: Duration,
    pub(crate) sync_period: Duration,
    pub(crate) trunking: bool,
    pub(crate) mark_mask: u32,
    pub(crate) vswitches: Vec<VSwitchId>,
    pub(crate) policy: SelectionPolicy,
    pub(crate) eni_policy: EniPolicy,
    pub(crate) security_groups: Vec<SecurityGroupId>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Those of them that say that an ENI is this node's; the user's come and go.
    pub(crate) own_tags: BTreeMap<String, String>,
    pub(crate) tag_rules: TagRules,
    pub(crate) resource_group: Option<String>,
    pub(crate) source_dest_check: bool,
    pub(crate) boot_id: String,
    pub(crate) timing: Timing,
    pub(crate) degradation: Degradation,
}

impl Settings {
    /// Pods that one ENI can serve.
    pub(crate) fn pods_per_eni(&self) -> u32 {
        let grain = if self.prefixes.is_some() { Grain::Prefixes } else { Grain::Addresses };
        grain.pods(self.stack, self.capacity.per_eni)
    }

    /// What the lives of ENIs need to know.
    pub(crate) fn fleet(&self) -> FleetSettings {
        FleetSettings {
            instance: self.instance.clone(),
            timing: self.timing,
            degradation: self.degradation,
            blocked: self
                .tag_rules
                .blocked
                .iter()
                .map(|it| (it.key.clone(), it.value.clone()))
                .collect(),
        }
    }
}
