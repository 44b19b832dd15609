//! The versions of the CNI specification that the plugin speaks.

use std::fmt;

use crate::env::Verb;
use crate::error::Error;

/// A version of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What an answer is in when the caller's version is not known.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration's `cniVersion`; without one it is 0.1.0, says the
    /// specification.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|version| Some(version.as_str()) == text).ok_or_else(|| {
            Error::UnsupportedVersion { found: text.unwrap_or("0.1.0 (none is given)").to_owned() }
        })
    }

    /// Refuses a verb that this version does not have yet.
    pub(crate) fn allows(self, verb: Verb) -> Result<(), Error> {
        let since = match verb {
            Verb::Add | Verb::Del => Self::V0_3_1,
            Verb::Check => Self::V0_4_0,
            Verb::Gc | Verb::Status => Self::V1_1_0,
        };
        if self < since {
            return Err(Error::VerbTooNew { verb, since, found: self });
        }
        Ok(())
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
