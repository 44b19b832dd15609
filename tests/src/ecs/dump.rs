//! The whole truth as JSON: what tests compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::actions::permission;
use super::addresses::AddressPool;
use super::faults::Fault;
use super::journal::CallCount;
use super::service::{Ecs, State, now};
use super::world::{Eni, InstanceState, View};

/// Everything that is true now, whatever reads show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// When it was taken.
    pub at: Timestamp,
    /// Of the cloud.
    pub region: String,
    /// In the order of their ids.
    pub vswitches: Vec<VSwitchDump>,
    /// In the order of their ids.
    pub groups: Vec<GroupDump>,
    /// In the order of their ids, which is that of their making.
    pub instances: Vec<InstanceDump>,
    /// In the order of their ids, which is that of their making.
    pub enis: Vec<EniDump>,
    /// Changes whose wires have not followed yet.
    pub in_flight: usize,
    /// What the wires refused, in order.
    pub failures: Vec<String>,
    /// Calls by action.
    pub calls: BTreeMap<String, CallCount>,
    /// Faults that wait.
    pub faults: Vec<Fault>,
}

/// A vSwitch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VSwitchDump {
    /// `vsw-…`
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its IPv4 block.
    pub v4: String,
    /// Its IPv6 block.
    pub v6: Option<String>,
    /// IPv4 addresses that are not given.
    pub available: usize,
    /// Those that somebody has who is no ENI, because a test wants it so.
    pub reserved: BTreeSet<Ipv4Addr>,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupDump {
    /// `sg-…`
    pub id: String,
    /// Whether members may talk to each other without a rule.
    pub inner_access: bool,
    /// As `DescribeSecurityGroupAttribute` shows them.
    pub rules: Vec<Value>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDump {
    /// `i-…`
    pub id: String,
    /// The lab's name for it.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its zone.
    pub zone: String,
    /// Whether it runs.
    pub state: InstanceState,
    /// Its primary ENI.
    pub primary: String,
}

/// An ENI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniDump {
    /// `eni-…`
    pub id: String,
    /// `Primary`, `Secondary`, `Trunk` or `Member`.
    pub kind: String,
    /// `Available`, `Attaching`, `InUse` or `Detaching`.
    pub status: String,
    /// Its own MAC.
    pub mac: String,
    /// Its vSwitch.
    pub vswitch: String,
    /// Its zone.
    pub zone: String,
    /// The instance it is in, going to or coming from.
    pub instance: Option<String>,
    /// That instance by the lab's name.
    pub instance_name: Option<String>,
    /// Its trunk, if it is a member.
    pub trunk: Option<String>,
    /// Its VLAN id there.
    pub vlan: Option<u16>,
    /// The primary one first.
    pub v4: Vec<Ipv4Addr>,
    /// All of them.
    pub v6: Vec<Ipv6Addr>,
    /// Delegated prefixes, each a /28.
    pub v4_prefixes: Vec<Ipv4Network>,
    /// Delegated prefixes, each a /80.
    pub v6_prefixes: Vec<Ipv6Network>,
    /// Its security groups.
    pub groups: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Whether it goes with its instance.
    pub delete_on_release: bool,
    /// Whether the VPC checks its sources even where the lab does not say always.
    pub source_dest_check: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Whether a change of it is in flight.
    pub busy: bool,
}

impl Ecs {
    /// The whole truth.
    pub fn dump(&self) -> Dump {
        let state = self.lock();
        let view = state.cloud.view();
        Dump {
            at: now(),
            region: state.cloud.settings.region.clone(),
            vswitches: vswitches(&state),
            groups: groups(&state),
            instances: instances(view),
            enis: view.enis().map(|found| eni(&state, view, found)).collect(),
            in_flight: state.cloud.operations.len(),
            failures: state.cloud.failures.clone(),
            calls: state.journal.counts().clone(),
            faults: state.faults.list(now()),
        }
    }
}

fn vswitches(state: &State) -> Vec<VSwitchDump> {
    let dump = |vswitch: &super::world::VSwitch| VSwitchDump {
        id: vswitch.id.to_string(),
        zone: vswitch.zone.to_string(),
        v4: vswitch.v4.to_string(),
        v6: vswitch.v6.map(|block| block.to_string()),
        available: AddressPool::capacity(vswitch.v4)
            .saturating_sub(state.cloud.pools.get(&vswitch.id).map_or(0, AddressPool::taken_v4)),
        reserved: vswitch.reserved.clone(),
    };
    state.cloud.world.vswitches.values().map(dump).collect()
}

fn groups(state: &State) -> Vec<GroupDump> {
    let dump = |group: &super::world::Group| GroupDump {
        id: group.rules.id.to_string(),
        inner_access: group.rules.inner_access == super::rules::InnerAccess::Accept,
        rules: group.rules.rules.iter().map(permission).collect(),
    };
    state.cloud.world.groups.values().map(dump).collect()
}

fn instances(view: View<'_>) -> Vec<InstanceDump> {
    view.instances()
        .map(|instance| InstanceDump {
            id: instance.id.to_string(),
            name: instance.name.clone(),
            kind: instance.kind.id.to_owned(),
            zone: instance.zone.to_string(),
            state: instance.state,
            primary: instance.primary.to_string(),
        })
        .collect()
}

fn eni(state: &State, view: View<'_>, eni: &Eni) -> EniDump {
    let member = eni.attachment.as_ref().and_then(|attachment| attachment.member.as_ref());
    let instance = eni.instance().and_then(|id| view.instance(id));
    EniDump {
        id: eni.id.to_string(),
        kind: eni.type_name().to_owned(),
        status: eni.status.to_string(),
        mac: eni.mac.to_string(),
        vswitch: eni.vswitch.to_string(),
        zone: eni.zone.to_string(),
        instance: eni.instance().map(ToString::to_string),
        instance_name: instance.map(|instance| instance.name.clone()),
        trunk: member.map(|(trunk, _)| trunk.to_string()),
        vlan: member.map(|(_, vlan)| vlan.get()),
        v4: eni.v4.clone(),
        v6: eni.v6.clone(),
        v4_prefixes: eni.v4_prefixes.clone(),
        v6_prefixes: eni.v6_prefixes.clone(),
        groups: eni.groups.iter().map(ToString::to_string).collect(),
        tags: eni.tags.clone(),
        delete_on_release: eni.delete_on_release,
        source_dest_check: eni.source_dest_check,
        created: eni.created,
        busy: state.cloud.operations.is_busy(&eni.id),
    }
}
