//! A lab's name is one process's as long as that lives.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::node::LabName;

const DIRECTORY: &str = "/run/lock/terway-lab";

/// Nobody else makes or takes away labs of this name while it lives.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// An error if a lab of this name is up, whose process it names.
    pub fn take(lab: &LabName) -> Result<Self> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        let path = Path::new(DIRECTORY).join(lab.as_str());
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                bail!(
                    "a lab named {lab} is up, held by process {}: end that first (`terway-lab down` \
                     with its --dir), or take another --name",
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        fs::write(&path, std::process::id().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(file))
    }
}

impl Drop for Claim {
    /// Closing it is not enough: a child that is being spawned has it until its exec.
    fn drop(&mut self) {
        // A lock that cannot be let go ends with the process.
        let _held_on = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_at_a_time() {
        let name: LabName = "claimed".parse().unwrap();
        let first = Claim::take(&name).unwrap();
        let refused = Claim::take(&name).unwrap_err().to_string();
        let own = std::process::id();
        assert!(refused.contains(&format!("a lab named claimed is up, held by process {own}")));
        // Like a child between its fork and its exec.
        let inherited = first.0.try_clone().unwrap();
        drop(first);
        Claim::take(&name).unwrap();
        drop(inherited);
    }
}
