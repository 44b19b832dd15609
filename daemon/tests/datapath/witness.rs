//! What `ip`, `tc` and `bpftool` say: the second witness.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::node::{ip, run};

/// All of a node that the datapath may touch, by the command that shows it.
pub(crate) type Witness = BTreeMap<String, Value>;

/// The node's own namespace.
pub(crate) fn node() -> Witness {
    let mut witness = namespace("");
    for link in links() {
        for side in ["ingress", "egress"] {
            witness.insert(format!("filter {link} {side}"), filters(&link, side));
        }
        witness.insert(format!("rp_filter {link}"), sysctl(&format!("ipv4/conf/{link}/rp_filter")));
    }
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        witness.insert(switch.to_owned(), sysctl(switch));
    }
    for map in ["ENDPOINTS", "ADDRESSES", "MEMBERS", "NODE"] {
        witness.insert(map.to_owned(), map_entries(map));
    }
    witness
}

/// A pod's namespace.
pub(crate) fn pod(netns: &str) -> Witness {
    namespace(&format!("-n {netns} "))
}

fn namespace(prefix: &str) -> Witness {
    let commands = [
        "-4 rule",
        "-6 rule",
        "-4 route show table all",
        "-6 route show table all",
        "-4 addr",
        "-6 addr",
        "neigh show nud permanent",
        "link",
    ];
    let look = |command: &str| (command.to_owned(), settled(json(&format!("{prefix}{command}"))));
    commands.map(look).into()
}

/// `ip -j` with these arguments.
pub(crate) fn json(arguments: &str) -> Value {
    let text = ip(&format!("-j {arguments}"));
    if text.trim().is_empty() { Value::Array(vec![]) } else { serde_json::from_str(&text).unwrap() }
}

/// Names of the node's links.
pub(crate) fn links() -> Vec<String> {
    let links = json("link");
    links.as_array().unwrap().iter().map(|link| text(link, "ifname")).collect()
}

/// `tc -j filter show`, without the program's id, which a restart changes.
pub(crate) fn filters(link: &str, side: &str) -> Value {
    let text = run(&format!("tc -j filter show dev {link} {side}"));
    let mut found: Value = serde_json::from_str(&text).unwrap();
    let found = found.as_array_mut().unwrap();
    found.retain(|filter| filter.get("options").is_some());
    let places = found.iter().map(|filter| {
        let options = &filter["options"];
        let name = options["bpf_name"].as_str().unwrap_or_default().to_owned();
        Value::from(format!(
            "{} {} {name}",
            filter["pref"],
            options["handle"].as_str().unwrap_or_default()
        ))
    });
    places.collect::<Vec<_>>().into()
}

fn map_entries(map: &str) -> Value {
    let text = run(&format!("bpftool -j map dump pinned /mnt/bpf/terway/{map}"));
    let mut entries: Vec<Value> =
        serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone();
    for entry in &mut entries {
        entry.as_object_mut().unwrap().remove("formatted");
    }
    entries.sort_by_key(ToString::to_string);
    entries.into()
}

/// A switch under `/proc/sys/net`.
pub(crate) fn sysctl(name: &str) -> Value {
    let text = fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    text.trim().into()
}

/// Text of a field, or nothing.
pub(crate) fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// Without what the kernel does by itself and in its own time: link-local addresses and their
/// routes, states of carriers.
fn settled(value: Value) -> Value {
    match value {
        Value::Array(values) => {
            let kept = values.into_iter().filter(|value| !passes(value)).map(settled);
            let mut kept: Vec<Value> = kept.collect();
            kept.sort_by_key(ToString::to_string);
            kept.into()
        }
        Value::Object(mut fields) => {
            for field in [
                "operstate",
                "tentative",
                "valid_life_time",
                "preferred_life_time",
                "flags",
                "link_netnsid",
                "link_index",
            ] {
                fields.remove(field);
            }
            fields.into_iter().map(|(name, value)| (name, settled(value))).collect()
        }
        other => other,
    }
}

fn passes(value: &Value) -> bool {
    let kernel = |text: &str| text.starts_with("fe80:") || text == "ff00::/8";
    let route = value.get("lladdr").is_none() && value["protocol"] != "122";
    (route && kernel(&text(value, "dst"))) || text(value, "local").starts_with("fe80:")
}

/// What differs, for a message.
fn differences(before: &Witness, after: &Witness) -> String {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let shown = |witness: &Witness, name: &str| witness.get(name).map(ToString::to_string);
    let lines = differ
        .map(|name| format!("{name}:\n  {:?}\n  {:?}", shown(before, name), shown(after, name)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Asserts that nothing differs.
pub(crate) fn assert_same(before: &Witness, after: &Witness, what: &str) {
    assert!(before == after, "{what}:\n{}", differences(before, after));
}
