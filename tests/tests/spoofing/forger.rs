//! Pods that forge, on shared ENIs and on members of the trunk.

use std::net::{IpAddr, SocketAddr};

use model::{Mac, VlanId};
use terway_lab::fabric::{OUTSIDE_V4, Sender};
use terway_lab::lab::leftovers::ip;
use terway_lab::namespace::Namespace;
use terway_lab::traffic::{Tag, Wire};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use crate::capture::Capture;
use crate::cases::{Case, Identity, cases};
use crate::{DaemonSettings, Drops, LIMIT, LOOK, Lab, LabOptions, LabPod, NODE, PodRequest, drops};

/// So many bytes at a frame's end tell it from all others, also when it was forwarded.
const TRACE: usize = 20;

/// A pod that sends what it likes.
struct Forger {
    pod: LabPod,
    identity: Identity,
    wire: Wire,
    vlan: Option<VlanId>,
}

impl Forger {
    async fn new(lab: &Lab, request: &PodRequest) -> Self {
        let pod = lab.add_pod(request).await.unwrap();
        let wire = Wire::open(pod.netns.namespace(), "eth0", Tag::Any).await.unwrap();
        let pods = lab.terwayctl(NODE, "pods").await.unwrap();
        let mut pods = pods["pods"].as_array().unwrap().iter();
        let record = pods.find(|one| one["name"] == request.name.as_str()).unwrap();
        let host = record["host_link"].as_str().unwrap();
        let node = &lab.node(NODE).unwrap().node;
        let links = ip(node, &format!("-j link show dev {host}")).await.unwrap();
        let next_hop: Mac = links[0]["address"].as_str().unwrap().parse().unwrap();
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (pod.addresses[0], pod.addresses[1]) else {
            panic!("{:?}", pod.addresses)
        };
        let vlan = u32::try_from(record["vlan"].as_u64().unwrap()).unwrap();
        let identity = Identity { mac: wire.mac(), next_hop, v4, v6 };
        Self { pod, identity, wire, vlan: VlanId::try_from(vlan).ok() }
    }

    fn name(&self) -> &str {
        &self.pod.request.name
    }
}

/// What is watched while somebody forges.
struct Watch<'a> {
    lab: &'a Lab,
    capture: Capture,
    client: UdpSocket,
    frames: u32,
}

impl Watch<'_> {
    /// The frame is dropped on the node for its cause alone, and the pod can still send.
    async fn never_gets_out(&mut self, forger: &Forger, case: &Case) {
        let what = format!("{}: {}", forger.name(), case.what);
        let before = drops(self.lab).await;
        let bytes = &case.frame.payload;
        let trace = &bytes[bytes.len() - TRACE..];
        forger.wire.send(&case.frame).await.unwrap();
        let after = self.dropped(&before, case.cause, trace, &what).await;
        let more: Drops = after
            .iter()
            .map(|(cause, packets)| (cause.clone(), packets - before[cause]))
            // The pod's own kernel speaks as well.
            .filter(|(cause, packets)| *packets > 0 && cause != "pod_control")
            .filter(|(cause, _)| cause != "vlan_control")
            .collect();
        let expected = match case.cause {
            "pod_control" => Drops::new(),
            lie => Drops::from([(lie.to_owned(), 1)]),
        };
        assert_eq!(more, expected, "{what}");

        self.frames += 1;
        let honest = format!("an honest frame, number {:04}", self.frames);
        forger.wire.send(&forger.identity.honest(&honest)).await.unwrap();
        self.capture.arrives(honest.as_bytes()).await;
        let mut buffer = [0; 128];
        let received = timeout(LIMIT, self.client.recv_from(&mut buffer)).await;
        let (length, from) = received.unwrap_or_else(|_| panic!("{what}: then silence")).unwrap();
        assert_eq!(&buffer[..length], honest.as_bytes(), "{what}");
        assert_eq!(from.ip(), IpAddr::V4(forger.identity.v4), "{what}");
        assert_eq!(self.capture.find(trace), None, "{what}: it left the node");
    }

    /// Waits until the daemon's counter of this cause has risen.
    async fn dropped(&self, before: &Drops, cause: &str, trace: &[u8], what: &str) -> Drops {
        let risen = timeout(LIMIT, async {
            loop {
                let now = drops(self.lab).await;
                if now[cause] > before[cause] {
                    return now;
                }
                sleep(LOOK).await;
            }
        });
        let seen = || self.capture.find(trace);
        risen.await.unwrap_or_else(|_| panic!("{what}: no {cause}; it left by {:?}", seen()))
    }
}

async fn listen(place: &Namespace, address: SocketAddr) -> UdpSocket {
    let bound = place.run(move || -> std::io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    bound.await.unwrap().unwrap()
}

/// What the node itself answers to.
async fn node_addresses(lab: &Lab) -> Vec<IpAddr> {
    let links = ip(&lab.node(NODE).unwrap().node, "-j addr show dev eth0").await.unwrap();
    let addresses = links[0]["addr_info"].as_array().unwrap().iter();
    let global = addresses.filter(|one| one["scope"] == "global");
    global.map(|one| one["local"].as_str().unwrap().parse().unwrap()).collect()
}

async fn forge(lab: &Lab, kind: &str, requests: [PodRequest; 2]) {
    let [first, second] = requests;
    let (forger, victim) = (Forger::new(lab, &first).await, Forger::new(lab, &second).await);
    let client = listen(lab.fabric().outside(), SocketAddr::new(OUTSIDE_V4.into(), 9)).await;
    let capture = Capture::start(lab, NODE).await;
    let mut watch = Watch { lab, capture, client, frames: 0 };
    let node = node_addresses(lab).await;
    assert!(!node.is_empty());
    // Of the neighbour where it has one: the tag that would take a frame to its member.
    let vlan = victim.vlan.unwrap_or_else(|| VlanId::try_from(100).unwrap());
    for case in cases(&forger.identity, &victim.identity, &node, vlan) {
        watch.never_gets_out(&forger, &case).await;
    }
    let vpc = lab.fabric().drops().await.unwrap();
    assert!(vpc.is_empty(), "{kind}: the VPC dropped: {vpc}");
    let counters = lab.fabric().counters().await.unwrap();
    let asked: u64 = counters
        .iter()
        .filter(|(sender, _)| matches!(sender, Sender::Eni(_)))
        .map(|(_, port)| port.unanswered)
        .sum();
    assert_eq!(asked, 0, "{kind}: somebody asked the VPC for an address that is not its to give");
    for forger in [forger, victim] {
        lab.del_pod(forger.pod).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shared_pod_forges_never_leaves_the_node() {
    let lab = Lab::up(LabOptions::for_test("forgeshare", 1).unwrap()).await.unwrap();
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let requests = ["forger", "victim"].map(|name| PodRequest::shared(NODE, name));
    forge(&lab, "shared", requests).await;
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trunk_pod_forges_never_leaves_the_node() {
    let lab = Lab::up(LabOptions::for_test("forgetrunk", 1).unwrap()).await.unwrap();
    let daemon = lab.start_daemon(NODE, &DaemonSettings::default()).await.unwrap();
    let requests = ["forger", "victim"].map(|name| PodRequest::trunk(NODE, name, "web"));
    forge(&lab, "trunk", requests).await;
    daemon.stop().await.unwrap();
    lab.down().await.unwrap();
}
