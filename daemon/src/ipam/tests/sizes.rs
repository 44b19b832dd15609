//! How large the pool is: floors, ceilings, what is given back and what is never touched.

use std::net::IpAddr;

use super::world::{SECOND, World};
use crate::ipam::DisagreementKind;
use crate::ipam::pool::Port;

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

fn idle(world: &World) -> u32 {
    world.state.pool.idle()
}

/// Secondary ENIs that the cloud has.
fn enis(world: &World) -> usize {
    world.cloud.enis.len()
}

fn add(world: &mut World, pods: std::ops::Range<u8>) {
    for n in pods.clone() {
        world.add(n, false, SECOND * 60);
    }
    world.settle_with_faults(30);
    for n in pods {
        assert!(world.allocation(n).is_some(), "{:?}", world.refusal(n));
        world.acknowledge(n);
    }
}

#[test]
fn an_eni_without_pods_is_given_back_after_a_while() {
    let mut world = World::new(1, r#""max_pool_size": 5,"#, ROOMY);
    add(&mut world, 0..25);
    assert_eq!(enis(&world), 3);
    (0..25).for_each(|n| world.del(n));
    // Its addresses rest, and then the ENIs linger: the next pods may come.
    world.settle_with_faults(60);
    assert_eq!(enis(&world), 3);
    world.settle();
    assert_eq!(enis(&world), 1, "one keeps what may stay idle");
    assert_eq!(idle(&world), 5);
    world.check_quiet();
}

#[test]
fn with_nothing_to_keep_idle_the_node_is_as_it_was_before_its_pods() {
    let mut world = World::new(1, "", ROOMY);
    world.settle();
    assert_eq!(enis(&world), 0);
    add(&mut world, 0..25);
    (0..25).for_each(|n| world.del(n));
    world.settle();
    assert_eq!(enis(&world), 0);
    world.check_quiet();
}

#[test]
fn a_trunk_stays_though_it_is_empty() {
    let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
    world.settle();
    world.settle();
    assert_eq!(enis(&world), 1);
    world.check_quiet();
}

#[test]
fn an_address_that_the_kernel_has_in_use_is_not_given_back_but_rests() {
    let mut world = World::new(1, r#""max_pool_size": 5,"#, ROOMY);
    add(&mut world, 0..10);
    let addresses: Vec<IpAddr> = (0..10)
        .flat_map(|n| world.allocation(n).unwrap().addresses.iter().collect::<Vec<_>>())
        .collect();
    world.in_use = addresses.iter().copied().collect();
    (0..10).for_each(|n| world.del(n));
    world.settle();
    let first = &world.disagreements[0];
    assert_eq!(first.kind, DisagreementKind::AddressInUse);
    assert_eq!(first.ours, "idle");
    let kept: usize = world.cloud.enis.values().map(|eni| eni.v4.len()).sum();
    assert_eq!(kept, 10, "nothing goes on our own word");
    world.in_use.clear();
    world.settle();
    assert_eq!(idle(&world), 5);
    world.check_quiet();
}

#[test]
fn a_new_node_is_warmed_up_once_and_a_restart_does_not_do_it_again() {
    let conf = r#""max_pool_size": 12, "ip_warm_up_size": 12,"#;
    let mut world = World::new(1, conf, ROOMY);
    world.settle();
    assert_eq!(idle(&world), 12);
    add(&mut world, 0..10);
    world.settle();
    assert_eq!(idle(&world), 2, "what is used is not made up for");
    world.restart();
    world.settle();
    assert_eq!(idle(&world), 2);
    world.check_quiet();
}

#[test]
fn a_restart_in_the_middle_of_the_warm_up_goes_on_with_it() {
    let conf = r#""max_pool_size": 25, "ip_warm_up_size": 25,"#;
    let mut world = World::new(1, conf, ROOMY);
    for _ in 0..6 {
        world.drain_one_round();
    }
    assert!(idle(&world) < 25);
    world.kill(0);
    world.settle();
    assert_eq!(idle(&world), 25);
    world.check_quiet();
}

#[test]
fn a_warm_up_above_the_maximum_is_bounded_by_it() {
    let mut world = World::new(1, r#""max_pool_size": 4, "ip_warm_up_size": 20,"#, ROOMY);
    world.settle();
    assert_eq!(idle(&world), 4);
    world.check_quiet();
}

#[test]
fn a_pool_that_nobody_touches_shrinks_in_batches_and_never_below_the_minimum() {
    let conf = r#""min_pool_size": 2, "max_pool_size": 20, "ip_warm_up_size": 9,
        "idle_ip_reclaim_after": "10m", "idle_ip_reclaim_batch_size": 3,
        "idle_ip_reclaim_interval": "5m", "idle_ip_reclaim_jitter_factor": "0","#;
    let mut world = World::new(1, conf, ROOMY);
    world.settle_with_faults(590);
    assert_eq!(idle(&world), 9);
    let mut seen = Vec::new();
    for _ in 0..60 {
        world.settle_with_faults(30);
        if seen.last() != Some(&idle(&world)) {
            seen.push(idle(&world));
        }
    }
    assert_eq!(seen, [6, 3, 2]);
    world.check_quiet();
}

#[test]
fn a_pod_that_comes_or_goes_puts_the_reclaim_off() {
    let conf = r#""max_pool_size": 20, "ip_warm_up_size": 9, "idle_ip_reclaim_after": "10m","#;
    let mut world = World::new(1, conf, ROOMY);
    for n in 0..5 {
        world.settle_with_faults(300);
        world.add(n, false, SECOND);
        world.acknowledge(n);
    }
    assert_eq!(idle(&world), 4, "nothing was given back in between");
    world.settle_with_faults(660);
    assert!(idle(&world) < 4);
}

#[test]
fn so_many_enis_stay_as_are_to_be_kept() {
    let mut world = World::new(1, r#""min_eni": 2,"#, ROOMY);
    world.settle();
    assert_eq!(enis(&world), 2);
    add(&mut world, 0..25);
    assert_eq!(enis(&world), 3);
    (0..25).for_each(|n| world.del(n));
    world.settle();
    assert_eq!(enis(&world), 2);
    world.check_quiet();
}

#[test]
fn a_share_of_the_instance_s_enis_is_all_that_is_used() {
    // Of four ENIs half, and one more, less the primary one.
    let mut world = World::new(1, r#""eni_cap_ratio": 0.5, "eni_cap_shift": 1,"#, ROOMY);
    for n in 0..30 {
        world.add(n, false, SECOND * 60);
    }
    world.settle_with_faults(30);
    assert_eq!(enis(&world), 2);
    assert!(world.refusal(29).is_some());
}

#[test]
fn pods_fill_the_fullest_eni_first_or_spread_as_configured() {
    for (policy, expected) in [("most_ips", [10, 1]), ("least_ips", [6, 5])] {
        let conf = format!(
            r#""min_eni": 2, "min_pool_size": 18, "max_pool_size": 20, "eni_selection_policy": "{policy}","#
        );
        let mut world = World::new(1, &conf, ROOMY);
        world.settle();
        for n in 0..11 {
            world.add(n, false, SECOND);
        }
        let mut used: Vec<u32> =
            world.state.pool.ports().map(|(_, port)| port.shelf.used()).collect();
        used.sort_unstable();
        used.reverse();
        assert_eq!(used[..2], expected, "{policy}");
    }
}

#[test]
fn an_eni_that_a_tag_gives_to_others_serves_nobody_new_and_is_left_alone() {
    let mut world = World::new(1, r#""max_pool_size": 20,"#, ROOMY);
    add(&mut world, 0..3);
    let id = world.allocation(0).unwrap().eni.clone();
    let tag = ("terway.alibabacloud.com/excluded", "true");
    let tags = &mut world.cloud.enis.get_mut(&id).unwrap().tags;
    tags.insert(tag.0.to_owned(), tag.1.to_owned());
    world.restart();
    world.settle();
    add(&mut world, 3..5);
    for n in 0..3 {
        assert_eq!(world.allocation(n).unwrap().eni, id, "its pods keep their addresses");
    }
    for n in 3..5 {
        assert_ne!(world.allocation(n).unwrap().eni, id);
    }
    (0..5).for_each(|n| world.del(n));
    world.settle();
    assert!(world.cloud.enis.contains_key(&id), "it is not ours to give back");
    // It serves again when the tag is gone.
    world.cloud.enis.get_mut(&id).unwrap().tags.remove(tag.0);
    world.restart();
    world.settle();
    assert!(world.state.pool.ports().any(|(_, port): (_, &Port)| port.id == id && port.serves()));
}

#[test]
fn an_attached_eni_of_a_blocked_tag_is_not_taken_over_and_counts_against_the_quota() {
    let mut world = World::new(1, "", ROOMY);
    add(&mut world, 0..1);
    let id = world.allocation(0).unwrap().eni.clone();
    let tags = &mut world.cloud.enis.get_mut(&id).unwrap().tags;
    tags.insert("creator".to_owned(), "alibabacloud-erdma-controller".to_owned());
    world.lose_checkpoint();
    world.settle();
    assert_eq!(world.state.pool.ports().count(), 0);
    assert_eq!(world.state.pool.max_enis(), 2);
    assert!(world.cloud.enis.contains_key(&id));
}

#[test]
fn a_pool_below_its_minimum_is_filled_again_after_a_refusal_though_nobody_waits() {
    let mut world =
        World::new(1, r#""min_pool_size": 5, "max_pool_size": 5,"#, &[("vsw-a", 0), ("vsw-b", 0)]);
    world.settle_with_faults(30);
    assert_eq!(enis(&world), 0);
    world.cloud.vswitches.values_mut().for_each(|vswitch| vswitch.available = 100);
    world.settle();
    assert_eq!(idle(&world), 5);
}

#[test]
fn an_eni_that_becomes_somebody_else_s_while_the_kernel_is_asked_is_not_given_back() {
    let mut world = World::new(1, r#""max_pool_size": 20,"#, ROOMY);
    add(&mut world, 0..3);
    let id = world.allocation(0).unwrap().eni.clone();
    let tags = &mut world.cloud.enis.get_mut(&id).unwrap().tags;
    tags.insert("terway.alibabacloud.com/excluded".to_owned(), "true".to_owned());
    world.reconfigure(super::world::options(r#""max_pool_size": 0,"#));
    (0..3).for_each(|n| world.del(n));
    world.settle();
    assert!(world.cloud.enis.contains_key(&id));
    // Its owner takes it away: we only forget it.
    world.cloud.enis.get_mut(&id).unwrap().status = cloud::EniStatus::Available;
    world.cloud.enis.get_mut(&id).unwrap().instance = None;
    world.reconfigure(super::world::options(r#""max_pool_size": 1,"#));
    world.settle();
    world.settle();
    assert!(world.cloud.enis.contains_key(&id), "it was deleted though it is not ours");
}

#[test]
fn an_eni_of_ours_is_known_also_when_eni_tags_have_changed() {
    let mut world = World::new(1, r#""max_pool_size": 10,"#, ROOMY);
    add(&mut world, 0..3);
    let id = world.allocation(0).unwrap().eni.clone();
    world.lose_checkpoint();
    world
        .reconfigure(super::world::options(r#""max_pool_size": 10, "eni_tags": {"team": "net"},"#));
    world.settle();
    assert!(world.state.pool.ports().any(|(_, port): (_, &Port)| port.id == id));
}
