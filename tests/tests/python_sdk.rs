//! The emulator speaks as the real API does: the official SDKs drive it, unchanged.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{InstanceId, SecurityGroupId, VSwitchId, VpcId, ZoneId};
use serde_json::{Value, json};
use terway_lab::ecs::{
    AccessKey, Ecs, InstanceSpec, PluggedKind, Product, Recorded, RecordingFabric, Settings, Tls,
    VSwitchSpec, VpcSpec,
};
use tokio::net::TcpListener;
use tokio::process::Command;

struct Cloud {
    ecs: Ecs,
    fabric: Arc<RecordingFabric>,
    arguments: Value,
}

/// By HTTP.
async fn cloud() -> Cloud {
    cloud_by(None).await
}

/// By HTTPS, if there is a certificate.
async fn cloud_by(tls: Option<&Tls>) -> Cloud {
    let fabric = Arc::new(RecordingFabric::default());
    let key = AccessKey { id: "LTAI5tLab".to_owned(), secret: "lab-secret".to_owned() };
    let settings = Settings { attach_ms: 50, detach_ms: 50, ..Settings::default() };
    let ecs = Ecs::start(settings, 1, key, Arc::clone(&fabric));
    let vpc = VpcId::new("vpc-lab");
    ecs.add_vpc(&VpcSpec {
        id: vpc.clone(),
        v4: "10.0.0.0/16".parse().unwrap(),
        v6: Some("2408:4005:3a0::/56".parse().unwrap()),
        address_quota: 1000,
    })
    .unwrap();
    ecs.add_vswitch(&VSwitchSpec {
        id: VSwitchId::new("vsw-a"),
        vpc: vpc.clone(),
        zone: ZoneId::new("cn-hangzhou-h"),
        v4: "10.0.1.0/24".parse().unwrap(),
        v6: Some("2408:4005:3a0:1::/64".parse().unwrap()),
    })
    .unwrap();
    ecs.add_group(&SecurityGroupId::new("sg-a"), &vpc, false).await.unwrap();
    let instance = boot(&ecs).await;
    let [of_ecs, of_vpc] = [bind().await, bind().await];
    let arguments = json!({
        "ecs": of_ecs.local_addr().unwrap().to_string(),
        "vpc": of_vpc.local_addr().unwrap().to_string(),
        "region": "cn-hangzhou",
        "key": "LTAI5tLab",
        "secret": "lab-secret",
        "ca": null,
        "form": false,
        "instance": instance.as_str(),
        "vswitch": "vsw-a",
        "group": "sg-a",
    });
    for (listener, product) in [(of_ecs, Product::Ecs), (of_vpc, Product::Vpc)] {
        match tls {
            None => ecs.serve_api(listener, product),
            Some(tls) => ecs.serve_api_tls(listener, product, tls),
        }
    }
    Cloud { ecs, fabric, arguments }
}

async fn boot(ecs: &Ecs) -> InstanceId {
    ecs.boot(&InstanceSpec {
        name: "node1".to_owned(),
        kind: "ecs.g7.4xlarge".to_owned(),
        vswitch: VSwitchId::new("vsw-a"),
        groups: vec![SecurityGroupId::new("sg-a")],
        v6_addresses: 0,
        jumbo: false,
        ram_role: None,
    })
    .await
    .unwrap()
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// What a script of `tests/python` says.
async fn python(script: &str, arguments: &Value) -> Value {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = tests.join("../target/venv/bin/python");
    let wanted = std::fs::read(tests.join("python/requirements.txt")).unwrap();
    let have = std::fs::read(tests.join("../target/venv/requirements.txt")).ok();
    assert!(have == Some(wanted), "target/venv is missing or old: run cargo xtask setup --python");
    let mut command = Command::new(&python);
    command.arg(tests.join("python").join(script)).arg(arguments.to_string());
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(proxy);
    }
    let output = command.output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_official_sdk_leads_enis_through_their_whole_life() {
    let Cloud { ecs, fabric, arguments } = cloud().await;
    let seen = python("sdk.py", &arguments).await;

    assert_eq!(seen["type"]["EniQuantity"], 8);
    assert_eq!(seen["type"]["EniTotalQuantity"], 30);
    assert_eq!(seen["type"]["EniPrivateIpAddressQuantity"], 30);
    assert_eq!(seen["type"]["EniTrunkSupported"], true);
    assert_eq!(seen["vswitch"]["CidrBlock"], "10.0.1.0/24");
    assert_eq!(seen["vswitch"]["Ipv6CidrBlock"], "2408:4005:3a0:1::/64");
    assert_eq!(seen["vswitch"]["ZoneId"], "cn-hangzhou-h");
    assert_eq!(seen["vswitch"]["AvailableIpAddressCount"], 251);

    check_trunk(&seen, &arguments);
    check_member(&seen, &arguments);
    check_wires(&seen, &fabric);
    assert_eq!(seen["left"], 0);
    assert_eq!(seen["gone"], json!({ "code": "InvalidEniId.NotFound", "status": 404 }));
    let dump = ecs.dump();
    assert_eq!(dump.enis.len(), 1, "the primary ENI is left: {:?}", dump.enis);
    assert_eq!(dump.vswitches[0].available, 251);
    ecs.stop().await;
}

fn check_trunk(seen: &Value, arguments: &Value) {
    let (created, trunk) = (&seen["created"], &seen["trunk"]);
    assert_eq!(created["Status"], "Available");
    assert_eq!(created["Type"], "Trunk");
    assert_eq!(created["PrivateIpAddress"], "10.0.1.2");
    assert_eq!(
        created["Tags"]["Tag"],
        json!([
            { "TagKey": "creator", "TagValue": "terway" },
            { "TagKey": "with space/&=+*~", "TagValue": "ä 1" },
        ])
    );
    assert_eq!(seen["again"], created["NetworkInterfaceId"], "one token, one ENI");
    assert_eq!(seen["mismatch"]["code"], "IdempotentParameterMismatch");
    for field in ["NetworkInterfaceId", "MacAddress", "VpcId", "VSwitchId", "ZoneId", "Tags"] {
        assert_eq!(trunk[field], created[field], "{field}");
    }
    assert_eq!(trunk["Status"], "InUse");
    assert_eq!(trunk["InstanceId"], arguments["instance"]);
    assert_eq!(trunk["SecurityGroupIds"]["SecurityGroupId"], json!(["sg-a"]));
    assert_eq!(trunk["SourceDestCheck"], false);
    assert_eq!(seen["among_many"], json!([created["NetworkInterfaceId"]]));
    assert_eq!(seen["linked"]["code"], "InvalidOperation.EniLinked");
}

fn check_member(seen: &Value, arguments: &Value) {
    let (member, trunk) = (&seen["member"], &seen["trunk"]["NetworkInterfaceId"]);
    assert_eq!(member["Type"], "Member");
    assert_eq!(member["Attachment"]["DeviceIndex"], 1);
    assert_eq!(&member["Attachment"]["TrunkNetworkInterfaceId"], trunk);
    assert_eq!(member["Attachment"]["InstanceId"], arguments["instance"]);
    assert_eq!(
        member["PrivateIpSets"]["PrivateIpSet"],
        json!([
            { "PrivateIpAddress": "10.0.1.3", "Primary": true },
            { "PrivateIpAddress": "10.0.1.4", "Primary": false },
        ])
    );
    assert_eq!(seen["members"], 1);
    assert_eq!(seen["tagged"], json!([trunk, member["NetworkInterfaceId"]]));
    assert_eq!(seen["assigned"], json!(["10.0.1.5", "10.0.1.6"]));
    assert_eq!(addresses(&seen["grown"]), (4, 2));
    assert_eq!(addresses(&seen["shrunk"]), (2, 1));
    let v6 = &seen["grown"]["Ipv6Sets"]["Ipv6Set"][1]["Ipv6Address"];
    assert_eq!(&seen["assigned_v6"][0], v6);
    assert_eq!(seen["detached"]["Type"], "Secondary");
    assert_eq!(seen["detached"]["InstanceId"], "");
}

fn addresses(eni: &Value) -> (usize, usize) {
    let count = |list: &Value| list.as_array().unwrap().len();
    (count(&eni["PrivateIpSets"]["PrivateIpSet"]), count(&eni["Ipv6Sets"]["Ipv6Set"]))
}

/// What the wires were told is what the SDK was told.
fn check_wires(seen: &Value, fabric: &RecordingFabric) {
    let done = fabric.done();
    let plugged: Vec<_> = done
        .iter()
        .filter_map(|done| match done {
            Recorded::Plug(eni) => Some(eni),
            _ => None,
        })
        .collect();
    let [_primary, trunk, member] = plugged[..] else { panic!("{plugged:?}") };
    assert_eq!(trunk.kind, PluggedKind::Trunk);
    assert_eq!(trunk.mac.to_string(), seen["trunk"]["MacAddress"].as_str().unwrap());
    assert_eq!(member.mac.to_string(), seen["member"]["MacAddress"].as_str().unwrap());
    assert!(matches!(&member.kind, PluggedKind::Member { vlan, .. } if vlan.get() == 1));
    assert_eq!((member.addresses.len(), member.mtu), (3, 1500));
    let changes = done.iter().filter(|done| matches!(done, Recorded::SetAddresses(_)));
    assert_eq!(changes.count(), 4);
    assert_eq!(done.iter().filter(|done| matches!(done, Recorded::Unplug(_))).count(), 2);
}

#[tokio::test]
async fn the_older_sdk_is_understood_too() {
    let Cloud { ecs, arguments, .. } = cloud().await;
    let seen = python("older_sdk.py", &arguments).await;
    let shown = &seen["shown"][0];
    assert_eq!(shown["NetworkInterfaceId"], seen["eni"]);
    assert_eq!(shown["Status"], "Available");
    let tags = json!([{ "TagKey": "creator", "TagValue": "older & ä" }]);
    assert_eq!(shown["Tags"]["Tag"], tags);
    assert_eq!(seen["among_many"], seen["shown"]);
    // Its word for SignatureDoesNotMatch when our string to sign is the one that it signed.
    assert_eq!(seen["forged"], "InvalidAccessKeySecret");
    assert_eq!(ecs.dump().enis.len(), 1);
    ecs.stop().await;
}

/// Drives every action by one SDK and holds what it says against the expectation.
async fn every_action_by(sdk: &str, form: bool, secure: bool) {
    let tls = secure.then(|| Tls::new(&["127.0.0.1".to_owned()]).unwrap());
    let Cloud { ecs, fabric, mut arguments } = cloud_by(tls.as_ref()).await;
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    if let Some(tls) = &tls {
        authority.write_all(tls.authority().as_bytes()).unwrap();
        arguments["ca"] = json!(authority.path());
    }
    arguments["sdk"] = json!(sdk);
    arguments["form"] = json!(form);
    let said = python("actions.py", &arguments).await;

    assert_eq!(said["problems"], json!([]));
    assert_eq!(said["never_seen"], json!([]));
    let mut all: Vec<_> = Product::Ecs.actions().chain(Product::Vpc.actions()).collect();
    all.sort_unstable();
    assert_eq!(said["actions"], json!(all));
    let expected = json!({
        "same vswitch": true,
        "no vswitch": [404, "InvalidVSwitchId.NotFound"],
        "type": 8,
        "instance": ["Running", 1],
        "groups": ["of-sdk"],
        "rules": [3, "Drop"],
        "rules left": ["443/443"],
        "again": true,
        "mismatch": [400, "IdempotentParameterMismatch"],
        "paged": true,
        "vlan": 1,
        "grown": [3, 2, 2, 1],
        "shrunk": [1, 1, 1, 0],
        "modified": ["of the SDK", 3],
        "members": true,
        "linked": [403, "InvalidOperation.EniLinked"],
        "gone": [404, "InvalidEniId.NotFound"],
        "left": 0,
    });
    assert_eq!(said["seen"], expected);
    let dump = ecs.dump();
    assert_eq!((dump.enis.len(), dump.vswitches[0].available), (1, 251), "nothing is left");
    let widest = |done: &Recorded| match done {
        Recorded::SetAddresses(eni) => {
            eni.addresses.iter().filter(|one| one.prefix() == 28).count()
        }
        _ => 0,
    };
    assert_eq!(fabric.done().iter().map(widest).max(), Some(2), "the wires knew the prefixes");
    ecs.stop().await;
}

#[tokio::test]
async fn each_action_answers_the_newer_sdk_as_the_reference_says() {
    every_action_by("newer", false, false).await;
}

#[tokio::test]
async fn each_action_answers_the_newer_sdk_by_https_as_the_reference_says() {
    every_action_by("newer", false, true).await;
}

#[tokio::test]
async fn each_action_answers_the_older_sdk_as_the_reference_says() {
    every_action_by("older", false, false).await;
}

#[tokio::test]
async fn each_action_answers_the_older_sdk_by_a_form_and_https_as_the_reference_says() {
    every_action_by("older", true, true).await;
}
