//! What was heard in the attempts of one call, and what it comes to.

use std::time::Duration;

use crate::limit::Spent;
use crate::patience::Repeat;
use crate::{
    Action, ApiError, CloudError, CredentialsError, Effect, Meaning, Transport, TransportKind,
};

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: Why,
    pub(super) repeat: Repeat,
}

impl Failed {
    /// The cloud wants to be left alone for so long.
    pub(super) fn no_sooner_than(self, pause: Duration) -> Self {
        let repeat = match self.repeat {
            Repeat::After(least) => Repeat::After(least.max(pause)),
            other => other,
        };
        Self { repeat, ..self }
    }

    /// What a repetition would need, after what was heard before. `IdempotentFailed` is final, but
    /// not when it is an attempt of ours without an answer that is still being performed.
    pub(super) fn repeat_after(&self, history: &History) -> Repeat {
        match &self.why {
            Why::Api(error) if error.code == "IdempotentFailed" && history.is_open() => {
                Repeat::After(Duration::ZERO)
            }
            _ => self.repeat,
        }
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Why {
    Api(Box<ApiError>),
    Transport(Transport),
    Garbage { status: u16, reason: String, body: String },
    Budget(Spent),
    Credentials(CredentialsError),
}

/// What was heard in one call.
#[derive(Debug)]
pub(super) struct History {
    action: Action,
    attempts: u32,
    /// An attempt before the last one may have had an effect.
    may_have_acted: bool,
    refusal: Option<Box<ApiError>>,
    last: Option<Why>,
}

impl History {
    pub(super) const fn of(action: Action) -> Self {
        Self { action, attempts: 0, may_have_acted: false, refusal: None, last: None }
    }

    pub(super) fn note(&mut self, why: Why) {
        tracing::debug!(action = %self.action, ?why, "an attempt failed");
        if self.attempts > 0 && matches!(why, Why::Budget(_) | Why::Credentials(_)) {
            return; // It was not sent again; what was heard before says more.
        }
        self.attempts += 1;
        if let Some(Why::Api(earlier)) = self.last.replace(why) {
            self.refusal = Some(earlier);
        }
        self.may_have_acted |= self.last.as_ref().is_some_and(Why::may_have_acted);
    }

    /// Whether an attempt so far may have had an effect, now or later.
    pub(super) const fn is_open(&self) -> bool {
        self.may_have_acted
    }

    pub(super) fn end(self) -> CloudError {
        let Self { action, attempts, refusal, .. } = self;
        let error = match self.last {
            Some(Why::Api(error)) => CloudError::Refused(error),
            Some(Why::Garbage { status, reason, body }) => {
                CloudError::Garbage { action, status, reason, body, last: refusal }
            }
            Some(Why::Budget(Spent { per_minute, wait })) => {
                CloudError::Budget { action, per_minute, wait }
            }
            Some(Why::Credentials(source)) => CloudError::Credentials { action, source },
            Some(Why::Transport(source)) => {
                CloudError::NoAnswer { action, attempts, last: refusal, source }
            }
            None => unreachable!("a call ends after an attempt"),
        };
        let unknown = self.may_have_acted && action.effect() == Effect::Write;
        match error {
            // It says itself that it may have had an effect.
            garbage @ CloudError::Garbage { .. } if attempts == 1 => garbage,
            error if unknown => CloudError::Unknown { action, attempts, last: Box::new(error) },
            error => error,
        }
    }
}

impl Why {
    /// Whether a write that failed so may have been performed.
    const fn may_have_acted(&self) -> bool {
        match self {
            Self::Api(error) => matches!(error.meaning, Meaning::Unavailable),
            Self::Transport(transport) => matches!(transport.kind, TransportKind::Sent),
            Self::Garbage { .. } => true,
            Self::Budget(_) | Self::Credentials(_) => false,
        }
    }
}
