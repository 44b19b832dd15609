//! A cloud in trouble is left alone.

use super::world::{SECOND, World, options};

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

/// Ten idle addresses, and pods that may have them.
fn warm(degradation: &str) -> World {
    let mut world = World::new(1, r#""min_pool_size": 10, "max_pool_size": 10,"#, ROOMY);
    world.settle();
    let conf = format!(r#""max_pool_size": 0, "degradation": "{degradation}","#);
    world.reconfigure(options(&conf));
    world
}

#[test]
fn at_l0_pods_get_what_is_idle_and_the_cloud_is_not_called() {
    let mut world = warm("l0");
    let calls = world.cloud.calls;
    for n in 0..10 {
        world.add(n, false, SECOND);
        assert!(world.allocation(n).is_some());
    }
    // Whoever comes then is told why, at once.
    world.add(10, false, SECOND * 60);
    world.pass(SECOND / 10);
    let error = world.refusal(10).unwrap();
    assert!(error.to_string().contains("degradation is \"l0\""), "{error}");
    (0..10).for_each(|n| world.del(n));
    world.settle();
    assert_eq!(world.cloud.calls, calls);
    // Well again, all is done that was left undone.
    world.reconfigure(options(""));
    world.settle();
    assert_eq!(world.cloud.enis.len(), 0);
    world.check_quiet();
}

#[test]
fn at_l1_the_pool_grows_and_nothing_is_given_back() {
    let mut world = warm("l1");
    world.settle();
    assert_eq!(world.state.pool.idle(), 10, "nothing is given back");
    for n in 0..15 {
        world.add(n, false, SECOND * 60);
    }
    world.settle_with_faults(60);
    assert!((0..15).all(|n| world.allocation(n).is_some()));
    let enis = world.cloud.enis.len();
    (0..15).for_each(|n| world.del(n));
    world.settle();
    assert_eq!(world.cloud.enis.len(), enis);
    world.reconfigure(options(""));
    world.settle();
    assert_eq!(world.cloud.enis.len(), 0);
    world.check_quiet();
}
