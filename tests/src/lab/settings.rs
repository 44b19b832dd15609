//! What the lab's VPC holds, and the configuration of the daemons in it.

use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{IpStack, SecurityGroupId, VSwitchId};
use serde_json::{Map, Value, json};

/// The region.
pub const REGION: &str = "cn-hangzhou";
/// The one zone.
pub const ZONE: &str = "cn-hangzhou-h";
/// The VPC.
pub const VPC: &str = "vpc-lab";
/// What signs the daemons' requests.
pub const ACCESS_KEY: (&str, &str) = ("LTAI5tLabLabLabLabLabLab", "lab-secret-of-30-characters-00");

/// A vSwitch of the lab.
#[derive(Debug, Clone, Copy)]
pub struct Subnet {
    /// Its id.
    pub id: &'static str,
    /// Number in the VPC's blocks: `10.0.N.0` and `2001:db8:0:N::/64`.
    pub number: u8,
    /// Prefix length of the IPv4 block.
    pub prefix: u8,
}

/// Where the instances' primary ENIs are.
pub const NODES: Subnet = Subnet { id: "vsw-nodes", number: 0, prefix: 24 };
/// Where the shared ENIs and trunks are.
pub const SHARED: Subnet = Subnet { id: "vsw-shared", number: 1, prefix: 24 };
/// Of the PodNetworking `web`.
pub const WEB: Subnet = Subnet { id: "vsw-web", number: 2, prefix: 24 };
/// Of the PodNetworking `db`.
pub const DB: Subnet = Subnet { id: "vsw-db", number: 3, prefix: 24 };
/// Of the tests that use a vSwitch up: four addresses.
pub const TINY: Subnet = Subnet { id: "vsw-tiny", number: 4, prefix: 29 };
/// All of them.
pub const SUBNETS: [Subnet; 5] = [NODES, SHARED, WEB, DB, TINY];

/// The group of instances: open.
pub const SG_NODES: &str = "sg-nodes";
/// The group of shared ENIs: open.
pub const SG_SHARED: &str = "sg-shared";
/// The group of the PodNetworking `web`: open.
pub const SG_WEB: &str = "sg-web";
/// The group of the PodNetworking `db`.
pub const SG_DB: &str = "sg-db";

/// The VPC's blocks.
pub fn vpc_blocks() -> (Ipv4Network, Ipv6Network) {
    (parse("10.0.0.0/16"), parse("2001:db8::/48"))
}

impl Subnet {
    /// Its blocks.
    pub fn blocks(self) -> (Ipv4Network, Ipv6Network) {
        let Self { number, prefix, .. } = self;
        (parse(&format!("10.0.{number}.0/{prefix}")), parse(&format!("2001:db8:0:{number}::/64")))
    }

    /// Its id.
    pub fn vswitch(self) -> VSwitchId {
        VSwitchId::new(self.id)
    }
}

/// A group by its name here.
pub fn group(name: &str) -> SecurityGroupId {
    SecurityGroupId::new(name)
}

/// What a daemon is told.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// `ip_stack`.
    pub stack: IpStack,
    /// `enable_eni_trunking`.
    pub trunking: bool,
    /// `member_mac`.
    pub own_member_macs: bool,
    /// Keys of `eni_conf` that replace or join those above.
    pub more: Map<String, Value>,
    /// Environment of the process, for fail points.
    pub environment: Vec<(String, String)>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            stack: IpStack::Dual,
            trunking: true,
            own_member_macs: false,
            more: Map::new(),
            environment: Vec::new(),
        }
    }
}

impl DaemonSettings {
    /// `eni_conf`.
    pub fn eni_conf(&self) -> Value {
        let mut conf = json!({
            "version": "1",
            "access_key": ACCESS_KEY.0,
            "access_secret": ACCESS_KEY.1,
            "service_cidr": "172.16.0.0/16",
            "vswitches": { ZONE: [SHARED.id] },
            "security_groups": [SG_SHARED],
            "ip_stack": self.stack.to_string(),
            "enable_eni_trunking": self.trunking,
            "member_mac": if self.own_member_macs { "own" } else { "trunk" },
            "min_pool_size": 4,
            "max_pool_size": 10,
        });
        if let Some(conf) = conf.as_object_mut() {
            conf.extend(self.more.clone());
        }
        conf
    }
}

/// A PodNetworking as its file says.
pub fn pod_networking(name: &str, subnet: Subnet, group: &str) -> String {
    format!(
        "apiVersion: network.alibabacloud.com/v1beta1
kind: PodNetworking
metadata:
  name: {name}
spec:
  allocationType:
    type: Elastic
  eniOptions:
    eniType: Trunk
  selector:
    podSelector:
      matchLabels:
        app: {name}
  securityGroupIDs:
    - {group}
  vSwitchOptions:
    - {}
",
        subnet.id
    )
}

fn parse<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("the lab's blocks are well-formed")
}
