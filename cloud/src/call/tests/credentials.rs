//! Keys of a session, renewed and refused.

use wiremock::matchers::any;

use super::*;
use crate::credentials::tests::token_file;

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
        client.credentials().settled().await;
    }
    assert_eq!(session_tokens(&server).await, ["old", "old", "old", "new", "new"]);
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    assert_eq!(session_tokens(&server).await.last().unwrap(), "newest");
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
    client.credentials().settled().await;
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

#[tokio::test]
async fn no_call_waits_for_the_metadata_service_while_the_old_keys_serve() {
    let metadata = role(&["old"], "2026-11-20T18:00:00Z").await;
    let server = cloud(&[DONE]).await;
    let client = with_role(&server.uri(), &metadata);
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    metadata.reset().await;
    let never = ResponseTemplate::new(200).set_delay(Duration::from_mins(1));
    Mock::given(any()).respond_with(never).mount(&metadata).await;
    set_time("2026-11-20T17:50:00Z");
    let start = Instant::now();
    for _ in 0..3 {
        client.attach_eni(&attach(), within(5_000)).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(session_tokens(&server).await, ["old"; 4]);
}

#[tokio::test]
async fn a_token_file_is_used_before_the_role_and_the_role_when_its_session_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token-config");
    let metadata = role(&["of the role"], "2026-11-20T18:00:00Z").await;
    let expired = Turn::Refuse(400, "InvalidSecurityToken.Expired");
    let server = cloud(&[DONE, DONE, expired, DONE]).await;
    let sources = vec![
        Credentials::token_file(&path),
        Credentials::ram_role(Arc::new(Metadata::new(&metadata.uri()).unwrap())),
    ];
    let credentials = Credentials::first_of(sources);
    let client = client_with(ClientOptions { credentials, ..options(&server.uri()) });

    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    std::fs::write(&path, token_file(0)).unwrap();
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    client.attach_eni(&attach(), within(5_000)).await.unwrap();
    let [first, then, refused, last] = &*session_tokens(&server).await else { panic!() };
    assert_eq!((first.as_str(), last.as_str()), ("of the role", "of the role"));
    assert!(then.starts_with("CAIStoken/+==") && then == refused, "{then} {refused}");
}

#[tokio::test]
async fn when_no_source_has_keys_each_says_why() {
    let server = cloud(&[DONE]).await;
    let none = MockServer::start().await;
    let sources = vec![
        Credentials::token_file("/nowhere/token-config"),
        Credentials::ram_role(Arc::new(Metadata::new(&none.uri()).unwrap())),
    ];
    let credentials = Credentials::first_of(sources);
    let client = client_with(ClientOptions { credentials, ..options(&server.uri()) });
    let error = client.attach_eni(&attach(), within(1_000)).await.unwrap_err();
    let CloudError::Credentials { source, .. } = &error else { panic!("{error:?}") };
    insta::assert_snapshot!(source, @"no usable credentials: token file /nowhere/token-config: it cannot be read (No such file or directory (os error 2)); renew the secret addon.network.token, or correct credential_path; no keys of a RAM role; attach one to the instance, or set access_key: metadata /latest/api/token: not found");
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn keys_that_are_changed_sign_the_next_call() {
    let server = cloud(&[DONE, DONE]).await;
    let client = client(&server.uri());
    client.delete_eni(&EniId::new("eni-1"), within(5_000)).await.unwrap();
    let key = crate::AccessKey { id: "AK2".to_owned(), secret: "open".into() };
    client.set_credentials(Credentials::AccessKey(key));
    client.delete_eni(&EniId::new("eni-1"), within(5_000)).await.unwrap();
    let requests = requests(&server).await;
    for (request, id) in requests.iter().zip(["AK", "AK2"]) {
        let authorization = header(request, "authorization");
        assert!(authorization.contains(&format!("Credential={id},")), "{authorization}");
    }
    assert_eq!(requests.len(), 2);
}
