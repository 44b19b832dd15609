//! One exchange with the API: the request signed, the answer read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, DATE, HeaderMap};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::history::{Failed, Why};
use crate::answer::{Misread, Refusal, from_json};
use crate::credentials::Keys;
use crate::patience::Repeat;
use crate::request::Parameters;
use crate::sign::{Unsigned, content_sha256, query};
use crate::{Action, ApiError, Transport, TransportKind, code, http};

/// An answer with more bytes than this is something else: a page of 500 ENIs has some 2 MB.
const LARGEST: usize = 32 * 1024 * 1024;

/// The request as it goes out: all parameters in the query, the body empty.
pub(super) fn signed(
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

/// What came back.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

pub(super) async fn exchange(
    request: reqwest::RequestBuilder,
    deadline: Instant,
) -> Result<HttpAnswer, Transport> {
    let exchange = async {
        let answer = request.send().await.map_err(http::transport)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(HttpAnswer { status, headers, body: http::body(answer, LARGEST).await? })
    };
    match timeout_at(deadline, exchange).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let text = "the deadline came first".to_owned();
            Err(Transport { kind: TransportKind::Sent, text })
        }
    }
}

pub(super) const fn no_answer(transport: Transport) -> Failed {
    Failed { why: Why::Transport(transport), repeat: Repeat::After(Duration::ZERO) }
}

pub(super) fn read_answer<W: DeserializeOwned, T>(
    status: u16,
    body: &[u8],
    read: fn(W) -> Result<T, Misread>,
) -> Result<T, Failed> {
    let wire = from_json(body);
    let answer = wire.and_then(|wire| read(wire).map_err(|misread| misread.to_string()));
    answer.map_err(|reason| garbage(status, reason, http::clip(body)))
}

/// What the cloud has against it; an `Err` when that is not understood.
pub(super) fn refusal(
    action: Action,
    answer: &HttpAnswer,
    vswitch: Option<&str>,
    keys: &Keys,
    now: Timestamp,
) -> Result<Box<ApiError>, Failed> {
    let HttpAnswer { status, headers, body } = answer;
    let (status, retry_after) = (*status, retry_after(headers, now));
    let Refusal { code, message, request_id } = from_json(body).map_err(|reason| {
        let failed = garbage(status, reason, keys.redact(&http::clip(body)));
        failed.no_sooner_than(retry_after.unwrap_or_default())
    })?;
    let meaning = code::meaning(action, &code, status, vswitch);
    let message = keys.redact(&message);
    Ok(Box::new(ApiError { action, status, code, message, request_id, meaning, retry_after }))
}

/// An error page of something in between may pass; a wrong answer of the cloud does not.
const fn garbage(status: u16, reason: String, body: String) -> Failed {
    let passes = status == 429 || status >= 500;
    let repeat = if passes { Repeat::After(Duration::ZERO) } else { Repeat::No };
    Failed { why: Why::Garbage { status, reason, body }, repeat }
}

/// The cloud's clock.
pub(super) fn cloud_time(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(rfc2822::parse(date).ok()?.timestamp())
}

/// How long the cloud wants to be left alone: `x-acs-retry-after` in milliseconds, or HTTP's own
/// `Retry-After` in seconds or as a time.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let said = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(text) = said("x-acs-retry-after") {
        return text.trim().parse().ok().map(Duration::from_millis);
    }
    let text = said("retry-after")?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let until = rfc2822::parse(text).ok()?.timestamp();
        Some(until.duration_since(now).try_into().unwrap_or_default())
    })
}
