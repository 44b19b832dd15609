//! Members of a trunk: one VLAN each, on the trunk's NIC.

use anyhow::{Context as _, Result};
use model::{EniId, Mac};
use terway_lab::ecs::Fabric as _;
use terway_lab::fabric::{DropCause, FabricOptions, MemberMacs, Sender};
use terway_lab::traffic::{Frame, Tag, Wire};

use crate::vpc::{LIMIT, Vpc, at, listen, next, options, v6, vlan};

const TRUNK: Mac = Mac::new([0, 0x16, 0x3e, 0, 1, 10]);
const MEMBER: Mac = Mac::new([0, 0x16, 0x3e, 0, 2, 10]);

/// Source and destination MAC of a datagram that ends with `text`.
fn macs_of(frame: &[u8], text: &str) -> Option<(Mac, Mac)> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, _) = rest.split_first_chunk::<6>()?;
    frame.ends_with(text.as_bytes()).then(|| (Mac::new(*from), Mac::new(*to)))
}

/// Sends from the member, answers from node2, and looks at how the answer comes in.
async fn converse(vpc: &Vpc, member: Mac) -> Result<()> {
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::Vlan(vlan(101)?)).await?;
    for (own, target) in
        [(at([10, 0, 2, 10], 9), at([10, 0, 0, 12], 9)), (at(v6(2, 10), 9), at(v6(0, 12), 9))]
    {
        let socket = listen(vpc.node2.namespace(), target).await?;
        let question = Frame::udp((member, own), (Mac::GATEWAY, target), b"question");
        wire.send(&question.tagged(vlan(101)?)).await?;
        assert_eq!(next(&socket).await?, ("question".to_owned(), own));
        socket.send_to(b"answer", own).await?;
        let (from, to) = wire.receive(LIMIT, |frame| macs_of(frame, "answer")).await?;
        assert_eq!((from, to), (Mac::GATEWAY, member));
    }
    assert!(vpc.fabric.drops().await?.is_empty());
    let counters = vpc.fabric.counters().await?;
    let counted = |eni: &str| counters.get(&Sender::Eni(EniId::new(eni)));
    let member = counted("eni-member101").context("it was plugged")?;
    assert_eq!((member.admitted, member.delivered), (2, 2));
    let trunk = counted("eni-trunk").context("it was plugged")?;
    assert_eq!((trunk.admitted, trunk.delivered), (0, 0), "the frames were the member's");
    Ok(())
}

#[tokio::test]
async fn a_member_sends_and_gets_tagged_frames_with_the_trunks_mac() -> Result<()> {
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    converse(&vpc, TRUNK).await
}

#[tokio::test]
async fn a_member_may_have_to_use_its_own_mac() -> Result<()> {
    let vpc = Vpc::with(FabricOptions { member_macs: MemberMacs::Own, ..options()? }).await?;
    vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    converse(&vpc, MEMBER).await?;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let target = (Mac::GATEWAY, at([10, 0, 0, 12], 9));
    let trunks = Frame::udp((TRUNK, at([10, 0, 2, 10], 9)), target, b"");
    wire.send(&trunks.tagged(vlan(101)?)).await?;
    let dropped = vpc.fabric.drops().await?;
    assert_eq!(dropped.of(&EniId::new("eni-member101"), DropCause::SourceMac), 1, "{dropped}");
    Ok(())
}

#[tokio::test]
async fn what_goes_to_a_member_has_its_tag_and_what_goes_to_the_trunk_has_none() -> Result<()> {
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    vpc.plug_member(102, 20).await?;
    let socket = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    for (tag, address, text) in [
        (Tag::None, [10, 0, 1, 10], "to the trunk"),
        (Tag::Vlan(vlan(101)?), [10, 0, 2, 10], "to the first"),
        (Tag::Vlan(vlan(102)?), [10, 0, 2, 20], "to the second"),
    ] {
        let wire = Wire::open(vpc.node1.namespace(), "eth1", tag).await?;
        socket.send_to(text.as_bytes(), at(address, 9)).await?;
        let arrived = wire.receive(LIMIT, |frame| macs_of(frame, "")).await?;
        assert_eq!(arrived, (Mac::GATEWAY, TRUNK), "{text}");
        let before = vpc.fabric.counters().await?;
        assert!(before.values().all(|port| port.drops.is_empty()), "{before:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unplugged_member_is_an_unknown_vlan_and_can_come_back() -> Result<()> {
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    let member = vpc.plug_member(101, 10).await?;
    vpc.fabric.unplug(&member).await?;
    vpc.fabric.unplug(&member).await?;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let target = (Mac::GATEWAY, at([10, 0, 0, 12], 9));
    let late = Frame::udp((TRUNK, at([10, 0, 2, 10], 9)), target, b"").tagged(vlan(101)?);
    wire.send(&late).await?;
    let dropped = vpc.fabric.drops().await?;
    assert_eq!(dropped.to_string(), "eni-trunk: unknown VLAN (1)");
    let untagged = Frame { vlan: None, ..late };
    wire.send(&untagged).await?;
    let dropped = vpc.fabric.drops().await?.since(&dropped);
    assert_eq!(dropped.to_string(), "eni-trunk: source address not assigned (1)");
    vpc.fabric.plug(&member).await?;
    let again = vpc.fabric.drops().await?;
    wire.send(&Frame { vlan: Some(vlan(101)?), ..untagged }).await?;
    assert!(vpc.fabric.drops().await?.since(&again).is_empty());
    Ok(())
}

#[tokio::test]
async fn a_trunk_stays_while_it_has_members_and_a_member_needs_its_trunk() -> Result<()> {
    let vpc = Vpc::new().await?;
    let orphan = vpc.plug_member(101, 10).await.unwrap_err();
    assert!(format!("{orphan:#}").contains("its trunk eni-trunk is not plugged"), "{orphan:#}");
    let trunk = vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    let held = vpc.fabric.unplug(&trunk).await.unwrap_err();
    assert!(format!("{held:#}").contains("its member eni-member101 is plugged"), "{held:#}");
    Ok(())
}
