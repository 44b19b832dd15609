//! What pods left behind, looked for with second witnesses: `ip -j`, `terwayctl` against the
//! cloud's own truth.

use std::collections::BTreeSet;

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::time;

use super::{Lab, kernel};
use crate::node::Node;

/// How long duplicate address detection may take.
const DETECTION: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// A node's kernel state, as `ip`, `tc`, `bpftool` and the sysctls say it, without what counts or ages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelState(pub BTreeSet<String>);

impl KernelState {
    /// What `self` has and `before` has not, and the other way round, a line each.
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let more = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let less = before.0.difference(&self.0).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }
}

impl Lab {
    /// Links, addresses, rules, routes, permanent neighbours, tc filters, sysctls of links and entries
    /// of the pinned maps of a node, once no address is
    /// tentative any more: duplicate address detection of link-local ones adds routes late.
    pub async fn kernel_state(&self, node: &str) -> Result<KernelState> {
        let node = &self.node(node)?.node;
        let certain = async {
            while !ip(node, "-j -6 addr show tentative").await?.iter().all(is_empty) {
                time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        time::timeout(DETECTION, certain).await.context("an address stays tentative")??;
        let mut state = BTreeSet::new();
        for (what, arguments) in [
            ("link", "-j -d link show"),
            ("addr", "-j addr show"),
            ("rule4", "-j -4 rule show"),
            ("rule6", "-j -6 rule show"),
            ("route4", "-j -4 route show table all"),
            ("route6", "-j -6 route show table all"),
            ("neigh4", "-j -4 neigh show nud permanent"),
            ("neigh6", "-j -6 neigh show nud permanent"),
        ] {
            let items = ip(node, arguments).await?;
            if what == "link" {
                let links = items.iter().filter_map(|link| link.get("ifname")?.as_str());
                let filters = kernel::filters(node, links).await?;
                state.extend(filters.into_iter().map(|filter| format!("tc {filter}")));
            }
            for item in items {
                state.insert(format!("{what} {}", stripped(item)));
            }
        }
        let sysctls = kernel::sysctls(node).await?;
        state.extend(sysctls.into_iter().map(|sysctl| format!("sysctl {sysctl}")));
        let entries = kernel::entries(node).await?;
        state.extend(entries.into_iter().map(|entry| format!("map {entry}")));
        Ok(KernelState(state))
    }
}

/// What `ip` prints on the node.
pub async fn ip(node: &Node, arguments: &str) -> Result<Vec<Value>> {
    json(node, "ip", arguments).await
}

/// What `tc` prints on the node.
pub async fn tc(node: &Node, arguments: &str) -> Result<Vec<Value>> {
    json(node, "tc", arguments).await
}

pub(super) async fn json(node: &Node, program: &str, arguments: &str) -> Result<Vec<Value>> {
    let output = node.command(program).args(arguments.split(' ')).output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {arguments}: {stderr}");
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{program} {arguments} prints no list"))
}

/// `ip` prints `{}` for a link that has nothing of what was asked for.
fn is_empty(item: &Value) -> bool {
    item.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Without what changes by itself: statistics, lifetimes, queues' ages.
fn stripped(mut item: Value) -> Value {
    if let Some(object) = item.as_object_mut() {
        for key in
            ["stats", "stats64", "expires", "used", "valid_life_time", "cache_info", "ageing"]
        {
            object.remove(key);
        }
        for value in object.values_mut() {
            *value = stripped(value.take());
        }
    } else if let Some(list) = item.as_array_mut() {
        for value in list.iter_mut() {
            *value = stripped(value.take());
        }
    }
    item
}
