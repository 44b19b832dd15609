//! The cgroups of a lab: `/terway-lab/<lab>/<node>` below every hierarchy (v1 and v2).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::LabName;

/// The parent of all labs' cgroups, below each controller's root.
const CGROUP_ROOT: &str = "/terway-lab";

/// What of `cpuset` must be filled in before a process may enter.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

pub(super) fn of_lab(lab: &LabName) -> PathBuf {
    Path::new(CGROUP_ROOT).join(lab.as_str())
}

pub(super) fn of_node(lab: &LabName, node: &str) -> PathBuf {
    of_lab(lab).join(node)
}

/// Makes the node's cgroup in every hierarchy.
pub(super) fn create(lab: &LabName, node: &str) -> Result<()> {
    for root in hierarchies() {
        let mut parent = root.clone();
        for part in [CGROUP_ROOT.trim_start_matches('/'), lab.as_str(), node] {
            let child = parent.join(part);
            fs::create_dir_all(&child)
                .with_context(|| format!("cannot make the cgroup {}", child.display()))?;
            inherit_cpuset(&parent, &child);
            parent = child;
        }
    }
    Ok(())
}

fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in CPUSET {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            // With v2 it is inherited, and there is nothing to be written.
            let _inherited = fs::write(child.join(file), value.trim());
        }
    }
}

/// Ids of the processes at and below `cgroup`, in any hierarchy.
pub(super) fn processes(cgroup: &Path) -> HashSet<i32> {
    let mut list = HashSet::new();
    for root in hierarchies() {
        visit(&below(&root, cgroup), &mut |directory| {
            let processes = fs::read_to_string(directory.join("cgroup.procs"));
            list.extend(
                processes.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()),
            );
        });
    }
    list
}

/// Removes `cgroup` and what is below, in every hierarchy; and its parents if they are empty.
pub(super) fn remove(cgroup: &Path) {
    for root in hierarchies() {
        let path = below(&root, cgroup);
        // A cgroup with processes or children stays, and is found by the next `down`.
        visit(&path, &mut |directory| drop(fs::remove_dir(directory)));
        for parent in path.ancestors().skip(1).take_while(|parent| *parent != root) {
            drop(fs::remove_dir(parent));
        }
    }
}

/// Where `cgroup` is, by hierarchy.
pub(super) fn everywhere(cgroup: &Path) -> Vec<PathBuf> {
    let paths = hierarchies().into_iter().map(|root| below(&root, cgroup));
    paths.filter(|path| path.exists()).collect()
}

fn below(root: &Path, cgroup: &Path) -> PathBuf {
    root.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

/// Children first.
fn visit(directory: &Path, visitor: &mut dyn FnMut(&Path)) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        visit(&entry.path(), visitor);
    }
    visitor(directory);
}

/// Roots of the mounted hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroup = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        let kind = fields.next()?;
        (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(cgroup).collect()
}
