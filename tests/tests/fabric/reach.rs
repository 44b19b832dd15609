//! What works: everybody who may reaches everybody.

use std::time::Duration;

use anyhow::Result;
use terway_lab::fabric::{METADATA, OUTSIDE_V4, OUTSIDE_V6};
use terway_lab::node::Node;
use terway_lab::reach::{Endpoint, Reach, reach};
use terway_lab::traffic::{Datagrams, Echo, probe};

use crate::vpc::{LIMIT, Vpc, at, v6};

fn endpoints(vpc: &Vpc) -> Vec<Endpoint> {
    let node = |node: &Node, last: u8| Endpoint {
        name: node.name().to_owned(),
        place: node.namespace().clone(),
        addresses: vec![[10, 0, 0, last].into(), v6(0, last.into()).into()],
    };
    let outside = Endpoint {
        name: "outside".to_owned(),
        place: vpc.fabric.outside().clone(),
        addresses: vec![OUTSIDE_V4.into(), OUTSIDE_V6.into()],
    };
    vec![node(&vpc.node1, 11), node(&vpc.node2, 12), outside]
}

#[tokio::test]
async fn nodes_and_the_outside_reach_each_other_with_their_own_addresses() -> Result<()> {
    let vpc = Vpc::new().await?;
    let endpoints = endpoints(&vpc);
    let attempts = reach(&vpc.fabric, &endpoints, LIMIT).await?;
    assert_eq!(attempts.len(), 12);
    for attempt in &attempts {
        let client = endpoints.iter().find(|endpoint| endpoint.name == attempt.from);
        let addresses = client.map(|client| &client.addresses[..]).unwrap_or_default();
        let Reach::Reached { seen_as, .. } = &attempt.reach else { panic!("{attempt:?}") };
        let seen_as = seen_as.parse()?;
        assert!(addresses.contains(&seen_as), "{attempt:?}");
        assert_eq!(seen_as.is_ipv4(), attempt.address.is_ipv4());
    }
    assert!(vpc.fabric.drops().await?.is_empty());
    assert_eq!(vpc.fabric.refused().await?, []);
    Ok(())
}

#[tokio::test]
async fn what_keeps_a_packet_away_is_told_as_a_fact() -> Result<()> {
    let vpc = Vpc::new().await?;
    let mut endpoints = endpoints(&vpc);
    endpoints.truncate(2);
    // The VPC routes this address to nobody.
    if let Some(second) = endpoints.get_mut(1) {
        second.addresses = vec![[10, 0, 0, 12].into(), [10, 9, 9, 9].into()];
    }
    let attempts = reach(&vpc.fabric, &endpoints, Duration::from_secs(2)).await?;
    let told: Vec<_> = attempts
        .iter()
        .filter(|attempt| !attempt.reach.is_reached())
        .map(|attempt| format!("{} to {}: {}", attempt.from, attempt.address, attempt.reach))
        .collect();
    assert_eq!(told, ["node1 to 10.9.9.9: dropped at eni-node1: destination nobody owns"]);
    Ok(())
}

#[tokio::test]
async fn a_service_in_the_vpc_sees_which_eni_asks() -> Result<()> {
    let vpc = Vpc::new().await?;
    let _metadata = Echo::start(vpc.fabric.vpc(), "metadata", 80).await?;
    for (node, last, eni) in [(&vpc.node1, 11, "eni-node1"), (&vpc.node2, 12, "eni-node2")] {
        let answer = probe(node.namespace(), at(METADATA, 80), LIMIT).await?;
        assert!(answer.reached("metadata"), "{answer:?}");
        assert_eq!(answer.source, Some([10, 0, 0, last].into()));
        let owner = vpc.fabric.owner_of([10, 0, 0, last].into()).await;
        assert_eq!(owner, Some(model::EniId::new(eni)));
    }
    assert_eq!(vpc.fabric.owner_of([10, 0, 0, 99].into()).await, None);
    Ok(())
}

#[tokio::test]
async fn no_datagram_is_lost_in_the_vpc_at_10_kpps_each_way() -> Result<()> {
    let vpc = Vpc::new().await?;
    let (place1, place2) = (vpc.node1.namespace(), vpc.node2.namespace());
    let there =
        Datagrams::start((place1, [10, 0, 0, 11].into()), (place2, at([10, 0, 0, 12], 9)), 10_000)
            .await?;
    let back =
        Datagrams::start((place2, v6(0, 12).into()), (place1, at(v6(0, 11), 9)), 10_000).await?;
    let enough = async {
        while there.received() < 10_000 || back.received() < 10_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), enough).await?;
    for report in [there.stop().await?, back.stop().await?] {
        assert!(report.lost <= report.overrun && report.duplicated == 0, "{report:?}");
    }
    assert!(vpc.fabric.drops().await?.is_empty());
    Ok(())
}
