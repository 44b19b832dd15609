//! The whole lab: wires, cloud, nodes and the daemons on them.

mod claim;
mod daemon;
mod document;
mod filters;
mod kernel;
pub mod leftovers;
mod pods;
pub mod settings;
mod validate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use model::InstanceId;
use tokio::net::TcpListener;

use crate::driver::staged;
use crate::ecs::{
    AccessKey, Ecs, Flow, InstanceSpec, Product, Protocol, Settings, VSwitchSpec, Verdict, VpcSpec,
};
use crate::fabric::{
    API, Fabric, FabricOptions, METADATA, MemberMacs, Neighbours, OUTSIDE_V4, OUTSIDE_V6,
    SourceCheck,
};
use crate::namespace::Namespace;
use crate::node::{LabName, Node, NodeOptions, V6Default};
use crate::reach::Endpoint;

pub use claim::Claim;
pub use daemon::Daemon;
pub use document::Document;
pub use filters::TcFilter;
pub use pods::{LabPod, PodRequest};
pub use settings::DaemonSettings;

/// Where the daemons of a lab write, in its directory.
const LOGS: &str = "log";

/// What a lab is to be.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// What its namespaces begin with.
    pub name: LabName,
    /// Its directory; made if missing.
    pub directory: PathBuf,
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// How the emulated cloud behaves.
    pub cloud: Settings,
    /// See there.
    pub neighbours: Neighbours,
    /// See there.
    pub member_macs: MemberMacs,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// A node to be made.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `node1`.
    pub name: String,
    /// Its instance type.
    pub kind: String,
    /// How it gets its IPv6 default route.
    pub v6_default: V6Default,
}

impl LabOptions {
    /// Two nodes `node1` and `node2` of type ecs.g7.4xlarge, the second with router
    /// advertisements.
    pub fn new(name: LabName, directory: PathBuf) -> Self {
        let node = |name: &str, v6_default| NodeSpec {
            name: name.to_owned(),
            kind: "ecs.g7.4xlarge".to_owned(),
            v6_default,
        };
        Self {
            name,
            directory,
            nodes: vec![node("node1", V6Default::Static), node("node2", V6Default::Advertised)],
            cloud: Settings::default(),
            neighbours: Neighbours::default(),
            member_macs: MemberMacs::default(),
            seed: 1,
        }
    }

    /// For a test: a directory of its own under /run, and as many nodes as it names.
    pub fn for_test(name: &str, nodes: usize) -> Result<Self> {
        let name: LabName = name.parse()?;
        let directory = Path::new("/run/terway-lab-tests").join(name.as_str());
        let mut options = Self::new(name, directory);
        options.nodes.truncate(nodes);
        Ok(options)
    }
}

/// A lab; taken away by [`Lab::down`], or on drop.
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    fabric: Fabric,
    ecs: Ecs,
    control: SocketAddr,
    host_api: SocketAddr,
    nodes: BTreeMap<String, LabNode>,
    /// The last to go.
    claim: Claim,
}

/// A node and its instance.
#[derive(Debug, Clone)]
pub struct LabNode {
    /// Its namespaces.
    pub node: Node,
    /// Its instance in the cloud.
    pub instance: InstanceId,
}

impl Lab {
    /// Makes it. What a lab of the same name left behind is removed before; one that is up is an
    /// error.
    pub async fn up(options: LabOptions) -> Result<Self> {
        let claim = Claim::take(&options.name)?;
        Self::sweep(&options.name, &options.directory, &claim)?;
        // They outlive a lab, to be read; the next one of that name begins its own.
        let logs = options.directory.join(LOGS);
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", logs.display()));
            }
            _ => {}
        }
        std::fs::create_dir_all(&options.directory)
            .with_context(|| format!("cannot make {}", options.directory.display()))?;
        let fabric = Fabric::create(FabricOptions {
            lab: options.name.clone(),
            object: staged("lab.bpf.o")?,
            source_check: SourceCheck::Always,
            neighbours: options.neighbours,
            member_macs: options.member_macs,
        })
        .await?;
        let (id, secret) = settings::ACCESS_KEY;
        let key = AccessKey { id: id.to_owned(), secret: secret.to_owned() };
        let wires = Arc::new(fabric.clone());
        let ecs = Ecs::start(options.cloud.clone(), options.seed, key, wires);
        furnish(&ecs).await?;
        let (control, host_api) = serve(&ecs, fabric.vpc()).await?;
        let mut lab =
            Self { options, fabric, ecs, control, host_api, nodes: BTreeMap::new(), claim };
        for spec in lab.options.nodes.clone() {
            lab.add_node(&spec).await?;
        }
        lab.write_document(&lab.document())?;
        Ok(lab)
    }

    /// Boots an instance and makes its node.
    pub async fn add_node(&mut self, spec: &NodeSpec) -> Result<()> {
        let node = Node::create(NodeOptions {
            lab: self.options.name.clone(),
            name: spec.name.clone(),
            directory: self.options.directory.clone(),
            v6_default: spec.v6_default,
        })
        .await?;
        self.fabric.add_node(&node);
        let instance = self
            .ecs
            .boot(&InstanceSpec {
                name: spec.name.clone(),
                kind: spec.kind.clone(),
                vswitch: settings::NODES.vswitch(),
                groups: vec![settings::group(settings::SG_NODES)],
                v6_addresses: 1,
                jumbo: false,
                ram_role: None,
            })
            .await?;
        self.nodes.insert(spec.name.clone(), LabNode { node, instance });
        Ok(())
    }

    /// Stops the cloud and removes everything but the logs.
    pub async fn down(self) -> Result<()> {
        self.ecs.stop().await;
        let Self { options, fabric, nodes, claim, .. } = self;
        drop(nodes);
        drop(fabric);
        Self::sweep(&options.name, &options.directory, &claim)
    }

    /// Removes what a lab of this name, whose process may be dead, has left, but its logs.
    pub fn sweep(name: &LabName, directory: &Path, _claim: &Claim) -> Result<()> {
        Document::remove(directory)?;
        crate::node::down(name, directory)
    }

    /// What it is.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The wires.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The cloud.
    pub fn ecs(&self) -> &Ecs {
        &self.ecs
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&LabNode> {
        self.nodes.get(name).with_context(|| {
            let names: Vec<_> = self.nodes.keys().map(String::as_str).collect();
            format!("the lab has no node {name}; it has {}", names.join(", "))
        })
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &LabNode> {
        self.nodes.values()
    }

    /// Where processes log.
    pub fn logs(&self) -> PathBuf {
        self.options.directory.join(LOGS)
    }
}

/// The VPC, its vSwitches and groups.
async fn furnish(ecs: &Ecs) -> Result<()> {
    let (v4, v6) = settings::vpc_blocks();
    let vpc = model::VpcId::new(settings::VPC);
    let spec = VpcSpec { id: vpc.clone(), v4, v6: Some(v6), address_quota: 60_000 };
    ecs.add_vpc(&spec)?;
    for subnet in settings::SUBNETS {
        let (v4, v6) = subnet.blocks();
        let zone = model::ZoneId::new(settings::ZONE);
        let id = subnet.vswitch();
        ecs.add_vswitch(&VSwitchSpec { id, vpc: vpc.clone(), zone, v4, v6: Some(v6) })?;
    }
    for name in [settings::SG_NODES, settings::SG_SHARED, settings::SG_WEB] {
        ecs.add_group(&settings::group(name), &vpc, true).await?;
    }
    let db = settings::group(settings::SG_DB);
    ecs.add_group(&db, &vpc, false).await?;
    for peer in [settings::SG_NODES, settings::SG_SHARED] {
        ecs.admit(&db, &settings::group(peer)).await?;
    }
    Ok(())
}

/// The API and the metadata service inside of the VPC; the API and the lab's control on the host.
async fn serve(ecs: &Ecs, vpc: &Namespace) -> Result<(SocketAddr, SocketAddr)> {
    ecs.serve_api(listen_in(vpc, API, 80).await?, Product::Ecs);
    ecs.serve_api(listen_in(vpc, API, 81).await?, Product::Vpc);
    ecs.serve_metadata(listen_in(vpc, METADATA, 80).await?, ecs.identity_by_address());
    let host_api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addresses = (control.local_addr()?, host_api.local_addr()?);
    ecs.serve_api(host_api, Product::Ecs);
    ecs.serve_control(control);
    Ok(addresses)
}

async fn listen_in(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    let listener = namespace.run(move || std::net::TcpListener::bind((address, port))).await??;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

impl Lab {
    /// The client outside, as somebody who reaches and is reached.
    pub fn outside(&self) -> Endpoint {
        Endpoint {
            name: "outside".to_owned(),
            place: self.fabric.outside().clone(),
            addresses: vec![OUTSIDE_V4.into(), OUTSIDE_V6.into()],
        }
    }

    /// The group whose rules, as the cloud has them, refuse a TCP connection between addresses;
    /// `None` if it is accepted.
    pub fn refusal(&self, from: IpAddr, to: IpAddr, port: u16) -> Option<String> {
        let flow = Flow { protocol: Protocol::Tcp, source_port: 40_000, port };
        match self.ecs.verdict(from, to, flow) {
            Verdict::Accepted => None,
            Verdict::Refused { group, .. } => Some(group.to_string()),
        }
    }
}
