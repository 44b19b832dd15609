//! Network namespaces of pods, as containerd makes them: pinned under the node's own `/run/netns`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::namespace::{self, Namespace, Pin};

use super::Node;

/// A pod's network namespace; taken away on drop.
#[derive(Debug)]
pub struct PodNs {
    node: Node,
    namespace: Namespace,
    path: PathBuf,
}

impl PodNs {
    /// Where it is pinned, as seen on the node: what `CNI_NETNS` says.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace, for sockets in it.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Node {
    /// Makes a namespace `/run/netns/<name>` on the node, without any link but `lo`, down.
    pub async fn pod(&self, name: &str) -> Result<PodNs> {
        let path = Path::new(namespace::DIRECTORY).join(name);
        let target = path.clone();
        let made = self.run(move || {
            namespace::leave_network()?;
            // It outlives this job: `PodNs` takes it away.
            let pin = std::mem::ManuallyDrop::new(Pin::new(&target)?);
            Namespace::open(pin.path())
        });
        let namespace = made.await?.with_context(|| format!("cannot make the pod {name}"))?;
        Ok(PodNs { node: self.clone(), namespace, path })
    }

    /// A namespace that somebody else made on the node, by its path there.
    pub async fn open_namespace(&self, path: &Path) -> Result<Namespace> {
        let path = path.to_owned();
        self.run(move || Namespace::open(&path)).await?
    }
}

impl Drop for PodNs {
    fn drop(&mut self) {
        let path = self.path.clone();
        // If the node's thread is gone, so are its mounts.
        let _gone = self.node.resident().run_blocking(move || namespace::unpin(&path));
    }
}
