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
    /// Calls that have come in and have no answer yet.
    serving: BTreeMap<TokenKey, BTreeMap<String, String>>,
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

    fn mismatch(&self) -> Refusal {
        let text =
            format!("The specified ClientToken {} was used with other parameters.", self.token);
        Refusal::new(400, "IdempotentParameterMismatch", text)
    }

    fn in_flight(&self) -> Refusal {
        let text = format!("The previous request with ClientToken {} is processing.", self.token);
        Refusal::new(400, "IdempotentFailed", text)
    }
}

impl Tokens {
    /// A call with a token has come in; [`Self::end`] when it is answered. Refused while another
    /// call with the token is served.
    pub(crate) fn begin(
        &mut self,
        key: &TokenKey,
        parameters: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        match self.serving.get(key) {
            Some(known) if *known != parameters => Err(key.mismatch()),
            Some(_same) => Err(key.in_flight()),
            None => {
                self.serving.insert(key.clone(), parameters);
                Ok(())
            }
        }
    }

    pub(crate) fn end(&mut self, key: &TokenKey) {
        self.serving.remove(key);
    }

    /// How many calls with a token are being served.
    #[cfg(test)]
    pub(crate) fn serving(&self) -> usize {
        self.serving.len()
    }

    /// What was answered to this very call before; `None`: it is new.
    pub(crate) fn answered(
        &self,
        key: &TokenKey,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<Value>, Refusal> {
        let Some(known) = self.remembered.get(key) else { return Ok(None) };
        if &known.parameters != parameters {
            return Err(key.mismatch());
        }
        if known.in_flight {
            return Err(key.in_flight());
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
        assert_eq!(busy.code, "IdempotentFailed");
        tokens.done(&key("t"));
        assert_eq!(tokens.answered(&key("t"), &parameters("a")), Ok(Some(json!({"Id": 1}))));
        let other = tokens.answered(&key("t"), &parameters("b")).unwrap_err();
        assert_eq!(other.code, "IdempotentParameterMismatch");
        assert_eq!(tokens.answered(&key("u"), &parameters("b")), Ok(None));

        tokens.forget(start + SignedDuration::from_secs(61), 60);
        assert_eq!(tokens.answered(&key("t"), &parameters("b")), Ok(None));
    }

    #[test]
    fn one_call_with_a_token_is_served_at_a_time() {
        let mut tokens = Tokens::default();
        tokens.begin(&key("t"), parameters("a")).unwrap();
        let again = tokens.begin(&key("t"), parameters("a")).unwrap_err();
        assert_eq!(again.code, "IdempotentFailed");
        let other = tokens.begin(&key("t"), parameters("b")).unwrap_err();
        assert_eq!(other.code, "IdempotentParameterMismatch");
        assert_eq!(tokens.begin(&key("u"), parameters("a")), Ok(()));
        tokens.end(&key("t"));
        assert_eq!(tokens.begin(&key("t"), parameters("b")), Ok(()));
    }

    #[test]
    fn a_token_whose_work_failed_is_free() {
        let mut tokens = Tokens::default();
        tokens.remember(key("t"), parameters("a"), json!({}), true, Timestamp::UNIX_EPOCH);
        tokens.failed(&key("t"));
        assert_eq!(tokens.answered(&key("t"), &parameters("b")), Ok(None));
    }
}
