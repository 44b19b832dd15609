//! What a lab puts into the cloud before anybody calls it: VPCs, vSwitches, groups, instances. The
//! real cloud has API actions for these; the lab's own users never call them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use jiff::Timestamp;
use model::{EniId, InstanceId, SecurityGroupId, VSwitchId, VpcId, ZoneId};

use super::addresses::{AddressPool, Ask, single_v4, single_v6};
use super::cloud::Cloud;
use super::instance_types::InstanceKind;
use super::operations::{Change, OperationId};
use super::refusal::Refusal;
use super::rules::{
    Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup,
};
use super::world::{Eni, EniKind, EniStatus, Group, Instance, InstanceState, Tags, VSwitch, Vpc};

/// A VPC to be made.
#[derive(Debug, Clone)]
pub struct VpcSpec {
    /// Its id, as the lab wants it.
    pub id: VpcId,
    /// All IPv4 addresses of it.
    pub v4: Ipv4Network,
    /// All IPv6 addresses of it.
    pub v6: Option<Ipv6Network>,
    /// `QuotaExceeded.PrivateIpAddress` above this many.
    pub address_quota: usize,
}

/// A vSwitch to be made.
#[derive(Debug, Clone)]
pub struct VSwitchSpec {
    /// Its id, as the lab wants it.
    pub id: VSwitchId,
    /// The VPC it is a part of.
    pub vpc: VpcId,
    /// Its zone.
    pub zone: ZoneId,
    /// A part of the VPC's block that no other vSwitch has; /16 to /29.
    pub v4: Ipv4Network,
    /// The same for IPv6; always a /64.
    pub v6: Option<Ipv6Network>,
}

/// An instance to be booted.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// The lab's name for it (`node1`), which the fabric sees.
    pub name: String,
    /// A type of [`InstanceKind::all`].
    pub kind: String,
    /// Where its primary ENI is.
    pub vswitch: VSwitchId,
    /// The groups of its primary ENI.
    pub groups: Vec<SecurityGroupId>,
    /// How many IPv6 addresses its primary ENI has.
    pub v6_addresses: usize,
    /// Whether its NICs have an MTU of 8500, if its type can do that.
    pub jumbo: bool,
    /// The role whose credentials its metadata gives.
    pub ram_role: Option<String>,
}

impl Cloud {
    /// Adds a VPC.
    pub(crate) fn add_vpc(&mut self, spec: &VpcSpec, now: Timestamp) -> Result<(), Refusal> {
        let VpcSpec { id, v4, v6, address_quota } = spec.clone();
        if self.world.vpcs.contains_key(&id) {
            return Err(Refusal::invalid("VpcId", format!("{id} exists")));
        }
        self.world.vpcs.insert(id.clone(), Vpc { id, v4, v6, address_quota, created: now });
        Ok(())
    }

    /// Adds a vSwitch whose blocks lie in its VPC's and in nobody else's.
    pub(crate) fn add_vswitch(
        &mut self,
        spec: &VSwitchSpec,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let VSwitchSpec { id, vpc, zone, v4, v6 } = spec.clone();
        let parent = self.world.vpcs.get(&vpc);
        let parent =
            parent.ok_or_else(|| Refusal::invalid("VpcId", format!("{vpc} is unknown")))?;
        let inside_v4 = v4.is_subnet_of(parent.v4);
        let inside_v6 = v6.is_none_or(|block| {
            block.prefix() == 64 && parent.v6.is_some_and(|parent| block.is_subnet_of(parent))
        });
        if !(16..=29).contains(&v4.prefix()) || !inside_v4 || !inside_v6 {
            let why = format!("{id} needs /16 to /29 and /64 inside of {vpc}");
            return Err(Refusal::invalid("CidrBlock", why));
        }
        let overlaps = |other: &&VSwitch| {
            let v6 = v6.zip(other.v6).is_some_and(|(one, other)| one.overlaps(other));
            other.id == id || (other.vpc == vpc && (other.v4.overlaps(v4) || v6))
        };
        if let Some(other) = self.world.vswitches.values().find(overlaps) {
            return Err(Refusal::invalid("CidrBlock", format!("{id} overlaps {}", other.id)));
        }
        self.pools.insert(id.clone(), AddressPool::new(v4, v6));
        let reserved = BTreeSet::new();
        let vswitch = VSwitch { id: id.clone(), vpc, zone, v4, v6, reserved, created: now };
        self.world.vswitches.insert(id, vswitch);
        Ok(())
    }

    /// Exactly these addresses of a vSwitch belong to somebody who is no ENI: it is fuller than its
    /// ENIs make it, or in fragments that hold no prefix.
    pub(crate) fn reserve(
        &mut self,
        id: &VSwitchId,
        addresses: BTreeSet<Ipv4Addr>,
    ) -> Result<(), Refusal> {
        let network = |address: &Ipv4Addr| IpNetwork::from(IpAddr::V4(*address));
        let known = self.world.vswitches.get(id).ok_or_else(|| Refusal::vswitch_not_found(id))?;
        let before = known.reserved.clone();
        let new: Vec<_> = addresses.difference(&before).map(network).collect();
        self.take_addresses(id, &Ask { named: new, ..Ask::default() })?;
        let gone: Vec<_> = before.difference(&addresses).map(network).collect();
        self.give_back(id, gone);
        if let Some(vswitch) = self.world.vswitches.get_mut(id) {
            vswitch.reserved = addresses;
        }
        Ok(())
    }

    /// Adds a basic security group: members may talk to each other, nobody else comes in, all may
    /// go out. With `open`, everybody may come in.
    pub(crate) fn add_group(
        &mut self,
        id: &SecurityGroupId,
        vpc: &VpcId,
        open: bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if !self.world.vpcs.contains_key(vpc) || self.world.groups.contains_key(id) {
            return Err(Refusal::invalid("SecurityGroupId", format!("{id} in {vpc}")));
        }
        let rules = if open { self.open_rules(now) } else { Vec::new() };
        let group = Group {
            vpc: vpc.clone(),
            name: id.to_string(),
            description: String::new(),
            tags: Tags::new(),
            created: now,
            rules: SecurityGroup { id: id.clone(), inner_access: InnerAccess::Accept, rules },
        };
        self.world.groups.insert(id.clone(), group);
        Ok(())
    }

    /// Lets the members of `peer` into the members of a group.
    pub(crate) fn admit(
        &mut self,
        id: &SecurityGroupId,
        peer: &SecurityGroupId,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let rule = Rule {
            id: self.next_id("sgr"),
            direction: Direction::Ingress,
            protocol: Protocol::All,
            ports: PortRange::All,
            source_ports: PortRange::All,
            peer: Peer::Group(peer.clone()),
            policy: Policy::Accept,
            priority: 1,
            description: String::new(),
            created: now,
        };
        let group = self.world.groups.get_mut(id);
        let group =
            group.ok_or_else(|| Refusal::invalid("SecurityGroupId", format!("{id} is unknown")))?;
        group.rules.rules.push(rule);
        Ok(())
    }

    fn open_rules(&mut self, now: Timestamp) -> Vec<Rule> {
        let blocks = ["0.0.0.0/0", "::/0"].map(str::parse::<IpNetwork>);
        let rule = |block| Rule {
            id: self.next_id("sgr"),
            direction: Direction::Ingress,
            protocol: Protocol::All,
            ports: PortRange::All,
            source_ports: PortRange::All,
            peer: Peer::Cidr(block),
            policy: Policy::Accept,
            priority: 1,
            description: String::new(),
            created: now,
        };
        blocks.into_iter().flatten().map(rule).collect()
    }

    /// Adds a running instance; its primary ENI is `InUse` when the operation is done.
    pub(crate) fn add_instance(
        &mut self,
        spec: &InstanceSpec,
        now: Timestamp,
    ) -> Result<(InstanceId, OperationId), Refusal> {
        let kind = InstanceKind::named(&spec.kind).ok_or_else(|| {
            let text = format!("The instance type {} is not in the lab's table.", spec.kind);
            Refusal::new(403, "InvalidInstanceType.ValueNotSupported", text)
        })?;
        let vswitch = self.world.vswitches.get(&spec.vswitch).cloned();
        let vswitch = vswitch.ok_or_else(|| Refusal::vswitch_not_found(&spec.vswitch))?;
        if let Some(group) = spec.groups.iter().find(|group| !self.world.groups.contains_key(group))
        {
            return Err(Refusal::group_not_found(group));
        }
        let eni = self.primary_eni(spec, &vswitch, now)?;
        let instance = Instance {
            id: InstanceId::new(self.next_id("i")),
            name: spec.name.clone(),
            kind,
            vpc: vswitch.vpc,
            vswitch: vswitch.id,
            zone: vswitch.zone,
            state: InstanceState::Running,
            primary: eni.id.clone(),
            jumbo: spec.jumbo && kind.jumbo,
            ram_role: spec.ram_role.clone(),
            tags: Tags::new(),
            created: now,
        };
        let id = instance.id.clone();
        self.world.instances.put(id.clone(), instance, now);
        let operation = self.attaching(eni, id.clone(), None, 0, now)?;
        Ok((id, operation))
    }

    fn primary_eni(
        &mut self,
        spec: &InstanceSpec,
        vswitch: &VSwitch,
        now: Timestamp,
    ) -> Result<Eni, Refusal> {
        let ask = Ask { v4: 1, v6: spec.v6_addresses, ..Ask::default() };
        let taken = self.take_addresses(&vswitch.id, &ask)?;
        Ok(Eni {
            id: EniId::new(self.next_id("eni")),
            name: String::new(),
            description: String::new(),
            kind: EniKind::Primary,
            status: EniStatus::Available,
            mac: self.next_mac(),
            vpc: vswitch.vpc.clone(),
            vswitch: vswitch.id.clone(),
            zone: vswitch.zone.clone(),
            groups: spec.groups.clone(),
            v4: single_v4(&taken),
            v6: single_v6(&taken),
            v4_prefixes: Vec::new(),
            v6_prefixes: Vec::new(),
            tags: Tags::new(),
            resource_group: String::new(),
            delete_on_release: true,
            source_dest_check: false,
            attachment: None,
            created: now,
        })
    }

    /// Starts, stops or begins to release an instance. A released one keeps its ENIs until they
    /// have been taken out, by [`Self::take_out`].
    pub(crate) fn set_instance_state(
        &mut self,
        id: &str,
        state: InstanceState,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let instance = self.instance(id)?;
        if instance.state == InstanceState::Released {
            return Err(Refusal::instance_state(id, instance.state));
        }
        self.world.instances.put(instance.id.clone(), Instance { state, ..instance }, now);
        Ok(())
    }

    /// The ENIs of a released instance that can go now: members before their trunk, none that is
    /// busy. `None`: all are gone, and so is the instance.
    pub(crate) fn take_out(
        &mut self,
        id: &InstanceId,
        now: Timestamp,
    ) -> Result<Option<Vec<OperationId>>, Refusal> {
        let enis: Vec<Eni> = self.view().enis_of(id).map(|eni| Eni::clone(eni)).collect();
        if enis.is_empty() {
            self.world.instances.remove(id, now);
            return Ok(None);
        }
        let members = enis.iter().any(|eni| eni.trunk().is_some());
        let mut begun = Vec::new();
        for eni in enis {
            let waits = members && eni.trunk().is_none();
            if !waits && !self.operations.is_busy(&eni.id) {
                begun.push(self.take_eni_out(eni, now)?);
            }
        }
        Ok(Some(begun))
    }

    fn take_eni_out(&mut self, eni: Eni, now: Timestamp) -> Result<OperationId, Refusal> {
        let dies = eni.kind == EniKind::Primary || eni.delete_on_release;
        self.detaching(eni, if dies { Change::Remove } else { Change::Detach }, 0, now)
    }

    /// An ENI disappears as if the account had never had it. Its members go before it.
    pub(crate) fn vanish(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<OperationId>, Refusal> {
        let eni = self.eni(id)?;
        if self.operations.is_busy(&eni.id) {
            return Err(Refusal::conflict(id));
        }
        if let Some(member) = self.view().members_of(&eni.id).next() {
            let text = format!("The member {} is on the trunk {id}.", member.id);
            return Err(Refusal::new(403, "InvalidOperation.EniLinked", text));
        }
        if eni.status == EniStatus::Available {
            self.remove_eni(&eni, now);
            return Ok(None);
        }
        self.detaching(eni, Change::Remove, 0, now).map(Some)
    }
}
