//! A client against a metadata service that says what the test wants.

use std::collections::BTreeMap;

use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

const MACS: &str = "network/interfaces/macs/";
const MAC: &str = "00:16:3e:00:00:02";

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

fn text(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_string(text)
}

/// Knows these facts, and tells them only to who shows the token.
async fn service(facts: &BTreeMap<String, &str>) -> (MockServer, Metadata) {
    let server = MockServer::start().await;
    Mock::given(method("PUT"))
        .and(path(TOKEN_PATH))
        .and(header(TTL_HEADER, "21600"))
        .respond_with(text("sesame"))
        .mount(&server)
        .await;
    for (fact, value) in facts {
        Mock::given(method("GET"))
            .and(path(format!("{FACTS}{fact}")))
            .and(header(TOKEN_HEADER, "sesame"))
            .respond_with(text(value))
            .mount(&server)
            .await;
    }
    let metadata = Metadata::new(&format!("{}/", server.uri())).unwrap();
    (server, metadata)
}

fn instance() -> BTreeMap<String, &'static str> {
    let facts = [
        ("instance-id", "i-bp1"),
        ("instance/instance-type", "ecs.g7.4xlarge"),
        ("region-id", "cn-hangzhou"),
        ("zone-id", "cn-hangzhou-h"),
        ("vpc-id", "vpc-1"),
        ("vswitch-id", "vsw-1\n"),
        ("mac", "00:16:3e:00:00:01"),
    ];
    facts.map(|(fact, value)| (fact.to_owned(), value)).into()
}

fn eni(facts: &[(&str, &'static str)]) -> BTreeMap<String, &'static str> {
    facts.iter().map(|(fact, value)| (format!("{MACS}{MAC}/{fact}"), *value)).collect()
}

async fn tokens_fetched(server: &MockServer) -> usize {
    let requests = server.received_requests().await.unwrap();
    requests.iter().filter(|request| request.method.as_str() == "PUT").count()
}

#[tokio::test]
async fn an_instance_learns_what_it_is_with_one_token() {
    let (server, metadata) = service(&instance()).await;
    let facts = metadata.instance(within(5_000)).await.unwrap();
    let expected = InstanceFacts {
        id: InstanceId::new("i-bp1"),
        kind: InstanceTypeId::new("ecs.g7.4xlarge"),
        region: RegionId::new("cn-hangzhou"),
        zone: ZoneId::new("cn-hangzhou-h"),
        vpc: VpcId::new("vpc-1"),
        vswitch: VSwitchId::new("vsw-1"),
        mac: "00:16:3e:00:00:01".parse().unwrap(),
    };
    assert_eq!(facts, expected);
    assert_eq!(tokens_fetched(&server).await, 1);
}

#[tokio::test]
async fn an_eni_is_told_by_its_mac_in_the_services_two_kinds_of_lists() {
    let (_server, metadata) = service(&eni(&[
        ("network-interface-id", "eni-2"),
        ("primary-ip-address", "10.0.1.5"),
        ("private-ipv4s", r#"["10.0.1.5","10.0.1.6"]"#),
        ("ipv6s", "[2408::5,2408::6]"),
        ("gateway", "10.0.1.253"),
        ("ipv6-gateway", "2408::ffff:ffff:ffff:fffd"),
        ("vswitch-id", "vsw-1"),
        ("vswitch-cidr-block", "10.0.1.0/24"),
        ("vswitch-ipv6-cidr-block", "2408::/64"),
    ]))
    .await;
    let facts = metadata.eni(MAC.parse().unwrap(), within(5_000)).await.unwrap();
    let expected = EniFacts {
        id: EniId::new("eni-2"),
        mac: MAC.parse().unwrap(),
        primary_v4: Some("10.0.1.5".parse().unwrap()),
        v4: ["10.0.1.5", "10.0.1.6"].map(|text| text.parse().unwrap()).to_vec(),
        v6: ["2408::5", "2408::6"].map(|text| text.parse().unwrap()).to_vec(),
        v4_gateway: Some("10.0.1.253".parse().unwrap()),
        v6_gateway: Some("2408::ffff:ffff:ffff:fffd".parse().unwrap()),
        vswitch: VSwitchId::new("vsw-1"),
        v4_block: Some("10.0.1.0/24".parse().unwrap()),
        v6_block: Some("2408::/64".parse().unwrap()),
    };
    assert_eq!(facts, expected);
}

#[tokio::test]
async fn an_eni_without_ipv6_has_none() {
    let facts = eni(&[("network-interface-id", "eni-2"), ("vswitch-id", "vsw-1"), ("gateway", "")]);
    let (_server, metadata) = service(&facts).await;
    let facts = metadata.eni(MAC.parse().unwrap(), within(5_000)).await.unwrap();
    assert!(facts.v6.is_empty() && facts.v6_gateway.is_none() && facts.v6_block.is_none());
    assert_eq!(facts.v4_gateway, None, "an empty fact is none");
}

#[tokio::test]
async fn macs_are_listed_a_line_each() {
    let facts = BTreeMap::from([(MACS.to_owned(), "00:16:3e:00:00:01/\n00:16:3e:00:00:02/\n")]);
    let (_server, metadata) = service(&facts).await;
    let macs = metadata.macs(within(5_000)).await.unwrap();
    let macs: Vec<_> = macs.iter().map(ToString::to_string).collect();
    assert_eq!(macs, ["00:16:3e:00:00:01", MAC]);
}

#[tokio::test]
async fn a_token_that_has_run_out_is_fetched_anew_once() {
    let server = MockServer::start().await;
    for token in ["old", "sesame"] {
        let times = if token == "old" { 1 } else { u64::MAX };
        let mock = Mock::given(method("PUT")).respond_with(text(token)).up_to_n_times(times);
        mock.mount(&server).await;
    }
    Mock::given(header(TOKEN_HEADER, "sesame")).respond_with(text("i-1")).mount(&server).await;
    Mock::given(header(TOKEN_HEADER, "old"))
        .respond_with(ResponseTemplate::new(401))
        .mount(&server)
        .await;
    let metadata = Metadata::new(&server.uri()).unwrap();
    let id = metadata.id("instance-id".to_owned(), within(5_000)).await;
    assert_eq!(id.as_deref(), Ok("i-1"));
    assert_eq!(tokens_fetched(&server).await, 2);

    let refusing = MockServer::start().await;
    Mock::given(method("PUT")).respond_with(text("token")).mount(&refusing).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(401)).mount(&refusing).await;
    let metadata = Metadata::new(&refusing.uri()).unwrap();
    let error = metadata.macs(within(5_000)).await.unwrap_err();
    assert_eq!(error, MetadataError::Status { path: MACS.to_owned(), status: 401 });
    assert_eq!(tokens_fetched(&refusing).await, 2);
}

#[tokio::test]
async fn garbage_names_its_path() {
    for (fact, value, expected) in [
        ("mac", "none", "metadata mac: answer not understood (not of type Mac): \"none\""),
        ("zone-id", "", "metadata zone-id: answer not understood (not a name): \"\""),
        (
            "instance-id",
            "<html>404</html>",
            "metadata instance-id: answer not understood (not a name): \"<html>404</html>\"",
        ),
    ] {
        let mut facts = instance();
        facts.insert(fact.to_owned(), value);
        let (_server, metadata) = service(&facts).await;
        let error = metadata.instance(within(5_000)).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let (_server, metadata) = service(&BTreeMap::new()).await;
    let error = metadata.instance(within(5_000)).await.unwrap_err();
    assert_eq!(error.to_string(), "metadata instance-id: not found");
}

#[tokio::test]
async fn keys_that_are_not_understood_are_not_shown() {
    let roles = "ram/security-credentials/";
    let facts = BTreeMap::from([
        (roles.to_owned(), "Role"),
        (format!("{roles}Role"), r#"{"AccessKeyId": "AK", "AccessKeySecret": "hush"}"#),
    ]);
    let (_server, metadata) = service(&facts).await;
    let error = metadata.role_credentials(within(5_000)).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("missing field `SecurityToken`") && !text.contains("hush"), "{text}");
}

#[tokio::test]
async fn a_service_that_is_away_is_asked_until_the_deadline() {
    let server = MockServer::start().await;
    Mock::given(method("PUT"))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(method("PUT")).respond_with(text("token")).mount(&server).await;
    Mock::given(method("GET")).respond_with(text("i-1")).mount(&server).await;
    let metadata = Metadata::new(&server.uri()).unwrap();
    let id = metadata.id("instance-id".to_owned(), within(10_000)).await;
    assert_eq!(id.as_deref(), Ok("i-1"));

    let silent = MockServer::start().await;
    let never = text("token").set_delay(Duration::from_mins(1));
    Mock::given(method("PUT")).respond_with(never).mount(&silent).await;
    let metadata = Metadata::new(&silent.uri()).unwrap();
    let start = Instant::now();
    let error = metadata.macs(within(300)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(matches!(error, MetadataError::NoAnswer { .. }), "{error:?}");
}
