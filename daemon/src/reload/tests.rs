//! The real loop over a real directory; only time is not real.

use std::fs;
use std::path::Path;

use futures::FutureExt as _;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::config::{self, bad};
use crate::tasks::Tasks;

/// What was taken up.
#[derive(Debug)]
struct Told {
    config: Config,
    pod_networkings: Vec<String>,
}

#[derive(Debug)]
struct Recorder(mpsc::UnboundedSender<Told>);

impl TakeUp for Recorder {
    /// As if the cloud had no vSwitch of this name.
    fn check<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<(), ConfigError>> {
        let missing = config.vswitches.values().flatten().find(|id| id.as_str() == "vsw-none");
        let error = missing.map(|id| ConfigError::Key {
            path: "eni_conf".into(),
            key: "vswitches.h[0]".to_owned(),
            reason: format!("{id:?} does not exist"),
        });
        std::future::ready(error.map_or(Ok(()), Err)).boxed()
    }

    fn take_up(&self, config: &Config, pod_networkings: &PodNetworkings, _: &Changes) {
        let told = Told { config: config.clone(), pod_networkings: pod_networkings.names() };
        self.0.send(told).unwrap();
    }
}

struct Node {
    directory: TempDir,
    told: mpsc::UnboundedReceiver<Told>,
    standing: watch::Receiver<Standing>,
    metrics: Metrics,
    started: Config,
    _tasks: Tasks,
}

impl Node {
    fn start(conf: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("eni_conf"), conf).unwrap();
        Self::of(directory)
    }

    fn of(directory: TempDir) -> Self {
        let manifests = Manifests::read(directory.path()).unwrap();
        let started = manifests.config.clone();
        let (sender, told) = mpsc::unbounded_channel();
        let (path, metrics) = (directory.path().to_owned(), Metrics::default());
        let reloader = Reloader::new(path, manifests, Arc::new(Recorder(sender)), metrics.clone());
        let (standing, tasks) = (reloader.standing(), Tasks::default());
        tasks.part("reload", reloader.run(tasks.stop().clone()));
        Self { directory, told, standing, metrics, started, _tasks: tasks }
    }

    fn write(&self, conf: &str) {
        fs::write(self.directory.path().join("eni_conf"), conf).unwrap();
    }

    /// Until the files were judged.
    async fn judged(&mut self) -> Standing {
        self.standing.changed().await.unwrap();
        self.standing.borrow_and_update().clone()
    }

    /// What was taken up by the judgement before.
    fn taken(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }
}

fn conf(keys: &str) -> String {
    format!(r#"{{"security_group": "sg-1", {keys} "version": "1"}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_taken_up_but_for_what_needs_a_restart() {
    let mut node = Node::start(&conf(r#""max_pool_size": 5,"#));
    node.write(&conf(r#""max_pool_size": 9, "mark_mask": "0xff","#));
    assert_eq!(node.judged().await.restart, ["mark_mask"]);
    let told = node.taken().unwrap();
    assert_eq!((told.config.idle.max(), told.config.mark_mask), (9, 0x7f));
    // It still waits when something else changes, and no more when it is as it was.
    node.write(&conf(r#""max_pool_size": 8, "mark_mask": "0xff","#));
    assert_eq!(node.judged().await.restart, ["mark_mask"]);
    node.write(&conf(r#""max_pool_size": 8,"#));
    assert!(node.judged().await.restart.is_empty());
    assert_eq!(node.taken().unwrap().config.idle.max(), 8);
    assert!(node.taken().is_none(), "nothing was there to take up");
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_is_refused_and_a_good_one_after_it_is_not() {
    let mut node = Node::start(&conf(""));
    node.write(&conf(r#""min_pool_size": 7,"#));
    let refused = node.judged().await.refused.unwrap();
    assert!(refused.why.contains("eni_conf: min_pool_size: 7 is above max_pool_size, which is 0"));
    let since = refused.since;
    node.write(&conf(r#""max_eni": "two","#));
    let refused = node.judged().await.refused.unwrap();
    assert!(refused.why.contains("max_eni: \"two\" is not what max_eni takes"), "{}", refused.why);
    assert_eq!(refused.since, since, "it has been bad since the first");
    fs::remove_file(node.directory.path().join("eni_conf")).unwrap();
    let refused = node.judged().await.refused.unwrap();
    assert!(refused.why.contains("eni_conf: cannot be read: No such file"), "{}", refused.why);
    assert!(node.taken().is_none(), "something of a bad file was taken up");
    node.write(&conf(r#""max_eni": 2,"#));
    assert!(node.judged().await.refused.is_none());
    assert_eq!(node.taken().unwrap().config.max_enis.unwrap().get(), 2);
    let text = node.metrics.text();
    for counted in ["{result=\"refused\"} 3", "{result=\"taken\"} 1"] {
        let line = format!("terway_config_reloads_total{counted}");
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_refuses_is_refused_and_nothing_of_the_file_is_taken_up() {
    let mut node = Node::start(&conf(""));
    node.write(&conf(r#""vswitches": {"h": ["vsw-none"]}, "max_pool_size": 3,"#));
    let refused = node.judged().await.refused.unwrap();
    assert!(refused.why.contains("eni_conf: vswitches.h[0]: "), "{}", refused.why);
    assert!(node.taken().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_not_read_by_halves() {
    let mut node = Node::start(&conf(""));
    tokio::time::sleep(PERIOD / 2).await;
    node.write("{");
    tokio::time::sleep(PERIOD).await;
    node.write(&conf(r#""max_pool_size": 3,"#));
    assert!(node.judged().await.refused.is_none());
    assert_eq!(node.taken().unwrap().config.idle.max(), 3);
    let text = node.metrics.text();
    assert!(text.contains("terway_config_reloads_total{result=\"refused\"} 0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_configmap_s_swap_of_a_link_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let version = |name: &str, text: &str| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("eni_conf"), text).unwrap();
    };
    version("..1", &conf(r#""max_pool_size": 1,"#));
    version("..2", &conf(r#""max_pool_size": 2,"#));
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/eni_conf", at("eni_conf")).unwrap();
    std::os::unix::fs::symlink("..2", at("..new")).unwrap();
    let (from, to) = (at("..new"), at("..data"));
    let mut node = Node::of(directory);
    fs::rename(from, to).unwrap();
    node.judged().await;
    assert_eq!(node.taken().unwrap().config.idle.max(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_podnetworking_comes_changes_and_goes() {
    let mut node = Node::start(&conf(""));
    let file = node.directory.path().join("web.yaml");
    let text = |groups: &str| {
        format!(
            "apiVersion: network.alibabacloud.com/v1beta1\nkind: PodNetworking\nmetadata: {{name: web}}\n\
             spec: {{securityGroupIDs: [{groups}]}}\n"
        )
    };
    for (groups, names) in [("sg-1", vec!["web"]), ("sg-2", vec!["web"])] {
        fs::write(&file, text(groups)).unwrap();
        node.judged().await;
        assert_eq!(node.taken().unwrap().pod_networkings, names);
    }
    fs::write(&file, "kind: Nonsense\n").unwrap();
    let why = node.judged().await.refused.unwrap().why;
    assert!(why.contains("web.yaml"), "{why}");
    assert!(node.taken().is_none());
    fs::remove_file(&file).unwrap();
    node.judged().await;
    assert!(node.taken().unwrap().pod_networkings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_bad_value_of_each_key_is_refused_and_the_configuration_before_stays() {
    let mut node = Node::start(&conf(""));
    for value in bad::BAD {
        node.write(&bad::file(value));
        let refused = node.judged().await.refused.unwrap();
        bad::assert_named(value, &refused.why);
        assert!(node.taken().is_none(), "{value:?} is taken up");
    }
    // What is in force is still what the daemon was started with: nothing differs from it.
    node.write(&conf(r#""frobnicate": 1,"#));
    let standing = node.judged().await;
    assert!(standing.refused.is_none() && standing.restart.is_empty(), "{standing:?}");
    assert!(node.taken().is_none());
}

/// Another value of a key, and what else it needs.
#[expect(clippy::match_same_arms, reason = "a line for each kind of key")]
fn other(key: &str) -> (&'static str, &'static str) {
    match key {
        "version" => (r#""2""#, ""),
        "access_key" => (r#""AK2""#, r#""access_secret": "s","#),
        "access_secret" => (r#""sesame""#, r#""access_key": "AK","#),
        "region_id" | "resource_group_id" | "prefix" => (r#""other""#, ""),
        "credential_path" => (r#""/var/token""#, ""),
        "service_cidr" => (r#""172.16.0.0/16""#, ""),
        "vswitches" => (r#"{"h": ["vsw-1"]}"#, ""),
        "vswitch_selection_policy" => (r#""ordered""#, ""),
        "security_group" => (r#""sg-2""#, ""),
        "security_groups" | "custom_stateful_workload_kinds" => (r#"["sg-3"]"#, ""),
        "eni_tags" | "eni_tag_filter" => (r#"{"team": "net"}"#, ""),
        "eni_tag_block_list" => (r#"[{"key": "team", "value": "db"}]"#, ""),
        "min_pool_size" => ("3", r#""max_pool_size": 9,"#),
        "ip_pool_sync_period" | "ip_cooldown" => (r#""7m""#, ""),
        "idle_ip_reclaim_after" => (r#""7m""#, ""),
        "idle_ip_reclaim_interval" => (r#""7m""#, r#""idle_ip_reclaim_after": "1h","#),
        "idle_ip_reclaim_batch_size" => ("7", r#""idle_ip_reclaim_after": "1h","#),
        "idle_ip_reclaim_jitter_factor" => (r#""0.7""#, r#""idle_ip_reclaim_after": "1h","#),
        "ipv4_prefix_count" | "ipv6_prefix_count" => ("1", r#""enable_ip_prefix": true,"#),
        "max_pool_size" | "ip_warm_up_size" | "min_eni" | "max_eni" | "eni_cap_shift" => ("3", ""),
        "request_batch" | "kube_client_burst" | "mark_mask" => ("3", ""),
        "eni_cap_ratio" | "kube_client_qps" => ("0.5", ""),
        "eni_selection_policy" => (r#""least_ips""#, ""),
        "degradation" => (r#""l1""#, ""),
        "ip_stack" => (r#""dual""#, ""),
        "rate_limit" => (r#"{"AttachNetworkInterface": 7}"#, ""),
        "backoff_override" => (r#"{"eni_ops": {"Steps": 7}}"#, ""),
        "ipam_type" => (r#""crd""#, ""),
        "extra_routes" => (r#"[{"dst": "10.0.0.0/8"}]"#, ""),
        "rule_layout" => (r#""per-pod""#, ""),
        "member_mac" => (r#""own""#, ""),
        "source_dest_check" | "enable_patch_pod_ips" | "enable_erdma" => ("false", ""),
        "enable_eni_trunking" | "enable_ip_prefix" | "disable_device_plugin" => ("true", ""),
        _ => panic!("{key} has no other value here"),
    }
}

/// The secret stands for itself: nothing prints it.
fn key_of(config: &Config) -> Option<(String, String)> {
    use secrecy::ExposeSecret as _;
    config.access_key.as_ref().map(|key| (key.id.clone(), key.secret.expose_secret().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn each_key_is_taken_up_as_the_page_says() {
    let page = config::page();
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[4].to_owned(), cells.len())
    });
    // The table of back-offs is wider.
    let mut seen = BTreeSet::new();
    for (key, taken, _) in rows.filter(|(_, _, cells)| *cells == 7) {
        let (value, needs) = other(&key);
        let mut without = serde_json::from_str::<serde_json::Value>(&conf(needs)).unwrap();
        // A key that goes with another is there with another value before.
        let before = match key.as_str() {
            "access_key" => Some(r#""AK""#),
            "access_secret" => Some(r#""secret""#),
            _ => None,
        };
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        if let Some(before) = before {
            without[&key] = parse(before);
        }
        let mut node = Node::start(&without.to_string());
        without[&key] = parse(value);
        node.write(&without.to_string());
        let standing = node.judged().await;
        assert!(standing.refused.is_none(), "{key}: {standing:?}");
        let told = node.taken();
        match taken.as_str() {
            "live" => {
                let told = told.unwrap_or_else(|| panic!("{key} is not taken up"));
                let wanted = parse_config(&without.to_string());
                assert_eq!(format!("{:?}", told.config), format!("{wanted:?}"), "{key}");
                assert_eq!(key_of(&told.config), key_of(&wanted), "{key}");
                assert!(standing.restart.is_empty(), "{key}");
            }
            "restart" => {
                assert!(told.is_none(), "{key} is taken up");
                assert_eq!(standing.restart, [key.as_str()]);
            }
            "-" => assert!(told.is_none() && standing.restart.is_empty(), "{key}"),
            word => panic!("{key}: {word}"),
        }
        let changes = node.started.changes(&parse_config(&without.to_string()));
        assert!(!format!("{changes:?}").contains("sesame"), "a secret is in a log line");
        seen.insert(key);
    }
    assert_eq!(seen.len(), 50);
}

fn parse_config(text: &str) -> Config {
    Config::parse(text, Path::new("eni_conf")).unwrap().0
}
