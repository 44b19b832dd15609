//! What the demo shows, as data: `--json` writes it, the tables print it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// The pods, by name.
    pub pods: Vec<PodFact>,
    /// Who reaches whom.
    pub reach: Vec<ReachFact>,
    /// The node whose kernel is shown.
    pub node: String,
    /// `ip rule` at 512 and 513 there.
    pub rules: Vec<String>,
    /// `tc filter` there.
    pub filters: Vec<FilterFact>,
    /// Frames dropped on nodes and in the VPC, by place and cause; those that are zero are absent.
    pub drops: BTreeMap<String, u64>,
    /// What was left after everything had been deleted.
    pub left: Vec<String>,
    /// What was not as it should be.
    pub wrong: Vec<String>,
}

/// A pod.
#[derive(Debug, Clone, Serialize)]
pub struct PodFact {
    /// Its node.
    pub node: String,
    /// Its name.
    pub name: String,
    /// `shared` or `trunk`.
    pub mode: String,
    /// Its IPv4 address.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
    /// The ENI that owns them.
    pub eni: String,
    /// VLAN id on the trunk; 0 for a shared pod.
    pub vlan: u32,
    /// Groups in force.
    pub security_groups: Vec<String>,
    /// ADD, from spawn to exit of the binary, milliseconds.
    pub add_milliseconds: f64,
}

/// One attempt to connect.
#[derive(Debug, Clone, Serialize)]
pub struct ReachFact {
    /// Who connects.
    pub from: String,
    /// To whom.
    pub to: String,
    /// At which address.
    pub address: IpAddr,
    /// Whether the connection came about.
    pub reached: bool,
    /// Why not: the groups that refused, as the VPC's kernel recorded it.
    pub refused_by: Vec<String>,
    /// Round trip of one byte, microseconds.
    pub microseconds: Option<u64>,
}

/// A tc filter as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FilterFact {
    /// The link.
    pub link: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `pref`.
    pub priority: u64,
    /// `handle`.
    pub handle: String,
    /// The program.
    pub program: String,
}
