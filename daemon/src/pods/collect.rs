//! What nobody asks to delete: GC by the runtime's list, and our own by what can be seen.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use model::SandboxKey;

use super::{GcFailure, Namespace, PodError, Pods};
use crate::checkpoint::{Phase, SandboxRecord};

/// Why a sandbox is taken for dead. Each needs two witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Nothing at the namespace's path, and the link has died with it.
    Dead,
    /// Nothing at the namespace's path, and the pod lives in another sandbox.
    Superseded,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "its namespace and its link are gone",
            Self::Superseded => "its namespace is gone, and its pod lives in another sandbox",
        })
    }
}

impl Pods {
    /// Removes all sandboxes of `network` but those in `valid` (container id, ifname). Goes on
    /// after an error, and reports all.
    pub async fn gc(
        self: &Arc<Self>,
        network: String,
        valid: BTreeSet<(String, String)>,
    ) -> Result<u32, GcFailure> {
        let pods = Arc::clone(self);
        let work = self.tasks.work(async move { pods.gc_all(&network, &valid).await });
        work.await.unwrap_or(Err(GcFailure { removed: 0, failures: Vec::new() }))
    }

    async fn gc_all(
        &self,
        network: &str,
        valid: &BTreeSet<(String, String)>,
    ) -> Result<u32, GcFailure> {
        let unlisted = |key: &SandboxKey| {
            key.network == network
                && !valid.contains(&(key.container_id.clone(), key.ifname.clone()))
        };
        let mut removed = 0;
        let mut failures = Vec::new();
        for record in self.list() {
            // One that is being added is not in the runtime's list yet.
            if record.phase == Phase::Adding || !unlisted(&record.pod.spec.key) {
                continue;
            }
            match self.remove_if(&record, |_now| true).await {
                Ok(true) => removed += 1,
                Ok(false) => {}
                Err(error) => failures.push((record.pod.spec.key, error)),
            }
        }
        if failures.is_empty() { Ok(removed) } else { Err(GcFailure { removed, failures }) }
    }

    /// Our own GC: removes what is dead by two witnesses. One log line each.
    pub async fn collect(&self) {
        for record in self.in_phase(Phase::Up) {
            let Some(cause) = self.stale(&record) else { continue };
            let key = &record.pod.spec.key;
            match self.remove_if(&record, |now| self.stale(now).is_some()).await {
                Ok(true) => tracing::info!(%key, %cause, "sandbox collected"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%key, %cause, %error, "sandbox not collected"),
            }
        }
    }

    /// Finishes what could not be finished before: DELs that the kernel refused, addresses that the
    /// pool did not take back.
    pub async fn settle(&self) {
        for record in self.in_phase(Phase::Deleting) {
            let key = &record.pod.spec.key;
            match self.remove_if(&record, |_now| true).await {
                Ok(true) => tracing::info!(%key, "a DEL is finished"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%key, %error, "a DEL cannot be finished"),
            }
        }
        let owed = self.owed().clone();
        for key in owed {
            let _turn = self.turns.lock(key.clone()).await;
            if self.owed().contains(&key)
                && let Err(error) = self.give_back(&key).await
            {
                tracing::warn!(%key, %error, "addresses cannot be given back");
            }
        }
    }

    pub(super) fn stale(&self, record: &SandboxRecord) -> Option<Stale> {
        let spec = &record.pod.spec;
        if self.network.namespace(&spec.netns) != Namespace::Absent {
            return None;
        }
        if !self.network.stands(&record.pod.link) {
            return Some(Stale::Dead);
        }
        self.lives_elsewhere(record).then_some(Stale::Superseded)
    }

    fn lives_elsewhere(&self, record: &SandboxRecord) -> bool {
        let spec = &record.pod.spec;
        spec.pod.is_some()
            && self.in_phase(Phase::Up).iter().any(|other| {
                let other = &other.pod.spec;
                other.pod == spec.pod
                    && other.ifname == spec.ifname
                    && other.key != spec.key
                    && self.network.namespace(&other.netns) == Namespace::Present
            })
    }

    /// Takes the sandbox's turn and looks again: what was seen before may have changed.
    async fn remove_if(
        &self,
        seen: &SandboxRecord,
        still: impl Fn(&SandboxRecord) -> bool,
    ) -> Result<bool, PodError> {
        let key = &seen.pod.spec.key;
        let _turn = self.turns.lock(key.clone()).await;
        match self.record(key) {
            Some(now) if now.pod == seen.pod && still(&now) => {
                self.remove_now(key).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
