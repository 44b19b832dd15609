//! Whether this node can take pods: what STATUS says, from memory.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::gate::{Health, NotReady};
use crate::checkpoint::Checkpoint;
use crate::ipam::Standing;
use crate::reconcile::Verdict;

/// By the pool, by the kernel and by the disk.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    pool: watch::Receiver<Arc<Standing>>,
    kernel: Verdict,
    disk: Checkpoint,
}

impl NodeHealth {
    /// Of these three.
    pub fn new(pool: watch::Receiver<Arc<Standing>>, kernel: Verdict, disk: Checkpoint) -> Self {
        Self { pool, kernel, disk }
    }

    /// Waits until pods can be taken. `None` when the pool has ended.
    pub async fn ready(&self) -> Option<()> {
        let mut pool = self.pool.clone();
        pool.wait_for(|standing| standing.not_ready.is_none()).await.ok().map(drop)
    }
}

impl Health for NodeHealth {
    fn now(&self) -> Result<(), NotReady> {
        if let Some(lost) = self.kernel.lost() {
            return Err(NotReady::AndRunning(lost));
        }
        let why = self.disk.trouble().or_else(|| self.pool.borrow().not_ready.clone());
        why.map_or(Ok(()), |why| Err(NotReady::New(why)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_node_is_ready_when_its_pool_is() {
        let why = "no ENI is attached yet".to_owned();
        let waiting = Standing { not_ready: Some(why.clone()), ..Standing::default() };
        let pool = watch::Sender::new(Arc::new(waiting));
        let dir = tempfile::tempdir().unwrap();
        let disk = Checkpoint::open(dir.path(), Duration::ZERO).await.unwrap().checkpoint;
        let health = NodeHealth::new(pool.subscribe(), Verdict::default(), disk);
        assert_eq!(health.now(), Err(NotReady::New(why)));
        let mut ready = Box::pin(health.ready());
        assert!(futures::poll!(&mut ready).is_pending());
        pool.send_replace(Arc::default());
        assert_eq!(ready.await, Some(()));
        assert_eq!(health.now(), Ok(()));
    }
}
