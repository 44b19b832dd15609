//! ADD and DEL, ours beside `ptp` with `host-local`: the same sandboxes on the same node by the
//! same caller, in turns.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::plugin::{Parallel, Plugin};
use super::statistics::Rounds;
use super::{
    BenchOptions, Effort, Machine, Peer, Ratio, Summary, daemon_settings, milliseconds, rest,
    table, write_json,
};
use crate::driver::{Attachment, Verb};
use crate::lab::{Daemon, Lab, LabPod, PodRequest};
use crate::node::{Node, PodNs};
use crate::progress::Progress;

const NODE: &str = "node1";

/// How many times what.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    /// Calls of one verb by one peer in a round.
    calls: usize,
    /// Pods that exist beside those that come and go.
    pods: [usize; 2],
    /// ADDs side by side.
    parallel: usize,
    parallel_rounds: usize,
}

impl Plan {
    const fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => {
                Self { rounds: 8, calls: 25, pods: [0, 100], parallel: 50, parallel_rounds: 5 }
            }
            Effort::Quick => {
                Self { rounds: 2, calls: 3, pods: [0, 4], parallel: 5, parallel_rounds: 1 }
            }
        }
    }

    /// Sandboxes of one peer that exist at the same time.
    fn sandboxes(self) -> usize {
        self.calls.max(self.parallel)
    }
}

/// The figures; times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct AddReport {
    /// See there.
    pub machine: Machine,
    /// What a process that does nothing takes: VERSION.
    pub floor: Vec<Comparison>,
    /// ADD and DEL one after another.
    pub calls: Vec<Comparison>,
    /// ADD side by side.
    pub parallel: Vec<ParallelFact>,
}

/// One verb by both.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// `ADD`.
    pub verb: &'static str,
    /// Pods that existed already.
    pub pods: usize,
    /// Ours.
    pub ours: Summary,
    /// `ptp` with `host-local`.
    pub ptp: Summary,
    /// How much longer `ptp` takes.
    pub faster: Ratio,
    /// What it is expected to be at least.
    pub expected: Option<f64>,
}

/// ADDs that began at once.
#[derive(Debug, Clone, Serialize)]
pub struct ParallelFact {
    /// Whose.
    pub peer: Peer,
    /// How many.
    pub calls: usize,
    /// Of one call.
    pub each: Summary,
    /// Calls a second, from the first spawn to the last exit.
    pub rate: Summary,
}

/// Runs it and prints the figures.
pub async fn run(options: BenchOptions) -> Result<AddReport> {
    let plan = Plan::of(options.effort);
    let progress = Progress::new(6);
    let mut machine = Machine::now();
    let [none, some] = plan.pods;
    let bench = progress.step("a lab of one node", Bench::up(&options, plan)).await?;
    let floor = progress.step("VERSION: what a process costs", bench.floor()).await?;
    let mut calls = progress.step("ADD and DEL in turns", bench.sequential(none)).await?;
    let parallel = progress.step("ADD side by side", bench.parallel()).await?;
    let pods = progress.step(&format!("{some} pods more"), bench.add_pods(some)).await?;
    calls.extend(progress.step("ADD and DEL beside them", bench.sequential(some)).await?);
    machine.load_after = super::load();
    bench.down(pods).await?;
    let report = AddReport { machine, floor, calls, parallel };
    write_json(options.json.as_deref(), &report)?;
    progress.say(&report.to_string());
    Ok(report)
}

/// Dropped in this order when something fails.
struct Bench {
    plan: Plan,
    /// Links of the node beside ENIs when there is no pod.
    links: usize,
    ours: Side,
    ptp: Side,
    daemon: Daemon,
    node: Node,
    lab: Lab,
}

/// A peer with namespaces for its pods, which it uses again and again.
struct Side {
    plugin: Plugin,
    peer: Peer,
    namespaces: Vec<PodNs>,
}

impl Side {
    async fn new(peer: Peer, node: &Node, sandboxes: usize) -> Result<Self> {
        let mut namespaces = Vec::new();
        for number in 0..sandboxes {
            namespaces.push(node.pod(&format!("{}{number}", prefix(peer))).await?);
        }
        Ok(Self { plugin: Plugin::new(peer, node)?, peer, namespaces })
    }

    /// The first `count` sandboxes of a round, each of a name that never was before.
    fn sandboxes(&self, round: &str, count: usize) -> Vec<Attachment> {
        let sandbox = |(number, namespace): (usize, &PodNs)| {
            let name = format!("{}-{round}-{number}", prefix(self.peer));
            Attachment {
                container_id: name.clone(),
                netns: Some(namespace.path().to_owned()),
                ifname: "eth0".to_owned(),
                pod: Some(("bench".to_owned(), name.clone(), format!("{name}-uid"))),
                ..Attachment::default()
            }
        };
        self.namespaces.iter().take(count).enumerate().map(sandbox).collect()
    }
}

const fn prefix(peer: Peer) -> &'static str {
    match peer {
        Peer::Ours => "ours",
        Peer::Ptp => "peer",
    }
}

/// What both took, round by round.
#[derive(Default)]
struct Pair {
    ours: Rounds,
    ptp: Rounds,
}

impl Pair {
    fn push(&mut self, peer: Peer, times: Vec<Duration>) {
        let rounds = match peer {
            Peer::Ours => &mut self.ours,
            Peer::Ptp => &mut self.ptp,
        };
        rounds.push(times.into_iter().map(milliseconds).collect());
    }

    fn compare(&self, verb: Verb, pods: usize) -> Option<Comparison> {
        Some(Comparison {
            verb: verb.name(),
            pods,
            ours: self.ours.summary()?,
            ptp: self.ptp.summary()?,
            faster: self.ptp.over(&self.ours)?,
            expected: match verb {
                Verb::Add => Some(3.5),
                Verb::Del => Some(10.0),
                _ => None,
            },
        })
    }
}

impl Bench {
    async fn up(options: &BenchOptions, plan: Plan) -> Result<Self> {
        let lab = super::lab(options.lab.clone(), &[NODE.to_owned()]).await?;
        let idle = plan.sandboxes();
        let daemon = lab.start_daemon(NODE, &daemon_settings(idle)).await?;
        let node = lab.node(NODE)?.node.clone();
        let ours = Side::new(Peer::Ours, &node, plan.sandboxes()).await?;
        let ptp = Side::new(Peer::Ptp, &node, plan.sandboxes()).await?;
        rest(&lab, NODE, idle, None).await?;
        let status = super::status(&lab, NODE).await?;
        let links = super::links_beside_enis(&lab, NODE, &status).await?;
        Ok(Self { plan, links, ours, ptp, daemon, node, lab })
    }

    async fn down(self, pods: Vec<LabPod>) -> Result<()> {
        for pod in pods {
            self.lab.del_pod(pod).await?;
        }
        self.daemon.stop().await?;
        drop((self.ours, self.ptp, self.node));
        self.lab.down().await
    }

    const fn side(&self, peer: Peer) -> &Side {
        match peer {
            Peer::Ours => &self.ours,
            Peer::Ptp => &self.ptp,
        }
    }

    async fn floor(&self) -> Result<Vec<Comparison>> {
        let mut pair = Pair::default();
        let nobodies = vec![Attachment::default(); self.plan.calls];
        for _round in 0..self.plan.rounds {
            for peer in Peer::BOTH {
                pair.push(peer, self.calls(peer, Verb::Version, nobodies.clone()).await?);
            }
        }
        Ok(pair.compare(Verb::Version, 0).into_iter().collect())
    }

    /// ADDs one after another, then their DELs, by one peer and then by the other.
    async fn sequential(&self, pods: usize) -> Result<Vec<Comparison>> {
        self.warm_up(pods).await?;
        let (mut adds, mut dels) = (Pair::default(), Pair::default());
        for round in 0..self.plan.rounds {
            for peer in Peer::BOTH {
                let round = format!("{pods}-{round}");
                let sandboxes = self.side(peer).sandboxes(&round, self.plan.calls);
                self.rest(pods).await?;
                adds.push(peer, self.calls(peer, Verb::Add, sandboxes.clone()).await?);
                dels.push(peer, self.calls(peer, Verb::Del, sandboxes).await?);
            }
        }
        self.rest(pods).await?;
        let compared = [adds.compare(Verb::Add, pods), dels.compare(Verb::Del, pods)];
        Ok(compared.into_iter().flatten().collect())
    }

    /// As many pods as ever come and go at once: afterwards the pool has that many addresses above
    /// its minimum, and nobody asks the cloud for more while something is measured.
    async fn warm_up(&self, pods: usize) -> Result<()> {
        for peer in Peer::BOTH {
            let sandboxes = self.side(peer).sandboxes(&format!("w{pods}"), self.plan.sandboxes());
            self.rest(pods).await?;
            self.calls(peer, Verb::Add, sandboxes.clone()).await?;
            self.calls(peer, Verb::Del, sandboxes).await?;
        }
        Ok(())
    }

    async fn parallel(&self) -> Result<Vec<ParallelFact>> {
        let (mut each, mut rates) = (Pair::default(), [Rounds::default(), Rounds::default()]);
        for round in 0..self.plan.parallel_rounds {
            for (peer, rates) in Peer::BOTH.into_iter().zip(&mut rates) {
                let sandboxes =
                    self.side(peer).sandboxes(&format!("p-{round}"), self.plan.parallel);
                self.rest(0).await?;
                let added = self.at_once(peer, sandboxes.clone()).await?;
                self.calls(peer, Verb::Del, sandboxes).await?;
                rates.push(vec![rate(&added)]);
                each.push(peer, added.each);
            }
        }
        self.rest(0).await?;
        let fact = |peer: Peer, each: &Rounds, rates: &Rounds| {
            let calls = self.plan.parallel;
            Some(ParallelFact { peer, calls, each: each.summary()?, rate: rates.summary()? })
        };
        let [ours, ptp] = rates;
        let facts = [fact(Peer::Ours, &each.ours, &ours), fact(Peer::Ptp, &each.ptp, &ptp)];
        Ok(facts.into_iter().flatten().collect())
    }

    async fn add_pods(&self, count: usize) -> Result<Vec<LabPod>> {
        let mut pods = Vec::new();
        for number in 0..count {
            pods.push(self.lab.add_pod(&PodRequest::shared(NODE, &format!("pod{number}"))).await?);
        }
        Ok(pods)
    }

    /// Until nothing of an earlier round is left, so that nobody pays for another.
    async fn rest(&self, pods: usize) -> Result<()> {
        rest(&self.lab, NODE, self.plan.sandboxes(), Some(self.links.saturating_add(pods))).await
    }

    async fn calls(
        &self,
        peer: Peer,
        verb: Verb,
        sandboxes: Vec<Attachment>,
    ) -> Result<Vec<Duration>> {
        let plugin = self.side(peer).plugin.clone();
        self.node.run(move || plugin.calls(verb, &sandboxes)).await?
    }

    async fn at_once(&self, peer: Peer, sandboxes: Vec<Attachment>) -> Result<Parallel> {
        let plugin = self.side(peer).plugin.clone();
        self.node.run(move || plugin.parallel(Verb::Add, &sandboxes)).await?
    }
}

/// Calls a second.
fn rate(parallel: &Parallel) -> f64 {
    let calls = u32::try_from(parallel.each.len()).map_or(f64::INFINITY, f64::from);
    calls / parallel.all.as_secs_f64()
}

impl fmt::Display for AddReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "CALL",
            "PODS",
            "PLUGIN",
            "CALLS",
            "P50 ms",
            "P99 ms",
            "ROUNDS ms",
            "FASTER",
            "EXPECTED",
        ];
        let rows = self.floor.iter().chain(&self.calls).flat_map(Comparison::rows);
        writeln!(f, "\n{}", table(header, 3, rows))?;
        let header = ["SIDE BY SIDE", "PLUGIN", "P50 ms", "P99 ms", "RATE /s", "ROUNDS /s"];
        let rows = self.parallel.iter().map(ParallelFact::row);
        writeln!(f, "\n{}", table(header, 2, rows))?;
        write!(f, "\n{}", self.machine.line())
    }
}

impl Comparison {
    fn rows(&self) -> [[String; 9]; 2] {
        let row = |peer: Peer, summary: &Summary, faster: String, expected: String| {
            let Summary { count, p50, p99, lowest, highest } = summary;
            [
                self.verb.to_owned(),
                self.pods.to_string(),
                peer.name().to_owned(),
                count.to_string(),
                format!("{p50:.2}"),
                format!("{p99:.2}"),
                format!("{lowest:.2}-{highest:.2}"),
                faster,
                expected,
            ]
        };
        let Ratio { median, lowest, highest } = self.faster;
        let faster = format!("x{median:.1} [{lowest:.1}-{highest:.1}]");
        let expected = self
            .expected
            .map(|least| format!(">= x{least:.1}: {}", if median >= least { "yes" } else { "NO" }));
        [
            row(Peer::Ours, &self.ours, faster, expected.unwrap_or_default()),
            row(Peer::Ptp, &self.ptp, String::new(), String::new()),
        ]
    }
}

impl ParallelFact {
    fn row(&self) -> [String; 6] {
        let Self { peer, calls, each, rate } = self;
        [
            format!("{calls} ADDs"),
            peer.name().to_owned(),
            format!("{:.1}", each.p50),
            format!("{:.1}", each.p99),
            format!("{:.0}", rate.p50),
            format!("{:.0}-{:.0}", rate.lowest, rate.highest),
        ]
    }
}
