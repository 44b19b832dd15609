//! The debug socket: what the daemon knows, and what the kernel has now, for `terwayctl`.

#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::TableId;
use proto::debug::debug_server::{Debug, DebugServer};
use proto::debug::{
    Drop, EnisReply, EnisRequest, Filter, FiltersReply, FiltersRequest, MetricsReply,
    MetricsRequest, Pod, PodsReply, PodsRequest, Rule, RulesReply, RulesRequest, StatusReply,
    StatusRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::api::failure::chain;
use crate::api::gate::{Gate, NotReady};
use crate::checkpoint::{Phase, SandboxRecord};
use crate::datapath::{Datapath, DatapathError, Direction, FilterView, RuleView};
use crate::ipam::{AllocError, Ipam, Snapshot};
use crate::metrics::Metrics;
use crate::pods::Pods;
use crate::reload;

/// What the kernel is asked.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// As [`Datapath::rules`].
    fn rules(&self) -> BoxFuture<'_, Result<Vec<RuleView>, DatapathError>>;
    /// As [`Datapath::filters`].
    fn filters(&self) -> BoxFuture<'_, Result<Vec<FilterView>, DatapathError>>;
    /// As [`Datapath::drops`].
    fn drops(&self) -> BoxFuture<'_, Result<Vec<(&'static str, u64)>, DatapathError>>;
    /// As [`Datapath::foreign_ahead`].
    fn foreign_ahead(&self) -> BoxFuture<'_, Result<Vec<String>, DatapathError>>;
    /// As [`Datapath::reaper_queue`].
    fn reaper_queue(&self) -> usize;
}

impl Kernel for Datapath {
    fn rules(&self) -> BoxFuture<'_, Result<Vec<RuleView>, DatapathError>> {
        self.rules().boxed()
    }

    fn filters(&self) -> BoxFuture<'_, Result<Vec<FilterView>, DatapathError>> {
        self.filters().boxed()
    }

    fn drops(&self) -> BoxFuture<'_, Result<Vec<(&'static str, u64)>, DatapathError>> {
        self.drops().boxed()
    }

    fn foreign_ahead(&self) -> BoxFuture<'_, Result<Vec<String>, DatapathError>> {
        self.foreign_ahead().boxed()
    }

    fn reaper_queue(&self) -> usize {
        self.reaper_queue()
    }
}

/// What the pool is asked.
pub trait Pool: fmt::Debug + Send + Sync {
    /// As [`Ipam::snapshot`].
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, AllocError>>;
}

impl Pool for Ipam {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, AllocError>> {
        self.snapshot().boxed()
    }
}

/// What is shown, once the daemon has it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The sandboxes.
    pub pods: Arc<Pods>,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The pool.
    pub pool: Arc<dyn Pool>,
    /// How the files stand to what is in force.
    pub config: watch::Receiver<reload::Standing>,
    /// `i-…`.
    pub instance_id: String,
    /// `ecs.g7.4xlarge` and the like.
    pub instance_type: String,
}

/// The service.
#[derive(Debug)]
pub struct DebugService {
    gate: Gate,
    shown: watch::Receiver<Option<Shown>>,
    metrics: Metrics,
    started: Instant,
}

impl DebugService {
    /// Shows what there is already.
    pub fn server(
        gate: Gate,
        shown: watch::Receiver<Option<Shown>>,
        metrics: Metrics,
    ) -> DebugServer<Self> {
        DebugServer::new(Self { gate, shown, metrics, started: Instant::now() })
    }

    fn shown(&self) -> Result<Shown, Status> {
        let shown = self.shown.borrow().clone();
        shown.ok_or_else(|| Status::unavailable("terwayd is starting; `terwayctl status` says why"))
    }
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn pods(&self, _: Request<PodsRequest>) -> Result<Response<PodsReply>, Status> {
        let shown = self.shown()?;
        let pods = shown.pods.list().into_iter().map(|record| {
            let key = &record.pod.spec.key;
            let lost = record.phase == Phase::Up && shown.pods.is_cut_off(key);
            let mut pod = pod(record);
            if lost {
                "cut_off".clone_into(&mut pod.phase);
            }
            pod
        });
        Ok(Response::new(PodsReply { pods: pods.collect() }))
    }

    async fn enis(&self, _: Request<EnisRequest>) -> Result<Response<EnisReply>, Status> {
        let pool = self.shown()?.pool.snapshot().await.map_err(|error| unread(&error))?;
        Ok(Response::new(pool.enis))
    }

    async fn rules(&self, _: Request<RulesRequest>) -> Result<Response<RulesReply>, Status> {
        let rules = self.shown()?.kernel.rules().await.map_err(|error| unread(&error))?;
        Ok(Response::new(RulesReply { rules: rules.into_iter().map(rule).collect() }))
    }

    async fn filters(&self, _: Request<FiltersRequest>) -> Result<Response<FiltersReply>, Status> {
        let filters = self.shown()?.kernel.filters().await.map_err(|error| unread(&error))?;
        Ok(Response::new(FiltersReply { filters: filters.into_iter().map(filter).collect() }))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        if let Ok(shown) = self.shown() {
            let snapshot = shown.pool.snapshot().await.map_err(|error| unread(&error))?;
            self.metrics.pool(&snapshot.pool);
        }
        Ok(Response::new(MetricsReply { text: self.metrics.text() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let mut reply = StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: "standalone".to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ..StatusReply::default()
        };
        let healthy = match self.gate.serving() {
            Ok(serving) => serving.health.now(),
            Err(why) => Err(NotReady::New(why)),
        };
        match healthy {
            Ok(()) => reply.ready = true,
            Err(NotReady::New(why) | NotReady::AndRunning(why)) => reply.reason = why,
        }
        if let Ok(shown) = self.shown() {
            fill(&mut reply, &shown).await?;
        }
        Ok(Response::new(reply))
    }
}

async fn fill(reply: &mut StatusReply, shown: &Shown) -> Result<(), Status> {
    let drops = shown.kernel.drops().await.map_err(|error| unread(&error))?;
    let drop = |(cause, packets): (&str, u64)| Drop { cause: cause.to_owned(), packets };
    let ahead = shown.kernel.foreign_ahead().await.map_err(|error| unread(&error))?;
    let queued = shown.pods.queue_len().await.map_err(|error| unread(&error))?;
    reply.instance_id.clone_from(&shown.instance_id);
    reply.instance_type.clone_from(&shown.instance_type);
    reply.drops = drops.into_iter().map(drop).collect();
    reply.foreign_filters_ahead = ahead;
    reply.del_queue = count(queued);
    reply.reaper_queue = count(shown.kernel.reaper_queue());
    let config = shown.config.borrow().clone();
    reply.config_restart = config.restart.into_iter().map(str::to_owned).collect();
    if let Some(refused) = config.refused {
        reply.config_refused = refused.why;
        reply.config_refused_seconds = refused.since.elapsed().as_secs();
    }
    let snapshot = shown.pool.snapshot().await.map_err(|error| unread(&error))?;
    reply.pool = Some(snapshot.pool);
    reply.last_cloud_error = snapshot.last_cloud_error.unwrap_or_default();
    Ok(())
}

fn pod(record: SandboxRecord) -> Pod {
    let SandboxRecord { phase, pod, allocation, add_time } = record;
    let spec = pod.spec;
    let (namespace, name, uid) = spec.pod.map_or_else(Default::default, |pod| {
        (pod.namespace, pod.name, pod.uid.unwrap_or_default())
    });
    Pod {
        namespace,
        name,
        uid,
        network: spec.key.network,
        container_id: spec.key.container_id,
        ifname: spec.key.ifname,
        mode: allocation.mode.to_string(),
        phase: phase_name(phase).to_owned(),
        ipv4: text(allocation.addresses.v4()),
        ipv6: text(allocation.addresses.v6()),
        eni: allocation.eni.to_string(),
        parent_eni: allocation.parent.to_string(),
        vlan: allocation.vlan.map_or(0, |vlan| vlan.get().into()),
        security_groups: allocation.security_groups.iter().map(ToString::to_string).collect(),
        host_link: pod.link.host.to_string(),
        host_link_index: pod.link.host_index.get(),
        netns: spec.netns.display().to_string(),
        add_micros: micros(add_time),
        pod_networking: allocation.pod_networking.unwrap_or_default(),
    }
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Adding => "adding",
        Phase::Up => "up",
        Phase::Deleting => "deleting",
    }
}

fn rule(view: RuleView) -> Rule {
    Rule {
        family: if view.v6 { "ipv6" } else { "ipv4" }.to_owned(),
        priority: view.priority,
        text: view.text,
        table: view.table.map_or(0, TableId::get),
    }
}

fn filter(view: FilterView) -> Filter {
    let direction = match view.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    Filter {
        link: view.link.to_string(),
        link_index: view.index.get(),
        direction: direction.to_owned(),
        priority: view.priority.into(),
        handle: view.handle,
        program: view.program,
        program_id: view.program_id,
        foreign: view.foreign,
    }
}

fn unread(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::internal(chain(error))
}

fn text(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
