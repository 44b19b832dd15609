//! Large packets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use model::EniId;
use terway_lab::fabric::DropCause;
use terway_lab::traffic::{Frame, Tag, Wire};

use crate::vpc::{Vpc, at, options, run, v6};

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

#[tokio::test]
async fn a_transfer_passes_in_large_segments_unless_they_are_above_the_mtu() -> Result<()> {
    const BYTES: usize = 8 << 20;
    let vpc = Vpc::new().await?;
    for target in [at([10, 0, 0, 12], 80), at(v6(0, 12), 80)] {
        let listener = vpc.node2.namespace().run(move || TcpListener::bind(target)).await??;
        let received = tokio::task::spawn_blocking(move || -> Result<usize> {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = Vec::new();
            Ok(stream.read_to_end(&mut bytes)?)
        });
        let send = move || -> Result<()> {
            let mut stream = TcpStream::connect(target)?;
            Ok(stream.write_all(&vec![7; BYTES])?)
        };
        vpc.node1.namespace().run(send).await??;
        assert_eq!(received.await??, BYTES);
    }
    let dropped = vpc.fabric.drops().await?;
    assert!(dropped.is_empty(), "{dropped}");
    // Far fewer frames than segments: they came through as the node left them.
    let counters = vpc.fabric.counters().await?;
    let admitted = counters.values().map(|port| port.admitted).max().context("there are ports")?;
    assert!(admitted < u64::try_from(2 * BYTES / 1448)?, "{admitted} frames");
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
