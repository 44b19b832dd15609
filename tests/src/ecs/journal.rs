//! What was called: a log of the latest calls and counts of all.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Calls that are kept whole.
const KEPT: usize = 10_000;

/// One call of the API, as it was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// When it came in.
    pub at: Timestamp,
    /// `Action`.
    pub action: String,
    /// Of the answer.
    pub request_id: String,
    /// Who asked.
    pub access_key: String,
    /// What was asked.
    pub parameters: BTreeMap<String, String>,
    /// `ok`, a `Code`, or `lost`.
    pub outcome: String,
    /// Whether a fault struck it.
    pub fault: bool,
    /// From the request to the answer, in milliseconds.
    pub took_ms: u64,
}

/// Counts of one action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// All of them.
    pub calls: u64,
    /// By outcome: `ok`, each `Code`, `lost`.
    pub outcomes: BTreeMap<String, u64>,
}

/// The log and the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    latest: VecDeque<CallRecord>,
    counts: BTreeMap<String, CallCount>,
}

impl Journal {
    pub(crate) fn record(&mut self, record: CallRecord) {
        let count = self.counts.entry(record.action.clone()).or_default();
        count.calls += 1;
        *count.outcomes.entry(record.outcome.clone()).or_default() += 1;
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(record);
    }

    pub(crate) const fn counts(&self) -> &BTreeMap<String, CallCount> {
        &self.counts
    }

    pub(crate) fn latest(&self) -> impl Iterator<Item = &CallRecord> {
        self.latest.iter()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_when_old_calls_are_forgotten() {
        let mut journal = Journal::default();
        for call in 0..KEPT + 5 {
            journal.record(CallRecord {
                at: Timestamp::UNIX_EPOCH,
                action: "Describe".to_owned(),
                request_id: call.to_string(),
                access_key: String::new(),
                parameters: BTreeMap::new(),
                outcome: if call % 2 == 0 { "ok" } else { "Throttling.User" }.to_owned(),
                fault: false,
                took_ms: 0,
            });
        }
        assert_eq!(journal.latest().count(), KEPT);
        assert_eq!(journal.latest().next().unwrap().request_id, "5");
        let count = &journal.counts()["Describe"];
        assert_eq!((count.calls, count.outcomes["ok"]), (10_005, 5003));
    }
}
