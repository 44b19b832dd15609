//! The API's socket: one request, one answer; or none, if that is the fault.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::actions::{self, Product};
use super::cloud::Moment;
use super::faults::{LostEffect, Suffered};
use super::journal::CallRecord;
use super::refusal::Refusal;
use super::service::{Ecs, now};
use super::signature::{self, Call};
use super::tokens::TokenKey;

/// A request's body; the API's own limit is not known, and none of its calls comes near.
const MOST_BYTES: usize = 1 << 20;

/// The answer is lost: the connection closes.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost")]
struct Lost;

/// A request, read to its end.
#[derive(Debug)]
struct Read {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Ecs {
    /// Serves one API on a socket that is bound already, until the cloud stops.
    pub fn serve_api(&self, listener: TcpListener, product: Product) {
        let ecs = self.clone();
        let greet = move |stream, _peer| ecs.clone().connection(stream, product);
        self.spawn(self.clone().accept(listener, greet));
    }

    /// Leads each connection by `greet`.
    pub(super) async fn accept<G: Future<Output = ()> + Send + 'static>(
        self,
        listener: TcpListener,
        greet: impl Fn(TcpStream, SocketAddr) -> G,
    ) {
        let stop = self.token();
        // Accepting may be dropped: a connection stays in the kernel's queue.
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    let (stop, led) = (self.token(), greet(stream, peer));
                    drop(self.spawn(async move { stop.run_until_cancelled(led).await }));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    pub(super) async fn connection<S>(self, stream: S, product: Product)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let ecs = self.clone();
            async move {
                let request = request.map(Body::new);
                // The client may give up; what it began goes on.
                let served = ecs.spawn(ecs.clone().answer(request, product)).await;
                served.unwrap_or(Err(Lost))
            }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn answer(
        self,
        request: Request<Body>,
        product: Product,
    ) -> Result<Response<Body>, Lost> {
        let request_id = Uuid::new_v4().to_string().to_uppercase();
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default().to_owned();
        let started = now();
        let read = read(request).await;
        let (call, result) = match read.and_then(|read| self.verify(&read)) {
            Ok(call) => {
                let suffered = self.strike(&call);
                let result = self.perform(product, &call, &suffered).await;
                (Some((call, suffered)), result)
            }
            Err(refusal) => (None, Err(Failure::Refused(refusal))),
        };
        self.record(&request_id, started, call.as_ref(), &result);
        let garbage = call.as_ref().is_some_and(|(_, suffered)| suffered.garbage);
        let date = self.date();
        match result {
            Err(Failure::Lost) => Err(Lost),
            Ok(_) if garbage => Ok(response(200, "<html>not today".to_owned(), &request_id, &date)),
            Ok(mut body) => {
                super::views::merge(&mut body, json!({ "RequestId": request_id }));
                Ok(response(200, body.to_string(), &request_id, &date))
            }
            Err(Failure::Refused(refusal)) => {
                let body = refusal.body(&request_id, &host).to_string();
                Ok(response(refusal.status, body, &request_id, &date))
            }
        }
    }

    fn verify(&self, read: &Read) -> Result<Call, Refusal> {
        let mut state = self.lock();
        let state = &mut *state;
        let clock = ahead(state.cloud.settings.clock_ahead_s);
        let request = signature::Request {
            method: &read.method,
            path: &read.path,
            query: &read.query,
            headers: &read.headers,
            body: &read.body,
        };
        signature::verify(request, &state.keyring, &mut state.nonces, clock)
    }

    fn strike(&self, call: &Call) -> Suffered {
        let eni = call.parameters.iter().find(|(name, _)| name == "NetworkInterfaceId");
        self.lock().faults.strike(&call.action, eni.map(|(_, value)| value.as_str()), now())
    }

    async fn perform(
        &self,
        product: Product,
        call: &Call,
        suffered: &Suffered,
    ) -> Result<Value, Failure> {
        if call.version != product.version() {
            let text = format!("Specified parameter Version {} is not valid.", call.version);
            return Err(Refusal::new(400, "InvalidVersion", text).into());
        }
        let _served = Served::begin(self, call)?;
        tokio::time::sleep(Duration::from_millis(suffered.latency_ms.into())).await;
        if let Some(refusal) = &suffered.refused {
            return Err(refusal.clone().into());
        }
        match suffered.lost {
            Some(LostEffect::Never) => return Err(Failure::Lost),
            Some(LostEffect::LateMs(ms)) => {
                self.spawn(self.clone().late(product, call.clone(), suffered.clone(), ms));
                return Err(Failure::Lost);
            }
            Some(LostEffect::Done) | None => {}
        }
        let body = self.execute(product, call, suffered).await?;
        match (suffered.lost, &suffered.refused_after) {
            (Some(_), _) => Err(Failure::Lost),
            (None, Some(refusal)) => Err(refusal.clone().into()),
            (None, None) => Ok(body),
        }
    }

    /// Nobody is told what becomes of it.
    async fn late(self, product: Product, call: Call, suffered: Suffered, ms: u32) {
        let stop = self.token();
        let wait = tokio::time::sleep(Duration::from_millis(ms.into()));
        if stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
        if let Err(refusal) = self.execute(product, &call, &suffered).await {
            tracing::debug!(action = call.action, %refusal, "late effect refused");
        }
    }

    async fn execute(
        &self,
        product: Product,
        call: &Call,
        suffered: &Suffered,
    ) -> Result<Value, Refusal> {
        let eni = call.parameters.iter().find(|(name, _)| name == "NetworkInterfaceId");
        let mut body = self
            .settle(|state| {
                let lag = suffered.stale_ms.unwrap_or(state.cloud.settings.api_lag_ms);
                let moment = Moment::lagging(now(), Duration::from_millis(lag.into()));
                let parameters = call.parameters.clone();
                let cloud = &mut state.cloud;
                let answer = actions::call(cloud, product, &call.action, parameters, moment)?;
                if let (true, Some((_, eni))) = (suffered.stuck_detach, eni) {
                    state.stick(eni);
                }
                Ok(answer)
            })
            .await?;
        if suffered.hide_vlan {
            hide(&mut body, "DeviceIndex");
        }
        Ok(body)
    }

    fn record(
        &self,
        request_id: &str,
        at: Timestamp,
        call: Option<&(Call, Suffered)>,
        result: &Result<Value, Failure>,
    ) {
        let outcome = match result {
            Ok(_) => "ok".to_owned(),
            Err(Failure::Lost) => "lost".to_owned(),
            Err(Failure::Refused(refusal)) => refusal.code.clone(),
        };
        let took = now().duration_since(at).as_millis();
        let (action, access_key, parameters) = match call {
            Some((call, _)) => (
                call.action.clone(),
                call.access_key.clone(),
                call.parameters.iter().cloned().collect(),
            ),
            None => ("unknown".to_owned(), String::new(), BTreeMap::new()),
        };
        self.lock().journal.record(CallRecord {
            at,
            action,
            request_id: request_id.to_owned(),
            access_key,
            parameters,
            outcome,
            fault: call.is_some_and(|(_, suffered)| suffered.anything()),
            took_ms: u64::try_from(took).unwrap_or(0),
        });
    }

    /// The header `Date`, by the cloud's clock.
    fn date(&self) -> String {
        let clock = ahead(self.lock().cloud.settings.clock_ahead_s);
        clock.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

/// A call whose token no other call may have meanwhile.
struct Served<'a> {
    ecs: &'a Ecs,
    token: Option<TokenKey>,
}

impl<'a> Served<'a> {
    fn begin(ecs: &'a Ecs, call: &Call) -> Result<Self, Refusal> {
        let token = actions::token(&call.action, &call.parameters);
        if let Some(token) = &token {
            let rest = call.parameters.iter().filter(|(name, _)| name != "ClientToken");
            ecs.lock().cloud.tokens.begin(token, rest.cloned().collect())?;
        }
        Ok(Self { ecs, token })
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            self.ecs.lock().cloud.tokens.end(token);
        }
    }
}

/// Why a call has no good answer.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    Lost,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn ahead(seconds: i32) -> Timestamp {
    now() + SignedDuration::from_secs(seconds.into())
}

async fn read(request: Request<Body>) -> Result<Read, Refusal> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MOST_BYTES).await;
    let body = body.map_err(|error| Refusal::invalid("body", error))?;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = value.to_str().map_err(|error| Refusal::invalid(name.as_str(), error))?;
        let joined = headers.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    Ok(Read {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers,
        body: body.to_vec(),
    })
}

fn response(status: u16, body: String, request_id: &str, date: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json;charset=utf-8"),
        (header::DATE, date),
        (header::HeaderName::from_static("x-acs-request-id"), request_id),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    response
}

/// Removes a field wherever it is.
fn hide(body: &mut Value, field: &str) {
    match body {
        Value::Object(fields) => {
            fields.remove(field);
            fields.values_mut().for_each(|value| hide(value, field));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, field)),
        _ => {}
    }
}
