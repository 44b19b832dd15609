//! The main job, shown: two nodes, shared pods and trunk pods, who reaches whom, what the kernel
//! has, and that nothing is left.

mod facts;
mod kernel;
mod show;
mod teardown;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;

use crate::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use crate::progress::Progress;
use crate::reach::{Attempt, Endpoint, PORT, Reach};

pub use facts::{Facts, FilterFact, PodFact, ReachFact};

/// How the demo is to be run.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The lab to make.
    pub lab: LabOptions,
    /// Leave the lab up.
    pub keep: bool,
    /// Write the facts here too.
    pub json: Option<PathBuf>,
}

/// A lab that was left up, and what holds it.
#[derive(Debug)]
pub struct Kept {
    /// The lab.
    pub lab: Lab,
    /// Its daemons.
    pub daemons: Vec<Daemon>,
    /// Its pods.
    pub pods: Vec<LabPod>,
}

/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Runs the demo. An error is what kept it from being shown; what was shown and is not as it should
/// be stands in [`Facts::wrong`].
pub async fn run(options: DemoOptions) -> Result<(Facts, Option<Kept>)> {
    let progress = Progress::new(if options.keep { 4 } else { 6 });
    let lab =
        progress.step("lab: a VPC, two nodes, a client outside", Lab::up(options.lab)).await?;
    let settings = DaemonSettings::default();
    let nodes: Vec<_> = lab.nodes().map(|node| node.node.name().to_owned()).collect();
    let start = nodes.iter().map(|node| lab.start_daemon(node, &settings));
    let daemons = progress.step("daemons: trunk, shared ENI, pool", try_join_all(start)).await?;
    let before = teardown::Before::read(&lab, &nodes).await?;
    let pods = progress.step("pods by the CNI binary", add_pods(&lab, &nodes)).await?;

    let mut facts = Facts { node: nodes.first().cloned().unwrap_or_default(), ..Facts::default() };
    facts.pods = pod_facts(&lab, &nodes, &pods).await?;
    let all = endpoints(&lab, &pods)?;
    let reach = crate::reach::reach(lab.fabric(), &all, ATTEMPT);
    let attempts = progress.step("who reaches whom by TCP", reach).await?;
    judge(&lab, &pods, &all, &attempts, &mut facts);
    kernel::read(&lab, &mut facts).await?;
    kernel::drops(&lab, &nodes, &mut facts).await?;
    show::pods(&progress, &facts);
    show::reach(&progress, &facts);
    show::kernel(&progress, &facts);
    show::drops(&progress, &facts);

    let kept = if options.keep {
        show::look_around(&progress, &lab);
        Some(Kept { lab, daemons, pods })
    } else {
        let delete = teardown::delete(&lab, pods, &before);
        facts.left = progress.step("DEL of all pods, and a look at what is left", delete).await?;
        let leave = teardown::leave(lab, daemons);
        facts.left.extend(progress.step("lab down, and a look at what is left", leave).await?);
        show::left(&progress, &facts);
        None
    };
    facts.wrong.extend(facts.left.iter().map(|left| format!("left: {left}")));
    if let Some(file) = options.json {
        std::fs::write(&file, serde_json::to_string_pretty(&facts)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    show::verdict(&progress, &facts);
    Ok((facts, kept))
}

/// Two shared pods and two with a member ENI on each node, one after the other, so that each ADD's
/// time is its own.
async fn add_pods(lab: &Lab, nodes: &[String]) -> Result<Vec<LabPod>> {
    let mut pods = Vec::new();
    for node in nodes {
        let name = |kind: &str| format!("{kind}-{node}");
        for request in [
            PodRequest::shared(node, &name("app-a")),
            PodRequest::shared(node, &name("app-b")),
            PodRequest::trunk(node, &name("web"), "web"),
            PodRequest::trunk(node, &name("db"), "db"),
        ] {
            pods.push(lab.add_pod(&request).await?);
        }
    }
    Ok(pods)
}

/// Everybody who takes part in reaching and being reached.
pub fn endpoints<'a>(
    lab: &Lab,
    pods: impl IntoIterator<Item = &'a LabPod>,
) -> Result<Vec<Endpoint>> {
    let mut endpoints: Vec<_> = pods
        .into_iter()
        .map(|pod| Endpoint {
            name: pod.request.name.clone(),
            place: pod.netns.namespace().clone(),
            addresses: pod.addresses.clone(),
        })
        .collect();
    let dump = lab.ecs().dump();
    for node in lab.nodes() {
        let name = node.node.name();
        let primary = dump
            .enis
            .iter()
            .find(|eni| eni.kind == "Primary" && eni.instance_name.as_deref() == Some(name));
        let primary = primary.with_context(|| format!("{name} has no primary ENI"))?;
        let v4 = primary.v4.iter().copied().map(Into::into);
        endpoints.push(Endpoint {
            name: name.to_owned(),
            place: node.node.namespace().clone(),
            addresses: v4.chain(primary.v6.iter().copied().map(Into::into)).collect(),
        });
    }
    endpoints.push(lab.outside());
    Ok(endpoints)
}

/// Compares each attempt with what the groups' rules say; inside a node they have no say.
fn judge(lab: &Lab, pods: &[LabPod], all: &[Endpoint], attempts: &[Attempt], facts: &mut Facts) {
    let place = |name: &str| {
        let pod = pods.iter().find(|pod| pod.request.name == name);
        pod.map_or_else(|| name.to_owned(), |pod| pod.request.node.clone())
    };
    for attempt in attempts {
        let source = all.iter().find(|one| one.name == attempt.from).and_then(|one| {
            let same = |address: &&IpAddr| address.is_ipv4() == attempt.address.is_ipv4();
            one.addresses.iter().find(same).copied()
        });
        let local = place(&attempt.from) == place(&attempt.to);
        let refusal = source.filter(|_| !local);
        let refusal = refusal.and_then(|from| lab.refusal(from, attempt.address, PORT));
        let (reached, refused_by, microseconds) = match &attempt.reach {
            Reach::Reached { latency, .. } => {
                (true, Vec::new(), latency.as_micros().try_into().ok())
            }
            Reach::Refused(refused) => {
                (false, refused.groups.iter().map(ToString::to_string).collect(), None)
            }
            _ => (false, Vec::new(), None),
        };
        let as_expected = match &refusal {
            None => reached,
            Some(group) => refused_by.contains(group),
        };
        if !as_expected {
            let expected = refusal.map_or("reached".to_owned(), |by| format!("refused by {by}"));
            facts.wrong.push(format!(
                "{} -> {} ({}): {}, and should be {expected}",
                attempt.from, attempt.to, attempt.address, attempt.reach
            ));
        }
        facts.reach.push(ReachFact {
            from: attempt.from.clone(),
            to: attempt.to.clone(),
            address: attempt.address,
            reached,
            refused_by,
            microseconds,
        });
    }
}

/// What `terwayctl` says of the pods, checked against the binary's own result.
async fn pod_facts(lab: &Lab, nodes: &[String], pods: &[LabPod]) -> Result<Vec<PodFact>> {
    let listed = try_join_all(nodes.iter().map(|node| lab.terwayctl(node, "pods"))).await?;
    let listed: Vec<_> =
        listed.iter().filter_map(|list| list.get("pods")?.as_array()).flatten().collect();
    let fact = |pod: &LabPod| -> Result<PodFact> {
        let name = pod.request.name.as_str();
        let found =
            listed.iter().find(|one| one.get("name").and_then(|n| n.as_str()) == Some(name));
        let found = found.with_context(|| format!("terwayctl does not know {name}"))?;
        let text = |key: &str| {
            found.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let groups = found.get("security_groups").and_then(|value| value.as_array());
        Ok(PodFact {
            node: pod.request.node.clone(),
            name: name.to_owned(),
            mode: text("mode"),
            ipv4: text("ipv4"),
            ipv6: text("ipv6"),
            eni: text("eni"),
            vlan: found
                .get("vlan")
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default()
                .try_into()?,
            security_groups: groups
                .into_iter()
                .flatten()
                .filter_map(|group| Some(group.as_str()?.to_owned()))
                .collect(),
            add_milliseconds: pod.add_time.as_secs_f64() * 1000.0,
        })
    };
    pods.iter().map(fact).collect()
}
