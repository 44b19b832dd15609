//! DEL: intent, network, addresses and record. What is gone already is success.

use std::path::PathBuf;
use std::sync::Arc;

use model::SandboxKey;
use proto::agent::Sandbox;
use proto::queue;

use super::{PodError, Pods};
use crate::checkpoint::{Change, Phase, SandboxRecord};
use crate::failpoints::{Point, reach};

/// What a DEL came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The sandbox had a network, or a part of one.
    Network,
    /// No such sandbox was known.
    Nothing,
}

impl Pods {
    /// Takes the sandbox's network away, and ends an ADD of it that is in hand. The work goes on in
    /// a task of its own when the caller goes away.
    pub async fn del(self: &Arc<Self>, key: SandboxKey) -> Result<Deleted, PodError> {
        let pods = Arc::clone(self);
        let work = self.tasks.work(async move {
            pods.adding.overtake(&key);
            let _turn = pods.turns.lock(key.clone()).await;
            let known = pods.record(&key).is_some() || pods.owed().contains(&key);
            pods.remove(&key).await?;
            pods.dequeue(&key).await?;
            reach(Point::DelDone);
            Ok(if known { Deleted::Network } else { Deleted::Nothing })
        });
        work.await.map_err(|_panicked| PodError::Panicked)?
    }

    /// In the sandbox's turn. When the kernel refuses, DEL is done as soon as its intent is on the
    /// disk: the record and the address stay until [`settle`](Self::settle) gets through.
    pub(super) async fn remove(&self, key: &SandboxKey) -> Result<(), PodError> {
        match self.remove_now(key).await {
            Err(PodError::Datapath(error)) => {
                tracing::warn!(%key, %error, "the kernel refuses a DEL; it is tried again");
                let record = self.record(key).map(Box::new);
                self.journal.write(record.map(Change::PutSandbox).into_iter().collect()).await?;
                Ok(())
            }
            done => done,
        }
    }

    /// In the sandbox's turn; whatever goes wrong is an error.
    pub(super) async fn remove_now(&self, key: &SandboxKey) -> Result<(), PodError> {
        let owed = self.owed().contains(key);
        match self.record(key) {
            Some(record) => self.take_away(record).await,
            None if owed => self.give_back(key).await,
            None => Ok(()),
        }
    }

    /// In the sandbox's turn: from the intent to nothing left.
    pub(super) async fn take_away(&self, mut record: SandboxRecord) -> Result<(), PodError> {
        if record.phase != Phase::Deleting {
            record.phase = Phase::Deleting;
            self.journal.note(vec![Change::PutSandbox(Box::new(record.clone()))]);
            self.keep(record.clone());
        }
        reach(Point::DelIntent);
        self.network.del(&record.pod).await?;
        reach(Point::DelApplied);
        self.give_back(&record.pod.spec.key).await?;
        reach(Point::DelReleased);
        Ok(())
    }

    /// Record and addresses, in one transaction.
    pub(super) async fn give_back(&self, key: &SandboxKey) -> Result<(), PodError> {
        if let Err(error) = self.addresses.release(key).await {
            self.owed().insert(key.clone());
            return Err(PodError::Release(error));
        }
        self.owed().remove(key);
        self.records().remove(key);
        Ok(())
    }

    /// In the sandbox's turn: a DEL that came while the daemon was away comes before an ADD.
    pub(super) async fn finish_queued(&self, key: &SandboxKey) -> Result<(), PodError> {
        if !self.queued(key).exists() {
            return Ok(());
        }
        self.remove(key).await?;
        self.dequeue(key).await
    }

    /// Takes the sandbox's DEL out of the queue, if one is there.
    pub(super) async fn dequeue(&self, key: &SandboxKey) -> Result<(), PodError> {
        let path = self.queued(key);
        if !path.exists() {
            return Ok(());
        }
        let file = path.clone();
        let removed = tokio::task::spawn_blocking(move || queue::remove(&file)).await;
        let removed = removed.map_err(|_panicked| PodError::Panicked)?;
        removed.map_err(|source| PodError::Queue { path, source })
    }

    /// Where a queued DEL of the sandbox lies.
    pub(super) fn queued(&self, key: &SandboxKey) -> PathBuf {
        let SandboxKey { network, container_id, ifname } = key.clone();
        queue::path_of(&self.queue, &Sandbox { network, container_id, ifname })
    }
}
