//! Calls per minute and action: a bucket each, that fills evenly.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::refusal::Refusal;

/// Milliseconds in a minute: what one call costs is this over the limit.
const MINUTE: i64 = 60_000;

/// The buckets, full at the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets {
    /// For each action, when it would be full again, in milliseconds since 1970 times the limit,
    /// so that nothing is lost by rounding.
    empty_until: BTreeMap<String, i64>,
}

impl Buckets {
    /// Takes one call out of the bucket of `action`, or says why not.
    pub(crate) fn take(
        &mut self,
        action: &str,
        per_minute: u32,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let limit = i64::from(per_minute);
        let scaled = now.as_millisecond().saturating_mul(limit);
        let full_at = self.empty_until.get(action).copied().unwrap_or(scaled).max(scaled);
        let after = full_at.saturating_add(MINUTE);
        if after.saturating_sub(scaled) > MINUTE.saturating_mul(limit) {
            return Err(throttled(action));
        }
        self.empty_until.insert(action.to_owned(), after);
        Ok(())
    }
}

/// The answer to one call too many.
pub(crate) fn throttled(action: &str) -> Refusal {
    let text = format!("Request was denied due to user flow control of {action}.");
    Refusal::new(400, "Throttling.User", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millisecond).unwrap()
    }

    #[test]
    fn a_bucket_holds_a_minutes_calls_and_fills_evenly() {
        let mut buckets = Buckets::default();
        for _call in 0..400 {
            buckets.take("Assign", 400, at(0)).unwrap();
        }
        assert_eq!(buckets.take("Assign", 400, at(149)).unwrap_err().code, "Throttling.User");
        buckets.take("Describe", 400, at(0)).unwrap();
        buckets.take("Assign", 400, at(150)).unwrap();
        assert!(buckets.take("Assign", 400, at(150)).is_err());
        let granted =
            (150..60_150).filter(|time| buckets.take("Assign", 400, at(*time)).is_ok()).count();
        assert_eq!(granted, 399);
    }

    #[test]
    fn a_limit_of_zero_refuses_all() {
        assert!(Buckets::default().take("Assign", 0, at(0)).is_err());
    }
}
