//! Who we are to the cloud.

mod first_of;
mod keys;
mod ram_role;
mod token_file;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::Instant;

pub use self::first_of::FirstOf;
pub(crate) use self::keys::Keys;
pub use self::ram_role::RamRole;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::token_file::decode;
pub use self::token_file::{TokenFile, TokenFileFault, TokenFileField};
use crate::{Metadata, MetadataError};

/// Where the keys come from.
#[derive(Debug)]
pub enum Credentials {
    /// A key of a user, for as long as the process lives.
    AccessKey(AccessKey),
    /// A session's keys in a file that the cluster renews.
    TokenFile(TokenFile),
    /// The role that the instance has, by the metadata service.
    RamRole(RamRole),
    /// Several of these; see [`Credentials::first_of`].
    FirstOf(FirstOf),
}

/// A key of a user.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// `access_key`.
    pub id: String,
    /// `access_secret`.
    pub secret: SecretString,
}

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The token file has no keys that serve.
    #[error("{field}; renew the secret addon.network.token, or correct credential_path", field = at(path, fault))]
    TokenFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        fault: TokenFileFault,
    },
    /// The metadata service gave none; perhaps the instance has no role.
    #[error("no keys of a RAM role; attach one to the instance, or set access_key")]
    RamRole(#[source] MetadataError),
    /// The role's keys have run out, and the metadata service has no others yet.
    #[error("the keys of the RAM role expired at {0}")]
    Expired(Timestamp),
    /// None of several sources has keys; why not, in their order.
    #[error("no usable credentials: {}", joined(_0))]
    NoneOf(Vec<Self>),
}

fn at(path: &std::path::Path, fault: &TokenFileFault) -> String {
    format!("token file {}: {fault}", path.display())
}

fn joined(errors: &[CredentialsError]) -> String {
    let errors: Vec<_> = errors.iter().map(chain).collect();
    errors.join("; ")
}

fn chain(error: &CredentialsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl Credentials {
    /// The file of the secret `addon.network.token`, at `credential_path`.
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::TokenFile(TokenFile::new(path.into()))
    }

    /// The role that the instance has.
    pub fn ram_role(metadata: Arc<Metadata>) -> Self {
        Self::RamRole(RamRole::new(metadata))
    }

    /// The first that has keys, asked anew for each call: a file that appears later is used then.
    /// A source that has none is warned of, once; which is used is said.
    pub fn first_of(sources: Vec<Self>) -> Self {
        Self::FirstOf(FirstOf::new(sources))
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
            Self::TokenFile(file) => file.keys(now, deadline).await,
            Self::RamRole(role) => role.keys(now, deadline).await,
            // A pointer between, for one holds others of its kind.
            Self::FirstOf(sources) => Box::pin(sources.keys(now, deadline)).await,
        }
    }

    /// The cloud says that these keys have expired. Whether others may be had now.
    pub(crate) fn forget(&self, keys: &Keys) -> bool {
        match self {
            Self::AccessKey(_) => false,
            Self::TokenFile(file) => file.forget(keys),
            Self::RamRole(role) => role.forget(keys),
            Self::FirstOf(sources) => sources.forget(keys),
        }
    }

    /// Until what was begun beside a call is done.
    #[cfg(test)]
    pub(crate) async fn settled(&self) {
        if let Self::RamRole(role) = self {
            role.settled().await;
        }
    }

    /// What it is, for a person.
    const fn name(&self) -> &'static str {
        match self {
            Self::AccessKey(_) => "access key",
            Self::TokenFile(_) => "token file",
            Self::RamRole(_) => "RAM role",
            Self::FirstOf(_) => "several",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
