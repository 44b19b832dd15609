//! The control API: JSON over HTTP on loopback, for tests and for people. Everything that the lab
//! may do to the cloud and that the cloud's users may not. [`super::Control`] speaks it.
//!
//! | call | what it does |
//! |---|---|
//! | `GET /dump` | the whole truth ([`Dump`]) |
//! | `GET /calls`, `DELETE /calls` | the latest calls, oldest first ([`CallRecord`]); forgets them and the counts |
//! | `GET /faults`, `POST /faults`, `DELETE /faults` | those that wait; one more ([`Fault`]); none |
//! | `PUT /seed` | `{"seed": 7}`: what is left to chance goes the same way from here on |
//! | `GET /settings`, `PUT /settings` | delays, lags, limits, clock ([`Settings`]), always whole |
//! | `GET /metadata`, `PUT /metadata` | what is wrong with the metadata service ([`MetadataFaults`]) |
//! | `POST /credentials/expire` | the keys of roles end now |
//! | `POST /enis/{id}/vanish` | the ENI is gone as if it had never been |
//! | `PUT /vswitches/{id}/reserved` | `{"addresses": ["10.0.1.20"]}`: exactly these belong to somebody who is no ENI, so that the vSwitch is full or in fragments ([`Reserved`]) |
//! | `PUT /instances/{id}/state` | `{"state": "Stopped"}`, `"Running"`, `"Starting"` or `"Stopping"` |
//! | `POST /instances/{id}/release` | the instance goes, its ENIs are taken out |
//! | `GET /verdict?from=&to=&protocol=&port=` | what the groups say to a flow ([`Judgement`]) |
//!
//! Faults of the API ([`Fault`]): for one `action` or `*`, one `eni` or all; for so many `times`, so
//! many `per_mille` of the calls, `for_ms` milliseconds, or until they are cleared. Faults that strike
//! the same call add up.
//!
//! | `what` | what the caller gets |
//! |---|---|
//! | `{"kind": "error", "status": 403, "code": "Operation.Conflict"}` | that refusal, and nothing happens; with `"takes_effect": true` it happens all the same |
//! | `{"kind": "latency", "ms": 300}` | the answer that much later; the call is served when the time is over |
//! | `{"kind": "lost_answer", "effect": "done"}` | no answer: the connection closes after the effect |
//! | `{"kind": "lost_answer", "effect": {"late_ms": 500}}` | no answer, and the effect so much later |
//! | `{"kind": "lost_answer", "effect": "never"}` | no answer: the call was lost, nothing happens |
//! | `{"kind": "stale_read", "ms": 60000}` | the world as it was that long ago |
//! | `{"kind": "throttle"}` | `Throttling.User`; with `for_ms` all calls for a while |
//! | `{"kind": "garbage"}` | status 200 and no JSON |
//! | `{"kind": "hide_vlan"}` | a member without `DeviceIndex` |
//! | `{"kind": "stuck_detach"}` | a good answer, and the ENI stays `Detaching` until a detach is sent again |
//!
//! An ENI is gone by `POST /enis/{id}/vanish`. What is wrong with the metadata service
//! ([`MetadataFaults`]): `missing` and `extra` ENIs, lists that are behind (`stale_lists_ms`), a
//! `status` (404, 503) for all paths or those below `only`, and slowness (`latency_ms`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Path, Query, State as Extension};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use model::VSwitchId;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::dump::Dump;
use super::faults::Fault;
use super::journal::CallRecord;
use super::metadata::MetadataFaults;
use super::refusal::Refusal;
use super::rules::{Direction, Protocol};
use super::service::{Ecs, now};
use super::settings::Settings;
use super::verdict::{Flow, Verdict};
use super::versions::MEMORY;
use super::world::InstanceState;

/// Why the control API does not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRefusal {
    /// What is wrong.
    pub error: String,
}

/// A seed for what is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Any number.
    pub seed: u64,
}

/// Addresses of a vSwitch that somebody has who is no ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserved {
    /// All of them: those of an earlier call that are not here are free again.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// What an instance is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedState {
    /// Anything but `Released`: releasing has a call of its own.
    pub state: InstanceState,
}

/// A flow to be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// Who opens it.
    pub from: IpAddr,
    /// To whom.
    pub to: IpAddr,
    /// `tcp`, `udp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// Of TCP and UDP; 0 else.
    #[serde(default)]
    pub port: u16,
}

/// What the groups say to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether it arrives.
    pub accepted: bool,
    /// The group that refuses it.
    pub group: Option<String>,
    /// `egress` or `ingress`.
    pub direction: Option<String>,
}

type Refused = (StatusCode, Json<ControlRefusal>);

impl Ecs {
    /// The routes, for the composition to add its own to.
    pub fn control_routes(&self) -> Router {
        Router::new()
            .route("/dump", get(dump))
            .route("/calls", get(calls).delete(forget_calls))
            .route("/faults", get(faults).post(add_fault).delete(clear_faults))
            .route("/seed", put(seed))
            .route("/settings", get(settings).put(set_settings))
            .route("/metadata", get(metadata).put(set_metadata))
            .route("/credentials/expire", post(expire_credentials))
            .route("/enis/{id}/vanish", post(vanish))
            .route("/vswitches/{id}/reserved", put(reserve))
            .route("/instances/{id}/state", put(set_instance_state))
            .route("/instances/{id}/release", post(release))
            .route("/verdict", get(judge))
            .with_state(self.clone())
    }

    /// Serves the control API on a socket that is bound already, until the cloud stops.
    pub fn serve_control(&self, listener: TcpListener) {
        let (router, stop) = (self.control_routes(), self.token());
        self.spawn(async move {
            let server = axum::serve(listener, router);
            if let Some(Err(error)) = stop.run_until_cancelled(server.into_future()).await {
                tracing::warn!(%error, "control API ended");
            }
        });
    }

    /// A fault that waits for calls from now on.
    pub fn add_fault(&self, fault: Fault) -> Result<(), Refusal> {
        if fault.action != "*" && !super::actions::known(&fault.action) {
            return Err(Refusal::invalid("action", format!("{} is unknown", fault.action)));
        }
        let never = fault.times == Some(0) || fault.for_ms == Some(0);
        if fault.per_mille.is_some_and(|chance| chance > 1000) || never {
            let why = "per_mille is 0 to 1000, times and for_ms are 1 or more";
            return Err(Refusal::invalid("fault", why));
        }
        self.lock().faults.add(fault, now());
        Ok(())
    }

    /// No fault waits any more.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The latest calls, in the order in which they were answered.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.lock().journal.latest().cloned().collect()
    }

    /// Log and counts begin anew.
    pub fn forget_calls(&self) {
        self.lock().journal.clear();
    }

    /// How the cloud behaves.
    pub fn settings(&self) -> Settings {
        self.lock().cloud.settings.clone()
    }

    /// It behaves so from now on; buckets are full again.
    pub fn set_settings(&self, settings: Settings) -> Result<(), Refusal> {
        let most = u32::try_from(MEMORY.as_millis()).unwrap_or(u32::MAX);
        if settings.api_lag_ms > most || settings.metadata_lag_ms > most {
            return Err(Refusal::invalid("lag", "at most ten minutes"));
        }
        let mut state = self.lock();
        state.cloud.settings = settings;
        state.cloud.buckets = super::throttle::Buckets::default();
        Ok(())
    }

    /// What is wrong with the metadata service from now on.
    pub fn set_metadata_faults(&self, faults: MetadataFaults) {
        self.lock().metadata.faults = faults;
    }
}

async fn dump(Extension(ecs): Extension<Ecs>) -> Json<Dump> {
    Json(ecs.dump())
}

async fn calls(Extension(ecs): Extension<Ecs>) -> Json<Vec<CallRecord>> {
    Json(ecs.calls())
}

async fn forget_calls(Extension(ecs): Extension<Ecs>) -> StatusCode {
    ecs.forget_calls();
    StatusCode::NO_CONTENT
}

async fn faults(Extension(ecs): Extension<Ecs>) -> Json<Vec<Fault>> {
    Json(ecs.lock().faults.list(now()))
}

async fn add_fault(
    Extension(ecs): Extension<Ecs>,
    Json(fault): Json<Fault>,
) -> Result<StatusCode, Refused> {
    done(ecs.add_fault(fault))
}

async fn clear_faults(Extension(ecs): Extension<Ecs>) -> StatusCode {
    ecs.clear_faults();
    StatusCode::NO_CONTENT
}

async fn seed(Extension(ecs): Extension<Ecs>, Json(Seed { seed }): Json<Seed>) -> StatusCode {
    ecs.lock().faults.seed(seed);
    StatusCode::NO_CONTENT
}

async fn settings(Extension(ecs): Extension<Ecs>) -> Json<Settings> {
    Json(ecs.settings())
}

async fn set_settings(
    Extension(ecs): Extension<Ecs>,
    Json(settings): Json<Settings>,
) -> Result<StatusCode, Refused> {
    done(ecs.set_settings(settings))
}

async fn metadata(Extension(ecs): Extension<Ecs>) -> Json<MetadataFaults> {
    Json(ecs.lock().metadata.faults.clone())
}

async fn set_metadata(
    Extension(ecs): Extension<Ecs>,
    Json(faults): Json<MetadataFaults>,
) -> StatusCode {
    ecs.set_metadata_faults(faults);
    StatusCode::NO_CONTENT
}

async fn expire_credentials(Extension(ecs): Extension<Ecs>) -> StatusCode {
    ecs.lock().keyring.expire(now());
    StatusCode::NO_CONTENT
}

async fn vanish(
    Extension(ecs): Extension<Ecs>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    done(in_its_own_task(&ecs, async move |ecs| ecs.vanish(&id).await).await)
}

async fn reserve(
    Extension(ecs): Extension<Ecs>,
    Path(id): Path<String>,
    Json(Reserved { addresses }): Json<Reserved>,
) -> Result<StatusCode, Refused> {
    done(ecs.reserve(&VSwitchId::new(id), addresses))
}

async fn set_instance_state(
    Extension(ecs): Extension<Ecs>,
    Path(id): Path<String>,
    Json(WantedState { state }): Json<WantedState>,
) -> Result<StatusCode, Refused> {
    if state == InstanceState::Released {
        return done(Err(Refusal::invalid("state", "releasing has a call of its own")));
    }
    done(ecs.set_instance_state(&id, state))
}

async fn release(
    Extension(ecs): Extension<Ecs>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    done(in_its_own_task(&ecs, async move |ecs| ecs.release(&id).await).await)
}

async fn judge(
    Extension(ecs): Extension<Ecs>,
    Query(query): Query<FlowQuery>,
) -> Result<Json<Judgement>, Refused> {
    let protocol = match query.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "icmpv6" => Protocol::Icmpv6,
        other => return Err(refused(&Refusal::invalid("protocol", other))),
    };
    // The port of the one who opens is one of the kernel's choice.
    let flow = Flow { protocol, source_port: 32_768, port: query.port };
    Ok(Json(match ecs.verdict(query.from, query.to, flow) {
        Verdict::Accepted => Judgement { accepted: true, group: None, direction: None },
        Verdict::Refused { group, direction } => {
            let direction = match direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            };
            let (group, direction) = (Some(group.to_string()), Some(direction.to_owned()));
            Judgement { accepted: false, group, direction }
        }
    }))
}

/// The caller may go away; what it asked for is done to the end.
async fn in_its_own_task<W>(
    ecs: &Ecs,
    work: impl FnOnce(Ecs) -> W + Send + 'static,
) -> Result<(), Refusal>
where
    W: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    ecs.spawn(work(ecs.clone())).await.unwrap_or_else(|error| Err(Refusal::internal(error)))
}

fn done(outcome: Result<(), Refusal>) -> Result<StatusCode, Refused> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &Refusal) -> Refused {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, Json(ControlRefusal { error: refusal.to_string() }))
}
