//! An object of the configuration, read key by key with errors that give the key's whole path.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// One object and where it stands.
#[derive(Debug)]
pub(crate) struct Section {
    /// Empty for the configuration itself, else with a dot at its end.
    path: String,
    map: Map<String, Value>,
}

impl Section {
    pub(crate) fn new(path: &str, map: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), map }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Takes the value of `key`; `null` is as good as absent.
    pub(crate) fn get<T: for<'de> Deserialize<'de>>(
        &mut self,
        key: &str,
    ) -> Result<Option<T>, Error> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => typed(&self.name(key), value).map(Some),
        }
    }

    /// Takes the object at `key`.
    pub(crate) fn section(&mut self, key: &str) -> Result<Option<Self>, Error> {
        let path = format!("{}.", self.name(key));
        Ok(self.get(key)?.map(|map| Self { path, map }))
    }

    /// An error about the value of `key`.
    pub(crate) fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::BadValue { key: self.name(key), problem: problem.into() }
    }

    /// Drops the keys of which `is_foreign` holds.
    pub(crate) fn drop_keys(&mut self, is_foreign: impl Fn(&str) -> bool) {
        self.map.retain(|key, _| !is_foreign(key));
    }

    /// Drops `keys`; those that were there come back, with their path.
    pub(crate) fn ignore(&mut self, keys: &[&str]) -> Vec<String> {
        let there = keys.iter().filter(|key| self.map.remove(**key).is_some());
        there.map(|key| format!("{}{key}", self.path)).collect()
    }

    /// Refuses a key that is neither in `ours` nor in `others`; only `ours` are proposed instead.
    pub(crate) fn only(&self, ours: &[&str], others: &[&str]) -> Result<(), Error> {
        let known = |key: &&String| ours.contains(&key.as_str()) || others.contains(&key.as_str());
        let Some(key) = self.map.keys().find(|key| !known(key)) else { return Ok(()) };
        Err(Error::UnknownKey {
            key: self.name(key),
            nearest: nearest(key, ours).map(|key| self.name(key)),
            known: ours.iter().map(|key| self.name(key)).collect::<Vec<_>>().join(", "),
        })
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }
}

/// `value` as a `T`, or an error that names `key`.
pub(crate) fn typed<T: for<'de> Deserialize<'de>>(key: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value)
        .map_err(|error| Error::BadValue { key: key.to_owned(), problem: error.to_string() })
}

/// The key that was probably meant: `log_file` and `logfile` for `logFile`, `agentSocekt`.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect()
    };
    let key = plain(key);
    let near = known.iter().map(|known| (distance(&key, &plain(known)), *known)).min()?;
    (near.0 <= 2 && near.0 < key.len()).then_some(near.1)
}

/// How many bytes to insert, delete or replace to make `to` of `from` (Levenshtein).
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (b, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (corner + usize::from(a != b)).min(above + 1).min(left + 1);
            corner = above;
            *cell = left;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_that_of_levenshtein() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("timeout", "timeout", 0),
            ("tiemout", "timeout", 2),
        ] {
            assert_eq!(distance(from.as_bytes(), to.as_bytes()), expected, "{from} {to}");
        }
    }

    #[test]
    fn the_key_that_was_meant_is_proposed_and_a_strange_one_is_not() {
        let known = ["agentSocket", "timeout", "mtu", "logFile"];
        for (key, expected) in [
            ("agent_socket", Some("agentSocket")),
            ("AGENTSOCKET", Some("agentSocket")),
            ("agentSocekt", Some("agentSocket")),
            ("timeouts", Some("timeout")),
            ("log-file", Some("logFile")),
            ("MTU", Some("mtu")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(key, &known), expected, "{key}");
        }
    }
}
