//! One sandbox's life: ADD, DEL, CHECK and GC, each a transaction, in order per sandbox.
//!
//! Three witnesses are kept in step here: the checkpoint, the kernel and the pool of addresses. The
//! intent is on the disk before the kernel is touched; "up" and "deleting" follow with the next
//! write, because their loss is mended: a start finishes an ADD whose namespace is still there
//! (somebody may have been told "up"), and a DEL that was not answered comes again, from the DEL
//! queue or from the runtime.

mod add;
mod check;
mod collect;
mod del;
mod drain;
mod error;
mod lock;
mod recover;
mod seams;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{EniId, IfName, Mac, PodRef, SandboxKey};

use crate::checkpoint::{Change, Phase, SandboxRecord};
use crate::config::MemberMac;
use crate::datapath::{DatapathError, PodLink};
use crate::ipam::Carrier;
use crate::tasks::Tasks;

pub use self::check::Checked;
pub use self::collect::Stale;
pub use self::del::Deleted;
pub use self::error::{GcFailure, Interruption, PodError};
pub use self::seams::{Addresses, Journal, Namespace, Network, Pool};

/// What an ADD asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The attachment.
    pub key: SandboxKey,
    /// Its pod, under Kubernetes.
    pub pod: Option<PodRef>,
    /// Its namespace.
    pub netns: PathBuf,
    /// Name of the pod's end.
    pub ifname: IfName,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Bytes; the ENI's if `None`.
    pub mtu: Option<u32>,
    /// Hardware address of the pod's end.
    pub mac: Option<Mac>,
}

/// What a sandbox has.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Its links and addresses.
    pub record: SandboxRecord,
    /// The link that carries its frames; `None` while the pool does not know it.
    pub carrier: Option<Carrier>,
}

/// All sandboxes of this node.
#[derive(Debug)]
pub struct Pods {
    addresses: Arc<dyn Addresses>,
    network: Arc<dyn Network>,
    journal: Arc<dyn Journal>,
    member_mac: MemberMac,
    queue: PathBuf,
    tasks: Tasks,
    records: Mutex<BTreeMap<SandboxKey, SandboxRecord>>,
    /// Given back by us, and not yet taken by the pool: tried again.
    owed: Mutex<BTreeSet<SandboxKey>>,
    turns: lock::KeyedLock<SandboxKey>,
    adding: add::Adding,
}

/// What [`Pods`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The pool.
    pub addresses: Arc<dyn Addresses>,
    /// The kernel.
    pub network: Arc<dyn Network>,
    /// The checkpoint.
    pub journal: Arc<dyn Journal>,
    /// Whose MAC a member's frames carry.
    pub member_mac: MemberMac,
    /// The directory of the DEL queue.
    pub queue: PathBuf,
    /// Where the work runs.
    pub tasks: Tasks,
}

impl Pods {
    /// With what the checkpoint held; [`recover`](Self::recover) comes before anything else.
    pub fn new(parts: Parts, records: Vec<SandboxRecord>) -> Arc<Self> {
        let records = records.into_iter().map(|record| (record.pod.spec.key.clone(), record));
        Arc::new(Self {
            addresses: parts.addresses,
            network: parts.network,
            journal: parts.journal,
            member_mac: parts.member_mac,
            queue: parts.queue,
            tasks: parts.tasks,
            records: Mutex::new(records.collect()),
            owed: Mutex::default(),
            turns: lock::KeyedLock::default(),
            adding: add::Adding::default(),
        })
    }

    /// Whether the cloud has lost what the sandbox has.
    pub fn is_cut_off(&self, key: &SandboxKey) -> bool {
        self.addresses.cut_off(key).is_some()
    }

    /// All records, by key.
    pub fn list(&self) -> Vec<SandboxRecord> {
        self.records().values().cloned().collect()
    }

    fn record(&self, key: &SandboxKey) -> Option<SandboxRecord> {
        self.records().get(key).cloned()
    }

    fn keep(&self, record: SandboxRecord) {
        self.records().insert(record.pod.spec.key.clone(), record);
    }

    /// The datapath has no link of these ENIs any more.
    pub fn note_unplugged(&self, enis: &[EniId]) {
        for eni in enis {
            self.addresses.link_gone(eni);
        }
    }

    /// An ENI without a link serves nobody; whoever meets that first says so.
    fn note_error(&self, error: &DatapathError) {
        if let DatapathError::UnknownEni { eni, .. } = error {
            self.addresses.link_gone(eni);
        }
    }

    /// The datapath made these links anew under other numbers.
    pub fn note_moved(&self, moved: Vec<(SandboxKey, PodLink)>) {
        let mut records = self.records();
        for (key, link) in moved {
            // Only the link, for an ADD or a DEL may be changing the rest; and nothing of what goes,
            // which would bring its record back.
            let Some(record) = records.get_mut(&key) else { continue };
            if record.phase != Phase::Deleting && record.pod.link != link {
                record.pod.link = link;
                self.journal.note(vec![Change::PutSandbox(Box::new(record.clone()))]);
            }
        }
    }

    fn moved(&self, mut record: SandboxRecord, link: PodLink) -> SandboxRecord {
        if record.pod.link != link {
            record.pod.link = link;
            self.journal.note(vec![Change::PutSandbox(Box::new(record.clone()))]);
            self.keep(record.clone());
        }
        record
    }

    fn attachment(&self, record: SandboxRecord) -> Attachment {
        let carrier = self.addresses.carrier(&record.allocation.parent);
        Attachment { record, carrier }
    }

    fn in_phase(&self, phase: Phase) -> Vec<SandboxRecord> {
        self.records().values().filter(|record| record.phase == phase).cloned().collect()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<SandboxKey, SandboxRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> MutexGuard<'_, BTreeSet<SandboxKey>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
