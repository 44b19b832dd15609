//! The whole way of a prefix: the daemon's client asks, the emulated cloud answers, the VPC routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cloud::{
    AssignPrefixes, AttachEni, CallOptions, Client, ClientOptions, ClientToken, CreateEni,
    Credentials, Ecs as _, EndpointOptions, Endpoints, Eni, EniFilter, EniStatus, NewEni, Priority,
    RateLimits,
};
use ipnetwork::IpNetwork;
use model::{EniId, InstanceId, Mac, RegionId, SecurityGroupId, VSwitchId, VpcId, ZoneId};
use terway_lab::ecs::{AccessKey, Ecs, InstanceSpec, Product, Settings, VSwitchSpec, VpcSpec};
use terway_lab::fabric::{DropCause, Fabric};
use terway_lab::node::{Node, V6Default};
use terway_lab::traffic::{Frame, Tag, Wire};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use crate::vpc::{LIMIT, at, listen, next, node, options, run};

fn soon() -> CallOptions {
    CallOptions::new(Priority::Pod, Instant::now() + Duration::from_secs(20))
}

fn token() -> ClientToken {
    ClientToken::from(Uuid::new_v4())
}

/// Two instances in one vSwitch and an empty one beside it.
async fn furnish(ecs: &Ecs) -> Result<InstanceId> {
    let (vpc, zone) = (VpcId::new("vpc-lab"), ZoneId::new("cn-hangzhou-h"));
    let (v4, v6) = ("10.0.0.0/16".parse()?, Some("fd00::/56".parse()?));
    ecs.add_vpc(&VpcSpec { id: vpc.clone(), v4, v6, address_quota: 1000 })?;
    for (id, v4, v6) in
        [("vsw-a", "10.0.0.0/24", "fd00::/64"), ("vsw-b", "10.0.1.0/24", "fd00:0:0:1::/64")]
    {
        let (id, v4, v6) = (VSwitchId::new(id), v4.parse()?, Some(v6.parse()?));
        ecs.add_vswitch(&VSwitchSpec { id, vpc: vpc.clone(), zone: zone.clone(), v4, v6 })?;
    }
    let group = SecurityGroupId::new("sg-a");
    ecs.add_group(&group, &vpc, true).await?;
    let spec = |name: &str| InstanceSpec {
        name: name.to_owned(),
        kind: "ecs.g7.xlarge".to_owned(),
        vswitch: VSwitchId::new("vsw-a"),
        groups: vec![group.clone()],
        v6_addresses: 1,
        jumbo: false,
        ram_role: None,
    };
    let first = ecs.boot(&spec("node1")).await?;
    ecs.boot(&spec("node2")).await?;
    Ok(first)
}

async fn client(ecs: &Ecs) -> Result<Client> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let region = RegionId::new("cn-hangzhou");
    let url = Some(format!("http://{}", listener.local_addr()?));
    let endpoints = EndpointOptions { ecs: url, ..EndpointOptions::default() };
    ecs.serve_api(listener, Product::Ecs);
    Ok(Client::new(ClientOptions {
        endpoints: Endpoints::new(&region, &endpoints)?,
        region,
        credentials: Credentials::AccessKey(cloud::AccessKey {
            id: "LTAIlab".to_owned(),
            secret: "secret".into(),
        }),
        rate_limits: RateLimits::default(),
        attempt_timeout: ClientOptions::ATTEMPT_TIMEOUT,
        repeat_for: Duration::from_secs(30),
    })?)
}

fn wanted() -> CreateEni {
    CreateEni {
        token: token(),
        kind: NewEni::Secondary,
        vswitch: VSwitchId::new("vsw-b"),
        security_groups: vec![SecurityGroupId::new("sg-a")],
        secondary_v4: 0,
        v6: 0,
        v4_prefixes: 0,
        v6_prefixes: 0,
        tags: BTreeMap::new(),
        resource_group: None,
        delete_on_release: true,
        source_dest_check: true,
        description: None,
    }
}

/// A NIC in an instance and in use.
async fn attached(client: &Client, instance: InstanceId) -> Result<Eni> {
    let created = client.create_eni(&wanted(), soon()).await?;
    let eni = created.id.clone();
    let request = AttachEni { eni, instance, trunk: None, network_card: None };
    client.attach_eni(&request, soon()).await?;
    for _attempt in 0..500 {
        let found = client.describe_enis(&EniFilter::id(created.id.clone()), soon()).await?;
        if found.iter().any(|eni| eni.status == EniStatus::InUse) {
            return Ok(created);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("{} is not in use", created.id)
}

/// One address inside of a prefix that is neither its first nor its last.
fn inside(prefix: IpNetwork) -> Result<IpAddr> {
    prefix.iter().nth(5).context("a prefix has more than five addresses")
}

struct Place {
    fabric: Fabric,
    node2: Node,
    wire: Wire,
    mac: Mac,
    eni: EniId,
}

impl Place {
    /// Whether the VPC takes a frame from `source` and brings the answer back.
    async fn talks(&self, source: IpAddr, target: IpAddr) -> Result<()> {
        let (source, target) = (at(source, 9), at(target, 9));
        let socket = listen(self.node2.namespace(), target).await?;
        let frame = Frame::udp((self.mac, source), (Mac::GATEWAY, target), b"from");
        self.wire.send(&frame).await?;
        assert_eq!(next(&socket).await?, ("from".to_owned(), source));
        socket.send_to(b"back", source).await?;
        self.wire.receive(LIMIT, |frame| frame.ends_with(b"back").then_some(())).await
    }

    async fn is_dropped(&self, source: IpAddr, target: IpAddr) -> Result<bool> {
        let before = self.fabric.drops().await?;
        let frame = Frame::udp((self.mac, at(source, 9)), (Mac::GATEWAY, at(target, 9)), b"late");
        self.wire.send(&frame).await?;
        let dropped = self.fabric.drops().await?.since(&before);
        Ok(dropped.of(&self.eni, DropCause::SourceAddress) == 1)
    }
}

#[tokio::test]
async fn a_prefix_that_the_api_assigns_is_routed_until_it_is_unassigned() -> Result<()> {
    let (options, directory) = (options()?, tempfile::tempdir()?);
    let lab = options.lab.clone();
    let fabric = Fabric::create(options).await?;
    let node1 = node(&lab, &directory, "node1", V6Default::Static).await?;
    let node2 = node(&lab, &directory, "node2", V6Default::Static).await?;
    fabric.add_node(&node1);
    fabric.add_node(&node2);
    let settings = Settings { attach_ms: 20, write_ms: 5, ..Settings::default() };
    let key = AccessKey { id: "LTAIlab".to_owned(), secret: "secret".to_owned() };
    let ecs = Ecs::start(settings, 1, key, Arc::new(fabric.clone()));
    let instance = furnish(&ecs).await?;
    let client = client(&ecs).await?;
    let eni = attached(&client, instance).await?;
    run(&node1, &["ip", "link", "set", "eth1", "up"]).await?;
    let wire = Wire::open(node1.namespace(), "eth1", Tag::None).await?;
    let id = eni.id.clone();
    let place = Place { fabric, node2, wire, mac: eni.mac, eni: eni.id };

    let one = || AssignPrefixes { token: token(), eni: id.clone(), count: 1 };
    let v4 = client.assign_v4_prefixes(&one(), soon()).await?;
    let v6 = client.assign_v6_prefixes(&one(), soon()).await?;
    let target = ecs.dump().enis.get(1).map(|eni| (eni.v4.clone(), eni.v6.clone()));
    let (to_v4, to_v6) = target.context("the second instance has a primary ENI")?;
    let to_v4 = to_v4.first().copied().context("with an IPv4 address")?;
    let to_v6 = to_v6.first().copied().context("with an IPv6 address")?;
    let from_v4 = inside(IpNetwork::V4(*v4.first().context("one was assigned")?))?;
    let from_v6 = inside(IpNetwork::V6(*v6.first().context("one was assigned")?))?;
    let ways = [(from_v4, IpAddr::V4(to_v4)), (from_v6, IpAddr::V6(to_v6))];
    for (source, target) in ways {
        place.talks(source, target).await?;
    }
    client.unassign_v4_prefixes(&id, &v4, soon()).await?;
    client.unassign_v6_prefixes(&id, &v6, soon()).await?;
    for (source, target) in ways {
        assert!(place.is_dropped(source, target).await?, "{source}");
    }
    ecs.stop().await;
    Ok(())
}
