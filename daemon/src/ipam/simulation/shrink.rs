//! Makes a schedule that breaks a law as small as it can be: drops moves, in halves and then in
//! smaller parts, as long as the same law breaks.

use super::laws::Law;
use super::play::{Played, perform, plan};
use super::schedule::Entry;
use super::trace::Trace;

/// The least that was found to break the law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimal {
    /// Moves that are left.
    pub moves: usize,
    /// Of so many.
    pub of: usize,
    /// The run, with all that happens in lines.
    pub played: Played,
}

/// Drops moves of the schedule of `seed` as long as `law` is broken, and while `goes_on`.
pub fn shrink(seed: u64, law: Law, mut goes_on: impl FnMut() -> bool) -> Minimal {
    let (setup, all) = plan(seed);
    let breaks = |entries: &[Entry]| {
        let played = perform(seed, setup.clone(), entries, Trace::default());
        played.broken.is_some_and(|broken| broken.law == law)
    };
    let mut left = all.clone();
    let mut part = left.len().div_ceil(2).max(1);
    loop {
        let before = left.len();
        let mut start = 0;
        while start < left.len() && goes_on() {
            let end = (start + part).min(left.len());
            let fewer: Vec<Entry> =
                left.iter().take(start).chain(left.iter().skip(end)).cloned().collect();
            if breaks(&fewer) {
                left = fewer;
            } else {
                start = end;
            }
        }
        if !goes_on() || (part == 1 && left.len() == before) {
            break;
        }
        if left.len() == before || part > left.len() {
            part = part.div_ceil(2).max(1);
        }
    }
    let played = perform(seed, setup, &left, Trace::kept());
    Minimal { moves: left.len(), of: all.len(), played }
}
