//! The token file: keys of a session, encrypted beside their key, that the cluster writes anew from
//! time to time (the secret `addon.network.token`).

mod decode;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::fs;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::decode::decode;
pub use self::decode::{TokenFileFault, TokenFileField};
use super::{CredentialsError, Keys};

/// It is read anew at least this often.
const REREAD: Duration = Duration::from_mins(30);
/// A file with more bytes than this is something else.
const LARGEST: u64 = 64 * 1024;

/// The token file. It is read when it has changed, every 30 minutes, and when the cloud says that
/// its session has expired. What was read last serves on while it is valid and the file is not
/// readable.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Session>,
    /// The cloud does not take them any more.
    expired: Option<Arc<Keys>>,
    /// What a person was told last.
    said: Option<TokenFileFault>,
}

#[derive(Debug, Clone)]
struct Session {
    keys: Arc<Keys>,
    expires: Timestamp,
    /// Of the file that it is from.
    modified: SystemTime,
    read: Instant,
}

impl TokenFile {
    /// Where the pods of the daemon have it.
    pub const DEFAULT_PATH: &'static str = "/var/addon/token-config";

    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    pub(super) async fn keys(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Keys>, CredentialsError> {
        let read = timeout_at(deadline, self.read()).await;
        let read = read.unwrap_or(Err(TokenFileFault::TooSlow));
        match read.and_then(|session| self.take(session, now)) {
            Ok(keys) => Ok(keys),
            Err(fault) => self.serve_on(now, fault),
        }
    }

    pub(super) fn forget(&self, keys: &Keys) -> bool {
        let mut state = self.state();
        if let Some(session) = state.session.take_if(|session| session.keys.same_as(keys)) {
            state.expired = Some(session.keys);
        }
        true
    }

    /// What is in the file; it is not opened when that is known.
    async fn read(&self) -> Result<Session, TokenFileFault> {
        let unreadable = |error: std::io::Error| TokenFileFault::Unreadable(error.to_string());
        let modified = fs::metadata(&self.path).await.and_then(|file| file.modified());
        let modified = modified.map_err(unreadable)?;
        let known = |known: &&Session| known.modified == modified && known.read.elapsed() < REREAD;
        if let Some(session) = self.state().session.as_ref().filter(known) {
            return Ok(session.clone());
        }
        let file = fs::File::open(&self.path).await.map_err(unreadable)?;
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text).await.map_err(unreadable)?;
        if text.len() > usize::try_from(LARGEST).unwrap_or(usize::MAX) {
            return Err(TokenFileFault::TooLarge);
        }
        let (keys, expires) = decode(&text)?;
        Ok(Session { keys: Arc::new(keys), expires, modified, read: Instant::now() })
    }

    /// Takes what was read over, if it serves.
    fn take(&self, session: Session, now: Timestamp) -> Result<Arc<Keys>, TokenFileFault> {
        let mut state = self.state();
        if state.expired.as_ref().is_some_and(|expired| expired.same_as(&session.keys)) {
            return Err(TokenFileFault::Refused);
        }
        if session.expires <= now {
            return Err(TokenFileFault::Expired(session.expires));
        }
        let keys = Arc::clone(&session.keys);
        *state = State { session: Some(session), ..State::default() };
        Ok(keys)
    }

    /// The last keys, while they are valid.
    fn serve_on(
        &self,
        now: Timestamp,
        fault: TokenFileFault,
    ) -> Result<Arc<Keys>, CredentialsError> {
        let mut state = self.state();
        let valid = state.session.as_ref().filter(|session| session.expires > now);
        let Some(Session { keys, expires, .. }) = valid.cloned() else {
            return Err(CredentialsError::TokenFile { path: self.path.clone(), fault });
        };
        if state.said.as_ref() != Some(&fault) {
            let path = self.path.display();
            tracing::warn!(%path, error = %fault, %expires, "the token file cannot be used; the last keys of it serve until they expire");
            state.said = Some(fault);
        }
        Ok(keys)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
