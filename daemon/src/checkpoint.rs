//! What survives a restart: intents and facts, in one redb file. One thread owns the file; writes
//! that arrive together are committed together, with one fsync.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{EniId, SandboxKey};

use crate::datapath::Pod;
use crate::ipam::{Allocation, EniRecord, MemberRecord, Token};

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

/// An address that rests after its pod is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestRecord {
    /// The ENI that owns it.
    pub eni: EniId,
    /// The address.
    pub address: IpAddr,
    /// CLOCK_BOOTTIME at which it was released.
    pub since: Duration,
    /// `/proc/sys/kernel/random/boot_id` then.
    pub boot_id: String,
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
    RemoveEni(Token),
    /// A member ENI, by its token.
    PutMember(Box<MemberRecord>),
    /// No member of that token any more.
    RemoveMember(Token),
    /// An address that must not be handed out, by ENI and address.
    PutRest(RestRecord),
    /// It may be handed out, or is gone.
    RemoveRest(EniId, IpAddr),
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
}

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint")]
pub struct CheckpointError;

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

/// A handle to the thread that owns the file.
#[derive(Debug, Clone)]
pub struct Checkpoint;

impl Checkpoint {
    /// Opens or makes `checkpoint.redb` in the directory `state` (made 0700) and reads all of it.
    /// Another daemon's lock on the directory is waited for, at most `wait`; the lock is held until
    /// the process ends.
    pub async fn open(_state: &Path, _wait: Duration) -> Result<Opened, CheckpointError> {
        unimplemented!("owner: ipam")
    }

    /// Writes one transaction; durable when it returns.
    pub async fn write(&self, _changes: Vec<Change>) -> Result<(), CheckpointError> {
        unimplemented!("owner: ipam")
    }

    /// Queues one transaction and returns at once: it becomes durable with, or before, the next
    /// [`write`](Self::write). For facts whose loss a restart mends by itself.
    pub fn note(&self, _changes: Vec<Change>) {
        unimplemented!("owner: ipam")
    }
}
