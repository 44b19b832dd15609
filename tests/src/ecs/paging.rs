//! Long answers in pieces: by page numbers, or by `NextToken`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::arguments::Arguments;
use super::refusal::Refusal;

/// Which piece is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    /// `PageNumber`, `PageSize`.
    Numbered { number: usize, size: usize },
    /// `NextToken`, `MaxResults`: what comes after the item with this key.
    After { key: Option<String>, max: usize, filters: String },
}

/// A piece of a list, and the fields that say which.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece<T> {
    pub(crate) items: Vec<T>,
    /// `TotalCount`, `PageNumber`, `PageSize`, `NextToken`.
    pub(crate) fields: Map<String, Value>,
}

impl Page {
    /// What a call asks for; ten by default, as in the real API.
    pub(crate) fn asked(arguments: &Arguments, most: usize) -> Result<Self, Refusal> {
        let number = arguments.number("PageNumber")?;
        let size = bounded(arguments, "PageSize", most)?;
        let max = bounded(arguments, "MaxResults", most)?;
        let token = arguments.text("NextToken");
        if token.is_none() && max.is_none() {
            let number = number.unwrap_or(1);
            if number == 0 {
                return Err(Refusal::invalid("PageNumber", "it starts at 1"));
            }
            return Ok(Self::Numbered { number, size: size.unwrap_or(10) });
        }
        if number.is_some() || size.is_some() {
            return Err(Refusal::invalid("PageNumber", "it excludes NextToken and MaxResults"));
        }
        let filters = fingerprint(arguments);
        let key = token.map(|token| read_token(token, &filters)).transpose()?;
        Ok(Self::After { key, max: max.unwrap_or(10), filters })
    }

    /// The piece of `items`, which are in the order of their keys.
    pub(crate) fn cut<T>(&self, items: Vec<T>, key: impl Fn(&T) -> String) -> Piece<T> {
        let mut fields = Map::from_iter([("TotalCount".to_owned(), Value::from(items.len()))]);
        let items = match self {
            Self::Numbered { number, size } => {
                fields.insert("PageNumber".to_owned(), Value::from(*number));
                fields.insert("PageSize".to_owned(), Value::from(*size));
                let before = number.saturating_sub(1).saturating_mul(*size);
                items.into_iter().skip(before).take(*size).collect()
            }
            Self::After { key: after, max, filters } => {
                let mut rest: Vec<T> = items
                    .into_iter()
                    .filter(|item| after.as_ref().is_none_or(|a| key(item) > *a))
                    .collect();
                let more = rest.len() > *max;
                rest.truncate(*max);
                let last = rest.last().filter(|_last| more).map(&key);
                let token = last.map(|last| write_token(&last, filters)).unwrap_or_default();
                fields.insert("NextToken".to_owned(), Value::from(token));
                rest
            }
        };
        Piece { items, fields }
    }
}

fn bounded(arguments: &Arguments, name: &str, most: usize) -> Result<Option<usize>, Refusal> {
    let value = arguments.number(name)?;
    match value {
        Some(value) if value == 0 || value > most => {
            Err(Refusal::invalid(name, format!("{value} is not in 1 to {most}")))
        }
        _ => Ok(value),
    }
}

/// A token belongs to the filters it was given for.
fn fingerprint(arguments: &Arguments) -> String {
    let filters: BTreeMap<_, _> = arguments
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "NextToken" | "MaxResults"))
        .collect();
    let mut hash = Sha256::new();
    for (name, value) in filters {
        hash.update(format!("{name}={value}\n"));
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

fn write_token(key: &str, filters: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{filters} {key}"))
}

fn read_token(token: &str, filters: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::invalid("NextToken", "it was not given for these parameters");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_not_base64| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_not_text| wrong())?;
    match text.split_once(' ') {
        Some((given_for, key)) if given_for == filters => Ok(key.to_owned()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::arguments::{Grammar, Shape};

    const GRAMMAR: Grammar = &[
        ("PageNumber", Shape::Number),
        ("PageSize", Shape::Number),
        ("MaxResults", Shape::Number),
        ("NextToken", Shape::Text),
        ("Status", Shape::Text),
    ];

    fn asked(pairs: &[(&str, &str)]) -> Result<Page, Refusal> {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Page::asked(&Arguments::parse(owned, GRAMMAR)?, 500)
    }

    fn cut(pairs: &[(&str, &str)], count: usize) -> Piece<usize> {
        asked(pairs).unwrap().cut((0..count).collect(), |item| format!("{item:04}"))
    }

    #[test]
    fn who_does_not_ask_gets_ten() {
        let piece = cut(&[], 25);
        assert_eq!(piece.items, (0..10).collect::<Vec<_>>());
        assert_eq!(piece.fields["TotalCount"], 25);
        assert_eq!(cut(&[("PageNumber", "3")], 25).items, [20, 21, 22, 23, 24]);
    }

    #[test]
    fn tokens_lead_through_everything_once() {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let piece = cut(&[("MaxResults", "10"), ("NextToken", &token)], 25);
            seen.extend(piece.items);
            piece.fields["NextToken"].as_str().unwrap().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        assert_eq!(cut(&[("MaxResults", "25")], 25).fields["NextToken"], "");
    }

    #[test]
    fn a_token_for_other_filters_a_page_beside_a_token_and_a_size_too_large_are_refused() {
        let token =
            cut(&[("MaxResults", "10"), ("Status", "InUse")], 25).fields["NextToken"].clone();
        let token = token.as_str().unwrap();
        assert!(asked(&[("NextToken", token), ("Status", "InUse")]).is_ok());
        for pairs in [
            &[("NextToken", token)][..],
            &[("NextToken", "x")],
            &[("MaxResults", "10"), ("PageNumber", "1")],
            &[("MaxResults", "501")],
            &[("PageSize", "0")],
            &[("PageNumber", "0")],
        ] {
            assert_eq!(asked(pairs).unwrap_err().code, "InvalidParameter", "{pairs:?}");
        }
    }
}
