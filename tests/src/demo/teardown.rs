//! Deletes everything, and looks whether anything is left.

use std::collections::BTreeMap;

use anyhow::Result;
use futures::future::try_join_all;

use crate::lab::leftovers::KernelState;
use crate::lab::{Daemon, Lab, LabPod};

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
pub(super) async fn delete(lab: &Lab, pods: Vec<LabPod>, before: &Before) -> Result<Vec<String>> {
    try_join_all(pods.into_iter().map(|pod| lab.del_pod(pod))).await?;
    let left = try_join_all(before.0.iter().map(|(node, was)| lab.settle(node, was))).await?;
    Ok(left.into_iter().flatten().collect())
}

/// Stops the daemons and takes the lab down; what is left on the machine then.
pub(super) async fn leave(lab: Lab, daemons: Vec<Daemon>) -> Result<Vec<String>> {
    try_join_all(daemons.into_iter().map(Daemon::stop)).await?;
    let options = lab.options().clone();
    lab.down().await?;
    crate::node::traces(&options.name)
}
