//! What runs in the daemon, and how it stops. A *part* runs until it is told to stop; when one ends
//! by itself, by an error or a panic, all stop. *Work* is a request that is in hand: nothing aborts
//! it, and the stop waits for it, within the grace period.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Starts tasks and waits for them. Clones share all.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    broken: Arc<Mutex<Option<&'static str>>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to, and all work was done.
    Asked,
    /// This part ended by itself.
    Broken(&'static str),
    /// So many tasks were still running when the grace period was over.
    Overdue(usize),
}

impl Tasks {
    /// Cancelled when the daemon is to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a part, in a span of its name.
    pub fn part<E: Display>(
        &self,
        name: &'static str,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let fuse = Fuse { tasks: self.clone(), name };
        let part = async move {
            let fuse = fuse;
            if let Err(error) = future.await {
                tracing::error!(%error, part = fuse.name, "a part failed");
            }
        };
        self.tracker.spawn(part.instrument(tracing::info_span!("part", name)));
    }

    /// Runs a piece of work that goes on when whoever asked for it goes away.
    pub fn work<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(future.in_current_span())
    }

    /// How many tasks run.
    pub fn in_hand(&self) -> usize {
        self.tracker.len()
    }

    /// Waits for the stop, then at most `grace` for all that runs.
    pub async fn finish(&self, grace: Duration) -> End {
        self.stop.cancelled().await;
        self.tracker.close();
        let in_time = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        match *self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(name) => End::Broken(name),
            None if in_time => End::Asked,
            None => End::Overdue(self.tracker.len()),
        }
    }
}

/// Blows when a part ends, in whatever way.
struct Fuse {
    tasks: Tasks,
    name: &'static str,
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.tasks.stop.is_cancelled() {
            return;
        }
        tracing::error!(part = self.name, "a part ended; the daemon stops");
        let mut broken = self.tasks.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert(self.name);
        self.tasks.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::oneshot;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn idle(tasks: &Tasks) -> impl Future<Output = Result<(), Infallible>> + use<> {
        let stop = tasks.stop().clone();
        async move {
            stop.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_part_that_ends_stops_all() {
        let tasks = Tasks::default();
        tasks.part("idle", idle(&tasks));
        tasks.part("short", async { Ok::<_, Infallible>(()) });
        assert_eq!(tasks.finish(GRACE).await, End::Broken("short"));
    }

    #[tokio::test]
    async fn a_part_that_fails_or_panics_stops_all() {
        let tasks = Tasks::default();
        tasks.part("failing", async { Err("no luck") });
        assert_eq!(tasks.finish(GRACE).await, End::Broken("failing"));
        let tasks = Tasks::default();
        tasks.part::<Infallible>("panicking", async { panic!("on purpose") });
        assert_eq!(tasks.finish(GRACE).await, End::Broken("panicking"));
    }

    #[tokio::test]
    async fn the_stop_waits_for_work_that_nobody_awaits() {
        let tasks = Tasks::default();
        tasks.part("idle", idle(&tasks));
        let (done, wait) = oneshot::channel::<()>();
        drop(tasks.work(async move { drop(wait.await) }));
        tasks.stop().cancel();
        let mut end = Box::pin(tasks.finish(GRACE));
        assert!(futures::poll!(&mut end).is_pending());
        done.send(()).unwrap();
        assert_eq!(end.await, End::Asked);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_longer_than_the_grace_is_counted() {
        let tasks = Tasks::default();
        drop(tasks.work(std::future::pending::<()>()));
        tasks.stop().cancel();
        assert_eq!(tasks.finish(GRACE).await, End::Overdue(1));
    }
}
