//! What a request is signed with.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What a request is signed with.
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    /// A session's.
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

    /// Whether they are of one session.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let token = |keys: &Self| keys.token.as_ref().map(|token| token.expose_secret().to_owned());
        self.id == other.id && token(self) == token(other)
    }
}
