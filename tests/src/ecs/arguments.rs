//! The parameters of a call: read by a strict grammar, so that a name nobody reads, a gap in a list
//! or `count=ten` is refused instead of forgiven.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::refusal::Refusal;

/// What a parameter of an action may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `Name=…`
    Text,
    /// `Name=12`
    Number,
    /// `Name=true`, in any case: SDKs differ.
    Flag,
    /// `Name.1=…&Name.2=…`
    Texts,
    /// `Name.1.Key=…&Name.1.Value=…`
    Records(&'static [&'static str]),
}

/// The parameters that an action knows.
pub(crate) type Grammar = &'static [(&'static str, Shape)];

/// A call's parameters, all of them known to its action and well formed. An empty value counts as
/// not given, as it does in the real API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    raw: BTreeMap<String, String>,
}

impl Arguments {
    pub(crate) fn parse(
        raw: impl IntoIterator<Item = (String, String)>,
        grammar: Grammar,
    ) -> Result<Self, Refusal> {
        let mut known = BTreeMap::new();
        for (name, value) in raw {
            check(&name, &value, grammar)?;
            if known.insert(name.clone(), value).is_some() {
                return Err(Refusal::invalid(&name, "it is given twice"));
            }
        }
        let arguments = Self { raw: known };
        for (name, shape) in grammar {
            if matches!(shape, Shape::Texts | Shape::Records(_)) {
                arguments.check_gaps(name)?;
            }
        }
        Ok(arguments)
    }

    /// The value of `name`; `None` if absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.raw.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::missing(name))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        self.text(name)
            .map(|text| text.parse().map_err(|_not_a_number| Refusal::invalid(name, text)))
            .transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.text(name).map(|text| text.eq_ignore_ascii_case("true"))
    }

    /// `Name.1`, `Name.2`, … in their order.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        (1..)
            .map_while(|index| self.raw.get(&format!("{name}.{index}")))
            .map(String::as_str)
            .collect()
    }

    /// The same, each parsed.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Vec<T>, Refusal> {
        let parse = |text: &str| text.parse().map_err(|_wrong| Refusal::invalid(name, text));
        self.texts(name).into_iter().map(parse).collect()
    }

    /// `Name.1.*`, `Name.2.*`, … in their order, each by its fields' names.
    pub(crate) fn records(&self, name: &str) -> Vec<BTreeMap<&str, &str>> {
        let record = |index: usize| {
            let prefix = format!("{name}.{index}.");
            let fields = self.raw.iter().filter_map(|(key, value)| {
                key.strip_prefix(&prefix).map(|field| (field, value.as_str()))
            });
            Some(fields.collect::<BTreeMap<_, _>>()).filter(|fields| !fields.is_empty())
        };
        (1..).map_while(record).collect()
    }

    /// Everything but `without`: what makes two calls the same intent.
    pub(crate) fn fingerprint(&self, without: &str) -> BTreeMap<String, String> {
        let mut all = self.raw.clone();
        all.remove(without);
        all
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.raw.iter()
    }

    fn check_gaps(&self, name: &str) -> Result<(), Refusal> {
        let prefix = format!("{name}.");
        let indices: BTreeSet<usize> = self
            .raw
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect();
        if indices.last().is_some_and(|last| *last != indices.len()) {
            return Err(Refusal::invalid(name, "its indices have a gap"));
        }
        Ok(())
    }
}

fn check(name: &str, value: &str, grammar: Grammar) -> Result<(), Refusal> {
    let mut parts = name.splitn(3, '.');
    let (base, index, field) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let Some((_, shape)) = grammar.iter().find(|(known, _)| *known == base) else {
        return Err(Refusal::unsupported(name));
    };
    let fits = match shape {
        Shape::Text | Shape::Number | Shape::Flag => index.is_none(),
        Shape::Texts => index.is_some_and(is_index) && field.is_none(),
        Shape::Records(fields) => {
            index.is_some_and(is_index) && field.is_some_and(|field| fields.contains(&field))
        }
    };
    let well_formed = match shape {
        Shape::Number => value.is_empty() || value.parse::<usize>().is_ok(),
        Shape::Flag => {
            value.is_empty()
                || value.eq_ignore_ascii_case("true")
                || value.eq_ignore_ascii_case("false")
        }
        Shape::Text | Shape::Texts | Shape::Records(_) => true,
    };
    match (fits, well_formed) {
        (false, _) => Err(Refusal::unsupported(name)),
        (true, false) => Err(Refusal::invalid(name, value)),
        (true, true) => Ok(()),
    }
}

/// `1`, `2`, …: neither `0` nor `01`.
fn is_index(text: &str) -> bool {
    !text.starts_with('0') && text.parse::<usize>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAMMAR: Grammar = &[
        ("Id", Shape::Text),
        ("Count", Shape::Number),
        ("Check", Shape::Flag),
        ("Ip", Shape::Texts),
        ("Tag", Shape::Records(&["Key", "Value"])),
    ];

    fn parse(pairs: &[(&str, &str)]) -> Result<Arguments, Refusal> {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Arguments::parse(owned, GRAMMAR)
    }

    #[test]
    fn a_call_that_keeps_to_the_grammar_is_read() {
        let arguments = parse(&[
            ("Id", "x"),
            ("Count", "10"),
            ("Check", "False"),
            ("Ip.1", "10.0.0.1"),
            ("Ip.2", "10.0.0.2"),
            ("Tag.1.Key", "a"),
            ("Tag.1.Value", ""),
            ("Tag.2.Key", "b"),
        ])
        .unwrap();
        assert_eq!(arguments.required("Id"), Ok("x"));
        assert_eq!(arguments.number("Count"), Ok(Some(10)));
        assert_eq!(arguments.flag("Check"), Some(false));
        assert_eq!(arguments.texts("Ip"), ["10.0.0.1", "10.0.0.2"]);
        let tags = arguments.records("Tag");
        assert_eq!(
            tags,
            [BTreeMap::from([("Key", "a"), ("Value", "")]), BTreeMap::from([("Key", "b")])]
        );
    }

    #[test]
    fn a_call_that_does_not_is_refused_and_the_parameter_named() {
        for (pairs, code, named) in [
            (&[("Ids", "x")][..], "UnsupportedParameter", "Ids"),
            (&[("Id.1", "x")], "UnsupportedParameter", "Id.1"),
            (&[("Ip", "10.0.0.1")], "UnsupportedParameter", "Ip"),
            (&[("Ip.0", "10.0.0.1")], "UnsupportedParameter", "Ip.0"),
            (&[("Ip.01", "10.0.0.1")], "UnsupportedParameter", "Ip.01"),
            (&[("Ip.2", "10.0.0.1")], "InvalidParameter", "Ip"),
            (&[("Tag.1.Name", "a")], "UnsupportedParameter", "Tag.1.Name"),
            (&[("Tag.1", "a")], "UnsupportedParameter", "Tag.1"),
            (&[("Count", "ten")], "InvalidParameter", "Count"),
            (&[("Count", "-1")], "InvalidParameter", "Count"),
            (&[("Check", "yes")], "InvalidParameter", "Check"),
            (&[("Id", "x"), ("Id", "x")], "InvalidParameter", "Id"),
        ] {
            let refusal = parse(pairs).unwrap_err();
            assert_eq!(refusal.code, code, "{pairs:?}");
            assert!(refusal.message.contains(named), "{}", refusal.message);
        }
        assert_eq!(parse(&[]).unwrap().required("Id").unwrap_err().code, "MissingParameter");
        assert_eq!(
            parse(&[("Id", "")]).unwrap().required("Id").unwrap_err().code,
            "MissingParameter"
        );
    }
}
