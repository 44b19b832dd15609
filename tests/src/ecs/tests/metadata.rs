//! The metadata service over its socket.

use axum::http::StatusCode;
use jiff::SignedDuration;
use model::InstanceId;
use serde_json::Value;

use super::Lab;
use crate::ecs::{MetadataFaults, Settings};

#[tokio::test]
async fn metadata_is_for_who_has_a_token() {
    let lab = Lab::new().await;
    assert_eq!(lab.metadata(None, "instance-id").await.0, 403);
    assert_eq!(lab.metadata(Some("x"), "instance-id").await.0, 401);
    for ttl in ["0", "21601", "soon"] {
        assert_eq!(lab.token(ttl).await.0, 400, "{ttl}");
    }
    let (status, token) = lab.token("60").await;
    assert_eq!(status, 200);
    assert_eq!(lab.metadata(Some(&token), "instance-id").await, (200, lab.instance.to_string()));
    let other = InstanceId::new("i-other");
    let path = "/latest/meta-data/instance-id";
    let ask = |instance: &InstanceId, seconds: i64| {
        let later = crate::ecs::service::now() + SignedDuration::from_secs(seconds);
        lab.ecs.lock().metadata(instance, Some(&token), path, later)
    };
    assert!(ask(&lab.instance, 50).is_ok());
    assert_eq!(ask(&lab.instance, 60), Err(StatusCode::UNAUTHORIZED), "it is over");
    assert_eq!(ask(&other, 0), Err(StatusCode::UNAUTHORIZED), "it is another's");
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
async fn metadata_refuses_some_paths_or_all_and_takes_its_time() {
    let lab = Lab::new().await;
    let token = lab.token("60").await.1;
    let set = async |faults| lab.control.set_metadata_faults(&faults).await.unwrap();
    let status = async |path: &str| lab.metadata(Some(&token), path).await.0;
    let macs = "network/interfaces/macs/";
    for code in [404, 503] {
        let only = Some(macs.to_owned());
        set(MetadataFaults { status: Some(code), only, ..MetadataFaults::default() }).await;
        assert_eq!((status(macs).await, status("instance-id").await), (code, 200));
        assert_eq!(lab.token("60").await.0, 200);
        set(MetadataFaults { status: Some(code), ..MetadataFaults::default() }).await;
        assert_eq!((status(macs).await, status("instance-id").await), (code, code));
        assert_eq!(lab.token("60").await.0, code);
    }
    set(MetadataFaults { latency_ms: 200, ..MetadataFaults::default() }).await;
    let before = tokio::time::Instant::now();
    assert_eq!(status("instance-id").await, 200);
    assert!(before.elapsed() >= std::time::Duration::from_millis(200));
}

#[tokio::test]
async fn lists_of_metadata_may_be_behind_the_rest() {
    let lab = Lab::new().await;
    let (token, dump) = (lab.token("60").await.1, lab.ecs.dump());
    let (macs, mac) = ("network/interfaces/macs/", &dump.enis[0].mac);
    let stale = MetadataFaults { stale_lists_ms: 600_000, ..MetadataFaults::default() };
    let get = async |item: &str| lab.metadata(Some(&token), item).await.0;
    let (list, address) = (format!("{macs}{mac}/private-ipv4s"), format!("{macs}{mac}/gateway"));
    for (faults, of_lists) in [(MetadataFaults::default(), 200), (stale, 404)] {
        lab.control.set_metadata_faults(&faults).await.unwrap();
        // Ten minutes ago the instance was not there.
        assert_eq!((get(macs).await, get(&list).await), (of_lists, of_lists));
        assert_eq!((get(&address).await, get("instance-id").await), (200, 200));
    }
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
        let now = crate::ecs::service::now();
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
async fn who_asks_is_known_by_the_address() {
    let lab = Lab::new().await;
    let eni = lab.create(&[]).await;
    let identity = lab.ecs.identity_by_address();
    let asks = |address: std::net::IpAddr| identity((address, 40_000).into());
    let dump = lab.ecs.dump();
    let [primary, free] = &dump.enis[..] else { panic!("{dump:?}") };
    assert_eq!(free.id, eni);
    assert_eq!(asks(primary.v4[0].into()).unwrap(), lab.instance);
    assert_eq!(asks(primary.v6[0].into()).unwrap(), lab.instance);
    assert_eq!(asks(free.v4[0].into()), None, "its ENI is in no instance");
    lab.attach(&eni, &[]).await;
    assert_eq!(asks(free.v4[0].into()).unwrap(), lab.instance);
}
