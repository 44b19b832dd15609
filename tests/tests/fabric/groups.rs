//! Security groups: stateful, per ENI, and only for what crosses the VPC.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use model::SecurityGroupId;
use terway_lab::ecs::{
    Direction, Fabric as _, InnerAccess, Peer, PluggedEni, Policy, PortRange, Protocol, Rule,
    SecurityGroup,
};
use terway_lab::fabric::OUTSIDE_V4;
use terway_lab::traffic::{Answer, Echo, probe};

use crate::vpc::{LIMIT, Vpc, at, group_ids, options, primary, v6};

/// A refused probe waits as long.
const SILENCE: Duration = Duration::from_millis(300);

fn group(id: &str, rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup { id: SecurityGroupId::new(id), inner_access: InnerAccess::Accept, rules }
}

fn rule(direction: Direction, peer: Peer, policy: Policy, priority: u8) -> Rule {
    Rule {
        id: format!("sgr-{direction:?}-{policy:?}-{priority}"),
        direction,
        protocol: Protocol::Tcp,
        ports: PortRange::Ports { first: 80, last: 80 },
        source_ports: PortRange::All,
        peer,
        policy,
        priority,
        description: String::new(),
        created: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().expect("it is a block"))
}

/// node1 in `sg-1`, node2 in `sg-2`, and a server on port 80 of both.
async fn guarded() -> Result<(Vpc, [Echo; 2])> {
    let in_group = |eni: PluggedEni| {
        let groups = group_ids(&[if eni.instance == "node1" { "sg-1" } else { "sg-2" }]);
        PluggedEni { groups, ..eni }
    };
    let vpc = Vpc::with_primaries(options()?, in_group).await?;
    vpc.fabric.set_rules(&group("sg-1", vec![])).await?;
    vpc.fabric.set_rules(&group("sg-2", vec![])).await?;
    let one = Echo::start(vpc.node1.namespace(), "one", 80).await?;
    let two = Echo::start(vpc.node2.namespace(), "two", 80).await?;
    Ok((vpc, [one, two]))
}

/// Whether port 80 answers, within a time that a loaded machine may need.
async fn opens(vpc: &Vpc, target: impl Into<IpAddr>) -> Result<bool> {
    let answer = probe(vpc.node1.namespace(), at(target, 80), LIMIT).await?;
    Ok(matches!(answer.answer, Answer::Reached { .. }))
}

/// Whether port 80 stays silent; what answers late is not.
async fn shut(vpc: &Vpc, target: impl Into<IpAddr>) -> Result<bool> {
    let answer = probe(vpc.node1.namespace(), at(target, 80), SILENCE).await?;
    Ok(answer.answer == Answer::TimedOut)
}

#[tokio::test]
async fn a_group_lets_nobody_in_and_says_which_group_refused() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    for (target, source) in [
        (IpAddr::from([10, 0, 0, 12]), IpAddr::from([10, 0, 0, 11])),
        (v6(0, 12).into(), v6(0, 11).into()),
    ] {
        assert!(shut(&vpc, target).await?);
        let refused = vpc.fabric.refused().await?;
        let refused: Vec<_> = refused.iter().filter(|one| one.destination == target).collect();
        let [refused] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(refused.groups, group_ids(&["sg-2"]));
        assert_eq!((refused.direction, refused.source), (Direction::Ingress, source));
        assert_eq!((refused.protocol.as_str(), refused.port), ("tcp", Some(80)));
        assert_eq!(refused.eni, model::EniId::new("eni-node2"));
        assert!(refused.packets > 0);
    }
    // It is a refusal, not a drop.
    assert!(vpc.fabric.drops().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn members_of_one_group_talk_unless_the_group_says_no() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    let both = PluggedEni { groups: group_ids(&["sg-2", "sg-1"]), ..primary("node2", 12) };
    vpc.fabric.set_groups(&both).await?;
    assert!(opens(&vpc, [10, 0, 0, 12]).await?);
    assert!(opens(&vpc, v6(0, 12)).await?);
    let closed = SecurityGroup { inner_access: InnerAccess::Drop, ..group("sg-1", vec![]) };
    vpc.fabric.set_rules(&closed).await?;
    assert!(shut(&vpc, [10, 0, 0, 12]).await?);
    let refused = vpc.fabric.refused().await?;
    assert!(refused.iter().any(|one| one.groups == group_ids(&["sg-2", "sg-1"])), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_rule_opens_a_port_to_a_block_or_to_a_group_and_answers_come_back() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    for peer in [cidr("10.0.0.0/28"), cidr("0.0.0.0/0"), Peer::Group(SecurityGroupId::new("sg-1"))]
    {
        let open = rule(Direction::Ingress, peer.clone(), Policy::Accept, 1);
        vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
        assert!(opens(&vpc, [10, 0, 0, 12]).await?, "{peer:?}");
        let answer = probe(vpc.node1.namespace(), at([10, 0, 0, 12], 81), SILENCE).await?;
        assert_eq!(answer.answer, Answer::TimedOut, "{peer:?}");
        vpc.fabric.set_rules(&group("sg-2", vec![])).await?;
        assert!(shut(&vpc, [10, 0, 0, 12]).await?);
    }
    let open =
        rule(Direction::Ingress, Peer::Group(SecurityGroupId::new("sg-1")), Policy::Accept, 1);
    vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
    assert!(opens(&vpc, v6(0, 12)).await?);
    let outside = probe(vpc.fabric.outside(), at([10, 0, 0, 12], 80), SILENCE).await?;
    assert_eq!(outside.answer, Answer::TimedOut);
    let refused = vpc.fabric.refused().await?;
    assert!(
        refused.iter().any(|one| one.source == OUTSIDE_V4 && one.groups == group_ids(&["sg-2"]))
    );
    Ok(())
}

#[tokio::test]
async fn the_lowest_priority_decides_over_all_groups_and_of_equals_a_drop_does() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    let both = PluggedEni { groups: group_ids(&["sg-2", "sg-3"]), ..primary("node2", 12) };
    vpc.fabric.set_groups(&both).await?;
    let all = || cidr("0.0.0.0/0");
    for (accept, drop, opened) in [(1, 2, true), (2, 1, false), (5, 5, false)] {
        let open = rule(Direction::Ingress, all(), Policy::Accept, accept);
        let close = rule(Direction::Ingress, all(), Policy::Drop, drop);
        vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
        vpc.fabric.set_rules(&group("sg-3", vec![close])).await?;
        let target = [10, 0, 0, 12];
        let expected = if opened { opens(&vpc, target).await? } else { shut(&vpc, target).await? };
        assert!(expected, "accept: {accept}, drop: {drop}");
    }
    // The group whose rule it was.
    let refused = vpc.fabric.refused().await?;
    assert!(refused.iter().all(|one| one.groups == group_ids(&["sg-3"])), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_group_may_keep_its_members_from_sending() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    let open = rule(Direction::Ingress, cidr("0.0.0.0/0"), Policy::Accept, 1);
    vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
    let close = rule(Direction::Egress, cidr("10.0.0.12/32"), Policy::Drop, 1);
    vpc.fabric.set_rules(&group("sg-1", vec![close])).await?;
    assert!(shut(&vpc, [10, 0, 0, 12]).await?);
    let refused = vpc.fabric.refused().await?;
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((refused.direction, &refused.groups), (Direction::Egress, &group_ids(&["sg-1"])));
    // Accepting more narrowly and earlier lets that through again; the receiver still decides.
    let close = rule(Direction::Egress, cidr("0.0.0.0/0"), Policy::Drop, 2);
    let open = rule(Direction::Egress, cidr("10.0.0.12/32"), Policy::Accept, 1);
    vpc.fabric.set_rules(&group("sg-1", vec![close, open])).await?;
    assert!(opens(&vpc, [10, 0, 0, 12]).await?);
    vpc.fabric.set_rules(&group("sg-2", vec![])).await?;
    assert!(shut(&vpc, [10, 0, 0, 12]).await?);
    Ok(())
}

#[tokio::test]
async fn services_of_the_vpc_and_its_errors_are_not_for_groups_to_refuse() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    let _metadata = Echo::start(vpc.fabric.vpc(), "metadata", 80).await?;
    assert!(opens(&vpc, terway_lab::fabric::METADATA).await?);
    // Nobody listens on 81: the answer (a reset) belongs to what was let through.
    let mut open = rule(Direction::Ingress, cidr("0.0.0.0/0"), Policy::Accept, 1);
    (open.protocol, open.ports) = (Protocol::Udp, PortRange::All);
    vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
    let socket = crate::vpc::listen(vpc.node1.namespace(), at([10, 0, 0, 11], 9)).await?;
    socket.connect(at([10, 0, 0, 12], 81)).await?;
    socket.send(b"?").await?;
    let mut buffer = [0; 8];
    let answer = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await?;
    assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[tokio::test]
async fn a_ping_is_refused_and_recorded_without_a_port() -> Result<()> {
    let (vpc, _servers) = guarded().await?;
    let ping = ["ping", "-c", "1", "-W", "1", "10.0.0.12"];
    assert!(crate::vpc::run(&vpc.node1, &ping).await.is_err());
    let refused = vpc.fabric.refused().await?;
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((refused.protocol.as_str(), refused.port), ("icmp", None));
    let mut open = rule(Direction::Ingress, cidr("0.0.0.0/0"), Policy::Accept, 1);
    open.protocol = Protocol::Icmp;
    vpc.fabric.set_rules(&group("sg-2", vec![open])).await?;
    crate::vpc::run(&vpc.node1, &ping).await.map(drop)
}
