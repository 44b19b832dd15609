//! A small VPC for a test: two nodes in one vSwitch, and ENIs to plug into them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use model::{EniId, Mac, SecurityGroupId, VSwitchId, VlanId};
use serde_json::Value;
use tempfile::TempDir;
use terway_lab::driver::staged;
use terway_lab::ecs::{Fabric as _, PluggedEni, PluggedKind};
use terway_lab::fabric::{Fabric, FabricOptions, MemberMacs, Neighbours, SourceCheck};
use terway_lab::namespace::Namespace;
use terway_lab::node::{LabName, Node, NodeOptions, V6Default};

/// Enough for a machine on which others work too.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Two nodes with their primary ENIs: 10.0.0.11 and 10.0.0.12, `fd00::b` and `fd00::c`.
#[derive(Debug)]
pub(crate) struct Vpc {
    pub(crate) fabric: Fabric,
    pub(crate) node1: Node,
    pub(crate) node2: Node,
    pub(crate) directory: TempDir,
    pub(crate) lab: LabName,
}

static LABS: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses.
pub(crate) fn lab_name() -> Result<LabName> {
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    format!("f{}x{number}", std::process::id()).parse()
}

/// The real VPC's behaviour.
pub(crate) fn options() -> Result<FabricOptions> {
    Ok(FabricOptions {
        lab: lab_name()?,
        object: staged("lab.bpf.o")?,
        source_check: SourceCheck::Always,
        neighbours: Neighbours::Known,
        member_macs: MemberMacs::Trunk,
    })
}

impl Vpc {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(options()?).await
    }

    pub(crate) async fn with(options: FabricOptions) -> Result<Self> {
        Self::with_primaries(options, |eni| eni).await
    }

    /// The primary ENIs as `change` makes them.
    pub(crate) async fn with_primaries(
        options: FabricOptions,
        change: impl Fn(PluggedEni) -> PluggedEni,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let lab = options.lab.clone();
        let fabric = Fabric::create(options).await?;
        let node1 = node(&lab, &directory, "node1", V6Default::Static).await?;
        let node2 = node(&lab, &directory, "node2", V6Default::Advertised).await?;
        for (node, last) in [(&node1, 11), (&node2, 12)] {
            fabric.add_node(node);
            fabric.plug(&change(primary(node.name(), last))).await?;
        }
        Ok(Self { fabric, node1, node2, directory, lab })
    }

    /// Plugs a trunk into `node1` as `eth1`: 10.0.1.10.
    pub(crate) async fn plug_trunk(&self) -> Result<PluggedEni> {
        let trunk = eni("eni-trunk", PluggedKind::Trunk, 1, 10);
        self.fabric.plug(&trunk).await?;
        self.set_up(&self.node1, "eth1").await?;
        Ok(trunk)
    }

    /// Plugs a member of that trunk: 10.0.2.`last`, in a vSwitch of its own.
    pub(crate) async fn plug_member(&self, vid: u32, last: u8) -> Result<PluggedEni> {
        let kind = PluggedKind::Member { trunk: EniId::new("eni-trunk"), vlan: vlan(vid)? };
        let member = eni(&format!("eni-member{vid}"), kind, 2, last);
        self.fabric.plug(&member).await?;
        Ok(member)
    }

    pub(crate) async fn set_up(&self, node: &Node, link: &str) -> Result<()> {
        run(node, &["ip", "link", "set", link, "up"]).await.map(drop)
    }

    /// `ip -j` in the VPC.
    pub(crate) async fn ip(&self, arguments: &[&str]) -> Result<Value> {
        let path = self.lab.namespace("vpc");
        let mut command = tokio::process::Command::new("ip");
        let name = path.file_name().context("a namespace has a name")?;
        let output = command.arg("-n").arg(name).arg("-j").args(arguments).output().await?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }
}

pub(crate) async fn node(
    lab: &LabName,
    directory: &TempDir,
    name: &str,
    v6_default: V6Default,
) -> Result<Node> {
    let (lab, directory) = (lab.clone(), directory.path().to_owned());
    Node::create(NodeOptions { lab, name: name.to_owned(), directory, v6_default }).await
}

/// What `command` prints on a node; an error if it fails.
pub(crate) async fn run(node: &Node, command: &[&str]) -> Result<String> {
    let (program, arguments) = command.split_first().context("a command has a name")?;
    let output = node.command(program).args(arguments).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} on {}: {text}{errors}", node.name());
    Ok(text)
}

/// `ip -j` on a node.
pub(crate) async fn ip(node: &Node, arguments: &[&str]) -> Result<Value> {
    let command: Vec<_> = ["ip", "-j"].into_iter().chain(arguments.iter().copied()).collect();
    Ok(serde_json::from_str(&run(node, &command).await?)?)
}

pub(crate) fn vlan(id: u32) -> Result<VlanId> {
    Ok(VlanId::try_from(id)?)
}

pub(crate) fn group_ids(ids: &[&str]) -> Vec<SecurityGroupId> {
    ids.iter().copied().map(SecurityGroupId::new).collect()
}

pub(crate) fn primary(node: &str, last: u8) -> PluggedEni {
    let mut eni = eni(&format!("eni-{node}"), PluggedKind::Primary, 0, last);
    node.clone_into(&mut eni.instance);
    eni
}

/// An ENI of `node1` with the addresses 10.0.`vswitch`.`last` and `fd00:0:0:<vswitch>::<last>`,
/// and a MAC of the same numbers.
pub(crate) fn eni(id: &str, kind: PluggedKind, vswitch: u8, last: u8) -> PluggedEni {
    let v4 = Ipv4Addr::new(10, 0, vswitch, last);
    let v6 = v6(vswitch, last.into());
    PluggedEni {
        id: EniId::new(id),
        instance: "node1".to_owned(),
        kind,
        mac: Mac::new([0, 0x16, 0x3e, 0, vswitch, last]),
        primary: v4,
        addresses: vec![host(v4), host(v6)],
        vswitch: VSwitchId::new(format!("vsw-{vswitch}")),
        v4_block: format!("10.0.{vswitch}.0/24").parse().expect("it is a block"),
        v6_block: Some(format!("fd00:0:0:{vswitch}::/64").parse().expect("it is a block")),
        mtu: 1500,
        groups: Vec::new(),
        source_dest_check: true,
    }
}

pub(crate) fn v6(vswitch: u8, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, vswitch.into(), 0, 0, 0, last)
}

pub(crate) fn host(address: impl Into<IpAddr>) -> IpNetwork {
    IpNetwork::from(address.into())
}

pub(crate) fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// A socket for datagrams that shows what arrives in which order.
pub(crate) async fn listen(
    place: &Namespace,
    address: SocketAddr,
) -> Result<tokio::net::UdpSocket> {
    let bound = place.run(move || -> std::io::Result<tokio::net::UdpSocket> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    });
    bound.await?.with_context(|| format!("cannot listen on {address}"))
}

/// The next datagram and who sent it.
pub(crate) async fn next(socket: &tokio::net::UdpSocket) -> Result<(String, SocketAddr)> {
    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(LIMIT, socket.recv_from(&mut buffer)).await;
    let (length, from) = received.context("no datagram arrived")??;
    Ok((String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned(), from))
}
