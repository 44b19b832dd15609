//! From a command line to a node that serves, and back. The order is the design:
//! configuration, the checkpoint's lock, sockets (which say what is waited for), facts, kernel, pool,
//! pods, repair, service; the network configuration list last.

mod live;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloud::{
    Client, ClientOptions, EndpointError, Endpoints, Metadata, MetadataSetupError, SetupError,
};
use model::{Capacity, IfName, JoinError, RegionId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::access::ROOT;
use crate::api::agent::AgentService;
use crate::api::failure::chain;
use crate::api::gate::{Gate, Health as _, Serving, State};
use crate::api::socket::SocketError;
use crate::api::{server, socket};
use crate::args::Args;
use crate::checkpoint::{Checkpoint, CheckpointError, Contents, Opened};
use crate::config::{Config, ConfigError, RuleLayout};
use crate::conflist;
use crate::datapath::{self, Datapath, DatapathError};
use crate::debug::{DebugService, Shown};
use crate::facts::{self, FactsError};
use crate::health::NodeHealth;
use crate::ipam::{self, Ipam, Node};
use crate::metrics::{BudgetWaits, Measured, Metrics};
use crate::pods::{Parts, Pods, Pool};
use crate::reconcile::{Reconciler, Verdict};
use crate::reload::Reloader;
use crate::standalone::{self, Manifests, PodNetworkings};
use crate::tasks::{End, Tasks};
use crate::{del_queue, tombstones};

use live::Running;
use rules::Rules;

/// For work in hand at the stop.
const GRACE: Duration = Duration::from_secs(10);
/// For the pool to write down what is in flight, after that.
const POOL_GRACE: Duration = Duration::from_secs(3);
/// For the last notes to reach the disk, after that.
const FLUSH: Duration = Duration::from_secs(3);
/// For a daemon before us to let go of the checkpoint.
const LOCK_WAIT: Duration = Duration::from_mins(10);
/// Between two tries to write the network configuration list.
const CONFLIST_PAUSE: Duration = Duration::from_secs(10);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No way to be told to stop.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    /// The state directory.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// `--metadata`.
    #[error(transparent)]
    Metadata(#[from] MetadataSetupError),
    /// An endpoint's variable.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The cloud's client.
    #[error(transparent)]
    Cloud(#[from] SetupError),
    /// The instance.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The cloud's word on `eni_conf`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The instance's type does not take what `eni_conf` asks for.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The kernel.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Pods are up of which the checkpoint knows nothing.
    #[error(
        "links of {count} pods are up ({first} and so on) of which the checkpoint in {state} knows \
         nothing: it was lost, or is an older one. Their network is left as it is, and no pod is taken. Put \
         the checkpoint back (a torn one is beside it as checkpoint.redb.torn-*); or drain the node, so \
         that they end; or start once with --forget-pods, which cuts them off",
        state = state.display()
    )]
    LostRecords {
        /// How many.
        count: usize,
        /// The link of one.
        first: IfName,
        /// The directory.
        state: PathBuf,
    },
}

impl StartError {
    /// 64 when the command line, the environment or `eni_conf` is to be corrected.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Metadata(_) | Self::Endpoint(_) | Self::Config(_) | Self::Join(_) => 64,
            _ => 1,
        }
    }
}

/// Runs the daemon until it is told to stop.
pub async fn run(args: Args, manifests: Manifests) -> Result<End, StartError> {
    let metadata = Arc::new(Metadata::new(&args.metadata)?);
    // What is wrong whatever the region is said before anything is waited for.
    Endpoints::new(&RegionId::new("region"), &args.endpoints())?;
    let tasks = Tasks::default();
    let stop = tasks.stop().clone();
    tasks.part("signals", signals(stop.clone())?);
    standalone::say(&manifests.remarks);
    tracing::info!(state = %args.state.display(), "waiting for the checkpoint's lock");
    let opened = tokio::select! {
        // Opening is begun anew by the next start: may be dropped.
        () = stop.cancelled() => return Ok(tasks.finish(GRACE).await),
        opened = Checkpoint::open(&args.state, LOCK_WAIT) => opened?,
    };
    let journal = opened.checkpoint.clone();
    let gate = Gate::new("reading the instance's metadata");
    let shown = watch::Sender::new(None);
    let metrics = Metrics::default();
    listen(&args, &gate, shown.subscribe(), &metrics, &tasks)?;
    let pool = PoolTasks::default();
    let (node_gate, node_tasks) = (gate.clone(), tasks.clone());
    let node = StartingNode {
        args,
        manifests,
        metadata,
        gate: node_gate,
        shown,
        metrics,
        tasks: node_tasks,
    };
    let up = tokio::select! {
        // As after a crash: the next start finishes what was begun. May be dropped.
        () = stop.cancelled() => Ok(()),
        up = node.bring_up(opened, &pool) => up,
    };
    if up.is_err() {
        stop.cancel();
    }
    stop.cancelled().await;
    gate.set(State::Stopping);
    tracing::info!("stopping; the pods keep their network");
    let end = tasks.finish(GRACE).await;
    pool.finish().await;
    flush(&journal).await;
    up.map(|()| end)
}

/// What was noted is not lost with a daemon that ends as it should.
async fn flush(journal: &Checkpoint) {
    match tokio::time::timeout(FLUSH, journal.write(Vec::new())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "the last notes are lost"),
        Err(_elapsed) => tracing::warn!("the last notes are perhaps lost, for the disk is slow"),
    }
}

/// The pool's tasks outlive the work that needs them.
#[derive(Debug, Default)]
struct PoolTasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl PoolTasks {
    async fn finish(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(POOL_GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!("the pool does not come to an end; the next start finishes it");
        }
    }

    /// Ends when they do.
    fn watch(&self, tasks: &Tasks) {
        let (tracker, stop) = (self.tracker.clone(), tasks.stop().clone());
        tracker.close();
        tasks.part("pool", async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                () = tracker.wait() => Err("the pool's task ended"),
            }
        });
    }
}

fn signals(
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), std::convert::Infallible>>, StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    Ok(async move {
        // A signal that is dropped was not taken; all may be dropped.
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = stop.cancelled() => return Ok(()),
        };
        tracing::info!(name, "told to stop");
        stop.cancel();
        Ok(())
    })
}

fn listen(
    args: &Args,
    gate: &Gate,
    shown: watch::Receiver<Option<Shown>>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<(), SocketError> {
    let (listener, file) = socket::listen(&args.agent_socket())?;
    let agent = AgentService::server(gate.clone(), args.del_queue());
    let serve = server::serve(listener, agent, ROOT, gate.clone(), tasks.stop().clone());
    tasks.part("agent", async move {
        let _file = file;
        serve.await
    });
    let (listener, file) = socket::listen(&args.debug_socket())?;
    let debug = DebugService::server(gate.clone(), shown, metrics.clone());
    let serve = server::serve(listener, debug, ROOT, gate.clone(), tasks.stop().clone());
    tasks.part("debug", async move {
        let _file = file;
        serve.await
    });
    Ok(())
}

/// A node that is coming up.
struct StartingNode {
    args: Args,
    manifests: Manifests,
    metadata: Arc<Metadata>,
    gate: Gate,
    shown: watch::Sender<Option<Shown>>,
    metrics: Metrics,
    tasks: Tasks,
}

impl StartingNode {
    async fn bring_up(&self, opened: Opened, pool: &PoolTasks) -> Result<(), StartError> {
        let Opened { checkpoint, contents, quarantined } = opened;
        if let Some(path) = quarantined {
            let path = path.display();
            tracing::error!(%path, "the checkpoint was not readable and is put aside");
        }
        let config = &self.manifests.config;
        let metadata = Arc::clone(&self.metadata);
        let instance = facts::instance(&metadata).await;
        self.gate.set(State::Starting("asking the cloud for the instance type's quotas"));
        let client = Arc::new(self.cloud(&instance.region)?);
        let waits = Box::new(BudgetWaits(Arc::clone(&client)));
        self.metrics.register(|registry| registry.register_collector(waits));
        let cloud = Arc::new(Measured::new(Arc::clone(&client), self.metrics.clone()));
        let measured = Arc::clone(&cloud);
        let kind = facts::instance_type(&instance.kind, &self.args.state, &*cloud).await?;
        let rules = Rules::of(self.args.standalone.as_deref(), instance.zone.clone(), kind.clone());
        rules.check(config, &*cloud).await?;
        let capacity = Capacity::of(&kind, config.stack);
        let share = ipam::capacity(capacity, config);
        match share.check(&kind, config.stack, config.trunking) {
            Err(why @ (JoinError::TooSmall { .. } | JoinError::TooFewEnis { .. })) => {
                self.stay_out(&why);
                return Ok(());
            }
            checked => checked?,
        }
        tracing::info!(
            instance = %instance.id, kind = %kind.id, shared = share.shared,
            members = capacity.members, "this node"
        );

        self.gate.set(State::Starting("loading the eBPF programs and reading the kernel's state"));
        let datapath = Datapath::start(self.datapath_options(instance.mac)).await?;
        datapath.expect_tombstones(tombstones::expected(&contents)).await?;
        self.account_for_pods(&datapath, &contents).await?;
        self.gate.set(State::Starting("setting up the ENIs"));
        let node = Node {
            name: instance.id.to_string(),
            instance: instance.id.clone(),
            zone: instance.zone,
            vswitch: instance.vswitch,
            capacity,
        };
        let options = ipam::Options {
            node,
            config: config.clone(),
            pod_networkings: self.manifests.pod_networkings.clone(),
            metrics: self.metrics.clone(),
        };
        let links = Arc::new(datapath.clone());
        let (tracker, stop) = (&pool.tracker, pool.stop.clone());
        let ipam =
            Ipam::start(options, cloud, links, checkpoint.clone(), &contents, tracker, stop).await;
        pool.watch(&self.tasks);

        self.gate.set(State::Starting("restoring the pods"));
        let disk = checkpoint.clone();
        let pod_networkings = watch::Sender::new(self.manifests.pod_networkings.clone());
        let choice = pod_networkings.subscribe();
        let pods = self.restore(&ipam, &datapath, checkpoint, contents, choice).await?;
        let verdict = Verdict::default();
        let mend = Arc::new(datapath.clone());
        let reconciler = Reconciler::new(mend, Arc::clone(&pods), verdict.clone());
        reconciler.repair("start").await;

        let health = Arc::new(NodeHealth::new(ipam.standing(), verdict, disk));
        let metadata = Arc::clone(&self.metadata);
        let running = Running {
            ipam: ipam.clone(),
            cloud: client,
            measured,
            rules,
            metadata,
            pod_networkings,
        };
        let directory = self.args.standalone.clone().unwrap_or_default();
        let reloader = Reloader::new(
            directory,
            self.manifests.clone(),
            Arc::new(running),
            self.metrics.clone(),
        );
        self.shown.send_replace(Some(Shown {
            config: reloader.standing(),
            pods: Arc::clone(&pods),
            kernel: Arc::new(datapath),
            pool: Arc::new(ipam),
            instance_id: instance.id.to_string(),
            instance_type: kind.id.to_string(),
        }));
        self.tasks.part("reload", reloader.run(self.tasks.stop().clone()));
        self.serve(pods, reconciler, health);
        Ok(())
    }

    /// The node serves no pod, and says why for as long as that is so: a crash would say less.
    fn stay_out(&self, why: &JoinError) {
        tracing::error!(%why, "this node takes no pods; choose a larger type, or correct eni_conf and restart");
        self.gate.set(State::Refused(why.to_string()));
    }

    /// What has no record is removed by the first repair. Not so the network of pods that live.
    async fn account_for_pods(
        &self,
        datapath: &Datapath,
        contents: &Contents,
    ) -> Result<(), StartError> {
        let known = contents.sandboxes.iter().map(|record| record.pod.spec.key.clone());
        let links = datapath.links_of_others(known.collect()).await?;
        let Some(first) = links.first().cloned() else { return Ok(()) };
        let (count, state) = (links.len(), self.args.state.clone());
        if self.args.forget_pods {
            tracing::warn!(count, %first, "pods without a record lose their network, as asked for");
            return Ok(());
        }
        Err(StartError::LostRecords { count, first, state })
    }

    fn cloud(&self, region: &RegionId) -> Result<Client, StartError> {
        let config = &self.manifests.config;
        let metadata = Arc::clone(&self.metadata);
        let region = config.region.clone().map_or_else(|| region.clone(), RegionId::new);
        let endpoints = Endpoints::new(&region, &self.args.endpoints())?;
        Ok(Client::new(ClientOptions {
            region,
            endpoints,
            credentials: live::credentials(config, metadata),
            rate_limits: live::rate_limits(config),
            attempt_timeout: ClientOptions::ATTEMPT_TIMEOUT,
            repeat_for: ClientOptions::REPEAT_FOR,
        })?)
    }

    fn datapath_options(&self, primary_mac: model::Mac) -> datapath::Options {
        let config: &Config = &self.manifests.config;
        datapath::Options {
            primary_mac,
            stack: config.stack,
            mark_mask: config.mark_mask,
            rule_layout: layout(config.rule_layout),
            object: self.args.bpf_object.clone(),
            pins: self.args.schema_pins(),
        }
    }

    async fn restore(
        &self,
        ipam: &Ipam,
        datapath: &Datapath,
        checkpoint: Checkpoint,
        contents: Contents,
        pod_networkings: watch::Receiver<PodNetworkings>,
    ) -> Result<Arc<Pods>, StartError> {
        let parts = Parts {
            addresses: Arc::new(Pool { ipam: ipam.clone(), pod_networkings }),
            network: Arc::new(datapath.clone()),
            journal: Arc::new(checkpoint),
            member_mac: self.manifests.config.member_mac,
            queue: self.args.del_queue(),
            tasks: self.tasks.clone(),
        };
        let pods = Pods::new(parts, contents.sandboxes);
        pods.recover().await?;
        Ok(pods)
    }

    fn serve(&self, pods: Arc<Pods>, reconciler: Reconciler, health: Arc<NodeHealth>) {
        let stop = self.tasks.stop();
        self.tasks.part("reconciler", reconciler.run(stop.clone()));
        let queue = self.args.del_queue();
        self.tasks.part("DEL queue", del_queue::watch(Arc::clone(&pods), queue, stop.clone()));
        if let Err(why) = health.now() {
            tracing::info!(?why, "serving; pods cannot be taken yet");
        }
        let serving = Serving { pods, health: Arc::<NodeHealth>::clone(&health) };
        self.gate.set(State::Serving(serving));
        if !self.args.no_conflist {
            self.tasks.part("conflist", install(self.args.clone(), health, stop.clone()));
        }
    }
}

const fn layout(layout: RuleLayout) -> datapath::RuleLayout {
    match layout {
        RuleLayout::PerEni => datapath::RuleLayout::PerEni,
        RuleLayout::PerPod => datapath::RuleLayout::PerPod,
    }
}

/// Writes the list as soon as pods can be taken.
async fn install(
    args: Args,
    health: Arc<NodeHealth>,
    stop: CancellationToken,
) -> Result<(), serde_json::Error> {
    let text = conflist::text(&args.agent_socket())?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        _ = health.ready() => {}
    }
    while !stop.is_cancelled() {
        let (path, list) = (args.conflist.clone(), text.clone());
        let written = tokio::task::spawn_blocking(move || conflist::install(&path, &list)).await;
        match written {
            Ok(Ok(done)) => {
                let path = args.conflist.display();
                tracing::info!(%path, ?done, "the node takes pods");
                break;
            }
            Ok(Err(error)) => tracing::error!(error = chain(&error), "the node takes no pods yet"),
            Err(error) => tracing::error!(%error, "the node takes no pods yet"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(CONFLIST_PAUSE) => {}
        }
    }
    // A part runs until it is told to stop.
    stop.cancelled().await;
    Ok(())
}
