//! Network namespaces of the lab: made, pinned under `/run/netns`, entered.
//!
//! A namespace belongs to a thread: whoever enters one here is a thread of its own that dies
//! afterwards, or lives in it for good.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime;
use tokio::sync::oneshot;

/// Where iproute2 and container runtimes look for namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace, held open.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
    name: Arc<str>,
}

impl Namespace {
    /// Opens the namespace at `path`, as the calling thread's mounts show it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)
            .with_context(|| format!("cannot open the namespace {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self { file: Arc::new(file), name: name.into() })
    }

    /// Makes a namespace that lasts as long as `path`, a bind mount that the returned guard
    /// takes away.
    pub async fn create(path: &Path) -> Result<(Self, Pin)> {
        let target = path.to_owned();
        let (sender, receiver) = oneshot::channel();
        thread::Builder::new().name("unshare".to_owned()).spawn(move || {
            let made = leave_network().and_then(|()| Pin::new(&target));
            drop(sender.send(made));
        })?;
        let pin = receiver.await.context("the thread that makes a namespace died")??;
        Ok((Self::open(path)?, pin))
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Device and inode: what makes it the same namespace.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// Runs `job` on a thread of its own inside the namespace. The thread has the runtime's
    /// reactor, so a socket born there lives on the runtime.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        let runtime = runtime::Handle::current();
        let (sender, receiver) = oneshot::channel();
        thread::Builder::new().name(format!("in {}", self.name)).spawn(move || {
            let _reactor = runtime.enter();
            drop(sender.send(enter(file.as_fd()).map(|()| job())));
        })?;
        let entered = receiver.await.with_context(|| format!("a job in {} died", self.name))?;
        entered.with_context(|| format!("cannot enter {}", self.name))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is the namespace's own and dies")]
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Gives the calling thread a new network namespace.
#[expect(clippy::disallowed_methods, reason = "callers are threads that do nothing else")]
pub(crate) fn leave_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (root is needed)")
}

/// Gives the calling thread a mount namespace of its own, from which nothing spreads.
#[expect(clippy::disallowed_methods, reason = "callers are threads that do nothing else")]
pub(crate) fn leave_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace (root is needed)")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("cannot make / private")
}

/// A bind mount of the namespace of the thread that made it; taken away on drop.
#[derive(Debug)]
pub struct Pin(PathBuf);

impl Pin {
    /// Binds the calling thread's network namespace to `path`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let directory = path.parent().context("a namespace lies in a directory")?;
        share(directory)?;
        File::create_new(path).with_context(|| {
            format!("cannot make {}: does a lab of this name run already?", path.display())
        })?;
        let pin = Self(path.to_owned());
        let source = "/proc/thread-self/ns/net";
        mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot bind a namespace to {}", path.display()))?;
        Ok(pin)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        unpin(&self.0);
    }
}

/// Takes a pinned namespace away; it lives on while a process or a link holds it.
pub(crate) fn unpin(path: &Path) {
    // Whatever is not there is gone already, which is what is wanted.
    let _not_mounted = umount2(path, MntFlags::MNT_DETACH);
    let _absent = std::fs::remove_file(path);
}

/// Makes `directory` a shared mount, as `ip netns` does: only then does taking a pin away here
/// take it away from copies of this mount too.
fn share(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    let make_shared = || {
        mount(None::<&str>, directory, None::<&str>, shared, None::<&str>).map_err(io::Error::from)
    };
    if make_shared().is_ok() {
        return Ok(());
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(directory), directory, None::<&str>, bind, None::<&str>)
        .with_context(|| format!("cannot bind {} to itself", directory.display()))?;
    make_shared().with_context(|| format!("cannot share {}", directory.display()))
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in namespaces of its own and does short jobs there, one after another.
///
/// What it starts, threads and processes, is born in its namespaces.
#[derive(Debug)]
pub(crate) struct Resident {
    jobs: mpsc::Sender<Job>,
    thread: nix::unistd::Pid,
}

impl Resident {
    /// Starts a thread that first of all does `settle`, and answers with what that gave.
    pub(crate) async fn start<T: Send + 'static>(
        name: &str,
        settle: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (sender, receiver) = oneshot::channel();
        let runtime = runtime::Handle::current();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _reactor = runtime.enter();
            let settled = settle().map(|value| (nix::unistd::gettid(), value));
            let stays = settled.is_ok();
            if sender.send(settled).is_ok() && stays {
                for job in inbox {
                    job();
                }
            }
        })?;
        let (thread, value) = receiver.await.context("a resident thread died")??;
        Ok((Self { jobs, thread }, value))
    }

    /// The thread's id, which `/proc` and `nsenter -t` take like a process's.
    pub(crate) const fn thread(&self) -> nix::unistd::Pid {
        self.thread
    }

    /// Runs a short `job` on the thread itself.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.send(Box::new(move || drop(sender.send(job()))))?;
        receiver.await.context("a job of a resident thread died")
    }

    /// Like [`Resident::run`], for where nothing can be awaited; gives up when the thread is gone.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        self.send(Box::new(move || drop(sender.send(job()))))?;
        receiver.recv().context("a job of a resident thread died")
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).ok().context("a resident thread is gone")
    }
}
