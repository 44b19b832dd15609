//! The pool with prefixes instead of single addresses.

use super::world::{SECOND, World};
use crate::ipam::event::{Ask, Effect};
use crate::ipam::lot::Lot;

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

fn conf(stack: &str, more: &str) -> String {
    format!(r#""ip_stack": "{stack}", "enable_ip_prefix": true, {more}"#)
}

fn add(world: &mut World, pods: std::ops::Range<u8>) {
    for n in pods.clone() {
        world.add(n, false, SECOND * 60);
    }
    world.settle_with_faults(30);
    for n in pods {
        assert!(world.allocation(n).is_some(), "{n}: {:?}", world.refusal(n));
        world.acknowledge(n);
    }
}

fn v4_prefixes(world: &World) -> usize {
    world.cloud.enis.values().map(|eni| eni.v4_prefixes.len()).sum()
}

#[test]
fn sixty_pods_take_one_eni_and_one_call_for_it() {
    let mut world = World::new(1, &conf("ipv4", ""), ROOMY);
    world.settle();
    let calls = world.cloud.calls;
    add(&mut world, 0..60);
    assert_eq!(world.cloud.enis.len(), 1);
    assert_eq!(v4_prefixes(&world), 4, "and the primary address serves, too");
    // Create, Attach, and looks until it is attached.
    assert!(world.cloud.calls - calls < 12, "{} calls", world.cloud.calls - calls);
    world.check_quiet();
}

#[test]
fn an_eni_that_has_a_place_grows_by_a_prefix() {
    let mut world = World::new(1, &conf("ipv4", ""), ROOMY);
    add(&mut world, 0..17);
    assert_eq!(v4_prefixes(&world), 1);
    world.add(17, false, SECOND * 60);
    world.pass(SECOND / 10);
    let asked = world.effects.iter().any(|(_, effect)| {
        matches!(effect, Effect::Ask(Ask::Assign { lot: Lot::V4Prefix, count: 1, .. }))
    });
    assert!(asked, "{:?}", world.effects);
    world.settle();
    assert_eq!((world.cloud.enis.len(), v4_prefixes(&world)), (1, 2));
    world.check_quiet();
}

#[test]
fn a_dual_stack_pod_has_both_of_one_eni_and_an_eni_one_ipv6_prefix() {
    let mut world = World::new(1, &conf("dual", ""), ROOMY);
    add(&mut world, 0..40);
    for n in 0..40 {
        let allocation = world.allocation(n).unwrap();
        let eni = &world.cloud.enis[&allocation.eni];
        let (v4, v6) = (allocation.addresses.v4().unwrap(), allocation.addresses.v6().unwrap());
        let prefixed = eni.v4_prefixes.iter().any(|prefix| prefix.contains(v4));
        assert!(prefixed || eni.v4.contains(&v4));
        assert!(eni.v6_prefixes.iter().any(|prefix| prefix.contains(v6)));
    }
    let most = world.cloud.enis.values().map(|eni| eni.v6_prefixes.len()).max();
    assert_eq!(most, Some(1));
    world.check_quiet();
}

#[test]
fn an_ipv6_node_needs_one_prefix_for_all_its_pods() {
    let mut world = World::new(1, &conf("ipv6", ""), ROOMY);
    add(&mut world, 0..100);
    let prefixes: usize = world.cloud.enis.values().map(|eni| eni.v6_prefixes.len()).sum();
    assert_eq!((world.cloud.enis.len(), prefixes), (1, 1));
    world.check_quiet();
    // The addresses of the pods are theirs also after a restart.
    world.restart();
    add(&mut world, 100..120);
    world.check_quiet();
}

#[test]
fn a_vswitch_without_a_whole_prefix_gives_single_addresses() {
    let mut world =
        World::new(1, &conf("ipv4", r#""vswitch_selection_policy": "ordered","#), ROOMY);
    world.cloud.fragmented.insert(model::VSwitchId::new("vsw-a"));
    world.settle();
    add(&mut world, 0..15);
    assert_eq!(v4_prefixes(&world), 0);
    assert!(world.cloud.enis.values().all(|eni| eni.vswitch.as_str() == "vsw-a"));
    world.check_quiet();
    // Where it has some again, pods get them again.
    world.cloud.fragmented.clear();
    world.settle();
    add(&mut world, 15..40);
    assert!(v4_prefixes(&world) > 0);
    world.check_quiet();
}

#[test]
fn as_many_prefixes_are_kept_as_the_node_is_to_have() {
    let mut world =
        World::new(1, &conf("ipv4", r#""ipv4_prefix_count": 3, "max_pool_size": 10,"#), ROOMY);
    world.settle();
    assert_eq!(v4_prefixes(&world), 3);
    add(&mut world, 0..60);
    assert_eq!(v4_prefixes(&world), 4);
    (0..60).for_each(|n| world.del(n));
    world.settle();
    assert_eq!(v4_prefixes(&world), 3);
    world.check_quiet();
}

#[test]
fn a_prefix_that_is_half_empty_serves_nobody_new_until_it_is_given_back() {
    let mut world = World::new(1, &conf("ipv4", r#""max_pool_size": 0,"#), ROOMY);
    add(&mut world, 0..33);
    assert_eq!(v4_prefixes(&world), 2);
    // All but one pod of one of the prefixes go, and some of the other.
    let first = world.cloud.enis.values().next().unwrap().v4_prefixes[0];
    let (of_first, others): (Vec<u8>, Vec<u8>) = (0..33)
        .partition(|n| first.contains(world.allocation(*n).unwrap().addresses.v4().unwrap()));
    for n in of_first.iter().skip(1).chain(others.iter().take(6)) {
        world.del(*n);
    }
    world.settle_with_faults(60);
    let frozen = || world.state.pool.ports().any(|(_, port)| port.shelf.thaws_at().is_some());
    assert!(frozen());
    // A pod that comes gets what is not frozen, and its last pod's end is the prefix's.
    world.add(50, false, SECOND);
    let given = world.allocation(50).unwrap().addresses.v4().unwrap();
    assert!(!first.contains(given));
    world.del(of_first[0]);
    world.settle();
    assert_eq!(v4_prefixes(&world), 1);
    world.check_quiet();
}

/// Two prefixes in part in use, of which one is to become empty.
fn frozen() -> World {
    let mut world = World::new(1, &conf("ipv4", r#""max_pool_size": 0,"#), ROOMY);
    add(&mut world, 0..33);
    for n in 0..32 {
        if n % 3 != 0 {
            world.del(n);
        }
    }
    world.settle_with_faults(60);
    assert!(world.state.pool.ports().any(|(_, port)| port.shelf.thaws_at().is_some()));
    world
}

#[test]
fn a_frozen_prefix_serves_again_before_the_cloud_is_asked_for_more() {
    let mut world = frozen();
    let calls = world.cloud.calls;
    for n in 40..60 {
        world.add(n, false, SECOND);
        assert!(world.allocation(n).is_some(), "{n}");
    }
    assert_eq!(world.cloud.calls, calls);
}

#[test]
fn a_frozen_prefix_whose_pod_stays_serves_again_though_nobody_waits() {
    let mut world = frozen();
    let until = world.state.pool.ports().find_map(|(_, port)| port.shelf.thaws_at()).unwrap();
    world.settle();
    world.settle();
    assert!(world.now > until);
    let next = world.state.wake(world.now);
    assert!(next.is_none_or(|at| at > world.now), "it is always time to thaw");
}

#[test]
fn the_prefixes_of_an_idle_node_stay_and_the_cloud_is_left_alone() {
    let mut world = World::new(1, &conf("ipv4", r#""ipv4_prefix_count": 2,"#), ROOMY);
    world.settle();
    world.settle();
    let calls = world.cloud.calls;
    world.settle_with_faults(3600);
    assert_eq!(v4_prefixes(&world), 2);
    assert!(world.cloud.calls - calls <= 4, "{} calls in an idle hour", world.cloud.calls - calls);
}

#[test]
fn idle_prefixes_are_reclaimed_though_a_batch_is_smaller_than_one() {
    let more =
        r#""max_pool_size": 60, "idle_ip_reclaim_after": "10m", "idle_ip_reclaim_interval": "5m","#;
    let mut world = World::new(1, &conf("ipv4", more), ROOMY);
    add(&mut world, 0..40);
    (0..39).for_each(|n| world.del(n));
    world.settle_with_faults(60);
    assert_eq!(v4_prefixes(&world), 3);
    world.settle_with_faults(7200);
    assert_eq!(
        v4_prefixes(&world),
        1,
        "the pod that is left has an address of one, or the primary"
    );
}
