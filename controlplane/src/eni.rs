//! The record of one ENI, from the intent to make it until it is gone.

use std::collections::BTreeMap;

use cloud::{AttachEni, ClientToken, CreateEni, DetachEni, NewEni};
use model::{EniId, InstanceId, IpPair, IpStack, Mac, SecurityGroupId, VSwitchId, VlanId};

/// The tag that holds an ENI's token: by it a half-made one is found again.
pub const TOKEN_TAG: &str = "terway-token";

/// An ENI of ours. It is written down before anything is done for it, and removed when it is
/// surely gone. `T` is what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni<T> {
    /// Names the intent: ClientToken, tag and key of the record.
    pub token: ClientToken,
    /// What the cloud is asked for. It never changes, for the token stands for it.
    pub spec: EniSpec,
    /// Where it is to go.
    pub goal: Goal,
    /// How far it has come.
    pub stage: Stage,
    /// What for.
    pub owner: T,
}

/// Where an ENI is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// To be attached.
    Bound,
    /// To be detached and deleted.
    Gone,
}

/// How far an ENI has come, as far as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Create may have been sent.
    Intended,
    /// It is there.
    Made(EniId),
    /// It is attached.
    Bound(Binding),
}

/// An attached ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its id.
    pub id: EniId,
    /// Its MAC.
    pub mac: Mac,
    /// Its first address of each family.
    pub addresses: IpPair,
    /// VLAN id of a member on its trunk.
    pub vlan: Option<VlanId>,
}

/// What the cloud is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniSpec {
    /// What it will be.
    pub kind: Kind,
    /// Where.
    pub vswitch: VSwitchId,
    /// Groups in force.
    pub security_groups: Vec<SecurityGroupId>,
    /// The families that its pods have.
    pub stack: IpStack,
    /// IPv4 addresses, the primary one included.
    pub v4: u32,
    /// IPv6 addresses.
    pub v6: u32,
    /// IPv4 prefixes, of 16 addresses each.
    pub v4_prefixes: u32,
    /// IPv6 prefixes /80.
    pub v6_prefixes: u32,
    /// Who collects it, and the user's; the token is added.
    pub tags: BTreeMap<String, String>,
    /// The resource group; the account's default if `None`.
    pub resource_group: Option<String>,
    /// Whether the VPC drops sources that are not assigned to it.
    pub source_dest_check: bool,
}

/// What an ENI is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A NIC of its own.
    Secondary,
    /// A NIC that carries members.
    Trunk,
    /// A VLAN of this trunk.
    Member(EniId),
}

impl Kind {
    /// The trunk of a member.
    pub const fn trunk(&self) -> Option<&EniId> {
        match self {
            Self::Member(trunk) => Some(trunk),
            Self::Secondary | Self::Trunk => None,
        }
    }
}

impl<T> Eni<T> {
    /// The intent to make one.
    pub const fn intend(token: ClientToken, spec: EniSpec, owner: T) -> Self {
        Self { token, spec, goal: Goal::Bound, stage: Stage::Intended, owner }
    }

    /// Its id, once it has one.
    pub const fn id(&self) -> Option<&EniId> {
        match &self.stage {
            Stage::Intended => None,
            Stage::Made(id) => Some(id),
            Stage::Bound(binding) => Some(&binding.id),
        }
    }

    /// Its attachment, once it has one.
    pub const fn binding(&self) -> Option<&Binding> {
        match &self.stage {
            Stage::Bound(binding) => Some(binding),
            Stage::Intended | Stage::Made(_) => None,
        }
    }

    pub(crate) fn create(&self) -> CreateEni {
        let mut tags = self.spec.tags.clone();
        tags.insert(TOKEN_TAG.to_owned(), self.token.to_string());
        CreateEni {
            token: self.token.clone(),
            kind: match self.spec.kind {
                Kind::Trunk => NewEni::Trunk,
                Kind::Secondary | Kind::Member(_) => NewEni::Secondary,
            },
            vswitch: self.spec.vswitch.clone(),
            security_groups: self.spec.security_groups.clone(),
            secondary_v4: self.spec.v4.saturating_sub(1),
            v6: self.spec.v6,
            v4_prefixes: self.spec.v4_prefixes,
            v6_prefixes: self.spec.v6_prefixes,
            tags,
            resource_group: self.spec.resource_group.clone(),
            delete_on_release: true,
            source_dest_check: self.spec.source_dest_check,
            description: None,
        }
    }

    pub(crate) fn attach(&self, eni: EniId, instance: &InstanceId) -> AttachEni {
        let trunk = self.spec.kind.trunk().cloned();
        AttachEni { eni, instance: instance.clone(), trunk, network_card: None }
    }

    pub(crate) fn detach(&self, eni: EniId, instance: &InstanceId) -> DetachEni {
        let trunk = self.spec.kind.trunk().cloned();
        DetachEni { eni, instance: instance.clone(), trunk }
    }
}
