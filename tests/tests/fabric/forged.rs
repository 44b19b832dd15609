//! Frames that a real VPC drops: each kind, one at a time.

use std::net::Ipv6Addr;

use anyhow::Result;
use model::{EniId, Mac};
use terway_lab::fabric::{DropCause, OUTSIDE_V4};
use terway_lab::traffic::{Frame, Tag, Wire};

use crate::vpc::{Vpc, at, listen, next, v6, vlan};

const GATEWAY: Mac = Mac::GATEWAY;
const NODE1: Mac = Mac::new([0, 0x16, 0x3e, 0, 0, 11]);
const TRUNK: Mac = Mac::new([0, 0x16, 0x3e, 0, 1, 10]);
const STRANGER: Mac = Mac::new([0, 0x16, 0x3e, 9, 9, 9]);

/// A frame, and what its drop is counted as.
struct Case {
    what: &'static str,
    /// Sent by the trunk's link; else by eth0.
    trunk: bool,
    frame: Frame,
    eni: &'static str,
    cause: DropCause,
}

fn cases() -> Result<Vec<Case>> {
    let mut list = addresses_and_macs();
    list.extend(tags()?);
    list.extend(neighbours());
    Ok(list)
}

fn addresses_and_macs() -> Vec<Case> {
    let (target, target6) = (at([10, 0, 0, 12], 9), at(v6(0, 12), 9));
    let (own, own6) = (at([10, 0, 0, 11], 9), at(v6(0, 11), 9));
    let case = |what, frame, cause| Case { what, trunk: false, frame, eni: "eni-node1", cause };
    let mut strange = Frame::udp((NODE1, own), (GATEWAY, target), b"forged");
    strange.protocol = 0x88b5;
    vec![
        case(
            "a source that nobody has",
            Frame::udp((NODE1, at([10, 0, 0, 99], 9)), (GATEWAY, target), b"forged"),
            DropCause::SourceAddress,
        ),
        case(
            "another ENI's source",
            Frame::udp((NODE1, at([10, 0, 1, 10], 9)), (GATEWAY, target), b"forged"),
            DropCause::SourceAddress,
        ),
        case(
            "another ENI's IPv6 source",
            Frame::udp((NODE1, at(v6(1, 10), 9)), (GATEWAY, target6), b"forged"),
            DropCause::SourceAddress,
        ),
        case(
            "another MAC",
            Frame::udp((STRANGER, own), (GATEWAY, target), b"forged"),
            DropCause::SourceMac,
        ),
        case(
            "straight to the neighbour's MAC",
            Frame::udp((NODE1, own), (STRANGER, target), b"forged"),
            DropCause::DestinationMac,
        ),
        case(
            "to everybody's MAC",
            Frame::udp((NODE1, own), (Mac::new([0xff; 6]), target), b"forged"),
            DropCause::DestinationMac,
        ),
        case(
            "to nobody",
            Frame::udp((NODE1, own), (GATEWAY, at([10, 0, 0, 77], 9)), b"forged"),
            DropCause::NoOwner,
        ),
        case(
            "to nobody in IPv6",
            Frame::udp((NODE1, own6), (GATEWAY, at(v6(0, 77), 9)), b"forged"),
            DropCause::NoOwner,
        ),
        case(
            "to the internet, to which there is no gateway",
            Frame::udp((NODE1, own), (GATEWAY, at([8, 8, 8, 8], 9)), b"forged"),
            DropCause::NoOwner,
        ),
        case("neither IP nor ARP", strange, DropCause::Malformed),
    ]
}

fn tags() -> Result<Vec<Case>> {
    let target = at([10, 0, 0, 12], 9);
    let (own, trunk) = (at([10, 0, 0, 11], 9), at([10, 0, 1, 10], 9));
    let (member, member6) = (at([10, 0, 2, 10], 9), at(v6(2, 10), 9));
    let other_member = at([10, 0, 2, 20], 9);
    let case = |what, frame, eni, cause| Case { what, trunk: true, frame, eni, cause };
    let frame = |source| Frame::udp((TRUNK, source), (GATEWAY, target), b"forged");
    let mut strange = frame(member).tagged(vlan(101)?);
    strange.from = STRANGER;
    Ok(vec![
        Case {
            what: "a tag on a NIC that is no trunk",
            trunk: false,
            frame: Frame::udp((NODE1, own), (GATEWAY, target), b"forged").tagged(vlan(101)?),
            eni: "eni-node1",
            cause: DropCause::TagOnNonTrunk,
        },
        // VLAN 0 is a priority without a VLAN (802.1Q), which is no member's either.
        case(
            "a tag without a VLAN",
            priority_tagged(frame(trunk)),
            "eni-trunk",
            DropCause::UnknownVlan,
        ),
        case(
            "a VLAN of no member",
            frame(member).tagged(vlan(999)?),
            "eni-trunk",
            DropCause::UnknownVlan,
        ),
        case(
            "a member's source without its tag",
            frame(member),
            "eni-trunk",
            DropCause::UntaggedMember,
        ),
        case(
            "a member's IPv6 source without its tag",
            Frame::udp((TRUNK, member6), (GATEWAY, at(v6(0, 12), 9)), b"forged"),
            "eni-trunk",
            DropCause::UntaggedMember,
        ),
        case(
            "another member's source",
            frame(other_member).tagged(vlan(101)?),
            "eni-member101",
            DropCause::SourceAddress,
        ),
        case(
            "the trunk's source with a member's tag",
            frame(trunk).tagged(vlan(101)?),
            "eni-member101",
            DropCause::SourceAddress,
        ),
        case("a member with another MAC", strange, "eni-member101", DropCause::SourceMac),
    ])
}

fn neighbours() -> Vec<Case> {
    let (own, gateway) = ([10, 0, 0, 11].into(), [10, 0, 0, 253].into());
    let stranger = [10, 0, 0, 12].into();
    let own6 = v6(0, 11);
    let gateway6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xfffd);
    let case = |what, frame, cause| Case { what, trunk: false, frame, eni: "eni-node1", cause };
    let solicitation = |mac, sender| Frame::neighbour_solicitation(NODE1, (mac, sender), gateway6);
    let advertisement = |source, mac, address| {
        Frame::neighbour_advertisement(NODE1, (GATEWAY, gateway6), source, (mac, address))
    };
    vec![
        case(
            "ARP in a neighbour's name",
            Frame::arp_request(NODE1, (NODE1, stranger), gateway),
            DropCause::ArpSender,
        ),
        case(
            "ARP that names another MAC",
            Frame::arp_request(NODE1, (STRANGER, own), gateway),
            DropCause::ArpSender,
        ),
        case(
            "an ARP answer in a neighbour's name",
            Frame::arp_reply(NODE1, (NODE1, stranger), (GATEWAY, gateway)),
            DropCause::ArpSender,
        ),
        case(
            "a solicitation in a neighbour's name",
            solicitation(NODE1, v6(0, 12)),
            DropCause::NdSender,
        ),
        case(
            "a solicitation that names another MAC",
            solicitation(STRANGER, own6),
            DropCause::NdSender,
        ),
        case(
            "an advertisement of a neighbour's address",
            advertisement(own6, NODE1, v6(0, 12)),
            DropCause::NdSender,
        ),
        case(
            "an advertisement that names another MAC",
            advertisement(own6, STRANGER, own6),
            DropCause::NdSender,
        ),
        case(
            "an advertisement from a neighbour's address",
            advertisement(v6(0, 12), NODE1, own6),
            DropCause::NdSender,
        ),
        case(
            "a solicitation from afar",
            from_afar(solicitation(NODE1, own6)),
            DropCause::Malformed,
        ),
        case("a router advertisement", router_advertisement(), DropCause::NdSender),
    ]
}

/// Neighbour discovery that a router let through: its hop limit is not 255 any more.
fn from_afar(mut frame: Frame) -> Frame {
    if let Some(hop_limit) = frame.payload.get_mut(7) {
        *hop_limit = 254;
    }
    frame
}

fn priority_tagged(mut frame: Frame) -> Frame {
    let tag = [0xe0, 0];
    frame.payload = [&tag[..], &frame.protocol.to_be_bytes(), &frame.payload].concat();
    frame.protocol = 0x8100;
    frame
}

/// As if the node were a router.
fn router_advertisement() -> Frame {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 11);
    let mut frame = Frame::neighbour_advertisement(
        NODE1,
        (Mac::new([0x33, 0x33, 0, 0, 0, 1]), all_nodes),
        link_local,
        (NODE1, v6(0, 11)),
    );
    // The kind of the message behind the IPv6 header.
    if let Some(kind) = frame.payload.get_mut(40) {
        *kind = 134;
    }
    frame
}

#[tokio::test]
async fn a_forged_frame_never_arrives_and_its_counter_says_why() -> Result<()> {
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    vpc.plug_member(101, 10).await?;
    vpc.plug_member(102, 20).await?;
    let arrived = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    let eth0 = Wire::open(vpc.node1.namespace(), "eth0", Tag::None).await?;
    let eth1 = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let honest =
        Frame::udp((NODE1, at([10, 0, 0, 11], 9)), (GATEWAY, at([10, 0, 0, 12], 9)), b"honest");
    for case in cases()? {
        let before = vpc.fabric.drops().await?;
        let wire = if case.trunk { &eth1 } else { &eth0 };
        wire.send(&case.frame).await?;
        let dropped = vpc.fabric.drops().await?.since(&before);
        let eni = EniId::new(case.eni);
        assert_eq!(
            (dropped.of(&eni, case.cause), dropped.total()),
            (1, 1),
            "{}: {dropped}",
            case.what
        );
        // Had it got through, it would have arrived before this one.
        eth0.send(&honest).await?;
        let (text, from) = next(&arrived).await?;
        assert_eq!((text.as_str(), from), ("honest", at([10, 0, 0, 11], 9)), "{}", case.what);
    }
    Ok(())
}

#[tokio::test]
async fn a_drop_is_recorded_with_its_addresses_macs_and_tag() -> Result<()> {
    let vpc = Vpc::new().await?;
    vpc.plug_trunk().await?;
    let eth1 = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let forged = Frame::udp((TRUNK, at([10, 0, 2, 10], 9)), (GATEWAY, at([10, 0, 0, 12], 9)), b"");
    for _ in 0..3 {
        eth1.send(&forged.clone().tagged(vlan(7)?)).await?;
    }
    let records = vpc.fabric.drop_records().await;
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record.cause, DropCause::UnknownVlan);
    assert_eq!(record.vlan, Some(vlan(7)?));
    assert_eq!(record.source, Some([10, 0, 2, 10].into()));
    assert_eq!(record.destination, Some([10, 0, 0, 12].into()));
    assert_eq!((record.source_mac, record.destination_mac), (TRUNK, GATEWAY));
    assert_eq!((record.frames, record.protocol), (3, 0x0800));
    Ok(())
}

#[tokio::test]
async fn the_outside_reaches_only_what_somebody_owns() -> Result<()> {
    let vpc = Vpc::new().await?;
    let socket = listen(vpc.fabric.outside(), at(OUTSIDE_V4, 9)).await?;
    let before = vpc.fabric.drops().await?;
    socket.send_to(b"lost", at([10, 0, 0, 77], 9)).await?;
    let dropped = vpc.fabric.drops().await?.since(&before);
    assert_eq!(dropped.with(DropCause::NoOwner), 1, "{dropped}");
    assert_eq!(dropped.to_string(), "outside: destination nobody owns (1)");
    let wire = Wire::open(vpc.fabric.outside(), "eth0", Tag::None).await?;
    let router = Mac::new([0x02, 0x0f, 0, 0, 0, 1]);
    let inside = (wire.mac(), at([10, 0, 0, 11], 9));
    let before = vpc.fabric.drops().await?;
    wire.send(&Frame::udp(inside, (router, at([10, 0, 0, 12], 9)), b"forged")).await?;
    let dropped = vpc.fabric.drops().await?.since(&before);
    assert_eq!(dropped.to_string(), "outside: source address not assigned (1)");
    let arrived = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    socket.send_to(b"found", at([10, 0, 0, 12], 9)).await?;
    assert_eq!(next(&arrived).await?, ("found".to_owned(), at(OUTSIDE_V4, 9)));
    Ok(())
}

#[tokio::test]
async fn the_source_check_of_an_eni_can_be_off_where_the_lab_lets_it() -> Result<()> {
    let options = crate::vpc::options()?;
    let options = terway_lab::fabric::FabricOptions {
        source_check: terway_lab::fabric::SourceCheck::AsFlagged,
        ..options
    };
    let unchecked = |mut eni: terway_lab::ecs::PluggedEni| {
        eni.source_dest_check = eni.instance != "node1";
        eni
    };
    let vpc = Vpc::with_primaries(options, unchecked).await?;
    let arrived = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    let eth0 = Wire::open(vpc.node1.namespace(), "eth0", Tag::None).await?;
    let target = at([10, 0, 0, 12], 9);
    eth0.send(&Frame::udp((NODE1, at([10, 9, 9, 9], 9)), (GATEWAY, target), b"routed")).await?;
    assert_eq!(next(&arrived).await?, ("routed".to_owned(), at([10, 9, 9, 9], 9)));
    let other = Wire::open(vpc.node2.namespace(), "eth0", Tag::None).await?;
    let forged = at([10, 9, 9, 9], 9);
    other.send(&Frame::udp((other.mac(), forged), (GATEWAY, at([10, 0, 0, 11], 9)), b"")).await?;
    let dropped = vpc.fabric.drops().await?;
    assert_eq!(dropped.to_string(), "eni-node2: source address not assigned (1)");
    Ok(())
}
