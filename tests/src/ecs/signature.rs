//! Whether a request was signed by somebody we know: the newer ACS3-HMAC-SHA256 in headers, and the
//! older HMAC-SHA1 in parameters, which many tools still send.

pub(crate) mod acs3;
pub(crate) mod hmac_sha1;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::credentials::Keyring;
use super::encoding;
use super::refusal::Refusal;

/// A clock may differ by this much, and a nonce is remembered that long.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// A request as it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Without the `?`.
    pub(crate) query: &'a str,
    /// Names in lower case; of one that came twice, the values joined by a comma.
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) body: &'a [u8],
}

/// What a request asks for, once it is known who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) action: String,
    pub(crate) version: String,
    /// Those of the action alone.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) access_key: String,
}

/// Nonces of the last while; one is good once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nonces {
    used: BTreeMap<String, Timestamp>,
}

impl Nonces {
    fn take(&mut self, nonce: &str, now: Timestamp) -> Result<(), Refusal> {
        // A request may be dated up to one window ahead and be repeated until one behind.
        self.used.retain(|_, since| now.duration_since(*since) <= WINDOW * 2);
        if self.used.contains_key(nonce) {
            let text = "Specified signature nonce was used already.";
            return Err(Refusal::new(400, "SignatureNonceUsed", text));
        }
        self.used.insert(nonce.to_owned(), now);
        Ok(())
    }
}

/// Reads a request and checks its signature.
pub(crate) fn verify(
    request: Request<'_>,
    keyring: &Keyring,
    nonces: &mut Nonces,
    now: Timestamp,
) -> Result<Call, Refusal> {
    if !matches!(request.method, "GET" | "POST") || request.path != "/" {
        let text = format!("{} {} is no call of this API.", request.method, request.path);
        return Err(Refusal::new(404, "InvalidAction.NotFound", text));
    }
    let mut parameters = encoding::pairs(request.query)?;
    parameters.extend(form(request)?);
    if request.headers.contains_key("authorization") {
        acs3::verify(request, parameters, keyring, nonces, now)
    } else {
        hmac_sha1::verify(request.method, parameters, keyring, nonces, now)
    }
}

fn form(request: Request<'_>) -> Result<Vec<(String, String)>, Refusal> {
    if request.body.is_empty() {
        return Ok(Vec::new());
    }
    let kind = request.headers.get("content-type").map(String::as_str).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::invalid("body", "only a form is read"));
    }
    let text = std::str::from_utf8(request.body);
    encoding::pairs(text.map_err(|error| Refusal::invalid("body", error))?)
}

/// A date in the one form that the API takes, and not too far from now.
fn check_date(text: &str, now: Timestamp) -> Result<(), Refusal> {
    let parsed: Option<Timestamp> = text.parse().ok();
    let date = parsed.filter(|date| super::views::time(*date) == text).ok_or_else(|| {
        let text = format!("Specified time stamp {text} is not as yyyy-MM-ddTHH:mm:ssZ.");
        Refusal::new(400, "InvalidTimeStamp.Format", text)
    })?;
    if now.duration_since(date).abs() > WINDOW {
        let text = "Specified time stamp or date value is expired.";
        return Err(Refusal::new(400, "InvalidTimeStamp.Expired", text));
    }
    Ok(())
}

/// In one line, for it is read in logs.
fn does_not_match(what_was_signed: &str) -> Refusal {
    let what_was_signed = what_was_signed.replace('\n', "\\n");
    let text = format!(
        "Specified signature is not matched with our calculation. \
         server string to sign is:{what_was_signed}"
    );
    Refusal::new(400, "SignatureDoesNotMatch", text)
}
