//! What it costs to forward a packet into and out of a pod, by the number of pods on its node.
//!
//! A node for each number, all in one lab, measured in turns.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use model::Mac;
use proto::debug::EnisReply;
use serde::Serialize;
use serde_json::Value;

use super::generator::{Generator, Sink};
use super::statistics::Rounds;
use super::{
    BenchOptions, Effort, Machine, Ratio, Summary, daemon_settings, rest, table, write_json,
};
use crate::driver::staged;
use crate::fabric::{OUTSIDE_V4, OUTSIDE_V6};
use crate::lab::leftovers::ip;
use crate::lab::{Daemon, Lab, LabPod, PodRequest};
use crate::namespace::Namespace;
use crate::progress::Progress;
use crate::traffic::Frame;

/// What more pods may cost.
const AT_MOST: f64 = 1.15;

/// How many times what.
#[derive(Debug, Clone)]
struct Plan {
    pods: &'static [usize],
    rounds: usize,
    frames: u32,
}

impl Plan {
    const fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => Self { pods: &[2, 100, 500], rounds: 25, frames: 20_000 },
            Effort::Quick => Self { pods: &[2, 4], rounds: 2, frames: 1_000 },
        }
    }
}

/// The figures; times are in nanoseconds of one CPU for one packet.
#[derive(Debug, Clone, Serialize)]
pub struct ForwardReport {
    /// See there.
    pub machine: Machine,
    /// A frame that is made, received, and taken away at once.
    pub floor: Summary,
    /// Each way, by the number of pods.
    pub ways: Vec<WayFact>,
}

/// One way on one node.
#[derive(Debug, Clone, Serialize)]
pub struct WayFact {
    /// Into the pod or out of it.
    pub direction: Direction,
    /// 4 or 6.
    pub family: u8,
    /// Pods on the node.
    pub pods: usize,
    /// ENIs of the daemon on the node.
    pub enis: usize,
    /// Rules of the family on the node, the kernel's own included.
    pub rules: usize,
    /// The floor included.
    pub cost: Summary,
    /// Against the node with the fewest pods; `None` for that one.
    pub ratio: Option<Ratio>,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the VPC into the pod: received by the ENI, taken away at the pod's `eth0`.
    In,
    /// From the pod into the VPC: received by the host's end of its pair, taken away at the
    /// ENI's port in the VPC.
    Out,
}

const WAYS: [(Direction, u8); 4] =
    [(Direction::In, 4), (Direction::Out, 4), (Direction::In, 6), (Direction::Out, 6)];

/// Runs it and prints the figures.
pub async fn run(options: BenchOptions) -> Result<ForwardReport> {
    let plan = Plan::of(options.effort);
    let progress = Progress::new(4);
    let mut machine = Machine::now();
    let generator = Generator::load(&staged("bench.bpf.o")?)?;
    let names: Vec<_> = plan.pods.iter().map(|pods| format!("pods{pods}")).collect();
    let up = super::lab(options.lab, &names);
    let lab = progress.step("a lab with a node for each number of pods", up).await?;
    let nodes = try_join_all(
        plan.pods.iter().zip(&names).map(|(pods, name)| Crowd::up(&lab, &generator, name, *pods)),
    );
    let nodes = progress.step("daemons and pods", nodes).await?;
    let measured = progress.step("frames", measure(&lab, &generator, &nodes, &plan)).await?;
    machine.load_after = super::load();
    let down = take_down(lab, nodes);
    progress.step("down", down).await?;
    let report = ForwardReport { machine, ..measured };
    write_json(options.json.as_deref(), &report)?;
    progress.say(&report.to_string());
    Ok(report)
}

/// A node with its pods, the last of which is measured.
struct Crowd {
    _pods: Vec<LabPod>,
    daemon: Daemon,
    place: Namespace,
    enis: usize,
    rules: [usize; 2],
    ways: Vec<Way>,
    _sinks: [Sink; 2],
}

/// Where a frame is received and what it is.
struct Way {
    link: String,
    frame: Frame,
}

impl Crowd {
    async fn up(lab: &Lab, generator: &Generator, node: &str, pods: usize) -> Result<Self> {
        let daemon = lab.start_daemon(node, &daemon_settings(pods)).await?;
        rest(lab, node, pods, None).await?;
        let mut all = Vec::new();
        for number in 0..pods {
            all.push(lab.add_pod(&PodRequest::shared(node, &format!("{node}-{number}"))).await?);
        }
        let enis = lab.terwayctl(node, "enis").await?;
        let enis: EnisReply = serde_json::from_value(enis)?;
        let place = lab.node(node)?.node.clone();
        let subject = Subject::farthest(&all, &enis)?;
        let port = port(lab, &subject.eni).await?;
        let at_pod = generator.take_away_at(subject.pod.netns.namespace(), "eth0").await?;
        let at_port = generator.take_away_at(lab.fabric().vpc(), &port).await?;
        let rules = [
            ip(&place, "-j -4 rule show").await?.len(),
            ip(&place, "-j -6 rule show").await?.len(),
        ];
        let ways = WAYS.map(|(direction, family)| subject.way(direction, family));
        Ok(Self {
            ways: ways.into_iter().collect::<Result<_>>()?,
            _pods: all,
            daemon,
            place: place.namespace().clone(),
            enis: enis.enis.len(),
            rules,
            _sinks: [at_pod, at_port],
        })
    }
}

/// The pod that is measured, and what is around it.
struct Subject<'a> {
    pod: &'a LabPod,
    eni: String,
    eni_link: String,
    eni_mac: Mac,
    /// The host's end of its pair and its own.
    host: (String, Mac),
    own: Mac,
}

impl<'a> Subject<'a> {
    /// A pod of the last ENI: the rules of all others are looked at before its own.
    fn farthest(pods: &'a [LabPod], enis: &EnisReply) -> Result<Self> {
        let of = |pod: &'a LabPod| {
            let has = |eni: &&proto::debug::Eni| {
                let is = |text: &str| pod.addresses.iter().any(|one| one.to_string() == text);
                eni.addresses.iter().any(|address| is(&address.ipv4))
            };
            Some((pod, enis.enis.iter().find(has)?))
        };
        let farthest = pods.iter().filter_map(of).max_by_key(|(_, eni)| eni.link_index);
        let (pod, eni) = farthest.context("no pod has an address of an ENI")?;
        let (host, own) = ends(&pod.result)?;
        Ok(Self {
            pod,
            eni: eni.id.clone(),
            eni_link: eni.link.clone(),
            eni_mac: eni.mac.parse()?,
            host,
            own,
        })
    }

    fn way(&self, direction: Direction, family: u8) -> Result<Way> {
        let mut addresses = self.pod.addresses.iter().copied();
        let pod = addresses.find(|address| is_of(*address, family));
        let pod = pod.with_context(|| format!("the pod has no address of IPv{family}"))?;
        let other: IpAddr = if family == 4 { OUTSIDE_V4.into() } else { OUTSIDE_V6.into() };
        let (pod, other) = (SocketAddr::new(pod, 5000), SocketAddr::new(other, 4000));
        // Headers and payload are 64 bytes.
        let payload = vec![0; if family == 4 { 22 } else { 2 }];
        Ok(match direction {
            Direction::In => Way {
                link: self.eni_link.clone(),
                frame: Frame::udp((Mac::GATEWAY, other), (self.eni_mac, pod), &payload),
            },
            Direction::Out => Way {
                link: self.host.0.clone(),
                frame: Frame::udp((self.own, pod), (self.host.1, other), &payload),
            },
        })
    }
}

const fn is_of(address: IpAddr, family: u8) -> bool {
    address.is_ipv4() == (family == 4)
}

/// The host's end and the MAC of the pod's end, as the result of ADD has them.
fn ends(result: &Value) -> Result<((String, Mac), Mac)> {
    let text = |interface: &Value, key: &str| {
        interface.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let (inside, outside): (Vec<_>, Vec<_>) = interfaces
        .into_iter()
        .flatten()
        .partition(|interface| !text(interface, "sandbox").is_empty());
    let (inside, outside) = inside.first().zip(outside.first()).with_context(|| {
        format!("the result of ADD has not both ends of the pod's pair: {result}")
    })?;
    let host = (text(outside, "name"), text(outside, "mac").parse()?);
    Ok((host, text(inside, "mac").parse()?))
}

/// The link of an ENI in the VPC.
async fn port(lab: &Lab, eni: &str) -> Result<String> {
    let ports = lab.fabric().ports().await;
    let port = ports.into_iter().find(|port| port.eni.as_str() == eni);
    Ok(port.with_context(|| format!("{eni} is not plugged"))?.port)
}

/// All ways on all nodes, in turns.
async fn measure(
    lab: &Lab,
    generator: &Generator,
    nodes: &[Crowd],
    plan: &Plan,
) -> Result<ForwardReport> {
    let first = nodes.first().context("there is a node")?;
    let lo = lab.fabric().outside();
    let _floor = generator.take_away_at(lo, "lo").await?;
    let mut floor = Rounds::default();
    let mut costs = vec![vec![Rounds::default(); nodes.len()]; WAYS.len()];
    for _round in 0..plan.rounds {
        let frame = &first.ways.first().context("there is a way")?.frame;
        floor.push(vec![generator.run(lo, "lo", frame, plan.frames).await?]);
        for (number, way) in costs.iter_mut().enumerate() {
            for (node, rounds) in nodes.iter().zip(way) {
                let Way { link, frame } = node.ways.get(number).context("there is a way")?;
                rounds.push(vec![generator.run(&node.place, link, frame, plan.frames).await?]);
            }
        }
    }
    let ways = WAYS.into_iter().zip(&costs).flat_map(|((direction, family), costs)| {
        let base = costs.first();
        let facts = plan.pods.iter().zip(nodes).zip(costs).enumerate();
        facts.filter_map(move |(number, ((pods, node), rounds))| {
            let [v4, v6] = node.rules;
            Some(WayFact {
                direction,
                family,
                pods: *pods,
                enis: node.enis,
                rules: if family == 4 { v4 } else { v6 },
                cost: rounds.summary()?,
                ratio: if number == 0 { None } else { base.and_then(|base| rounds.over(base)) },
            })
        })
    });
    let ways = ways.collect();
    let floor = floor.summary().context("nothing was measured")?;
    Ok(ForwardReport { machine: Machine::now(), floor, ways })
}

/// The pods go with their nodes.
async fn take_down(lab: Lab, nodes: Vec<Crowd>) -> Result<()> {
    for node in nodes {
        node.daemon.stop().await?;
    }
    lab.down().await
}

impl fmt::Display for ForwardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header =
            ["WAY", "PODS", "ENIS", "RULES", "ns/packet", "ROUNDS", "RATIO", "ROUNDS", "EXPECTED"];
        let rows = self.ways.iter().map(WayFact::row);
        writeln!(f, "\n{}", table(header, 1, rows))?;
        let Summary { p50, lowest, highest, .. } = self.floor;
        writeln!(
            f,
            "\nfloor (made, received, taken away): {p50:.0} [{lowest:.0}-{highest:.0}] ns"
        )?;
        write!(f, "{}", self.machine.line())
    }
}

impl WayFact {
    fn row(&self) -> [String; 9] {
        let way = match self.direction {
            Direction::In => "VPC -> pod",
            Direction::Out => "pod -> VPC",
        };
        let Summary { p50, lowest, highest, .. } = self.cost;
        let verdict = |ratio: f64| if ratio <= AT_MOST { "yes" } else { "NO" };
        [
            format!("{way}, IPv{}", self.family),
            self.pods.to_string(),
            self.enis.to_string(),
            self.rules.to_string(),
            format!("{p50:.0}"),
            format!("{lowest:.0}-{highest:.0}"),
            self.ratio.map(|ratio| format!("x{:.2}", ratio.median)).unwrap_or_default(),
            self.ratio
                .map(|ratio| format!("{:.2}-{:.2}", ratio.lowest, ratio.highest))
                .unwrap_or_default(),
            self.ratio
                .map(|ratio| format!("<= x{AT_MOST}: {}", verdict(ratio.median)))
                .unwrap_or_default(),
        ]
    }
}
