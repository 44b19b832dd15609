//! Both signatures over both schemes, in the query or in a form: what is refused, and by which code.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Lab;
use crate::ecs::encoding;
use crate::ecs::signature::{Request, acs3, hmac_sha1};
use crate::ecs::views;

const FORM: &str = "application/x-www-form-urlencoded";
const NAMES: &str = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;\
    x-acs-version";

/// How a call is signed and where its parameters are.
#[derive(Debug, Clone, Copy)]
struct Way {
    secure: bool,
    newer: bool,
    form: bool,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Secret,
    Key,
    Changed,
    Late(i64),
    Date,
    Replayed,
    LeftOut(&'static str),
}

/// One call, made ready to be sent.
struct Sample {
    way: Way,
    wrong: Wrong,
    nonce: String,
    date: Timestamp,
}

impl Sample {
    fn new(way: Way, wrong: Wrong) -> Self {
        let seconds = if let Wrong::Late(seconds) = wrong { seconds } else { 0 };
        let date = crate::ecs::service::now() - SignedDuration::from_secs(seconds);
        Self { way, wrong, nonce: Uuid::new_v4().to_string(), date }
    }

    fn date(&self) -> String {
        match self.wrong {
            Wrong::Date => "20 November".to_owned(),
            _ => views::time(self.date),
        }
    }

    fn key(&self) -> &'static str {
        if self.wrong == Wrong::Key { "LTAInobody" } else { "LTAIlab" }
    }

    fn secret(&self) -> &'static str {
        if self.wrong == Wrong::Secret { "other" } else { "secret" }
    }

    /// Status and code.
    async fn send(&self, lab: &Lab) -> (u16, String) {
        let host = if self.way.secure { lab.secure } else { lab.api };
        let scheme = if self.way.secure { "https" } else { "http" };
        let (query, headers, body) =
            if self.way.newer { self.newer(&host.to_string()) } else { self.older() };
        let mut request = lab.http.post(format!("{scheme}://{host}/?{query}")).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        (status, body["Code"].as_str().unwrap_or("ok").to_owned())
    }

    /// Query, headers, body.
    fn place(&self, text: String) -> (String, BTreeMap<String, String>, String) {
        if self.way.form {
            let kind = ("content-type".to_owned(), FORM.to_owned());
            (String::new(), [kind].into(), text)
        } else {
            (text, BTreeMap::new(), String::new())
        }
    }

    fn older(&self) -> (String, BTreeMap<String, String>, String) {
        let date = self.date();
        let all = [
            ("Action", "DescribeNetworkInterfaces"),
            ("Version", "2014-05-26"),
            ("Format", "JSON"),
            ("RegionId", "cn-hangzhou"),
            ("Timestamp", &date),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &self.nonce),
            ("AccessKeyId", self.key()),
        ];
        let all = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut signed = hmac_sha1::sign("POST", all.to_vec(), self.secret());
        match self.wrong {
            Wrong::Changed => signed.push(("MaxResults".to_owned(), "10".to_owned())),
            Wrong::LeftOut(name) => signed.retain(|(found, _)| found != name),
            _ => {}
        }
        self.place(encoding::canonical(&signed))
    }

    fn newer(&self, host: &str) -> (String, BTreeMap<String, String>, String) {
        let (mut query, mut headers, mut body) = self.place("RegionId=cn-hangzhou".to_owned());
        let hash = acs3::hex(&Sha256::digest(&body));
        for (name, value) in [
            ("host", host),
            ("x-acs-action", "DescribeNetworkInterfaces"),
            ("x-acs-content-sha256", &hash),
            ("x-acs-date", &self.date()),
            ("x-acs-signature-nonce", &self.nonce),
            ("x-acs-version", "2014-05-26"),
        ] {
            headers.insert(name.to_owned(), value.to_owned());
        }
        let names = match self.wrong {
            Wrong::LeftOut(name) => NAMES.replace(&format!("{name};"), ""),
            _ => NAMES.to_owned(),
        };
        let request = Request {
            method: "POST",
            path: "/",
            query: &query,
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed = acs3::sign(request, self.key(), self.secret(), &names);
        headers.insert("authorization".to_owned(), signed);
        if self.wrong == Wrong::Changed {
            let changed = if self.way.form { &mut body } else { &mut query };
            changed.push_str("&MaxResults=10");
        }
        (query, headers, body)
    }
}

fn ways() -> impl Iterator<Item = Way> {
    (0..8).map(|bits| Way { secure: bits & 1 == 1, newer: bits & 2 == 2, form: bits & 4 == 4 })
}

#[tokio::test]
async fn each_wrong_signature_has_the_code_of_the_api_by_every_way() {
    let lab = Lab::new().await;
    for way in ways() {
        let left_out = if way.newer {
            [("host", 400, "SignatureDoesNotMatch"), ("x-acs-date", 400, "SignatureDoesNotMatch")]
        } else {
            [("Signature", 400, "MissingParameter"), ("Timestamp", 400, "MissingParameter")]
        };
        let cases = [
            (Wrong::Nothing, 200, "ok"),
            (Wrong::Late(14 * 60), 200, "ok"),
            (Wrong::Late(-14 * 60), 200, "ok"),
            (Wrong::Secret, 400, "SignatureDoesNotMatch"),
            (Wrong::Changed, 400, "SignatureDoesNotMatch"),
            (Wrong::Key, 404, "InvalidAccessKeyId.NotFound"),
            (Wrong::Late(16 * 60), 400, "InvalidTimeStamp.Expired"),
            (Wrong::Late(-16 * 60), 400, "InvalidTimeStamp.Expired"),
            (Wrong::Date, 400, "InvalidTimeStamp.Format"),
        ];
        let left_out = left_out.map(|(name, status, code)| (Wrong::LeftOut(name), status, code));
        for (wrong, status, code) in cases.into_iter().chain(left_out) {
            let came = Sample::new(way, wrong).send(&lab).await;
            assert_eq!(came, (status, code.to_owned()), "{way:?} {wrong:?}");
        }
        let replayed = Sample::new(way, Wrong::Replayed);
        assert_eq!(replayed.send(&lab).await, (200, "ok".to_owned()), "{way:?}");
        let code = "SignatureNonceUsed".to_owned();
        assert_eq!(replayed.send(&lab).await, (400, code), "{way:?}");
    }
    lab.ecs.stop().await;
}

#[tokio::test]
async fn who_does_not_trust_the_authority_speaks_to_nobody() {
    let lab = Lab::new().await;
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    let error = stranger.get(format!("https://{}/", lab.secure)).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    // And who speaks plainly is not understood.
    let plain = lab.http.get(format!("http://{}/", lab.secure)).send().await;
    assert!(plain.is_err());
    assert_eq!(lab.ecs.dump().calls.len(), 0);
}
