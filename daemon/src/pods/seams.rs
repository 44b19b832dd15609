//! What a sandbox's life needs of the pool, the kernel and the disk: small enough that a test can
//! stand in for each, and stop time between any two effects.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{EniId, LinkIndex, SandboxKey};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use tokio::sync::watch;

use crate::checkpoint::{Change, Checkpoint, CheckpointError};
use crate::datapath::{Datapath, DatapathError, Pod, PodLink, PodSpec};
use crate::ipam::{AllocError, Allocation, Carrier, Ipam, Request, Want};
use crate::netns::is_the_nodes;
use crate::standalone::PodNetworkings;

/// The pool.
pub trait Addresses: Debug + Send + Sync {
    /// As [`PodNetworkings::want`].
    fn want(&self, annotations: &BTreeMap<String, String>) -> Result<Want, AllocError>;
    /// As [`Ipam::allocate`].
    fn allocate(
        &self,
        request: Request,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Allocation, AllocError>>;
    /// As [`Ipam::confirm`].
    fn confirm<'a>(
        &'a self,
        key: &'a SandboxKey,
        wait: Duration,
    ) -> BoxFuture<'a, Result<(), AllocError>>;
    /// Why the sandbox's pod is cut off, as far as the pool knows.
    fn cut_off(&self, key: &SandboxKey) -> Option<String>;
    /// As [`Ipam::release`]: the record goes with it.
    fn release<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), AllocError>>;
    /// As [`Ipam::link_gone`].
    fn link_gone(&self, eni: &EniId);
    /// The link of an ENI.
    fn carrier(&self, eni: &EniId) -> Option<Carrier>;
}

/// The kernel.
pub trait Network: Debug + Send + Sync {
    /// As [`Datapath::plan_pod`].
    fn plan<'a>(&'a self, spec: &'a PodSpec) -> BoxFuture<'a, Result<PodLink, DatapathError>>;
    /// As [`Datapath::add_pod`].
    fn add(&self, pod: Pod) -> BoxFuture<'_, Result<PodLink, DatapathError>>;
    /// As [`Datapath::del_pod`].
    fn del<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), DatapathError>>;
    /// As [`Datapath::check_pod`].
    fn check<'a>(
        &'a self,
        key: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<Vec<String>, DatapathError>>;
    /// As [`Datapath::restore`].
    fn restore(&self, pods: Vec<Pod>) -> BoxFuture<'_, Result<(), DatapathError>>;
    /// What is at the path.
    fn namespace(&self, path: &Path) -> Namespace;
    /// Whether the node's end of the pair is there.
    fn stands(&self, link: &PodLink) -> bool;
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// A namespace.
    Present,
    /// The one that the daemon itself is in, or the host's.
    Own,
    /// Something else.
    Other,
    /// Nothing.
    Absent,
}

/// The disk.
pub trait Journal: Debug + Send + Sync {
    /// As [`Checkpoint::write`].
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), CheckpointError>>;
    /// As [`Checkpoint::note`].
    fn note(&self, changes: Vec<Change>);
}

/// The pool, and who gets what of it.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The pool.
    pub ipam: Ipam,
    /// Choose a pod's mode; as of the last reload.
    pub pod_networkings: watch::Receiver<PodNetworkings>,
}

impl Addresses for Pool {
    fn want(&self, annotations: &BTreeMap<String, String>) -> Result<Want, AllocError> {
        self.pod_networkings.borrow().want(annotations)
    }

    fn allocate(
        &self,
        request: Request,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Allocation, AllocError>> {
        self.ipam.allocate(request, wait).boxed()
    }

    fn confirm<'a>(
        &'a self,
        key: &'a SandboxKey,
        wait: Duration,
    ) -> BoxFuture<'a, Result<(), AllocError>> {
        self.ipam.confirm(key, wait).boxed()
    }

    fn cut_off(&self, key: &SandboxKey) -> Option<String> {
        self.ipam.standing().borrow().cut_off.get(key).cloned()
    }

    fn release<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), AllocError>> {
        self.ipam.release(key).boxed()
    }

    fn link_gone(&self, eni: &EniId) {
        self.ipam.link_gone(eni.clone());
    }

    fn carrier(&self, eni: &EniId) -> Option<Carrier> {
        self.ipam.standing().borrow().carriers.get(eni).cloned()
    }
}

impl Network for Datapath {
    fn plan<'a>(&'a self, spec: &'a PodSpec) -> BoxFuture<'a, Result<PodLink, DatapathError>> {
        self.plan_pod(spec).boxed()
    }

    fn add(&self, pod: Pod) -> BoxFuture<'_, Result<PodLink, DatapathError>> {
        self.add_pod(pod).boxed()
    }

    fn del<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), DatapathError>> {
        self.del_pod(pod).boxed()
    }

    fn check<'a>(
        &'a self,
        key: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<Vec<String>, DatapathError>> {
        self.check_pod(key).boxed()
    }

    fn restore(&self, pods: Vec<Pod>) -> BoxFuture<'_, Result<(), DatapathError>> {
        self.restore(pods).boxed()
    }

    fn namespace(&self, path: &Path) -> Namespace {
        namespace(path)
    }

    fn stands(&self, link: &PodLink) -> bool {
        let index = nix::net::if_::if_nametoindex(link.host.as_str()).ok();
        index.and_then(|index| LinkIndex::try_from(index).ok()) == Some(link.host_index)
    }
}

impl Journal for Checkpoint {
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), CheckpointError>> {
        self.write(changes).boxed()
    }

    fn note(&self, changes: Vec<Change>) {
        self.note(changes);
    }
}

fn namespace(path: &Path) -> Namespace {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Namespace::Absent;
        }
        // Who opens it says why it cannot be.
        Err(_) => return Namespace::Present,
    };
    if is_the_nodes(&found) {
        return Namespace::Own;
    }
    match statfs(path) {
        Ok(system) if system.filesystem_type() == NSFS_MAGIC => Namespace::Present,
        _ => Namespace::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_namespace_or_it_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(namespace(Path::new("/proc/self/ns/net")), Namespace::Own);
        let below_a_file = file.path().join("netns");
        assert_eq!(namespace(&below_a_file), Namespace::Absent);
        assert_eq!(namespace(Path::new("/proc/self/ns/mnt")), Namespace::Present);
        assert_eq!(namespace(file.path()), Namespace::Other);
        assert_eq!(namespace(Path::new("/nowhere/netns")), Namespace::Absent);
    }
}
