//! The daemon's client of the cloud against the lab's cloud: two that were written apart.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cloud::{
    AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, CallOptions, Client, ClientOptions,
    ClientToken, CreateEni, Credentials, DetachEni, Ecs as _, EndpointOptions, Endpoints, Eni,
    EniFilter, EniKind, EniStatus, Meaning, Metadata, NewEni, Outcome, Priority, RateLimits,
};
use model::{
    EniId, InstanceId, InstanceTypeId, RegionId, SecurityGroupId, VSwitchId, VpcId, ZoneId,
};
use terway_lab::ecs::{
    AccessKey, Control, Ecs, Fault, FaultKind, InstanceSpec, LostEffect, Product, RecordingFabric,
    Settings, VSwitchSpec, VpcSpec,
};
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

struct Lab {
    ecs: Ecs,
    control: Control,
    metadata: Arc<Metadata>,
    ecs_url: String,
    vpc_url: String,
    instance: InstanceId,
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn soon() -> CallOptions {
    CallOptions::new(Priority::Pod, deadline())
}

fn token() -> ClientToken {
    ClientToken::from(Uuid::new_v4())
}

async fn bind() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

impl Lab {
    async fn new() -> Self {
        let settings =
            Settings { attach_ms: 20, detach_ms: 20, write_ms: 5, ..Settings::default() };
        let key = AccessKey { id: "LTAIlab".to_owned(), secret: "se cret/+=".to_owned() };
        let ecs = Ecs::start(settings, 1, key, Arc::new(RecordingFabric::default()));
        let instance = furnish(&ecs).await;
        let (api, ecs_url) = bind().await;
        let (vpc_api, vpc_url) = bind().await;
        let (control, control_url) = bind().await;
        let (metadata, metadata_url) = bind().await;
        ecs.serve_api(api, Product::Ecs);
        ecs.serve_api(vpc_api, Product::Vpc);
        ecs.serve_control(control);
        let asked = instance.clone();
        ecs.serve_metadata(metadata, Arc::new(move |_peer| Some(asked.clone())));
        let control = Control::new(control_url);
        let metadata = Arc::new(Metadata::new(&metadata_url).unwrap());
        Self { ecs, control, metadata, ecs_url, vpc_url, instance }
    }

    fn client(&self, credentials: Credentials) -> Client {
        let region = RegionId::new("cn-hangzhou");
        let endpoints = EndpointOptions {
            ecs: Some(self.ecs_url.clone()),
            vpc: Some(self.vpc_url.clone()),
            ..EndpointOptions::default()
        };
        let options = ClientOptions {
            endpoints: Endpoints::new(&region, &endpoints).unwrap(),
            region,
            credentials,
            rate_limits: RateLimits::default(),
            attempt_timeout: ClientOptions::ATTEMPT_TIMEOUT,
            // A patient caller: the faults here are to be overcome.
            repeat_for: Duration::from_secs(30),
        };
        Client::new(options).unwrap()
    }

    fn with_key(&self) -> Client {
        let (id, secret) = ("LTAIlab".to_owned(), "se cret/+=".into());
        self.client(Credentials::AccessKey(cloud::AccessKey { id, secret }))
    }

    async fn fault(&self, action: &str, what: FaultKind) {
        let fault = Fault { times: Some(1), ..Fault::new(action, what) };
        self.control.add_fault(&fault).await.unwrap();
    }
}

async fn furnish(ecs: &Ecs) -> InstanceId {
    let (vpc, vswitch, group) =
        (VpcId::new("vpc-lab"), VSwitchId::new("vsw-a"), SecurityGroupId::new("sg-a"));
    let (v4, v6) = ("10.0.0.0/16".parse().unwrap(), "2408:4005:3a0::/56".parse().unwrap());
    ecs.add_vpc(&VpcSpec { id: vpc.clone(), v4, v6: Some(v6), address_quota: 1000 }).unwrap();
    ecs.add_vswitch(&VSwitchSpec {
        id: vswitch.clone(),
        vpc: vpc.clone(),
        zone: ZoneId::new("cn-hangzhou-h"),
        v4: "10.0.1.0/24".parse().unwrap(),
        v6: Some("2408:4005:3a0:1::/64".parse().unwrap()),
    })
    .unwrap();
    ecs.add_group(&group, &vpc, false).await.unwrap();
    ecs.boot(&InstanceSpec {
        name: "node1".to_owned(),
        kind: "ecs.g7.xlarge".to_owned(),
        vswitch,
        groups: vec![group],
        v6_addresses: 1,
        jumbo: false,
        ram_role: Some("Worker".to_owned()),
    })
    .await
    .unwrap()
}

fn eni(kind: NewEni) -> CreateEni {
    CreateEni {
        token: token(),
        kind,
        vswitch: VSwitchId::new("vsw-a"),
        security_groups: vec![SecurityGroupId::new("sg-a")],
        secondary_v4: 2,
        v6: 1,
        v4_prefixes: 0,
        v6_prefixes: 0,
        tags: BTreeMap::from([("creator".to_owned(), "terway".to_owned())]),
        resource_group: None,
        delete_on_release: true,
        source_dest_check: true,
        description: Some("interface of terway: ä/+~*".to_owned()),
    }
}

async fn until(client: &Client, id: &EniId, status: EniStatus) -> Eni {
    for _attempt in 0..500 {
        let found = client.describe_enis(&EniFilter::id(id.clone()), soon()).await.unwrap();
        let [found] = found.as_slice() else { panic!("{id}: {found:?}") };
        if found.status == status {
            return found.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{id} is not {status}");
}

async fn attached(lab: &Lab, client: &Client, kind: NewEni, trunk: Option<EniId>) -> Eni {
    let created = client.create_eni(&eni(kind), soon()).await.unwrap();
    let (eni, instance) = (created.id.clone(), lab.instance.clone());
    let request = AttachEni { eni, instance, trunk, network_card: None };
    client.attach_eni(&request, soon()).await.unwrap();
    until(client, &created.id, EniStatus::InUse).await
}

#[tokio::test]
async fn an_eni_lives_its_whole_life() {
    let lab = Lab::new().await;
    let client = lab.with_key();
    let request = eni(NewEni::Secondary);
    let created = client.create_eni(&request, soon()).await.unwrap();
    assert_eq!((created.v4.len(), created.v6.len(), created.vlan()), (3, 1, None));
    assert_eq!(created.primary_v4, created.v4.first().copied());
    let again = client.create_eni(&request, soon()).await.unwrap();
    assert_eq!(again.id, created.id, "one token, one ENI");

    let id = created.id.clone();
    let attach = AttachEni {
        eni: id.clone(),
        instance: lab.instance.clone(),
        trunk: None,
        network_card: None,
    };
    client.attach_eni(&attach, soon()).await.unwrap();
    let used = until(&client, &id, EniStatus::InUse).await;
    assert_eq!(
        (used.kind.clone(), used.instance.clone()),
        (EniKind::Secondary, Some(lab.instance.clone()))
    );
    assert_eq!((&used.mac, &used.v4, &used.v6), (&created.mac, &created.v4, &created.v6));
    assert_eq!(used.tags["creator"], "terway");
    assert!(used.created.is_some());

    let more = |addresses| AssignAddresses { token: token(), eni: id.clone(), addresses };
    let v4 = client.assign_v4(&more(AddressRequest::Any(2)), soon()).await.unwrap();
    assert_eq!(v4.len(), 2);
    let wanted: Ipv4Addr = "10.0.1.200".parse().unwrap();
    let these = client.assign_v4(&more(AddressRequest::These(vec![wanted])), soon()).await.unwrap();
    assert_eq!(these, [wanted]);
    let request =
        AssignAddresses { token: token(), eni: id.clone(), addresses: AddressRequest::Any(1) };
    let v6 = client.assign_v6(&request, soon()).await.unwrap();
    client.unassign_v4(&id, &v4, soon()).await.unwrap();
    client.unassign_v4(&id, &v4[..1], soon()).await.unwrap();
    client.unassign_v6(&id, &v6, soon()).await.unwrap();
    let rest = until(&client, &id, EniStatus::InUse).await;
    assert_eq!((rest.v4.len(), rest.v6.len()), (4, 1));

    let detach = DetachEni { eni: id.clone(), instance: lab.instance.clone(), trunk: None };
    client.detach_eni(&detach, soon()).await.unwrap();
    until(&client, &id, EniStatus::Available).await;
    client.delete_eni(&id, soon()).await.unwrap();
    client.delete_eni(&id, soon()).await.unwrap();
    let gone = client.describe_enis(&EniFilter::id(id), soon()).await.unwrap();
    assert_eq!(gone, []);
    lab.ecs.stop().await;
}

#[tokio::test]
async fn a_member_has_its_vlan_on_its_trunk() {
    let lab = Lab::new().await;
    let client = lab.with_key();
    let trunk = attached(&lab, &client, NewEni::Trunk, None).await;
    assert_eq!((trunk.kind, trunk.trunk), (EniKind::Trunk, None));
    let member = attached(&lab, &client, NewEni::Secondary, Some(trunk.id.clone())).await;
    assert_eq!((&member.kind, &member.trunk), (&EniKind::Member, &Some(trunk.id.clone())));
    assert!(member.vlan().is_some(), "{member:?}");

    let filter =
        EniFilter { kind: Some(EniKind::Member), ..EniFilter::instance(lab.instance.clone()) };
    let members = client.describe_enis(&filter, soon()).await.unwrap();
    assert_eq!(members, [member]);
    lab.ecs.stop().await;
}

#[tokio::test]
async fn prefixes_are_given_and_taken_of_both_families() {
    let lab = Lab::new().await;
    let client = lab.with_key();
    let request = CreateEni {
        secondary_v4: 0,
        v6: 0,
        v4_prefixes: 1,
        v6_prefixes: 1,
        ..eni(NewEni::Secondary)
    };
    let created = client.create_eni(&request, soon()).await.unwrap();
    assert_eq!((created.v4_prefixes.len(), created.v6_prefixes.len()), (1, 1), "{created:?}");
    assert_eq!((created.v4_prefixes[0].prefix(), created.v6_prefixes[0].prefix()), (28, 80));
    assert_eq!((created.v4.len(), created.v6.len()), (1, 0), "no address of a prefix is listed");

    let id = &created.id;
    let more = |count| AssignPrefixes { token: token(), eni: id.clone(), count };
    let request = more(2);
    let v4 = client.assign_v4_prefixes(&request, soon()).await.unwrap();
    assert_eq!(client.assign_v4_prefixes(&request, soon()).await.unwrap(), v4, "one token");
    let v6 = client.assign_v6_prefixes(&more(1), soon()).await.unwrap();
    assert_eq!((v4.len(), v6.len()), (2, 1));
    client.unassign_v4_prefixes(id, &v4, soon()).await.unwrap();
    client.unassign_v6_prefixes(id, &v6, soon()).await.unwrap();
    let rest = until(&client, id, EniStatus::Available).await;
    assert_eq!((rest.v4_prefixes, rest.v6_prefixes), (created.v4_prefixes, created.v6_prefixes));
    lab.ecs.stop().await;
}

#[tokio::test]
async fn quotas_and_vswitches_are_told() {
    let lab = Lab::new().await;
    let client = lab.with_key();
    let kind = InstanceTypeId::new("ecs.g7.xlarge");
    let told = client.instance_type(&kind, soon()).await.unwrap().unwrap();
    assert_eq!((told.enis, told.total_enis, told.v4_per_eni), (4, 20, 15));
    assert!(told.trunk);
    assert_eq!(client.instance_type(&InstanceTypeId::new("ecs.odd"), soon()).await, Ok(None));
    let vswitch = client.vswitch(&VSwitchId::new("vsw-a"), soon()).await.unwrap().unwrap();
    assert_eq!(vswitch.v4.to_string(), "10.0.1.0/24");
    assert_eq!(vswitch.v6.unwrap().to_string(), "2408:4005:3a0:1::/64");
    assert_eq!(client.vswitch(&VSwitchId::new("vsw-odd"), soon()).await, Ok(None));
    lab.ecs.stop().await;
}

#[tokio::test]
async fn the_instances_role_is_as_good_as_a_key_and_outlives_its_session() {
    let lab = Lab::new().await;
    let client = lab.client(Credentials::ram_role(Arc::clone(&lab.metadata)));
    let kind = InstanceTypeId::new("ecs.g7.xlarge");
    assert!(client.instance_type(&kind, soon()).await.unwrap().is_some());
    lab.control.expire_credentials().await.unwrap();
    assert!(client.instance_type(&kind, soon()).await.unwrap().is_some());
    lab.ecs.stop().await;
}

#[tokio::test]
async fn metadata_tells_what_the_api_tells() {
    let lab = Lab::new().await;
    let facts = lab.metadata.instance(deadline()).await.unwrap();
    assert_eq!((&facts.id, facts.kind.as_str()), (&lab.instance, "ecs.g7.xlarge"));
    assert_eq!((facts.region.as_str(), facts.zone.as_str()), ("cn-hangzhou", "cn-hangzhou-h"));
    let client = lab.with_key();
    let used = attached(&lab, &client, NewEni::Secondary, None).await;
    let macs = lab.metadata.macs(deadline()).await.unwrap();
    assert_eq!(macs.len(), 2);
    assert!(macs.contains(&facts.mac) && macs.contains(&used.mac), "{macs:?}");
    let told = lab.metadata.eni(used.mac, deadline()).await.unwrap();
    assert_eq!((told.id, told.primary_v4, told.vswitch), (used.id, used.primary_v4, used.vswitch));
    let (mut told_v4, mut used_v4) = (told.v4, used.v4);
    told_v4.sort();
    used_v4.sort();
    assert_eq!((told_v4, told.v6), (used_v4, used.v6));
    assert_eq!(told.v4_gateway, Some("10.0.1.253".parse().unwrap()));
    assert_eq!(told.v4_block.unwrap().to_string(), "10.0.1.0/24");
    assert!(told.v6_gateway.is_some() && told.v6_block.is_some());
    lab.ecs.stop().await;
}

#[tokio::test]
async fn faults_of_the_cloud_are_overcome_or_named() {
    let lab = Lab::new().await;
    let client = lab.with_key();
    let create = "CreateNetworkInterface";
    lab.fault(create, FaultKind::Throttle).await;
    lab.fault(create, FaultKind::LostAnswer { effect: LostEffect::Done }).await;
    let error =
        |code: &str, status| FaultKind::Error { status, code: code.to_owned(), takes_effect: true };
    lab.fault(create, error("InternalError", 500)).await;
    client.create_eni(&eni(NewEni::Secondary), soon()).await.unwrap();
    let tagged = EniFilter {
        tags: BTreeMap::from([("creator".to_owned(), "terway".to_owned())]),
        ..EniFilter::default()
    };
    let made = client.describe_enis(&tagged, soon()).await.unwrap();
    assert_eq!(made.len(), 1, "four attempts, one token, one ENI");

    lab.fault(create, error("InvalidVSwitchId.IpNotEnough", 403)).await;
    let refused = client.create_eni(&eni(NewEni::Secondary), soon()).await.unwrap_err();
    let vswitch = Some(VSwitchId::new("vsw-a"));
    assert_eq!(refused.meaning(), Some(&Meaning::VSwitchExhausted { vswitch }));
    assert!(!refused.api().unwrap().request_id.is_empty());

    lab.fault(create, FaultKind::Garbage).await;
    let garbled = client.create_eni(&eni(NewEni::Secondary), soon()).await.unwrap_err();
    assert_eq!(garbled.outcome(), Outcome::Unknown);
    assert!(garbled.to_string().contains("CreateNetworkInterface: answer"), "{garbled}");
    lab.ecs.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_half_an_hour_does_not_matter() {
    let lab = Lab::new().await;
    let settings = Settings { clock_ahead_s: 1800, ..lab.control.settings().await.unwrap() };
    lab.control.set_settings(&settings).await.unwrap();
    let client = lab.with_key();
    client.create_eni(&eni(NewEni::Secondary), soon()).await.unwrap();
    lab.ecs.stop().await;
}
