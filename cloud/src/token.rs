//! The name of one intent.

use std::fmt;

use model::OutOfRange;
use uuid::Uuid;

/// `ClientToken`: the cloud performs the intent that carries it once, however often it is sent.
/// At most 64 printable ASCII characters. The caller makes it and keeps it with the intent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientToken(String);

impl ClientToken {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for ClientToken {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl TryFrom<String> for ClientToken {
    type Error = OutOfRange;

    fn try_from(value: String) -> Result<Self, OutOfRange> {
        let fits = (1..=64).contains(&value.len());
        if fits && value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(value))
        } else {
            Err(OutOfRange { what: "client token", value })
        }
    }
}

impl fmt::Display for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_at_most_64_printable_characters() {
        for token in ["", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(ClientToken::try_from(token.to_owned()).is_err(), "{token:?}");
        }
        assert!(ClientToken::try_from("x".repeat(64)).is_ok());
        let from_uuid = ClientToken::from(Uuid::nil());
        assert_eq!(ClientToken::try_from(from_uuid.to_string()), Ok(from_uuid));
    }
}
