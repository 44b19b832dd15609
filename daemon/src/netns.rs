//! The only `setns`: a network namespace belongs to a thread that enters it and then dies, so there
//! is nothing to restore and no thread of a runtime ever moves.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::CloneFlags;

/// A network namespace, held open. While one exists the namespace lives: do not keep it.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// Not there, or not to be read.
    #[error("cannot open network namespace {path}")]
    Open {
        /// Of the namespace.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// There, but no network namespace (any more), or no right to enter.
    #[error("cannot enter network namespace {path}")]
    Enter {
        /// Of the namespace.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// No thread to enter with.
    #[error("cannot start a thread for network namespace {path}")]
    Thread {
        /// Of the namespace.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The job panicked.
    #[error("the job in network namespace {path} panicked")]
    Panicked {
        /// Of the namespace.
        path: PathBuf,
    },
}

impl NetNsError {
    /// Whether it is there, and not for us.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Enter { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Thread { .. } | Self::Panicked { .. } => false,
        }
    }
}

impl NetNs {
    /// Opens the namespace at `path`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let path = path.to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(NetNsError::Open { path, source }),
        }
    }

    /// As [`is_the_nodes`].
    pub fn is_the_nodes(&self) -> io::Result<bool> {
        Ok(is_the_nodes(&self.file.metadata()?))
    }

    /// Runs `job` in the namespace, on a thread of its own, and waits for it. Sockets opened there
    /// stay in the namespace and may be used from anywhere.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("netns".to_owned());
            let thread = thread.spawn_scoped(scope, || self.enter().map(|()| job()));
            let thread =
                thread.map_err(|source| NetNsError::Thread { path: self.path.clone(), source })?;
            thread.join().map_err(|_panic| NetNsError::Panicked { path: self.path.clone() })?
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place: this thread dies in there")]
    fn enter(&self) -> Result<(), NetNsError> {
        nix::sched::setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetNsError::Enter { path: self.path.clone(), source: errno.into() })
    }
}

/// Whether it is the namespace that the calling thread is in, or that of the first process: a
/// daemon that runs in a namespace of its own must not take the host's for a pod's.
pub fn is_the_nodes(found: &Metadata) -> bool {
    let known = ["/proc/thread-self/ns/net", "/proc/1/ns/net"].map(fs::metadata);
    // Who may not look at the first process may not enter its namespace either.
    known.iter().flatten().any(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{NetNs, NetNsError};

    #[test]
    fn a_job_runs_on_a_thread_of_its_own_and_the_caller_does_not_move() {
        let own = NetNs::open("/proc/self/ns/net".as_ref()).unwrap();
        let caller = thread::current().id();
        assert_ne!(own.run(|| thread::current().id()).unwrap(), caller);
        assert!(own.is_the_nodes().unwrap());
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        let error = NetNs::open("/nowhere/netns".as_ref()).unwrap_err();
        assert_eq!(error.to_string(), "cannot open network namespace /nowhere/netns");
        let error = NetNs::open("/proc/self/status".as_ref()).unwrap().run(|| ()).unwrap_err();
        assert!(matches!(error, NetNsError::Enter { .. }), "{error}");
    }

    #[test]
    fn a_panic_inside_is_an_error_outside() {
        let own = NetNs::open("/proc/self/ns/net".as_ref()).unwrap();
        let error = own.run(|| panic!("inside")).unwrap_err();
        assert!(matches!(error, NetNsError::Panicked { .. }), "{error}");
    }
}
