//! What is asked of the cloud for ENIs, as values: a reconciler says it, [`perform`] does it.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud::{
    AttachEni, CallOptions, ClientToken, CloudError, CreateEni, DetachEni, Ecs, EniFilter, Meaning,
};
use model::EniId;

use crate::TOKEN_TAG;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Look for an ENI that carries the token.
    Find(ClientToken),
    /// Make it; the token is inside.
    Create(Box<CreateEni>),
    /// Look at these, at most [`Call::DESCRIBE_AT_MOST`].
    Describe(Vec<EniId>),
    /// Change one.
    Change(ClientToken, Change),
}

/// A change of an ENI that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Attach it.
    Attach(AttachEni),
    /// Detach it.
    Detach(DetachEni),
    /// Delete it.
    Delete(EniId),
}

/// Which change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Attach,
    /// Detach.
    Detach,
    /// Delete.
    Delete,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Call::Find`].
    Found(ClientToken, Result<Vec<cloud::Eni>, CallError>),
    /// To [`Call::Create`].
    Created(ClientToken, Result<Box<cloud::Eni>, CallError>),
    /// To [`Call::Describe`], with the ids that were asked for.
    Described(Vec<EniId>, Result<Vec<cloud::Eni>, CallError>),
    /// To [`Call::Change`].
    Changed(ClientToken, Verb, Result<(), CallError>),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The cloud, or the way there.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The intent could not be written down, so nothing was sent.
    #[error("not sent, for the intent could not be written down: {0}")]
    NotRecorded(String),
}

impl CallError {
    /// Whether the cloud, or our own budget for it, has no room for the moment.
    pub fn is_throttled(&self) -> bool {
        let Self::Cloud(error) = self else { return false };
        matches!(error, CloudError::Budget { .. }) || error.meaning() == Some(&Meaning::Throttled)
    }
}

impl CallError {
    /// How long the cloud asks us to wait, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Cloud(error) => error.retry_after(),
            Self::NotRecorded(_) => None,
        }
    }
}

impl Call {
    /// How many ENIs one Describe may name.
    pub const DESCRIBE_AT_MOST: usize = 100;

    /// The answer if it was never made.
    pub fn unsent(self, error: CallError) -> Answer {
        match self {
            Self::Find(token) => Answer::Found(token, Err(error)),
            Self::Create(request) => Answer::Created(request.token, Err(error)),
            Self::Describe(ids) => Answer::Described(ids, Err(error)),
            Self::Change(token, change) => Answer::Changed(token, change.verb(), Err(error)),
        }
    }
}

impl Change {
    /// Which.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Attach(_) => Verb::Attach,
            Self::Detach(_) => Verb::Detach,
            Self::Delete(_) => Verb::Delete,
        }
    }
}

impl Answer {
    /// Why it failed.
    pub fn error(&self) -> Option<&CallError> {
        match self {
            Self::Found(_, result) | Self::Described(_, result) => result.as_ref().err(),
            Self::Created(_, result) => result.as_ref().err(),
            Self::Changed(_, _, result) => result.as_ref().err(),
        }
    }
}

/// Makes the call; it ends by its deadline.
pub async fn perform<E: Ecs>(ecs: &E, call: Call, options: CallOptions) -> Answer {
    match call {
        Call::Find(token) => {
            let tags = BTreeMap::from([(TOKEN_TAG.to_owned(), token.to_string())]);
            let filter = EniFilter { tags, ..EniFilter::default() };
            let found = ecs.describe_enis(&filter, options).await;
            Answer::Found(token, found.map_err(CallError::from))
        }
        Call::Create(request) => {
            let made = ecs.create_eni(&request, options).await;
            Answer::Created(request.token, made.map(Box::new).map_err(CallError::from))
        }
        Call::Describe(ids) => {
            let filter = EniFilter { ids, ..EniFilter::default() };
            let found = ecs.describe_enis(&filter, options).await;
            Answer::Described(filter.ids, found.map_err(CallError::from))
        }
        Call::Change(token, change) => {
            let done = match &change {
                Change::Attach(request) => ecs.attach_eni(request, options).await,
                Change::Detach(request) => ecs.detach_eni(request, options).await,
                Change::Delete(id) => ecs.delete_eni(id, options).await,
            };
            Answer::Changed(token, change.verb(), done.map_err(CallError::from))
        }
    }
}
