//! The keys of `eni_conf`: those that we read, those that have no effect yet, and what may have
//! been meant by one that nobody knows.

use serde_json::{Map, Value};

use super::Remark;

/// Read by [`Raw`](super::raw::Raw).
const READ: [&str; 25] = [
    "version",
    "access_key",
    "access_secret",
    "region_id",
    "credential_path",
    "service_cidr",
    "vswitches",
    "vswitch_selection_policy",
    "security_group",
    "security_groups",
    "eni_tags",
    "min_pool_size",
    "max_pool_size",
    "max_eni",
    "ip_stack",
    "enable_eni_trunking",
    "rate_limit",
    "resource_group_id",
    "ip_pool_sync_period",
    "mark_mask",
    "source_dest_check",
    "ip_cooldown",
    "rule_layout",
    "member_mac",
    "request_batch",
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

/// Takes out the keys that are not read, and says of each what it is.
pub(super) fn take_foreign(object: &mut Map<String, Value>) -> Vec<Remark> {
    let foreign: Vec<String> =
        object.keys().filter(|key| !READ.contains(&key.as_str())).cloned().collect();
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
    use super::*;

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
