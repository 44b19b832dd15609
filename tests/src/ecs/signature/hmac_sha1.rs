//! The older signature: everything is a parameter, of the query or of a form.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha1::Sha1;

use super::{Call, Nonces, check_date, does_not_match};
use crate::ecs::credentials::Keyring;
use crate::ecs::encoding;
use crate::ecs::refusal::Refusal;

/// Those that are about the call and no parameters of its action.
const COMMON: [&str; 11] = [
    "Action",
    "Version",
    "Format",
    "Timestamp",
    "SignatureMethod",
    "SignatureType",
    "SignatureVersion",
    "SignatureNonce",
    "AccessKeyId",
    "SecurityToken",
    "Signature",
];

pub(super) fn verify(
    method: &str,
    parameters: Vec<(String, String)>,
    keyring: &Keyring,
    nonces: &mut Nonces,
    now: Timestamp,
) -> Result<Call, Refusal> {
    let given = |name: &str| {
        let found = parameters.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let get = |name: &str| given(name).ok_or_else(|| Refusal::missing(name));
    let key = get("AccessKeyId")?;
    let claimed = get("Signature")?;
    let (action, version, nonce) = (get("Action")?, get("Version")?, get("SignatureNonce")?);
    for (name, expected) in
        [("SignatureMethod", "HMAC-SHA1"), ("SignatureVersion", "1.0"), ("Format", "JSON")]
    {
        if get(name)? != expected {
            return Err(Refusal::invalid(name, format!("only {expected} is served")));
        }
    }
    check_date(get("Timestamp")?, now)?;
    let secret = keyring.secret(key, given("SecurityToken"), now)?;
    let signed = string_to_sign(method, &parameters);
    if signature(secret, &signed).as_deref() != Some(claimed) {
        return Err(does_not_match(&signed));
    }
    nonces.take(nonce, now)?;
    let (action, version, access_key) = (action.to_owned(), version.to_owned(), key.to_owned());
    let parameters =
        parameters.into_iter().filter(|(name, _)| !COMMON.contains(&name.as_str())).collect();
    Ok(Call { action, version, parameters, access_key })
}

/// The parameters with a signature over them, for tests that speak HTTP.
#[cfg(test)]
pub(crate) fn sign(
    method: &str,
    mut parameters: Vec<(String, String)>,
    secret: &str,
) -> Vec<(String, String)> {
    let signed = signature(secret, &string_to_sign(method, &parameters)).unwrap();
    parameters.push(("Signature".to_owned(), signed));
    parameters
}

fn string_to_sign(method: &str, parameters: &[(String, String)]) -> String {
    let signed: Vec<_> =
        parameters.iter().filter(|(name, _)| name != "Signature").cloned().collect();
    format!("{method}&%2F&{}", encoding::encode(&encoding::canonical(&signed)))
}

fn signature(secret: &str, signed: &str) -> Option<String> {
    let mut mac = Hmac::<Sha1>::new_from_slice(format!("{secret}&").as_bytes()).ok()?;
    mac.update(signed.as_bytes());
    Some(BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::credentials::AccessKey;

    fn keyring() -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(AccessKey { id: "testid".to_owned(), secret: "testsecret".to_owned() });
        keyring
    }

    /// The worked example of the public page on the RPC signature, with its well-known answer.
    fn sample() -> Vec<(String, String)> {
        [
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Format", "XML"),
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Version", "2014-05-26"),
            ("SignatureVersion", "1.0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn signed(parameters: Vec<(String, String)>, secret: &str) -> Vec<(String, String)> {
        sign("POST", parameters, secret)
    }

    fn code(parameters: Vec<(String, String)>) -> String {
        let now = "2016-02-23T12:50:00Z".parse().unwrap();
        let result = verify("POST", parameters, &keyring(), &mut Nonces::default(), now);
        result.map_or_else(|refusal| refusal.code, |call| call.action)
    }

    #[test]
    fn the_documented_example_gets_the_documented_signature() {
        let signed = string_to_sign("GET", &sample());
        assert_eq!(signature("testsecret", &signed).unwrap(), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
    }

    #[test]
    fn a_good_signature_leaves_the_parameters_of_the_action() {
        let mut parameters = sample();
        parameters[1].1 = "JSON".to_owned();
        parameters.push(("RegionId".to_owned(), "cn-hangzhou".to_owned()));
        let now = "2016-02-23T12:50:00Z".parse().unwrap();
        let all = signed(parameters, "testsecret");
        let mut nonces = Nonces::default();
        let call = verify("POST", all.clone(), &keyring(), &mut nonces, now).unwrap();
        assert_eq!(call.action, "DescribeRegions");
        assert_eq!(call.parameters, [("RegionId".to_owned(), "cn-hangzhou".to_owned())]);
        let again = verify("POST", all, &keyring(), &mut nonces, now).unwrap_err();
        assert_eq!(again.code, "SignatureNonceUsed");
    }

    #[test]
    fn a_bad_one_is_told_why() {
        let mut json = sample();
        json[1].1 = "JSON".to_owned();
        assert_eq!(code(signed(json.clone(), "testsecret")), "DescribeRegions");
        assert_eq!(code(signed(sample(), "testsecret")), "InvalidParameter", "XML");
        assert_eq!(code(signed(json.clone(), "other")), "SignatureDoesNotMatch");
        assert_eq!(code(json.clone()), "MissingParameter");
        assert_eq!(code(Vec::new()), "MissingParameter", "no signature of either kind");
        let mut late = json.clone();
        late[0].1 = "2016-02-23T12:34:00Z".to_owned();
        assert_eq!(code(signed(late, "testsecret")), "InvalidTimeStamp.Expired");
        json[2].1 = "nobody".to_owned();
        assert_eq!(code(signed(json, "testsecret")), "InvalidAccessKeyId.NotFound");
    }
}
