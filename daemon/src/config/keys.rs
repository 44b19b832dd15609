//! The keys of `eni_conf`: those that we read, those that have no effect yet, and what may have
//! been meant by one that nobody knows. `docs/eni-config.md` is made of them.

use serde_json::{Map, Value};

use super::Remark;

/// A key that is read by [`Raw`](super::raw::Raw), as the page shows it.
struct Key {
    name: &'static str,
    kind: &'static str,
    /// As it stands in JSON; empty if there is none.
    default: &'static str,
    meaning: &'static str,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, kind, default, meaning }
}

const READ: [Key; 25] = [
    key("version", "text", "", "Of the file; its value means nothing."),
    key(
        "access_key",
        "text",
        "",
        "AccessKey id. Without it, and without `access_secret`, the instance's RAM role signs.",
    ),
    key("access_secret", "text", "", "Secret of `access_key`; never printed."),
    key("region_id", "text", "", "Region; the metadata service's if absent."),
    key(
        "credential_path",
        "path",
        "",
        "Encrypted token file. Not read yet: an error if it is the only credential.",
    ),
    key(
        "service_cidr",
        "`v4[,v6]` blocks",
        "",
        "Addresses of Services. Checked, without effect yet.",
    ),
    key(
        "vswitches",
        "object: zone to list of vSwitch ids",
        "{}",
        "Where new ENIs go, by zone; for a zone that is absent, the vSwitch of the instance's primary ENI.",
    ),
    key(
        "vswitch_selection_policy",
        "`ordered`, `most` or `random`",
        "\"ordered\"",
        "Which vSwitch of the zone is tried first: as listed, by most free addresses, by lot.",
    ),
    key(
        "security_group",
        "security group id",
        "",
        "Of new ENIs. One is needed here or in `security_groups`.",
    ),
    key(
        "security_groups",
        "list of security group ids",
        "[]",
        "With `security_group`, 1 to 5, each once.",
    ),
    key(
        "eni_tags",
        "object of texts",
        "{}",
        "Tags of new ENIs beside our own; at most 16, none named `creator` or `ack.aliyun.com`.",
    ),
    key(
        "min_pool_size",
        "number of addresses",
        "0",
        "With fewer idle, more are asked for. At most `max_pool_size`.",
    ),
    key("max_pool_size", "number of addresses", "0", "With more idle, some are given back."),
    key(
        "max_eni",
        "number of ENIs",
        "0",
        "At most as many secondary ENIs, the trunk included; 0: what the instance type takes.",
    ),
    key("ip_stack", "`ipv4`, `ipv6` or `dual`", "\"ipv4\"", "Addresses of a pod."),
    key(
        "enable_eni_trunking",
        "boolean",
        "false",
        "Make a trunk ENI, for pods of a PodNetworking.",
    ),
    key(
        "rate_limit",
        "object: API action to calls a minute",
        "{}",
        "Our own budget; at most a fifth of a minute's comes in one burst.",
    ),
    key("resource_group_id", "text", "", "Of new ENIs."),
    key(
        "ip_pool_sync_period",
        "duration, above 0",
        "\"2m\"",
        "How often the cloud is asked while something is in flight.",
    ),
    key(
        "mark_mask",
        "number, or its text in decimal or `0x…`",
        "\"0x7f\"",
        "Bits of a packet's mark that are ours; another's must not overlap.",
    ),
    key(
        "source_dest_check",
        "boolean",
        "true",
        "Whether the VPC drops frames whose source an ENI does not own.",
    ),
    key("ip_cooldown", "duration", "\"30s\"", "How long an address rests after its pod."),
    key(
        "rule_layout",
        "`per-eni` or `per-pod`",
        "\"per-eni\"",
        "How an ENI's table is reached: two rules per ENI by link and mark, or rules by address where others overwrite marks.",
    ),
    key(
        "member_mac",
        "`trunk` or `own`",
        "\"trunk\"",
        "Whose MAC a member ENI's frames have on the trunk.",
    ),
    key("request_batch", "number, 1 to 49", "10", "Addresses of one call."),
];

/// The reference's, without effect here yet.
const UNUSED: [&str; 24] = [
    "backoff_override",
    "custom_stateful_workload_kinds",
    "disable_device_plugin",
    "enable_erdma",
    "enable_ip_prefix",
    "enable_patch_pod_ips",
    "eni_cap_ratio",
    "eni_cap_shift",
    "eni_selection_policy",
    "eni_tag_block_list",
    "eni_tag_filter",
    "extra_routes",
    "idle_ip_reclaim_after",
    "idle_ip_reclaim_batch_size",
    "idle_ip_reclaim_interval",
    "idle_ip_reclaim_jitter_factor",
    "ip_warm_up_size",
    "ipam_type",
    "ipv4_prefix_count",
    "ipv6_prefix_count",
    "kube_client_burst",
    "kube_client_qps",
    "min_eni",
    "prefix",
];

/// The page of all keys, in Markdown: docs/eni-config.md and `terwayd --explain-config`.
pub fn page() -> String {
    let rows = READ.map(|Key { name, kind, default, meaning }| {
        let default = if default.is_empty() { "-".to_owned() } else { format!("`{default}`") };
        format!("| `{name}` | {kind} | {default} | {meaning} |\n")
    });
    let unused = UNUSED.map(|key| format!("`{key}`")).join(", ");
    let rows = rows.concat();
    format!(
        "\
# `eni_conf`

The daemon's configuration: a JSON object, in the file `eni_conf` of the directory of `terwayd --standalone`. It is read at the start; a change needs a restart of
the daemon, which disturbs no pod. `null` is the same as a key that is absent. A wrong type or value ends the daemon with exit code 64 and a line that names file, key, value
and rule. A key that nobody knows is a warning, with the nearest known one. Durations are Go's: `90s`, `2m`, `1h30m`.

| key | type | default | meaning |
|---|---|---|---|
{rows}
Keys of the reference that are accepted and have no effect yet: {unused}.
"
    )
}

/// Takes out the keys that are not read, and says of each what it is.
pub(super) fn take_foreign(object: &mut Map<String, Value>) -> Vec<Remark> {
    let foreign: Vec<String> =
        object.keys().filter(|key| READ.iter().all(|read| read.name != **key)).cloned().collect();
    foreign
        .into_iter()
        .map(|key| {
            object.remove(&key);
            if UNUSED.contains(&key.as_str()) {
                Remark::Unused { key }
            } else {
                Remark::Unknown { nearest: nearest(&key), key }
            }
        })
        .collect()
}

/// The known key that is at most three edits and a third of its length away.
fn nearest(key: &str) -> Option<&'static str> {
    READ.into_iter()
        .map(|key| key.name)
        .chain(UNUSED)
        .map(|known| (distance(key, known), known))
        .filter(|(edits, known)| *edits <= 3 && edits * 3 <= known.len())
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance in bytes: the keys are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, &above) in b.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_page_is_made_of_the_keys() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/eni-config.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, page()).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap();
        let cure = "UPDATE_DOCS=1 cargo nextest run -p daemon the_page_is_made_of_the_keys";
        assert!(found == page(), "docs/eni-config.md is not of today: {cure}");
    }

    fn parse(key: &str, value: &str) -> Result<Config, String> {
        let group = if key == "security_group" { "" } else { r#", "security_group": "sg-1""# };
        let json = format!(r#"{{"{key}": {value}{group}}}"#);
        Config::parse(&json, Path::new("eni_conf")).map(|(it, _)| it).map_err(|e| e.to_string())
    }

    #[test]
    fn each_key_is_read_and_a_wrong_type_names_it() {
        for Key { name, .. } in READ {
            let error = parse(name, "[[[]]]").unwrap_err();
            assert!(error.starts_with(&format!("eni_conf: {name}")), "{error}");
        }
    }

    #[test]
    fn what_the_page_calls_the_default_is_what_a_key_has_that_is_absent() {
        let absent = format!("{:?}", parse("version", r#""1""#).unwrap());
        for Key { name, default, .. } in READ {
            if !default.is_empty() {
                assert_eq!(format!("{:?}", parse(name, default).unwrap()), absent, "{name}");
            }
        }
    }

    #[test]
    fn the_distance_is_levenshtein_s() {
        for (a, b, edits) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }
}
