//! The process that holds a lab for `terway-lab up`, and what other commands ask of it over HTTP
//! on loopback.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use crate::demo;
use crate::lab::{Daemon, Lab, LabPod, PodRequest};

/// A pod to be made, as the command asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodWish {
    /// Its node.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its PodNetworking; shared if absent.
    pub pod_networking: Option<String>,
}

/// One attempt to connect, as the command prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tried {
    /// Who connected.
    pub from: String,
    /// To whom.
    pub to: String,
    /// Where.
    pub address: String,
    /// What came of it.
    pub answer: String,
    /// Whether it came about.
    pub reached: bool,
}

struct Held {
    lab: Lab,
    pods: Mutex<BTreeMap<String, LabPod>>,
}

type Refusal = (StatusCode, String);

/// Serves until SIGTERM or SIGINT, then deletes the pods and takes the lab down.
pub async fn hold(lab: Lab, daemons: Vec<Daemon>, pods: Vec<LabPod>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut document = lab.document();
    document.lab = Some(format!("http://{}", listener.local_addr()?));
    lab.write_document(&document)?;
    let pods = pods.into_iter().map(|pod| (pod.request.name.clone(), pod)).collect();
    let held = Arc::new(Held { lab, pods: Mutex::new(pods) });
    let router = Router::new()
        .route("/pods", post(add))
        .route("/pods/{name}", delete(remove))
        .route("/reach", get(reach))
        .with_state(Arc::clone(&held));
    let server = axum::serve(listener, router).with_graceful_shutdown(told_to_end()?);
    server.await.context("the lab's server ended")?;
    let held = Arc::into_inner(held).context("no request is served any more")?;
    for pod in held.pods.into_inner().into_values() {
        held.lab.del_pod(pod).await?;
    }
    for daemon in daemons {
        daemon.stop().await?;
    }
    held.lab.down().await
}

fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        // Both may be dropped: a signal stays with its stream.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn add(
    State(held): State<Arc<Held>>,
    Json(wish): Json<PodWish>,
) -> Result<Json<Value>, Refusal> {
    let PodWish { node, name, pod_networking } = wish;
    let mut pods = held.pods.lock().await;
    if pods.contains_key(&name) {
        return Err((StatusCode::CONFLICT, format!("there is a pod {name} already")));
    }
    let request = PodRequest { node, name: name.clone(), pod_networking };
    let pod = held.lab.add_pod(&request).await.map_err(failed)?;
    let result = pod.result.clone();
    pods.insert(name, pod);
    Ok(Json(result))
}

async fn remove(State(held): State<Arc<Held>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let pod = held.pods.lock().await.remove(&name);
    let pod = pod.ok_or((StatusCode::NOT_FOUND, format!("there is no pod {name}")))?;
    held.lab.del_pod(pod).await.map_err(failed)?;
    Ok(())
}

async fn reach(State(held): State<Arc<Held>>) -> Result<Json<Vec<Tried>>, Refusal> {
    let pods = held.pods.lock().await;
    let all = demo::endpoints(&held.lab, pods.values()).map_err(failed)?;
    let attempts = crate::reach::reach(held.lab.fabric(), &all, Duration::from_secs(1)).await;
    let tried = attempts.map_err(failed)?.into_iter().map(|attempt| Tried {
        from: attempt.from,
        to: attempt.to,
        address: attempt.address.to_string(),
        answer: attempt.reach.to_string(),
        reached: attempt.reach.is_reached(),
    });
    Ok(Json(tried.collect()))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: anyhow::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}
