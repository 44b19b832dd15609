//! NICs and addresses that come and go.

use anyhow::{Context as _, Result};
use model::EniId;
use serde_json::Value;
use terway_lab::ecs::{Fabric as _, PluggedKind};
use terway_lab::fabric::DropCause;
use terway_lab::traffic::{Frame, Tag, Wire};

use crate::vpc::{LIMIT, Vpc, at, eni, host, ip, listen, next, v6};

/// The node's links by name, as iproute2 sees them.
async fn link(vpc: &Vpc, name: &str) -> Result<Option<Value>> {
    let links = ip(&vpc.node1, &["link"]).await?;
    let links = links.as_array().context("ip prints a list")?;
    Ok(links.iter().find(|link| link["ifname"] == name).cloned())
}

#[tokio::test]
async fn a_nic_appears_down_under_the_next_free_name_and_goes_again() -> Result<()> {
    let vpc = Vpc::new().await?;
    let enis: Vec<_> = (1..=3)
        .map(|number| eni(&format!("eni-{number}"), PluggedKind::Secondary, 1, number))
        .collect();
    for eni in &enis {
        vpc.fabric.plug(eni).await?;
    }
    for (name, eni) in [("eth1", &enis[0]), ("eth2", &enis[1]), ("eth3", &enis[2])] {
        let link = link(&vpc, name).await?.with_context(|| format!("there is no {name}"))?;
        assert_eq!(link["address"], eni.mac.to_string());
        assert_eq!(link["mtu"], 1500);
        let flags = link["flags"].as_array().context("a link has flags")?;
        assert!(!flags.iter().any(|flag| flag == "UP"), "{link}");
    }
    vpc.fabric.unplug(&enis[1]).await?;
    assert_eq!(link(&vpc, "eth2").await?, None);
    // Plugging twice does no harm, and a freed name is used again.
    vpc.fabric.plug(&enis[0]).await?;
    vpc.fabric.plug(&enis[1]).await?;
    let link = link(&vpc, "eth2").await?.context("it is there again")?;
    assert_eq!(link["address"], enis[1].mac.to_string());
    Ok(())
}

#[tokio::test]
async fn an_assigned_address_is_routed_and_accepted_until_it_is_unassigned() -> Result<()> {
    let vpc = Vpc::new().await?;
    let mut eni = eni("eni-1", PluggedKind::Secondary, 1, 10);
    vpc.fabric.plug(&eni).await?;
    vpc.set_up(&vpc.node1, "eth1").await?;
    let wire = Wire::open(vpc.node1.namespace(), "eth1", Tag::None).await?;
    let gateway = model::Mac::GATEWAY;
    let before = eni.addresses.clone();
    // An address, and prefixes as they are delegated.
    eni.addresses.extend([host([10, 0, 1, 33]), host(v6(1, 33))]);
    for prefix in ["10.0.1.64/28", "fd00:0:0:1:2::/80"] {
        eni.addresses.push(prefix.parse()?);
    }
    vpc.fabric.set_addresses(&eni).await?;
    let sources = [
        at([10, 0, 1, 33], 9),
        at([10, 0, 1, 64], 9),
        at([10, 0, 1, 77], 9),
        at([10, 0, 1, 79], 9),
        at(v6(1, 33), 9),
        at("fd00:0:0:1:2::5".parse::<std::net::Ipv6Addr>()?, 9),
    ];
    for source in sources {
        let target = if source.is_ipv4() { at([10, 0, 0, 12], 9) } else { at(v6(0, 12), 9) };
        let socket = listen(vpc.node2.namespace(), target).await?;
        wire.send(&Frame::udp((eni.mac, source), (gateway, target), b"from")).await?;
        assert_eq!(next(&socket).await?, ("from".to_owned(), source));
        socket.send_to(b"back", source).await?;
        wire.receive(LIMIT, |frame| frame.ends_with(b"back").then_some(())).await?;
    }
    // One past the end of a prefix is nobody's.
    for (source, target) in [
        (at([10, 0, 1, 80], 9), at([10, 0, 0, 12], 9)),
        (at("fd00:0:0:1:3::".parse::<std::net::Ipv6Addr>()?, 9), at(v6(0, 12), 9)),
    ] {
        let before = vpc.fabric.drops().await?;
        wire.send(&Frame::udp((eni.mac, source), (gateway, target), b"past")).await?;
        let dropped = vpc.fabric.drops().await?.since(&before);
        assert_eq!(dropped.of(&eni.id, DropCause::SourceAddress), 1, "{source}: {dropped}");
    }
    eni.addresses = before;
    vpc.fabric.set_addresses(&eni).await?;
    for source in sources {
        let target = if source.is_ipv4() { at([10, 0, 0, 12], 9) } else { at(v6(0, 12), 9) };
        let before = vpc.fabric.drops().await?;
        wire.send(&Frame::udp((eni.mac, source), (gateway, target), b"late")).await?;
        let dropped = vpc.fabric.drops().await?.since(&before);
        assert_eq!(dropped.of(&eni.id, DropCause::SourceAddress), 1, "{source}: {dropped}");
    }
    let routes = vpc.ip(&["route"]).await?;
    let left = routes.as_array().into_iter().flatten().filter(|route| route["dev"] == "p5");
    assert_eq!(left.count(), 1, "{routes}");
    Ok(())
}

#[tokio::test]
async fn an_address_moves_to_another_eni_in_whatever_order_it_is_told() -> Result<()> {
    let vpc = Vpc::new().await?;
    let mut one = eni("eni-1", PluggedKind::Secondary, 1, 1);
    let mut two = eni("eni-2", PluggedKind::Secondary, 1, 2);
    one.addresses.push(host([10, 0, 1, 33]));
    vpc.fabric.plug(&one).await?;
    vpc.fabric.plug(&two).await?;
    vpc.set_up(&vpc.node1, "eth2").await?;
    two.addresses.push(host([10, 0, 1, 33]));
    vpc.fabric.set_addresses(&two).await?;
    one.addresses.pop();
    vpc.fabric.set_addresses(&one).await?;
    assert_eq!(vpc.fabric.owner_of([10, 0, 1, 33].into()).await, Some(EniId::new("eni-2")));
    let wire = Wire::open(vpc.node1.namespace(), "eth2", Tag::None).await?;
    let socket = listen(vpc.node2.namespace(), at([10, 0, 0, 12], 9)).await?;
    socket.send_to(b"moved", at([10, 0, 1, 33], 9)).await?;
    wire.receive(LIMIT, |frame| frame.ends_with(b"moved").then_some(())).await?;
    let own = (two.mac, at([10, 0, 1, 33], 9));
    wire.send(&Frame::udp(own, (model::Mac::GATEWAY, at([10, 0, 0, 12], 9)), b"here")).await?;
    assert_eq!(next(&socket).await?.0, "here");
    Ok(())
}

#[tokio::test]
async fn what_is_not_plugged_cannot_be_changed() -> Result<()> {
    let vpc = Vpc::new().await?;
    let eni = eni("eni-1", PluggedKind::Secondary, 1, 1);
    let error = vpc.fabric.set_addresses(&eni).await.unwrap_err();
    assert_eq!(error.to_string(), "eni-1 is not plugged");
    vpc.fabric.unplug(&eni).await
}
