//! The instance metadata service: what a virtual machine can ask about itself. A hint, not a
//! proof: it lags behind the API.

/// Why the metadata service gave no fact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No answer.
    #[error("{path}: no answer")]
    NoAnswer {
        /// What was asked for.
        path: String,
        /// Why.
        #[source]
        source: crate::Transport,
    },
    /// There is no such fact.
    #[error("{path}: not found")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// Another status than 200.
    #[error("{path}: status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer of another form than the fact has.
    #[error("{path}: answer not understood ({reason}): {body:?}")]
    Garbage {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// How it begins.
        body: String,
    },
}
