//! Seeded randomness, so that a run can be repeated.

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in `per_mille` of 1000 cases.
    pub(crate) const fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let run = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 4, _>(|_index| random.next())
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_chance_is_about_what_it_says() {
        let mut random = Random::new(3);
        let hits = (0..10_000).filter(|_try| random.chance(250)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!(!Random::new(3).chance(0));
        assert!(Random::new(3).chance(1000));
    }
}
