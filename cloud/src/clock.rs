//! The wall clock, which the cloud wants to see in every request and may find wrong.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// Our clock, and by how much the cloud's differs.
#[derive(Debug)]
pub(crate) struct Clock {
    read: fn() -> Timestamp,
    skew_seconds: AtomicI64,
}

impl Clock {
    /// The machine's.
    pub(crate) fn system() -> Self {
        Self::reading(system_time)
    }

    /// Some other.
    pub(crate) const fn reading(read: fn() -> Timestamp) -> Self {
        Self { read, skew_seconds: AtomicI64::new(0) }
    }

    /// The time as the cloud sees it, as far as we know.
    pub(crate) fn now(&self) -> Timestamp {
        let skew = SignedDuration::from_secs(self.skew_seconds.load(Ordering::Relaxed));
        let now = (self.read)();
        now.checked_add(skew).unwrap_or(now)
    }

    /// Takes the cloud's word, seconds fine.
    pub(crate) fn correct(&self, cloud: Timestamp) {
        let skew = cloud.duration_since((self.read)()).as_secs();
        self.skew_seconds.store(skew, Ordering::Relaxed);
        tracing::warn!(skew_seconds = skew, "this host's clock differs from the cloud's");
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock in this crate")]
fn system_time() -> Timestamp {
    Timestamp::now()
}
