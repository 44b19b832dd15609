//! What happened, in lines for people.

use std::time::Duration;

/// Lines, if anybody wants them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Option<Vec<String>>);

impl Trace {
    /// One that is kept.
    pub(super) const fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    pub(super) fn line(&mut self, at: Duration, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            let (seconds, millis) = (at.as_secs(), at.subsec_millis());
            lines.push(format!("t={seconds}.{millis:03}s {}", line()));
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
