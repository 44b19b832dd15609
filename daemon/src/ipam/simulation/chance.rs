//! Draws from a seed.

use controlplane::Random;

/// A number of `least..=most`.
pub(super) const fn range(random: &mut Random, least: u64, most: u64) -> u64 {
    least + (random.next() >> 11) % (most - least + 1)
}

/// True in so many cases of a hundred.
pub(super) const fn chance(random: &mut Random, percent: u64) -> bool {
    range(random, 1, 100) <= percent
}

/// One of them; there must be one.
pub(super) fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    let most = u64::try_from(from.len()).unwrap_or(1) - 1;
    let index = usize::try_from(range(random, 0, most)).unwrap_or(0);
    from[index]
}
