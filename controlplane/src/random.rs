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

    /// 75 % to 125 % of `duration`, so that many who failed together do not return together.
    pub fn jitter(&mut self, duration: Duration) -> Duration {
        let percent = u32::try_from(self.next() % 51).unwrap_or(25).saturating_add(75);
        duration.saturating_mul(percent) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut random = Random::new(7);
        let all: Vec<_> =
            (0..1000).map(|_| random.jitter(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&750), Some(&1250)));
    }
}
