//! ARP and neighbour discovery: what the VPC answers, asks and swallows.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use model::{EniId, Mac};
use terway_lab::ecs::{Fabric as _, PluggedKind};
use terway_lab::fabric::{DropCause, FabricOptions, Neighbours, PortCounters, Sender};
use terway_lab::reach::{Endpoint, reach};
use terway_lab::traffic::{Frame, Tag, Wire};

use crate::vpc::{LIMIT, Vpc, at, eni, listen, options, v6, vlan};

const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecff, 0xffff, 0xfeff, 0xffff);

fn gateway6(vswitch: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, vswitch, 0xffff, 0xffff, 0xffff, 0xfffd)
}

/// Sender and its MAC in an ARP answer.
fn arp_answer(frame: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let packet = frame.get(14..)?;
    let is_answer = frame.get(12..14)? == [8, 6] && packet.get(6..8)? == [0, 2];
    let mac: [u8; 6] = packet.get(8..14)?.try_into().ok()?;
    let sender: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    is_answer.then(|| (Mac::new(mac), sender.into()))
}

/// Who is asked for, in an ARP question.
fn arp_question(frame: &[u8]) -> Option<Ipv4Addr> {
    let packet = frame.get(14..)?;
    let is_question = frame.get(12..14)? == [8, 6] && packet.get(6..8)? == [0, 1];
    let target: [u8; 4] = packet.get(24..28)?.try_into().ok()?;
    is_question.then(|| target.into())
}

/// Target, MAC and flags in a neighbour advertisement.
fn advertisement(frame: &[u8]) -> Option<(Mac, Ipv6Addr, u8)> {
    let message = frame.get(54..)?;
    let is_advertisement = frame.get(12..14)? == [0x86, 0xdd] && *message.first()? == 136;
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mac: [u8; 6] = message.get(26..32)?.try_into().ok()?;
    is_advertisement.then(|| (Mac::new(mac), target.into(), message.get(4).copied().unwrap_or(0)))
}

async fn counters(vpc: &Vpc, eni: &str) -> Result<PortCounters> {
    let all = vpc.fabric.counters().await?;
    Ok(all.get(&Sender::Eni(EniId::new(eni))).cloned().unwrap_or_default())
}

#[tokio::test]
async fn the_gateway_is_answered_for_on_every_eni_with_its_tag() -> Result<()> {
    let vpc = Vpc::new().await?;
    let trunk = vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    for (tag, vswitch, last) in [(Tag::None, 1, 10), (Tag::Vlan(vlan(101)?), 2, 10)] {
        let wire = Wire::open(vpc.node1.namespace(), "eth1", tag).await?;
        let tagged = |frame: Frame| match tag {
            Tag::None | Tag::Any => frame,
            Tag::Vlan(id) => frame.tagged(id),
        };
        let gateway = Ipv4Addr::new(10, 0, vswitch, 253);
        let own = (trunk.mac, Ipv4Addr::new(10, 0, vswitch, last));
        wire.send(&tagged(Frame::arp_request(trunk.mac, own, gateway))).await?;
        assert_eq!(wire.receive(LIMIT, arp_answer).await?, (Mac::GATEWAY, gateway));
        let own = (trunk.mac, v6(vswitch, last.into()));
        for gateway in [gateway6(vswitch.into()), GATEWAY_LINK_LOCAL] {
            wire.send(&tagged(Frame::neighbour_solicitation(trunk.mac, own, gateway))).await?;
            // Router, solicited, override.
            let expected = (Mac::GATEWAY, gateway, 0xe0);
            assert_eq!(wire.receive(LIMIT, advertisement).await?, expected);
        }
    }
    assert_eq!(counters(&vpc, "eni-trunk").await?.answered, 3);
    assert_eq!(counters(&vpc, "eni-member101").await?.answered, 3);
    Ok(())
}

#[tokio::test]
async fn nobody_else_is_answered_for_but_on_the_primary_nic() -> Result<()> {
    let vpc = Vpc::new().await?;
    let secondary = eni("eni-secondary", PluggedKind::Secondary, 0, 20);
    vpc.fabric.plug(&secondary).await?;
    vpc.set_up(&vpc.node1, "eth1").await?;
    let neighbour = Ipv4Addr::new(10, 0, 0, 12);
    for (link, mac, last, answers) in
        [("eth1", secondary.mac, 20, 0), ("eth0", Mac::new([0, 0x16, 0x3e, 0, 0, 11]), 11, 1)]
    {
        let id = if answers == 0 { "eni-secondary" } else { "eni-node1" };
        let wire = Wire::open(vpc.node1.namespace(), link, Tag::None).await?;
        let before = counters(&vpc, id).await?;
        let own = (mac, Ipv4Addr::new(10, 0, 0, last));
        let own6 = (mac, v6(0, last.into()));
        wire.send(&Frame::arp_request(mac, own, neighbour)).await?;
        wire.send(&Frame::neighbour_solicitation(mac, own6, v6(0, 12))).await?;
        // Nobody has these.
        wire.send(&Frame::arp_request(mac, own, Ipv4Addr::new(10, 0, 0, 77))).await?;
        wire.send(&Frame::neighbour_solicitation(mac, own6, v6(0, 77))).await?;
        let after = counters(&vpc, id).await?;
        let answered = after.answered.saturating_sub(before.answered);
        let unanswered = after.unanswered.saturating_sub(before.unanswered);
        assert_eq!((answered, unanswered), (2 * answers, 4 - 2 * answers), "{link}");
    }
    assert!(vpc.fabric.drops().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn control_frames_are_swallowed_and_counted_apart() -> Result<()> {
    let vpc = Vpc::new().await?;
    let secondary = eni("eni-secondary", PluggedKind::Secondary, 1, 20);
    vpc.fabric.plug(&secondary).await?;
    // A link that comes up says MLD, DAD and RS.
    vpc.set_up(&vpc.node1, "eth1").await?;
    let mac = secondary.mac;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let own = Ipv4Addr::new(10, 0, 1, 20);
    let before = counters(&vpc, "eni-secondary").await?;
    let nobody = Ipv4Addr::UNSPECIFIED;
    let group = at([224, 0, 0, 251], 5353);
    let frames = [
        Frame::arp_request(mac, (mac, own), own),
        Frame::arp_request(mac, (mac, nobody), own),
        Frame::neighbour_solicitation(mac, (mac, Ipv6Addr::UNSPECIFIED), v6(1, 20)),
        Frame::udp((mac, at(own, 5353)), (Mac::new([1, 0, 0x5e, 0, 0, 0xfb]), group), b""),
        Frame::udp((mac, at(nobody, 68)), (Mac::new([0xff; 6]), at(Ipv4Addr::BROADCAST, 67)), b""),
        Frame::arp_reply(mac, (mac, own), (Mac::GATEWAY, [10, 0, 1, 253].into())),
    ];
    for frame in &frames {
        wire.send(frame).await?;
    }
    let after = counters(&vpc, "eni-secondary").await?;
    let swallowed = after.control.saturating_sub(before.control);
    // The kernel may say something of its own in between.
    assert!(swallowed >= 6, "{before:?} {after:?}");
    assert_eq!(after.admitted, 0);
    assert!(vpc.fabric.drops().await?.is_empty(), "{}", vpc.fabric.drops().await?);
    Ok(())
}

#[tokio::test]
async fn the_vpc_says_nothing_of_its_own_on_a_port() -> Result<()> {
    let vpc = Vpc::new().await?;
    let secondary = eni("eni-secondary", PluggedKind::Secondary, 1, 20);
    vpc.fabric.plug(&secondary).await?;
    vpc.set_up(&vpc.node1, "eth1").await?;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    // Linux would say MLD for the port's addresses, twice within this time.
    let heard = wire.receive(Duration::from_millis(2500), |frame| Some(frame.to_vec())).await;
    assert!(heard.is_err(), "{heard:02x?}");
    assert_eq!(counters(&vpc, "eni-secondary").await?.delivered, 0);
    Ok(())
}

#[tokio::test]
async fn the_vpc_asks_for_a_mac_before_it_sends_if_it_is_told_to() -> Result<()> {
    let vpc = Vpc::with(FabricOptions { neighbours: Neighbours::Asked, ..options()? }).await?;
    let endpoints = [
        Endpoint {
            name: "node1".to_owned(),
            place: vpc.node1.namespace().clone(),
            addresses: vec![[10, 0, 0, 11].into(), v6(0, 11).into()],
        },
        Endpoint {
            name: "node2".to_owned(),
            place: vpc.node2.namespace().clone(),
            addresses: vec![[10, 0, 0, 12].into(), v6(0, 12).into()],
        },
    ];
    for attempt in reach(&vpc.fabric, &endpoints, LIMIT).await? {
        assert!(attempt.reach.is_reached(), "{attempt:?}");
    }
    let neighbours = vpc.ip(&["neigh"]).await?;
    let learned = |address: &str| {
        let entries = neighbours.as_array().into_iter().flatten();
        let entry = entries.into_iter().find(|entry| entry["dst"] == address);
        entry.and_then(|entry| entry["lladdr"].as_str()).map(str::to_owned)
    };
    assert_eq!(learned("10.0.0.12").as_deref(), Some("00:16:3e:00:00:0c"), "{neighbours}");
    assert_eq!(learned("fd00::c").as_deref(), Some("00:16:3e:00:00:0c"), "{neighbours}");
    Ok(())
}

#[tokio::test]
async fn an_address_that_does_not_answer_gets_nothing_where_the_vpc_asks() -> Result<()> {
    let vpc = Vpc::with(FabricOptions { neighbours: Neighbours::Asked, ..options()? }).await?;
    let trunk = vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::Vlan(vlan(101)?)).await?;
    let own = Ipv4Addr::new(10, 0, 2, 10);
    let gateway = (Mac::GATEWAY, Ipv4Addr::new(10, 0, 2, 253));
    let socket = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    socket.send_to(b"hello", at(own, 9)).await?;
    let asked = wire.receive(LIMIT, arp_question).await?;
    assert_eq!(asked, own);
    // An answer with a MAC that is not the member's is not believed.
    let stranger = Mac::new([0, 0x16, 0x3e, 9, 9, 9]);
    let lie = Frame::arp_reply(trunk.mac, (stranger, own), gateway).tagged(vlan(101)?);
    wire.send(&lie).await?;
    let dropped = vpc.fabric.drops().await?;
    assert_eq!(dropped.of(&EniId::new("eni-member101"), DropCause::ArpSender), 1, "{dropped}");
    let silence = wire
        .receive(Duration::from_millis(100), |frame| frame.ends_with(b"hello").then_some(()))
        .await;
    assert!(silence.is_err());
    let truth = Frame::arp_reply(trunk.mac, (trunk.mac, own), gateway).tagged(vlan(101)?);
    wire.send(&truth).await?;
    wire.receive(LIMIT, |frame| frame.ends_with(b"hello").then_some(())).await
}
