//! Many pods at once on a node whose pool is empty, with a slow API: what it takes beside what it
//! cannot be quicker or cheaper than.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use model::IpStack;
use serde::Serialize;
use serde_json::json;
use tokio::time;

use super::plugin::{Peer, Plugin};
use super::statistics::Rounds;
use super::{
    BenchOptions, Effort, LOOK, Machine, PATIENCE, Summary, milliseconds, table, write_json,
};
use crate::driver::{Attachment, Verb};
use crate::ecs::{Fault, FaultKind, InstanceKind};
use crate::lab::{DaemonSettings, Lab, LabOptions};
use crate::node::PodNs;
use crate::progress::Progress;

const NODE: &str = "node1";
const CREATE: &str = "CreateNetworkInterface";
const ATTACH: &str = "AttachNetworkInterface";
const ASSIGN: &str = "AssignPrivateIpAddresses";

/// What begins at once, and how slow the cloud is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Pods.
    pub pods: u32,
    /// `request_batch`.
    pub batch: u32,
    /// What each call takes, in milliseconds.
    pub latency_ms: u32,
    /// What `CreateNetworkInterface` takes beside that, in milliseconds.
    pub create_ms: u32,
}

impl Demand {
    /// 60 pods, batches of 10, 300 ms a call.
    pub const ISSUE: Self = Self { pods: 60, batch: 10, latency_ms: 300, create_ms: 0 };
}

/// What a burst cannot be served without, IPv4 only.
///
/// P pods in batches of B need `N = ceil(P / B)` calls that bring addresses: each is a Create or an
/// Assign. Of Creates there are E, at least `ceil(P / Q)` for Q addresses of an ENI, and at most N and
/// what the instance type takes. Every ENI needs one Attach. ENIs are made side by side; on one of them
/// one call is made after the other. With L for the latency of a call, A for the attachment and W
/// for what an Assign takes itself, the longest chain is
///
/// `T(E) = L (Create) + L (Attach) + A + L (Describe) + (ceil(N / E) - 1) * (L + W)`
///
/// and the bound is the least `T(E)`, which is that of the most ENIs. `DescribeVSwitches` is not in it:
/// the daemon knows its vSwitches from its start. Nor is what the node does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// N: calls of Create and of Assign together, at least.
    pub bringing: u32,
    /// ENIs, at least.
    pub enis_least: u32,
    /// ENIs with which it is the quickest.
    pub enis: u32,
    /// From the first ADD to the answer of the last, in milliseconds.
    pub time_ms: u32,
}

impl Bound {
    /// By the instance type's quotas and the cloud's settings; `None` where it is no pool at all.
    pub fn of(demand: Demand, kind: &InstanceKind, attach_ms: u32, write_ms: u32) -> Option<Self> {
        let Demand { pods, batch, latency_ms: latency, create_ms } = demand;
        let per_eni = u32::try_from(kind.v4_per_eni).ok()?;
        let limit = u32::try_from(kind.enis).ok()?.checked_sub(1)?;
        let bringing = pods.checked_add(batch.checked_sub(1)?)?.checked_div(batch)?;
        let enis_least = pods.checked_add(per_eni.checked_sub(1)?)?.checked_div(per_eni)?;
        let enis = bringing.min(limit).max(enis_least);
        let rounds = bringing.div_ceil(enis.max(1)).saturating_sub(1);
        let made = create_ms + 3 * latency + attach_ms;
        let time_ms = made + rounds * (latency + write_ms);
        (enis_least <= limit).then_some(Self { bringing, enis_least, enis, time_ms })
    }
}

/// One burst.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Burst {
    /// See there.
    pub demand: Demand,
    /// See there.
    pub bound: Bound,
    /// Calls by action, until the last pod had its answer.
    pub calls: BTreeMap<String, u64>,
    /// From the first ADD to the answer of the last, in milliseconds.
    pub last_ms: f64,
}

impl Burst {
    /// Calls of an action.
    pub fn of(&self, action: &str) -> u64 {
        self.calls.get(action).copied().unwrap_or_default()
    }

    /// Calls that bring addresses.
    pub fn bringing(&self) -> u64 {
        self.of(CREATE).saturating_add(self.of(ASSIGN))
    }

    /// Calls that attach an ENI.
    pub fn attaching(&self) -> u64 {
        self.of(ATTACH)
    }

    /// ENIs that were made.
    pub fn making(&self) -> u64 {
        self.of(CREATE)
    }

    /// All calls.
    pub fn all(&self) -> u64 {
        self.calls.values().sum()
    }

    /// How many bounds it took.
    pub fn ratio(&self) -> f64 {
        self.last_ms / f64::from(self.bound.time_ms)
    }
}

/// All bursts; times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct BurstReport {
    /// See there.
    pub machine: Machine,
    /// One after another, each on a lab of its own.
    pub bursts: Vec<Burst>,
    /// Of the times to the last pod.
    pub last: Summary,
}

/// Runs it and prints the figures.
pub async fn run(options: BenchOptions) -> Result<BurstReport> {
    let rounds = match options.effort {
        Effort::Full => 5,
        Effort::Quick => 1,
    };
    let progress = Progress::new(rounds);
    let mut machine = Machine::now();
    let (mut bursts, mut times) = (Vec::new(), Rounds::default());
    for _round in 0..rounds {
        let lab = options.lab.clone();
        let burst = progress.step("60 pods on an empty node", once(lab, Demand::ISSUE)).await?;
        times.push(vec![burst.last_ms]);
        bursts.push(burst);
    }
    machine.load_after = super::load();
    let last = times.summary().context("nothing was measured")?;
    let report = BurstReport { machine, bursts, last };
    write_json(options.json.as_deref(), &report)?;
    progress.say(&report.to_string());
    Ok(report)
}

/// A lab of one node, whose pods all begin at once; takes it away again.
pub async fn once(mut options: LabOptions, demand: Demand) -> Result<Burst> {
    options.nodes.truncate(1);
    let node = options.nodes.first().context("a lab has a node")?;
    let kind = InstanceKind::named(&node.kind).context("an unknown instance type")?;
    let (attach_ms, write_ms) = (options.cloud.attach_ms, options.cloud.write_ms);
    let bound = Bound::of(demand, kind, attach_ms, write_ms).context("the node is too small")?;
    let lab = Lab::up(options).await?;
    slow_down(&lab, demand)?;
    let settings = settings(demand);
    let daemon = lab.start_daemon(NODE, &settings).await?;
    wait_for_vswitches(&lab).await?;
    let node = lab.node(NODE)?.node.clone();
    let mut namespaces = Vec::new();
    for number in 0..demand.pods {
        namespaces.push(node.pod(&format!("pod{number}")).await?);
    }
    let sandboxes: Vec<_> = namespaces.iter().enumerate().map(sandbox).collect();
    let plugin = Plugin::new(Peer::Ours, &node)?;
    lab.ecs().forget_calls();
    let added = node.run(move || plugin.parallel(Verb::Add, &sandboxes)).await??;
    let calls = lab.ecs().dump().calls;
    let calls = calls.into_iter().map(|(action, count)| (action, count.calls)).collect();
    daemon.kill().await?;
    drop(namespaces);
    lab.down().await?;
    Ok(Burst { demand, bound, calls, last_ms: milliseconds(added.all) })
}

fn slow_down(lab: &Lab, demand: Demand) -> Result<()> {
    let slow = FaultKind::Latency { ms: demand.latency_ms };
    lab.ecs().add_fault(Fault::new("*", slow))?;
    if demand.create_ms > 0 {
        let slower = FaultKind::Latency { ms: demand.create_ms };
        lab.ecs().add_fault(Fault::new(CREATE, slower))?;
    }
    Ok(())
}

/// An empty pool that stays so, without a trunk.
fn settings(demand: Demand) -> DaemonSettings {
    let more = json!({ "min_pool_size": 0, "max_pool_size": 0, "request_batch": demand.batch });
    let more = more.as_object().cloned().unwrap_or_default();
    DaemonSettings { stack: IpStack::V4, trunking: false, more, ..DaemonSettings::default() }
}

/// Until the daemon has asked what it asks at its start.
async fn wait_for_vswitches(lab: &Lab) -> Result<()> {
    let asked = async {
        // Once to hold the configuration against the cloud, and once for the pool.
        while lab.ecs().dump().calls.get("DescribeVSwitches").is_none_or(|count| count.calls < 2) {
            time::sleep(LOOK).await;
        }
    };
    time::timeout(PATIENCE, asked).await.context("the daemon does not read its vSwitches")
}

fn sandbox((number, namespace): (usize, &PodNs)) -> Attachment {
    let name = format!("pod{number}");
    Attachment {
        container_id: name.clone(),
        netns: Some(namespace.path().to_owned()),
        ifname: "eth0".to_owned(),
        pod: Some(("bench".to_owned(), name.clone(), format!("{name}-uid"))),
        ..Attachment::default()
    }
}

impl fmt::Display for BurstReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "PODS",
            "CREATE",
            "ATTACH",
            "ASSIGN",
            "CALLS",
            "BOUND",
            "LAST POD ms",
            "BOUND ms",
            "RATIO",
        ];
        writeln!(f, "\n{}", table(header, 0, self.bursts.iter().map(Burst::row)))?;
        let Summary { count, p50, lowest, highest, .. } = self.last;
        let bound = self.bursts.first().map_or(0, |burst| burst.bound.time_ms);
        let ratio = p50 / f64::from(bound);
        let within = if ratio <= 1.5 { "yes" } else { "NO" };
        writeln!(
            f,
            "\nlast pod: median {p50:.0} ms of {count} ({lowest:.0}-{highest:.0}), x{ratio:.2} of the bound {bound} ms; \
             within x1.5: {within}"
        )?;
        for (number, burst) in self.bursts.iter().enumerate() {
            let calls = burst.calls.iter().map(|(action, count)| format!("{action} {count}"));
            writeln!(f, "{}: {}", number + 1, calls.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, "\n{}", self.machine.line())
    }
}

impl Burst {
    fn row(&self) -> [String; 9] {
        let Bound { bringing, enis_least, .. } = self.bound;
        [
            self.demand.pods.to_string(),
            self.of(CREATE).to_string(),
            self.of(ATTACH).to_string(),
            self.of(ASSIGN).to_string(),
            self.all().to_string(),
            format!("{bringing} that bring addresses, {enis_least} ENIs"),
            format!("{:.0}", self.last_ms),
            self.bound.time_ms.to_string(),
            format!("x{:.2}", self.ratio()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(demand: Demand, kind: &str) -> Option<Bound> {
        Bound::of(demand, InstanceKind::named(kind).unwrap(), 500, 50)
    }

    #[test]
    fn the_bound_is_six_batches_on_six_enis_side_by_side() {
        let found = bound(Demand::ISSUE, "ecs.g7.4xlarge").unwrap();
        assert_eq!(found, Bound { bringing: 6, enis_least: 2, enis: 6, time_ms: 1400 });
        // Three ENIs of 15 are all that there are: two batches on each of them, one after the other.
        let fewer = Demand { pods: 45, batch: 8, ..Demand::ISSUE };
        let found = bound(fewer, "ecs.g7.2xlarge").unwrap();
        assert_eq!(found, Bound { bringing: 6, enis_least: 3, enis: 3, time_ms: 1750 });
        assert_eq!(bound(Demand::ISSUE, "ecs.g7.2xlarge"), None);
    }
}
