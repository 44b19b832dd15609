//! Pods come and go while the daemon is killed at random moments, also in the middle of an ADD, of a
//! DEL and of calls to the cloud: in the end all witnesses agree, and nothing is left.
//!
//! `TERWAY_LAB_CYCLES` says how many pods come and go, a sixth of that how often the daemon is killed,
//! and `TERWAY_LAB_SEED` what is left to chance.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use controlplane::Random;
use serde_json::{Map, json};
use terway_lab::driver::{Outcome, Verb};
use terway_lab::ecs::{Fault, FaultKind};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest};
use tokio::sync::watch;

use crate::support::{add_within, is_reached, keys, shown};

const NODE: &str = "node1";
/// Pods that come and go side by side.
const LANES: u32 = 3;
/// How often a runtime repeats a verb that fails: more than any daemon's start takes.
const REPEATS: u32 = 600;
/// Between two of them.
const BACKOFF: Duration = Duration::from_millis(100);
/// How often the end is looked at, for a while each. An ENI of which a dead daemon did not know what became
/// takes no call for the cloud's lag of a minute: pods that wait get another ENI, and that one goes when it
/// was empty for two minutes and the cloud was read anew.
const LOOKS: u32 = 24;

fn number(name: &str, default: u32) -> u32 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What happened, in numbers.
#[derive(Debug, Default)]
struct Tally {
    begun: AtomicU32,
    failed_adds: AtomicU32,
    repeated_adds: AtomicU32,
    given_up: AtomicU32,
    failed_dels: AtomicU32,
    kills_at_start: AtomicU32,
}

fn count(what: &AtomicU32) -> u32 {
    what.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug)]
struct Bed {
    lab: Lab,
    tally: Tally,
    cycles: u32,
    kills: u32,
    seed: u64,
    /// Whether a daemon serves, as far as the killer knows.
    serves: watch::Sender<bool>,
}

impl Bed {
    /// Pods, one after another, until so many were begun by all lanes.
    async fn lane(&self, lane: u32) {
        let mut random = Random::new(self.seed.wrapping_add(1000 + u64::from(lane)));
        loop {
            let cycle = count(&self.tally.begun);
            if cycle >= self.cycles {
                return;
            }
            // A few begin while there is no daemon; most are under way when it goes.
            if random.below(8) != 0 {
                self.serves.subscribe().wait_for(|serves| *serves).await.unwrap();
            }
            let name = format!("pod{cycle}");
            let request = if random.below(6) == 0 {
                PodRequest::trunk(NODE, &name, "web")
            } else {
                PodRequest::shared(NODE, &name)
            };
            let (mut pod, outcome) = add_within(&self.lab, &request, 15).await;
            let mut up = outcome.success;
            if !up {
                count(&self.tally.failed_adds);
                if random.below(2) == 0 {
                    count(&self.tally.repeated_adds);
                    self.add_again(&mut pod).await;
                    up = true;
                } else {
                    count(&self.tally.given_up);
                }
            }
            if up && random.below(3) == 0 {
                is_reached(&self.lab, &pod).await;
            }
            self.del(pod).await;
        }
    }

    async fn cni(&self, verb: Verb, pod: &LabPod, seconds: u32) -> Outcome {
        let node = self.lab.node(NODE).unwrap();
        let mut more = Map::new();
        more.insert("timeout".to_owned(), json!(seconds));
        self.lab.cni(node, verb, &pod.attachment, &more).await.unwrap()
    }

    /// The same ADD until it succeeds.
    async fn add_again(&self, pod: &mut LabPod) {
        let mut last = String::new();
        for _repeat in 0..REPEATS {
            let outcome = self.cni(Verb::Add, pod, 15).await;
            if outcome.success {
                pod.addresses = outcome.addresses();
                pod.result = outcome.stdout;
                return;
            }
            last = outcome.message();
            tokio::time::sleep(BACKOFF).await;
        }
        panic!("seed {}: ADD of {} never succeeds: {last}", self.seed, pod.request.name);
    }

    /// DEL until it succeeds; then the namespace goes.
    async fn del(&self, pod: LabPod) {
        let mut last = String::new();
        for _repeat in 0..REPEATS {
            let outcome = self.cni(Verb::Del, &pod, 15).await;
            if outcome.success {
                return;
            }
            count(&self.tally.failed_dels);
            last = outcome.message();
            tokio::time::sleep(BACKOFF).await;
        }
        panic!("seed {}: DEL of {} never succeeds: {last}", self.seed, pod.request.name);
    }

    /// Kills it again and again, evenly over the pods; gives back one that lives.
    async fn killer(&self, settings: &DaemonSettings, mut daemon: Daemon) -> Daemon {
        let mut random = Random::new(self.seed);
        for kill in 0..self.kills {
            let at = (kill + 1) * self.cycles / (self.kills + 1);
            while self.tally.begun.load(Ordering::Relaxed) < at {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Anywhere in what is going on: this is the chance, and nothing waits for it.
            tokio::time::sleep(Duration::from_millis(random.below(400).into())).await;
            self.serves.send_replace(false);
            daemon.kill().await.unwrap();
            daemon = self.lab.spawn_daemon(NODE, settings).await.unwrap();
            if random.below(3) == 0 {
                count(&self.tally.kills_at_start);
                tokio::time::sleep(Duration::from_millis(random.below(300).into())).await;
                daemon.kill().await.unwrap();
                daemon = self.lab.spawn_daemon(NODE, settings).await.unwrap();
            }
            daemon.wait_ready().await.unwrap();
            self.serves.send_replace(true);
        }
        daemon
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_under_random_kills_and_all_witnesses_agree_at_the_end() {
    let mut options = LabOptions::for_test("rkills", 1).unwrap();
    (options.cloud.attach_ms, options.cloud.detach_ms) = (100, 100);
    let lab = Lab::up(options).await.unwrap();
    lab.ecs().add_fault(Fault::new("*", FaultKind::Latency { ms: 20 })).unwrap();
    // Small, so that pods need the cloud, and what they leave goes back to it.
    let more = keys(json!({
        "min_pool_size": 1, "max_pool_size": 2, "request_batch": 2, "ip_cooldown": "1s"
    }));
    let settings = DaemonSettings { more, ..DaemonSettings::default() };
    let daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let before = lab.kernel_state(NODE).await.unwrap();
    let cycles = number("TERWAY_LAB_CYCLES", 60);
    let seed = number("TERWAY_LAB_SEED", 1).into();
    let (tally, serves) = (Tally::default(), watch::Sender::new(true));
    let bed = Arc::new(Bed { lab, tally, cycles, kills: cycles / 6, seed, serves });
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let bed = Arc::clone(&bed);
        lanes.spawn(async move { bed.lane(lane).await });
    }
    let daemon = bed.killer(&settings, daemon).await;
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap();
    }

    let Bed { lab, tally, .. } = Arc::into_inner(bed).unwrap();
    let mut left = Vec::new();
    for _look in 0..LOOKS {
        left = lab.settle(NODE, &before).await.unwrap();
        if left.is_empty() {
            break;
        }
    }
    let mut report = format!("seed {seed}, {cycles} cycles: {tally:?}");
    write!(report, "\n{}\n{}", left.join("\n"), daemon.tail()).unwrap();
    assert!(left.is_empty(), "{report}");
    println!("seed {seed}, {cycles} cycles, {} kills: {tally:?}", cycles / 6);
    assert_eq!(shown(&lab, NODE, "/pool/used").await, 0, "{report}");
    assert_eq!(shown(&lab, NODE, "/pool/waiting").await, 0, "{report}");
    let enis = lab.ecs().dump().enis;
    assert_eq!(enis.len(), 2, "the primary and the trunk are all: {enis:?}");
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
