//! `lab.json`: the stable interface for scripts. Paths of a node are as seen inside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Lab, settings};

/// Its name in the lab's directory.
pub(super) const FILE: &str = "lab.json";

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The lab's name.
    pub name: String,
    /// URL of the control API, on the host.
    pub control: String,
    /// The emulated API.
    pub ecs: Ecs,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The VPC.
    pub vpc: Place,
    /// The client outside.
    pub outside: Place,
    /// Process that holds the lab; ends on SIGTERM and takes it away.
    pub pid: u32,
    /// URL of that process: pods, reach. Absent where a test or the demo holds the lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lab: Option<String>,
}

/// The emulated API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecs {
    /// On the host.
    pub endpoint: String,
    /// ECS, from a node.
    pub node_endpoint: String,
    /// VPC, from a node.
    pub vpc_endpoint: String,
    /// `RegionId`.
    pub region: String,
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// `AccessKeySecret`.
    pub access_key_secret: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its network namespace on the host.
    pub netns: PathBuf,
    /// For `nsenter -t PID -n -m`.
    pub pid: i32,
    /// Its instance.
    pub instance_id: String,
    /// Where CNI binaries are.
    pub cni_bin: PathBuf,
    /// Where CNI configurations are.
    pub cni_conf: PathBuf,
    /// See there.
    pub agent_socket: PathBuf,
    /// See there.
    pub debug_socket: PathBuf,
    /// The daemon's state.
    pub state: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// Where the node's own paths lie on the host.
    pub root: PathBuf,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its path on the host.
    pub netns: PathBuf,
}

impl Document {
    /// Reads the document of the lab in `directory`.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "no lab in {} (cannot read {FILE}): `terway-lab up` makes one",
                directory.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is torn", path.display()))
    }

    /// As [`Document::read`], and the process that holds the lab is alive.
    pub fn of_live(directory: &Path) -> Result<Self> {
        let document = Self::read(directory)?;
        anyhow::ensure!(
            document.is_live(),
            "the lab in {} is dead (its process {} has ended): `terway-lab down` removes what it left",
            directory.display(),
            document.pid
        );
        Ok(document)
    }

    /// Whether the process that holds the lab is alive. Its nodes are threads of it: another
    /// process that got its number has none of those.
    pub fn is_live(&self) -> bool {
        let process = PathBuf::from(format!("/proc/{}/task", self.pid));
        process.exists()
            && self.nodes.iter().all(|node| process.join(node.pid.to_string()).exists())
    }

    /// The lab in `directory` is no more.
    pub(super) fn remove(directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| {
            let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("the lab has no node {name}; it has {}", names.join(", "))
        })
    }
}

impl Lab {
    /// The document as of now.
    pub fn document(&self) -> Document {
        let api = crate::fabric::API;
        let name = &self.options.name;
        Document {
            name: name.to_string(),
            control: format!("http://{}", self.control),
            ecs: Ecs {
                endpoint: format!("http://{}", self.host_api),
                node_endpoint: format!("http://{api}"),
                vpc_endpoint: format!("http://{api}:81"),
                region: settings::REGION.to_owned(),
                access_key_id: settings::ACCESS_KEY.0.to_owned(),
                access_key_secret: settings::ACCESS_KEY.1.to_owned(),
            },
            nodes: self.nodes().map(node).collect(),
            vpc: Place { netns: name.namespace("vpc") },
            outside: Place { netns: name.namespace("outside") },
            pid: std::process::id(),
            lab: None,
        }
    }

    /// Writes it into the lab's directory, by rename.
    pub fn write_document(&self, document: &Document) -> Result<()> {
        let path = self.options.directory.join(FILE);
        let aside = path.with_extension("tmp");
        std::fs::write(&aside, serde_json::to_string_pretty(document)?)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        std::fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn node(node: &super::LabNode) -> Node {
    Node {
        name: node.node.name().to_owned(),
        netns: node.node.netns_path().to_owned(),
        pid: node.node.pid(),
        instance_id: node.instance.to_string(),
        cni_bin: "/opt/cni/bin".into(),
        cni_conf: "/etc/cni/net.d".into(),
        agent_socket: "/run/terway/agent.sock".into(),
        debug_socket: "/run/terway/debug.sock".into(),
        state: "/var/lib/terway".into(),
        containerd: "/run/containerd/containerd.sock".into(),
        root: node.node.host_path("/"),
    }
}
