//! What the emulated cloud asks of the wires: the seam between the ECS emulator and the fabric.

use std::future::Future;
use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use model::{EniId, Mac, SecurityGroupId, VSwitchId, VlanId};

use super::SecurityGroup;

/// The wires of the VPC.
///
/// Every call carries the whole truth of its object, and doing it twice does no harm. Calls for one
/// ENI come one after another; calls for different ENIs may overlap. The cloud shows an effect
/// (`InUse`, a new address) only after the call has returned. A call that fails is kept in the
/// emulator's dump and fails the operation: an ENI whose `plug` failed is `Available` again, one
/// whose `unplug` failed stays `Detaching`, an address that could not be set is not assigned.
pub trait Fabric: Send + Sync + 'static {
    /// Puts the ENI into its instance: the NIC appears there, down; or the trunk's port
    /// starts to take and give the member's frames.
    fn plug(&self, eni: &PluggedEni) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Takes it out. Members of a trunk have been unplugged before their trunk is.
    fn unplug(&self, eni: &PluggedEni) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Routes to the ENI, and accepts from it, exactly `eni.addresses`.
    fn set_addresses(&self, eni: &PluggedEni) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Guards the ENI by exactly `eni.groups`.
    fn set_groups(&self, eni: &PluggedEni) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Takes up `eni.source_dest_check`.
    fn set_source_dest_check(
        &self,
        eni: &PluggedEni,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A group exists or its rules changed; ENIs that are guarded by it follow. Called before the
    /// first ENI that names the group is plugged.
    fn set_rules(&self, group: &SecurityGroup) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// An ENI as its port sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluggedEni {
    /// Its id.
    pub id: EniId,
    /// The instance by the name that the lab gave it (`node1`), which is not its `i-…`.
    pub instance: String,
    /// A NIC of its own, or a VLAN of a trunk.
    pub kind: PluggedKind,
    /// The ENI's own MAC.
    pub mac: Mac,
    /// Its primary IPv4 address; also in `addresses`.
    pub primary: Ipv4Addr,
    /// All that it owns: /32 and /128 for addresses, /28 and /80 for delegated prefixes.
    pub addresses: Vec<IpNetwork>,
    /// Its vSwitch.
    pub vswitch: VSwitchId,
    /// The vSwitch's IPv4 block; its gateway is `model::gateway(block)`.
    pub v4_block: Ipv4Network,
    /// The vSwitch's IPv6 block, if it has one.
    pub v6_block: Option<Ipv6Network>,
    /// In bytes: 1500, or 8500 where the instance type takes jumbo frames.
    pub mtu: u32,
    /// 1 to 5 groups.
    pub groups: Vec<SecurityGroupId>,
    /// The ENI's `SourceDestCheck` flag.
    pub source_dest_check: bool,
}

/// How an ENI is in its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluggedKind {
    /// `eth0`: the operating system's.
    Primary,
    /// A secondary NIC.
    Secondary,
    /// A secondary NIC that carries members.
    Trunk,
    /// A VLAN of a trunk that is plugged into the same instance.
    Member {
        /// The trunk.
        trunk: EniId,
        /// Unique in that trunk.
        vlan: VlanId,
    },
}
