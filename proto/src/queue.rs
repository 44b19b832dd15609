//! The DEL queue: a directory in which the CNI binary leaves, durably, what it could not tell the
//! daemon. One file per sandbox; the daemon removes a file only after it has acted on it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::agent::{DelRequest, Sandbox};

const SUFFIX: &str = ".del";

/// A queued DEL and the file that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// The file, to be given to [`remove`].
    pub path: PathBuf,
    /// What it asks for.
    pub request: DelRequest,
}

/// Leaves `request` in `dir`, durably: written aside, synced, renamed, and the directory synced.
pub fn push(dir: &Path, request: &DelRequest) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let name = file_name(request.sandbox.as_ref().unwrap_or(&Sandbox::default()));
    let path = dir.join(&name);
    let aside = dir.join(format!("{name}.{}.tmp", std::process::id()));
    let mut file = File::create(&aside)?;
    file.write_all(&request.encode_to_vec())?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
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
        if path.extension().is_some_and(|extension| extension == SUFFIX.trim_start_matches('.')) {
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
    dir.join(file_name(sandbox))
}

fn read(path: &Path) -> io::Result<Queued> {
    let bytes = fs::read(path)?;
    let request = DelRequest::decode(bytes.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Queued { path: path.to_owned(), request })
}

fn file_name(sandbox: &Sandbox) -> String {
    let digest = Sha256::digest(sandbox.encode_to_vec());
    format!("{}{SUFFIX}", base16ct::lower::encode_string(&digest))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
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
        let dir = dir.path().join("del-queue");
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
}
