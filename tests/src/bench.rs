//! Measurements, each figure beside its peer or its floor in the same interleaved run: what a
//! machine does at another time is another machine.

pub mod add;
pub mod burst;
pub mod forward;
pub mod generator;
mod plugin;
mod statistics;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use model::{VSwitchId, VpcId, ZoneId};
use proto::debug::StatusReply;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time;

use crate::ecs::VSwitchSpec;
use crate::lab::{DaemonSettings, Lab, LabOptions, NodeSpec, settings};
use crate::node::V6Default;

pub use plugin::Peer;
pub use statistics::{Ratio, Summary};

/// Has room for all pods that any measurement needs.
const VSWITCH: &str = "vsw-bench";
/// The one type with room for 500 pods.
const INSTANCE_TYPE: &str = "ecs.lab.huge";
/// How long a node may take to come to rest.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(10);

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Enough for figures to be quoted.
    Full,
    /// Enough to see that it runs to the end.
    Quick,
}

/// How a benchmark is to be run.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The lab to make; its nodes are the benchmark's own.
    pub lab: LabOptions,
    /// See there.
    pub effort: Effort,
    /// Write the figures here too.
    pub json: Option<PathBuf>,
}

/// Where and beside what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// Where the measured binaries lie: `release` or `dev`.
    pub binaries: PathBuf,
    /// Load averages of 1, 5 and 15 minutes at the start.
    pub load_before: String,
    /// The same at the end: the benchmark itself is in it.
    pub load_after: String,
}

impl Machine {
    /// As it is before anything is measured.
    fn now() -> Self {
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            binaries: crate::driver::stage(),
            load_before: load(),
            load_after: String::new(),
        }
    }

    fn line(&self) -> String {
        let Self { kernel, cpus, binaries, load_before, load_after } = self;
        format!(
            "Linux {kernel}, {cpus} CPUs, load {load_before} before and {load_after} after; binaries of {}",
            binaries.display()
        )
    }
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Facts beside the figures: none of them is worth an error.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Makes the lab with these nodes, and a vSwitch that is large enough.
async fn lab(mut options: LabOptions, nodes: &[String]) -> Result<Lab> {
    let node = |name: &String| NodeSpec {
        name: name.clone(),
        kind: INSTANCE_TYPE.to_owned(),
        v6_default: V6Default::Static,
    };
    options.nodes = nodes.iter().map(node).collect();
    let lab = Lab::up(options).await?;
    lab.ecs().add_vswitch(&VSwitchSpec {
        id: VSwitchId::new(VSWITCH),
        vpc: VpcId::new(settings::VPC),
        zone: ZoneId::new(settings::ZONE),
        v4: "10.0.16.0/20".parse()?,
        v6: Some("2001:db8:0:10::/64".parse()?),
    })?;
    Ok(lab)
}

/// Dual stack, from the large vSwitch, with so many addresses idle.
fn daemon_settings(idle: usize) -> DaemonSettings {
    let more = json!({
        "vswitches": { settings::ZONE: [VSWITCH] },
        "min_pool_size": idle,
        "max_pool_size": idle.saturating_mul(2),
        // An address of a round is to be there again in the next.
        "ip_cooldown": "1s",
    });
    let more = match more {
        Value::Object(more) => more,
        _ => Map::new(),
    };
    DaemonSettings { more, ..DaemonSettings::default() }
}

/// Waits until the daemon has `idle` addresses and nothing left to do, and until the node has so
/// many links beside the daemon's ENIs, whoever made them.
async fn rest(lab: &Lab, node: &str, idle: usize, links: Option<usize>) -> Result<()> {
    let resting = async {
        loop {
            let status = status(lab, node).await?;
            let beside = links_beside_enis(lab, node, &status).await?;
            let pool = status.pool.unwrap_or_default();
            let enough = usize::try_from(pool.idle)? >= idle && pool.resting == 0;
            let done = status.reaper_queue == 0 && status.del_queue == 0;
            if enough && done && links.is_none_or(|links| links == beside) {
                return anyhow::Ok(());
            }
            time::sleep(LOOK).await;
        }
    };
    let Ok(rested) = time::timeout(PATIENCE, resting).await else {
        let status = status(lab, node).await?;
        let beside = links_beside_enis(lab, node, &status).await?;
        anyhow::bail!(
            "{node} does not come to rest with {idle} idle addresses and {links:?} links beside its \
             ENIs in {PATIENCE:?}; it has {beside}, and its daemon says {status:?}"
        );
    };
    rested
}

async fn status(lab: &Lab, node: &str) -> Result<StatusReply> {
    Ok(serde_json::from_value(lab.terwayctl(node, "status").await?)?)
}

/// The pool takes and returns ENIs as it needs them; each is a link.
async fn links_beside_enis(lab: &Lab, node: &str, status: &StatusReply) -> Result<usize> {
    let enis = status.pool.as_ref().map_or(0, |pool| pool.enis);
    let links = lab.node(node)?.node.netlink().links().await?.len();
    Ok(links.saturating_sub(usize::try_from(enis)?))
}

/// A table whose columns after the first `texts` are figures.
fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    texts: usize,
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn write_json(file: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// In milliseconds.
fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
