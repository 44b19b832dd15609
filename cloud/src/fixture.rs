//! For tests: what the official SDK sent, and a cloud that plays a script.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use model::RegionId;
use serde::Deserialize;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::clock::Clock;
use crate::{
    AccessKey, Client, ClientOptions, Credentials, EndpointOptions, Endpoints, RateLimits,
};

/// What the official Python SDK sent (`testdata/capture.py` made the file).
#[derive(Debug, Deserialize)]
pub(crate) struct Captured {
    pub(crate) access_key_id: String,
    pub(crate) access_key_secret: String,
    pub(crate) requests: Vec<SdkRequest>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SdkRequest {
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) authorization: String,
}

pub(crate) fn sdk_requests() -> Captured {
    serde_json::from_str(include_str!("../testdata/sdk-requests.json")).unwrap()
}

/// What the cloud does with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    /// 200 with this body.
    Answer(&'static str),
    /// An error body with this status and code; its `RequestId` is the code in lower case.
    Refuse(u16, &'static str),
    /// The same as `Refuse(400, "Throttling.User")`, and says that a millisecond is enough.
    Throttle,
    /// The same, with this header and value.
    ThrottleWith(&'static str, &'static str),
    /// Refused, because its clock says this.
    ClockIs(&'static str),
    /// A status and a body that is not the cloud's.
    Page(u16, &'static str),
    /// It does what is asked, and the answer never comes.
    Lose,
}

impl Turn {
    fn play(self) -> ResponseTemplate {
        match self {
            Self::Answer(body) => ResponseTemplate::new(200).set_body_raw(body, "application/json"),
            Self::Refuse(status, code) => ResponseTemplate::new(status)
                .set_body_json(serde_json::json!({"Code": code, "Message": "why", "HostId": "h",
                    "RequestId": code.to_ascii_lowercase()})),
            Self::Throttle => Self::ThrottleWith("x-acs-retry-after", "1").play(),
            Self::ThrottleWith(header, value) => {
                Self::Refuse(400, "Throttling.User").play().insert_header(header, value)
            }
            Self::ClockIs(date) => {
                Self::Refuse(400, "InvalidTimeStamp.Expired").play().insert_header("date", date)
            }
            Self::Page(status, body) => {
                ResponseTemplate::new(status).set_body_raw(body, "text/html")
            }
            Self::Lose => ResponseTemplate::new(200).set_delay(Duration::from_mins(1)),
        }
    }
}

/// The turns in their order; the last one is played again and again.
struct Script(Mutex<VecDeque<Turn>>);

impl Respond for Script {
    fn respond(&self, _request: &Request) -> ResponseTemplate {
        let mut turns = self.0.lock().unwrap();
        let turn = if turns.len() > 1 { turns.pop_front() } else { turns.front().copied() };
        turn.expect("a script has a turn").play()
    }
}

pub(crate) async fn cloud(script: &[Turn]) -> MockServer {
    let server = MockServer::start().await;
    let script = Script(Mutex::new(script.iter().copied().collect()));
    Mock::given(any()).respond_with(script).mount(&server).await;
    server
}

thread_local! {
    /// 12:00 on 20 November 2026, whenever the test runs, until the test says otherwise.
    static TIME: Cell<Timestamp> = Cell::new("2026-11-20T12:00:00Z".parse().unwrap());
}

/// Sets the wall clock of this test's clients; of this thread, that is.
pub(crate) fn set_time(time: &str) {
    TIME.set(time.parse().unwrap());
}

pub(crate) fn options(endpoint: &str) -> ClientOptions {
    let region = RegionId::new("cn-hangzhou");
    let endpoint = Some(endpoint.to_owned());
    let endpoints =
        EndpointOptions { ecs: endpoint.clone(), vpc: endpoint, ..EndpointOptions::default() };
    let key = AccessKey { id: "AK".to_owned(), secret: "sesame".into() };
    ClientOptions {
        endpoints: Endpoints::new(&region, &endpoints).unwrap(),
        region,
        credentials: Credentials::AccessKey(key),
        rate_limits: RateLimits::default(),
        attempt_timeout: Duration::from_secs(10),
        repeat_for: Duration::from_mins(10),
    }
}

pub(crate) fn client(endpoint: &str) -> Client {
    client_with(options(endpoint))
}

/// It gives up on an answer after half a second.
pub(crate) fn impatient(endpoint: &str) -> Client {
    let attempt_timeout = Duration::from_millis(500);
    client_with(ClientOptions { attempt_timeout, ..options(endpoint) })
}

pub(crate) fn client_with(options: ClientOptions) -> Client {
    Client::with_clock(options, Clock::reading(|| TIME.get())).unwrap()
}
