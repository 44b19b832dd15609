//! ENIs in their instances: links, programs, routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use aya::programs::TcAttachType;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use model::{EniId, Mac, SecurityGroupId, VSwitchId, VlanId};
use terway_lab_ebpf_common::{Delivery, FIRST_ENI, NOBODY, Owner, Port, program};
use tokio::task::JoinHandle;

use crate::ecs::{PluggedEni, PluggedKind, SecurityGroup};
use crate::netlink::{End, Route};
use crate::node::{Node, Primary, V6Default};

use super::groups::{Guarded, Numbers, Table};
use super::{Fabric, GATEWAY, MemberMacs, Neighbours, Sender, SourceCheck, gateway_link_local};

/// The largest a veth takes: oversize frames are to reach the program, which counts them.
const PORT_MTU: u32 = 65_535;
/// Next hops of a port: stand-ins for the ENI, whose MAC is known.
const NEXT_HOP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 1));
const NEXT_HOP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// Indexes of ports; far from what the kernel gives out by itself.
const FIRST_INDEX: u32 = 1000;

/// An ENI that is plugged, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Its id.
    pub eni: EniId,
    /// The node.
    pub node: String,
    /// Its port's name in the VPC.
    pub port: String,
    /// The name that its NIC was given on the node; `None` for a member.
    pub link: Option<String>,
    /// A member's VLAN.
    pub vlan: Option<VlanId>,
    /// What the VPC routes to it.
    pub addresses: Vec<IpNetwork>,
    /// What guards it.
    pub groups: Vec<SecurityGroupId>,
}

/// All that changes, behind one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    enis: BTreeMap<EniId, Plugged>,
    /// Every ENI ever seen keeps its number, and so its counters.
    numbers: Vec<EniId>,
    vswitches: Vec<VSwitchId>,
    next_index: u32,
    pub(super) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) group_numbers: Numbers,
    pub(super) table: Table,
}

/// A port, and what is set on it.
#[derive(Debug)]
struct Plugged {
    /// As last told.
    eni: PluggedEni,
    number: u32,
    /// The port's name and index in the VPC.
    port: String,
    index: u32,
    /// The NIC's name on the node.
    link: Option<String>,
    /// The trunk's number and its port's index.
    trunk: Option<(u32, u32)>,
    /// Source MAC of its frames.
    mac: Mac,
    /// Routed here by now.
    routed: BTreeSet<IpNetwork>,
    advertiser: Option<JoinHandle<()>>,
}

impl Plugged {
    const fn vlan(&self) -> Option<VlanId> {
        match &self.eni.kind {
            PluggedKind::Member { vlan, .. } => Some(*vlan),
            PluggedKind::Primary | PluggedKind::Secondary | PluggedKind::Trunk => None,
        }
    }

    fn guarded(&self) -> Guarded<'_> {
        Guarded {
            eni: &self.eni.id,
            port: &self.port,
            groups: &self.eni.groups,
            addresses: &self.eni.addresses,
        }
    }

    /// Key of its frames: the NIC's port and its tag.
    fn port_key(&self) -> (u32, u32) {
        let vid = self.vlan().map_or(0, |vlan| vlan.get().into());
        (self.trunk.map_or(self.index, |(_, index)| index), vid)
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        if let Some(advertiser) = &self.advertiser {
            advertiser.abort();
        }
    }
}

impl State {
    /// Everybody with counters.
    pub(super) fn senders(&self) -> Vec<(u32, Sender)> {
        let enis = (FIRST_ENI..).zip(self.numbers.iter().cloned().map(Sender::Eni));
        [super::outside_sender()].into_iter().chain(enis).collect()
    }

    pub(super) fn views(&self) -> Vec<PortView> {
        let view = |plugged: &Plugged| PortView {
            eni: plugged.eni.id.clone(),
            node: plugged.eni.instance.clone(),
            port: plugged.port.clone(),
            link: plugged.link.clone(),
            vlan: plugged.vlan(),
            addresses: plugged.routed.iter().copied().collect(),
            groups: plugged.eni.groups.clone(),
        };
        self.enis.values().map(view).collect()
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<EniId> {
        let owns = |plugged: &&Plugged| plugged.routed.iter().any(|one| one.contains(address));
        self.enis.values().find(owns).map(|plugged| plugged.eni.id.clone())
    }

    pub(super) fn guarded(&self) -> Vec<Guarded<'_>> {
        self.enis.values().map(Plugged::guarded).collect()
    }

    fn number(&mut self, eni: &EniId) -> u32 {
        numbered(&mut self.numbers, eni).saturating_add(FIRST_ENI)
    }

    fn vswitch(&mut self, vswitch: &VSwitchId) -> u32 {
        numbered(&mut self.vswitches, vswitch).saturating_add(1)
    }

    fn index(&mut self) -> u32 {
        self.next_index = self.next_index.max(FIRST_INDEX).saturating_add(1);
        self.next_index
    }
}

fn numbered<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) -> u32 {
    let position = list.iter().position(|known| known == item).unwrap_or_else(|| {
        list.push(item.clone());
        list.len().saturating_sub(1)
    });
    u32::try_from(position).unwrap_or(u32::MAX)
}

impl Fabric {
    /// Plugs an ENI; one that is plugged already takes up what has changed.
    pub(super) async fn plug_eni(&self, eni: &PluggedEni) -> Result<()> {
        let mut state = self.0.state.lock().await;
        let known = state.enis.get(&eni.id).map(|plugged| plugged.eni.kind.clone());
        anyhow::ensure!(
            known.as_ref().is_none_or(|kind| *kind == eni.kind),
            "{} is plugged already, as {known:?}",
            eni.id
        );
        if known.is_none() {
            self.plug_new(&mut state, eni)
                .await
                .with_context(|| format!("cannot plug {}", eni.id))?;
        }
        self.take_up(&mut state, eni).await
    }

    async fn plug_new(&self, state: &mut State, eni: &PluggedEni) -> Result<()> {
        let plugged = match &eni.kind {
            PluggedKind::Member { trunk, .. } => self.add_member(state, eni, trunk).await?,
            PluggedKind::Primary | PluggedKind::Secondary | PluggedKind::Trunk => {
                self.add_nic(state, eni).await?
            }
        };
        let index = plugged.index;
        state.enis.insert(eni.id.clone(), plugged);
        let ready = self.ready(state, eni).await;
        if ready.is_err() {
            state.enis.remove(&eni.id);
            self.0.netlink.delete_link(index).await?;
        }
        ready
    }

    /// A veth pair from the VPC into the node, where it is down.
    async fn add_nic(&self, state: &mut State, eni: &PluggedEni) -> Result<Plugged> {
        let node = self.node(&eni.instance)?;
        let (number, index) = (state.number(&eni.id), state.index());
        let port = format!("p{number}");
        let link = free_name(&node).await?;
        let near = End { name: &port, index, mac: GATEWAY, mtu: PORT_MTU, alias: eni.id.as_str() };
        let far = End { name: &link, index: 0, mac: eni.mac, mtu: eni.mtu, alias: "" };
        self.0.netlink.add_veth(&near, &far, Some(node.namespace())).await?;
        Ok(Plugged {
            eni: eni.clone(),
            number,
            port,
            index,
            link: Some(link),
            trunk: None,
            mac: eni.mac,
            routed: BTreeSet::new(),
            advertiser: None,
        })
    }

    /// A veth pair inside the VPC: frames come in at its near end and are taken away from there.
    async fn add_member(
        &self,
        state: &mut State,
        eni: &PluggedEni,
        trunk: &EniId,
    ) -> Result<Plugged> {
        let (number, index) = (state.number(&eni.id), state.index());
        let carrier = state.enis.get(trunk);
        let carrier = carrier.with_context(|| format!("its trunk {trunk} is not plugged"))?;
        anyhow::ensure!(carrier.eni.kind == PluggedKind::Trunk, "{trunk} is no trunk");
        anyhow::ensure!(
            carrier.eni.instance == eni.instance,
            "its trunk {trunk} is in {}, not in {}",
            carrier.eni.instance,
            eni.instance
        );
        let mac = match self.0.options.member_macs {
            MemberMacs::Trunk => carrier.eni.mac,
            MemberMacs::Own => eni.mac,
        };
        let trunk = Some((carrier.number, carrier.index));
        let (port, inner) = (format!("m{number}"), format!("x{number}"));
        let near = End { name: &port, index, mac: GATEWAY, mtu: PORT_MTU, alias: eni.id.as_str() };
        let far = End { name: &inner, index: 0, mac: mac_of(number), mtu: PORT_MTU, alias: "" };
        self.0.netlink.add_veth(&near, &far, None).await?;
        self.0.netlink.set_up(self.0.netlink.index_of(&inner).await?).await?;
        Ok(Plugged {
            eni: eni.clone(),
            number,
            port,
            index,
            link: None,
            trunk,
            mac,
            routed: BTreeSet::new(),
            advertiser: None,
        })
    }

    /// Programs first, then up: no frame gets past a port without them.
    async fn ready(&self, state: &mut State, eni: &PluggedEni) -> Result<()> {
        self.set_port(state, eni)?;
        let plugged = state.enis.get(&eni.id).context("it was plugged just now")?;
        let (port, is_nic) = (plugged.port.clone(), plugged.trunk.is_none());
        let attach = move |programs: &mut super::Programs| -> Result<()> {
            programs.attach(&port, TcAttachType::Egress, program::TO_ENI)?;
            if is_nic {
                programs.attach(&port, TcAttachType::Ingress, program::FROM_NODE)?;
            }
            Ok(())
        };
        self.with_programs(attach).await??;
        let netlink = &self.0.netlink;
        for gateway in gateways(eni) {
            netlink.add_address(plugged.index, IpNetwork::from(gateway)).await?;
        }
        let link_local = IpNetwork::new(gateway_link_local().into(), 64)?;
        netlink.add_address(plugged.index, link_local).await?;
        netlink.set_up(plugged.index).await?;
        if self.0.options.neighbours == Neighbours::Known {
            for next_hop in [NEXT_HOP_V4, NEXT_HOP_V6] {
                netlink.replace_neighbour(plugged.index, next_hop, plugged.mac).await?;
            }
        }
        let index = plugged.index;
        if eni.kind == PluggedKind::Primary {
            let link = plugged.link.clone().context("a primary ENI has a NIC")?;
            let advertiser = self.start_primary(eni, &link, index).await?;
            if let Some(plugged) = state.enis.get_mut(&eni.id) {
                plugged.advertiser = advertiser;
            }
        }
        Ok(())
    }

    /// What the operating system of an instance does with its first NIC.
    async fn start_primary(
        &self,
        eni: &PluggedEni,
        link: &str,
        port_index: u32,
    ) -> Result<Option<JoinHandle<()>>> {
        let node = self.node(&eni.instance)?;
        let v6 = eni.addresses.iter().find_map(|prefix| match prefix {
            IpNetwork::V6(prefix) if prefix.prefix() == 128 => Some(prefix.ip()),
            _ => None,
        });
        let v6 = v6.zip(eni.v6_block);
        let primary = Primary { v4: eni.primary, v4_block: eni.v4_block, v6 };
        node.configure_primary(link, primary).await?;
        if v6.is_none() || node.v6_default() == V6Default::Static {
            return Ok(None);
        }
        let advertiser = self.advertise(port_index).await?;
        node.wait_for_v6_default().await?;
        Ok(Some(advertiser))
    }

    /// Takes an ENI out; succeeds if it is not there.
    pub(super) async fn unplug_eni(&self, eni: &EniId) -> Result<()> {
        let mut state = self.0.state.lock().await;
        let Some(plugged) = state.enis.get(eni) else { return Ok(()) };
        let number = plugged.number;
        let member =
            state.enis.values().find(|other| other.trunk.is_some_and(|(trunk, _)| trunk == number));
        if let Some(member) = member {
            anyhow::bail!("cannot unplug {eni}: its member {} is plugged", member.eni.id);
        }
        self.route(&mut state, eni, BTreeSet::new()).await?;
        let Some(plugged) = state.enis.remove(eni) else { return Ok(()) };
        {
            let mut programs = self.programs();
            let (index, vid) = plugged.port_key();
            programs.remove_port(index, vid)?;
            programs.remove_delivery(plugged.index)?;
        }
        self.apply_groups(&mut state).await?;
        self.0.netlink.delete_link(plugged.index).await
    }

    /// Changes what is plugged to what the cloud says now.
    pub(super) async fn change_eni(&self, eni: &PluggedEni) -> Result<()> {
        let mut state = self.0.state.lock().await;
        anyhow::ensure!(state.enis.contains_key(&eni.id), "{} is not plugged", eni.id);
        self.take_up(&mut state, eni).await
    }

    async fn take_up(&self, state: &mut State, eni: &PluggedEni) -> Result<()> {
        if let Some(plugged) = state.enis.get_mut(&eni.id) {
            plugged.eni = eni.clone();
        }
        self.set_port(state, eni)?;
        self.route(state, &eni.id, eni.addresses.iter().copied().collect()).await?;
        self.apply_groups(state).await
    }

    /// Writes the ENI's record for the programs.
    fn set_port(&self, state: &mut State, eni: &PluggedEni) -> Result<()> {
        let vswitch = state.vswitch(&eni.vswitch);
        let plugged = state.enis.get(&eni.id).context("it is plugged")?;
        let mut programs = self.programs();
        programs.count(plugged.number)?;
        let (trunk_ifindex, vid) = match plugged.trunk {
            Some((_, index)) => (index, plugged.port_key().1),
            None => (0, 0),
        };
        let delivery = Delivery { eni: plugged.number, trunk_ifindex, vid };
        programs.set_delivery(plugged.index, delivery)?;
        let port = Port {
            eni: plugged.number,
            vswitch,
            ifindex: if plugged.trunk.is_some() { plugged.index } else { 0 },
            mtu: eni.mtu,
            flags: self.flags(eni),
            gateway_v4: gateway_v4(eni.v4_block).map_or([0; 4], |gateway| gateway.octets()),
            gateway_v6: eni.v6_block.and_then(gateway_v6).map_or([0; 16], |one| one.octets()),
            mac: plugged.mac.bytes(),
            pad: [0; 2],
        };
        let (index, vid) = plugged.port_key();
        programs.set_port(index, vid, &port)
    }

    fn flags(&self, eni: &PluggedEni) -> u32 {
        let always = self.0.options.source_check == SourceCheck::Always;
        [
            (eni.kind == PluggedKind::Trunk, Port::TRUNK),
            // Only an operating system's NIC has its vSwitch's prefix on the link.
            (eni.kind == PluggedKind::Primary, Port::ANSWER_VSWITCH),
            (always || eni.source_dest_check, Port::SOURCE_CHECK),
            (self.0.options.neighbours == Neighbours::Asked, Port::ASK),
        ]
        .into_iter()
        .filter(|(holds, _)| *holds)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    /// Routes to an ENI, and accepts from it, exactly `wanted`.
    async fn route(
        &self,
        state: &mut State,
        eni: &EniId,
        wanted: BTreeSet<IpNetwork>,
    ) -> Result<()> {
        let Some(vswitch) = state.enis.get(eni).map(|plugged| plugged.eni.vswitch.clone()) else {
            return Ok(());
        };
        let vswitch = state.vswitch(&vswitch);
        let Some(plugged) = state.enis.get_mut(eni) else { return Ok(()) };
        for prefix in plugged.routed.difference(&wanted) {
            self.programs().remove_owner(*prefix, plugged.number)?;
            self.0.netlink.delete_route(self.way(plugged, *prefix)).await?;
        }
        let trunk = plugged.trunk.map_or(NOBODY, |(number, _)| number);
        let owner = Owner { eni: plugged.number, trunk, vswitch };
        for prefix in wanted.difference(&plugged.routed) {
            self.0.netlink.replace_route(self.way(plugged, *prefix)).await?;
            self.programs().set_owner(*prefix, owner)?;
        }
        plugged.routed = wanted;
        Ok(())
    }

    fn way(&self, plugged: &Plugged, prefix: IpNetwork) -> Route {
        let next_hop = if prefix.is_ipv4() { NEXT_HOP_V4 } else { NEXT_HOP_V6 };
        let known = self.0.options.neighbours == Neighbours::Known;
        Route {
            to: prefix,
            link: plugged.index,
            via: known.then_some(next_hop),
            mtu: Some(plugged.eni.mtu),
        }
    }
}

/// `ethN` with the lowest N that no link of the node has.
async fn free_name(node: &Node) -> Result<String> {
    let links = node.netlink().links().await?;
    let taken: BTreeSet<_> = links.iter().map(|link| link.name.as_str()).collect();
    let name = (0_u32..).map(|number| format!("eth{number}"));
    name.take(4096)
        .find(|name| !taken.contains(name.as_str()))
        .with_context(|| format!("{} has no free name for a link", node.name()))
}

/// Addresses of the vSwitch's gateway.
fn gateways(eni: &PluggedEni) -> Vec<IpAddr> {
    let v6 = eni.v6_block.and_then(gateway_v6).map(IpAddr::V6);
    gateway_v4(eni.v4_block).map(IpAddr::V4).into_iter().chain(v6).collect()
}

fn gateway_v4(block: Ipv4Network) -> Option<Ipv4Addr> {
    match model::gateway(block.into())? {
        IpAddr::V4(gateway) => Some(gateway),
        IpAddr::V6(_) => None,
    }
}

fn gateway_v6(block: Ipv6Network) -> Option<Ipv6Addr> {
    match model::gateway(block.into())? {
        IpAddr::V6(gateway) => Some(gateway),
        IpAddr::V4(_) => None,
    }
}

/// MAC of the far end inside the VPC, which nobody ever sees.
const fn mac_of(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac::new([0x02, 0xfa, a, b, c, d])
}
