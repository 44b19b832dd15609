//! `ClientToken`: the same token and the same parameters are the same call, whatever happened to the
//! first answer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::refusal::Refusal;

/// A token counts within one action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenKey {
    action: &'static str,
    token: String,
}

#[derive(Debug, Clone)]
struct Remembered {
    since: Timestamp,
    parameters: BTreeMap<String, String>,
    answer: Value,
    in_flight: bool,
}

/// The tokens of the last while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens {
    remembered: BTreeMap<TokenKey, Remembered>,
}

impl TokenKey {
    /// At most 64 characters of ASCII.
    pub(crate) fn new(action: &'static str, token: &str) -> Result<Self, Refusal> {
        if token.len() > 64 || !token.is_ascii() {
            let why = "it has more than 64 characters or some that are not ASCII";
            return Err(Refusal::invalid("ClientToken", why));
        }
        Ok(Self { action, token: token.to_owned() })
    }
}

impl Tokens {
    /// What was answered to this very call before; `None`: it is new.
    pub(crate) fn answered(
        &self,
        key: &TokenKey,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<Value>, Refusal> {
        let Some(known) = self.remembered.get(key) else { return Ok(None) };
        if &known.parameters != parameters {
            let text = format!(
                "The specified ClientToken {} was used with other parameters before.",
                key.token
            );
            return Err(Refusal::new(400, "IdempotentParameterMismatch", text));
        }
        if known.in_flight {
            let text =
                format!("The previous request with ClientToken {} is processing.", key.token);
            return Err(Refusal::new(403, "IdempotentProcessing", text));
        }
        Ok(Some(known.answer.clone()))
    }

    pub(crate) fn remember(
        &mut self,
        key: TokenKey,
        parameters: BTreeMap<String, String>,
        answer: Value,
        in_flight: bool,
        now: Timestamp,
    ) {
        let remembered = Remembered { since: now, parameters, answer, in_flight };
        self.remembered.insert(key, remembered);
    }

    /// Its work is done; only now does it have an answer.
    pub(crate) fn done(&mut self, key: &TokenKey) {
        if let Some(known) = self.remembered.get_mut(key) {
            known.in_flight = false;
        }
    }

    /// Its work failed: as if it had never been.
    pub(crate) fn failed(&mut self, key: &TokenKey) {
        self.remembered.remove(key);
    }

    pub(crate) fn forget(&mut self, now: Timestamp, after_seconds: u32) {
        let age = SignedDuration::from_secs(i64::from(after_seconds));
        self.remembered.retain(|_, known| now.duration_since(known.since) <= age);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters(vswitch: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("VSwitchId".to_owned(), vswitch.to_owned())])
    }

    fn key(token: &str) -> TokenKey {
        TokenKey::new("CreateNetworkInterface", token).unwrap()
    }

    #[test]
    fn a_token_is_64_ascii_characters_at_most() {
        assert!(TokenKey::new("A", &"x".repeat(64)).is_ok());
        assert_eq!(TokenKey::new("A", &"x".repeat(65)).unwrap_err().code, "InvalidParameter");
        assert!(TokenKey::new("A", "tök").is_err());
    }

    #[test]
    fn a_token_means_one_call_for_a_while() {
        let mut tokens = Tokens::default();
        let start = Timestamp::UNIX_EPOCH;
        tokens.remember(key("t"), parameters("a"), json!({"Id": 1}), true, start);
        let busy = tokens.answered(&key("t"), &parameters("a")).unwrap_err();
        assert_eq!(busy.code, "IdempotentProcessing");
        tokens.done(&key("t"));
        assert_eq!(tokens.answered(&key("t"), &parameters("a")), Ok(Some(json!({"Id": 1}))));
        let other = tokens.answered(&key("t"), &parameters("b")).unwrap_err();
        assert_eq!(other.code, "IdempotentParameterMismatch");
        assert_eq!(tokens.answered(&key("u"), &parameters("b")), Ok(None));

        tokens.forget(start + SignedDuration::from_secs(61), 60);
        assert_eq!(tokens.answered(&key("t"), &parameters("b")), Ok(None));
    }

    #[test]
    fn a_token_whose_work_failed_is_free() {
        let mut tokens = Tokens::default();
        tokens.remember(key("t"), parameters("a"), json!({}), true, Timestamp::UNIX_EPOCH);
        tokens.failed(&key("t"));
        assert_eq!(tokens.answered(&key("t"), &parameters("b")), Ok(None));
    }
}
