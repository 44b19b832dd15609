//! ACS3-HMAC-SHA256: everything but the parameters is in headers.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Call, Nonces, Request, check_date, does_not_match};
use crate::ecs::credentials::Keyring;
use crate::ecs::encoding;
use crate::ecs::refusal::Refusal;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

pub(super) fn verify(
    request: Request<'_>,
    parameters: Vec<(String, String)>,
    keyring: &Keyring,
    nonces: &mut Nonces,
    now: Timestamp,
) -> Result<Call, Refusal> {
    let authorization = Authorization::parse(header(request, "authorization")?)?;
    let action = header(request, "x-acs-action")?;
    let version = header(request, "x-acs-version")?;
    let nonce = header(request, "x-acs-signature-nonce")?;
    check_date(header(request, "x-acs-date")?, now)?;
    check_names(request, &authorization)?;
    let token = header(request, "x-acs-security-token").ok();
    let secret = keyring.secret(authorization.key, token, now)?;
    check_content(request)?;
    let canonical = canonical(request, &parameters, &authorization.names)?;
    let signed = format!("{ALGORITHM}\n{}", hex(&Sha256::digest(&canonical)));
    if !is_signature(secret, &signed, authorization.signature) {
        return Err(does_not_match(&format!("{signed} of {canonical}")));
    }
    nonces.take(nonce, now)?;
    Ok(Call {
        action: action.to_owned(),
        version: version.to_owned(),
        parameters,
        access_key: authorization.key.to_owned(),
    })
}

/// `ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…`
struct Authorization<'a> {
    key: &'a str,
    /// In the order given.
    names: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        let wrong = || {
            let text = format!("The header Authorization is not {ALGORITHM} with its three parts.");
            Refusal::new(400, "IncompleteSignature", text)
        };
        let rest = text.strip_prefix(ALGORITHM).ok_or_else(wrong)?.trim_start();
        let part = |name: &str| {
            let mut parts = rest.split(',').filter_map(|part| part.trim().split_once('='));
            parts.find(|(found, _)| *found == name).map(|(_, value)| value).ok_or_else(wrong)
        };
        let names = part("SignedHeaders")?.split(';').collect();
        Ok(Self { key: part("Credential")?, names, signature: part("Signature")? })
    }
}

fn header<'a>(request: Request<'a>, name: &str) -> Result<&'a str, Refusal> {
    let value = request.headers.get(name).map(String::as_str);
    value.filter(|value| !value.is_empty()).ok_or_else(|| Refusal::missing(name))
}

/// `host` and every `x-acs-*` that was sent are signed, and the names are sorted.
fn check_names(request: Request<'_>, authorization: &Authorization<'_>) -> Result<(), Refusal> {
    let names = &authorization.names;
    let mut needed =
        request.headers.keys().filter(|name| *name == "host" || name.starts_with("x-acs-"));
    if let Some(unsigned) = needed.find(|name| !names.contains(&name.as_str())) {
        return Err(does_not_match(&format!("the header {unsigned} is not signed")));
    }
    if !names.contains(&"host") || !names.is_sorted() {
        return Err(does_not_match("SignedHeaders is not sorted or lacks host"));
    }
    Ok(())
}

fn check_content(request: Request<'_>) -> Result<(), Refusal> {
    let claimed = header(request, "x-acs-content-sha256")?;
    let actual = hex(&Sha256::digest(request.body));
    if claimed == actual { Ok(()) } else { Err(does_not_match(&format!("a body of {actual}"))) }
}

/// A form's parameters are covered by the body's hash, not by the query.
fn canonical(
    request: Request<'_>,
    parameters: &[(String, String)],
    names: &[&str],
) -> Result<String, Refusal> {
    let of_query = encoding::pairs(request.query)?.len();
    let query = encoding::canonical(parameters.get(..of_query).unwrap_or_default());
    let line = |name: &&str| {
        let value = request.headers.get(*name).map(|value| value.trim()).unwrap_or_default();
        format!("{name}:{value}\n")
    };
    let headers: String = names.iter().map(line).collect();
    let content = header(request, "x-acs-content-sha256")?;
    let Request { method, path, .. } = request;
    Ok(format!("{method}\n{path}\n{query}\n{headers}\n{}\n{content}", names.join(";")))
}

fn is_signature(secret: &str, signed: &str, claimed: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(signed.as_bytes());
    hex(&mac.finalize().into_bytes()) == claimed
}

/// The header `Authorization` over a request, for tests that speak HTTP.
#[cfg(test)]
pub(crate) fn sign(request: Request<'_>, key: &str, secret: &str, names: &str) -> String {
    let list: Vec<_> = names.split(';').collect();
    let parameters = encoding::pairs(request.query).unwrap();
    let canonical = canonical(request, &parameters, &list).unwrap();
    let signed = format!("{ALGORITHM}\n{}", hex(&Sha256::digest(&canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    format!("{ALGORITHM} Credential={key},SignedHeaders={names},Signature={signature}")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;
    use crate::ecs::credentials::AccessKey;

    const DATE: &str = "2026-11-20T12:04:44Z";
    const NAMES: &str = "accept;host;user-agent;x-acs-action;x-acs-content-sha256;\
        x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version";

    /// A request of the shape that the official SDK (alibabacloud-tea-openapi 0.4.6) sends.
    struct Sample {
        headers: BTreeMap<String, String>,
        query: String,
        keyring: Keyring,
        nonces: Nonces,
        now: Timestamp,
    }

    impl Sample {
        fn new() -> Self {
            let headers = [
                ("accept", "application/json"),
                ("host", "127.0.0.1:8080"),
                ("user-agent", "AlibabaCloud (linux; x86_64) Python/3.11.7"),
                ("x-acs-action", "DescribeNetworkInterfaces"),
                ("x-acs-content-sha256", &hex(&Sha256::digest(b""))),
                ("x-acs-credentials-provider", "static_ak"),
                ("x-acs-date", DATE),
                ("x-acs-signature-nonce", "7a0c2b0e0f9d4a6f8f1f8f1c3e1d2c3b"),
                ("x-acs-version", "2014-05-26"),
            ];
            let mut keyring = Keyring::default();
            keyring.add(AccessKey { id: "LTAIlab".to_owned(), secret: "secret".to_owned() });
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let mut sample = Self {
                headers,
                query: "RegionId=cn-hangzhou&Tag.1.Key=a%20b".to_owned(),
                keyring,
                nonces: Nonces::default(),
                now: DATE.parse().unwrap(),
            };
            sample.sign("LTAIlab", "secret", NAMES);
            sample
        }

        fn request(&self) -> Request<'_> {
            Request {
                method: "POST",
                path: "/",
                query: &self.query,
                headers: &self.headers,
                body: b"",
            }
        }

        fn sign(&mut self, key: &str, secret: &str, names: &str) {
            let text = sign(self.request(), key, secret, names);
            self.headers.insert("authorization".to_owned(), text);
        }

        fn verify(&mut self) -> Result<Call, Refusal> {
            let request = Request {
                method: "POST",
                path: "/",
                query: &self.query,
                headers: &self.headers,
                body: b"",
            };
            super::super::verify(request, &self.keyring, &mut self.nonces, self.now)
        }

        fn code(&mut self) -> String {
            self.verify().map_or_else(|refusal| refusal.code, |_call| "ok".to_owned())
        }
    }

    #[test]
    fn a_good_signature_says_who_asks_and_for_what() {
        let call = Sample::new().verify().unwrap();
        assert_eq!(call.action, "DescribeNetworkInterfaces");
        assert_eq!(call.access_key, "LTAIlab");
        assert_eq!(call.parameters[1], ("Tag.1.Key".to_owned(), "a b".to_owned()));
    }

    #[test]
    fn a_request_counts_once() {
        let mut sample = Sample::new();
        assert_eq!(sample.code(), "ok");
        assert_eq!(sample.code(), "SignatureNonceUsed");
    }

    #[test]
    fn a_clock_may_be_15_minutes_off_and_no_more() {
        for (minutes, code) in [
            (15, "ok"),
            (-15, "ok"),
            (16, "InvalidTimeStamp.Expired"),
            (-16, "InvalidTimeStamp.Expired"),
        ] {
            let mut sample = Sample::new();
            sample.now += SignedDuration::from_mins(minutes);
            assert_eq!(sample.code(), code, "{minutes}");
        }
        let mut sample = Sample::new();
        sample.headers.insert("x-acs-date".to_owned(), "2026-11-20 12:04:44".to_owned());
        assert_eq!(sample.code(), "InvalidTimeStamp.Format");
    }

    #[test]
    fn whatever_is_changed_after_signing_breaks_the_signature() {
        let mut sample = Sample::new();
        sample.query = "RegionId=cn-beijing&Tag.1.Key=a%20b".to_owned();
        assert_eq!(sample.code(), "SignatureDoesNotMatch");
        for name in ["host", "x-acs-version", "x-acs-action", "x-acs-signature-nonce", "user-agent"]
        {
            let mut sample = Sample::new();
            sample.headers.insert(name.to_owned(), "other".to_owned());
            let refusal = sample.verify().unwrap_err();
            assert_eq!(refusal.code, "SignatureDoesNotMatch", "{name}");
            assert!(refusal.message.contains("server string to sign is:ACS3"), "{name}");
            assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
        }
        let mut sample = Sample::new();
        sample.headers.insert("x-acs-content-sha256".to_owned(), "0".repeat(64));
        assert_eq!(sample.code(), "SignatureDoesNotMatch");
    }

    #[test]
    fn only_get_and_post_of_the_root_are_calls() {
        let sample = Sample::new();
        for (method, path, code) in [
            ("GET", "/", "SignatureDoesNotMatch"),
            ("PUT", "/", "InvalidAction.NotFound"),
            ("POST", "/x", "InvalidAction.NotFound"),
        ] {
            let request = Request { method, path, ..sample.request() };
            let mut nonces = Nonces::default();
            let verified = super::super::verify(request, &sample.keyring, &mut nonces, sample.now);
            assert_eq!(verified.unwrap_err().code, code, "{method} {path}");
        }
    }

    #[test]
    fn a_wrong_key_and_a_wrong_secret_are_told_apart() {
        let mut sample = Sample::new();
        sample.sign("LTAIother", "secret", NAMES);
        assert_eq!(sample.code(), "InvalidAccessKeyId.NotFound");
        sample.sign("LTAIlab", "other", NAMES);
        assert_eq!(sample.code(), "SignatureDoesNotMatch");
    }

    #[test]
    fn host_and_every_header_of_the_api_must_be_signed() {
        for left_out in ["host;", "x-acs-date;", "x-acs-credentials-provider;"] {
            let mut sample = Sample::new();
            sample.sign("LTAIlab", "secret", &NAMES.replace(left_out, ""));
            assert_eq!(sample.code(), "SignatureDoesNotMatch", "{left_out}");
        }
        let mut sample = Sample::new();
        sample.sign("LTAIlab", "secret", &NAMES.replace("accept;", ""));
        assert_eq!(sample.code(), "ok", "what else is signed is up to the client");
        for missing in ["x-acs-date", "x-acs-action", "x-acs-signature-nonce"] {
            let mut sample = Sample::new();
            sample.headers.remove(missing);
            assert_eq!(sample.code(), "MissingParameter", "{missing}");
        }
        let mut sample = Sample::new();
        sample.headers.insert("authorization".to_owned(), "Bearer x".to_owned());
        assert_eq!(sample.code(), "IncompleteSignature");
    }
}
