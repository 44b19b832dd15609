//! The keys of `eni_conf`: those that we read, those that have no effect yet, and what may have
//! been meant by one that nobody knows. `docs/eni-config.md` is made of them.

use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::Remark;
use super::backoff::BackoffKey;
use super::table::{KEYS, Key, Taken, percent};

/// Its value is nowhere printed.
const SECRET: &str = "access_secret";
/// Characters of a value in a message.
const LONGEST: usize = 80;

/// The page of all keys, in Markdown: docs/eni-config.md and `terwayd --explain-config`.
pub fn page() -> String {
    let rows = KEYS.map(|Key { name, kind, default, taken, meaning }| {
        let default = if default.is_empty() { "-".to_owned() } else { format!("`{default}`") };
        format!("| `{name}` | {kind} | {default} | {} | {meaning} |\n", taken.word())
    });
    let rows = rows.concat();
    let backoffs = BackoffKey::ALL.map(|key| {
        let (name, backoff) = (key.name(), key.reference());
        let used = if key.is_used() { "yes" } else { "-" };
        let cap = backoff.cap.map_or_else(|| "-".to_owned(), |cap| format!("{cap:?}"));
        let (initial, first) = (backoff.initial_delay, backoff.duration);
        let (factor, jitter) = (percent(backoff.factor_percent), percent(backoff.jitter_percent));
        let steps = backoff.steps;
        format!("| `{name}` | {initial:?} | {first:?} | {factor} | {jitter} | {steps} | {cap} | {used} |\n")
    });
    let backoffs = backoffs.concat();
    format!(
        "\
# `eni_conf`

The daemon's configuration: a JSON object, in the file `eni_conf` of the directory of `terwayd --standalone`. `null` is the same as a key that is absent, and an empty
text mostly is. A wrong type or value ends the daemon with exit code 64 and a line that names file, key, value and rule. A key that nobody knows is a warning, with the nearest
known one. Durations are Go's: `90s`, `2m`, `1h30m`.

The directory is looked at every two seconds, also where a ConfigMap is mounted, and what has changed is taken up when two looks in a row see the same. Column \"taken up\": `live` is
while the daemon runs: what is made, asked for and given back from then on follows the new value, and ENIs that are there keep what they have. `restart` waits for the daemon's
next start, which disturbs no pod; a warning and `terwayctl status` name such keys until then. `-` has no effect. PodNetworkings are taken up live. A bad file changes nothing,
also where only the cloud can tell (a vSwitch that does not exist): an error names file, key, value and rule, and `terwayctl status` shows it until it is corrected.
| key | type | default | taken up | meaning |
|---|---|---|---|---|
{rows}
## `backoff_override`

Each entry has `InitialDelay` (before the first try), `Duration` (the first pause, above 0), `Factor` (what a pause is of the one before it, 0 to 100), `Jitter` (by how much of
itself a pause may be longer, 0 to 100), `Steps` (after so many tries a pause does not grow any more, 1 or more; nothing is given up) and `Cap` (the longest pause). Durations
are texts, or whole nanoseconds as Go writes them. Factors are rounded to hundredths. A field that an entry leaves out is the reference's, as here; what has no entry is repeated at
our own pace. Entries without effect here are a remark.

| name | `InitialDelay` | `Duration` | `Factor` | `Jitter` | `Steps` | `Cap` | effect here |
|---|---|---|---|---|---|---|---|
{backoffs}"
    )
}

impl Taken {
    const fn word(&self) -> &'static str {
        match self {
            Self::Live(_) | Self::Joined => "live",
            Self::Restart { .. } => "restart",
            Self::Nothing => "-",
        }
    }
}

/// Takes out the keys that nobody knows.
pub(super) fn take_unknown(object: &mut Map<String, Value>) -> Vec<Remark> {
    let unknown: Vec<String> =
        object.keys().filter(|key| KEYS.iter().all(|known| known.name != **key)).cloned().collect();
    unknown
        .into_iter()
        .map(|key| {
            object.remove(&key);
            Remark::Unknown { nearest: nearest_of(&key, KEYS.map(|key| key.name)), key }
        })
        .collect()
}

/// What stands at `path`, what the key takes, and what serde says of it. A secret is not shown.
pub(super) fn misfit(object: &Value, path: &Path, why: &serde_json::Error) -> String {
    let mut segments = path.iter();
    let Some(Segment::Map { key: name }) = segments.next() else { return why.to_string() };
    let kind = KEYS.iter().find(|key| key.name == name).map_or("", |key| key.kind);
    if name == SECRET {
        return format!("is not what {name} takes ({kind}): {why}");
    }
    let value = segments.fold(object.get(name), |value, segment| match segment {
        Segment::Map { key } => value?.get(key),
        Segment::Seq { index } => value?.get(index),
        Segment::Enum { .. } | Segment::Unknown => value,
    });
    let value = value.map_or_else(String::new, |value| shortened(value.to_string()));
    format!("{value} is not what {name} takes ({kind}): {why}")
}

/// A line is for reading.
fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The known name that is at most three edits and a third of its length away.
pub(super) fn nearest_of(
    name: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    known
        .into_iter()
        .map(|known| (distance(name, known), known))
        .filter(|(edits, known)| *edits <= 3 && edits * 3 <= known.len())
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance in bytes: the keys are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, &above) in b.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_page_is_made_of_the_keys() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/eni-config.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, page()).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap();
        let cure = "UPDATE_DOCS=1 cargo nextest run -p daemon the_page_is_made_of_the_keys";
        assert!(found == page(), "docs/eni-config.md is not of today: {cure}");
    }

    fn parse(key: &str, value: &str) -> Result<Config, String> {
        let group = if key == "security_group" { "" } else { r#", "security_group": "sg-1""# };
        let json = format!(r#"{{"{key}": {value}{group}}}"#);
        Config::parse(&json, std::path::Path::new("eni_conf"))
            .map(|(it, _)| it)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn each_key_is_read_and_a_wrong_type_names_it() {
        for Key { name, .. } in KEYS {
            let error = parse(name, "[[[]]]").unwrap_err();
            assert!(error.starts_with(&format!("eni_conf: {name}")), "{error}");
        }
    }

    #[test]
    fn what_the_page_calls_the_default_is_what_a_key_has_that_is_absent() {
        let absent = format!("{:?}", parse("version", r#""1""#).unwrap());
        for Key { name, default, .. } in KEYS {
            if !default.is_empty() {
                assert_eq!(format!("{:?}", parse(name, default).unwrap()), absent, "{name}");
            }
        }
    }

    #[test]
    fn the_distance_is_levenshtein_s() {
        for (a, b, edits) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }
}
