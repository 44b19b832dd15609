//! Whose an ENI is, by its tags.

use std::collections::BTreeMap;
use std::fmt;

/// `eni_tag_filter` and `eni_tag_block_list`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TagRules {
    /// What is taken over has all of these.
    pub(crate) filter: BTreeMap<String, String>,
    /// What has one of these is never touched.
    pub(crate) blocked: Vec<Tag>,
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl TagRules {
    /// The tag that says that an ENI is somebody else's.
    pub(crate) fn blocks(&self, tags: &BTreeMap<String, String>) -> Option<&Tag> {
        self.blocked.iter().find(|tag| tags.get(&tag.key) == Some(&tag.value))
    }

    /// Whether an ENI that no record names may be ours.
    pub(crate) fn admits(&self, tags: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| tags.get(key) == Some(value);
        self.blocks(tags).is_none() && self.filter.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_tag_outweighs_the_filter() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let rules = TagRules {
            filter: BTreeMap::from([tag("team", "net")]),
            blocked: vec![Tag { key: "excluded".to_owned(), value: "true".to_owned() }],
        };
        for (tags, admitted) in [
            (vec![tag("team", "net")], true),
            (vec![tag("team", "net"), tag("excluded", "false")], true),
            (vec![tag("team", "net"), tag("excluded", "true")], false),
            (vec![tag("team", "web")], false),
            (vec![], false),
        ] {
            let tags = tags.into_iter().collect();
            assert_eq!(rules.admits(&tags), admitted, "{tags:?}");
        }
    }
}
