//! Watches the DEL queue: what the plugin leaves there while the daemon is up, because it was too
//! late to answer, is done at once.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::pods::Pods;

/// For a DEL that could not be done, and for what no event told of.
const PERIOD: Duration = Duration::from_secs(30);

/// Why the queue cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("the DEL queue {} cannot be watched", dir.display())]
pub struct WatchError {
    dir: PathBuf,
    source: io::Error,
}

/// Until `stop`.
pub async fn watch(
    pods: Arc<Pods>,
    dir: PathBuf,
    stop: CancellationToken,
) -> Result<(), WatchError> {
    let failed = |source| WatchError { dir: dir.clone(), source };
    loop {
        // Anew when the directory was removed.
        let mut watch = Watch::new(&dir).map_err(failed)?;
        loop {
            if let Err(error) = pods.drain().await {
                tracing::warn!(%error, "queued DELs wait");
            }
            // An event that is dropped here was not read: all may be dropped.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
                event = watch.event() => match event.map_err(failed)? {
                    Event::Queued => {}
                    Event::Removed => break,
                },
            }
        }
    }
}

struct Watch(EventStream<[u8; 4096]>);

enum Event {
    Queued,
    Removed,
}

impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let inotify = Inotify::init()?;
        let mask = WatchMask::MOVED_TO | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        inotify.watches().add(dir, mask)?;
        Ok(Self(inotify.into_event_stream([0; 4096])?))
    }

    async fn event(&mut self) -> io::Result<Event> {
        let ended = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED;
        match self.0.next().await.transpose()? {
            Some(event) if !event.mask.intersects(ended) => Ok(Event::Queued),
            _ended => Ok(Event::Removed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::tests::queue_of;
    use crate::pods::tests::world::{World, add, key, soon};
    use crate::tasks::{End, Tasks};

    #[tokio::test]
    async fn a_del_that_is_queued_while_the_daemon_is_up_is_done_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("del-queue");
        let world = World::new(&queue);
        let pods = world.start();
        let tasks = Tasks::default();
        tasks.part("queue", watch(Arc::clone(&pods), queue.clone(), tasks.stop().clone()));
        for id in ["a", "b"] {
            pods.add(add(id), soon()).await.unwrap();
            proto::queue::push(&queue, &queue_of(id)).unwrap();
            world.come_to(|state| !state.kernel.contains_key(&key(id))).await;
            // The watch begins anew.
            std::fs::remove_dir_all(&queue).unwrap();
        }
        tasks.stop().cancel();
        assert_eq!(tasks.finish(Duration::from_secs(10)).await, End::Asked);
        assert!(pods.list().is_empty());
        world.agree(&pods);
    }

    #[tokio::test]
    async fn a_queue_that_cannot_be_watched_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pods = World::new(file.path()).start();
        let error = watch(pods, file.path().to_owned(), CancellationToken::new()).await;
        let error = error.unwrap_err().to_string();
        let path = file.path().display();
        assert_eq!(error, format!("the DEL queue {path} cannot be watched"));
    }
}
