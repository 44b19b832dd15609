//! A whole node in memory, driven by a seed: the pool's state machine with a disk, a kernel, callers
//! and a cloud that fail in every way we know of, and the laws that must hold all the same.
//!
//! One seed decides configuration, faults and a schedule of moves. A schedule that breaks a law is
//! made smaller by leaving moves out ([`shrink`]), for people to read.

mod callers;
mod chance;
mod disk;
mod hands;
mod laws;
mod play;
mod quiet;
mod schedule;
mod setup;
mod shrink;
mod trace;
mod whole;
mod world;

#[cfg(test)]
pub(super) use callers::{key, record_of};
#[cfg(test)]
pub(super) use disk::Disk;
pub use laws::{Broken, Law};
pub use play::{Played, play, replay};
pub use shrink::{Minimal, shrink};
pub use whole::WHOLE;

/// Seeds that broke a law once, and shall not again: the file's lines are a seed, a date, and what it
/// had found.
pub fn regressions() -> impl Iterator<Item = u64> {
    let lines = include_str!("simulation/regressions.txt").lines();
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}
