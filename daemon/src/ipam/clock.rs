//! The clock that goes on while the machine sleeps, and does not jump: the only place that reads it.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Reads the time since boot; a test brings its own.
pub(crate) type Clock = fn() -> Duration;

/// `CLOCK_BOOTTIME`.
pub(crate) fn boot_time() -> Duration {
    // It fails only for a clock that the kernel does not have; every kernel since 2.6.39 has it.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Which boot this is: a time since boot means nothing without it.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_and_the_boot_has_a_name() {
        let before = boot_time();
        assert!(before > Duration::ZERO && boot_time() >= before);
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
