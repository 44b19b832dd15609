//! The caller's deadline, from the `grpc-timeout` header.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// For a caller that sets no deadline; what the plugin's is by default.
pub const DEFAULT: Duration = Duration::from_mins(1);

/// When the caller gives up.
pub fn of(metadata: &MetadataMap) -> Instant {
    let header = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    Instant::now() + header.and_then(parse).unwrap_or(DEFAULT)
}

/// 1 to 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(count)),
        "M" => Some(Duration::from_mins(count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_the_protocol_says() {
        for (text, expected) in [
            ("2H", Some(Duration::from_hours(2))),
            ("1M", Some(Duration::from_mins(1))),
            ("60S", Some(Duration::from_mins(1))),
            ("2000m", Some(Duration::from_secs(2))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("5n", Some(Duration::from_nanos(5))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("1s", None),
            ("1µ", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_without_a_deadline_gets_the_default() {
        let mut metadata = MetadataMap::new();
        assert_eq!(of(&metadata), Instant::now() + DEFAULT);
        metadata.insert("grpc-timeout", "3S".parse().unwrap());
        assert_eq!(of(&metadata), Instant::now() + Duration::from_secs(3));
    }
}
