//! What can go wrong with a call, and whether the cloud may have acted all the same.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use model::VSwitchId;

use crate::{Action, CredentialsError, Effect};

/// A call that failed. It names the action; [`CloudError::api`] has the cloud's last word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// The cloud said no, and nothing happened.
    #[error(transparent)]
    Refused(Box<ApiError>),
    /// A write was sent and may have been performed, or may be later: no answer came, or none that
    /// tells. Describe the object before anything else is done to it.
    #[error("{action}: outcome unknown after {attempts} attempts, it may still take effect")]
    Unknown {
        /// What was asked.
        action: Action,
        /// How often it was sent.
        attempts: u32,
        /// What was heard last.
        #[source]
        last: Box<Self>,
    },
    /// A read without an answer, or a write that never left this host: nothing happened.
    #[error("{action}: no answer after {attempts} attempts{}", after(last.as_deref()))]
    NoAnswer {
        /// What was asked.
        action: Action,
        /// How often it was tried.
        attempts: u32,
        /// The refusal before that, if there was one.
        last: Option<Box<ApiError>>,
        /// Why there was no answer.
        #[source]
        source: Transport,
    },
    /// An answer that is not one: no JSON, a field missing or of another form.
    #[error(
        "{action}: answer with status {status} not understood ({reason}): {body:?}{}",
        after(last.as_deref())
    )]
    Garbage {
        /// What was asked.
        action: Action,
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
        /// How it begins.
        body: String,
        /// The refusal before that, if there was one.
        last: Option<Box<ApiError>>,
    },
    /// It breaks a limit that the API has for one call: nothing was sent.
    #[error("{action}: not sent, for it has {rule}")]
    NotSent {
        /// What was asked.
        action: Action,
        /// What it has, and what the API takes.
        rule: String,
    },
    /// Our own budget for the action has no room before the deadline: nothing was sent.
    #[error(
        "{action}: the budget of {per_minute} calls a minute has no room before the deadline, \
         the next in {wait:?}; raise rate_limit.{action} if the cloud allows more"
    )]
    Budget {
        /// What was asked.
        action: Action,
        /// The budget.
        per_minute: NonZeroU32,
        /// Until there is room.
        wait: Duration,
    },
    /// No key to sign with: nothing was sent.
    #[error("{action}: no credentials")]
    Credentials {
        /// What was asked.
        action: Action,
        /// Why.
        #[source]
        source: CredentialsError,
    },
}

/// Whether a call that failed may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Surely none.
    None,
    /// Perhaps, now or later.
    Unknown,
}

impl CloudError {
    /// What was asked.
    pub fn action(&self) -> Action {
        match self {
            Self::Refused(error) => error.action,
            Self::Unknown { action, .. }
            | Self::NoAnswer { action, .. }
            | Self::Garbage { action, .. }
            | Self::NotSent { action, .. }
            | Self::Budget { action, .. }
            | Self::Credentials { action, .. } => *action,
        }
    }

    /// The cloud's last word, also when the call failed otherwise after it.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Unknown { last, .. } => last.api(),
            Self::NoAnswer { last, .. } | Self::Garbage { last, .. } => last.as_deref(),
            Self::NotSent { .. } | Self::Budget { .. } | Self::Credentials { .. } => None,
        }
    }

    /// What the cloud's last word means.
    pub fn meaning(&self) -> Option<&Meaning> {
        self.api().map(|error| &error.meaning)
    }

    /// How long to leave it alone, where somebody said so: the cloud in its last word, or our own
    /// budget.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Budget { wait, .. } => Some(*wait),
            _ => self.api().and_then(|error| error.retry_after),
        }
    }

    /// Whether it may have had an effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown { .. } => Outcome::Unknown,
            Self::Garbage { action, .. } if action.effect() == Effect::Write => Outcome::Unknown,
            _ => Outcome::None,
        }
    }
}

fn after(last: Option<&ApiError>) -> String {
    last.map(|error| format!(", before that: {error}")).unwrap_or_default()
}

/// The cloud's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {code} (status {status}, request {request_id}): {message}")]
pub struct ApiError {
    /// What was asked.
    pub action: Action,
    /// HTTP status.
    pub status: u16,
    /// `Code`.
    pub code: String,
    /// `Message`.
    pub message: String,
    /// `RequestId`: what the cloud's support asks for.
    pub request_id: String,
    /// What the code means to us.
    pub meaning: Meaning,
    /// How long the cloud wants to be left alone (`x-acs-retry-after` or `Retry-After`).
    pub retry_after: Option<Duration>,
}

/// What a code means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The vSwitch has no address left: leave it alone for a while, take the next.
    VSwitchExhausted {
        /// Which, where the request named it.
        vswitch: Option<VSwitchId>,
    },
    /// The instance has all the ENIs that its type allows: read the truth, create none.
    EniQuota,
    /// The ENI has all the IPv4 addresses that the type allows: read the truth.
    V4Quota,
    /// The ENI has all the IPv6 addresses that the type allows: read the truth.
    V6Quota,
    /// The address asked for is assigned to somebody, perhaps to this very ENI: read the truth.
    AddressTaken,
    /// The account, region or security group has all it is allowed of something: a person must
    /// act.
    AccountQuota,
    /// Too many calls: wait.
    Throttled,
    /// Another write to the same object is on its way: again a little later.
    Conflict,
    /// It is not there, or not any more.
    NotFound(Thing),
    /// The ENI is in a state that does not allow it: describe it.
    EniState,
    /// The instance is in a state that does not allow it.
    InstanceState,
    /// The token was used with other parameters, or its intent failed for good: a new intent.
    TokenMismatch,
    /// The session's credentials have run out.
    ExpiredCredentials,
    /// Our clock is wrong by more than the cloud allows.
    Clock,
    /// Wrong key or signature, or no permission: a person must act.
    Forbidden,
    /// The cloud's own failure: wait.
    Unavailable,
    /// Anything else, mostly a parameter that is wrong.
    Other,
}

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    /// An ENI.
    Eni,
    /// An instance.
    Instance,
    /// An address on the ENI.
    Address,
    /// A vSwitch.
    VSwitch,
    /// A security group.
    SecurityGroup,
    /// An instance type.
    InstanceType,
}

impl Meaning {
    /// Whether the same call may succeed a little later.
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Throttled | Self::Conflict | Self::Unavailable)
    }
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// How far it got.
    pub kind: TransportKind,
    /// The chain of causes.
    pub text: String,
}

/// How far a call without an answer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// No connection: nothing was sent.
    Connect,
    /// It was sent, or may have been.
    Sent,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Transport {}
