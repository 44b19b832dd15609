//! The start: from what the disk says to three witnesses that agree.

use std::collections::BTreeSet;

use model::SandboxKey;

use super::{Namespace, Pods};
use crate::api::convert;
use crate::checkpoint::{Change, Phase, SandboxRecord};
use crate::datapath::{DatapathError, Pod};

impl Pods {
    /// Tells the datapath which pods there are, and finishes every intent. Alone: nobody is served
    /// yet. An error means that the datapath cannot take the pods at all.
    ///
    /// An ADD is finished, not undone, while its namespace is there: "up" is written after the
    /// answer may have been given, so a record that says "adding" may be of a pod that runs. If
    /// nobody was answered, the runtime will send a DEL.
    pub async fn recover(&self) -> Result<(), DatapathError> {
        let queued = self.queued_keys().await;
        let mut live = Vec::new();
        let mut ended = Vec::new();
        for record in self.list() {
            if self.ends(&record, &queued) { ended.push(record) } else { live.push(record) }
        }
        let pods: Vec<Pod> = live.iter().map(|record| record.pod.clone()).collect();
        self.network.restore(pods).await?;
        for record in ended {
            self.finish_del(record).await;
        }
        for record in live.into_iter().filter(|record| record.phase == Phase::Adding) {
            self.finish_add(record).await;
        }
        if let Err(error) = self.drain().await {
            tracing::warn!(%error, "queued DELs wait");
        }
        Ok(())
    }

    fn ends(&self, record: &SandboxRecord, queued: &BTreeSet<SandboxKey>) -> bool {
        let spec = &record.pod.spec;
        match record.phase {
            Phase::Deleting => true,
            Phase::Adding if self.network.namespace(&spec.netns) == Namespace::Absent => true,
            Phase::Adding | Phase::Up => queued.contains(&spec.key) || self.stale(record).is_some(),
        }
    }

    async fn finish_del(&self, record: SandboxRecord) {
        let key = record.pod.spec.key.clone();
        let phase = record.phase;
        match self.take_away(record).await {
            Ok(()) => tracing::info!(%key, ?phase, "a sandbox that ended meanwhile is gone"),
            Err(error) => tracing::warn!(%key, ?phase, %error, "a sandbox cannot be removed yet"),
        }
    }

    async fn finish_add(&self, mut record: SandboxRecord) {
        let key = record.pod.spec.key.clone();
        match self.network.add(record.pod.clone()).await {
            Ok(link) => {
                record.pod.link = link;
                record.phase = Phase::Up;
                self.journal.note(vec![Change::PutSandbox(Box::new(record.clone()))]);
                self.keep(record);
                tracing::info!(%key, "an ADD that was cut off is finished");
            }
            Err(error) => {
                tracing::warn!(%key, %error, "an ADD that was cut off is undone");
                self.finish_del(record).await;
            }
        }
    }

    async fn queued_keys(&self) -> BTreeSet<SandboxKey> {
        // A queue that cannot be read is reported when it is drained.
        let listed = self.list_queue().await.unwrap_or_default();
        let requests = listed.into_iter().flatten().map(|queued| queued.request);
        requests.filter_map(|request| convert::key(request.sandbox.as_ref()).ok()).collect()
    }
}
