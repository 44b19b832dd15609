//! tc filters on a node's links, as `tc -j` prints them.

use anyhow::Result;
use serde_json::Value;

use super::Lab;
use super::leftovers::tc;

/// A filter of kind bpf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcFilter {
    /// Lower runs earlier.
    pub priority: u64,
    /// `0x1`.
    pub handle: String,
    /// The name that it was attached with.
    pub name: String,
    /// Kernel id of its program.
    pub program_id: u64,
}

impl Lab {
    /// The filters on one side (`ingress`, `egress`) of a link, in the order in which they run.
    pub async fn filters(&self, node: &str, link: &str, side: &str) -> Result<Vec<TcFilter>> {
        let node = &self.node(node)?.node;
        let all = tc(node, &format!("-j filter show dev {link} {side}")).await?;
        Ok(all.iter().filter_map(filter).collect())
    }
}

/// `None` for the head of a priority, which `tc` lists beside its filters.
fn filter(item: &Value) -> Option<TcFilter> {
    let options = item.get("options")?;
    Some(TcFilter {
        priority: item.get("pref")?.as_u64()?,
        handle: options.get("handle")?.as_str()?.to_owned(),
        name: options.get("bpf_name")?.as_str()?.to_owned(),
        program_id: options.get("prog")?.get("id")?.as_u64()?,
    })
}
