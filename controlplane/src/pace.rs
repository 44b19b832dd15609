//! How something is repeated: later and later, with a share of chance.

use std::time::Duration;

use crate::Random;

/// How something is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Before the first try.
    pub initial: Duration,
    /// The first pause.
    pub first: Duration,
    /// What each further pause is of the one before it, in hundredths.
    pub factor_percent: u32,
    /// By how many hundredths a pause may be longer, by chance.
    pub jitter_percent: u32,
    /// The longest pause, chance aside.
    pub at_most: Duration,
}

impl Pace {
    /// Twice as long each time, from `first` to `at_most`.
    pub const fn doubling(first: Duration, at_most: Duration) -> Self {
        Self { initial: first, first, factor_percent: 200, jitter_percent: 0, at_most }
    }

    /// With up to so many hundredths more by chance.
    #[must_use]
    pub const fn with_jitter(self, jitter_percent: u32) -> Self {
        Self { jitter_percent, ..self }
    }

    /// The pause after so many tries in a row, the first being 0, without chance.
    pub fn plain(&self, tries: u32) -> Duration {
        let mut pause = self.first.min(self.at_most);
        // Whatever the factor, it does not take more steps to the end.
        for _ in 0..tries.min(64) {
            let next = pause.saturating_mul(self.factor_percent.max(100)) / 100;
            if next >= self.at_most || next == pause {
                return next.min(self.at_most);
            }
            pause = next;
        }
        pause
    }

    /// The pause after so many tries in a row, the first being 0, and never less than `least`.
    pub fn pause(&self, tries: u32, least: Duration, random: &mut Random) -> Duration {
        random.stretch(self.plain(tries).max(least), self.jitter_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let pace = Pace::doubling(seconds(1), seconds(30));
        let pauses = [0, 1, 2, 4, 5, 1000].map(|tries| pace.plain(tries).as_secs());
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
        let even = Pace { factor_percent: 100, ..pace };
        assert_eq!([0, 9, 99].map(|tries| even.plain(tries).as_secs()), [1, 1, 1]);
    }

    #[test]
    fn chance_makes_a_pause_longer_and_never_shorter() {
        let pace = Pace::doubling(seconds(1), seconds(30)).with_jitter(30);
        let mut random = Random::new(7);
        let all: Vec<_> =
            (0..1000).map(|_| pace.pause(0, Duration::ZERO, &mut random).as_millis()).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&1000), Some(&1300)));
        assert!(pace.pause(0, seconds(9), &mut random) >= seconds(9));
    }
}
