//! The DEL queue, from the daemon's side.

use std::path::{Path, PathBuf};
use std::{fs, io};

use proto::queue::{self, Queued};

use super::Pods;
use crate::api::convert;

/// Why the queue could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the DEL queue {} cannot be read", path.display())]
pub struct QueueError {
    path: PathBuf,
    source: io::Error,
}

impl Pods {
    /// Acts on all that is queued. One that fails stays where it is.
    pub async fn drain(&self) -> Result<(), QueueError> {
        for queued in self.list_queue().await? {
            match queued {
                Ok(queued) => self.drain_one(&queued).await,
                Err((path, error)) => set_aside(&path, &error),
            }
        }
        Ok(())
    }

    /// How many requests are queued.
    pub async fn queue_len(&self) -> Result<usize, QueueError> {
        Ok(self.list_queue().await?.len())
    }

    pub(super) async fn list_queue(
        &self,
    ) -> Result<Vec<Result<Queued, (PathBuf, io::Error)>>, QueueError> {
        let dir = self.queue.clone();
        let listed = tokio::task::spawn_blocking(move || queue::list(&dir)).await;
        let listed = listed.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        listed.map_err(|source| QueueError { path: self.queue.clone(), source })
    }

    async fn drain_one(&self, queued: &Queued) {
        let key = match convert::key(queued.request.sandbox.as_ref()) {
            Ok(key) => key,
            Err(error) => return set_aside(&queued.path, &error),
        };
        let _turn = self.turns.lock(key.clone()).await;
        // An ADD of the same sandbox may have done it meanwhile; what stands now is newer.
        match self.finish_queued(&key).await {
            Ok(()) => tracing::info!(%key, "a queued DEL is done"),
            Err(error) => tracing::warn!(%key, %error, "a queued DEL cannot be done yet"),
        }
    }
}

/// A file that says nothing must not be reported for ever.
fn set_aside(path: &Path, error: &dyn std::error::Error) {
    let aside = path.with_extension("bad");
    let moved = fs::rename(path, &aside).is_ok();
    tracing::error!(path = %path.display(), %error, moved, "a queued DEL is not readable");
}
