//! A client against a cloud that plays a script.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{EniId, InstanceId, InstanceTypeId, SecurityGroupId, VSwitchId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::fixture::{Turn, client, client_with, cloud, impatient, options, set_time};
use crate::{
    AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, ClientToken, CreateEni, DetachEni,
    Ecs, EniFilter, Metadata, NewEni, Outcome, Priority, Thing,
};

const DONE: Turn = Turn::Answer(r#"{"RequestId": "r"}"#);
const ENI: &str = r#"{"RequestId": "r", "NetworkInterfaceId": "eni-1", "Type": "Secondary",
    "MacAddress": "00:16:3e:00:00:01", "Status": "Available", "VSwitchId": "vsw-1",
    "VpcId": "vpc-1", "ZoneId": "z", "PrivateIpAddress": "10.0.1.5"}"#;

fn create() -> CreateEni {
    CreateEni {
        token: ClientToken::from(Uuid::nil()),
        kind: NewEni::Secondary,
        vswitch: VSwitchId::new("vsw-1"),
        security_groups: vec![SecurityGroupId::new("sg-1")],
        secondary_v4: 9,
        v6: 0,
        v4_prefixes: 0,
        v6_prefixes: 0,
        tags: BTreeMap::from([("name".to_owned(), "a b/c+ä".to_owned())]),
        resource_group: None,
        delete_on_release: true,
        source_dest_check: true,
        description: None,
    }
}

fn attach() -> AttachEni {
    let (eni, instance) = (EniId::new("eni-1"), InstanceId::new("i-1"));
    AttachEni { eni, instance, trunk: None, network_card: None }
}

fn within(milliseconds: u64) -> CallOptions {
    CallOptions::new(Priority::Pod, Instant::now() + Duration::from_millis(milliseconds))
}

fn query_of(request: &Request) -> BTreeMap<String, String> {
    request.url.query_pairs().into_owned().collect()
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

#[tokio::test]
async fn what_arrives_is_what_was_signed() {
    let server = cloud(&[Turn::Answer(ENI)]).await;
    client(&server.uri()).create_eni(&create(), within(5_000)).await.unwrap();
    let request = &requests(&server).await[0];
    assert_eq!((request.method.as_str(), request.url.path()), ("POST", "/"));
    assert!(request.body.is_empty());
    assert_eq!(header(request, "content-length"), "0");
    assert_eq!(header(request, "host"), server.address().to_string());
    assert_eq!(header(request, "x-acs-action"), "CreateNetworkInterface");
    assert_eq!(header(request, "x-acs-version"), "2014-05-26");
    assert_eq!(header(request, "x-acs-date"), "2026-11-20T12:00:00Z");

    let authorization = header(request, "authorization");
    let names = authorization.split(['=', ',']).nth(3).unwrap();
    let headers = names.split(';').map(|name| (name, header(request, name).to_owned())).collect();
    let parameters: Vec<_> = query_of(request).into_iter().collect();
    let parameters = parameters.as_slice();
    let unsigned = Unsigned { method: "POST", path: "/", parameters, headers: &headers, body: b"" };
    assert_eq!(unsigned.authorization("AK", "sesame"), authorization);
    for name in ["host", "x-acs-action", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"] {
        assert!(headers.contains_key(name), "{name} is not signed");
    }
}

#[tokio::test]
async fn a_call_outlives_what_passes_with_one_token_and_a_nonce_each() {
    let script = [
        Turn::Throttle,
        Turn::Refuse(500, "InternalError"),
        Turn::Page(502, "<html>"),
        Turn::Refuse(403, "Operation.Conflict"),
        Turn::Answer(ENI),
    ];
    let server = cloud(&script).await;
    let eni = client(&server.uri()).create_eni(&create(), within(30_000)).await.unwrap();
    assert_eq!(eni.v4, ["10.0.1.5".parse::<Ipv4Addr>().unwrap()]);
    let requests = requests(&server).await;
    assert_eq!(requests.len(), script.len());
    let tokens: BTreeSet<_> =
        requests.iter().map(|request| query_of(request)["ClientToken"].clone()).collect();
    assert_eq!(tokens.len(), 1);
    let nonces: BTreeSet<_> =
        requests.iter().map(|request| header(request, "x-acs-signature-nonce")).collect();
    assert_eq!(nonces.len(), script.len());
}

#[tokio::test]
async fn a_lost_answer_is_fetched_with_the_same_token() {
    let server = cloud(&[Turn::Lose, Turn::Answer(ENI)]).await;
    impatient(&server.uri()).create_eni(&create(), within(10_000)).await.unwrap();
    let requests = requests(&server).await;
    assert_eq!(query_of(&requests[0])["ClientToken"], query_of(&requests[1])["ClientToken"]);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_says_so_and_keeps_the_last_refusal() {
    let server = cloud(&[Turn::Throttle, Turn::Lose]).await;
    let start = Instant::now();
    let error = impatient(&server.uri()).create_eni(&create(), within(3_000)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    assert_eq!(error.meaning(), Some(&Meaning::Throttled));
    assert_eq!(error.api().unwrap().request_id, "throttling.user");
    let CloudError::Unknown { action: Action::CreateNetworkInterface, attempts, last } = error
    else {
        panic!("{error:?}")
    };
    assert!(attempts >= 2 && requests(&server).await.len() >= 2);
    assert!(matches!(*last, CloudError::NoAnswer { .. }), "{last:?}");
    let text = last.to_string();
    assert!(text.contains("before that: CreateNetworkInterface: Throttling.User"), "{text}");
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_proves_nothing() {
    let script = [Turn::Lose, Turn::Refuse(400, "InvalidOperation.InvalidEniState")];
    let server = cloud(&script).await;
    let error = impatient(&server.uri()).attach_eni(&attach(), within(10_000)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.meaning(), Some(&Meaning::EniState));
}

#[tokio::test]
async fn a_refusal_after_an_error_page_proves_nothing() {
    let script = [Turn::Page(502, "<html>"), Turn::Refuse(400, "InvalidOperation.InvalidEniState")];
    let server = cloud(&script).await;
    let error = client(&server.uri()).attach_eni(&attach(), within(10_000)).await.unwrap_err();
    assert!(matches!(error, CloudError::Unknown { attempts: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_without_an_answer_had_no_effect() {
    let server = cloud(&[Turn::Lose]).await;
    let filter = EniFilter::id(EniId::new("eni-1"));
    let error = impatient(&server.uri()).describe_enis(&filter, within(1_000)).await.unwrap_err();
    assert!(matches!(error, CloudError::NoAnswer { last: None, .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::None);
}

#[tokio::test]
async fn a_refusal_is_final_and_says_all() {
    let server = cloud(&[Turn::Refuse(403, "InvalidVSwitchId.IpNotEnough")]).await;
    let error = client(&server.uri()).create_eni(&create(), within(5_000)).await.unwrap_err();
    assert_eq!(requests(&server).await.len(), 1);
    assert_eq!(error.outcome(), Outcome::None);
    let vswitch = Some(VSwitchId::new("vsw-1"));
    assert_eq!(error.meaning(), Some(&Meaning::VSwitchExhausted { vswitch }));
    insta::assert_snapshot!(error, @"CreateNetworkInterface: InvalidVSwitchId.IpNotEnough (status 403, request invalidvswitchid.ipnotenough): why");
}

#[tokio::test]
async fn an_error_of_the_cloud_itself_leaves_a_write_unknown() {
    let server = cloud(&[Turn::Refuse(500, "InternalError")]).await;
    let error = client(&server.uri()).attach_eni(&attach(), within(1_000)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(error.meaning(), Some(&Meaning::Unavailable));
    assert_eq!(error.api().unwrap().request_id, "internalerror");
}

#[tokio::test]
async fn garbage_names_the_action_and_shows_itself() {
    for (status, body, reason) in [
        (200, "", "EOF while parsing"),
        (200, "<html>portal</html>", "expected value"),
        (200, "{}", "missing field `NetworkInterfaceId`"),
        (200, "[1]", "invalid type"),
        (200, "{\"RequestId\": \"r\"} {}", "missing field"),
        (404, "not found", "expected ident"),
    ] {
        let server = cloud(&[Turn::Page(status, body)]).await;
        let error = client(&server.uri()).create_eni(&create(), within(5_000)).await.unwrap_err();
        assert_eq!(requests(&server).await.len(), 1, "{body}");
        assert_eq!(error.outcome(), Outcome::Unknown, "{body}");
        assert!(matches!(&error, CloudError::Garbage { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("CreateNetworkInterface: answer with status"), "{text}");
        assert!(text.contains(reason) && text.contains(&format!("{body:?}")), "{text}");
    }
}

#[tokio::test]
async fn a_write_is_not_done_by_an_answer_without_a_request_id() {
    let server = cloud(&[Turn::Answer("{}")]).await;
    let error = client(&server.uri()).attach_eni(&attach(), within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("missing field `RequestId`"), "{error}");
}

#[tokio::test]
async fn what_never_left_this_host_had_no_effect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let start = Instant::now();
    let client = client(&format!("http://{address}"));
    let error = client.create_eni(&create(), within(1_000)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(4));
    let CloudError::NoAnswer { attempts, source, .. } = &error else { panic!("{error:?}") };
    assert!(*attempts > 1, "{error:?}");
    assert_eq!(source.kind, TransportKind::Connect);
    assert!(source.text.contains("Connection refused"), "{source}");
    assert!(!source.text.contains("vsw-1"), "the URL is left out: {source}");
    assert_eq!(error.outcome(), Outcome::None);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let page = r#"{"NetworkInterfaceSets": {"NetworkInterfaceSet": [ENI]}, "NextToken": "NEXT"}"#;
    let page = |id: &str, next: &str| -> &'static str {
        let page = page.replace("ENI", &ENI.replace("eni-1", id)).replace("NEXT", next);
        page.leak()
    };
    let script = [page("eni-3", "a+/="), page("eni-2", "b"), page("eni-3", "")].map(Turn::Answer);
    let server = cloud(&script).await;
    let instance = InstanceId::new("i-1");
    let filter = EniFilter::instance(instance);
    let enis = client(&server.uri()).describe_enis(&filter, within(5_000)).await.unwrap();
    let ids: Vec<_> = enis.iter().map(|eni| eni.id.as_str()).collect();
    assert_eq!(ids, ["eni-2", "eni-3"], "each once, in the order of the ids");
    let asked: Vec<_> = requests(&server).await.iter().map(query_of).collect();
    let tokens: Vec<_> = asked.iter().map(|query| query.get("NextToken").cloned()).collect();
    assert_eq!(tokens, [None, Some("a+/=".to_owned()), Some("b".to_owned())]);
    assert!(asked.iter().all(|query| query["InstanceId"] == "i-1" && query["MaxResults"] == "500"));
    assert!(asked.iter().all(|query| query["RegionId"] == "cn-hangzhou"));

    let endless = cloud(&[Turn::Answer(page("eni-3", "same"))]).await;
    let error = client(&endless.uri()).describe_enis(&filter, within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("NextToken is the same as before"), "{error}");
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once_and_stays_corrected() {
    let later = Turn::ClockIs("Fri, 20 Nov 2026 13:30:00 GMT");
    let server = cloud(&[later, DONE]).await;
    let corrected_client = client(&server.uri());
    corrected_client.attach_eni(&attach(), within(5_000)).await.unwrap();
    corrected_client.attach_eni(&attach(), within(5_000)).await.unwrap();
    let dates: Vec<_> = requests(&server)
        .await
        .iter()
        .map(|request| header(request, "x-acs-date").to_owned())
        .collect();
    let corrected = "2026-11-20T13:30:00Z";
    assert_eq!(dates, ["2026-11-20T12:00:00Z", corrected, corrected]);

    let stubborn = cloud(&[later]).await;
    let error = client(&stubborn.uri()).attach_eni(&attach(), within(5_000)).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::Clock));
    assert_eq!(requests(&stubborn).await.len(), 2);
}

/// A metadata service whose role has these session tokens, one after the other.
async fn role(tokens: &[&str], expires: &str) -> MockServer {
    let server = MockServer::start().await;
    let text = |text: &str| ResponseTemplate::new(200).set_body_string(text);
    let role = "/latest/meta-data/ram/security-credentials/";
    Mock::given(method("PUT")).respond_with(text("token")).mount(&server).await;
    Mock::given(path(role)).respond_with(text("TerwayRole")).mount(&server).await;
    for token in tokens {
        let keys = serde_json::json!({"Code": "Success", "AccessKeyId": "STS.AK",
            "AccessKeySecret": "sts-secret", "SecurityToken": token, "Expiration": expires});
        let keys = ResponseTemplate::new(200).set_body_json(keys);
        let times = if Some(token) == tokens.last() { u64::MAX } else { 1 };
        let mock = Mock::given(path(format!("{role}TerwayRole"))).respond_with(keys);
        mock.up_to_n_times(times).mount(&server).await;
    }
    server
}

fn with_role(endpoint: &str, metadata: &MockServer) -> Client {
    let metadata = Arc::new(Metadata::new(&metadata.uri()).unwrap());
    client_with(ClientOptions { credentials: Credentials::ram_role(metadata), ..options(endpoint) })
}

async fn session_tokens(server: &MockServer) -> Vec<String> {
    let tokens = requests(server).await;
    tokens.iter().map(|request| header(request, "x-acs-security-token").to_owned()).collect()
}

#[tokio::test]
async fn expired_keys_of_a_role_are_fetched_anew_and_the_call_repeated() {
    let metadata = role(&["old", "new"], "2026-11-20T18:00:00Z").await;
    let server = cloud(&[Turn::Refuse(400, "InvalidSecurityToken.Expired"), DONE]).await;
    let client = with_role(&server.uri(), &metadata);
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    assert_eq!(session_tokens(&server).await, ["old", "new", "new"]);
    assert!(requests(&server).await.iter().all(|request| {
        header(request, "x-acs-accesskey-id") == "STS.AK"
            && header(request, "authorization").contains("x-acs-security-token")
    }));
}

#[tokio::test]
async fn keys_of_a_role_are_renewed_before_they_end_but_not_with_every_call() {
    let metadata = role(&["old", "new", "newest"], "2026-11-20T18:00:00Z").await;
    let server = cloud(&[DONE]).await;
    let client = with_role(&server.uri(), &metadata);
    for time in ["12:00:00", "17:44:00", "17:46:00", "17:46:10", "17:46:40"] {
        set_time(&format!("2026-11-20T{time}Z"));
        client.attach_eni(&attach(), within(5_000)).await.unwrap();
    }
    assert_eq!(session_tokens(&server).await, ["old", "old", "new", "new", "newest"]);
}

#[tokio::test]
async fn keys_that_could_not_be_renewed_serve_to_their_end() {
    let metadata = role(&["old"], "2026-11-20T18:00:00Z").await;
    let server = cloud(&[DONE]).await;
    let client = with_role(&server.uri(), &metadata);
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    metadata.reset().await;
    set_time("2026-11-20T17:59:00Z");
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    assert_eq!(requests(&metadata).await.len(), 1, "it is not asked with every call");
    set_time("2026-11-20T18:00:00Z");
    let error = client.attach_eni(&attach(), within(5_000)).await.unwrap_err();
    assert!(matches!(error, CloudError::Credentials { .. }), "{error:?}");
    assert_eq!(session_tokens(&server).await, ["old", "old", "old"]);
}

#[tokio::test]
async fn a_role_that_is_not_there_or_has_ended_is_named() {
    let server = cloud(&[DONE]).await;
    let ended = role(&["old"], "2026-11-20T11:59:59Z").await;
    let error = with_role(&server.uri(), &ended).attach_eni(&attach(), within(5_000)).await;
    let CloudError::Credentials { source, .. } = error.unwrap_err() else { panic!() };
    assert_eq!(source.to_string(), "the keys of the RAM role expired at 2026-11-20T11:59:59Z");
    let none = MockServer::start().await;
    Mock::given(method("PUT"))
        .respond_with(ResponseTemplate::new(200).set_body_string("token"))
        .mount(&none)
        .await;
    let error = with_role(&server.uri(), &none).attach_eni(&attach(), within(5_000)).await;
    let CloudError::Credentials { source, .. } = error.unwrap_err() else { panic!() };
    assert!(source.to_string().contains("set access_key"), "{source}");
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn a_spent_budget_sends_nothing_and_names_its_key() {
    let server = cloud(&[Turn::Answer(ENI)]).await;
    let rate_limits = [(Action::CreateNetworkInterface, NonZeroU32::MIN)].into_iter().collect();
    let client = client_with(ClientOptions { rate_limits, ..options(&server.uri()) });
    client.create_eni(&create(), within(5_000)).await.unwrap();
    let error = client.create_eni(&create(), within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("raise rate_limit.CreateNetworkInterface"), "{error}");
    assert_eq!(error.outcome(), Outcome::None);
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_new_rate_limit_is_in_force_at_once() {
    let server = cloud(&[Turn::Answer(ENI)]).await;
    let limit = |calls| {
        let calls = NonZeroU32::new(calls).unwrap();
        [(Action::CreateNetworkInterface, calls)].into_iter().collect()
    };
    let client = client_with(ClientOptions { rate_limits: limit(1), ..options(&server.uri()) });
    client.create_eni(&create(), within(5_000)).await.unwrap();
    client.create_eni(&create(), within(5_000)).await.unwrap_err();
    client.set_rate_limits(&limit(500));
    client.create_eni(&create(), within(5_000)).await.unwrap();
    client.set_rate_limits(&limit(2));
    let error = client.create_eni(&create(), within(5_000)).await.unwrap_err();
    assert!(error.to_string().contains("the budget of 2 calls a minute"), "{error}");
}

#[tokio::test]
async fn a_budget_spent_by_repeating_leaves_the_refusal() {
    let server = cloud(&[Turn::Throttle]).await;
    let rate_limits = [(Action::AttachNetworkInterface, NonZeroU32::MIN)].into_iter().collect();
    let client = client_with(ClientOptions { rate_limits, ..options(&server.uri()) });
    let error = client.attach_eni(&attach(), within(5_000)).await.unwrap_err();
    assert!(matches!(error, CloudError::Refused(_)), "{error:?}");
    assert_eq!(error.meaning(), Some(&Meaning::Throttled));
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn the_release_of_what_is_gone_is_done() {
    let deadline = || within(5_000);
    let (eni, one) = (EniId::new("eni-1"), "10.0.1.5".parse::<Ipv4Addr>().unwrap());
    let two = [one, "10.0.1.6".parse().unwrap()];
    let detach = DetachEni { eni: eni.clone(), instance: InstanceId::new("i-1"), trunk: None };

    let no_eni = cloud(&[Turn::Refuse(404, "InvalidEniId.NotFound")]).await;
    let client_of = |server: &MockServer| client(&server.uri());
    let client = client_of(&no_eni);
    client.delete_eni(&eni, deadline()).await.unwrap();
    client.detach_eni(&detach, deadline()).await.unwrap();
    client.unassign_v4(&eni, &two, deadline()).await.unwrap();
    client.unassign_v6(&eni, &["2408::5".parse().unwrap()], deadline()).await.unwrap();
    let error = client.attach_eni(&attach(), deadline()).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::NotFound(Thing::Eni)));

    let no_instance = cloud(&[Turn::Refuse(404, "InvalidEcsId.NotFound")]).await;
    let client = client_of(&no_instance);
    client.detach_eni(&detach, deadline()).await.unwrap();
    client.delete_eni(&eni, deadline()).await.unwrap_err();

    let no_address = cloud(&[Turn::Refuse(403, "InvalidIp.IpUnassigned")]).await;
    let client = client_of(&no_address);
    client.unassign_v4(&eni, &[one], deadline()).await.unwrap();
    let error = client.unassign_v4(&eni, &two, deadline()).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::NotFound(Thing::Address)));
}

#[tokio::test]
async fn addresses_are_assigned_and_said() {
    let v4 = Turn::Answer(
        r#"{"AssignedPrivateIpAddressesSet": {"NetworkInterfaceId": "eni-1",
        "PrivateIpSet": {"PrivateIpAddress": ["10.0.1.7", "10.0.1.8"]}}, "RequestId": "r"}"#,
    );
    let v6 = Turn::Answer(r#"{"Ipv6Sets": {"Ipv6Address": ["2408::7"]}, "RequestId": "r"}"#);
    let server = cloud(&[v4, v6]).await;
    let client = client(&server.uri());
    let token = ClientToken::from(Uuid::nil());
    let eni = EniId::new("eni-1");
    let request = AssignAddresses {
        token: token.clone(),
        eni: eni.clone(),
        addresses: AddressRequest::Any(2),
    };
    let found = client.assign_v4(&request, within(5_000)).await.unwrap();
    assert_eq!(found, ["10.0.1.7", "10.0.1.8"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
    let request = AssignAddresses { token, eni, addresses: AddressRequest::Any(1) };
    let found = client.assign_v6(&request, within(5_000)).await.unwrap();
    assert_eq!(found, ["2408::7".parse::<Ipv6Addr>().unwrap()]);
}

#[tokio::test]
async fn prefixes_are_assigned_and_said_and_taken_away() {
    let v4 = Turn::Answer(
        r#"{"AssignedPrivateIpAddressesSet": {"NetworkInterfaceId": "eni-1",
        "Ipv4PrefixSet": {"Ipv4Prefixes": ["10.0.1.16/28", "10.0.1.32/28"]}}, "RequestId": "r"}"#,
    );
    let v6 = Turn::Answer(
        r#"{"Ipv6PrefixSets": {"Ipv6Prefix": ["2408:0:0:0:1::/80"]}, "RequestId": "r"}"#,
    );
    let server = cloud(&[v4, DONE, v6, DONE]).await;
    let client = client(&server.uri());
    let eni = EniId::new("eni-1");
    let some = |count| {
        let (token, eni) = (ClientToken::from(Uuid::nil()), EniId::new("eni-1"));
        AssignPrefixes { token, eni, count }
    };
    let found = client.assign_v4_prefixes(&some(2), within(5_000)).await.unwrap();
    assert_eq!(found, ["10.0.1.16/28", "10.0.1.32/28"].map(|text| text.parse().unwrap()));
    client.unassign_v4_prefixes(&eni, &found, within(5_000)).await.unwrap();
    let found = client.assign_v6_prefixes(&some(1), within(5_000)).await.unwrap();
    assert_eq!(found, ["2408:0:0:0:1::/80".parse().unwrap()]);
    client.unassign_v6_prefixes(&eni, &found, within(5_000)).await.unwrap();

    let sent = requests(&server).await;
    let asked: Vec<_> = sent.iter().map(query_of).collect();
    assert_eq!(asked[0]["Ipv4PrefixCount"], "2");
    assert_eq!(asked[1]["Ipv4Prefix.2"], "10.0.1.32/28");
    assert_eq!(asked[2]["Ipv6PrefixCount"], "1");
    assert_eq!(asked[3]["Ipv6Prefix.1"], "2408::1:0:0:0/80");
    let actions: Vec<_> = sent.iter().map(|request| header(request, "x-acs-action")).collect();
    let expected = ["AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"];
    assert_eq!(actions[..2], expected);
    assert_eq!(actions[2..], ["AssignIpv6Addresses", "UnassignIpv6Addresses"]);
}

#[tokio::test]
async fn what_the_cloud_does_not_know_is_none() {
    let empty = Turn::Answer(r#"{"InstanceTypes": {"InstanceType": []}, "VSwitches": {}}"#);
    let server = cloud(&[empty, empty, Turn::Refuse(400, "InvalidVSwitchId.NotFound")]).await;
    let client = client(&server.uri());
    let kind = InstanceTypeId::new("ecs.odd");
    assert_eq!(client.instance_type(&kind, within(5_000)).await, Ok(None));
    let vswitch = VSwitchId::new("vsw-1");
    assert_eq!(client.vswitch(&vswitch, within(5_000)).await, Ok(None));
    assert_eq!(client.vswitch(&vswitch, within(5_000)).await, Ok(None));
    let last = &requests(&server).await[2];
    assert_eq!(header(last, "x-acs-version"), "2016-04-28", "vSwitches are the VPC's");
}

#[tokio::test]
async fn a_signature_that_is_wrong_is_told_without_our_secrets() {
    let told = r#"{"Code": "SignatureDoesNotMatch", "RequestId": "r",
        "Message": "string to sign is: x-acs-security-token:old;sts-secret"}"#;
    let metadata = role(&["old"], "2026-11-20T18:00:00Z").await;
    let server = cloud(&[Turn::Page(400, told)]).await;
    let client = with_role(&server.uri(), &metadata);
    let error = client.attach_eni(&attach(), within(5_000)).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::Forbidden));
    let text = format!("{error} {error:?}");
    assert!(text.contains("[redacted];[redacted]") && !text.contains("sts-secret"), "{text}");
    assert!(!format!("{client:?}").contains("sts-secret"));
}

/// Counts connections; answers every request of each with `DONE`.
async fn counting(connections: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                    if request.ends_with(b"\r\n\r\n") {
                        let body = r#"{"RequestId": "r"}"#;
                        let length = body.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        request.clear();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn calls_share_a_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let address = counting(Arc::clone(&connections)).await;
    let client = client(&format!("http://{address}"));
    for _ in 0..20 {
        client.attach_eni(&attach(), within(5_000)).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
