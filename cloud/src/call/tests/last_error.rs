//! What a person sees of what went wrong.

use super::*;

#[tokio::test]
async fn the_last_error_of_the_cloud_is_kept_with_its_request_also_when_it_was_overcome() {
    let server = cloud(&[Turn::Refuse(503, "ServiceUnavailable"), Turn::Answer(ENI)]).await;
    let client = client(&server.uri());
    assert_eq!(client.last_error(), None);
    client.create_eni(&create(), within(10_000)).await.unwrap();
    let last = client.last_error().unwrap();
    assert_eq!(last.at, "2026-11-20T12:00:00Z".parse().unwrap());
    insta::assert_snapshot!(last.error, @"CreateNetworkInterface: ServiceUnavailable (status 503, request serviceunavailable): why");
}

#[tokio::test]
async fn the_last_error_names_the_refusal_before_silence() {
    let server = cloud(&[Turn::Throttle, Turn::Lose]).await;
    let client = impatient(&server.uri());
    client.create_eni(&create(), within(2_500)).await.unwrap_err();
    let error = client.last_error().unwrap().error;
    assert!(error.starts_with("CreateNetworkInterface: outcome unknown"), "{error}");
    assert!(error.contains("before that: CreateNetworkInterface: Throttling.User (status 400, request throttling.user)"), "{error}");
}
