//! ACS3-HMAC-SHA256: the signature over a request, as `alibabacloud-tea-openapi` makes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// What is signed. All headers that are in it are signed.
#[derive(Debug)]
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    /// Absolute, percent-encoded.
    pub(crate) path: &'a str,
    /// Parameters, not encoded, in any order.
    pub(crate) parameters: &'a [(String, String)],
    /// Names in lower case.
    pub(crate) headers: &'a BTreeMap<&'a str, String>,
    pub(crate) body: &'a [u8],
}

impl Unsigned<'_> {
    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self, key_id: &str, secret: &str) -> String {
        let digest = hex(&Sha256::digest(self.canonical()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(format!("{ALGORITHM}\n{digest}").as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        let names = self.signed_headers();
        format!("{ALGORITHM} Credential={key_id},SignedHeaders={names},Signature={signature}")
    }

    fn canonical(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.method, self.path, query(self.parameters));
        for (name, value) in self.headers {
            text.extend([name, ":", value.trim(), "\n"]);
        }
        text.extend(["\n", &self.signed_headers(), "\n", &content_sha256(self.body)]);
        text
    }

    fn signed_headers(&self) -> String {
        let names: Vec<_> = self.headers.keys().copied().collect();
        names.join(";")
    }
}

/// The value of the header `x-acs-content-sha256`.
pub(crate) fn content_sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// Parameters in the order of their names, encoded: as it is signed and as it is sent.
pub(crate) fn query(parameters: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort();
    let pair = |(name, value): &(String, String)| format!("{}={}", encode(name), encode(value));
    let pairs: Vec<_> = sorted.into_iter().map(pair).collect();
    pairs.join("&")
}

/// RFC 3986: all but letters, digits and `-_.~` as `%XX` of its UTF-8.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes any text");
        }
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{SdkRequest, sdk_requests};

    #[test]
    fn every_request_of_the_official_sdk_gets_the_signature_that_the_sdk_gave_it() {
        let captured = sdk_requests();
        assert_eq!(captured.requests.len(), 16);
        for SdkRequest { parameters, headers, authorization } in &captured.requests {
            let names = authorization.split(['=', ',']).nth(3).unwrap();
            let signed: BTreeMap<_, _> =
                names.split(';').map(|name| (name, headers[name].clone())).collect();
            let request =
                Unsigned { method: "POST", path: "/", parameters, headers: &signed, body: b"" };
            let ours = request.authorization(&captured.access_key_id, &captured.access_key_secret);
            assert_eq!(&ours, authorization, "{}", request.canonical());
        }
    }

    #[test]
    fn the_canonical_request_is_sorted_and_encoded() {
        let parameters: Vec<_> =
            [("Tag.10.Value", "c 1/2+3=4*~ä"), ("Tag.2.Value", ""), ("RegionId", "cn-hangzhou")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec();
        let headers = BTreeMap::from([
            ("x-acs-action", "AttachNetworkInterface".to_owned()),
            ("host", " ecs.cn-hangzhou.aliyuncs.com ".to_owned()),
        ]);
        let request = Unsigned {
            method: "POST",
            path: "/",
            parameters: &parameters,
            headers: &headers,
            body: b"",
        };
        insta::assert_snapshot!(request.canonical(), @r"
        POST
        /
        RegionId=cn-hangzhou&Tag.10.Value=c%201%2F2%2B3%3D4%2A~%C3%A4&Tag.2.Value=
        host:ecs.cn-hangzhou.aliyuncs.com
        x-acs-action:AttachNetworkInterface

        host;x-acs-action
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
        ");
        // What `Utils.get_authorization` of the SDK says.
        let signature = "f4b3ab57b88f733b923f6975b3fd565d6b0432a40f0e07ff5a92e0b4292c34e9";
        let authorization = request.authorization("AK", "secret");
        let (names, found) = authorization.rsplit_once(",Signature=").unwrap();
        assert_eq!(names, "ACS3-HMAC-SHA256 Credential=AK,SignedHeaders=host;x-acs-action");
        assert_eq!(found, signature);
    }
}
