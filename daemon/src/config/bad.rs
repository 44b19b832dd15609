//! Bad values of every key, and what is said of each: for the parser's tests and for reload's.

/// Key, further keys, its value, and what the message must have beside the key: the value, and the
/// rule that it breaks.
pub(crate) type BadValue = (&'static str, &'static str, &'static str, [&'static str; 2]);

/// What no key takes.
const NO_TEXT: [&str; 2] = ["17", "expected a string"];
const NO_LIST: [&str; 2] = ["\"x\"", "expected a sequence"];
const NO_OBJECT: [&str; 2] = ["\"x\"", "expected a map"];
const NO_SWITCH: [&str; 2] = ["\"true\"", "expected a boolean"];
const NO_NUMBER: [&str; 2] = ["\"3\"", "expected u32"];
const TOO_BIG: [&str; 2] = ["4294967296", "expected u32"];
const BELOW: [&str; 2] = ["-1", "expected u32"];
const NO_UNIT: [&str; 2] = ["\"30\"", "is not a duration: write numbers with units"];
const NO_TIME: [&str; 2] = ["\"0s\"", "must be more than nothing"];
const SPACE: [&str; 2] = ["\" x\"", "nor have white space around it"];

pub(crate) const BAD: [BadValue; 124] = [
    ("version", "", "17", NO_TEXT),
    ("access_key", "", "17", NO_TEXT),
    ("access_key", "", r#"" x""#, SPACE),
    ("access_key", "", r#""AK""#, ["access_secret", "is missing beside access_key"]),
    ("access_secret", "", "17", ["expected a text", "not shown"]),
    ("access_secret", "", r#""s""#, ["access_key", "is missing beside access_secret"]),
    ("region_id", "", "17", NO_TEXT),
    ("region_id", "", r#"" x""#, SPACE),
    ("credential_path", "", "17", NO_TEXT),
    ("credential_path", "", r#"" x""#, SPACE),
    ("service_cidr", "", "17", NO_TEXT),
    ("service_cidr", "", r#""10.0.0.0/33""#, ["10.0.0.0/33", "is not \"v4[,v6]\""]),
    (
        "service_cidr",
        "",
        r#""10.0.0.0/8,10.1.0.0/16""#,
        ["10.0.0.0/8,10.1", "two blocks of one family"],
    ),
    ("vswitches", "", r#""x""#, NO_OBJECT),
    ("vswitches", "", r#"{"z": "x"}"#, ["vswitches.z: \"x\"", "expected a sequence"]),
    ("vswitches", "", r#"{"z": [17]}"#, ["vswitches.z[0]: 17", "expected a string"]),
    ("vswitches", "", r#"{"z": []}"#, ["vswitches.z:", "is empty: leave the zone out"]),
    ("vswitches", "", r#"{"z": [" x"]}"#, ["vswitches.z[0]: \" x\"", "white space"]),
    ("vswitches", "", r#"{"": ["vsw-1"]}"#, ["\"\"", "must not be empty"]),
    ("vswitch_selection_policy", "", "17", NO_TEXT),
    ("vswitch_selection_policy", "", r#""best""#, ["\"best\"", "is none of random, ordered, most"]),
    ("security_group", "", "17", NO_TEXT),
    ("security_group", "", r#"" x""#, SPACE),
    ("security_group", "", "null", ["is missing", "name 1 to 5"]),
    ("security_groups", "", r#""x""#, NO_LIST),
    ("security_groups", "", "[17]", ["security_groups[0]: 17", "expected a string"]),
    ("security_groups", "", r#"[""]"#, ["security_groups[0]: \"\"", "must not be empty"]),
    ("security_groups", "", r#"["a", "b", "c", "d", "e"]"#, ["has 6 groups", "at most 5"]),
    ("eni_tags", "", r#""x""#, NO_OBJECT),
    ("eni_tags", "", r#"{"a": 17}"#, ["eni_tags.a: 17", "expected a string"]),
    ("eni_tags", "", r#"{"creator": "me"}"#, ["eni_tags.creator: \"me\"", "is set by the daemon"]),
    ("eni_tags", "", r#"{"": "x"}"#, ["\"x\"", "without a name"]),
    (
        "eni_tags",
        "",
        r#"{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","10":"","11":"","12":"","13":"","14":"","15":"","16":"","17":""}"#,
        ["has 17 tags", "at most 16"],
    ),
    ("eni_tag_filter", "", r#""x""#, NO_OBJECT),
    ("eni_tag_filter", "", r#"{"a": 17}"#, ["eni_tag_filter.a: 17", "expected a string"]),
    ("eni_tag_filter", "", r#"{"": "x"}"#, ["\"x\"", "without a name"]),
    ("eni_tag_block_list", "", r#""x""#, NO_LIST),
    ("eni_tag_block_list", "", "[17]", ["eni_tag_block_list[0]: 17", "expected struct"]),
    ("eni_tag_block_list", "", r#"[{"value": "x"}]"#, ["{\"value\":\"x\"}", "missing field `key`"]),
    (
        "eni_tag_block_list",
        "",
        r#"[{"key": ""}]"#,
        ["eni_tag_block_list[0].key: \"\"", "must not be empty"],
    ),
    (
        "eni_tag_block_list",
        "",
        r#"[{"key": "creator", "value": "terway"}]"#,
        ["creator=terway", "none would be ours"],
    ),
    (
        "eni_tag_block_list",
        r#""eni_tags": {"a": "b"},"#,
        r#"[{"key": "a", "value": "b"}]"#,
        ["a=b", "none would be ours"],
    ),
    ("min_pool_size", "", r#""3""#, NO_NUMBER),
    ("min_pool_size", "", "-1", BELOW),
    ("min_pool_size", "", "1.5", ["1.5", "expected u32"]),
    ("min_pool_size", r#""max_pool_size": 5,"#, "7", ["7", "is above max_pool_size, which is 5"]),
    ("max_pool_size", "", r#""3""#, NO_NUMBER),
    ("max_pool_size", "", "4294967296", TOO_BIG),
    (
        "max_pool_size",
        r#""min_pool_size": 7,"#,
        "5",
        ["min_pool_size: 7", "above max_pool_size, which is 5"],
    ),
    ("ip_warm_up_size", "", r#""3""#, NO_NUMBER),
    ("ip_warm_up_size", "", "-1", BELOW),
    ("idle_ip_reclaim_after", "", "17", NO_TEXT),
    ("idle_ip_reclaim_after", "", r#""30""#, NO_UNIT),
    ("idle_ip_reclaim_batch_size", "", r#""3""#, ["\"3\"", "expected a nonzero u32"]),
    ("idle_ip_reclaim_batch_size", "", "0", ["0", "expected a nonzero u32"]),
    ("idle_ip_reclaim_interval", "", "17", NO_TEXT),
    ("idle_ip_reclaim_interval", "", r#""30""#, NO_UNIT),
    ("idle_ip_reclaim_interval", "", r#""0s""#, NO_TIME),
    ("idle_ip_reclaim_jitter_factor", "", "[]", ["[]", "expected a number or its text"]),
    ("idle_ip_reclaim_jitter_factor", "", r#""10%""#, ["\"10%\"", "is no number of 0 to 1"]),
    ("idle_ip_reclaim_jitter_factor", "", "1.1", ["1.1", "is no number of 0 to 1"]),
    ("idle_ip_reclaim_jitter_factor", "", r#""-0.1""#, ["\"-0.1\"", "is no number of 0 to 1"]),
    ("idle_ip_reclaim_jitter_factor", "", r#""NaN""#, ["\"NaN\"", "is no number of 0 to 1"]),
    ("min_eni", "", r#""3""#, NO_NUMBER),
    ("min_eni", "", "-1", BELOW),
    ("min_eni", r#""max_eni": 2,"#, "3", ["3", "is above max_eni, which is 2"]),
    ("max_eni", "", r#""3""#, NO_NUMBER),
    ("max_eni", "", "-1", BELOW),
    ("max_eni", r#""min_eni": 3,"#, "2", ["min_eni: 3", "is above max_eni, which is 2"]),
    ("eni_cap_ratio", "", r#""3""#, ["\"3\"", "expected f64"]),
    ("eni_cap_ratio", "", "0", ["0", "is not in 0.01 to 10"]),
    ("eni_cap_ratio", "", "10.1", ["10.1", "is not in 0.01 to 10"]),
    ("eni_cap_ratio", "", "-0.5", ["-0.5", "is not in 0.01 to 10"]),
    ("eni_cap_shift", "", r#""3""#, ["\"3\"", "expected i32"]),
    ("eni_cap_shift", "", "4294967296", ["4294967296", "expected i32"]),
    ("eni_selection_policy", "", "17", NO_TEXT),
    ("eni_selection_policy", "", r#""all""#, ["\"all\"", "is none of most_ips, least_ips"]),
    ("degradation", "", "17", NO_TEXT),
    ("degradation", "", r#""l2""#, ["\"l2\"", "is none of"]),
    ("ip_stack", "", "17", NO_TEXT),
    ("ip_stack", "", r#""v4""#, ["\"v4\"", "is none of ipv4, ipv6, dual"]),
    ("enable_eni_trunking", "", r#""true""#, NO_SWITCH),
    ("enable_ip_prefix", "", r#""true""#, NO_SWITCH),
    ("ipv4_prefix_count", "", r#""3""#, NO_NUMBER),
    ("ipv4_prefix_count", "", "-1", BELOW),
    ("ipv6_prefix_count", "", r#""3""#, NO_NUMBER),
    ("ipv6_prefix_count", "", "2", ["2", "is neither 0 nor 1"]),
    ("rate_limit", "", r#""x""#, NO_OBJECT),
    (
        "rate_limit",
        "",
        r#"{"AttachNetworkInterface": 0}"#,
        ["rate_limit.AttachNetworkInterface: 0", "expected a nonzero u32"],
    ),
    (
        "rate_limit",
        "",
        r#"{"AttachNetworkInterface": "9/s"}"#,
        ["rate_limit.AttachNetworkInterface: \"9/s\"", "expected a nonzero u32"],
    ),
    ("backoff_override", "", r#""x""#, NO_OBJECT),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": 17}"#,
        ["backoff_override.eni_ops: 17", "expected a map"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Steps": []}}"#,
        ["backoff_override.eni_ops.Steps: []", "expected a number or its text"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Steps": 0}}"#,
        ["backoff_override.eni_ops.Steps: 0", "is no number of 1 or more"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Duration": "2"}}"#,
        ["backoff_override.eni_ops.Duration: \"2\"", "is not a duration"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Duration": 0}}"#,
        ["backoff_override.eni_ops.Duration: 0", "more than nothing"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"InitialDelay": -1}}"#,
        ["backoff_override.eni_ops.InitialDelay: -1", "is not a duration"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Cap": 1.5}}"#,
        ["backoff_override.eni_ops.Cap: 1.5", "is not a duration"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Factor": "x"}}"#,
        ["backoff_override.eni_ops.Factor: \"x\"", "is no number of 0 to 100"],
    ),
    (
        "backoff_override",
        "",
        r#"{"eni_ops": {"Jitter": 101}}"#,
        ["backoff_override.eni_ops.Jitter: 101", "is no number of 0 to 100"],
    ),
    ("resource_group_id", "", "17", NO_TEXT),
    ("resource_group_id", "", r#"" x""#, SPACE),
    ("ip_pool_sync_period", "", "17", NO_TEXT),
    ("ip_pool_sync_period", "", r#""30""#, NO_UNIT),
    ("ip_pool_sync_period", "", r#""0s""#, NO_TIME),
    ("custom_stateful_workload_kinds", "", r#""x""#, NO_LIST),
    ("custom_stateful_workload_kinds", "", r#"[""]"#, ["[0]: \"\"", "must not be empty"]),
    ("disable_device_plugin", "", r#""true""#, NO_SWITCH),
    ("enable_patch_pod_ips", "", r#""true""#, NO_SWITCH),
    ("ipam_type", "", r#""CRD""#, ["\"CRD\"", "is none of crd, preferCRD"]),
    ("enable_erdma", "", "true", ["true", "eRDMA is not built"]),
    ("extra_routes", "", r#""x""#, NO_LIST),
    (
        "extra_routes",
        "",
        r#"[{"dst": "10.0.0.1"}]"#,
        ["extra_routes[0].dst: \"10.0.0.1\"", "is no block"],
    ),
    ("kube_client_qps", "", "-0.5", ["-0.5", "is below 0"]),
    ("kube_client_burst", "", "-1", BELOW),
    ("prefix", "", "17", NO_TEXT),
    ("mark_mask", "", r#""0xzz""#, ["\"0xzz\"", "is no number of 32 bits"]),
    ("mark_mask", "", "0", ["0x0", "at least one is needed"]),
    ("source_dest_check", "", r#""true""#, NO_SWITCH),
    ("ip_cooldown", "", r#""30""#, NO_UNIT),
    ("rule_layout", "", r#""per-node""#, ["\"per-node\"", "is none of per-eni, per-pod"]),
    ("member_mac", "", r#""mine""#, ["\"mine\"", "is none of trunk, own"]),
    ("request_batch", "", "50", ["50", "is not in 1 to 49"]),
    ("request_batch", "", "0", ["0", "is not in 1 to 49"]),
];

/// A file with the bad value.
pub(crate) fn file((key, needs, value, _): BadValue) -> String {
    let group = if key == "security_group" { "" } else { r#""security_group": "sg-1","# };
    format!(r#"{{{group} {needs} "{key}": {value}}}"#)
}

/// That what is said names the key, the value and the rule.
pub(crate) fn assert_named((key, _, value, parts): BadValue, said: &str) {
    for part in [key].iter().chain(&parts) {
        assert!(said.contains(part), "{key}: {value}: {part:?} is not in {said}");
    }
}
