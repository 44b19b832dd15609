//! All kinds of traffic that pods may have: the VPC drops none of it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use futures::future::join_all;
use terway_lab::demo::endpoints;
use terway_lab::fabric::Sender;
use terway_lab::namespace::Namespace;
use terway_lab::reach::Endpoint;
use terway_lab::traffic::Datagrams;
use tokio::time::{sleep, timeout};

use crate::{DaemonSettings, LIMIT, LOOK, Lab, LabOptions, LabPod, NODE, PodRequest, drops};

/// Of one transfer; the kernel cuts bursts of it late (GSO).
const BULK: usize = 1 << 20;
/// Above the MTU: it goes in fragments.
const LARGE: usize = 4000;

/// A megabyte by TCP each way, and a datagram in fragments each way.
async fn talk(from: (&Namespace, IpAddr), to: (&Namespace, SocketAddr)) {
    let ((client, source), (server, target)) = (from, to);
    let listen = move || {
        let sockets = (TcpListener::bind(target)?, UdpSocket::bind(target)?);
        sockets.1.set_read_timeout(Some(LIMIT))?;
        std::io::Result::Ok(sockets)
    };
    let (listener, datagrams) = server.run(listen).await.unwrap().unwrap();
    let serve = move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = vec![0; BULK];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
        let (length, from) = datagrams.recv_from(&mut bytes)?;
        datagrams.send_to(bytes.get(..length).unwrap_or_default(), from)?;
        Ok(())
    };
    let ask = move || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut bytes = vec![7; BULK];
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
        let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(&bytes[..LARGE], target)?;
        socket.recv(&mut bytes)
    };
    let answered = tokio::task::spawn_blocking(serve);
    let echoed = client.run(ask).await.unwrap();
    let echoed = echoed.unwrap_or_else(|error| panic!("{source} to {target}: {error}"));
    assert_eq!(echoed, LARGE, "{source} to {target}");
    answered.await.unwrap().unwrap();
}

/// Every ordered pair, by every family.
async fn everybody_talks(all: &[Endpoint]) {
    for client in all {
        for server in all.iter().filter(|server| server.name != client.name) {
            for (source, address) in client.addresses.iter().zip(&server.addresses) {
                let target = SocketAddr::new(*address, 7008);
                talk((&client.place, *source), (&server.place, target)).await;
            }
        }
    }
}

/// Echo requests, small and in fragments, from a pod to each address.
async fn ping(lab: &Lab, pod: &LabPod, targets: &[IpAddr]) {
    let node = &lab.node(&pod.request.node).unwrap().node;
    let one = |target: IpAddr, size: &'static str| async move {
        let output = node
            .command("nsenter")
            .arg(format!("--net={}", pod.netns.path().display()))
            .args(["ping", "-n", "-c", "2", "-i", "0.2", "-W", "10", "-s", size])
            .arg(target.to_string())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{} to {target}: {text}", pod.request.name);
    };
    let small = targets.iter().map(|target| one(*target, "56"));
    join_all(small.chain(targets.iter().map(|target| one(*target, "4000")))).await;
}

/// A pod that sends while it is deleted: its last frames neither leave untagged nor by another way.
async fn sends_until_it_is_gone(lab: &Lab, pod: LabPod) {
    let outside = lab.outside();
    let mut streams = Vec::new();
    for (address, client) in pod.addresses.iter().zip(&outside.addresses) {
        let target = SocketAddr::new(*client, 7009);
        let from = (pod.netns.namespace(), *address);
        streams.push(Datagrams::start(from, (&outside.place, target), 5000).await.unwrap());
    }
    let flowing = timeout(LIMIT, async {
        while streams.iter().any(|stream| stream.received() == 0) {
            sleep(LOOK).await;
        }
    });
    flowing.await.unwrap();
    lab.del_pod(pod).await.unwrap();
    for stream in streams {
        // It ends with the link that it was sent by.
        drop(stream.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vpc_drops_nothing_of_what_pods_may_send() {
    let lab = Lab::up(LabOptions::for_test("legitimate", 2).unwrap()).await.unwrap();
    let (mut daemons, mut pods) = (Vec::new(), Vec::new());
    for node in [NODE, "node2"] {
        daemons.push(lab.start_daemon(node, &DaemonSettings::default()).await.unwrap());
        let (shared, web) = (format!("shared-{node}"), format!("web-{node}"));
        pods.push(lab.add_pod(&PodRequest::shared(node, &shared)).await.unwrap());
        pods.push(lab.add_pod(&PodRequest::trunk(node, &web, "web")).await.unwrap());
    }
    let all = endpoints(&lab, &pods).unwrap();
    everybody_talks(&all).await;
    let targets: Vec<_> = all.iter().flat_map(|one| one.addresses.clone()).collect();
    for pod in &pods {
        ping(&lab, pod, &targets).await;
    }
    let before_del = lab.fabric().drops().await.unwrap();
    assert!(before_del.is_empty(), "{before_del}");
    for pod in pods {
        sends_until_it_is_gone(&lab, pod).await;
    }
    // What is still on its way to a pod that is gone has no owner: that is the outside's.
    let dropped = lab.fabric().drops().await.unwrap();
    let by_enis: Vec<_> = dropped.iter().filter(|(from, ..)| **from != Sender::Outside).collect();
    assert!(by_enis.is_empty(), "{by_enis:?}");
    // What a pod sends after its DEL is dropped on its link, as an unknown pod's.
    let node = drops(&lab).await;
    assert!(node["unknown_pod"] > 0, "the pods did not send until they were gone: {node:?}");
    for cause in ["unknown_source", "unknown_vlan", "wrong_member", "spoofed_source", "malformed"] {
        assert_eq!(node[cause], 0, "{node:?}");
    }
    for daemon in daemons {
        daemon.stop().await.unwrap();
    }
    lab.down().await.unwrap();
}
