//! What the metadata service writes, and how it becomes ours.

use std::str::FromStr;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use super::MetadataError;
use crate::answer::from_json;
use crate::http;

/// Keys of the instance's role.
#[derive(Debug)]
pub(crate) struct RoleCredentials {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    pub(crate) token: SecretString,
    pub(crate) expires: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCredentials {
    access_key_id: String,
    access_key_secret: SecretString,
    security_token: SecretString,
    expiration: Timestamp,
}

/// The keys of a role.
pub(crate) fn role(path: &str, text: &str) -> Result<RoleCredentials, MetadataError> {
    let wire: WireCredentials = from_json(text.as_bytes()).map_err(|reason| {
        // The answer holds secrets: it is not shown.
        let (path, body) = (path.to_owned(), "[redacted]".to_owned());
        MetadataError::Garbage { path, reason, body }
    })?;
    let (id, secret) = (wire.access_key_id, wire.access_key_secret);
    let (token, expires) = (wire.security_token, wire.expiration);
    Ok(RoleCredentials { id, secret, token, expires })
}

/// A name: one word.
pub(crate) fn name(path: &str, text: &str) -> Result<String, MetadataError> {
    let word = text.lines().next().unwrap_or_default().trim();
    let clean = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if word.is_empty() || !word.chars().all(clean) {
        return Err(garbage(path, "not a name", text));
    }
    Ok(word.to_owned())
}

/// The token to ask with.
pub(crate) fn token(path: &str, text: &str) -> Result<SecretString, MetadataError> {
    let word = text.trim();
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(garbage(path, "not a token", text));
    }
    Ok(SecretString::from(word))
}

pub(crate) fn value<T: FromStr>(path: &str, text: &str) -> Result<T, MetadataError> {
    let text = text.trim();
    let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    text.parse().map_err(|_wrong| garbage(path, &format!("not of type {kind}"), text))
}

/// Nothing, or a value.
pub(crate) fn maybe<T: FromStr>(path: &str, text: &str) -> Result<Option<T>, MetadataError> {
    if text.trim().is_empty() { Ok(None) } else { value(path, text).map(Some) }
}

/// The service writes lists in three ways: `["a","b"]`, `[a,b]` and a line each.
pub(crate) fn list<T: FromStr>(path: &str, text: &str) -> Result<Vec<T>, MetadataError> {
    let between = |c: char| c.is_whitespace() || "[]\",".contains(c);
    let words = text.split(between).filter(|word| !word.is_empty());
    words.map(|word| value(path, word)).collect()
}

fn garbage(path: &str, reason: &str, body: &str) -> MetadataError {
    let (path, reason) = (path.to_owned(), reason.to_owned());
    MetadataError::Garbage { path, reason, body: http::clip(body.as_bytes()) }
}
