//! Takes away what a lab leaves: processes by the namespace they are in, never by name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::{self, Namespace};

use super::{LabName, cgroup};

/// How often the end of the killed is looked for, and for how long.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS: u32 = 1000;

/// Takes down whatever a lab of this name has left, whose process may be dead: processes,
/// namespaces, cgroups and the nodes' files. Does nothing if there is nothing.
pub fn down(lab: &LabName, directory: &Path) -> Result<()> {
    let pins = pins(lab);
    // A file without its mount has an identity of its own, in which no process can be.
    let identities: Vec<_> =
        pins.iter().filter_map(|path| Namespace::open(path).ok()?.identity().ok()).collect();
    kill_inhabitants(&identities, Some(&cgroup::of_lab(lab)));
    for pin in &pins {
        namespace::unpin(pin);
    }
    cgroup::remove(&cgroup::of_lab(lab));
    let nodes = directory.join("nodes");
    match fs::remove_dir_all(&nodes) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", nodes.display()))
        }
        _ => Ok(()),
    }
}

/// What of a lab can be seen from the machine: pinned namespaces, mounts, cgroups.
pub fn traces(lab: &LabName) -> Result<Vec<String>> {
    let pins = pins(lab);
    let mut found: Vec<_> = pins.iter().map(|pin| format!("namespace {}", pin.display())).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let prefix = format!("/{lab}-");
    let mounts = mounts.lines().filter(|line| line.contains(&prefix));
    found.extend(mounts.map(|line| format!("mount {line}")));
    let groups = cgroup::everywhere(&cgroup::of_lab(lab));
    found.extend(groups.into_iter().map(|group| format!("cgroup {}", group.display())));
    Ok(found)
}

fn pins(lab: &LabName) -> Vec<PathBuf> {
    let prefix = format!("{lab}-");
    let entries = fs::read_dir(namespace::DIRECTORY).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(|entry| entry.path()).collect()
}

/// Kills the processes in these network namespaces and in `cgroup`, and all that descend from
/// them (a pod's container has namespaces of its own), and waits for their end. Never this process.
pub(crate) fn kill_inhabitants(namespaces: &[(u64, u64)], cgroup: Option<&Path>) {
    let table = processes();
    let mut doomed: HashSet<i32> = cgroup.map(cgroup::processes).unwrap_or_default();
    doomed.extend(table.keys().filter(|pid| is_in(**pid, namespaces)));
    loop {
        let before = doomed.len();
        doomed.extend(
            table
                .iter()
                .filter(|(_, parent)| doomed.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if doomed.len() == before {
            break;
        }
    }
    doomed.remove(&Pid::this().as_raw());
    for pid in &doomed {
        // It may have ended by itself.
        let _ended = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    for _ in 0..LOOKS {
        doomed.retain(|pid| is_alive(*pid));
        if doomed.is_empty() {
            break;
        }
        thread::sleep(LOOK);
    }
}

/// Parents by process.
fn processes() -> HashMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect()
}

/// State and parent.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn is_in(pid: i32, namespaces: &[(u64, u64)]) -> bool {
    let metadata = fs::metadata(format!("/proc/{pid}/ns/net"));
    metadata.is_ok_and(|metadata| namespaces.contains(&(metadata.dev(), metadata.ino())))
}
