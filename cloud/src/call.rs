//! One call: signed, sent, judged, and repeated while it may help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use model::RegionId;
use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, DATE, HeaderMap};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::answer::{Misread, Refusal, from_json};
use crate::clock::Clock;
use crate::credentials::{Credentials, Keys};
use crate::limit::{Budgets, Spent};
use crate::patience::{Patience, Repeat};
use crate::request::Parameters;
use crate::sign::{Unsigned, content_sha256, query};
use crate::{
    Action, ApiError, CallOptions, CloudError, CredentialsError, Effect, Endpoints, Meaning,
    RateLimits, SetupError, Transport, TransportKind, code, http,
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
}

/// One attempt that failed.
#[derive(Debug)]
struct Failed {
    why: Why,
    repeat: Repeat,
}

#[derive(Debug)]
enum Why {
    Api(ApiError),
    Transport(Transport),
    Garbage { status: u16, reason: String, body: String },
    Budget(Spent),
    Credentials(CredentialsError),
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
        })
    }

    /// Changes `rate_limit` while calls are made. What was spent in the last minute counts against
    /// the new budgets; who waits for room is served or refused by them.
    pub fn set_rate_limits(&self, limits: &RateLimits) {
        self.budgets.set(limits);
    }

    /// Changes who we are while calls are made: those that are still to be sent are signed so.
    pub fn set_credentials(&self, credentials: Credentials) {
        let credentials = Arc::new(credentials);
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.lock().unwrap_or_else(PoisonError::into_inner))
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
            let repeat = failed.repeat;
            history.note(failed.why);
            if !patience.wait(repeat).await {
                return Err(history.end());
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
        let (status, headers, body) = exchange(request, deadline).await.map_err(no_answer)?;
        tracing::debug!(%action, status, elapsed = ?sent.elapsed(), "the cloud answered");
        if (200..300).contains(&status) {
            return Ok((status, body));
        }
        let vswitch = parameters.get("VSwitchId");
        Err(match refusal(action, status, &body, vswitch, &keys) {
            Ok(error) => {
                let repeat = self.remedy(&error.meaning, &headers, &credentials, &keys);
                Failed { why: Why::Api(error), repeat }
            }
            Err(failed) => failed,
        })
    }

    /// Puts right what can be, and says what a repetition would need.
    fn remedy(
        &self,
        meaning: &Meaning,
        headers: &HeaderMap,
        credentials: &Credentials,
        keys: &Keys,
    ) -> Repeat {
        match meaning {
            Meaning::Clock => match cloud_time(headers) {
                Some(time) => {
                    self.clock.correct(time);
                    Repeat::AtOnce
                }
                None => Repeat::No,
            },
            Meaning::ExpiredCredentials if credentials.forget(keys) => Repeat::AtOnce,
            Meaning::Throttled => Repeat::After(retry_after(headers).unwrap_or(THROTTLED)),
            passing if passing.passes() => Repeat::After(Duration::ZERO),
            _ => Repeat::No,
        }
    }
}

/// What was heard in one call.
#[derive(Debug)]
struct History {
    action: Action,
    attempts: u32,
    /// An attempt before the last one may have had an effect.
    may_have_acted: bool,
    refusal: Option<Box<ApiError>>,
    last: Option<Why>,
}

impl History {
    const fn of(action: Action) -> Self {
        Self { action, attempts: 0, may_have_acted: false, refusal: None, last: None }
    }

    fn note(&mut self, why: Why) {
        tracing::debug!(action = %self.action, ?why, "an attempt failed");
        if self.attempts > 0 && matches!(why, Why::Budget(_) | Why::Credentials(_)) {
            return; // It was not sent again; what was heard before says more.
        }
        self.attempts += 1;
        if let Some(Why::Api(earlier)) = self.last.replace(why) {
            self.refusal = Some(Box::new(earlier));
        }
        self.may_have_acted |= self.last.as_ref().is_some_and(Why::may_have_acted);
    }

    fn end(self) -> CloudError {
        let Self { action, attempts, refusal, .. } = self;
        let error = match self.last {
            Some(Why::Api(error)) => CloudError::Refused(Box::new(error)),
            Some(Why::Garbage { status, reason, body }) => {
                CloudError::Garbage { action, status, reason, body }
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

/// The request as it goes out: all parameters in the query, the body empty.
fn signed(
    http: &reqwest::Client,
    url: &Url,
    action: Action,
    parameters: &Parameters,
    keys: &Keys,
    now: Timestamp,
) -> reqwest::RequestBuilder {
    let mut headers = BTreeMap::from([
        ("accept", "application/json".to_owned()),
        ("host", host(url)),
        ("x-acs-action", action.to_string()),
        ("x-acs-content-sha256", content_sha256(b"")),
        ("x-acs-date", date(now)),
        ("x-acs-signature-nonce", Uuid::new_v4().simple().to_string()),
        ("x-acs-version", action.product().version().to_owned()),
    ]);
    if let Some(token) = &keys.token {
        headers.insert("x-acs-accesskey-id", keys.id.clone());
        headers.insert("x-acs-security-token", token.expose_secret().to_owned());
    }
    let parameters = parameters.as_slice();
    let unsigned =
        Unsigned { method: "POST", path: url.path(), parameters, headers: &headers, body: b"" };
    let authorization = unsigned.authorization(&keys.id, keys.secret.expose_secret());
    let mut url = url.clone();
    url.set_query(Some(&query(parameters)));
    let mut request = http.post(url).header(CONTENT_LENGTH, 0);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.header("authorization", authorization)
}

/// As HTTP says it: the port only where it is not the scheme's.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn date(now: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%SZ", now).expect("a timestamp has all of these fields")
}

async fn exchange(
    request: reqwest::RequestBuilder,
    deadline: Instant,
) -> Result<(u16, HeaderMap, Vec<u8>), Transport> {
    let exchange = async {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await?.to_vec()))
    };
    match timeout_at(deadline, exchange).await {
        Ok(answer) => answer.map_err(http::transport),
        Err(_elapsed) => {
            let text = "the deadline came first".to_owned();
            Err(Transport { kind: TransportKind::Sent, text })
        }
    }
}

const fn no_answer(transport: Transport) -> Failed {
    Failed { why: Why::Transport(transport), repeat: Repeat::After(Duration::ZERO) }
}

fn read_answer<W: DeserializeOwned, T>(
    status: u16,
    body: &[u8],
    read: fn(W) -> Result<T, Misread>,
) -> Result<T, Failed> {
    let wire = from_json(body);
    let answer = wire.and_then(|wire| read(wire).map_err(|misread| misread.to_string()));
    answer.map_err(|reason| garbage(status, reason, http::clip(body)))
}

/// What the cloud has against it; an `Err` when that is not understood.
fn refusal(
    action: Action,
    status: u16,
    body: &[u8],
    vswitch: Option<&str>,
    keys: &Keys,
) -> Result<ApiError, Failed> {
    let Refusal { code, message, request_id } = from_json(body)
        .map_err(|reason| garbage(status, reason, keys.redact(&http::clip(body))))?;
    let meaning = code::meaning(action, &code, status, vswitch);
    let message = keys.redact(&message);
    Ok(ApiError { action, status, code, message, request_id, meaning })
}

/// An error page of something in between may pass; a wrong answer of the cloud does not.
const fn garbage(status: u16, reason: String, body: String) -> Failed {
    let passes = status == 429 || status >= 500;
    let repeat = if passes { Repeat::After(Duration::ZERO) } else { Repeat::No };
    Failed { why: Why::Garbage { status, reason, body }, repeat }
}

/// The cloud's clock.
fn cloud_time(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(rfc2822::parse(date).ok()?.timestamp())
}

/// `x-acs-retry-after`, in milliseconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("x-acs-retry-after")?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
