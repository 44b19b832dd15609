//! Files as clusters have them, and bad ones.

use model::SelectionPolicy;
use proptest::prelude::*;

use super::*;

fn parse(json: &str) -> Result<(Config, Vec<Remark>), ConfigError> {
    Config::parse(json, Path::new("/etc/eni/eni_conf"))
}

#[test]
fn a_cluster_s_file_is_read() {
    let (config, remarks) = parse(
        r#"{"version": "1", "access_key": "AK", "access_secret": "top", "region_id": "cn-hangzhou",
            "service_cidr": "172.16.0.0/16,fd00::/108", "security_group": "sg-1",
            "security_groups": ["sg-1", "sg-2"], "credential_path": "/var/addon/token",
            "vswitches": {"cn-hangzhou-h": ["vsw-1", "vsw-2"]}, "vswitch_selection_policy": "most",
            "eni_tags": {"team": "net"}, "eni_tag_filter": {"team": "net"},
            "eni_tag_block_list": [{"key": "owner", "value": "db"}, {"key": "creator", "value": "alibabacloud-erdma-controller"}],
            "min_pool_size": 2, "max_pool_size": 5, "ip_warm_up_size": 5,
            "idle_ip_reclaim_after": "30m", "idle_ip_reclaim_batch_size": 3,
            "idle_ip_reclaim_interval": "5m", "idle_ip_reclaim_jitter_factor": "0.25",
            "min_eni": 1, "max_eni": null, "eni_cap_ratio": 0.5, "eni_cap_shift": -1,
            "eni_selection_policy": "least_ips", "ip_stack": "dual", "enable_eni_trunking": true,
            "enable_ip_prefix": true, "ipv4_prefix_count": 2, "ipv6_prefix_count": 1,
            "ip_pool_sync_period": "90s", "rate_limit": {"AttachNetworkInterface": 100, "DescribeVSwitch": 1},
            "backoff_override": {"eni_create": {"Duration": 1500000000, "Factor": 1.5, "Jitter": 0.3, "Steps": 4, "InitialDelay": "1s", "Cap": "10s"}},
            "resource_group_id": "rg-1", "mark_mask": "0x7f0", "ip_cooldown": "1m",
            "rule_layout": "per-pod", "member_mac": "own", "request_batch": 7,
            "source_dest_check": false, "ipam_type": "crd", "enable_patch_pod_ips": false,
            "disable_device_plugin": true, "custom_stateful_workload_kinds": ["CloneSet"],
            "enable_erdma": false, "kube_client_qps": 2.5, "kube_client_burst": 10,
            "extra_routes": [{"dst": "10.0.0.0/8"}], "prefix": "", "frobnicate": 1}"#,
    )
    .unwrap();
    insta::assert_debug_snapshot!(config);
    assert!(!format!("{config:?}").contains("top"), "the secret is printed");
    let unknown = |key: &str, nearest| Remark::Unknown { key: key.to_owned(), nearest };
    assert_eq!(
        remarks,
        [
            unknown("frobnicate", None),
            unknown("rate_limit.DescribeVSwitch", Some("DescribeVSwitches"))
        ]
    );
}

#[test]
fn what_is_left_out_has_the_reference_s_defaults() {
    let (config, remarks) = parse(r#"{"security_group": "sg-1"}"#).unwrap();
    assert_eq!((config.idle.min(), config.idle.max(), config.batch), (0, 0, 10));
    assert_eq!((config.warm_up, config.min_enis, config.max_enis), (0, 0, None));
    assert_eq!((config.reclaim, config.prefixes), (None, None));
    assert_eq!(config.eni_capacity, EniCapacity { ratio_percent: 100, shift: 0 });
    assert_eq!((config.eni_policy, config.ipam_type), (EniPolicy::MostIps, IpamType::Local));
    assert_eq!(config.vswitch_policy, SelectionPolicy::Random);
    assert_eq!((config.stack, config.mark_mask), (IpStack::V4, 0x7f));
    assert_eq!(config.cooldown, Duration::from_secs(30));
    assert!(config.source_dest_check && !config.trunking && config.access_key.is_none());
    assert!(config.patch_pod_ips && !config.disable_device_plugin);
    assert!(config.tag_filter.is_empty() && config.backoff.is_empty());
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let erdma = tag("creator", "alibabacloud-erdma-controller");
    let excluded = tag("terway.alibabacloud.com/excluded", "true");
    assert_eq!(config.tag_block_list, [erdma, excluded]);
    assert_eq!(remarks, []);
}

#[test]
fn a_chart_s_empty_texts_mean_nothing() {
    let (config, remarks) = parse(
        r#"{"security_group": "sg-1", "ipam_type": "", "ip_stack": "", "ip_pool_sync_period": "",
            "idle_ip_reclaim_after": "", "idle_ip_reclaim_interval": "", "region_id": "",
            "idle_ip_reclaim_jitter_factor": "", "ipv4_prefix_count": 0, "credential_path": ""}"#,
    )
    .unwrap();
    assert_eq!((config.ipam_type, config.reclaim), (IpamType::Local, None));
    assert_eq!((config.sync_period, config.credential_path), (Duration::from_mins(2), None));
    let no_effect = ["idle_ip_reclaim_interval", "idle_ip_reclaim_jitter_factor"];
    assert_eq!(remarks.iter().map(key).collect::<Vec<_>>(), no_effect);
}

#[test]
fn idle_reclaim_has_the_reference_s_defaults_once_it_is_on() {
    let json = r#"{"security_group": "sg-1", "idle_ip_reclaim_after": "1h"}"#;
    let reclaim = parse(json).unwrap().0.reclaim.unwrap();
    let (after, interval) = (Duration::from_hours(1), Duration::from_mins(10));
    let batch = NonZeroU32::new(5).unwrap();
    assert_eq!(reclaim, IdleReclaim { after, batch, interval, jitter_percent: 10 });
}

#[test]
fn an_override_that_leaves_fields_out_has_the_reference_s() {
    let json = r#"{"security_group": "sg-1", "backoff_override": {"eni_ops": {"steps": 3, "cap": "20s"},
        "wait_node_status": {}, "eni_op": {}, "eni_create": {"Step": 1}}}"#;
    let (config, remarks) = parse(json).unwrap();
    let expected =
        Backoff { steps: 3, cap: Some(Duration::from_secs(20)), ..BackoffKey::EniOps.reference() };
    assert_eq!(config.backoff.get(&BackoffKey::EniOps), Some(&expected));
    assert_eq!(config.backoff.len(), 3);
    let unknown =
        |key: &str, nearest| Remark::Unknown { key: key.to_owned(), nearest: Some(nearest) };
    assert!(remarks.contains(&unknown("backoff_override.eni_op", "eni_ops")), "{remarks:?}");
    assert!(remarks.contains(&unknown("backoff_override.eni_create.Step", "Steps")), "{remarks:?}");
    let no_effect = |remark: &Remark| matches!(remark, Remark::NoEffect { key, .. } if key == "backoff_override.wait_node_status");
    assert!(remarks.iter().any(no_effect), "{remarks:?}");
}

fn key(remark: &Remark) -> &str {
    match remark {
        Remark::Unknown { key, .. } | Remark::NoEffect { key, .. } | Remark::Odd { key, .. } => key,
    }
}

#[test]
fn what_means_nothing_or_may_not_be_meant_is_a_remark() {
    for (json, expected) in [
        (r#""ipv4_prefix_count": 1"#, "ipv4_prefix_count"),
        (r#""ipv6_prefix_count": 1"#, "ipv6_prefix_count"),
        (r#""ipv6_prefix_count": 1, "enable_ip_prefix": true"#, "ipv6_prefix_count"),
        (
            r#""ipv4_prefix_count": 1, "enable_ip_prefix": true, "ip_stack": "ipv6""#,
            "ipv4_prefix_count",
        ),
        (r#""idle_ip_reclaim_batch_size": 1"#, "idle_ip_reclaim_batch_size"),
        (r#""ip_warm_up_size": 9, "max_pool_size": 8"#, "ip_warm_up_size"),
        (r#""eni_tag_filter": {"team": "net"}"#, "eni_tag_filter.team"),
        (r#""rate_limit": {"Describe": 1}"#, "rate_limit.Describe"),
        (r#""backoff_override": {"default": {}}"#, "backoff_override.default"),
    ] {
        let (_, remarks) = parse(&format!(r#"{{"security_group": "s", {json}}}"#)).unwrap();
        assert_eq!(remarks.iter().map(key).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn an_unknown_key_is_a_remark_with_the_nearest_known_one() {
    let (_, remarks) =
        parse(r#"{"security_group": "sg-1", "min_pool_sise": 1, "frobnicate": {}}"#).unwrap();
    let unknown = |key: &str, nearest| Remark::Unknown { key: key.to_owned(), nearest };
    assert_eq!(
        remarks,
        [unknown("frobnicate", None), unknown("min_pool_sise", Some("min_pool_size"))]
    );
}

#[test]
fn a_wrong_value_is_an_error_that_names_key_value_and_rule() {
    for value in bad::BAD {
        let error = parse(&bad::file(value)).unwrap_err().to_string();
        assert!(error.starts_with("/etc/eni/eni_conf: "), "{error}");
        bad::assert_named(value, &error);
    }
}

#[test]
fn each_key_has_a_bad_value() {
    for key in table::KEYS {
        assert!(bad::BAD.iter().any(|(bad, ..)| *bad == key.name), "{} has none", key.name);
    }
}

#[test]
fn a_file_that_is_no_object_is_an_error() {
    for json in ["", "[]", "{", "17", "{} {}", "\u{0}"] {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.contains("not a JSON object"), "{json:?}: {error}");
    }
}

#[test]
fn a_wrong_secret_is_not_shown() {
    for value in ["12345678", "[\"12345678\"]", "{\"a\": 12345678}"] {
        let json =
            format!(r#"{{"security_group": "s", "access_key": "AK", "access_secret": {value}}}"#);
        let error = parse(&json).unwrap_err().to_string();
        assert!(!error.contains("12345678"), "{error}");
    }
}

/// Values of all types, near to what some key takes.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let texts = [
        "",
        " ",
        "0",
        "0s",
        "2m",
        "-1s",
        "1e400h",
        "9".repeat(30).leak(),
        "ipv4",
        "0xff",
        "10.0.0.0/8",
        "ü",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-2_i64..60).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        proptest::sample::select(texts.to_vec()).prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    let names = [
        "key",
        "value",
        "dst",
        "z",
        "eni_ops",
        "Duration",
        "Factor",
        "Steps",
        "AttachNetworkInterface",
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        let name =
            prop_oneof![proptest::sample::select(names.to_vec()).prop_map(str::to_owned), ".{0,5}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::hash_map(name, inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn any_value_of_any_key_is_taken_or_the_key_is_named(
        key in proptest::sample::select(table::KEYS.map(|key| key.name).to_vec()), value in any_value(),
    ) {
        let mut object = serde_json::json!({"security_group": "sg-1"});
        object[key] = value;
        match parse(&object.to_string()) {
            Ok((config, _)) => {
                let start = parse(r#"{"security_group": "sg-1"}"#).unwrap().0;
                start.changes(&config);
            }
            Err(error) => prop_assert!(error.to_string().contains(key), "{key}: {error}"),
        }
    }
}

#[test]
fn the_kept_corpus_of_the_fuzzer_is_taken_or_refused() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/eni_conf");
    let files: Vec<_> = std::fs::read_dir(kept).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 5, "{kept} has only {} inputs", files.len());
    let start = parse(r#"{"security_group": "sg-1"}"#).unwrap().0;
    for file in files {
        // As the fuzzer does: it gets no text that is not UTF-8.
        let text = String::from_utf8(std::fs::read(file.path()).unwrap()).unwrap();
        match parse(&text) {
            Ok((config, _)) => drop(start.changes(&config)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
