//! Whether the witnesses agree: what a daemon says, what the kernel has, what the cloud has.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use ipnetwork::IpNetwork;
use serde_json::Value;
use tokio::time;

use super::leftovers::KernelState;
use super::{Lab, kernel};
use crate::ecs::EniDump;

/// How long members may take to be detached and deleted, and links to be reaped.
const SETTLE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

impl Lab {
    /// Waits until a node without pods is as it was `before` (with its ENIs up and no pod ever
    /// added); what still differs after a while, a line each.
    pub async fn settle(&self, node: &str, before: &KernelState) -> Result<Vec<String>> {
        let settled = async {
            loop {
                let left = self.left(node, before).await?;
                if left.is_empty() {
                    return anyhow::Ok(left);
                }
                time::sleep(LOOK).await;
            }
        };
        match time::timeout(SETTLE, settled).await {
            Ok(left) => left,
            Err(_late) => self.left(node, before).await,
        }
    }

    /// On the node: pods that the daemon knows, work that waits, tombstones of addresses that do not
    /// rest, and what of the kernel's state differs from that `before`; in the cloud: member ENIs
    /// of this node, records of such, and addresses on which the daemon and the cloud disagree.
    pub async fn left(&self, node: &str, before: &KernelState) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let pods = self.terwayctl(node, "pods").await?;
        let pods = pods.get("pods").and_then(Value::as_array).map_or(0, Vec::len);
        let status = self.terwayctl(node, "status").await?;
        let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or_default();
        for (what, count) in [
            ("pods", u64::try_from(pods)?),
            ("links for the reaper", number("reaper_queue")),
            ("requests in the DEL queue", number("del_queue")),
        ] {
            if count != 0 {
                left.push(format!("{node}: {count} {what}"));
            }
        }
        let difference = self.kernel_state(node).await?.difference(before);
        left.extend(difference.into_iter().map(|line| format!("{node}: {line}")));
        left.extend(self.forgotten_tombstones(node).await?);
        left.extend(self.orphans(node).await?);
        left.extend(self.recorded_members(node).await?);
        Ok(left)
    }

    /// Member ENIs that the daemon has a record of: their lives are not at their end.
    async fn recorded_members(&self, node: &str) -> Result<Vec<String>> {
        let enis = self.terwayctl(node, "enis").await?;
        let enis = enis.get("enis").and_then(Value::as_array).into_iter().flatten();
        let members = enis.filter_map(|eni| eni.get("members")?.as_array()).flatten();
        let text = |member: &Value, key| {
            member.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let line =
            |member| format!("{node}: member {} is {}", text(member, "id"), text(member, "phase"));
        Ok(members.map(line).collect())
    }

    /// Tombstones of addresses that the daemon gives to pods again: the next pod could not send. (Those
    /// of a member that is gone rest, too, and no ENI lists them.)
    async fn forgotten_tombstones(&self, node: &str) -> Result<Vec<String>> {
        // In this order: what is buried meanwhile is not found.
        let enis = self.terwayctl(node, "enis").await?;
        let standing = kernel::tombstones(&self.node(node)?.node).await?;
        let idle: BTreeSet<_> = list(&enis, "enis").flat_map(idle).collect();
        let forgotten = standing.intersection(&idle);
        Ok(forgotten.map(|address| format!("{node}: a tombstone of {address} is left")).collect())
    }

    /// Member ENIs of the node in the cloud that no pod has, ENIs that are nowhere, and addresses
    /// on which the daemon and the cloud disagree.
    pub async fn orphans(&self, node: &str) -> Result<Vec<String>> {
        let pods = self.terwayctl(node, "pods").await?;
        let used: BTreeSet<&str> = texts(&pods, "pods", "eni").collect();
        let enis = self.terwayctl(node, "enis").await?;
        let known: BTreeSet<&str> = texts(&enis, "enis", "id").collect();
        let mut orphans = Vec::new();
        let dump = self.ecs().dump();
        for eni in list(&enis, "enis") {
            orphans.extend(disagreements(eni, &dump.enis));
        }
        for eni in dump.enis {
            let id = eni.id.as_str();
            let here = eni.instance_name.as_deref() == Some(node);
            let orphan = match eni.kind.as_str() {
                "Primary" => false,
                "Member" => here && !used.contains(id),
                _ if eni.instance_name.is_none() => true,
                _ => here && !known.contains(id),
            };
            if orphan {
                orphans.push(format!("cloud: {} {id} is {} and nobody's", eni.kind, eni.status));
            }
        }
        Ok(orphans)
    }
}

/// Addresses that only one side has, of an ENI as the daemon shows it. What it is giving back may be
/// in the cloud or not.
fn disagreements(eni: &Value, cloud: &[EniDump]) -> Vec<String> {
    let id = eni.get("id").and_then(Value::as_str).unwrap_or_default();
    let Some(there) = cloud.iter().find(|there| there.id == id) else {
        return vec![format!("cloud: no {id}, which the daemon has")];
    };
    let given = there.v4.iter().copied().map(IpAddr::from);
    let given: BTreeSet<_> = given.chain(there.v6.iter().copied().map(IpAddr::from)).collect();
    let (mut certain, mut possible) = (BTreeSet::new(), BTreeSet::new());
    for slot in list(eni, "addresses") {
        match slot.get("state").and_then(Value::as_str) {
            Some("releasing") => possible.extend(addresses(slot)),
            // The daemon itself says that the cloud has not got it.
            Some("invalid") => {}
            _ => certain.extend(addresses(slot)),
        }
    }
    let delegated = |address: &&IpAddr| {
        let v4 = there.v4_prefixes.iter().copied().map(IpNetwork::V4);
        let v6 = there.v6_prefixes.iter().copied().map(IpNetwork::V6);
        v4.chain(v6).any(|prefix| prefix.contains(**address))
    };
    let lost = certain
        .difference(&given)
        .filter(|address| !delegated(address))
        .map(|address| format!("cloud: {id} has no {address}, which the daemon has"));
    let strange =
        given.iter().filter(|address| !certain.contains(address) && !possible.contains(address));
    let strange =
        strange.map(|address| format!("cloud: {id} has {address}, which the daemon has not"));
    lost.chain(strange).collect()
}

/// The addresses of an ENI that the next pod may get.
fn idle(eni: &Value) -> BTreeSet<IpAddr> {
    let is_idle = |slot: &&Value| {
        slot.get("state").and_then(Value::as_str).is_some_and(|state| state == "idle")
    };
    list(eni, "addresses").filter(is_idle).flat_map(addresses).collect()
}

/// Of a slot; of a family that it has not, the text is empty.
fn addresses(holder: &Value) -> impl Iterator<Item = IpAddr> {
    let texts = ["ipv4", "ipv6"].into_iter().filter_map(|family| holder.get(family)?.as_str());
    texts.filter_map(|text| text.parse().ok())
}

fn list<'a>(shown: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    shown.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn texts<'a>(shown: &'a Value, key: &str, field: &'a str) -> impl Iterator<Item = &'a str> {
    list(shown, key).filter_map(move |item| item.get(field)?.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn in_cloud(v4: &[&str]) -> EniDump {
        EniDump {
            id: "eni-a".to_owned(),
            kind: "Trunk".to_owned(),
            status: "InUse".to_owned(),
            mac: "00:16:3e:00:00:01".to_owned(),
            vswitch: "vsw-a".to_owned(),
            zone: "zone".to_owned(),
            instance: None,
            instance_name: None,
            trunk: None,
            vlan: None,
            v4: v4.iter().map(|address| address.parse().unwrap()).collect(),
            v6: vec!["2001:db8::1".parse().unwrap()],
            v4_prefixes: Vec::new(),
            v6_prefixes: Vec::new(),
            groups: Vec::new(),
            tags: BTreeMap::default(),
            delete_on_release: false,
            source_dest_check: false,
            created: jiff::Timestamp::UNIX_EPOCH,
            busy: false,
        }
    }

    fn shown() -> Value {
        json!({ "id": "eni-a", "addresses": [
            { "ipv4": "10.0.1.1", "ipv6": "2001:db8::1", "state": "used" },
            { "ipv4": "10.0.1.2", "ipv6": "", "state": "resting" },
            { "ipv4": "10.0.1.3", "ipv6": "", "state": "releasing" },
            { "ipv4": "10.0.1.4", "ipv6": "", "state": "invalid" },
        ]})
    }

    #[test]
    fn an_address_that_one_side_has_alone_is_told() {
        let told = |v4: &[&str]| disagreements(&shown(), &[in_cloud(v4)]);
        assert_eq!(told(&["10.0.1.1", "10.0.1.2"]), [""; 0]);
        assert_eq!(told(&["10.0.1.1", "10.0.1.2", "10.0.1.3"]), [""; 0]);
        assert_eq!(told(&["10.0.1.1"]), ["cloud: eni-a has no 10.0.1.2, which the daemon has"]);
        for strange in ["10.0.1.4", "10.0.1.5"] {
            let expected = format!("cloud: eni-a has {strange}, which the daemon has not");
            assert_eq!(told(&["10.0.1.1", "10.0.1.2", strange]), [expected]);
        }
        // An address of a delegated prefix is none of its own.
        let prefix = EniDump {
            v4_prefixes: vec!["10.0.1.0/28".parse().unwrap()],
            ..in_cloud(&["10.0.1.1"])
        };
        assert_eq!(disagreements(&shown(), &[prefix]), [""; 0]);
        assert_eq!(disagreements(&shown(), &[]), ["cloud: no eni-a, which the daemon has"]);
    }

    #[test]
    fn only_what_the_next_pod_may_get_is_idle() {
        let mut shown = shown();
        assert_eq!(idle(&shown), BTreeSet::new());
        shown["addresses"][1]["state"] = json!("idle");
        assert_eq!(idle(&shown), BTreeSet::from(["10.0.1.2".parse().unwrap()]));
    }
}
