//! The wires of the VPC: ports that drop what the real ones drop, routes, security groups, and a
//! client outside. All of it lives in two namespaces, `<lab>-vpc` and `<lab>-outside`.

mod advertise;
mod cloud;
mod counters;
mod groups;
mod nft;
mod outside;
mod ports;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as BlockingMutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use model::{EniId, Mac};
use terway_lab_ebpf_common::{NOBODY, OUTSIDE, Owner, SERVICES};
use tokio::sync::Mutex;

use crate::namespace::{Namespace, Pin};
use crate::netlink::Netlink;
use crate::node::{LabName, Node, kill_inhabitants};

use ports::State;
use programs::Programs;

pub use counters::{DropCause, DropCounters, DropRecord, PortCounters, Sender};
pub use nft::Refused;
pub use outside::{OUTSIDE_V4, OUTSIDE_V6};
pub use ports::PortView;

/// The metadata service's address, in the VPC.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
/// The address for the API's endpoints, in the VPC.
pub const API: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 201);

/// Whose source addresses a port checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceCheck {
    /// Everybody's.
    #[default]
    Always,
    /// Those of ENIs whose `SourceDestCheck` is on.
    AsFlagged,
}

/// How the VPC knows the MAC of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Neighbours {
    /// It knows it, as the real one does.
    #[default]
    Known,
    /// It asks by ARP and NS before it sends, as a switch would.
    Asked,
}

/// Which MACs a member's tagged frames carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberMacs {
    /// The trunk's.
    #[default]
    Trunk,
    /// The member's own.
    Own,
}

/// What a fabric is to be.
#[derive(Debug, Clone)]
pub struct FabricOptions {
    /// The lab it belongs to.
    pub lab: LabName,
    /// The object of the lab's tc programs, `lab.bpf.o`.
    pub object: PathBuf,
    /// See there.
    pub source_check: SourceCheck,
    /// See there.
    pub neighbours: Neighbours,
    /// See there.
    pub member_macs: MemberMacs,
}

/// The VPC; clones are the same, and the last one to go takes it down.
#[derive(Debug, Clone)]
pub struct Fabric(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: FabricOptions,
    vpc: Namespace,
    outside: Namespace,
    netlink: Netlink,
    programs: Arc<BlockingMutex<Programs>>,
    state: Mutex<State>,
    nodes: BlockingMutex<BTreeMap<String, Node>>,
    _pins: [Pin; 2],
}

impl Fabric {
    /// Makes both namespaces, and the link between them.
    pub async fn create(options: FabricOptions) -> Result<Self> {
        let (vpc, vpc_pin) = Namespace::create(&options.lab.namespace("vpc")).await?;
        let (outside, outside_pin) = Namespace::create(&options.lab.namespace("outside")).await?;
        let object = options.object.clone();
        let programs = tokio::task::spawn_blocking(move || Programs::load(&object)).await??;
        let netlink = Netlink::open(&vpc).await?;
        vpc.run(configure_router).await??;
        let fabric = Self(Arc::new(Inner {
            options,
            vpc,
            outside,
            netlink,
            programs: Arc::new(BlockingMutex::new(programs)),
            state: Mutex::default(),
            nodes: BlockingMutex::default(),
            _pins: [vpc_pin, outside_pin],
        }));
        fabric.add_services().await?;
        fabric.connect_outside().await?;
        Ok(fabric)
    }

    /// Makes a node known by its name, so that ENIs can be plugged into it.
    pub fn add_node(&self, node: &Node) {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node.name().to_owned(), node.clone());
    }

    /// Forgets a node, whose ENIs are unplugged before.
    pub fn remove_node(&self, name: &str) {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.remove(name);
    }

    fn node(&self, name: &str) -> Result<Node> {
        let nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(name).cloned().with_context(|| format!("the fabric has no node {name}"))
    }

    /// The VPC's namespace, in which its services listen.
    pub fn vpc(&self) -> &Namespace {
        &self.0.vpc
    }

    /// The outside client's namespace.
    pub fn outside(&self) -> &Namespace {
        &self.0.outside
    }

    /// Everything that ports counted, of ENIs that are gone as well.
    pub async fn counters(&self) -> Result<BTreeMap<Sender, PortCounters>> {
        let senders = self.0.state.lock().await.senders();
        let programs = self.programs();
        let read = |(number, sender): (u32, Sender)| -> Result<(Sender, PortCounters)> {
            Ok((sender, PortCounters::sum(&programs.counters(number)?)))
        };
        senders.into_iter().map(read).collect()
    }

    /// What ports dropped, by ENI and cause.
    pub async fn drops(&self) -> Result<DropCounters> {
        Ok(DropCounters::of_ports(&self.counters().await?))
    }

    /// What ports dropped, with addresses.
    pub async fn drop_records(&self) -> Vec<DropRecord> {
        let senders: BTreeMap<_, _> = self.0.state.lock().await.senders().into_iter().collect();
        let dropped = self.programs().dropped();
        let record = |(key, value)| {
            let key: terway_lab_ebpf_common::DroppedKey = key;
            DropRecord::new(senders.get(&key.eni)?.clone(), &key, &value)
        };
        dropped.into_iter().filter_map(record).collect()
    }

    /// The ENI that owns an address, as the VPC routes it: how a service tells its clients apart.
    pub async fn owner_of(&self, address: IpAddr) -> Option<EniId> {
        self.0.state.lock().await.owner_of(address)
    }

    /// The ENIs that are plugged.
    pub async fn ports(&self) -> Vec<PortView> {
        self.0.state.lock().await.views()
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.0.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a job with the programs on a thread in the VPC's namespace.
    async fn with_programs<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Programs) -> T + Send + 'static,
    ) -> Result<T> {
        let programs = Arc::clone(&self.0.programs);
        self.0
            .vpc
            .run(move || job(&mut programs.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
    }

    /// Addresses of the VPC's own services, on its `lo`.
    async fn add_services(&self) -> Result<()> {
        let lo = self.0.netlink.index_of("lo").await?;
        self.0.netlink.set_up(lo).await?;
        for service in [METADATA, API] {
            let address = IpNetwork::from(IpAddr::V4(service));
            self.0.netlink.add_address(lo, address).await?;
            let owner = Owner { eni: SERVICES, trunk: NOBODY, vswitch: NOBODY };
            self.programs().set_owner(address, owner)?;
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let identities = [self.vpc.identity(), self.outside.identity()];
        let identities: Vec<_> = identities.into_iter().flatten().collect();
        kill_inhabitants(&identities, None);
    }
}

/// Sysctls of a router that asks for nothing and says nothing of its own.
fn configure_router() -> Result<()> {
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // The ports' programs answer.
        ("ipv4/conf/all/arp_ignore", "8"),
        ("ipv4/conf/all/arp_announce", "2"),
        ("ipv6/conf/default/accept_ra", "0"),
        // A port gets the gateway's link-local address and no other.
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        // A probe that is told "unreachable" is told so each time.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ] {
        let file = format!("/proc/sys/net/{path}");
        match fs::write(&file, value) {
            // The one key that comes with a module; groups work without it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("cannot write {file}"))?,
        }
    }
    Ok(())
}

/// The gateway's MAC as the model has it.
const GATEWAY: Mac = Mac::GATEWAY;

/// The gateway's link-local address.
fn gateway_link_local() -> Ipv6Addr {
    Ipv6Addr::from(terway_lab_ebpf_common::GATEWAY_LINK_LOCAL)
}

/// Number of the outside among senders.
const fn outside_sender() -> (u32, Sender) {
    (OUTSIDE, Sender::Outside)
}
