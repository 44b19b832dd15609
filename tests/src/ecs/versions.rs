//! Objects and what they were a while ago: reads of the real API lag behind its writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// The longest lag that can be asked for.
pub(crate) const MEMORY: SignedDuration = SignedDuration::from_mins(10);

/// A map whose past can be read.
#[derive(Debug, Clone)]
pub(crate) struct Versions<K, V> {
    objects: BTreeMap<K, VecDeque<Version<V>>>,
}

/// What an object was from a moment on; `None`: it was not there.
#[derive(Debug, Clone)]
struct Version<V> {
    since: Timestamp,
    value: Option<Arc<V>>,
}

impl<K, V> Default for Versions<K, V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V> Versions<K, V> {
    /// The object as it was at `at`.
    pub(crate) fn get(&self, key: &K, at: Timestamp) -> Option<&Arc<V>> {
        self.objects.get(key).and_then(|versions| seen(versions, at))
    }

    /// All that were there at `at`, in the order of their keys.
    pub(crate) fn iter(&self, at: Timestamp) -> impl Iterator<Item = &Arc<V>> {
        self.objects.values().filter_map(move |versions| seen(versions, at))
    }

    /// From `now` on it is this.
    pub(crate) fn put(&mut self, key: K, value: V, now: Timestamp) {
        self.change(key, Some(Arc::new(value)), now);
    }

    /// From `now` on it is not there.
    pub(crate) fn remove(&mut self, key: &K, now: Timestamp) {
        self.change(key.clone(), None, now);
    }

    /// Forgets what no lag can reach.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        let Ok(horizon) = now.checked_sub(MEMORY) else { return };
        self.objects.retain(|_, versions| {
            while versions.get(1).is_some_and(|second| second.since <= horizon) {
                versions.pop_front();
            }
            versions.back().is_some_and(|last| last.value.is_some() || last.since > horizon)
        });
    }

    fn change(&mut self, key: K, value: Option<Arc<V>>, now: Timestamp) {
        let versions = self.objects.entry(key).or_default();
        // A clock that steps back must not hide the newest truth.
        let since = versions.back().map_or(now, |last| last.since.max(now));
        versions.push_back(Version { since, value });
    }
}

fn seen<V>(versions: &VecDeque<Version<V>>, at: Timestamp) -> Option<&Arc<V>> {
    versions.iter().rev().find(|version| version.since <= at)?.value.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: i64) -> Timestamp {
        Timestamp::from_second(at).unwrap()
    }

    #[test]
    fn the_past_is_read_as_it_was() {
        let mut versions = Versions::default();
        versions.put("eni", 1, second(10));
        versions.put("eni", 2, second(20));
        versions.remove(&"eni", second(30));
        let seen = |at| versions.get(&"eni", second(at)).map(|value| **value);
        assert_eq!(
            [9, 10, 19, 20, 29, 30, 99].map(seen),
            [None, Some(1), Some(1), Some(2), Some(2), None, None]
        );
        assert_eq!(versions.iter(second(15)).count(), 1);
        assert_eq!(versions.iter(second(35)).count(), 0);
    }

    #[test]
    fn what_no_lag_can_reach_is_forgotten() {
        let mut versions = Versions::default();
        versions.put("kept", 1, second(0));
        versions.put("kept", 2, second(1));
        versions.put("gone", 1, second(0));
        versions.remove(&"gone", second(2));
        versions.forget(second(3).checked_add(MEMORY).unwrap());
        assert_eq!(versions.objects.len(), 1);
        assert_eq!(versions.objects["kept"].len(), 1);
        assert_eq!(versions.get(&"kept", second(700)).map(|value| **value), Some(2));
    }
}
