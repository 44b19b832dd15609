//! HTTP as both clients need it: no proxy and no redirect by surprise, and connections reused.

use std::error::Error;
use std::time::Duration;

use crate::{Transport, TransportKind};

/// No connection within this time: nobody is there.
const CONNECT: Duration = Duration::from_secs(3);
/// As much of an answer that is not understood as an error shows.
const CLIP: usize = 200;

/// HTTP cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up HTTP; https needs root certificates (Debian: ca-certificates)")]
pub struct SetupError(#[source] reqwest::Error);

/// Whether any endpoint is https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// With the roots of the machine.
    SystemRoots,
    /// None: no file is read, and https would be refused.
    None,
}

pub(crate) fn client(tls: Tls, timeout: Duration) -> Result<reqwest::Client, SetupError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("terway-rs/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let builder = match tls {
        Tls::SystemRoots => builder,
        Tls::None => builder.tls_certs_only([]),
    };
    builder.build().map_err(SetupError)
}

/// Why a request has no answer. Its URL is left out: it is long, and the action says enough.
pub(crate) fn transport(error: reqwest::Error) -> Transport {
    let kind = if error.is_connect() || error.is_builder() {
        TransportKind::Connect
    } else {
        TransportKind::Sent
    };
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Transport { kind, text }
}

/// The body of an answer, if it has at most so many bytes.
pub(crate) async fn body(mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>, Transport> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > most {
            let text = format!("the answer has more than {most} bytes");
            return Err(Transport { kind: TransportKind::Sent, text });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of an answer.
pub(crate) fn clip(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut clipped: String = text.chars().take(CLIP).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_clipped() {
        assert_eq!(clip(b"short"), "short");
        let clipped = clip("ä".repeat(1000).as_bytes());
        assert_eq!(clipped, "ä".repeat(CLIP) + "…");
    }
}
