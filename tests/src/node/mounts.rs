//! The mounts of a node: standard paths that are its own, the rest of the machine's as it is.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::namespace;

/// The paths that every node has for itself.
const OWN: [&str; 14] = [
    "/opt/cni",
    "/etc/cni",
    "/etc/containerd",
    "/etc/terway",
    "/var/lib/containerd",
    "/run/containerd",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/var/lib/terway",
    "/run/terway",
    "/run/netns",
    "/var/lib/cni",
    "/usr/lib/terway",
];

/// Mounts them on the calling thread's mount namespace, from below `root`.
pub(super) fn own(root: &Path) -> Result<()> {
    // The pins of everybody else, of which this namespace has a copy that would keep them alive.
    detach(namespace::DIRECTORY)?;
    own_sysfs(root)?;
    for path in OWN {
        own_directory(root, path)?;
    }
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("cannot mount a bpffs")?;
    // The kubelet and containerd share mounts with containers.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).context("cannot share /")
}

fn own_directory(root: &Path, path: &str) -> Result<()> {
    let own = root.join(path.trim_start_matches('/'));
    for directory in [own.as_path(), Path::new(path)] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    bind(&own, Path::new(path))
}

/// A sysfs shows the links of the namespace in which it was mounted. The machine's cgroups are
/// carried over.
fn own_sysfs(root: &Path) -> Result<()> {
    let cgroups = Path::new("/sys/fs/cgroup");
    let aside = root.join("sys/fs/cgroup");
    fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
    bind(cgroups, &aside)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)
        .context("cannot mount a sysfs")?;
    bind(&aside, cgroups)?;
    detach(&aside)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}

/// Succeeds if nothing is mounted there.
fn detach(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match umount2(path, MntFlags::MNT_DETACH).map_err(io::Error::from) {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
            Err(error).with_context(|| format!("cannot detach {}", path.display()))
        }
        _ => Ok(()),
    }
}
