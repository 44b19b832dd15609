//! Why a sandbox is not as it was asked to be.

use std::io;
use std::path::PathBuf;

use model::SandboxKey;

use crate::checkpoint::CheckpointError;
use crate::datapath::DatapathError;
use crate::ipam::AllocError;

/// Why a verb failed. The sandbox is named by whoever shows it.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// There is nothing at the path.
    #[error("network namespace {} does not exist", .0.display())]
    NamespaceGone(PathBuf),
    /// Something else is.
    #[error("{} is not a network namespace", .0.display())]
    NotANamespace(PathBuf),
    /// The node's would be torn apart.
    #[error("network namespace {} is the node's own", .0.display())]
    OwnNamespace(PathBuf),
    /// Two ADDs without a DEL between them, for two namespaces.
    #[error(
        "the sandbox is attached already, in network namespace {}, not {}; a DEL must come first",
        has.display(), asked.display()
    )]
    OtherNamespace {
        /// Where it is.
        has: PathBuf,
        /// Where it was asked for.
        asked: PathBuf,
    },
    /// CHECK of a sandbox that has no network of ours.
    #[error("the sandbox has no attachment on this node")]
    Unknown,
    /// More than the link can carry.
    #[error("mtu {asked} is above the {limit} of {link}, which carries the pod's frames")]
    Mtu {
        /// Bytes.
        asked: u32,
        /// Bytes.
        limit: u32,
        /// Name of the ENI's link.
        link: String,
    },
    /// It was not to go on.
    #[error("{0}")]
    Interrupted(Interruption),
    /// No address.
    #[error(transparent)]
    Address(AllocError),
    /// The kernel refused.
    #[error(transparent)]
    Datapath(Box<DatapathError>),
    /// Nothing can be written down.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The addresses could not be given back.
    #[error("the addresses could not be given back")]
    Release(#[source] AllocError),
    /// A queued DEL cannot be taken out of the queue.
    #[error("queued DEL {} cannot be removed", path.display())]
    Queue {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A bug of ours.
    #[error("the daemon failed at an unexpected place; its log has the panic")]
    Panicked,
}

impl From<DatapathError> for PodError {
    fn from(error: DatapathError) -> Self {
        Self::Datapath(Box::new(error))
    }
}

/// Why an ADD was not to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// Nobody waits for the answer.
    #[error("the caller went away")]
    CallerGone,
    /// A DEL of the same sandbox came.
    #[error("a DEL of the same sandbox came while it was being added")]
    Deleted,
    /// Time is up.
    #[error("the caller's deadline has passed")]
    Deadline,
    /// The daemon ends.
    #[error("terwayd is stopping")]
    Stopping,
}

/// What GC could not remove.
#[derive(Debug, thiserror::Error)]
#[error("{removed} sandboxes removed, {} not", failures.len())]
pub struct GcFailure {
    /// How many are gone.
    pub removed: u32,
    /// The others.
    pub failures: Vec<(SandboxKey, PodError)>,
}
