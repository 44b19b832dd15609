//! Who we are to the cloud.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{Metadata, MetadataError};

/// Keys of a role are fetched anew when they have less than this left.
const REFRESH: SignedDuration = SignedDuration::from_mins(15);
/// They are not asked for more often than this while the ones at hand still serve.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// Where the keys come from.
#[derive(Debug)]
pub enum Credentials {
    /// A key of a user, for as long as the process lives.
    AccessKey(AccessKey),
    /// The role that the instance has, by the metadata service.
    RamRole(RamRole),
}

/// A key of a user.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// `access_key`.
    pub id: String,
    /// `access_secret`.
    pub secret: SecretString,
}

/// The role that the instance has.
#[derive(Debug)]
pub struct RamRole {
    metadata: Arc<Metadata>,
    cache: Mutex<Option<Session>>,
}

#[derive(Debug, Clone)]
struct Session {
    keys: Arc<Keys>,
    expires: Timestamp,
    fetched: Timestamp,
}

/// What a request is signed with.
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    pub(crate) token: Option<SecretString>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Keys {
    /// The cloud's text without our secrets: it repeats the request when a signature is wrong.
    pub(crate) fn redact(&self, text: &str) -> String {
        let secrets = [Some(&self.secret), self.token.as_ref()];
        let redact = |text: String, secret: &SecretString| match secret.expose_secret() {
            "" => text,
            secret => text.replace(secret, "[redacted]"),
        };
        secrets.into_iter().flatten().fold(text.to_owned(), redact)
    }
}

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The metadata service gave none; perhaps the instance has no role.
    #[error("no keys of a RAM role; attach one to the instance, or set access_key")]
    RamRole(#[source] MetadataError),
    /// The role's keys have run out, and the metadata service has no others yet.
    #[error("the keys of the RAM role expired at {0}")]
    Expired(Timestamp),
}

impl Credentials {
    /// The role that the instance has.
    pub const fn ram_role(metadata: Arc<Metadata>) -> Self {
        Self::RamRole(RamRole { metadata, cache: Mutex::new(None) })
    }

    pub(crate) async fn keys(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Keys>, CredentialsError> {
        match self {
            Self::AccessKey(key) => {
                let (id, secret) = (key.id.clone(), key.secret.clone());
                Ok(Arc::new(Keys { id, secret, token: None }))
            }
            Self::RamRole(role) => role.keys(now, deadline).await,
        }
    }

    /// The cloud says that the keys have expired. Whether others may be had now.
    pub(crate) fn forget(&self) -> bool {
        match self {
            Self::AccessKey(_) => false,
            Self::RamRole(role) => {
                *role.cache.lock().unwrap_or_else(PoisonError::into_inner) = None;
                true
            }
        }
    }
}

impl RamRole {
    /// Two callers may fetch at once: that is harmless, and nobody waits for a lock.
    async fn keys(&self, now: Timestamp, deadline: Instant) -> Result<Arc<Keys>, CredentialsError> {
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(session) = &cached
            && session.serves(now)
        {
            return Ok(Arc::clone(&session.keys));
        }
        let session = match (self.fetch(now, deadline).await, cached) {
            (Ok(session), _) => session,
            (Err(error), Some(old)) if old.expires > now => {
                tracing::warn!(%error, expires = %old.expires, "the RAM role's keys were not renewed");
                Session { fetched: now, ..old }
            }
            (Err(error), _) => return Err(CredentialsError::RamRole(error)),
        };
        if session.expires <= now {
            return Err(CredentialsError::Expired(session.expires));
        }
        let keys = Arc::clone(&session.keys);
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        Ok(keys)
    }

    async fn fetch(&self, now: Timestamp, deadline: Instant) -> Result<Session, MetadataError> {
        let role = self.metadata.role_credentials(deadline).await?;
        let (id, secret) = (role.id, role.secret);
        let keys = Arc::new(Keys { id, secret, token: Some(role.token) });
        Ok(Session { keys, expires: role.expires, fetched: now })
    }
}

impl Session {
    fn serves(&self, now: Timestamp) -> bool {
        let fresh = self.expires.duration_since(now) > REFRESH;
        let asked = now.duration_since(self.fetched) < PAUSE && self.expires > now;
        fresh || asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_neither_printed_nor_repeated() {
        let keys =
            Keys { id: "AK".to_owned(), secret: "sesame".into(), token: Some("CAIS".into()) };
        assert_eq!(format!("{keys:?}"), "Keys { id: \"AK\", .. }");
        assert_eq!(keys.redact("sign:AK sesame CAIS"), "sign:AK [redacted] [redacted]");
        let key =
            Credentials::AccessKey(AccessKey { id: "AK".to_owned(), secret: "sesame".into() });
        assert!(!format!("{key:?}").contains("sesame"));
    }

    #[test]
    fn a_session_serves_until_shortly_before_it_ends() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let keys = Arc::new(Keys { id: String::new(), secret: "".into(), token: None });
        let session = Session { keys, expires: at(10_000), fetched: at(0) };
        assert!(session.serves(at(9_099)));
        assert!(!session.serves(at(9_100)), "fifteen minutes are left");
        let renewed = Session { fetched: at(9_100), ..session };
        assert!(renewed.serves(at(9_129)), "asked a moment ago");
        assert!(!renewed.serves(at(9_130)));
        assert!(!Session { fetched: at(9_999), ..renewed }.serves(at(10_000)), "it has ended");
    }
}
