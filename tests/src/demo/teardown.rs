//! Deletes everything, and looks whether anything is left.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde_json::Value;
use tokio::time;

use crate::lab::leftovers::KernelState;
use crate::lab::{Daemon, Lab, LabPod};

/// How long members may take to be detached and deleted, and links to be reaped.
const SETTLE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// The nodes with their ENIs up and no pod.
pub(super) struct Before(BTreeMap<String, KernelState>);

impl Before {
    pub(super) async fn read(lab: &Lab, nodes: &[String]) -> Result<Self> {
        let read = nodes
            .iter()
            .map(|node| async move { anyhow::Ok((node.clone(), lab.kernel_state(node).await?)) });
        Ok(Self(try_join_all(read).await?.into_iter().collect()))
    }
}

/// DEL of all pods; what is left then, a line each.
pub(super) async fn delete(
    lab: &Lab,
    nodes: &[String],
    pods: Vec<LabPod>,
    before: &Before,
) -> Result<Vec<String>> {
    try_join_all(pods.into_iter().map(|pod| lab.del_pod(pod))).await?;
    let settled = async {
        loop {
            let left = left(lab, nodes, before).await?;
            if left.is_empty() {
                return anyhow::Ok(left);
            }
            time::sleep(LOOK).await;
        }
    };
    match time::timeout(SETTLE, settled).await {
        Ok(left) => left,
        Err(_late) => left(lab, nodes, before).await,
    }
}

/// On nodes: pods that the daemon knows, links that wait for the reaper, and whatever `ip`
/// prints that it did not print before; in the cloud: member ENIs.
async fn left(lab: &Lab, nodes: &[String], before: &Before) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for node in nodes {
        let pods = lab.terwayctl(node, "pods").await?;
        let pods = pods.get("pods").and_then(Value::as_array).map_or(0, Vec::len);
        let status = lab.terwayctl(node, "status").await?;
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
        let was = before.0.get(node).context("each node was read before")?;
        let difference = lab.kernel_state(node).await?.difference(was);
        left.extend(difference.into_iter().map(|line| format!("{node}: {line}")));
    }
    let dump = lab.ecs().dump();
    let members = dump.enis.iter().filter(|eni| eni.kind == "Member" || eni.status != "InUse");
    left.extend(members.map(|eni| format!("cloud: {} {} {}", eni.kind, eni.id, eni.status)));
    Ok(left)
}

/// Stops the daemons and takes the lab down; what is left on the machine then.
pub(super) async fn leave(lab: Lab, daemons: Vec<Daemon>) -> Result<Vec<String>> {
    try_join_all(daemons.into_iter().map(Daemon::stop)).await?;
    let options = lab.options().clone();
    lab.down().await?;
    let prefix = format!("{}-", options.name);
    let names = std::fs::read_dir(crate::namespace::DIRECTORY)?;
    let names =
        names.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let left = names.filter(|name| name.starts_with(&prefix));
    Ok(left.map(|name| format!("network namespace {name}")).collect())
}
