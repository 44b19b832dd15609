//! A stranger's tc program at 25000 on the trunk and on a pod's link: it sees every frame untagged
//! and in order, nobody touches it, and a mark that it overwrites does not misroute a pod.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::{EniId, LinkIndex};
use serde_json::Value;
use terway_lab::fabric::{DropCause, OUTSIDE_V4, OUTSIDE_V6, Sender};
use terway_lab::lab::{DaemonSettings, Lab, LabOptions, LabPod, PodRequest, TcFilter};
use terway_lab::stranger::{Deed, Numbered, PRIORITY, Stranger};
use terway_lab::traffic::Datagrams;
use tokio::time::{sleep, timeout};

const NODE: &str = "node1";
const RELOADS: usize = 100;
/// For what follows an event: a repair, a frame on its way.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// A link of the node.
#[derive(Debug, Clone)]
struct Link {
    name: String,
    index: LinkIndex,
}

fn link(item: &Value, name: &str, index: &str) -> Link {
    let number = u32::try_from(item[index].as_u64().unwrap()).unwrap();
    let name = item[name].as_str().unwrap().to_owned();
    Link { name, index: LinkIndex::try_from(number).unwrap() }
}

async fn list(lab: &Lab, what: &str) -> Vec<Value> {
    lab.terwayctl(NODE, what).await.unwrap()[what].as_array().unwrap().clone()
}

async fn trunk(lab: &Lab) -> Link {
    let enis = list(lab, "enis").await;
    link(enis.iter().find(|eni| eni["kind"] == "trunk").unwrap(), "link", "link_index")
}

/// The host's end of a pod's pair, and the ENI that owns its addresses.
async fn of_pod(lab: &Lab, pod: &LabPod) -> (Link, EniId) {
    let pods = list(lab, "pods").await;
    let record = pods.iter().find(|one| one["name"] == pod.request.name.as_str()).unwrap();
    (link(record, "host_link", "host_link_index"), EniId::new(record["eni"].as_str().unwrap()))
}

/// What `tc` shows at 25000 of these links, both ways.
async fn strangers(lab: &Lab, links: &[&Link]) -> Vec<TcFilter> {
    let mut found = Vec::new();
    for link in links {
        for side in ["ingress", "egress"] {
            let filters = lab.filters(NODE, &link.name, side).await.unwrap();
            found.extend(filters.into_iter().filter(|one| one.priority == u64::from(PRIORITY)));
        }
    }
    found
}

/// A stream from or to a pod, by one address of its.
struct Stream {
    port: u16,
    inward: bool,
    datagrams: Datagrams,
}

/// Both ways, by each address of the pod; every stream to a port of its own.
async fn streams(lab: &Lab, pod: &LabPod, per_second: u32) -> Vec<Stream> {
    let (outside, inside) = (lab.fabric().outside(), pod.netns.namespace());
    let mut streams = Vec::new();
    for (address, port) in pod.addresses.iter().zip([9000, 9100]) {
        let (address, client) = (*address, client(*address));
        let target = SocketAddr::new(client, port);
        let outward = Datagrams::start((inside, address), (outside, target), per_second);
        streams.push(Stream { port, inward: false, datagrams: outward.await.unwrap() });
        let port = port + 1;
        let target = SocketAddr::new(address, port);
        let inward = Datagrams::start((outside, client), (inside, target), per_second);
        streams.push(Stream { port, inward: true, datagrams: inward.await.unwrap() });
    }
    streams
}

/// The outside client's address of the same family.
fn client(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { OUTSIDE_V4.into() } else { OUTSIDE_V6.into() }
}

/// Waits until `terwayctl status` names these, and no other.
async fn said_to_run_before_ours(lab: &Lab, expected: &BTreeSet<String>) {
    let mut said = Value::Null;
    let look = timeout(LIMIT, async {
        loop {
            said = lab.terwayctl(NODE, "status").await.unwrap()["foreign_filters_ahead"].take();
            let all = said.as_array().unwrap().iter();
            if all.map(|one| one.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>() == *expected
            {
                return;
            }
            sleep(LOOK).await;
        }
    });
    let in_time = look.await.is_ok();
    assert!(in_time, "expected {expected:?}, and it is {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_sees_every_frame_untagged_and_in_order_over_a_hundred_reloads() {
    let lab = Lab::up(LabOptions::for_test("stranger", 1).unwrap()).await.unwrap();
    let settings = DaemonSettings::default();
    let mut daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let node = lab.node(NODE).unwrap().node.clone();
    let pod = lab.add_pod(&PodRequest::trunk(NODE, "web-a", "web")).await.unwrap();
    let (trunk, (host, _)) = (trunk(&lab).await, of_pod(&lab, &pod).await);
    let mut watching = Vec::new();
    let mut expected = BTreeSet::new();
    for (link, before) in [
        (
            &trunk,
            format!("probe_egress on {} egress at 25000, before vlan_tag at 50001", trunk.name),
        ),
        (
            &host,
            "probe_ingress on pods' links ingress at 25000, before set_mark at 50001".to_owned(),
        ),
    ] {
        for deed in [Deed::WatchIngress, Deed::WatchEgress] {
            watching.push((link, deed, Stranger::attach(&node, &link.name, deed).await.unwrap()));
        }
        expected.insert(before);
        said_to_run_before_ours(&lab, &expected).await;
    }
    let log = daemon.said().unwrap();
    for one in &expected {
        let lines = log.lines().filter(|line| line.contains(one.as_str()) && line.contains("WARN"));
        assert_eq!(lines.count(), 1, "{one}:\n{log}");
    }
    let before = strangers(&lab, &[&trunk, &host]).await;
    assert_eq!(before.len(), 4, "{before:?}");
    let streams = streams(&lab, &pod, 500).await;

    let mut programs = BTreeSet::new();
    for reload in 0..RELOADS {
        if reload % 2 == 0 {
            daemon.stop().await.unwrap();
        } else {
            daemon.kill().await.unwrap();
        }
        daemon = lab.spawn_daemon(NODE, &settings).await.unwrap();
        daemon.wait_ready().await.unwrap();
        for (link, side, program) in
            [(&trunk, "egress", "vlan_tag"), (&host, "ingress", "from_pod")]
        {
            let filters = lab.filters(NODE, &link.name, side).await.unwrap();
            let ours: Vec<_> = filters.iter().filter(|one| one.name == program).collect();
            assert_eq!(ours.len(), 1, "{ours:?}");
            programs.insert(ours[0].program_id);
        }
    }
    assert_eq!(programs.len(), 2 * RELOADS, "each start swapped both programs");

    for Stream { port, inward, datagrams } in streams {
        let report = datagrams.stop().await.unwrap();
        assert!(report.sent > 0, "port {port}");
        assert_eq!((report.lost, report.reordered), (0, 0), "port {port}: {report:?}");
        let whole = Numbered { frames: report.sent, tagged: 0, late: 0, next: report.sent };
        for (link, deed, stranger) in &watching {
            // In by the trunk is out by the pod's link.
            let on_its_way =
                (*deed == Deed::WatchIngress) == (inward == (link.index == trunk.index));
            let expected = if on_its_way { whole } else { Numbered::default() };
            let seen = stranger.stream(port).unwrap();
            assert_eq!(seen, expected, "port {port}, {} {deed:?}", link.name);
        }
    }
    assert_eq!(strangers(&lab, &[&trunk, &host]).await, before, "somebody touched a stranger");
    assert_eq!(lab.fabric().drops().await.unwrap().total(), 0);
    lab.del_pod(pod).await.unwrap();
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

async fn set_mark(lab: &Lab, host: &Link) -> Option<TcFilter> {
    let filters = lab.filters(NODE, &host.name, "ingress").await.unwrap();
    filters.into_iter().find(|one| one.name == "set_mark")
}

/// Waits until `set_mark` sits on the pod's link, or does not.
async fn marks_again(lab: &Lab, host: &Link, wanted: bool) {
    let look = timeout(LIMIT, async {
        loop {
            let found = set_mark(lab, host).await;
            if found.is_some() == wanted {
                return found;
            }
            sleep(LOOK).await;
        }
    });
    let found = look.await.unwrap_or_else(|_| panic!("set_mark on {}: {wanted}", host.name));
    let place = found.map(|one| (one.priority, one.handle));
    assert!(place.is_none_or(|place| place == (50_001, "0x1".to_owned())));
}

/// A pod's traffic leaves by its own ENI: nothing is lost, the VPC drops nothing, and the port of
/// that ENI counted it.
async fn leaves_by_its_eni(lab: &Lab, pod: &LabPod, eni: &EniId) {
    const ENOUGH: u64 = 200;
    let sender = Sender::Eni(eni.clone());
    let drops = lab.fabric().drops().await.unwrap();
    let before = lab.fabric().counters().await.unwrap()[&sender].admitted;
    let streams = streams(lab, pod, 1000).await;
    let flowing = timeout(LIMIT, async {
        while streams.iter().any(|stream| stream.datagrams.received() < ENOUGH) {
            sleep(LOOK).await;
        }
    });
    flowing.await.unwrap_or_else(|_| panic!("{} does not get through", pod.request.name));
    let mut sent = 0;
    for Stream { port, inward, datagrams } in streams {
        let report = datagrams.stop().await.unwrap();
        assert_eq!(report.lost, 0, "{} port {port}: {report:?}", pod.request.name);
        sent += if inward { 0 } else { report.sent };
    }
    let after = lab.fabric().counters().await.unwrap()[&sender].admitted;
    assert_eq!(after - before, sent, "frames of {} into the VPC by {eni}", pod.request.name);
    let dropped = lab.fabric().drops().await.unwrap().since(&drops);
    assert!(dropped.is_empty(), "{dropped}");
}

/// Between the coming of the first stranger of a node and ours behind it, frames of its pod go
/// astray, and the VPC drops them. Of all others no frame does.
#[expect(clippy::print_stderr, reason = "how long that is, for who reads the test's log")]
async fn how_many_go_astray(pod: &LabPod, streams: Vec<Stream>, expected: bool) {
    for Stream { port, inward, datagrams } in streams {
        let report = datagrams.stop().await.unwrap();
        let name = &pod.request.name;
        eprintln!("{name} port {port}: {} of {} astray, at 1000/s", report.lost, report.sent);
        assert!(report.lost == 0 || !(inward || expected), "{name} port {port}: {report:?}");
    }
}

/// Without `set_mark` the pod's frames leave by eth0, and the VPC says so: the witness of the rest.
async fn leaves_by_eth0(lab: &Lab, pod: &LabPod, host: &Link) {
    let node = &lab.node(NODE).unwrap().node;
    let delete = ["filter", "del", "dev", &host.name, "ingress", "pref", "50001"];
    assert!(node.command("tc").args(delete).status().await.unwrap().success());
    let before = lab.fabric().drops().await.unwrap();
    let streams = streams(lab, pod, 100).await;
    let dropped = timeout(LIMIT, async {
        loop {
            let dropped = lab.fabric().drops().await.unwrap().since(&before);
            if dropped.with(DropCause::SourceAddress) >= 10 {
                return;
            }
            sleep(LOOK).await;
        }
    });
    dropped.await.unwrap_or_else(|_| panic!("{} was not misrouted", pod.request.name));
    for stream in streams {
        let report = stream.datagrams.stop().await.unwrap();
        assert!(stream.inward || report.received == 0, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_overwrites_the_whole_mark_does_not_misroute_a_pod() {
    let lab = Lab::up(LabOptions::for_test("overmark", 1).unwrap()).await.unwrap();
    let settings = DaemonSettings::default();
    let daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    let node = lab.node(NODE).unwrap().node.clone();
    let trunk = trunk(&lab).await;
    let on_trunk = Stranger::attach(&node, &trunk.name, Deed::OverwriteMark).await.unwrap();
    let mut pods = Vec::new();
    let mut on_pods = Vec::new();
    for (request, expected) in [
        (PodRequest::trunk(NODE, "web-a", "web"), false),
        (PodRequest::trunk(NODE, "web-b", "web"), true),
        (PodRequest::shared(NODE, "shared-a"), true),
    ] {
        let pod = lab.add_pod(&request).await.unwrap();
        let (host, eni) = of_pod(&lab, &pod).await;
        // Who was seen on one pod's link is expected on the next one's.
        assert_eq!(set_mark(&lab, &host).await.is_some(), expected, "{}", request.name);
        let meanwhile = streams(&lab, &pod, 1000).await;
        on_pods.push(Stranger::attach(&node, &host.name, Deed::OverwriteMark).await.unwrap());
        marks_again(&lab, &host, true).await;
        how_many_go_astray(&pod, meanwhile, expected).await;
        pods.push((pod, host, eni));
    }
    let links: Vec<_> = pods.iter().map(|(_, host, _)| host).chain([&trunk]).collect();
    let before = strangers(&lab, &links).await;
    assert_eq!(before.len(), 4, "{before:?}");

    // The daemon has seen it come.
    for (pod, _, eni) in &pods {
        leaves_by_its_eni(&lab, pod, eni).await;
    }
    // The test can fail; and a daemon that starts finds it.
    daemon.stop().await.unwrap();
    for (pod, host, _) in &pods {
        leaves_by_eth0(&lab, pod, host).await;
    }
    let daemon = lab.start_daemon(NODE, &settings).await.unwrap();
    for (pod, host, eni) in &pods {
        marks_again(&lab, host, true).await;
        leaves_by_its_eni(&lab, pod, eni).await;
    }
    assert_eq!(strangers(&lab, &links).await, before, "somebody touched a stranger");
    // It goes, and so does what was there because of it.
    for stranger in on_pods {
        stranger.leave().await.unwrap();
    }
    for (pod, host, eni) in &pods {
        marks_again(&lab, host, false).await;
        leaves_by_its_eni(&lab, pod, eni).await;
    }
    on_trunk.leave().await.unwrap();
    for (pod, ..) in pods {
        lab.del_pod(pod).await.unwrap();
    }
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
