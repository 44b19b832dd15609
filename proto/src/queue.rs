//! The DEL queue: a directory in which the CNI binary leaves, durably, what it could not tell the
//! daemon. One file per sandbox; the daemon removes a file only after it has acted on it.
//!
//! The daemon acts and removes under the sandbox's lock. An ADD of the same sandbox waits for that
//! lock, so the only file that can take the place of the one being removed is the same DEL again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::agent::{DelRequest, Sandbox};

const EXTENSION: &str = "del";

static TURN: AtomicU64 = AtomicU64::new(0);

/// A queued DEL and the file that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// The file, to be given to [`remove`].
    pub path: PathBuf,
    /// What it asks for.
    pub request: DelRequest,
}

/// Leaves `request` in `dir`, durably: written aside, synced, renamed, and the directory synced.
/// A directory that is missing is made, for root only.
pub fn push(dir: &Path, request: &DelRequest) -> io::Result<PathBuf> {
    create_dir(dir)?;
    let path = path_of(dir, request.sandbox.as_ref().unwrap_or(&Sandbox::default()));
    // Others push the same DEL at the same time: other processes, and other threads of this one.
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_extension(format!("{}-{turn}.tmp", std::process::id()));
    let written = write(&aside, &request.encode_to_vec()).and_then(|()| fs::rename(&aside, &path));
    if let Err(error) = written {
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    sync_dir(dir)?;
    Ok(path)
}

/// All that is queued in `dir`. A file that cannot be decoded is an error beside the others.
pub fn list(dir: &Path) -> io::Result<Vec<Result<Queued, (PathBuf, io::Error)>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|path| read(&path).map_err(|error| (path, error))).collect())
}

/// Takes a file out of the queue, durably. A file that is gone is success.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => path.parent().map_or(Ok(()), sync_dir),
    }
}

/// Where a DEL of `sandbox` would lie in `dir`.
pub fn path_of(dir: &Path, sandbox: &Sandbox) -> PathBuf {
    let digest = Sha256::digest(sandbox.encode_to_vec());
    dir.join(base16ct::lower::encode_string(&digest)).with_extension(EXTENSION)
}

fn read(path: &Path) -> io::Result<Queued> {
    let bytes = fs::read(path)?;
    let request = DelRequest::decode(bytes.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Queued { path: path.to_owned(), request })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes `dir` and what is missing above it, each entry synced into its parent.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => parent.map_or(Ok(()), sync_dir),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn request(container_id: &str) -> DelRequest {
        let sandbox = Sandbox {
            network: "terway".to_owned(),
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
        };
        DelRequest { sandbox: Some(sandbox), ..DelRequest::default() }
    }

    #[test]
    fn a_del_is_queued_once_per_sandbox_and_removed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("terway/del-queue");
        assert!(list(&dir).unwrap().is_empty());
        push(&dir, &request("a")).unwrap();
        push(&dir, &request("b")).unwrap();
        let path = push(&dir, &request("a")).unwrap();
        assert_eq!(path, path_of(&dir, request("a").sandbox.as_ref().unwrap()));
        assert_eq!(list(&dir).unwrap().len(), 2);
        remove(&path).unwrap();
        remove(&path).unwrap();
        let left = list(&dir).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].as_ref().unwrap().request, request("b"));
    }

    #[test]
    fn a_torn_file_is_reported_beside_the_others() {
        let dir = tempfile::tempdir().unwrap();
        push(dir.path(), &request("a")).unwrap();
        fs::write(dir.path().join("zz.del"), [0xff, 0xff]).unwrap();
        let all = list(dir.path()).unwrap();
        assert!(all[0].is_ok() && all[1].is_err());
    }

    #[test]
    fn the_queue_is_for_its_owner_only_and_holds_nothing_but_requests() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("terway/del-queue");
        let path = push(&dir, &request("a")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(dir.parent().unwrap()), mode(&dir), mode(&path)), (0o700, 0o700, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_push_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let blocker = path_of(dir.path(), request("a").sandbox.as_ref().unwrap());
        fs::create_dir(&blocker).unwrap();
        push(dir.path(), &request("a")).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the blocker");
    }

    #[test]
    fn pushes_of_the_same_del_at_the_same_time_all_succeed() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..8).for_each(|_| drop(push(dir.path(), &request("a")).unwrap())));
            }
        });
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        push(file.path(), &request("a")).unwrap_err();
        push(&file.path().join("del-queue"), &request("a")).unwrap_err();
    }
}
