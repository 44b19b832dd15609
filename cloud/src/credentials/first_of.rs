//! Several sources of keys: the first that has some.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Credentials, CredentialsError, Keys, chain};

/// Several sources of keys, in their order.
#[derive(Debug)]
pub struct FirstOf {
    sources: Vec<Credentials>,
    said: Mutex<Said>,
}

/// What a person was told.
#[derive(Debug, Default)]
struct Said {
    /// Which source is used.
    used: Option<usize>,
    /// Why those before it are not.
    passed_over: Vec<String>,
}

impl FirstOf {
    pub(super) fn new(sources: Vec<Credentials>) -> Self {
        Self { sources, said: Mutex::default() }
    }

    pub(super) async fn keys(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Keys>, CredentialsError> {
        let mut errors = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            match source.keys(now, deadline).await {
                Ok(keys) => {
                    self.say(index, &errors);
                    return Ok(keys);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(CredentialsError::NoneOf(errors))
    }

    pub(super) fn forget(&self, keys: &Keys) -> bool {
        let mut others = false;
        for source in &self.sources {
            others |= source.forget(keys);
        }
        others
    }

    /// Once, and again when it changes.
    fn say(&self, index: usize, errors: &[CredentialsError]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_over: Vec<_> = errors.iter().map(chain).collect();
        for (index, error) in passed_over.iter().enumerate() {
            if said.passed_over.get(index) != Some(error) {
                let source = self.sources.get(index).map_or("", Credentials::name);
                tracing::warn!(source, error, "credentials cannot be used; the next are taken");
            }
        }
        if said.used != Some(index) {
            let source = self.sources.get(index).map_or("", Credentials::name);
            tracing::info!(source, "these credentials are used");
        }
        *said = Said { used: Some(index), passed_over };
    }
}
