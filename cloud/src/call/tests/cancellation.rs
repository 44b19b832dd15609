//! A caller who goes away in the midst of a call.

use tokio::time::timeout;

use super::*;

/// Calls, and goes away before there is an answer.
async fn go_away<T>(call: impl Future<Output = Result<T, CloudError>>) {
    let gone = timeout(Duration::from_millis(300), call).await;
    assert!(gone.is_err(), "it was answered");
}

#[tokio::test]
async fn a_write_that_was_dropped_is_asked_for_again_with_its_token() {
    let server = cloud(&[Turn::Lose, Turn::Answer(ENI)]).await;
    let client = client(&server.uri());
    let request = create();
    go_away(client.create_eni(&request, within(60_000))).await;
    let eni = client.create_eni(&request, within(5_000)).await.unwrap();
    assert_eq!(eni.id.as_str(), "eni-1");
    let sent = requests(&server).await;
    let [before, after] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(query_of(before), query_of(after), "all of it is the same");
    assert_eq!(query_of(before)["ClientToken"], request.token.to_string());
    let nonce = |request| header(request, "x-acs-signature-nonce");
    assert_ne!(nonce(before), nonce(after));
}

#[tokio::test]
async fn who_goes_away_while_he_waits_for_room_leaves_it_to_the_next() {
    let server = cloud(&[Turn::Answer(ENI)]).await;
    // Two a minute: one at once, the next after 30 s.
    let limit = NonZeroU32::new(2).unwrap();
    let rate_limits = [(Action::CreateNetworkInterface, limit)].into_iter().collect();
    let client = client_with(ClientOptions { rate_limits, ..options(&server.uri()) });
    client.create_eni(&create(), within(5_000)).await.unwrap();
    go_away(client.create_eni(&create(), within(40_000))).await;
    let error = client.create_eni(&create(), within(5_000)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(30), "his place is free: {wait:?}");
    assert_eq!(requests(&server).await.len(), 1, "nothing was sent for him");
}
