//! The emulator over its sockets: API, metadata, control; with faults.

mod api;
mod control;
mod faults;
mod metadata;
mod signatures;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{InstanceId, SecurityGroupId, VSwitchId, VpcId, ZoneId};
use serde_json::Value;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::signature::hmac_sha1;
use super::{
    AccessKey, Control, Ecs, Fault, FaultKind, InstanceSpec, Product, RecordingFabric, Settings,
    Tls, VSwitchSpec, VpcSpec,
};

const ENI: &str = "NetworkInterfaceId";
const CREATE: [(&str, &str); 2] = [("VSwitchId", "vsw-a"), ("SecurityGroupIds.1", "sg-a")];

struct Lab {
    ecs: Ecs,
    fabric: Arc<RecordingFabric>,
    control: Control,
    api: SocketAddr,
    /// The same by HTTPS.
    secure: SocketAddr,
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
        let [api, secure] = [bind().await, bind().await];
        let [control, metadata] = [bind().await, bind().await];
        let [api_at, secure_at, control_at, metadata_at] =
            [&api, &secure, &control, &metadata].map(|listener| listener.local_addr().unwrap());
        let tls = Tls::new(&["127.0.0.1".to_owned()]).unwrap();
        ecs.serve_api(api, Product::Ecs);
        ecs.serve_api_tls(secure, Product::Ecs, &tls);
        ecs.serve_control(control);
        let asked = instance.clone();
        ecs.serve_metadata(metadata, Arc::new(move |_peer| Some(asked.clone())));
        Self {
            ecs,
            fabric,
            control: Control::new(format!("http://{control_at}")),
            api: api_at,
            secure: secure_at,
            metadata: metadata_at,
            http: trusting(&tls),
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
        let fault = Fault { times: Some(1), ..Fault::new(action, what) };
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

/// A client that trusts the lab's authority.
fn trusting(tls: &Tls) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(tls.authority().as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap()
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}
