//! A client against a cloud that plays a script.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use model::{EniId, InstanceId, InstanceTypeId, SecurityGroupId, VSwitchId};
use tokio::net::TcpListener;
use uuid::Uuid;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

mod actions;
mod cancellation;
mod connections;
mod credentials;
mod last_error;

use super::*;
use crate::fixture::{Turn, client, client_with, cloud, impatient, options, set_time};
use crate::sign::Unsigned;
use crate::{
    AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, ClientToken, CreateEni, DetachEni,
    Ecs, EniFilter, Metadata, NewEni, Outcome, Priority, Thing, TransportKind,
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
async fn how_long_the_cloud_wants_to_be_left_alone_reaches_the_caller() {
    for (header, value, seconds) in [
        ("x-acs-retry-after", "7500", 7.5),
        ("retry-after", "7", 7.0),
        ("retry-after", "Fri, 20 Nov 2026 12:00:30 GMT", 30.0),
        ("retry-after", "Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
    ] {
        let server = cloud(&[Turn::ThrottleWith(header, value), Turn::Answer(ENI)]).await;
        let client = client(&server.uri());
        let start = Instant::now();
        let result = client.create_eni(&create(), within(3_000)).await;
        if seconds == 0.0 {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2), "it does not wait in vain");
        assert_eq!(error.retry_after(), Some(Duration::from_secs_f64(seconds)), "{value}");
        assert_eq!(requests(&server).await.len(), 1);
    }
    let server = cloud(&[Turn::ThrottleWith("retry-after", "soon")]).await;
    let error = client(&server.uri()).create_eni(&create(), within(500)).await.unwrap_err();
    assert_eq!(error.retry_after(), None);
}

#[tokio::test]
async fn our_own_budget_says_when_it_has_room() {
    let server = cloud(&[Turn::Answer(ENI)]).await;
    let rate_limits = [(Action::CreateNetworkInterface, NonZeroU32::MIN)].into_iter().collect();
    let client = client_with(ClientOptions { rate_limits, ..options(&server.uri()) });
    client.create_eni(&create(), within(5_000)).await.unwrap();
    let error = client.create_eni(&create(), within(5_000)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert!((Duration::from_secs(55)..=Duration::from_mins(1)).contains(&wait), "{wait:?}");
}

#[tokio::test]
async fn a_refusal_before_garbage_is_kept() {
    let server = cloud(&[Turn::Throttle, Turn::Page(200, "<html>")]).await;
    let error = client(&server.uri()).create_eni(&create(), within(10_000)).await.unwrap_err();
    assert_eq!(error.api().unwrap().request_id, "throttling.user");
    assert_eq!(error.outcome(), Outcome::Unknown);
    let CloudError::Unknown { last, .. } = &error else { panic!("{error:?}") };
    assert!(last.to_string().contains("before that: CreateNetworkInterface: Throttling.User"));
}

#[tokio::test]
async fn a_token_that_an_unanswered_attempt_still_uses_is_waited_for() {
    let script = [Turn::Lose, Turn::Refuse(400, "IdempotentFailed"), Turn::Answer(ENI)];
    let server = cloud(&script).await;
    impatient(&server.uri()).create_eni(&create(), within(10_000)).await.unwrap();
    assert_eq!(requests(&server).await.len(), 3);

    let server = cloud(&[Turn::Refuse(400, "IdempotentFailed"), Turn::Answer(ENI)]).await;
    let error = impatient(&server.uri()).create_eni(&create(), within(10_000)).await.unwrap_err();
    assert_eq!(error.meaning(), Some(&Meaning::TokenMismatch), "nothing of ours is under way");
}
