//! Who reaches whom, and what kept the others away, as facts read from the VPC.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;

use crate::fabric::{DropCause, DropRecord, Fabric, Refused, Sender};
use crate::namespace::Namespace;
use crate::traffic::{Answer, Echo, Probe, probe_all};

/// The port at which endpoints listen while they are probed.
pub const PORT: u16 = 7007;

/// Somebody who is to reach the others and to be reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Unique among them.
    pub name: String,
    /// Where its sockets are.
    pub place: Namespace,
    /// Where it is reached.
    pub addresses: Vec<IpAddr>,
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answered.
    Reached {
        /// From the first packet to the answer.
        latency: Duration,
        /// The client's address as the server saw it.
        seen_as: String,
    },
    /// Somebody else answered.
    Misdelivered(String),
    /// A security group refused the packet or its answer.
    Refused(Refused),
    /// A port of the VPC dropped the packet or its answer.
    Dropped(DropRecord),
    /// Somebody said no: reset, unreachable.
    Failed(String),
    /// Nobody said anything, and the VPC knows nothing of it.
    TimedOut,
}

impl Reach {
    /// Whether it answered.
    pub const fn is_reached(&self) -> bool {
        matches!(self, Self::Reached { .. })
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reached { latency, .. } => {
                write!(f, "ok, {:.1} ms", latency.as_secs_f64() * 1000.0)
            }
            Self::Misdelivered(name) => write!(f, "answered by {name}"),
            Self::Refused(refused) => {
                let groups: Vec<_> = refused.groups.iter().map(ToString::to_string).collect();
                write!(f, "refused by group {}", groups.join(", "))
            }
            Self::Dropped(record) => {
                write!(f, "dropped at {}: {}", record.sender, record.cause.name())
            }
            Self::Failed(error) => f.write_str(error),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name of the client.
    pub from: String,
    /// Name of the server.
    pub to: String,
    /// The server's address that was tried.
    pub address: IpAddr,
    /// What came of it.
    pub reach: Reach,
}

/// Tries every ordered pair of endpoints, by every address of the second whose family the first
/// has too, all at once. `limit` is for each.
pub async fn reach(
    fabric: &Fabric,
    endpoints: &[Endpoint],
    limit: Duration,
) -> Result<Vec<Attempt>> {
    let servers = endpoints.iter().map(|one| Echo::start(&one.place, &one.name, PORT));
    let servers = try_join_all(servers).await?;
    let before = Evidence::read(fabric).await?;
    let probes = endpoints.iter().map(|client| probe_from(client, endpoints, limit));
    let probes = try_join_all(probes).await?;
    let after = Evidence::read(fabric).await?;
    drop(servers);
    let attempts = endpoints.iter().zip(probes).flat_map(|(client, probes)| {
        let (before, after) = (&before, &after);
        probes.into_iter().map(move |(server, probe)| Attempt {
            from: client.name.clone(),
            to: server.name.clone(),
            address: probe.target.ip(),
            reach: judge(&probe, client, server, before, after),
        })
    });
    Ok(attempts.collect())
}

async fn probe_from<'a>(
    client: &Endpoint,
    endpoints: &'a [Endpoint],
    limit: Duration,
) -> Result<Vec<(&'a Endpoint, Probe)>> {
    let family = |v4: bool| client.addresses.iter().any(|address| address.is_ipv4() == v4);
    let targets: Vec<_> = endpoints
        .iter()
        .filter(|server| server.name != client.name)
        .flat_map(|server| server.addresses.iter().map(move |address| (server, *address)))
        .filter(|(_, address)| family(address.is_ipv4()))
        .collect();
    let addresses: Vec<_> =
        targets.iter().map(|(_, address)| SocketAddr::new(*address, PORT)).collect();
    let probes = probe_all(&client.place, &addresses, limit).await?;
    Ok(targets.into_iter().map(|(server, _)| server).zip(probes).collect())
}

fn judge(
    probe: &Probe,
    client: &Endpoint,
    server: &Endpoint,
    before: &Evidence,
    after: &Evidence,
) -> Reach {
    let silent = match &probe.answer {
        Answer::Reached { latency, server: name, seen_as } if *name == server.name => {
            let (latency, seen_as) = (*latency, seen_as.clone());
            return Reach::Reached { latency, seen_as };
        }
        Answer::Reached { server, .. } => return Reach::Misdelivered(server.clone()),
        Answer::Failed(error) => Reach::Failed(error.clone()),
        Answer::TimedOut => Reach::TimedOut,
    };
    let mut sources: Vec<_> = probe.source.into_iter().collect();
    sources.extend(&client.addresses);
    let between = |source: IpAddr, destination: IpAddr| {
        let target = probe.target.ip();
        (sources.contains(&source) && destination == target)
            || (source == target && sources.contains(&destination))
    };
    after.blame(before, between).unwrap_or(silent)
}

/// What the VPC says of packets that did not get through.
struct Evidence {
    refused: Vec<Refused>,
    dropped: Vec<DropRecord>,
}

/// What makes a record of drops the same one.
type DropKey = (Sender, DropCause, Option<IpAddr>, Option<IpAddr>);

impl Evidence {
    async fn read(fabric: &Fabric) -> Result<Self> {
        let (refused, dropped) = (fabric.refused().await?, fabric.drop_records().await);
        Ok(Self { refused, dropped })
    }

    /// The record between two that rose since `before`. A drop is told before a refusal: it is
    /// never meant.
    fn blame(&self, before: &Self, between: impl Fn(IpAddr, IpAddr) -> bool) -> Option<Reach> {
        let earlier: HashMap<DropKey, u64> =
            before.dropped.iter().map(|record| (drop_key(record), record.frames)).collect();
        let dropped = self.dropped.iter().find(|record| {
            let rose = record.frames > earlier.get(&drop_key(record)).copied().unwrap_or_default();
            let ends = record.source.zip(record.destination);
            rose && ends.is_some_and(|(source, destination)| between(source, destination))
        });
        let refused = self.refused.iter().find(|refused| {
            let same = |other: &&Refused| same_flow(other, refused);
            let earlier = before.refused.iter().find(same).map_or(0, |other| other.packets);
            refused.packets > earlier && between(refused.source, refused.destination)
        });
        let dropped = dropped.cloned().map(Reach::Dropped);
        dropped.or_else(|| refused.cloned().map(Reach::Refused))
    }
}

fn drop_key(record: &DropRecord) -> DropKey {
    (record.sender.clone(), record.cause, record.source, record.destination)
}

fn same_flow(one: &Refused, other: &Refused) -> bool {
    Refused { packets: 0, ..one.clone() } == Refused { packets: 0, ..other.clone() }
}
