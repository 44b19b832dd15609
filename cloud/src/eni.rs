//! An ENI as the cloud sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use jiff::Timestamp;
use model::{EniId, InstanceId, Mac, SecurityGroupId, VSwitchId, VlanId, VpcId, ZoneId};

/// An elastic network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// Its address on the link.
    pub mac: Mac,
    /// What it is. A member says `Member` only while it is attached to a trunk.
    pub kind: EniKind,
    /// Where it is on its way.
    pub status: EniStatus,
    /// Its vSwitch.
    pub vswitch: VSwitchId,
    /// The zone of that.
    pub zone: ZoneId,
    /// The VPC of that.
    pub vpc: VpcId,
    /// The groups in force.
    pub security_groups: Vec<SecurityGroupId>,
    /// The instance it is attached to, or on its way to or from.
    pub instance: Option<InstanceId>,
    /// The trunk it is a member of.
    pub trunk: Option<EniId>,
    /// A member's VLAN id (see [`Eni::vlan`]); else the cloud's number of the NIC.
    pub device_index: Option<u32>,
    /// The address that it cannot lose; `None` on an ENI of IPv6 alone.
    pub primary_v4: Option<Ipv4Addr>,
    /// All its IPv4 addresses; the primary one first.
    pub v4: Vec<Ipv4Addr>,
    /// All its IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Its IPv4 prefixes, a /28 each; no address of them is in `v4`.
    pub v4_prefixes: Vec<Ipv4Network>,
    /// Its IPv6 prefixes, a /80 each; no address of them is in `v6`.
    pub v6_prefixes: Vec<Ipv6Network>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Since when it is; `None` in the answer to its creation.
    pub created: Option<Timestamp>,
}

impl Eni {
    /// The VLAN id of a member on its trunk, once the cloud has given it one.
    pub fn vlan(&self) -> Option<VlanId> {
        self.trunk.as_ref()?;
        VlanId::try_from(self.device_index?).ok()
    }
}

/// `Type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EniKind {
    /// The one that the instance was born with: the operating system's.
    Primary,
    /// A NIC of its own; also a future member that is not attached yet.
    Secondary,
    /// It carries members, each in a VLAN.
    Trunk,
    /// Attached to a trunk.
    Member,
    /// Something that we do not know: never ours.
    Other(String),
}

impl From<&str> for EniKind {
    fn from(text: &str) -> Self {
        match text {
            "Primary" => Self::Primary,
            "Secondary" => Self::Secondary,
            "Trunk" => Self::Trunk,
            "Member" => Self::Member,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl EniKind {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Primary => "Primary",
            Self::Secondary => "Secondary",
            Self::Trunk => "Trunk",
            Self::Member => "Member",
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for EniKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EniStatus {
    /// It is being made.
    Creating,
    /// Nobody has it.
    Available,
    /// On its way to an instance.
    Attaching,
    /// Attached.
    InUse,
    /// On its way from an instance; it may stay so until the detach is sent again.
    Detaching,
    /// On its way out.
    Deleting,
    /// Something that we do not know.
    Other(String),
}

impl From<&str> for EniStatus {
    fn from(text: &str) -> Self {
        match text {
            "Creating" => Self::Creating,
            "Available" => Self::Available,
            "Attaching" => Self::Attaching,
            "InUse" => Self::InUse,
            "Detaching" => Self::Detaching,
            "Deleting" => Self::Deleting,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl EniStatus {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Creating => "Creating",
            Self::Available => "Available",
            Self::Attaching => "Attaching",
            Self::InUse => "InUse",
            Self::Detaching => "Detaching",
            Self::Deleting => "Deleting",
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for EniStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
