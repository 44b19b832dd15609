//! Deletes the links of pods that are gone, many at once and off everybody's way: deleting one
//! waits 16 to 36 ms for the kernel, deleting a whole group costs 0.4 ms a link.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::kernel::survey::Reapable;

/// The link group of what is to be deleted.
pub(crate) const GROUP: u32 = 4242;
/// How long the reaper gathers before it strikes.
const GATHER: Duration = Duration::from_millis(50);
/// It waits this much longer after a strike that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A handle to the reaper's thread, which ends when the last handle is gone and all is done.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    queued: Arc<AtomicUsize>,
    wake: Sender<()>,
}

impl Reaper {
    /// Starts it in the namespace of the calling thread. What an earlier life left is taken first.
    pub(crate) fn start() -> io::Result<Self> {
        let queued = Arc::new(AtomicUsize::new(0));
        let (wake, woken) = mpsc::channel();
        let mut links = Reapable::open()?;
        let left = links.count()?;
        queued.store(left, Ordering::Release);
        let thread = thread::Builder::new().name("reaper".to_owned());
        let counter = Arc::clone(&queued);
        thread.spawn(move || reap(&mut links, &counter, &woken))?;
        let reaper = Self { queued, wake };
        if left > 0 {
            reaper.wake();
        }
        Ok(reaper)
    }

    /// One more link is in the group.
    pub(crate) fn queue(&self) {
        self.queued.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// Links that are in the group and still stand.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // It is gone only when the whole datapath is.
        _ = self.wake.send(());
    }
}

fn reap(links: &mut Reapable, queued: &AtomicUsize, woken: &Receiver<()>) {
    let mut wait = GATHER;
    while queued.load(Ordering::Acquire) > 0 || woken.recv().is_ok() {
        thread::sleep(wait);
        woken.try_iter().for_each(drop);
        // A link is in the group before it is counted here: all that is due goes in one strike.
        let due = queued.load(Ordering::Acquire);
        match links.delete() {
            Ok(()) => {
                queued.fetch_sub(due, Ordering::AcqRel);
                wait = GATHER;
            }
            Err(error) => {
                tracing::warn!(%error, links = due, "links of deleted pods cannot be deleted");
                wait = PAUSE;
            }
        }
    }
}
