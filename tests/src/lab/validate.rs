//! Whether the witnesses agree: what a daemon says, what the kernel has, what the cloud has.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::time;

use super::Lab;
use super::leftovers::KernelState;

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

    /// On the node: pods that the daemon knows, work that waits, and whatever `ip` prints that it
    /// did not print before; in the cloud: member ENIs of this node, and records of such.
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

    /// Member ENIs of the node in the cloud that no pod has, ENIs that are nowhere, and addresses
    /// on which the daemon and the cloud disagree.
    pub async fn orphans(&self, node: &str) -> Result<Vec<String>> {
        let pods = self.terwayctl(node, "pods").await?;
        let used: BTreeSet<&str> = texts(&pods, "pods", "eni").collect();
        let enis = self.terwayctl(node, "enis").await?;
        let known: BTreeSet<&str> = texts(&enis, "enis", "id").collect();
        let mut orphans = Vec::new();
        for eni in self.ecs().dump().enis {
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

fn texts<'a>(list: &'a Value, key: &str, field: &'a str) -> impl Iterator<Item = &'a str> {
    let items = list.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(move |item| item.get(field)?.as_str())
}
