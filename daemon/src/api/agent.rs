//! The verbs of CNI as the plugin calls them.

use std::path::PathBuf;
use std::time::Duration;

use proto::agent::agent_server::{Agent, AgentServer};
use proto::agent::del_reply::Outcome;
use proto::agent::{
    AddReply, AddRequest, CheckReply, CheckRequest, DelReply, DelRequest, Failure, GcReply,
    GcRequest, Reason, Sandbox, StatusReply, StatusRequest,
};
use proto::failure::to_status;
use proto::queue;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

use super::convert::{self, RequestError};
use super::failure::{self, Subject};
use super::gate::{Gate, Serving};
use super::{deadline, reply};
use crate::pods::Deleted;

/// The service.
#[derive(Debug, Clone)]
pub struct AgentService {
    gate: Gate,
    queue: PathBuf,
}

impl AgentService {
    /// Serves what `gate` lets through; a DEL that comes before is left in `queue`.
    pub fn server(gate: Gate, queue: PathBuf) -> AgentServer<Self> {
        AgentServer::new(Self { gate, queue })
    }

    async fn add(&self, request: AddRequest, deadline: Instant) -> Result<AddReply, Failure> {
        let started = Instant::now();
        let subject = subject("ADD", request.sandbox.as_ref(), request.pod.as_ref());
        let serving = self.serving(&subject)?;
        let add = convert::add(request).map_err(|error| subject.misread(&error))?;
        let added = serving.pods.add(add, deadline).await;
        let attachment = added.map_err(|error| subject.failed(&error))?;
        let allocation = &attachment.record.allocation;
        tracing::info!(
            addresses = %allocation.addresses, eni = %allocation.eni, mode = %allocation.mode,
            micros = micros(started.elapsed()), "pod added"
        );
        Ok(reply::of(&attachment))
    }

    async fn del(&self, request: DelRequest) -> Result<DelReply, Failure> {
        let started = Instant::now();
        let subject = subject("DEL", request.sandbox.as_ref(), request.pod.as_ref());
        let key = convert::key(request.sandbox.as_ref());
        let key = key.map_err(|error| subject.misread(&error))?;
        let Ok(serving) = self.serving(&subject) else {
            self.leave(request).await.map_err(|error| io_failure(&subject, &error))?;
            tracing::info!("DEL queued, for the daemon is not serving");
            return Ok(DelReply { outcome: Outcome::Queued.into() });
        };
        let deleted = serving.pods.del(key).await.map_err(|error| subject.failed(&error))?;
        let micros = micros(started.elapsed());
        let outcome = match deleted {
            Deleted::Network => {
                tracing::info!(micros, "pod deleted");
                Outcome::Removed
            }
            Deleted::Nothing => {
                tracing::info!(micros, "nothing to delete: no such sandbox is known");
                Outcome::Nothing
            }
        };
        Ok(DelReply { outcome: outcome.into() })
    }

    async fn check(&self, request: CheckRequest, deadline: Instant) -> Result<CheckReply, Failure> {
        let subject = subject("CHECK", request.sandbox.as_ref(), request.pod.as_ref());
        let serving = self.serving(&subject)?;
        let misread = |error: RequestError| subject.misread(&error);
        let key = convert::key(request.sandbox.as_ref()).map_err(misread)?;
        let netns = convert::netns(&request.netns).map_err(misread)?;
        let checked = serving.pods.check(&key, &netns, deadline).await;
        let checked = checked.map_err(|error| subject.failed(&error))?;
        let mut differences = checked.differences;
        differences.extend(reply::differences(&reply::of(&checked.attachment), &request));
        if differences.is_empty() { Ok(CheckReply {}) } else { Err(subject.differs(&differences)) }
    }

    async fn gc(&self, request: GcRequest) -> Result<GcReply, Failure> {
        let subject = Subject { verb: "GC", pod: None, key: None };
        let serving = self.serving(&subject)?;
        if request.network.is_empty() {
            return Err(subject.misread(&RequestError::Missing("the network's name")));
        }
        let valid = convert::valid(request.valid);
        let removed = serving.pods.gc(request.network, valid).await;
        let removed = removed.map_err(|failure| failure::gc(&failure))?;
        tracing::info!(removed, "garbage collected");
        Ok(GcReply { removed })
    }

    fn serving(&self, subject: &Subject) -> Result<Serving, Failure> {
        self.gate.serving().map_err(|why| subject.not_now(&why))
    }

    /// As the plugin does when the daemon is down.
    async fn leave(&self, request: DelRequest) -> std::io::Result<()> {
        let dir = self.queue.clone();
        let pushed = tokio::task::spawn_blocking(move || queue::push(&dir, &request)).await;
        pushed.map_err(std::io::Error::other)?.map(drop)
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        let deadline = deadline::of(request.metadata());
        let request = request.into_inner();
        let span = span("add", request.sandbox.as_ref(), request.pod.as_ref(), &request.netns);
        answer(self.add(request, deadline), span).await
    }

    async fn del(&self, request: Request<DelRequest>) -> Result<Response<DelReply>, Status> {
        let request = request.into_inner();
        let span = span("del", request.sandbox.as_ref(), request.pod.as_ref(), &request.netns);
        answer(self.del(request), span).await
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        let deadline = deadline::of(request.metadata());
        let request = request.into_inner();
        let span = span("check", request.sandbox.as_ref(), request.pod.as_ref(), &request.netns);
        answer(self.check(request, deadline), span).await
    }

    async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
        let request = request.into_inner();
        let span = tracing::info_span!("gc", network = request.network);
        answer(self.gc(request), span).await
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        match self.gate.status() {
            Ok(()) => Ok(Response::new(StatusReply {})),
            Err(failure) => Err(to_status(&failure)),
        }
    }
}

async fn answer<T>(
    work: impl Future<Output = Result<T, Failure>>,
    span: Span,
) -> Result<Response<T>, Status> {
    let answer = work.instrument(span.clone()).await;
    answer.map(Response::new).map_err(|failure| {
        let Failure { reason: _, message, details } = &failure;
        span.in_scope(|| tracing::warn!(reason = ?failure.reason(), message, details, "refused"));
        to_status(&failure)
    })
}

fn subject(
    verb: &'static str,
    sandbox: Option<&Sandbox>,
    pod: Option<&proto::agent::Pod>,
) -> Subject {
    Subject { verb, pod: convert::pod(pod), key: convert::key(sandbox).ok() }
}

fn span(
    verb: &'static str,
    sandbox: Option<&Sandbox>,
    pod: Option<&proto::agent::Pod>,
    netns: &str,
) -> Span {
    let container = sandbox.map(|sandbox| sandbox.container_id.as_str());
    let pod = convert::pod(pod).map(|pod| pod.to_string());
    tracing::info_span!("cni", verb, container, pod, netns)
}

fn io_failure(subject: &Subject, error: &std::io::Error) -> Failure {
    let failure = subject.not_now(&format!("the DEL could not be queued: {error}"));
    Failure { reason: Reason::Io.into(), ..failure }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
