//! What the kernel has, by `ip -j` and `tc -j`; and what was dropped.

use anyhow::Result;
use serde_json::Value;

use super::facts::{Facts, FilterFact};
use crate::lab::Lab;
use crate::lab::leftovers::{ip, tc};

/// Frames of this cause are expected: a link that comes up says MLD, DAD and RS.
const EXPECTED_DROP: &str = "pod_control";

/// Rules and filters of the node that is shown.
pub(super) async fn read(lab: &Lab, facts: &mut Facts) -> Result<()> {
    let node = lab.node(&facts.node)?.node.clone();
    for family in ["-4", "-6"] {
        let text = node.command("ip").args([family, "rule", "show"]).output().await?;
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        let ours = text.lines().filter(|line| line.starts_with("512:") || line.starts_with("513:"));
        facts.rules.extend(ours.map(|line| format!("{family} {}", line.replace('\t', " ").trim())));
    }
    for link in ip(&node, "-j link show").await? {
        let Some(name) = link.get("ifname").and_then(Value::as_str) else { continue };
        for direction in ["ingress", "egress"] {
            let filters = tc(&node, &format!("-j filter show dev {name} {direction}")).await?;
            facts.filters.extend(filters.iter().filter_map(|one| filter(name, direction, one)));
        }
    }
    facts.filters.sort();
    Ok(())
}

fn filter(link: &str, direction: &str, filter: &Value) -> Option<FilterFact> {
    let options = filter.get("options")?;
    Some(FilterFact {
        link: link.to_owned(),
        direction: direction.to_owned(),
        priority: filter.get("pref")?.as_u64()?,
        handle: options.get("handle")?.as_str()?.to_owned(),
        program: options.get("bpf_name")?.as_str()?.to_owned(),
    })
}

/// What nodes and ports dropped; none but the expected is right.
pub(super) async fn drops(lab: &Lab, nodes: &[String], facts: &mut Facts) -> Result<()> {
    for node in nodes {
        let status = lab.terwayctl(node, "status").await?;
        let drops = status.get("drops").and_then(Value::as_array);
        for drop in drops.into_iter().flatten() {
            let cause = drop.get("cause").and_then(Value::as_str).unwrap_or_default();
            let packets = drop.get("packets").and_then(Value::as_u64).unwrap_or_default();
            if packets == 0 {
                continue;
            }
            facts.drops.insert(format!("{node}: {cause}"), packets);
            if cause != EXPECTED_DROP {
                facts.wrong.push(format!("{node} dropped {packets} frames: {cause}"));
            }
        }
    }
    for (sender, cause, frames) in lab.fabric().drops().await?.iter() {
        if frames == 0 {
            continue;
        }
        facts.drops.insert(format!("VPC, from {sender}: {}", cause.name()), frames);
        facts.wrong.push(format!("the VPC dropped {frames} frames of {sender}: {}", cause.name()));
    }
    for refused in lab.fabric().refused().await? {
        let groups: Vec<_> = refused.groups.iter().map(ToString::to_string).collect();
        let key = format!("VPC: refused by group {}", groups.join(", "));
        *facts.drops.entry(key).or_default() += refused.packets;
    }
    Ok(())
}
