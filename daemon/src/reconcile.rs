//! Keeps the kernel as it should be: at a change by others, on a timer, and again after a failure.
//! Reads, diffs, runs the difference; each repair is one line in the log, with its cause.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::failure::chain;
use crate::datapath::{Changes, Datapath, DatapathError, Repairs};
use crate::pods::Pods;

/// Without a reason: what no event tells of.
pub const PERIOD: Duration = Duration::from_mins(1);
/// Changes come in bursts; this much quiet ends one.
const DUST: Duration = Duration::from_millis(50);
/// Between two repairs for changes: against somebody who changes back, we do not spin.
const PAUSE: Duration = Duration::from_secs(1);
/// After a repair that could not even read the kernel.
const RETRY: Duration = Duration::from_secs(5);
/// Lines in the log for one repair: a start swaps the programs of every pod.
const SHOWN: usize = 16;
/// So many of those in a row, and running pods may be cut off.
const TOO_MANY: u32 = 3;

/// What is kept as it should be.
pub trait Mend: fmt::Debug + Send + Sync {
    /// As [`Datapath::repair`].
    fn repair(&self) -> BoxFuture<'_, Result<Repairs, DatapathError>>;
    /// As [`Datapath::changes`].
    fn changes(&self) -> watch::Receiver<Changes>;
}

impl Mend for Datapath {
    fn repair(&self) -> BoxFuture<'_, Result<Repairs, DatapathError>> {
        self.repair().boxed()
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes()
    }
}

/// Whether the kernel can be kept as it should be. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<Mutex<Outcome>>);

#[derive(Debug, Default)]
struct Outcome {
    failures: u32,
    last: String,
}

impl Verdict {
    /// What has kept us from it several times in a row.
    pub fn lost(&self) -> Option<String> {
        let outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (outcome.failures >= TOO_MANY).then(|| outcome.last.clone())
    }

    fn set(&self, repaired: Result<(), String>) {
        let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match repaired {
            Ok(()) => *outcome = Outcome::default(),
            Err(last) => *outcome = Outcome { failures: outcome.failures + 1, last },
        }
    }
}

/// Keeps the kernel, and the sandboxes that nobody asks about.
#[derive(Debug)]
pub struct Reconciler {
    kernel: Arc<dyn Mend>,
    pods: Arc<Pods>,
    verdict: Verdict,
}

/// The thread that owns the kernel's side has ended.
#[derive(Debug, thiserror::Error)]
#[error("the datapath has stopped")]
pub struct Stopped;

impl Reconciler {
    /// Nothing is done yet.
    pub fn new(kernel: Arc<dyn Mend>, pods: Arc<Pods>, verdict: Verdict) -> Self {
        Self { kernel, pods, verdict }
    }

    /// Until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Stopped> {
        let mut contradictions = self.kernel.changes();
        let mut due = Instant::now() + PERIOD;
        // Apart from `due`, which every repair puts off: changes that never stop must not keep dead
        // sandboxes alive.
        let mut collect_at = due;
        let mut free_from = Instant::now();
        loop {
            // Tokens, timers and watches hold nothing: all may be dropped.
            let cause = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(due) => "time".to_owned(),
                told = contradictions.changed() => {
                    told.map_err(|_closed| Stopped)?;
                    let settled = free_from.max(Instant::now() + DUST);
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = sleep_until(settled) => {}
                    }
                    contradictions.borrow_and_update().last.clone()
                }
            };
            if collect_at <= Instant::now() {
                self.pods.settle().await;
                self.pods.collect().await;
                collect_at = Instant::now() + PERIOD;
            }
            let repaired = self.repair(&cause).await;
            free_from = Instant::now() + PAUSE;
            let again = Instant::now() + if repaired { PERIOD } else { RETRY };
            due = again.min(collect_at);
        }
    }

    /// Once; whether the kernel could be read and changed at all.
    pub async fn repair(&self, cause: &str) -> bool {
        match self.kernel.repair().await {
            Ok(Repairs { mended, left, moved, unplugged }) => {
                for repair in mended.iter().take(SHOWN) {
                    tracing::info!(cause, repair, "repaired");
                }
                for repair in mended.iter().skip(SHOWN) {
                    tracing::debug!(cause, repair, "repaired");
                }
                if let Some(more @ 1..) = mended.len().checked_sub(SHOWN) {
                    tracing::info!(cause, more, "repaired; the debug log has them");
                }
                for difference in left {
                    tracing::warn!(cause, difference, "not repaired");
                }
                self.pods.note_moved(moved);
                self.pods.note_unplugged(&unplugged);
                self.verdict.set(Ok(()));
                true
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(cause, error, "the kernel's state cannot be repaired");
                self.verdict.set(Err(error));
                false
            }
        }
    }
}
