//! What exists in the cloud, now or a while ago.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jiff::Timestamp;
use model::{EniId, InstanceId, Mac, SecurityGroupId, VSwitchId, VlanId, VpcId, ZoneId};

use super::addresses::ADDRESSES_OF_PREFIX;
use super::fabric::{PluggedEni, PluggedKind};
use super::instance_types::InstanceKind;
use super::rules::SecurityGroup;
use super::versions::Versions;

/// Everything there is, and what instances and ENIs were a while ago.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) vpcs: BTreeMap<VpcId, Vpc>,
    pub(crate) vswitches: BTreeMap<VSwitchId, VSwitch>,
    pub(crate) groups: BTreeMap<SecurityGroupId, Group>,
    pub(crate) instances: Versions<InstanceId, Instance>,
    pub(crate) enis: Versions<EniId, Eni>,
}

/// The world as it was at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    at: Timestamp,
}

/// A VPC.
#[derive(Debug, Clone)]
pub(crate) struct Vpc {
    pub(crate) id: VpcId,
    pub(crate) v4: Ipv4Network,
    pub(crate) v6: Option<Ipv6Network>,
    /// How many private IPv4 addresses may be in use in all of it.
    pub(crate) address_quota: usize,
    pub(crate) created: Timestamp,
}

/// A subnet in one zone.
#[derive(Debug, Clone)]
pub(crate) struct VSwitch {
    pub(crate) id: VSwitchId,
    pub(crate) vpc: VpcId,
    pub(crate) zone: ZoneId,
    pub(crate) v4: Ipv4Network,
    pub(crate) v6: Option<Ipv6Network>,
    /// Addresses that somebody has who is no ENI, because a test wants it so.
    pub(crate) reserved: BTreeSet<Ipv4Addr>,
    pub(crate) created: Timestamp,
}

/// A security group in its VPC.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) vpc: VpcId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: Tags,
    pub(crate) created: Timestamp,
    pub(crate) rules: SecurityGroup,
}

/// Keys and values, in the order of the keys.
pub(crate) type Tags = BTreeMap<String, String>;

/// A virtual machine.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    /// The lab's name for it (`node1`).
    pub(crate) name: String,
    pub(crate) kind: &'static InstanceKind,
    pub(crate) vpc: VpcId,
    pub(crate) vswitch: VSwitchId,
    pub(crate) zone: ZoneId,
    pub(crate) state: InstanceState,
    pub(crate) primary: EniId,
    /// Whether its NICs have the large MTU that its type may allow.
    pub(crate) jumbo: bool,
    pub(crate) ram_role: Option<String>,
    pub(crate) tags: Tags,
    pub(crate) created: Timestamp,
}

/// `Status` of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InstanceState {
    /// It boots: no NIC goes in or out.
    Starting,
    /// It runs.
    Running,
    /// It shuts down: no NIC goes in or out.
    Stopping,
    /// It is shut down; its ENIs stay.
    Stopped,
    /// It is being released: nothing can be attached any more.
    Released,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An elastic network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eni {
    pub(crate) id: EniId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) kind: EniKind,
    pub(crate) status: EniStatus,
    pub(crate) mac: Mac,
    pub(crate) vpc: VpcId,
    pub(crate) vswitch: VSwitchId,
    pub(crate) zone: ZoneId,
    pub(crate) groups: Vec<SecurityGroupId>,
    /// The primary one first; never empty.
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// Delegated, each a /28.
    pub(crate) v4_prefixes: Vec<Ipv4Network>,
    /// Delegated, each a /80.
    pub(crate) v6_prefixes: Vec<Ipv6Network>,
    pub(crate) tags: Tags,
    pub(crate) resource_group: String,
    pub(crate) delete_on_release: bool,
    pub(crate) source_dest_check: bool,
    pub(crate) attachment: Option<Attachment>,
    pub(crate) created: Timestamp,
}

/// What an ENI was created as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EniKind {
    Primary,
    Secondary,
    Trunk,
}

/// `Status` of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EniStatus {
    Available,
    Attaching,
    InUse,
    Detaching,
}

impl fmt::Display for EniStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where an ENI is, or is going to or coming from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) instance: InstanceId,
    /// Its trunk and its VLAN there, if it is a member.
    pub(crate) member: Option<(EniId, VlanId)>,
}

impl Eni {
    pub(crate) fn primary_address(&self) -> Ipv4Addr {
        self.v4.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    pub(crate) fn trunk(&self) -> Option<&EniId> {
        self.attachment.as_ref()?.member.as_ref().map(|(trunk, _)| trunk)
    }

    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        self.attachment.as_ref().map(|attachment| &attachment.instance)
    }

    /// All that it owns: /32 and /128 for addresses, /28 and /80 for delegated prefixes.
    pub(crate) fn owned(&self) -> impl Iterator<Item = IpNetwork> {
        let v4 = self.v4.iter().map(|address| IpNetwork::from(IpAddr::V4(*address)));
        let v6 = self.v6.iter().map(|address| IpNetwork::from(IpAddr::V6(*address)));
        let v4_prefixes = self.v4_prefixes.iter().copied().map(IpNetwork::V4);
        let v6_prefixes = self.v6_prefixes.iter().copied().map(IpNetwork::V6);
        v4.chain(v6).chain(v4_prefixes).chain(v6_prefixes)
    }

    /// Whether an address is one of its own or in one of its prefixes.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.owned().any(|own| own.contains(address))
    }

    /// Slots of the type's quota of IPv4 addresses: an address takes one, and so does a prefix.
    pub(crate) const fn v4_slots(&self) -> usize {
        self.v4.len().saturating_add(self.v4_prefixes.len())
    }

    /// The same for IPv6.
    pub(crate) const fn v6_slots(&self) -> usize {
        self.v6.len().saturating_add(self.v6_prefixes.len())
    }

    /// `Type`: one that hangs on a trunk is a `Member` while it does.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            EniKind::Primary => "Primary",
            EniKind::Trunk => "Trunk",
            EniKind::Secondary if self.trunk().is_some() => "Member",
            EniKind::Secondary => "Secondary",
        }
    }

    /// Whether the wires know it.
    pub(crate) fn is_plugged(&self) -> bool {
        matches!(self.status, EniStatus::InUse | EniStatus::Detaching)
    }
}

/// An ENI that is to be plugged names something that is not there; the emulator's own fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the emulator lost what {0} refers to")]
pub(crate) struct Dangling(pub(crate) EniId);

impl World {
    /// As it is.
    pub(crate) const fn now(&self) -> View<'_> {
        View { world: self, at: Timestamp::MAX }
    }

    /// As it was at `at`.
    pub(crate) const fn seen(&self, at: Timestamp) -> View<'_> {
        View { world: self, at }
    }
}

impl<'a> View<'a> {
    pub(crate) fn eni(self, id: &EniId) -> Option<&'a Arc<Eni>> {
        self.world.enis.get(id, self.at)
    }

    pub(crate) fn enis(self) -> impl Iterator<Item = &'a Arc<Eni>> {
        self.world.enis.iter(self.at)
    }

    pub(crate) fn instance(self, id: &InstanceId) -> Option<&'a Arc<Instance>> {
        self.world.instances.get(id, self.at)
    }

    pub(crate) fn instances(self) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.world.instances.iter(self.at)
    }

    /// The ENIs that are in `instance`, on their way there or on their way out.
    pub(crate) fn enis_of(self, instance: &InstanceId) -> impl Iterator<Item = &'a Arc<Eni>> {
        self.enis().filter(move |eni| eni.instance() == Some(instance))
    }

    /// The members of a trunk, the coming and going ones included.
    pub(crate) fn members_of(self, trunk: &EniId) -> impl Iterator<Item = &'a Arc<Eni>> {
        self.enis().filter(move |eni| eni.trunk() == Some(trunk))
    }

    /// IPv4 addresses that ENIs of the vSwitch have, and those that a test has reserved.
    pub(crate) fn used_in(self, vswitch: &VSwitch) -> usize {
        let of = self.enis().filter(|eni| eni.vswitch == vswitch.id);
        let used = of.map(|eni| eni.v4.len() + eni.v4_prefixes.len() * ADDRESSES_OF_PREFIX);
        used.sum::<usize>() + vswitch.reserved.len()
    }

    /// The ENI as its port is to see it.
    pub(crate) fn plugged(self, eni: &Eni) -> Result<PluggedEni, Dangling> {
        let lost = || Dangling(eni.id.clone());
        let instance = eni.instance().and_then(|id| self.instance(id)).ok_or_else(lost)?;
        let vswitch = self.world.vswitches.get(&eni.vswitch).ok_or_else(lost)?;
        let member = eni.attachment.as_ref().and_then(|attachment| attachment.member.clone());
        let kind = match (eni.kind, member) {
            (_, Some((trunk, vlan))) => PluggedKind::Member { trunk, vlan },
            (EniKind::Primary, None) => PluggedKind::Primary,
            (EniKind::Secondary, None) => PluggedKind::Secondary,
            (EniKind::Trunk, None) => PluggedKind::Trunk,
        };
        Ok(PluggedEni {
            id: eni.id.clone(),
            instance: instance.name.clone(),
            kind,
            mac: eni.mac,
            primary: eni.primary_address(),
            addresses: eni.owned().collect(),
            vswitch: eni.vswitch.clone(),
            v4_block: vswitch.v4,
            v6_block: vswitch.v6,
            mtu: if instance.jumbo { 8500 } else { 1500 },
            groups: eni.groups.clone(),
            source_dest_check: eni.source_dest_check,
        })
    }
}
