//! One thing at a time.

use std::net::IpAddr;
use std::time::Duration;

use cloud::EniStatus;
use controlplane::simulation::Faults;
use model::{EniId, VSwitchId};
use proto::agent::Reason;

use super::world::{COOLDOWN, Caller, SECOND, World, key};
use crate::checkpoint::RestKind;
use crate::ipam::AllocError;
use crate::ipam::event::{Ask, Effect, Event};
use crate::ipam::pool::Port;
use crate::ipam::snapshot::{Snapshot, Standing};

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

/// A pool with ten idle addresses on one ENI.
fn warm() -> World {
    let mut world = World::new(1, r#""min_pool_size": 10, "max_pool_size": 10,"#, ROOMY);
    world.settle();
    world
}

fn refused(world: &World, n: u8) -> AllocError {
    world.refusal(n).cloned().unwrap_or_else(|| panic!("{:?}", world.callers.get(&key(n))))
}

#[test]
fn an_idle_address_is_served_at_once_and_nobody_is_asked() {
    let mut world = World::new(1, r#""min_pool_size": 0, "max_pool_size": 10,"#, ROOMY);
    world.add(0, false, SECOND * 60);
    world.settle();
    world.del(0);
    world.settle();
    let calls = world.cloud.calls;
    world.add(1, false, SECOND);
    assert!(world.allocation(1).is_some());
    assert_eq!(world.effects, []);
    assert_eq!(world.cloud.calls, calls);
}

#[test]
fn those_who_come_together_are_asked_for_in_one_go() {
    let mut world = World::new(1, "", ROOMY);
    world.settle();
    for n in 0..25 {
        world.add(n, false, SECOND * 60);
    }
    world.pass(SECOND / 50);
    let mut creates: Vec<u32> = world
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Ask(Ask::Eni(_, controlplane::Call::Create(create))) => {
                Some(create.secondary_v4 + 1)
            }
            _ => None,
        })
        .collect();
    creates.sort_unstable();
    assert_eq!(creates, [5, 10, 10]);
    world.settle();
    assert!((0..25).all(|n| world.allocation(n).is_some()));
}

#[test]
fn an_eni_that_has_room_grows_before_another_is_made() {
    let mut world = World::new(1, "", ROOMY);
    for n in 0..10 {
        world.add(n, false, SECOND * 60);
        world.drain();
        world.pass(SECOND * 4);
    }
    world.settle();
    assert_eq!(world.cloud.enis.len(), 1);
    world.check_quiet();
}

#[test]
fn a_full_instance_says_so_in_numbers_and_at_once() {
    let mut world = World::new(1, "", ROOMY);
    for n in 0..30 {
        world.add(n, false, SECOND * 60);
    }
    world.settle();
    world.add(30, false, SECOND * 60);
    world.pass(SECOND / 10);
    let error = refused(&world, 30);
    assert_eq!(error.reason(), Reason::QuotaReached);
    assert_eq!(
        error.to_string(),
        "the instance's quota of addresses on shared ENIs is reached: 30 in use, 0 resting and 0 on their way back, of 30"
    );
    assert!(error.details().starts_with("one is free again when a pod"), "{}", error.details());
    // A pod that ends makes room, as soon as its address has rested.
    world.del(7);
    world.add(31, false, COOLDOWN * 2);
    world.pass(SECOND * 29);
    assert!(world.allocation(31).is_none() && world.refusal(31).is_none());
    world.settle();
    assert!(world.allocation(31).is_some());
    // Who cannot wait so long is told at once.
    world.del(8);
    world.add(32, false, COOLDOWN / 2);
    world.pass(SECOND / 10);
    let error = refused(&world, 32);
    assert_eq!(error.reason(), Reason::QuotaReached);
    assert!(error.to_string().contains("29 in use, 1 resting and"), "{error}");
    let next = "the next resting address is free in 29s; else";
    assert!(error.details().starts_with(next), "{}", error.details());
}

#[test]
fn enis_on_their_way_are_not_full_with_what_they_are_made_with() {
    let mut world = World::new(1, r#""request_batch": 4,"#, ROOMY);
    world.settle();
    (0..30).for_each(|n| world.add(n, false, SECOND * 60));
    for _ in 0..30 {
        world.drain();
        world.pass(SECOND);
    }
    assert!((0..30).all(|n| world.allocation(n).is_some()), "{:?}", world.refusal(29));
}

#[test]
fn exhausted_vswitches_are_named_with_their_room_and_the_next_try() {
    let mut world = World::new(1, "", &[("vsw-a", 3), ("vsw-b", 2)]);
    for n in 0..6 {
        world.add(n, false, SECOND * 60);
    }
    world.settle();
    let given = (0..6).filter(|n| world.allocation(*n).is_some()).count();
    assert_eq!(given, 5, "a vSwitch was not used to its end");
    let error = (0..6).find_map(|n| world.refusal(n)).unwrap();
    assert_eq!(error.reason(), Reason::VswitchExhausted);
    let text = error.to_string();
    assert!(text.starts_with("no vSwitch of eni_conf has a free address (vsw-a: 0 of"), "{text}");
    assert!(error.details().contains("next try of a vSwitch in "), "{}", error.details());
}

#[test]
fn a_vswitch_has_again_what_pods_gave_back() {
    let conf = r#""min_pool_size": 0, "max_pool_size": 0,"#;
    let mut world = World::new(1, conf, &[("vsw-a", 12), ("vsw-b", 0)]);
    for _ in 0..5 {
        for n in 0..10 {
            world.add(n, false, SECOND * 10);
        }
        for _ in 0..10 {
            world.drain();
            world.pass(SECOND);
        }
        assert!((0..10).all(|n| world.allocation(n).is_some()), "{:?}", world.callers);
        (0..10).for_each(|n| world.del(n));
        // All rest, and go back with their ENI.
        world.settle_with_faults(300);
        let vsw = VSwitchId::new("vsw-a");
        let counted = world.state.vswitches.get(&vsw).unwrap().available;
        assert_eq!(counted, world.cloud.vswitches[&vsw].available, "counted and true");
        assert_eq!(counted, 12);
    }
}

#[test]
fn nobody_is_refused_for_a_vswitch_that_is_empty_by_our_own_count_only() {
    let mut world = World::new(1, r#""max_pool_size": 10,"#, &[("vsw-a", 5), ("vsw-b", 0)]);
    world.settle();
    // Others free some; nobody tells us.
    let vsw = VSwitchId::new("vsw-a");
    world.cloud.vswitches.get_mut(&vsw).unwrap().available = 200;
    for n in 0..20 {
        world.add(n, false, SECOND * 20);
    }
    for _ in 0..20 {
        world.drain();
        world.pass(SECOND);
    }
    assert!((0..20).all(|n| world.allocation(n).is_some()), "{:?}", world.callers);
}

#[test]
fn an_address_that_the_cloud_does_not_take_back_is_idle_and_its_eni_still_grows() {
    let mut world = World::new(1, r#""min_pool_size": 0, "max_pool_size": 2,"#, ROOMY);
    (0..8).for_each(|n| world.add(n, false, SECOND * 20));
    world.settle();
    world.cloud.faults = Faults { forbidden: 100, ..Faults::default() };
    (0..6).for_each(|n| world.del(n));
    for _ in 0..35 {
        world.drain();
        world.pass(SECOND);
    }
    let rests = |port: &Port| port.shelf.iter().any(|(_, slot)| slot.state.rests());
    assert!(!world.state.pool.ports().any(|(_, port)| rests(port)), "one still leaves");
    world.check_quiet();
    // The eight that are there serve, and two more come at once on the same ENI.
    (10..18).for_each(|n| world.add(n, false, SECOND * 5));
    for _ in 0..5 {
        world.drain();
        world.pass(SECOND);
    }
    assert!((10..18).all(|n| world.allocation(n).is_some()), "{:?}", world.callers);
    assert_eq!(world.cloud.enis.len(), 1);

    // Giving back is tried again, later and later, until it works.
    (10..18).for_each(|n| world.del(n));
    let calls = world.cloud.calls;
    world.settle_with_faults(300);
    assert!(world.cloud.calls - calls < 12, "{} calls", world.cloud.calls - calls);
    world.cloud.faults = Faults::default();
    world.settle_with_faults(600);
    world.check_quiet();
    assert_eq!(world.cloud.enis.values().map(|eni| eni.v4.len()).sum::<usize>(), 4);
}

#[test]
fn a_throttled_cloud_is_named_at_the_deadline_with_the_next_call() {
    let mut world = World::new(1, "", ROOMY);
    world.settle();
    world.cloud.faults = Faults { throttled: 100, ..Faults::default() };
    world.add(0, false, SECOND * 20);
    for _ in 0..40 {
        world.drain();
        world.pass(SECOND / 2);
    }
    let error = refused(&world, 0);
    assert_eq!(error.reason(), Reason::Throttled);
    assert!(error.details().contains("next call in "), "{}", error.details());
    assert!(error.details().contains("Throttling.User (status 403, request R-1)"));
    // What was asked for goes on, and serves the next try.
    world.cloud.faults = Faults::default();
    world.settle_with_faults(60);
    world.add(1, false, SECOND);
    assert!(world.allocation(1).is_some());
}

#[test]
fn a_cloud_that_cannot_be_read_is_the_reason() {
    let mut world = World::new(1, "", ROOMY);
    world.cloud.faults = Faults { throttled: 100, ..Faults::default() };
    world.add(0, false, SECOND * 5);
    world.drain();
    world.pass(SECOND * 6);
    assert_eq!(refused(&world, 0).reason(), Reason::Throttled);
    let not_ready = Standing::of(&world.state).not_ready.unwrap();
    assert!(not_ready.starts_with("the node's ENIs cannot be read: "), "{not_ready}");
    world.settle();
    assert_eq!(Standing::of(&world.state).not_ready, None);
}

#[test]
fn rest_outlives_a_restart_and_begins_anew_with_the_machine() {
    for reboots in [false, true] {
        let mut world = warm();
        world.add(0, false, SECOND);
        world.acknowledge(0);
        let address = world.allocation(0).unwrap().addresses.v4().unwrap();
        world.del(0);
        assert_eq!(world.disk.whole().rests[0].kind, RestKind::Cooling);
        world.pass(COOLDOWN / 2);
        if reboots {
            world.reboot();
        } else {
            world.restart();
        }
        let rests = |world: &World| {
            let slots = world.state.pool.ports().flat_map(|(_, port)| port.shelf.iter());
            slots
                .filter(|(_, slot)| slot.state.name() == "resting")
                .map(|(a, _)| a)
                .collect::<Vec<_>>()
        };
        world.drain();
        assert_eq!(rests(&world), [IpAddr::V4(address)]);
        world.pass(COOLDOWN / 2 + SECOND);
        world.drain();
        assert_eq!(rests(&world).is_empty(), !reboots);
        world.pass(COOLDOWN / 2);
        world.drain();
        assert_eq!(rests(&world), Vec::<IpAddr>::new());
        world.settle();
        assert!(world.disk.whole().rests.is_empty());
    }
}

#[test]
fn a_cancelled_add_gives_its_address_back_unrested() {
    let mut world = warm();
    world.add(0, false, SECOND);
    // The answer was on its way when the caller went.
    let ticket = 1;
    assert!(matches!(world.callers.remove(&key(0)), Some(Caller::Has { .. })));
    world.event(Event::Cancel { ticket, key: key(0) });
    assert_eq!(Snapshot::of(&world.state).pool.idle, 10);
    assert_eq!(Snapshot::of(&world.state).pool.used, 0);
    // One that came too late takes nothing from the sandbox that asked again.
    world.add(0, false, SECOND);
    world.event(Event::Cancel { ticket, key: key(0) });
    assert_eq!(Snapshot::of(&world.state).pool.used, 1);
}

#[test]
fn the_same_sandbox_gets_the_same_again_also_after_a_restart() {
    let mut world = warm();
    world.add(0, false, SECOND);
    world.acknowledge(0);
    let first = world.allocation(0).cloned();
    world.restart();
    world.drain();
    world.callers.remove(&key(0));
    world.add(0, false, SECOND);
    assert_eq!(world.allocation(0).cloned(), first);
}

#[test]
fn idle_addresses_above_the_maximum_go_back_but_never_the_primary_one() {
    let mut world = World::new(1, r#""min_pool_size": 0, "max_pool_size": 2,"#, ROOMY);
    for n in 0..8 {
        world.add(n, false, SECOND * 60);
    }
    world.settle();
    for n in 0..8 {
        world.del(n);
    }
    world.settle();
    let snapshot = Snapshot::of(&world.state);
    assert_eq!(snapshot.pool.idle, 2);
    let eni = &snapshot.enis.enis[0];
    assert!(eni.addresses.iter().any(|address| address.primary));
    world.check_quiet();
}

#[test]
fn an_intent_without_an_answer_is_finished_after_a_kill_and_not_doubled() {
    // The bits of the number say which calls in flight are performed before the process ends.
    for performed in [0, usize::MAX] {
        let mut world = World::new(1, r#""min_pool_size": 3, "max_pool_size": 3,"#, ROOMY);
        while world.disk.whole().enis.is_empty() {
            world.drain_one_round();
        }
        world.kill(performed);
        world.settle();
        assert_eq!(world.cloud.enis.len(), 1);
        assert_eq!(Snapshot::of(&world.state).pool.idle, 3);
        world.check_quiet();
    }
}

#[test]
fn an_eni_that_vanishes_is_not_served_from_and_its_pods_are_named() {
    let mut world = warm();
    world.add(0, false, SECOND);
    world.acknowledge(0);
    let id = world.allocation(0).unwrap().eni.clone();
    world.cloud.enis.remove(&id);
    world.state.pool.look_at(world.now);
    world.settle();
    let shown = Snapshot::of(&world.state);
    let lost = shown.enis.enis.iter().find(|eni| eni.id == id.as_str()).unwrap();
    let states: Vec<_> = lost.addresses.iter().map(|a| a.state.as_str()).collect();
    assert!(states.contains(&"invalid"), "{states:?}");
    world.add(1, false, SECOND * 60);
    world.settle();
    assert_ne!(world.allocation(1).unwrap().eni, id);
    // When its last pod goes, its record goes.
    world.del(0);
    world.settle();
    world.check_quiet();
}

#[test]
fn a_lost_checkpoint_adopts_what_is_attached_and_lets_its_addresses_rest() {
    let mut world = World::new(1, r#""max_pool_size": 10,"#, ROOMY);
    for n in 0..7 {
        world.add(n, false, SECOND * 60);
    }
    world.settle();
    let enis = world.cloud.enis.len();
    world.callers.clear();
    world.disk = crate::ipam::simulation::Disk::default();
    world.restart();
    world.drain();
    world.pass(SECOND);
    world.drain();
    let shown = Snapshot::of(&world.state);
    assert_eq!((shown.pool.idle, shown.pool.resting), (0, 7));
    world.settle();
    assert_eq!(world.cloud.enis.len(), enis);
    assert_eq!(Snapshot::of(&world.state).pool.idle, 7);
    world.check_quiet();
}

#[test]
fn the_trunk_is_made_at_the_start_and_members_wait_for_it() {
    let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
    world.add(0, true, SECOND * 60);
    world.add(1, true, SECOND / 2);
    world.drain();
    world.pass(SECOND);
    let error = refused(&world, 1);
    assert_eq!(error.reason(), Reason::TryAgainLater);
    assert!(error.to_string().contains("the node's trunk ENI is not up yet"), "{error}");
    world.settle();
    let allocation = world.allocation(0).unwrap();
    let trunk = &world.cloud.enis[&allocation.parent];
    assert_eq!(trunk.kind, cloud::EniKind::Trunk);
    assert!(allocation.vlan.is_some());
    let shown = Snapshot::of(&world.state);
    assert_eq!(shown.enis.enis[0].members[0].owner, "c0");
    assert_eq!((shown.pool.members, shown.pool.max_members), (1, 3));
    world.check_quiet();
}

#[test]
fn a_member_that_does_not_get_bound_is_named_with_its_phase_and_deleted() {
    let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
    world.settle();
    world.cloud.delay = Duration::from_hours(1);
    world.add(0, true, SECOND * 20);
    for _ in 0..30 {
        world.drain();
        world.pass(SECOND);
    }
    let error = refused(&world, 0);
    assert_eq!(error.reason(), Reason::PodEniNotBound);
    assert_eq!(
        error.to_string(),
        "member ENI eni-3 is not bound: phase Attaching, and 20s have passed"
    );
    let stuck = world.cloud.enis.get_mut(&EniId::new("eni-3")).unwrap();
    stuck.status = EniStatus::InUse;
    world.cloud.delay = SECOND;
    world.settle();
    world.check_quiet();
}

#[test]
fn no_more_members_than_the_type_allows_and_room_again_after_a_del() {
    let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
    for n in 0..4 {
        world.add(n, true, SECOND * 60);
    }
    world.settle();
    let error = (0..4).find_map(|n| world.refusal(n)).unwrap();
    assert_eq!(error.to_string(), "the instance's quota of member ENIs is reached: 3 of 3 in use");
    let gone = (0..4).find(|n| world.allocation(*n).is_some()).unwrap();
    world.del(gone);
    world.add(9, true, SECOND * 60);
    world.settle();
    assert!(world.allocation(9).is_some());
    world.check_quiet();
}

#[test]
fn what_is_not_on_the_disk_has_not_happened() {
    let mut world = warm();
    world.add(0, false, SECOND);
    world.add(1, false, SECOND * 60);
    world.pass(SECOND / 10);
    let effects: Vec<_> = world.effects.drain(..).map(|(_, effect)| effect).collect();
    assert!(!effects.is_empty(), "nothing was asked for");
    let error = "no space left on device".to_owned();
    world.event(Event::Unwritten { begun: world.now, effects, error });
    assert_eq!(world.effects, [], "it is tried again without a pause");
    world.settle();
    assert_eq!(Snapshot::of(&world.state).pool.idle, 10);
    world.check_quiet();
}

#[test]
fn a_stopping_daemon_answers_who_waits_and_still_releases() {
    let mut world = warm();
    world.add(0, false, SECOND);
    world.acknowledge(0);
    world.cloud.faults = Faults { throttled: 100, ..Faults::default() };
    for n in 1..12 {
        world.add(n, false, SECOND * 60);
    }
    world.event(Event::Stop);
    assert_eq!(refused(&world, 11), AllocError::Stopping);
    world.effects.clear();
    world.add(12, false, SECOND);
    assert_eq!(refused(&world, 12), AllocError::Stopping);
    world.del(0);
    assert!(world.disk.whole().sandboxes.is_empty());
    assert!(world.effects.iter().all(|(_, effect)| matches!(effect, Effect::Released(..))));
    assert_eq!(world.state.wake(world.now), None);
}
