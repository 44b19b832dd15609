//! One call: signed, sent, judged, and repeated while it may help.

mod history;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use model::RegionId;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::history::{Failed, History, Why};
use self::wire::{HttpAnswer, cloud_time, exchange, no_answer, read_answer, refusal, signed};
use crate::answer::Misread;
use crate::clock::Clock;
use crate::credentials::{Credentials, Keys};
use crate::limit::Budgets;
use crate::patience::{Patience, Repeat};
use crate::request::Parameters;
use crate::{
    Action, ApiError, CallOptions, CloudError, Endpoints, Meaning, RateLimits, SetupError, http,
};

/// A throttled call rests at least this long.
const THROTTLED: Duration = Duration::from_secs(1);

/// What a [`Client`] needs to know.
#[derive(Debug)]
pub struct ClientOptions {
    /// Where the instance is.
    pub region: RegionId,
    /// Where the API is.
    pub endpoints: Endpoints,
    /// Who we are.
    pub credentials: Credentials,
    /// `rate_limit`.
    pub rate_limits: RateLimits,
    /// One attempt takes at most this; then the same is sent again.
    pub attempt_timeout: Duration,
    /// For so long the same is sent again after a refusal that may pass. The caller hears of it
    /// then, long before the deadline, and repeats by its own rules.
    pub repeat_for: Duration,
}

impl ClientOptions {
    /// An attempt's time when nobody says otherwise.
    pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

    /// For a caller that has its own rules: a hiccup is not worth its while.
    pub const REPEAT_FOR: Duration = Duration::from_secs(1);
}

/// The client of the real API; one for the process.
#[derive(Debug)]
pub struct Client {
    pub(crate) region: RegionId,
    endpoints: Endpoints,
    credentials: Mutex<Arc<Credentials>>,
    repeat_for: Duration,
    budgets: Budgets,
    http: reqwest::Client,
    clock: Clock,
    last_error: Mutex<Option<LastError>>,
}

/// The last time that the cloud refused something, or did not answer; for a person who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When, by the cloud's clock.
    pub at: Timestamp,
    /// The action, the code and the `RequestId`, as [`CloudError`] says them.
    pub error: String,
}

impl Client {
    /// A client that uses the machine's clock.
    pub fn new(options: ClientOptions) -> Result<Self, SetupError> {
        Self::with_clock(options, Clock::system())
    }

    pub(crate) fn with_clock(options: ClientOptions, clock: Clock) -> Result<Self, SetupError> {
        let tls =
            if options.endpoints.any_tls() { http::Tls::SystemRoots } else { http::Tls::None };
        Ok(Self {
            region: options.region,
            endpoints: options.endpoints,
            credentials: Mutex::new(Arc::new(options.credentials)),
            repeat_for: options.repeat_for,
            budgets: Budgets::new(&options.rate_limits),
            http: http::client(tls, options.attempt_timeout)?,
            clock,
            last_error: Mutex::new(None),
        })
    }

    /// Changes `rate_limit` while calls are made. What was spent in the last minute counts against
    /// the new budgets; who waits for room is served or refused by them.
    pub fn set_rate_limits(&self, limits: &RateLimits) {
        self.budgets.set(limits);
    }

    /// How long the calls of each action have waited for their budget since the start.
    pub fn budget_waits(&self) -> impl Iterator<Item = (Action, Duration)> {
        self.budgets.waits()
    }

    /// Changes who we are while calls are made: those that are still to be sent are signed so.
    pub fn set_credentials(&self, credentials: Credentials) {
        let credentials = Arc::new(credentials);
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last failure of any attempt, also one that a repetition has overcome.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, error: String) {
        let last = LastError { at: self.clock.now(), error };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// Asks until there is an answer that `read` understands, or the deadline.
    pub(crate) async fn call<W: DeserializeOwned, T>(
        &self,
        action: Action,
        parameters: &Parameters,
        options: CallOptions,
        read: fn(W) -> Result<T, Misread>,
    ) -> Result<T, CloudError> {
        let mut patience = Patience::until(options.deadline.min(Instant::now() + self.repeat_for));
        let mut history = History::of(action);
        loop {
            let failed = match self.attempt(action, parameters, options).await {
                Ok((status, body)) => match read_answer(status, &body, read) {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            let repeat = failed.repeat_after(&history);
            if let Why::Api(refusal) = &failed.why {
                self.keep(refusal.to_string());
            }
            history.note(failed.why);
            if !patience.wait(repeat).await {
                let error = history.end();
                if !matches!(error, CloudError::Refused(_)) {
                    self.keep(chain(&error));
                }
                return Err(error);
            }
        }
    }

    async fn attempt(
        &self,
        action: Action,
        parameters: &Parameters,
        options: CallOptions,
    ) -> Result<(u16, Vec<u8>), Failed> {
        let deadline = options.deadline;
        let room = self.budgets.take(action, options).await;
        room.map_err(|spent| Failed { why: Why::Budget(spent), repeat: Repeat::No })?;
        let now = self.clock.now();
        let credentials = self.credentials();
        let keys = credentials.keys(now, deadline).await;
        let keys =
            keys.map_err(|error| Failed { why: Why::Credentials(error), repeat: Repeat::No })?;
        let url = self.endpoints.of(action.product());
        let request = signed(&self.http, url, action, parameters, &keys, now);
        let sent = Instant::now();
        let answer = exchange(request, deadline).await.map_err(no_answer)?;
        let status = answer.status;
        tracing::debug!(%action, status, elapsed = ?sent.elapsed(), "the cloud answered");
        if (200..300).contains(&status) {
            return Ok((status, answer.body));
        }
        let error = refusal(action, &answer, parameters.get("VSwitchId"), &keys, now)?;
        let repeat = self.remedy(&error, &answer, &credentials, &keys);
        Err(Failed { why: Why::Api(error), repeat })
    }

    /// Puts right what can be, and says what a repetition would need.
    fn remedy(
        &self,
        error: &ApiError,
        answer: &HttpAnswer,
        credentials: &Credentials,
        keys: &Keys,
    ) -> Repeat {
        match &error.meaning {
            Meaning::Clock => match cloud_time(&answer.headers) {
                Some(time) => {
                    self.clock.correct(time);
                    Repeat::AtOnce
                }
                None => Repeat::No,
            },
            Meaning::ExpiredCredentials if credentials.forget(keys) => Repeat::AtOnce,
            Meaning::Throttled => Repeat::After(error.retry_after.unwrap_or(THROTTLED)),
            passing if passing.passes() => Repeat::After(error.retry_after.unwrap_or_default()),
            _ => Repeat::No,
        }
    }
}

fn chain(error: &CloudError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
