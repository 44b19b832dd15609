//! What the cloud has lost.

use std::time::Duration;

use cloud::EniKind;
use controlplane::simulation::Faults;
use model::EniId;
use proto::agent::Reason;

use super::world::{Caller, SECOND, World, key};
use crate::ipam::event::{Ask, Effect, Event};
use crate::ipam::pool::Port;
use crate::ipam::snapshot::{Snapshot, Standing};

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

/// A node with a trunk, and a pod on a member for so long that no read is old news of it.
fn with_a_member() -> (World, EniId) {
    let conf = r#""enable_eni_trunking": true, "max_pool_size": 10,"#;
    let mut world = World::new(1, conf, ROOMY);
    world.add(0, true, SECOND * 60);
    world.settle();
    world.acknowledge(0);
    let member = world.allocation(0).unwrap().eni.clone();
    (world, member)
}

fn phase_of(world: &World, member: &EniId) -> String {
    let enis = Snapshot::of(&world.state).enis.enis;
    let mut members = enis.iter().flat_map(|eni| &eni.members);
    members.find(|shown| shown.id == member.as_str()).unwrap().phase.clone()
}

#[test]
fn a_sandbox_whose_member_vanished_is_told_so_and_gets_another_after_its_del() {
    let (mut world, member) = with_a_member();
    assert_eq!(world.confirm(0, SECOND * 3), Ok(()));
    world.cloud.enis.remove(&member);

    // Nobody has looked yet: the question itself makes the pool look.
    let missing = world.confirm(0, SECOND * 3).unwrap_err();
    assert_eq!(missing.reason(), Reason::PodEniNotBound);
    assert!(missing.to_string().contains(member.as_str()), "{missing}");
    assert_eq!(phase_of(&world, &member), "missing");
    for _ in 0..5 {
        world.pass(SECOND);
        world.drain();
    }
    let calls = world.cloud.calls;
    let lost = world.confirm(0, SECOND * 3).unwrap_err();
    assert_eq!(world.cloud.calls, calls, "what is certain was asked again");
    assert!(lost.to_string().contains("phase Lost"), "{lost}");
    assert!(lost.to_string().contains(member.as_str()), "{lost}");
    assert!(lost.details().contains("delete the pod"), "{}", lost.details());
    assert_eq!(phase_of(&world, &member), "lost");
    assert!(Standing::of(&world.state).cut_off[&key(0)].contains(member.as_str()));

    world.del(0);
    world.settle();
    world.check_quiet();
    assert!(Standing::of(&world.state).cut_off.is_empty());
    world.add(1, true, SECOND * 60);
    world.settle();
    assert!(world.allocation(1).is_some());
    world.check_quiet();
}

#[test]
fn a_member_that_was_just_bound_may_be_missed_by_old_news_and_is_not_given_up() {
    let mut world = World::new(1, r#""enable_eni_trunking": true,"#, ROOMY);
    world.settle();
    world.add(0, true, SECOND * 60);
    while world.allocation(0).is_none() {
        world.drain();
        world.pass(SECOND / 10);
    }
    let member = world.allocation(0).unwrap().eni.clone();
    let eni = world.cloud.enis.remove(&member).unwrap();
    assert!(world.confirm(0, SECOND * 3).unwrap_err().to_string().contains("phase Missing"));
    for _ in 0..20 {
        world.pass(SECOND);
        world.drain();
    }
    assert_eq!(phase_of(&world, &member), "missing", "20 s are no proof");
    world.cloud.enis.insert(member.clone(), eni);
    for _ in 0..60 {
        world.pass(SECOND);
        world.drain();
    }
    assert_eq!(phase_of(&world, &member), "in_use");
    assert_eq!(world.confirm(0, SECOND * 3), Ok(()));
}

#[test]
fn a_cloud_that_does_not_answer_takes_no_pod_its_member() {
    let (mut world, _) = with_a_member();
    world.cloud.faults = Faults { throttled: 100, ..Faults::default() };
    let asked = world.now;
    assert_eq!(world.confirm(0, SECOND * 3), Ok(()));
    assert_eq!(world.now, asked + SECOND * 3, "it is asked for as long as there is time");
}

#[test]
fn a_trunk_that_vanished_is_noticed_by_the_next_member_and_replaced() {
    let (mut world, member) = with_a_member();
    let trunk = world.allocation(0).unwrap().parent.clone();
    world.cloud.enis.remove(&member);
    world.cloud.enis.remove(&trunk);
    world.add(1, true, SECOND * 45);
    for _ in 0..450 {
        world.drain();
        world.pass(SECOND / 10);
    }
    let allocation = world.allocation(1).expect("the first ADD after the loss is served");
    assert_ne!(allocation.parent, trunk);
    assert_eq!(world.cloud.enis[&allocation.parent].kind, EniKind::Trunk);
    // The old one is shown as long as a pod of it is there.
    assert_eq!(phase_of(&world, &member), "lost");
    let enis = Snapshot::of(&world.state).enis.enis;
    assert_eq!(enis.iter().find(|eni| eni.id == trunk.as_str()).unwrap().phase, "lost");
    world.del(0);
    world.settle();
    world.check_quiet();
    assert_eq!(world.cloud.enis.len(), 2);
}

#[test]
fn an_address_that_the_cloud_took_before_its_caller_went_away_is_not_idle() {
    let mut world = World::new(1, r#""min_pool_size": 2, "max_pool_size": 5,"#, ROOMY);
    world.settle();
    world.add(0, false, SECOND);
    let allocation = world.allocation(0).unwrap().clone();
    let v4 = allocation.addresses.v4().unwrap();
    world.cloud.enis.get_mut(&allocation.eni).unwrap().v4.retain(|address| *address != v4);
    // The pool grows for that pod; so long a read may be old news.
    for _ in 0..70 {
        world.drain();
        world.pass(SECOND);
    }
    world.state.pool.look_at(world.now);
    world.event(Event::Tick);
    world.drain();
    assert!(Standing::of(&world.state).cut_off.contains_key(&key(0)));
    // The answer was on its way for all that time.
    assert!(matches!(world.callers.remove(&key(0)), Some(Caller::Has { .. })));
    world.event(Event::Cancel { ticket: 1, key: key(0) });
    // A pod that comes now is checked to have an address that its ENI has.
    for n in 1..4 {
        world.add(n, false, SECOND * 60);
    }
    world.settle();
    assert!((1..4).all(|n| world.allocation(n).is_some()));
}

#[test]
fn an_address_of_a_pod_that_is_cut_off_is_given_to_nobody_else_on_the_node() {
    let (mut world, member) = with_a_member();
    let v4 = world.allocation(0).unwrap().addresses.v4().unwrap();
    let trunk = world.allocation(0).unwrap().parent.clone();
    world.cloud.enis.remove(&member);
    // The vSwitch has it free, and somebody gives it to the trunk.
    world.cloud.enis.get_mut(&trunk).unwrap().v4.push(v4);
    for _ in 0..5 {
        world.state.pool.look_at(world.now);
        for _ in 0..40 {
            world.pass(SECOND);
            world.drain();
        }
    }
    // Whoever is served is checked to be the only one with its address.
    for n in 1..3 {
        world.add(n, false, SECOND * 20);
    }
    world.settle();
    assert!((1..3).all(|n| world.allocation(n).is_some()));
    world.del(0);
    world.settle();
    world.check_quiet();
    let mut slots = world.state.pool.ports().flat_map(|(_, port)| port.shelf.iter());
    let resting = slots.any(|(address, slot)| address == v4 && slot.state.rests());
    assert!(!resting, "it is free when its pod is gone");
}

#[test]
fn an_eni_without_a_link_serves_nobody_and_the_cloud_is_asked_at_once() {
    let mut world = World::new(1, r#""min_pool_size": 3, "max_pool_size": 5,"#, ROOMY);
    world.settle();
    let eni = world.cloud.enis.keys().next().unwrap().clone();
    world.unplugged.insert(eni.clone());
    world.unplug(&eni);
    let asks = |world: &World| {
        let asks = |(_, effect): &&(_, Effect)| *effect == Effect::Ask(Ask::Instance);
        world.effects.iter().filter(asks).count()
    };
    assert_eq!(asks(&world), 1);
    world.drain();
    world.unplug(&eni);
    assert_eq!(asks(&world), 0, "it is told once");
    // The cloud has it still: others take its place, and it serves when its link is back.
    world.add(0, false, SECOND * 20);
    for _ in 0..20 {
        world.drain();
        world.pass(SECOND);
    }
    assert_ne!(world.allocation(0).unwrap().eni, eni);
    world.unplugged.clear();
    world.settle();
    let back = |port: &Port| port.id == eni && port.serves();
    assert!(world.state.pool.ports().any(|(_, port)| back(port)));
}

#[test]
fn a_shared_pod_whose_eni_vanished_is_told_so_from_memory() {
    let mut world = World::new(1, r#""min_pool_size": 1, "max_pool_size": 5,"#, ROOMY);
    world.add(0, false, SECOND * 60);
    world.settle();
    world.acknowledge(0);
    let eni = world.allocation(0).unwrap().eni.clone();
    assert_eq!(world.confirm(0, SECOND), Ok(()));
    world.cloud.enis.remove(&eni);
    world.state.pool.look_at(world.now);
    for _ in 0..10 {
        world.drain();
        world.pass(SECOND);
    }
    let calls = world.cloud.calls;
    let error = world.confirm(0, Duration::ZERO).unwrap_err();
    assert_eq!(world.cloud.calls, calls);
    assert!(error.to_string().contains(eni.as_str()), "{error}");
    assert!(Standing::of(&world.state).cut_off.contains_key(&key(0)));
    // Its only pod goes, and it goes at once: nobody has to look again.
    world.del(0);
    for _ in 0..10 {
        world.drain();
        world.pass(SECOND);
    }
    let shown = Snapshot::of(&world.state).enis.enis;
    assert!(shown.iter().all(|shown| shown.id != eni.as_str()), "{shown:?}");
}
