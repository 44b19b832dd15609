//! The emulator over its sockets: API, metadata, control; with faults.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{InstanceId, SecurityGroupId, VSwitchId, VpcId, ZoneId};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::signature::hmac_sha1;
use super::{
    AccessKey, Control, Ecs, Fault, FaultKind, FlowQuery, InstanceSpec, InstanceState, LostEffect,
    MetadataFaults, PluggedKind, Product, Recorded, RecordingFabric, Settings, VSwitchSpec,
    VpcSpec,
};

const ENI: &str = "NetworkInterfaceId";
const CREATE: [(&str, &str); 2] = [("VSwitchId", "vsw-a"), ("SecurityGroupIds.1", "sg-a")];

struct Lab {
    ecs: Ecs,
    fabric: Arc<RecordingFabric>,
    control: Control,
    api: SocketAddr,
    metadata: SocketAddr,
    http: reqwest::Client,
    instance: InstanceId,
}

/// What came back; `None`: nothing did.
type Came = Option<(u16, String)>;

impl Lab {
    async fn new() -> Self {
        let fabric = Arc::new(RecordingFabric::default());
        let key = AccessKey { id: "LTAIlab".to_owned(), secret: "secret".to_owned() };
        let settings =
            Settings { attach_ms: 20, detach_ms: 20, write_ms: 5, ..Settings::default() };
        let ecs = Ecs::start(settings, 1, key, Arc::clone(&fabric));
        let vpc = VpcId::new("vpc-lab");
        let v4 = "10.0.0.0/16".parse().unwrap();
        let v6 = Some("2408:4005:3a0::/56".parse().unwrap());
        ecs.add_vpc(&VpcSpec { id: vpc.clone(), v4, v6, address_quota: 1000 }).unwrap();
        ecs.add_vswitch(&VSwitchSpec {
            id: VSwitchId::new("vsw-a"),
            vpc: vpc.clone(),
            zone: ZoneId::new("cn-hangzhou-h"),
            v4: "10.0.1.0/24".parse().unwrap(),
            v6: Some("2408:4005:3a0:1::/64".parse().unwrap()),
        })
        .unwrap();
        ecs.add_group(&SecurityGroupId::new("sg-a"), &vpc, false).await.unwrap();
        let instance = ecs
            .boot(&InstanceSpec {
                name: "node1".to_owned(),
                kind: "ecs.g7.xlarge".to_owned(),
                vswitch: VSwitchId::new("vsw-a"),
                groups: vec![SecurityGroupId::new("sg-a")],
                v6_addresses: 1,
                jumbo: false,
                ram_role: Some("Worker".to_owned()),
            })
            .await
            .unwrap();
        let [api, control, metadata] = [bind().await, bind().await, bind().await];
        let [api_at, control_at, metadata_at] =
            [&api, &control, &metadata].map(|listener| listener.local_addr().unwrap());
        ecs.serve_api(api, Product::Ecs);
        ecs.serve_control(control);
        let asked = instance.clone();
        ecs.serve_metadata(metadata, Arc::new(move |_peer| Some(asked.clone())));
        Self {
            ecs,
            fabric,
            control: Control::new(format!("http://{control_at}")),
            api: api_at,
            metadata: metadata_at,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            instance,
        }
    }

    /// Sends an action by the older signature; what comes back, if anything does.
    async fn send(&self, action: &str, pairs: &[(&str, &str)]) -> Came {
        let (nonce, time) = (Uuid::new_v4().to_string(), super::views::time(super::service::now()));
        let common = [
            ("Action", action),
            ("Version", "2014-05-26"),
            ("Format", "JSON"),
            ("RegionId", "cn-hangzhou"),
            ("Timestamp", &time),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &nonce),
            ("AccessKeyId", "LTAIlab"),
        ];
        let all = common.iter().chain(pairs);
        let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let form = super::encoding::canonical(&hmac_sha1::sign("POST", all, "secret"));
        let kind = "application/x-www-form-urlencoded";
        let request = self.http.post(format!("http://{}/", self.api)).header("content-type", kind);
        let response = request.body(form).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.unwrap()))
    }

    async fn call(&self, action: &str, pairs: &[(&str, &str)]) -> Value {
        let (status, body) = self.send(action, pairs).await.unwrap();
        assert_eq!(status, 200, "{action}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn refused(&self, action: &str, pairs: &[(&str, &str)]) -> String {
        let (status, body) = self.send(action, pairs).await.unwrap();
        assert_ne!(status, 200, "{action}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["Code"].as_str().unwrap().to_owned()
    }

    async fn create(&self, more: &[(&str, &str)]) -> String {
        let body = self.call("CreateNetworkInterface", &[&CREATE, more].concat()).await;
        body[ENI].as_str().unwrap().to_owned()
    }

    async fn attach(&self, eni: &str, more: &[(&str, &str)]) {
        let pairs = [(ENI, eni), ("InstanceId", self.instance.as_str())];
        self.call("AttachNetworkInterface", &[&pairs, more].concat()).await;
        self.until(eni, "InUse").await;
    }

    /// Waits for a status of an ENI, or for its end by `gone`.
    async fn until(&self, eni: &str, status: &str) {
        for _attempt in 0..500 {
            if self.status(eni) == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{eni} is {} and not {status}", self.status(eni));
    }

    fn status(&self, eni: &str) -> String {
        let found = self.ecs.dump().enis.into_iter().find(|found| found.id == eni);
        found.map_or_else(|| "gone".to_owned(), |found| found.status)
    }

    fn secondaries(&self) -> usize {
        self.ecs.dump().enis.iter().filter(|eni| eni.kind != "Primary").count()
    }

    async fn fault(&self, action: &str, what: FaultKind) {
        let action = action.to_owned();
        let fault = Fault { action, eni: None, times: Some(1), per_mille: None, what };
        self.control.add_fault(&fault).await.unwrap();
    }

    async fn metadata(&self, token: Option<&str>, path: &str) -> (u16, String) {
        let mut request =
            self.http.get(format!("http://{}/latest/meta-data/{path}", self.metadata));
        if let Some(token) = token {
            request = request.header("X-aliyun-ecs-metadata-token", token);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn token(&self, ttl: &str) -> (u16, String) {
        let request = self.http.put(format!("http://{}/latest/api/token", self.metadata));
        let request = request.header("X-aliyun-ecs-metadata-token-ttl-seconds", ttl);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_trunk_and_a_member_are_plugged_and_taken_out_through_the_socket() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    let on_trunk = ("TrunkNetworkInstanceId", trunk.as_str());
    lab.attach(&member, &[on_trunk]).await;
    let plugged: Vec<_> = lab
        .fabric
        .done()
        .into_iter()
        .filter_map(|done| match done {
            Recorded::Plug(eni) => Some((eni.kind, eni.instance)),
            _ => None,
        })
        .collect();
    assert_eq!(plugged[0], (PluggedKind::Primary, "node1".to_owned()));
    assert_eq!(plugged[1].0, PluggedKind::Trunk);
    assert!(matches!(&plugged[2].0, PluggedKind::Member { trunk: on, vlan }
        if on.as_str() == trunk && vlan.get() == 1));

    let shown = lab.call("DescribeNetworkInterfaces", &[("NetworkInterfaceId.1", &member)]).await;
    let shown = &shown["NetworkInterfaceSets"]["NetworkInterfaceSet"][0];
    assert_eq!(shown["Attachment"]["DeviceIndex"], 1);
    let pairs = [(ENI, member.as_str()), ("InstanceId", lab.instance.as_str()), on_trunk];
    lab.call("DetachNetworkInterface", &pairs).await;
    lab.until(&member, "Available").await;
    lab.call("DeleteNetworkInterface", &[(ENI, &member)]).await;
    assert_eq!(lab.status(&member), "gone");
    let unplugged =
        lab.fabric.done().into_iter().filter(|done| matches!(done, Recorded::Unplug(_)));
    assert_eq!(unplugged.count(), 1);
    lab.ecs.stop().await;
}

#[tokio::test]
async fn an_error_has_the_body_that_clients_expect() {
    let lab = Lab::new().await;
    let (status, body) = lab.send("DeleteNetworkInterface", &[(ENI, "eni-x")]).await.unwrap();
    assert_eq!(status, 404);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["Code"], "InvalidEniId.NotFound");
    assert_eq!(body["HostId"], lab.api.to_string());
    assert_eq!(body["RequestId"].as_str().unwrap().len(), 36);
    assert!(body["Message"].as_str().unwrap().contains("eni-x"));
    assert!(body["Recommend"].is_string());
    let counts = lab.control.dump().await.unwrap().calls;
    assert_eq!(counts["DeleteNetworkInterface"].outcomes["InvalidEniId.NotFound"], 1);
}

#[tokio::test]
async fn a_lost_answer_is_lost_and_its_effect_is_there_or_comes_or_never_does() {
    let lab = Lab::new().await;
    for (effect, at_once, later) in
        [(LostEffect::Done, 1, 1), (LostEffect::LateMs(150), 1, 2), (LostEffect::Never, 2, 2)]
    {
        lab.fault("CreateNetworkInterface", FaultKind::LostAnswer { effect }).await;
        assert_eq!(lab.send("CreateNetworkInterface", &CREATE).await, None);
        assert_eq!(lab.secondaries(), at_once, "{effect:?}");
        for _attempt in 0..100 {
            if lab.secondaries() == later {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(lab.secondaries(), later, "{effect:?}");
    }
    let calls = lab.control.calls().await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.outcome == "lost" && call.fault).count(), 3);
}

#[tokio::test]
async fn a_client_token_finds_the_eni_whose_answer_was_lost() {
    let lab = Lab::new().await;
    let pairs = [&CREATE[..], &[("ClientToken", "3f0c")]].concat();
    let lost = FaultKind::LostAnswer { effect: LostEffect::Done };
    lab.fault("CreateNetworkInterface", lost).await;
    assert_eq!(lab.send("CreateNetworkInterface", &pairs).await, None);
    let body = lab.call("CreateNetworkInterface", &pairs).await;
    assert_eq!(lab.status(body[ENI].as_str().unwrap()), "Available");
    assert_eq!(lab.secondaries(), 1);
}

#[tokio::test]
async fn faults_refuse_delay_spoil_and_count_down() {
    let lab = Lab::new().await;
    let error = |takes_effect| FaultKind::Error {
        status: 500,
        code: "InternalError".to_owned(),
        takes_effect,
    };
    for (takes_effect, there) in [(false, 0), (true, 1)] {
        lab.fault("CreateNetworkInterface", error(takes_effect)).await;
        assert_eq!(lab.refused("CreateNetworkInterface", &CREATE).await, "InternalError");
        assert_eq!(lab.secondaries(), there);
    }
    lab.fault("DescribeNetworkInterfaces", FaultKind::Throttle).await;
    assert_eq!(lab.refused("DescribeNetworkInterfaces", &[]).await, "Throttling.User");
    lab.fault("DescribeNetworkInterfaces", FaultKind::Garbage).await;
    let (status, body) = lab.send("DescribeNetworkInterfaces", &[]).await.unwrap();
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<Value>(&body).is_err());
    lab.fault("DescribeNetworkInterfaces", FaultKind::StaleRead { ms: 600_000 }).await;
    let body = lab.call("DescribeNetworkInterfaces", &[]).await;
    assert_eq!(body["TotalCount"], 0);
    lab.fault("DescribeNetworkInterfaces", FaultKind::Latency { ms: 200 }).await;
    let before = tokio::time::Instant::now();
    let body = lab.call("DescribeNetworkInterfaces", &[]).await;
    assert!(before.elapsed() >= Duration::from_millis(200));
    assert_eq!(body["TotalCount"], 2);
    assert_eq!(lab.control.faults().await.unwrap(), []);
}

#[tokio::test]
async fn a_member_may_lack_its_vlan_and_a_detach_may_stick() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    let on_trunk = ("TrunkNetworkInstanceId", trunk.as_str());
    lab.attach(&member, &[on_trunk]).await;
    lab.fault("DescribeNetworkInterfaces", FaultKind::HideVlan).await;
    let asked = [("NetworkInterfaceId.1", member.as_str())];
    for expected in [json!(null), json!(1)] {
        let body = lab.call("DescribeNetworkInterfaces", &asked).await;
        let shown = &body["NetworkInterfaceSets"]["NetworkInterfaceSet"][0];
        assert_eq!(shown["Attachment"]["DeviceIndex"], expected);
    }
    lab.fault("DetachNetworkInterface", FaultKind::StuckDetach).await;
    let pairs = [(ENI, member.as_str()), ("InstanceId", lab.instance.as_str()), on_trunk];
    lab.call("DetachNetworkInterface", &pairs).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lab.status(&member), "Detaching");
    lab.call("DetachNetworkInterface", &pairs).await;
    lab.until(&member, "Available").await;
}

#[tokio::test]
async fn what_the_wires_refuse_is_an_internal_error_and_not_true() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    lab.fabric.refuse(Some("no route"));
    let pairs = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "2")];
    assert_eq!(lab.refused("AssignPrivateIpAddresses", &pairs).await, "InternalError");
    lab.fabric.refuse(None);
    let dump = lab.ecs.dump();
    assert_eq!(dump.failures, [format!("{eni}: no route")]);
    assert_eq!(dump.enis.last().unwrap().v4.len(), 1);
    assert_eq!(dump.in_flight, 0);
    lab.call("AssignPrivateIpAddresses", &pairs).await;
    assert_eq!(lab.ecs.dump().enis.last().unwrap().v4.len(), 3);
}

#[tokio::test]
async fn what_a_client_began_and_gave_up_is_done_to_the_end() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    let settings = Settings { write_ms: 300, ..lab.control.settings().await.unwrap() };
    lab.control.set_settings(&settings).await.unwrap();
    let pairs = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "1")];
    let gave_up = tokio::time::timeout(
        Duration::from_millis(100),
        lab.send("AssignPrivateIpAddresses", &pairs),
    );
    assert!(gave_up.await.is_err());
    assert_eq!(lab.refused("AssignPrivateIpAddresses", &pairs).await, "Operation.Conflict");
    for _attempt in 0..200 {
        if lab.ecs.dump().in_flight == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lab.ecs.dump().enis.last().unwrap().v4.len(), 2);
}

#[tokio::test]
async fn a_released_instance_gives_its_enis_up_members_first() {
    let lab = Lab::new().await;
    let trunk = lab.create(&[("InstanceType", "Trunk")]).await;
    lab.attach(&trunk, &[]).await;
    let member = lab.create(&[]).await;
    lab.attach(&member, &[("TrunkNetworkInstanceId", &trunk)]).await;
    let kept = lab.create(&[("DeleteOnRelease", "false")]).await;
    lab.attach(&kept, &[]).await;
    lab.control.release(lab.instance.as_str()).await.unwrap();
    let dump = lab.ecs.dump();
    assert_eq!(dump.instances, []);
    assert_eq!(dump.enis.len(), 1);
    assert_eq!(
        (dump.enis[0].id.as_str(), dump.enis[0].status.as_str()),
        (kept.as_str(), "Available")
    );
    let unplugged: Vec<_> = lab
        .fabric
        .done()
        .into_iter()
        .filter_map(|done| match done {
            Recorded::Unplug(eni) => Some(eni.id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(unplugged.len(), 4);
    assert_eq!(unplugged[0], member);
    assert!(lab.control.release("i-gone").await.is_err());
}

#[tokio::test]
async fn an_eni_can_vanish_and_an_instance_can_stop() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    lab.attach(&eni, &[]).await;
    lab.control.vanish(&eni).await.unwrap();
    assert_eq!(lab.status(&eni), "gone");
    let pairs = [(ENI, eni.as_str()), ("InstanceId", lab.instance.as_str())];
    assert_eq!(lab.refused("DetachNetworkInterface", &pairs).await, "InvalidEniId.NotFound");
    let stopped = InstanceState::Stopped;
    lab.control.set_instance_state(lab.instance.as_str(), stopped).await.unwrap();
    assert_eq!(lab.ecs.dump().instances[0].state, stopped);
    let released = InstanceState::Released;
    assert!(lab.control.set_instance_state(lab.instance.as_str(), released).await.is_err());
}

#[tokio::test]
async fn rules_reach_the_wires_before_the_answer_and_decide_the_verdict() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    let address = lab.ecs.dump().enis.last().unwrap().v4[0];
    let flow = FlowQuery {
        from: "192.0.2.1".parse().unwrap(),
        to: address.into(),
        protocol: "tcp".to_owned(),
        port: 80,
    };
    let before = lab.control.verdict(&flow).await.unwrap();
    assert_eq!((before.accepted, before.group.as_deref()), (false, Some("sg-a")), "{eni}");
    lab.call(
        "AuthorizeSecurityGroup",
        &[
            ("SecurityGroupId", "sg-a"),
            ("IpProtocol", "tcp"),
            ("PortRange", "80/80"),
            ("SourceCidrIp", "192.0.2.0/24"),
        ],
    )
    .await;
    assert!(matches!(lab.fabric.done().last(), Some(Recorded::SetRules(group))
        if group.rules.len() == 1));
    assert!(lab.control.verdict(&flow).await.unwrap().accepted);
    let own = FlowQuery { from: lab.ecs.dump().enis[0].v4[0].into(), port: 81, ..flow };
    assert!(lab.control.verdict(&own).await.unwrap().accepted, "of one group");
}

#[tokio::test]
async fn metadata_is_for_who_has_a_token() {
    let lab = Lab::new().await;
    assert_eq!(lab.metadata(None, "instance-id").await.0, 403);
    assert_eq!(lab.metadata(Some("x"), "instance-id").await.0, 401);
    for ttl in ["0", "21601", "soon"] {
        assert_eq!(lab.token(ttl).await.0, 400, "{ttl}");
    }
    let (status, short) = lab.token("1").await;
    assert_eq!(status, 200);
    assert_eq!(lab.metadata(Some(&short), "instance-id").await, (200, lab.instance.to_string()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(lab.metadata(Some(&short), "instance-id").await.0, 401);
}

#[tokio::test]
async fn metadata_says_what_an_instance_needs_to_know() {
    let lab = Lab::new().await;
    let eni =
        lab.create(&[("SecondaryPrivateIpAddressCount", "1"), ("Ipv6AddressCount", "2")]).await;
    lab.attach(&eni, &[]).await;
    let dump = lab.ecs.dump();
    let [primary, second] = &dump.enis[..] else { panic!("{dump:?}") };
    let token = lab.token("60").await.1;
    let macs = format!("{}/\n{}/", primary.mac, second.mac);
    let v6 = format!("[{},{}]", second.v6[0], second.v6[1]);
    for (path, expected) in [
        ("instance-id", lab.instance.as_str()),
        ("instance/instance-type", "ecs.g7.xlarge"),
        ("region-id", "cn-hangzhou"),
        ("zone-id", "cn-hangzhou-h"),
        ("vpc-id", "vpc-lab"),
        ("vswitch-id", "vsw-a"),
        ("mac", &primary.mac),
        ("network/interfaces/macs/", &macs),
    ] {
        assert_eq!(lab.metadata(Some(&token), path).await, (200, expected.to_owned()), "{path}");
    }
    for (item, expected) in [
        ("network-interface-id", eni.as_str()),
        ("primary-ip-address", "10.0.1.2"),
        ("private-ipv4s", r#"["10.0.1.2","10.0.1.3"]"#),
        ("ipv6s", &v6),
        ("gateway", "10.0.1.253"),
        ("ipv6-gateway", "2408:4005:3a0:1:ffff:ffff:ffff:fffd"),
        ("vswitch-id", "vsw-a"),
        ("vswitch-cidr-block", "10.0.1.0/24"),
        ("vswitch-ipv6-cidr-block", "2408:4005:3a0:1::/64"),
    ] {
        let path = format!("network/interfaces/macs/{}/{item}", second.mac);
        assert_eq!(lab.metadata(Some(&token), &path).await, (200, expected.to_owned()), "{item}");
    }
    assert_eq!(lab.metadata(Some(&token), "no-such-item").await.0, 404);
}

#[tokio::test]
async fn metadata_lags_and_lies_when_it_is_told_to() {
    let lab = Lab::new().await;
    let token = lab.token("60").await.1;
    let settings = Settings { metadata_lag_ms: 600_000, ..lab.ecs.settings() };
    lab.ecs.set_settings(settings).unwrap();
    assert_eq!(lab.metadata(Some(&token), "instance-id").await.0, 404, "it was not there yet");
    lab.ecs.set_settings(Settings { metadata_lag_ms: 0, ..lab.ecs.settings() }).unwrap();

    let (attached, free) = (lab.create(&[]).await, lab.create(&[]).await);
    lab.attach(&attached, &[]).await;
    let count =
        async || lab.metadata(Some(&token), "network/interfaces/macs/").await.1.lines().count();
    assert_eq!(count().await, 2);
    let missing = MetadataFaults { missing: [attached].into(), ..MetadataFaults::default() };
    lab.control.set_metadata_faults(&missing).await.unwrap();
    assert_eq!(count().await, 1);
    let extra = [(lab.instance.to_string(), [free].into())].into();
    let extra = MetadataFaults { extra, ..MetadataFaults::default() };
    lab.control.set_metadata_faults(&extra).await.unwrap();
    assert_eq!(lab.control.metadata_faults().await.unwrap(), extra);
    assert_eq!(count().await, 3);
    let down = MetadataFaults { status: Some(503), ..MetadataFaults::default() };
    lab.control.set_metadata_faults(&down).await.unwrap();
    assert_eq!(lab.metadata(Some(&token), "instance-id").await.0, 503);
}

#[tokio::test]
async fn the_credentials_of_a_role_come_from_metadata_and_end_when_told_to() {
    let lab = Lab::new().await;
    let token = lab.token("60").await.1;
    let role = lab.metadata(Some(&token), "ram/security-credentials/").await;
    assert_eq!(role, (200, "Worker".to_owned()));
    let key = lab.metadata(Some(&token), "ram/security-credentials/Worker").await.1;
    let key: Value = serde_json::from_str(&key).unwrap();
    assert_eq!(key["Code"], "Success");
    let good = |key: &Value| {
        let now = super::service::now();
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        let state = lab.ecs.lock();
        let secret = state.keyring.secret(&text("AccessKeyId"), Some(&text("SecurityToken")), now);
        secret.map(str::to_owned).map_err(|refusal| refusal.code)
    };
    assert_eq!(good(&key).unwrap(), key["AccessKeySecret"].as_str().unwrap());
    lab.control.expire_credentials().await.unwrap();
    assert_eq!(good(&key).unwrap_err(), "InvalidSecurityToken.Expired");
    assert_eq!(lab.metadata(Some(&token), "ram/security-credentials/Other").await.0, 404);
}

#[tokio::test]
async fn a_clock_that_is_ahead_refuses_and_tells_its_time() {
    let lab = Lab::new().await;
    let settings = Settings { clock_ahead_s: 1200, ..lab.ecs.settings() };
    lab.ecs.set_settings(settings).unwrap();
    assert_eq!(lab.refused("DescribeNetworkInterfaces", &[]).await, "InvalidTimeStamp.Expired");
    let response = lab.http.get(format!("http://{}/", lab.api)).send().await.unwrap();
    let date = response.headers()["date"].to_str().unwrap();
    let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let ahead = date.duration_since(super::service::now()).as_secs();
    assert!((1190..=1210).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn the_control_api_refuses_what_it_does_not_know_and_says_why() {
    let lab = Lab::new().await;
    let fault = Fault {
        action: "CreateENI".to_owned(),
        eni: None,
        times: None,
        per_mille: None,
        what: FaultKind::Throttle,
    };
    let error = lab.control.add_fault(&fault).await.unwrap_err().to_string();
    assert!(error.contains("CreateENI"), "{error}");
    let settings = Settings { api_lag_ms: 600_001, ..lab.ecs.settings() };
    assert!(lab.control.set_settings(&settings).await.is_err());
    lab.control.seed(7).await.unwrap();
    lab.control.forget_calls().await.unwrap();
    assert!(lab.control.dump().await.unwrap().calls.is_empty());
    let nobody = Control::new("http://127.0.0.1:9");
    assert!(nobody.dump().await.unwrap_err().to_string().contains("is it up?"));
}
