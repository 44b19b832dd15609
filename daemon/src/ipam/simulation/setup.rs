//! What a run is made of before anything happens: configuration, instance, vSwitches, faults.

use std::time::Duration;

use controlplane::simulation::{Faults, Limits};
use controlplane::{Allocation as Kept, Attachment, PodNetworking, Random};
use model::{Capacity, InstanceId, SelectionPolicy, VSwitchId, ZoneId};

use super::chance::{chance, pick, range};
use super::whole::{Fixed, parse};
use crate::ipam::{Node, Options};
use crate::metrics::Metrics;

/// How long an address rests.
pub(super) const COOLDOWN: Duration = Duration::from_secs(30);
/// The instance of every run.
pub(super) const INSTANCE: &str = "i-1";

/// All that one seed decides but the events.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) conf: String,
    pub(super) options: Options,
    pub(super) limits: Limits,
    /// Each with its free addresses.
    pub(super) vswitches: Vec<(String, u64)>,
    pub(super) faults: Faults,
    /// How old a read may be.
    pub(super) lag: Duration,
    /// How long attach and detach take.
    pub(super) delay: Duration,
    pub(super) latency: Latency,
    /// Kernel calls that fail, in percent.
    pub(super) kernel_fails: u64,
    /// What other configurations are made from, in schedules that have them.
    pub(super) fixed: Option<Fixed>,
}

/// How long calls take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    /// Most of them, at most, milliseconds.
    pub(super) most: u64,
    /// So many of a hundred take longer.
    pub(super) slow: u64,
    /// And those at most so long, milliseconds.
    pub(super) slow_most: u64,
}

impl Latency {
    pub(super) fn draw(self, random: &mut Random) -> Duration {
        let most = if chance(random, self.slow) { self.slow_most } else { self.most };
        Duration::from_millis(1 + range(random, 0, most))
    }
}

impl Setup {
    /// What `random` says.
    pub(super) fn new(random: &mut Random, whole: bool) -> Self {
        let stack = pick(random, &["ipv4", "dual", "ipv6"]);
        let per_eni = range(random, 3, 10);
        let enis = range(random, 2, 5);
        let members = range(random, 1, 4);
        let trunking = chance(random, 40);
        let names = ["vsw-a", "vsw-b", "vsw-c"];
        let vswitches: Vec<(String, u64)> = names
            .iter()
            .take(usize::try_from(range(random, 1, 3)).unwrap_or(1))
            .map(|name| ((*name).to_owned(), pick(random, &[3, 8, 40, 1000, 1000])))
            .collect();
        let conf = conf(random, stack, trunking, &vswitches);
        let fixed = whole.then(|| Fixed {
            stack,
            trunking,
            prefixes: chance(random, 50),
            vswitches: vswitches.iter().map(|(id, _)| id.clone()).collect(),
        });
        let conf = fixed.as_ref().map_or(conf, |fixed| fixed.conf(random));
        let config = parse(&conf);
        let capacity = capacity(enis, per_eni, if trunking { members } else { 0 });
        let (node, web) = (node(capacity), pod_networking(&vswitches));
        let options = Options {
            node,
            config,
            pod_networkings: [web].into_iter().collect(),
            metrics: Metrics::default(),
        };
        let count = |n: u64| usize::try_from(n).unwrap_or(1);
        let limits =
            Limits { enis: count(enis), members: count(members), addresses: count(per_eni) };
        Self {
            conf,
            options,
            limits,
            vswitches,
            faults: faults(random),
            lag: Duration::from_secs(pick(random, &[0, 0, 2, 10])),
            delay: Duration::from_millis(range(random, 200, 5000)),
            latency: Latency {
                most: pick(random, &[20, 300, 300, 2000]),
                slow: pick(random, &[0, 0, 5, 20]),
                slow_most: pick(random, &[8_000, 8_000, 60_000]),
            },
            kernel_fails: pick(random, &[0, 0, 5, 20]),
            fixed,
        }
    }
}

fn conf(random: &mut Random, stack: &str, trunking: bool, vswitches: &[(String, u64)]) -> String {
    let ids: Vec<String> = vswitches.iter().map(|(id, _)| format!("{id:?}")).collect();
    let max = pick(random, &[0, 2, 5, 10]);
    let min = range(random, 0, max);
    let batch = pick(random, &[1, 3, 10, 10]);
    let policy = pick(random, &["ordered", "most", "random"]);
    let max_eni = if chance(random, 20) { r#""max_eni": 2, "# } else { "" };
    // A sequence of its own, so that the keys of later days leave a seed's schedule as it was.
    let later = later_keys(&mut Random::new(!random.clone().next()), max);
    format!(
        r#"{{"security_group": "sg-1", "vswitches": {{"h": [{}]}}, "ip_stack": "{stack}", "min_pool_size": {min}, "max_pool_size": {max}, "request_batch": {batch}, "enable_eni_trunking": {trunking}, "vswitch_selection_policy": "{policy}", {max_eni}{later}"ip_cooldown": "30s"}}"#,
        ids.join(", ")
    )
}

fn later_keys(random: &mut Random, max: u64) -> String {
    let mut keys = String::new();
    if chance(random, 30) {
        keys.extend([format!(r#""ip_warm_up_size": {}, "#, range(random, 0, max))]);
    }
    if chance(random, 30) {
        let batch = range(random, 1, 5);
        keys.push_str(r#""idle_ip_reclaim_after": "1m", "idle_ip_reclaim_interval": "30s", "#);
        keys.extend([format!(r#""idle_ip_reclaim_batch_size": {batch}, "#)]);
    }
    if chance(random, 30) {
        keys.push_str(r#""min_eni": 1, "#);
    }
    if chance(random, 30) {
        keys.push_str(r#""eni_selection_policy": "least_ips", "#);
    }
    keys
}

fn faults(random: &mut Random) -> Faults {
    if chance(random, 30) {
        return Faults::default();
    }
    let mut percent = |most| if chance(random, 50) { range(random, 0, most) } else { 0 };
    Faults {
        throttled: percent(30),
        answer_lost: percent(20),
        late: percent(20),
        call_lost: percent(20),
        forbidden: percent(40),
        reads_lost: percent(20),
    }
}

fn capacity(enis: u64, per_eni: u64, members: u64) -> Capacity {
    let small = |n: u64| u32::try_from(n).unwrap_or(1);
    let (enis, per_eni, members) = (small(enis) - 1, small(per_eni), small(members));
    Capacity { enis, per_eni, shared: enis * per_eni, members, exclusive: enis }
}

fn node(capacity: Capacity) -> Node {
    Node {
        instance: InstanceId::new(INSTANCE),
        zone: ZoneId::new("h"),
        vswitch: VSwitchId::new("vsw-a"),
        capacity,
        name: "node1".to_owned(),
    }
}

fn pod_networking(vswitches: &[(String, u64)]) -> PodNetworking {
    let last = vswitches.last().map_or("vsw-a", |(id, _)| id.as_str());
    PodNetworking {
        name: "web".to_owned(),
        attachment: Attachment::Trunk,
        allocation: Kept::Elastic,
        vswitches: Some(vec![VSwitchId::new(last)]),
        policy: SelectionPolicy::Ordered,
        security_groups: None,
    }
}
