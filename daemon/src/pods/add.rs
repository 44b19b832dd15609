//! ADD: address, plan, intent, network, done. What goes wrong on the way is undone.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use model::{Mac, SandboxKey};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Add, Attachment, Interruption, Namespace, PodError, Pods};
use crate::bpf::MemberMacs;
use crate::checkpoint::{Change, Phase, SandboxRecord};
use crate::config::MemberMac;
use crate::datapath::{MemberSpec, Pod, PodSpec};
use crate::failpoints::{Point, reach};
use crate::ipam::{Allocation, Request, Want};

/// Kept of the caller's deadline for what comes after the address, and for a typed answer to get
/// back before the caller gives up.
const RESERVE: Duration = Duration::from_millis(500);

/// How long the cloud may take to say whether a pod still has its member ENI.
const CONFIRM: Duration = Duration::from_secs(3);

impl Pods {
    /// Gives the sandbox its network; the same again gives the same. The work goes on in a task of
    /// its own: when the caller goes away it is not aborted half-way, but undone.
    pub async fn add(
        self: &Arc<Self>,
        add: Add,
        deadline: Instant,
    ) -> Result<Attachment, PodError> {
        let caller = CancellationToken::new();
        let _left = caller.clone().drop_guard();
        let pods = Arc::clone(self);
        let work = self.tasks.work(async move { pods.add_in_turn(add, deadline, caller).await });
        work.await.map_err(|_panicked| PodError::Panicked)?
    }

    async fn add_in_turn(
        &self,
        add: Add,
        deadline: Instant,
        caller: CancellationToken,
    ) -> Result<Attachment, PodError> {
        let started = Instant::now();
        let entry = self.adding.enter(&add.key);
        let stop = self.tasks.stop().clone();
        let until = Until { caller, overtaken: Arc::clone(&entry.overtaken), stop, deadline };
        let _turn = until.wait(self.turns.lock(add.key.clone())).await?;
        self.finish_queued(&add.key).await?;
        if let Some(record) = self.record(&add.key) {
            if record.phase == Phase::Up {
                return self.add_again(record, &add, &until).await;
            }
            // What an ADD or a DEL could not finish.
            self.take_away(record).await?;
        }
        let want = self.wanted(&add)?;
        // A bug is no reason to lose an address: what is half built is undone, not looked at.
        let build = AssertUnwindSafe(self.build(&add, want, &until, started)).catch_unwind();
        match build.await.unwrap_or(Err(PodError::Panicked)) {
            Ok(record) => Ok(self.attachment(record)),
            Err(error) => {
                self.undo(&add.key).await;
                Err(error)
            }
        }
    }

    fn wanted(&self, add: &Add) -> Result<Want, PodError> {
        match self.network.namespace(&add.netns) {
            Namespace::Present => {}
            Namespace::Own => return Err(PodError::OwnNamespace(add.netns.clone())),
            Namespace::Other => return Err(PodError::NotANamespace(add.netns.clone())),
            Namespace::Absent => return Err(PodError::NamespaceGone(add.netns.clone())),
        }
        self.addresses.want(&add.annotations).map_err(PodError::Address)
    }

    async fn build(
        &self,
        add: &Add,
        want: Want,
        until: &Until,
        started: Instant,
    ) -> Result<SandboxRecord, PodError> {
        let request = Request { key: add.key.clone(), pod: add.pod.clone(), want };
        let allocation = until.wait(self.addresses.allocate(request, until.time_left())).await?;
        let allocation = allocation.map_err(PodError::Address)?;
        reach(Point::AddAllocated);

        let spec = self.spec(add, &allocation)?;
        let planned = self.network.plan(&spec).await;
        let link = planned.inspect_err(|error| self.note_error(error))?;
        let pod = Pod { spec, link };
        let add_time = Duration::ZERO;
        let mut record = SandboxRecord { phase: Phase::Adding, pod, allocation, add_time };
        self.journal.write(vec![Change::PutSandbox(Box::new(record.clone()))]).await?;
        self.keep(record.clone());
        reach(Point::AddIntent);

        until.passed()?;
        let added = self.network.add(record.pod.clone()).await;
        record.pod.link = added.inspect_err(|error| self.note_error(error))?;
        self.keep(record.clone());
        reach(Point::AddApplied);

        record.phase = Phase::Up;
        record.add_time = started.elapsed();
        self.journal.note(vec![Change::PutSandbox(Box::new(record.clone()))]);
        self.keep(record.clone());
        reach(Point::AddNoted);
        until.passed()?;
        Ok(record)
    }

    fn spec(&self, add: &Add, allocation: &Allocation) -> Result<PodSpec, PodError> {
        if let (Some(asked), Some(carrier)) = (add.mtu, self.addresses.carrier(&allocation.parent))
            && asked > carrier.mtu
        {
            return Err(PodError::Mtu { asked, limit: carrier.mtu, link: carrier.name });
        }
        Ok(PodSpec {
            key: add.key.clone(),
            pod: add.pod.clone(),
            netns: add.netns.clone(),
            ifname: add.ifname.clone(),
            addresses: allocation.addresses,
            eni: allocation.parent.clone(),
            member: allocation.vlan.map(|vlan| MemberSpec { vlan, macs: self.macs(allocation) }),
            mtu: add.mtu,
            mac: add.mac,
        })
    }

    fn macs(&self, allocation: &Allocation) -> Option<MemberMacs> {
        match self.member_mac {
            MemberMac::Trunk => None,
            MemberMac::Own => Some(MemberMacs { member: allocation.mac, gateway: Mac::GATEWAY }),
        }
    }

    /// The second ADD of a sandbox that is up: the network is made good, the answer is the same;
    /// unless the cloud has lost what the pod has. Its network was configured, so it gets nothing
    /// else under the same sandbox.
    async fn add_again(
        &self,
        record: SandboxRecord,
        add: &Add,
        until: &Until,
    ) -> Result<Attachment, PodError> {
        let has = &record.pod.spec.netns;
        if *has != add.netns {
            let (has, asked) = (has.clone(), add.netns.clone());
            return Err(PodError::OtherNamespace { has, asked });
        }
        let wait = until.time_left().min(CONFIRM);
        let confirmed = until.wait(self.addresses.confirm(&add.key, wait)).await?;
        confirmed.map_err(PodError::Address)?;
        let link = self.network.add(record.pod.clone()).await?;
        Ok(self.attachment(self.moved(record, link)))
    }

    /// Leaves nothing of an ADD that failed. What cannot be undone now is tried again later.
    async fn undo(&self, key: &SandboxKey) {
        let undone = match self.record(key) {
            Some(record) => self.take_away(record).await,
            None => self.give_back(key).await,
        };
        if let Err(error) = undone {
            tracing::warn!(%error, "a failed ADD is not undone yet; it is tried again");
        }
    }
}

/// What ends an ADD early.
struct Until {
    caller: CancellationToken,
    overtaken: Arc<CancellationToken>,
    stop: CancellationToken,
    deadline: Instant,
}

impl Until {
    /// For an answer of the pool.
    fn time_left(&self) -> Duration {
        self.deadline.duration_since(Instant::now()).saturating_sub(RESERVE)
    }

    /// Waits for `future`, which may be dropped at any time.
    async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Interruption> {
        tokio::select! {
            biased;
            // Futures of tokens and timers hold nothing: all may be dropped.
            () = self.overtaken.cancelled() => Err(Interruption::Deleted),
            () = self.caller.cancelled() => Err(Interruption::CallerGone),
            () = self.stop.cancelled() => Err(Interruption::Stopping),
            () = tokio::time::sleep_until(self.deadline) => Err(Interruption::Deadline),
            // Leaves the line, or gives back what it would have got.
            value = future => Ok(value),
        }
    }

    /// Between two steps. The daemon's stop is no reason here: what is left takes a millisecond.
    fn passed(&self) -> Result<(), Interruption> {
        if self.overtaken.is_cancelled() {
            Err(Interruption::Deleted)
        } else if self.caller.is_cancelled() {
            Err(Interruption::CallerGone)
        } else if self.deadline <= Instant::now() {
            Err(Interruption::Deadline)
        } else {
            Ok(())
        }
    }
}

impl From<Interruption> for PodError {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

/// The ADDs in hand, so that a DEL does not wait behind one that waits for the cloud.
#[derive(Debug, Clone, Default)]
pub(super) struct Adding(Arc<Mutex<Vec<InHand>>>);

type InHand = (SandboxKey, Arc<CancellationToken>);

/// One of them; leaves on drop.
struct Entry {
    adding: Adding,
    overtaken: Arc<CancellationToken>,
}

impl Adding {
    fn enter(&self, key: &SandboxKey) -> Entry {
        let overtaken = Arc::new(CancellationToken::new());
        self.all().push((key.clone(), Arc::clone(&overtaken)));
        Entry { adding: self.clone(), overtaken }
    }

    /// Ends all ADDs of the sandbox that came so far.
    pub(super) fn overtake(&self, key: &SandboxKey) {
        for (_, token) in self.all().iter().filter(|(adding, _)| adding == key) {
            token.cancel();
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<InHand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.adding.all().retain(|(_, token)| !Arc::ptr_eq(token, &self.overtaken));
    }
}
