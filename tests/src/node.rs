//! A node: a network namespace and a mount namespace in which the standard paths are its own, so
//! that binaries and manifests run as they would on an instance.

mod cgroup;
mod mounts;
mod pod;
mod primary;
mod process;
mod sweep;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::process::Command;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::namespace::{self, Namespace, Pin, Resident};
use crate::netlink::Netlink;

pub use pod::PodNs;
pub use process::Process;
pub use sweep::{down, traces};

pub(crate) use primary::Primary;
pub(crate) use sweep::kill_inhabitants;

/// Name of a lab: what its namespaces begin with. Labs of different names run side by side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LabName(String);

impl LabName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<lab>-<what>`, pinned under `/run/netns`.
    pub fn namespace(&self, what: &str) -> PathBuf {
        Path::new(namespace::DIRECTORY).join(format!("{self}-{what}"))
    }
}

impl FromStr for LabName {
    type Err = anyhow::Error;

    /// Without `-`, so that no lab's names begin with another's.
    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=10).contains(&text.len());
        let clean = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        anyhow::ensure!(
            fits && clean,
            "a lab's name is 1 to 10 lower-case letters and digits, and {text:?} is not"
        );
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a node learns its default route of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum V6Default {
    /// The operating system's configuration has it.
    #[default]
    Static,
    /// By router advertisements.
    Advertised,
}

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The lab it belongs to.
    pub lab: LabName,
    /// Its name, `node1`.
    pub name: String,
    /// The lab's directory, on the host; the node's files are in `nodes/<name>` there.
    pub directory: PathBuf,
    /// How `eth0` gets its default route of IPv6.
    pub v6_default: V6Default,
}

/// A node; clones are the same node, and the last one to go takes it down.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NodeOptions,
    root: PathBuf,
    namespace: Namespace,
    pin: Pin,
    resident: Resident,
    netlink: Netlink,
}

impl Node {
    /// Makes the namespaces; `lo` is up, and there is no other link yet.
    pub async fn create(options: NodeOptions) -> Result<Self> {
        let root = options.directory.join("nodes").join(&options.name);
        let path = options.lab.namespace(&options.name);
        let host_path = path.clone();
        let own_root = root.clone();
        let settle = move || {
            namespace::leave_network()?;
            plain_network()?;
            let pin = Pin::new(&host_path)?;
            namespace::leave_mounts()?;
            mounts::own(&own_root)?;
            Ok(pin)
        };
        let started = Resident::start(&options.name, settle).await;
        let (resident, pin) =
            started.with_context(|| format!("cannot make the node {}", options.name))?;
        cgroup::create(&options.lab, &options.name)?;
        let namespace = Namespace::open(&path)?;
        let netlink = Netlink::open(&namespace).await?;
        netlink.set_up(netlink.index_of("lo").await?).await?;
        Ok(Self(Arc::new(Inner { options, root, namespace, pin, resident, netlink })))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// What `nsenter -t … -n -m` takes. It is a thread of the lab's process.
    pub fn pid(&self) -> i32 {
        self.0.resident.thread().as_raw()
    }

    /// Where its network namespace is pinned on the host.
    pub fn netns_path(&self) -> &Path {
        self.0.pin.path()
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The cgroup, below every controller's root, that is this node's.
    pub fn cgroup(&self) -> PathBuf {
        cgroup::of_node(&self.0.options.lab, self.name())
    }

    /// Where a file of one of the node's own paths lies on the host: `/run/terway/agent.sock`
    /// becomes `<lab's directory>/nodes/node1/run/terway/agent.sock`.
    pub fn host_path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        self.0.root.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// A command that runs `program` on the node, whoever spawns it. `program` is looked up in
    /// the caller's `PATH`, on the node's mounts.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--net", "--mount", "--target", &self.pid().to_string(), "--"]).arg(program);
        command
    }

    /// Runs `job` on a thread of its own on the node: in its network and with its mounts.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let runtime = runtime::Handle::current();
        let name = format!("on {}", self.name());
        // A thread is born in the namespaces of the thread that starts it.
        let spawn = move || -> io::Result<()> {
            thread::Builder::new().name(name).spawn(move || {
                let _reactor = runtime.enter();
                drop(sender.send(job()));
            })?;
            Ok(())
        };
        self.0.resident.run(spawn).await??;
        receiver.await.with_context(|| format!("a job on {} died", self.name()))
    }

    pub(crate) fn netlink(&self) -> &Netlink {
        &self.0.netlink
    }

    pub(crate) fn resident(&self) -> &Resident {
        &self.0.resident
    }

    pub(crate) fn v6_default(&self) -> V6Default {
        self.0.options.v6_default
    }
}

/// A namespace inherits these from the machine; every node is to begin alike.
fn plain_network() -> Result<()> {
    for key in ["forwarding", "rp_filter", "arp_ignore", "arp_announce", "accept_local"] {
        for scope in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv4/conf/{scope}/{key}");
            std::fs::write(&file, "0").with_context(|| format!("cannot write {file}"))?;
        }
    }
    Ok(())
}

impl Drop for Inner {
    fn drop(&mut self) {
        let cgroup = cgroup::of_node(&self.options.lab, &self.options.name);
        if let Ok(identity) = self.namespace.identity() {
            kill_inhabitants(&[identity], Some(&cgroup));
        }
        cgroup::remove(&cgroup);
        // What cannot be removed now is found by `down`.
        let _in_use = std::fs::remove_dir_all(&self.root);
    }
}
