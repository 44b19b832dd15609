//! A Unix socket that only root can reach: 0600 in a directory of 0700, never for a moment wider.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A system call failed.
    #[error("socket {} cannot be made", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another kind of file has its name.
    #[error("{} is in the way: it is not a socket; remove it", .0.display())]
    InTheWay(PathBuf),
    /// The directory belongs to somebody else, who could put a socket of his own there.
    #[error("directory {} belongs to uid {uid}, not to {own}; remove it", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        own: u32,
    },
}

/// The file of a socket; unlinked on drop if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Listens at `path`. The directory is made; a socket that a dead daemon left there is replaced (a
/// living one would hold the checkpoint's lock, without which nobody gets here).
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    closed_dir(dir)?;
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(SocketError::InTheWay(path.to_owned()));
    }
    // Bound aside and renamed: at `path` there is never a socket that is not 0600, nor none.
    let aside = path.with_extension("new");
    remove(&aside).map_err(failed)?;
    let listener = UnixListener::bind(&aside).map_err(failed)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600)).map_err(failed)?;
    let found = fs::symlink_metadata(&aside).map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    Ok((listener, file))
}

fn closed_dir(dir: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let found = fs::symlink_metadata(dir).map_err(failed)?;
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != own {
        return Err(SocketError::Owner { path: dir.to_owned(), uid: found.uid(), own });
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _gone => Ok(()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a socket is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_closed_to_others_and_goes_with_its_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terway/agent.sock");
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        UnixStream::connect(&path).await.unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_successors_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (old_listener, old_file) = listen(&path).unwrap();
        drop(old_listener);
        let (_listener, _file) = listen(&path).unwrap();
        drop(old_file);
        UnixStream::connect(&path).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        let error = listen(&path).unwrap_err().to_string();
        assert!(error.ends_with("is in the way: it is not a socket; remove it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_directory_that_was_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let (_listener, _file) = listen(&dir.path().join("agent.sock")).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }
}
