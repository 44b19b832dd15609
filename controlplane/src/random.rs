//! Chance as part of the state, so that a step is a function of what goes in.

use std::time::Duration;

use cloud::ClientToken;
use uuid::Uuid;

/// `SplitMix64`: enough for jitter and for choosing a vSwitch, and nothing else.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is more than nothing.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// A token that was not given before.
    pub fn token(&mut self) -> ClientToken {
        ClientToken::from(Uuid::from_u64_pair(self.next(), self.next()))
    }

    /// `duration` and up to so many hundredths of it more, so that many who failed together do not
    /// return together.
    pub fn stretch(&mut self, duration: Duration, percent: u32) -> Duration {
        let percent = self.below(percent.saturating_add(1)).saturating_add(100);
        duration.saturating_mul(percent) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_stays_within_its_share() {
        let mut random = Random::new(7);
        let all: Vec<_> =
            (0..1000).map(|_| random.stretch(Duration::from_secs(1), 50).as_millis()).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&1000), Some(&1500)));
    }
}
