//! The role that the instance has: keys of a session, by the metadata service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{CredentialsError, Keys};
use crate::{Metadata, MetadataError};

/// Keys are fetched anew when they have less than this left.
const REFRESH: SignedDuration = SignedDuration::from_mins(15);
/// They are not asked for more often than this while the ones at hand still serve.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// A fetch that nobody waits for takes at most this.
const FETCH: Duration = Duration::from_secs(20);

/// The role that the instance has. Keys that near their end are renewed beside the call that finds
/// it: no call waits for the metadata service while the old ones serve.
#[derive(Debug)]
pub struct RamRole {
    inner: Arc<Inner>,
    renewal: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    metadata: Arc<Metadata>,
    cache: Mutex<Option<Session>>,
}

#[derive(Debug, Clone)]
struct Session {
    keys: Arc<Keys>,
    expires: Timestamp,
    asked: Timestamp,
}

/// What can be done with a session now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Sign.
    Sign,
    /// Sign, and fetch the next.
    SignAndRenew,
    /// Nothing.
    Ended,
}

impl RamRole {
    pub(super) fn new(metadata: Arc<Metadata>) -> Self {
        let inner = Arc::new(Inner { metadata, cache: Mutex::new(None) });
        Self { inner, renewal: Mutex::new(None) }
    }

    /// Two callers without keys may fetch at once: that is harmless, and nobody waits for a lock.
    pub(super) async fn keys(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Keys>, CredentialsError> {
        let cached = self.inner.cached().clone();
        match cached.map(|session| (session.at(now), session.keys)) {
            Some((Use::Sign, keys)) => Ok(keys),
            Some((Use::SignAndRenew, keys)) => {
                self.renew(now);
                Ok(keys)
            }
            Some((Use::Ended, _)) | None => self.inner.fetch(now, deadline).await,
        }
    }

    pub(super) fn forget(&self, keys: &Keys) -> bool {
        let mut cached = self.inner.cached();
        if cached.as_ref().is_some_and(|session| session.keys.same_as(keys)) {
            *cached = None;
        }
        true
    }

    /// Starts to, unless that is under way. The task ends by itself, and with us.
    fn renew(&self, now: Timestamp) {
        let mut renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        if renewal.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.inner.note_asked(now);
        let inner = Arc::clone(&self.inner);
        *renewal = Some(tokio::spawn(async move {
            if let Err(error) = inner.fetch(now, Instant::now() + FETCH).await {
                let error = super::chain(&error);
                tracing::warn!(error, "the RAM role's keys are not renewed; the old ones serve on");
            }
        }));
    }

    /// Until what was begun is done.
    #[cfg(test)]
    pub(super) async fn settled(&self) {
        let renewal = self.renewal.lock().unwrap().take();
        if let Some(task) = renewal {
            task.await.unwrap();
        }
    }
}

impl Drop for RamRole {
    fn drop(&mut self) {
        let renewal = self.renewal.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = renewal {
            task.abort();
        }
    }
}

impl Inner {
    async fn fetch(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Keys>, CredentialsError> {
        let session = self.ask(now, deadline).await.map_err(CredentialsError::RamRole)?;
        if session.expires <= now {
            return Err(CredentialsError::Expired(session.expires));
        }
        let keys = Arc::clone(&session.keys);
        *self.cached() = Some(session);
        Ok(keys)
    }

    async fn ask(&self, now: Timestamp, deadline: Instant) -> Result<Session, MetadataError> {
        let role = self.metadata.role_credentials(deadline).await?;
        let (id, secret) = (role.id, role.secret);
        let keys = Arc::new(Keys { id, secret, token: Some(role.token) });
        Ok(Session { keys, expires: role.expires, asked: now })
    }

    fn note_asked(&self, now: Timestamp) {
        if let Some(session) = self.cached().as_mut() {
            session.asked = now;
        }
    }

    fn cached(&self) -> MutexGuard<'_, Option<Session>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn at(&self, now: Timestamp) -> Use {
        if self.expires <= now {
            Use::Ended
        } else if self.expires.duration_since(now) > REFRESH
            || now.duration_since(self.asked).abs() < PAUSE
        {
            Use::Sign
        } else {
            Use::SignAndRenew
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_shortly_before_it_ends_and_serves_until_then() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let keys = Arc::new(Keys { id: String::new(), secret: "".into(), token: None });
        let session = Session { keys, expires: at(10_000), asked: at(0) };
        assert_eq!(session.at(at(9_099)), Use::Sign);
        assert_eq!(session.at(at(9_100)), Use::SignAndRenew, "fifteen minutes are left");
        let asked = Session { asked: at(9_100), ..session };
        assert_eq!(asked.at(at(9_129)), Use::Sign, "asked a moment ago");
        assert_eq!(asked.at(at(9_130)), Use::SignAndRenew);
        assert_eq!(Session { asked: at(9_999), ..asked }.at(at(10_000)), Use::Ended);
    }
}
