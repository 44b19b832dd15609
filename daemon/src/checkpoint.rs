//! What survives a restart: intents and facts, in one redb file. One thread owns the file; writes
//! that arrive together are committed together, with one fsync.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use model::{EniId, SandboxKey};

use crate::datapath::Pod;
use crate::ipam::{Allocation, EniRecord, MemberRecord};

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

/// One change; a list of them is one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    PutSandbox(Box<SandboxRecord>),
    RemoveSandbox(SandboxKey),
    PutEni(EniRecord),
    RemoveEni(EniId),
    PutMember(MemberRecord),
    RemoveMember(EniId),
    PutRest(RestRecord),
    RemoveRest(IpAddr),
}

/// All that was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    pub sandboxes: Vec<SandboxRecord>,
    pub enis: Vec<EniRecord>,
    pub members: Vec<MemberRecord>,
    pub rests: Vec<RestRecord>,
}

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint")]
pub struct CheckpointError;

/// A handle to the thread that owns the file.
#[derive(Debug, Clone)]
pub struct Checkpoint;

impl Checkpoint {
    /// Opens or makes the file and reads all of it.
    pub fn open(_path: &Path) -> Result<(Self, Contents), CheckpointError> {
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
