//! Reloads and crashes of the daemon under load: no datagram is lost, and no frame with a member's
//! source reaches the VPC without its tag.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use terway_lab::fabric::{DropCause, OUTSIDE_V4, OUTSIDE_V6};
use terway_lab::lab::{Daemon, DaemonSettings, Lab, LabOptions, LabPod, PodRequest, TcFilter};
use terway_lab::traffic::Datagrams;
use tokio::time::{Instant, sleep, timeout};

const NODE: &str = "node1";
/// Datagrams a second of a trunk pod, each way.
const LOAD: u32 = 10_000;
/// What of it has to be sent on average, each way: a sender that was off the CPU catches up by 10 ms
/// at most, so on a busy machine some of the load is never sent; but a test with much less of it
/// says nothing about swaps under load.
const SENT_AT_LEAST: u64 = 8_000;
/// Of a shared pod beside it, each way.
const LIGHT: u32 = 500;
const RELOADS: usize = 100;
const KILLS: u64 = 20;
/// More than a start has.
const STEPS: u32 = 200;
/// For what follows: the first datagram, a program that is swapped.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// Drops that a node without any fault has: control frames that nobody needs.
const EXPECTED: [&str; 2] = ["pod_control", "vlan_control"];

/// A node with pods under load.
struct Bed {
    lab: Lab,
    pods: Vec<LabPod>,
    /// The trunk's link.
    trunk: String,
    streams: Vec<(String, Datagrams)>,
    since: Instant,
}

impl Bed {
    async fn new(name: &str) -> Self {
        let lab = Lab::up(LabOptions::for_test(name, 1).unwrap()).await.unwrap();
        let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
        let web = lab.add_pod(&PodRequest::trunk(NODE, "web-a", "web")).await.unwrap();
        let shared = lab.add_pod(&PodRequest::shared(NODE, "shared-a")).await.unwrap();
        let enis = lab.terwayctl(NODE, "enis").await.unwrap();
        let mut enis = enis["enis"].as_array().unwrap().iter();
        let trunk = enis.find(|eni| eni["kind"] == "trunk").unwrap()["link"].as_str().unwrap();
        let trunk = trunk.to_owned();
        daemon.stop().await.unwrap();
        let since = Instant::now();
        let mut streams = both_ways(&lab, &web, web.addresses[0], LOAD, 9000).await;
        streams.extend(both_ways(&lab, &web, web.addresses[1], LIGHT, 9100).await);
        streams.extend(both_ways(&lab, &shared, shared.addresses[0], LIGHT, 9200).await);
        let begun = timeout(LIMIT, async {
            while streams.iter().any(|(_, stream)| stream.received() == 0) {
                sleep(LOOK).await;
            }
        });
        begun.await.unwrap();
        Self { lab, pods: vec![web, shared], trunk, streams, since }
    }

    /// Our filter that chooses the VLAN.
    async fn tags(&self) -> TcFilter {
        let filters = self.lab.filters(NODE, &self.trunk, "egress").await.unwrap();
        let [tags] = &filters[..] else { panic!("{filters:?}") };
        assert_eq!((tags.priority, tags.handle.as_str()), (50_001, "0x1"), "{tags:?}");
        assert_eq!(tags.name, "vlan_tag");
        tags.clone()
    }

    /// Waits until a daemon has put its own program in the place of `before`.
    async fn swapped(&self, before: u64, daemon: &Daemon) -> u64 {
        let swapped = timeout(LIMIT, async {
            loop {
                let now = self.tags().await.program_id;
                if now != before {
                    return now;
                }
                sleep(LOOK).await;
            }
        });
        swapped.await.unwrap_or_else(|_| panic!("nothing was swapped\n{}", daemon.tail()))
    }

    /// Ends the load, and looks whether anything was lost, or left as it must not.
    #[expect(clippy::print_stderr, reason = "the measured rates are for who reads the test's log")]
    async fn nothing_was_lost(self, what: &str) {
        let Self { lab, pods, streams, since, .. } = self;
        let elapsed = since.elapsed();
        let mut lost = Vec::new();
        let mut rates = Vec::new();
        for (name, stream) in streams {
            let report = stream.stop().await.unwrap();
            let rate = report.sent * 1000 / u64::try_from(elapsed.as_millis()).unwrap().max(1);
            eprintln!(
                "{what}: {name}: {} datagrams in {elapsed:.1?}, {rate}/s, lost {}, longest gap {:?}",
                report.sent, report.lost, report.longest_gap
            );
            rates.push(rate);
            if report.lost != 0 || report.duplicated != 0 {
                lost.push(format!("{name}: {report:?}"));
            }
        }
        let drops = lab.fabric().drops().await.unwrap();
        let records = lab.fabric().drop_records().await;
        assert_eq!(drops.with(DropCause::UntaggedMember), 0, "untagged: {records:?}");
        assert!(drops.is_empty(), "the VPC dropped: {drops}: {records:?}");
        let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
        let dropped = unexpected(&lab.terwayctl(NODE, "status").await.unwrap());
        let loaded = rates.iter().take(2);
        assert!(
            loaded.clone().all(|rate| *rate >= SENT_AT_LEAST),
            "the load was {rates:?}/s: the machine is too busy for this test"
        );
        assert!(lost.is_empty(), "{}; on the node: {dropped:?}", lost.join("\n"));
        assert!(dropped.is_empty(), "the node dropped: {dropped:?}");
        for pod in pods {
            let check = lab.check_pod(&pod).await.unwrap();
            assert!(check.success, "CHECK of {}: {}", pod.request.name, check.message());
            lab.del_pod(pod).await.unwrap();
        }
        daemon.stop().await.unwrap();
        lab.down().await.unwrap();
    }
}

/// A stream from the pod to the client outside, and one back.
async fn both_ways(
    lab: &Lab,
    pod: &LabPod,
    address: IpAddr,
    per_second: u32,
    port: u16,
) -> Vec<(String, Datagrams)> {
    let (outside, inside) = (lab.fabric().outside(), pod.netns.namespace());
    let client: IpAddr = if address.is_ipv4() { OUTSIDE_V4.into() } else { OUTSIDE_V6.into() };
    let outward = SocketAddr::new(client, port);
    let inward = SocketAddr::new(address, port + 1);
    let out = Datagrams::start((inside, address), (outside, outward), per_second).await.unwrap();
    let back = Datagrams::start((outside, client), (inside, inward), per_second).await.unwrap();
    vec![(format!("{address} to {client}"), out), (format!("{client} to {address}"), back)]
}

/// What the daemon's programs dropped and a healthy node does not.
fn unexpected(status: &Value) -> Vec<String> {
    let drops = status["drops"].as_array().unwrap().iter();
    let bad = drops.filter(|drop| {
        let cause = drop["cause"].as_str().unwrap();
        drop["packets"].as_u64().unwrap_or_default() > 0 && !EXPECTED.contains(&cause)
    });
    bad.map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_lose_no_packet_and_no_tag() {
    let bed = Bed::new("upgrade").await;
    let mut programs = BTreeSet::from([bed.tags().await.program_id]);
    let settings = DaemonSettings::default();
    for _ in 0..RELOADS {
        let before = bed.tags().await.program_id;
        let mut daemon = bed.lab.spawn_daemon(NODE, &settings).await.unwrap();
        daemon.wait_ready().await.unwrap();
        programs.insert(bed.swapped(before, &daemon).await);
        daemon.stop().await.unwrap();
    }
    assert_eq!(programs.len(), RELOADS + 1, "each start swapped the program");
    bed.nothing_was_lost("100 reloads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_no_packet_and_no_tag() {
    let bed = Bed::new("kills").await;
    let settings = DaemonSettings::default();
    for kill in 0..KILLS {
        let mut daemon = bed.lab.spawn_daemon(NODE, &settings).await.unwrap();
        if kill % 2 == 0 {
            daemon.wait_ready().await.unwrap();
        } else {
            // Somewhere on its way there, each time a bit later.
            sleep(Duration::from_millis(15 * kill)).await;
        }
        daemon.kill().await.unwrap();
        bed.tags().await;
    }
    bed.nothing_was_lost("20 kills").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_is_cut_between_any_two_steps_loses_no_packet_and_no_tag() {
    let bed = Bed::new("cut").await;
    let mut cuts = 0;
    for point in ["eni.step", "repair.step"] {
        let before = cuts;
        for pass in 1..=STEPS {
            let fault = ("TERWAYD_FAILPOINT".to_owned(), format!("{point}@{pass}"));
            let settings = DaemonSettings { environment: vec![fault], ..DaemonSettings::default() };
            let mut daemon = bed.lab.spawn_daemon(NODE, &settings).await.unwrap();
            let ready = daemon.wait_ready().await.is_ok();
            daemon.kill().await.unwrap();
            bed.tags().await;
            if ready {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > before, "no start came to {point}");
    }
    bed.nothing_was_lost(&format!("{cuts} cuts")).await;
}
