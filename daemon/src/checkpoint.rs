//! What survives a restart: intents and facts, in one redb file. One thread owns the file; writes
//! that arrive together are committed together, with one fsync.

mod file;
mod lock;
mod record;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cloud::ClientToken;
use model::{EniId, SandboxKey};
use tokio::sync::{oneshot, watch};

use crate::datapath::Pod;
use crate::ipam::{Allocation, EniRecord, Lot, MemberRecord};

/// How far a sandbox has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The intent of an ADD: to be finished or undone.
    Adding,
    /// ADD was answered.
    Up,
    /// The intent of a DEL: to be finished.
    Deleting,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    /// How far.
    pub phase: Phase,
    /// Its links.
    pub pod: Pod,
    /// Its addresses.
    pub allocation: Allocation,
    /// How long ADD took in the daemon.
    pub add_time: Duration,
}

/// An address that nobody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestRecord {
    /// The ENI that owns it.
    pub eni: EniId,
    /// The address.
    pub address: IpAddr,
    /// `CLOCK_BOOTTIME` at which it was released.
    pub since: Duration,
    /// `/proc/sys/kernel/random/boot_id` then.
    pub boot_id: String,
    /// Why it rests.
    pub kind: RestKind,
}

/// Why an address rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestKind {
    /// Its pod has gone: it is idle again after the cool-down.
    Cooling,
    /// The cloud was, or is to be, asked to take it back.
    Leaving,
}

/// Addresses that the cloud was, or is to be, asked for: after a restart it is asked again with the
/// same token, so that what was asked for comes once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignRecord {
    /// The intent.
    pub token: ClientToken,
    /// Token of the ENI's record.
    pub eni: ClientToken,
    /// What.
    pub lot: Lot,
    /// How many.
    pub count: u32,
}

/// One change; a list of them is one transaction. ENIs and members are keyed by our own token, for
/// an intent has no id of the cloud's yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A sandbox, by its key.
    PutSandbox(Box<SandboxRecord>),
    /// No sandbox of that key any more.
    RemoveSandbox(SandboxKey),
    /// A secondary or trunk ENI, by its token.
    PutEni(Box<EniRecord>),
    /// No ENI of that token any more.
    RemoveEni(ClientToken),
    /// A member ENI, by its token.
    PutMember(Box<MemberRecord>),
    /// No member of that token any more.
    RemoveMember(ClientToken),
    /// An address that must not be handed out, by ENI and address.
    PutRest(RestRecord),
    /// It may be handed out, or is gone.
    RemoveRest(EniId, IpAddr),
    /// Addresses that the cloud is asked for, by token.
    PutAssign(AssignRecord),
    /// They came, or never will.
    RemoveAssign(ClientToken),
    /// The node has had what it was to have once, when it was new.
    Warmed,
}

/// All that was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// By key.
    pub sandboxes: Vec<SandboxRecord>,
    /// Secondary and trunk ENIs, by token.
    pub enis: Vec<EniRecord>,
    /// By token.
    pub members: Vec<MemberRecord>,
    /// By ENI and address.
    pub rests: Vec<RestRecord>,
    /// By token.
    pub assigns: Vec<AssignRecord>,
    /// The node has had what it was to have once, when it was new.
    pub warmed: bool,
}

/// Why the checkpoint cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckpointError {
    /// The state directory cannot be made or opened.
    #[error("state directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another daemon has it.
    #[error(
        "state directory {} is in use by another terwayd, waited {}s for its lock; stop that one first",
        path.display(), waited.as_secs()
    )]
    Locked {
        /// Which.
        path: PathBuf,
        /// For so long.
        waited: Duration,
    },
    /// The file is there and whole, and this daemon cannot read it: it is left alone.
    #[error(
        "{}: {what} cannot be read by this terwayd; run the version that wrote it, \
         or move the file away to start without records",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Which record, or the whole.
        what: String,
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The file cannot be opened or set aside.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A transaction failed: nothing of it was written.
    #[error("write to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The thread that owns the file has ended.
    #[error("the checkpoint is closed, for the daemon is stopping")]
    Closed,
}

/// What [`Checkpoint::open`] found.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub checkpoint: Checkpoint,
    /// All that was written.
    pub contents: Contents,
    /// Where a file went that could not be read: then `contents` is empty, and the truth must come
    /// from kernel and cloud.
    pub quarantined: Option<PathBuf>,
}

/// A handle to the thread that owns the file. The thread ends with the last handle, and all that
/// was noted is durable by then.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    jobs: mpsc::Sender<Job>,
    trouble: watch::Receiver<Option<String>>,
}

/// One transaction for the writer.
#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    /// Who waits for it to be durable.
    done: Option<oneshot::Sender<Result<(), CheckpointError>>>,
}

impl Checkpoint {
    /// Name of the file in the state directory.
    pub const FILE: &'static str = "checkpoint.redb";

    /// Opens or makes [`Self::FILE`] in the directory `state` (made 0700) and reads all of it.
    /// Another daemon's lock on the directory is waited for, at most `wait`; the lock is held until
    /// the process ends.
    pub async fn open(state: &Path, wait: Duration) -> Result<Opened, CheckpointError> {
        let lock = lock::acquire(state, wait).await?;
        let path = state.join(Self::FILE);
        let opened = tokio::task::spawn_blocking(move || file::open(path)).await;
        let found = opened.map_err(|_panicked| CheckpointError::Closed)??;
        let (jobs, queue) = mpsc::channel();
        let writer = found.file;
        let trouble = writer.trouble();
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                writer.run(&queue);
                drop(lock);
            })
            .map_err(|source| CheckpointError::Directory {
                path: state.to_owned(),
                source: Arc::new(source),
            })?;
        let checkpoint = Self { jobs, trouble };
        Ok(Opened { checkpoint, contents: found.contents, quarantined: found.quarantined })
    }

    /// Why nothing can be written; `None` if it can, as far as is known.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Queues one transaction, in order with all others, before it returns; durable when the future
    /// is ready. Dropped before that, it is written all the same.
    pub fn write(
        &self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), CheckpointError>> + Send + use<> {
        let (done, answer) = oneshot::channel();
        let queued = self.jobs.send(Job { changes, done: Some(done) });
        let queued = queued.map_err(|_ended| CheckpointError::Closed);
        async move {
            queued?;
            answer.await.map_err(|_ended| CheckpointError::Closed)?
        }
    }

    /// Queues one transaction and returns at once: it becomes durable with, or before, the next
    /// [`write`](Self::write), and within a second when nothing else comes. For facts whose loss a restart mends
    /// by itself.
    pub fn note(&self, changes: Vec<Change>) {
        if self.jobs.send(Job { changes, done: None }).is_err() {
            tracing::warn!("a note comes after the checkpoint was closed");
        }
    }
}
