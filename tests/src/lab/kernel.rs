//! What of a node's datapath `ip` does not show: tc filters, sysctls of links, map entries.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use daemon::bpf::SCHEMA;
use serde_json::Value;

use super::leftovers::{json, tc};
use crate::node::Node;

/// The maps that say what is there. The others count or carry events.
const MAPS: [&str; 3] = ["ENDPOINTS", "MEMBERS", "NODE"];
/// Its entries count, but it has one for each pod.
const COUNTERS: &str = "COUNTERS";
const ADDRESSES: &str = "ADDRESSES";
/// What `tc` says of a link that is gone.
const NO_LINK: &str = "Cannot find device";
/// Where sysctls of links are.
const SYSCTLS: [&str; 2] = ["/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"];

/// Queueing disciplines, and the filters on both sides of each link, without what differs from one
/// load of a program to the next.
pub(super) async fn filters<'a>(
    node: &Node,
    links: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let mut found: Vec<_> = tc(node, "-j qdisc show").await?.iter().map(Value::to_string).collect();
    for link in links {
        for side in ["ingress", "egress"] {
            let filters = match tc(node, &format!("-j filter show dev {link} {side}")).await {
                // The reaper was faster; that the link was there is a difference of its own.
                Err(error) if error.to_string().contains(NO_LINK) => continue,
                filters => filters?,
            };
            for mut filter in filters {
                if let Some(program) = filter.pointer_mut("/options/prog") {
                    *program = program["name"].take();
                }
                found.push(format!("{link} {side} {filter}"));
            }
        }
    }
    Ok(found)
}

/// The sysctls of all links, a line each.
pub(super) async fn sysctls(node: &Node) -> Result<Vec<String>> {
    let output = node.command("grep").args(["-rs", ""]).args(SYSCTLS).output().await?;
    // Its status is not 0, for some cannot be read.
    let text = String::from_utf8(output.stdout).context("a sysctl is not text")?;
    anyhow::ensure!(!text.is_empty(), "no sysctl can be read on {}", node.name());
    Ok(text.lines().map(str::to_owned).collect())
}

/// Entries of the pinned maps, but tombstones, which rest for a while.
pub(super) async fn entries(node: &Node) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for map in MAPS {
        let entries = dump(node, map).await?;
        let line =
            |entry: &Value| format!("{map} {}: {}", hex(&entry["key"]), hex(&entry["value"]));
        found.extend(entries.iter().map(line));
    }
    let counters = dump(node, COUNTERS).await?;
    found.extend(counters.iter().map(|entry| format!("{COUNTERS} {}", hex(&entry["key"]))));
    for entry in dump(node, ADDRESSES).await? {
        let address = Address::parse(&entry)?;
        if !address.tombstone {
            found.push(format!("{ADDRESSES} {}: {}", address.address, hex(&entry["value"])));
        }
    }
    Ok(found)
}

/// The addresses whose pod is gone and whose last frames the programs drop.
pub(super) async fn tombstones(node: &Node) -> Result<BTreeSet<IpAddr>> {
    let entries = dump(node, ADDRESSES).await?;
    let addresses: Vec<_> = entries.iter().map(Address::parse).collect::<Result<_>>()?;
    Ok(addresses.into_iter().filter(|entry| entry.tombstone).map(|entry| entry.address).collect())
}

/// None as long as no daemon has pinned the map.
async fn dump(node: &Node, map: &str) -> Result<Vec<Value>> {
    let pin = format!("/sys/fs/bpf/terway/v{SCHEMA}/{map}");
    if !node.command("test").args(["-e", &pin]).status().await?.success() {
        return Ok(Vec::new());
    }
    json(node, "bpftool", &format!("-j map dump pinned {pin}")).await
}

/// An entry of the map of addresses, as `bpftool` prints its bytes: the link's index and the address;
/// the VLAN id and the state.
struct Address {
    address: IpAddr,
    tombstone: bool,
}

impl Address {
    fn parse(entry: &Value) -> Result<Self> {
        let key = bytes(&entry["key"]);
        let value = bytes(&entry["value"]);
        let address = key.get(4..).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let address = address.with_context(|| format!("{entry} has no address"))?;
        let state = value.get(4).with_context(|| format!("{entry} has no state"))?;
        let address = Ipv6Addr::from(address).to_canonical();
        Ok(Self { address, tombstone: *state != 0 })
    }
}

fn bytes(list: &Value) -> Vec<u8> {
    let list = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    list.filter_map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16).ok()).collect()
}

fn hex(list: &Value) -> String {
    base16ct::lower::encode_string(&bytes(list))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(state: u8) -> Value {
        let hex =
            |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>();
        let address = "::ffff:10.0.1.2".parse::<Ipv6Addr>().unwrap().octets();
        let key = [&[3, 0, 0, 0], address.as_slice()].concat();
        json!({ "key": hex(&key), "value": hex(&[1, 0, 0, 0, state, 0, 0, 0]) })
    }

    #[test]
    fn an_address_and_its_state_are_read_from_the_bytes_of_a_map() {
        for (state, tombstone) in [(0, false), (1, true)] {
            let found = Address::parse(&entry(state)).unwrap();
            assert_eq!(found.address.to_string(), "10.0.1.2");
            assert_eq!(found.tombstone, tombstone);
        }
        assert!(Address::parse(&json!({ "key": ["0x00"], "value": [] })).is_err());
    }
}
