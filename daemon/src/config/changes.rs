//! What of a new configuration is taken up while the daemon runs, and what waits for its next start.

use std::fmt;

use super::Config;
use super::table::{KEYS, Shown, Taken};

/// The difference between two configurations, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken up.
    pub live: Vec<Change>,
    /// Not before the next start.
    pub restart: Vec<Change>,
}

/// One key's; a secret is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// What it was.
    pub old: String,
    /// What it is in the file.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        write!(f, "{key}: {old} -> {new}")
    }
}

impl Config {
    /// What changes from this one, with which the daemon runs, to `new`.
    pub fn changes(&self, new: &Self) -> Changes {
        let taken = self.taking_up(new.clone());
        let mut changes = Changes::default();
        for key in &KEYS {
            match key.taken {
                Taken::Live(value) => {
                    changes.live.extend(change(key.name, &value(self), &value(&taken)));
                }
                Taken::Restart { value, .. } => {
                    changes.restart.extend(change(key.name, &value(self), &value(new)));
                }
                Taken::Joined | Taken::Nothing => {}
            }
        }
        changes
    }

    /// `new`, but for the keys that need a restart: those stay.
    #[must_use]
    pub fn taking_up(&self, mut new: Self) -> Self {
        for key in &KEYS {
            if let Taken::Restart { keep, .. } = key.taken {
                keep(&mut new, self);
            }
        }
        new
    }
}

fn change(key: &'static str, old: &Shown, new: &Shown) -> Option<Change> {
    (old != new).then(|| Change { key, old: old.to_string(), new: new.to_string() })
}
