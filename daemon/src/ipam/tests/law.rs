//! Laws, whatever happens and in whatever order.

use crate::ipam::simulation::{WHOLE, play, regressions, replay};

/// Fails with all that happened.
fn holds(seed: u64) {
    if let Some(broken) = play(seed).broken {
        let lines = replay(seed).lines.join("\n");
        panic!(
            "{lines}\nseed {seed} broke the law that {}: {}",
            broken.law.sentence(),
            broken.what
        );
    }
}

#[test]
fn every_law_holds_for_a_hundred_seeds() {
    (0..50).chain(WHOLE..WHOLE + 50).for_each(holds);
}

#[test]
fn every_law_holds_for_the_seeds_that_broke_one_before() {
    regressions().for_each(holds);
}
