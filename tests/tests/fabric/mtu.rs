//! Large packets.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use model::EniId;
use terway_lab::fabric::DropCause;
use terway_lab::traffic::{Frame, Tag, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::vpc::{LIMIT, Vpc, at, options, run, v6};

#[tokio::test]
async fn a_frame_above_the_mtu_is_dropped_and_counted() -> Result<()> {
    let vpc = Vpc::new().await?;
    run(&vpc.node1, &["ip", "link", "set", "eth0", "mtu", "9000"]).await?;
    let eth0 = Wire::open(vpc.node1.namespace(), "eth0", Tag::None).await?;
    let gateway = model::Mac::GATEWAY;
    for (own, target, headers) in [
        (at([10, 0, 0, 11], 9), at([10, 0, 0, 12], 9), 28),
        (at(v6(0, 11), 9), at(v6(0, 12), 9), 48),
    ] {
        let before = vpc.fabric.drops().await?;
        let payload = |packet: usize| vec![0; packet - headers];
        for packet in [1500, 1501, 8000] {
            let frame = Frame::udp((eth0.mac(), own), (gateway, target), &payload(packet));
            eth0.send(&frame).await?;
        }
        let dropped = vpc.fabric.drops().await?.since(&before);
        let oversize = dropped.of(&EniId::new("eni-node1"), DropCause::Oversize);
        assert_eq!((oversize, dropped.total()), (2, 2), "{dropped}");
    }
    Ok(())
}

/// A connection from node1 to a listener on node2, both ends.
async fn connect(vpc: &Vpc, target: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = vpc.node2.namespace().run(move || std::net::TcpListener::bind(target)).await??;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let connect =
        vpc.node1.namespace().run(move || std::net::TcpStream::connect_timeout(&target, LIMIT));
    let client = connect.await??;
    client.set_nonblocking(true)?;
    let (server, _) = timeout(LIMIT, listener.accept()).await??;
    Ok((TcpStream::from_std(client)?, server))
}

#[tokio::test]
async fn a_transfer_passes_in_large_segments_unless_they_are_above_the_mtu() -> Result<()> {
    const BYTES: usize = 8 << 20;
    let vpc = Vpc::new().await?;
    for target in [at([10, 0, 0, 12], 80), at(v6(0, 12), 80)] {
        let (mut client, mut server) = connect(&vpc, target).await?;
        let send = async move {
            client.write_all(&vec![7; BYTES]).await?;
            client.shutdown().await
        };
        let mut bytes = Vec::new();
        let transfer = async { tokio::try_join!(send, server.read_to_end(&mut bytes)) };
        timeout(4 * LIMIT, transfer).await??;
        assert_eq!(bytes.len(), BYTES);
    }
    let dropped = vpc.fabric.drops().await?;
    assert!(dropped.is_empty(), "{dropped}");
    // Far fewer frames than segments: they came through as the node left them.
    let counters = vpc.fabric.counters().await?;
    let admitted = counters.values().map(|port| port.admitted).max().context("there are ports")?;
    assert!(admitted < u64::try_from(2 * BYTES / 1448)?, "{admitted} frames");

    for node in [&vpc.node1, &vpc.node2] {
        run(node, &["ip", "link", "set", "eth0", "mtu", "9000"]).await?;
    }
    for target in [at([10, 0, 0, 12], 81), at(v6(0, 12), 81)] {
        let before = vpc.fabric.drops().await?;
        let (mut client, _server) = connect(&vpc, target).await?;
        // The kernel takes it, and cannot get rid of it.
        client.write_all(&vec![7; 64 << 10]).await?;
        let dropped = async {
            loop {
                let dropped = vpc.fabric.drops().await?.since(&before);
                if !dropped.is_empty() {
                    return anyhow::Ok(dropped);
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let dropped = timeout(LIMIT, dropped).await??;
        assert!(dropped.of(&EniId::new("eni-node1"), DropCause::Oversize) > 0, "{dropped}");
        let records = vpc.fabric.drop_records().await;
        let ours = records.iter().find(|record| record.destination == Some(target.ip()));
        let ours = ours.context("it is recorded")?;
        assert!(ours.length > 9014, "a frame that holds many segments: {ours:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sender_learns_the_mtu_of_a_smaller_eni() -> Result<()> {
    let jumbo = |mut eni: terway_lab::ecs::PluggedEni| {
        eni.mtu = if eni.instance == "node1" { 8500 } else { 1500 };
        eni
    };
    let vpc = Vpc::with_primaries(options()?, jumbo).await?;
    for (target, options) in [("10.0.0.12", "-4"), ("fd00::c", "-6")] {
        let output = vpc
            .node1
            .command("ping")
            .args([options, "-M", "do", "-s", "3000", "-c", "1", "-W", "2", target])
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("1500"), "{target}: {text}");
    }
    let dropped = vpc.fabric.drops().await?;
    assert!(dropped.is_empty(), "{dropped}");
    Ok(())
}
