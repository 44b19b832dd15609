//! A PodNetworking as we use it: what its YAML leaves open is filled in from `eni_conf`.

use model::{SecurityGroupId, SelectionPolicy, VSwitchId};

/// Which ENIs the pods that choose it get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetworking {
    /// Its name.
    pub name: String,
    /// On what kind of ENI.
    pub attachment: Attachment,
    /// Whether the address outlives the pod.
    pub allocation: Allocation,
    /// In which vSwitches; `eni_conf`'s if `None`.
    pub vswitches: Option<Vec<VSwitchId>>,
    /// Which of them.
    pub policy: SelectionPolicy,
    /// With which groups; `eni_conf`'s if `None`.
    pub security_groups: Option<Vec<SecurityGroupId>>,
}

/// On what kind of ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// What the node offers.
    Default,
    /// A member of the node's trunk.
    Trunk,
    /// A NIC of the pod's own.
    Exclusive,
}

/// Whether the address outlives the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// It goes with the pod.
    Elastic,
    /// It stays.
    Fixed,
}

/// What `eni_conf` says where a PodNetworking does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Of the node's zone.
    pub vswitches: Vec<VSwitchId>,
    /// 1 to 5.
    pub security_groups: Vec<SecurityGroupId>,
}

/// Why a PodNetworking has no effect here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// There is no control plane to keep addresses.
    #[error("allocationType Fixed needs a cluster's control plane, and this node stands alone")]
    Fixed,
    /// Not offered yet.
    #[error("eniType ENI (a NIC of the pod's own) is not offered by this node")]
    Exclusive,
    /// There is no trunk.
    #[error("it needs a trunk, and enable_eni_trunking is false in eni_conf")]
    NoTrunking,
}

impl PodNetworking {
    /// Whether its pods can get member ENIs on a node that stands alone.
    pub const fn ready(&self, trunking: bool) -> Result<(), NotReady> {
        match (self.allocation, self.attachment) {
            (Allocation::Fixed, _) => Err(NotReady::Fixed),
            (_, Attachment::Exclusive) => Err(NotReady::Exclusive),
            (_, Attachment::Default | Attachment::Trunk) if !trunking => Err(NotReady::NoTrunking),
            _ => Ok(()),
        }
    }

    /// Where its ENIs go.
    pub fn vswitches<'a>(&'a self, defaults: &'a Defaults) -> &'a [VSwitchId] {
        self.vswitches.as_deref().unwrap_or(&defaults.vswitches)
    }

    /// What holds for them.
    pub fn security_groups<'a>(&'a self, defaults: &'a Defaults) -> &'a [SecurityGroupId] {
        self.security_groups.as_deref().unwrap_or(&defaults.security_groups)
    }
}

impl From<crds::PodNetworking> for PodNetworking {
    fn from(found: crds::PodNetworking) -> Self {
        let crds::PodNetworking { name, spec } = found;
        let all = |ids: Option<Vec<String>>| ids.map(IntoIterator::into_iter);
        Self {
            name,
            attachment: match spec.eni_options.eni_type {
                crds::EniKind::Default => Attachment::Default,
                crds::EniKind::Trunk => Attachment::Trunk,
                crds::EniKind::Eni => Attachment::Exclusive,
            },
            allocation: match spec.allocation_type.kind {
                crds::AllocationKind::Elastic => Allocation::Elastic,
                crds::AllocationKind::Fixed => Allocation::Fixed,
            },
            vswitches: all(spec.v_switch_options).map(|ids| ids.map(VSwitchId::new).collect()),
            policy: match spec.v_switch_select_options.v_switch_selection_policy {
                crds::VSwitchPolicy::Ordered => SelectionPolicy::Ordered,
                crds::VSwitchPolicy::Random => SelectionPolicy::Random,
                crds::VSwitchPolicy::Most => SelectionPolicy::Most,
            },
            security_groups: all(spec.security_group_ids)
                .map(|ids| ids.map(SecurityGroupId::new).collect()),
        }
    }
}
