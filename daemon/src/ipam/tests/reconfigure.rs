//! Another configuration while the pool works.

use super::world::{SECOND, World, options};
use crate::ipam::event::{Ask, Effect, Event};

fn reconfigured(world: &mut World, conf: &str) {
    world.event(Event::Reconfigure(Box::new(options(conf))));
    for _ in 0..60 {
        world.drain();
        world.pass(SECOND);
    }
}

#[test]
fn pods_that_were_turned_away_are_served_once_the_limit_is_raised() {
    let mut world = World::new(1, r#""max_eni": 1,"#, &[("vsw-a", 90), ("vsw-b", 90)]);
    (0..12).for_each(|n| world.add(n, false, SECOND * 30));
    reconfigured(&mut world, r#""max_eni": 1,"#);
    let refused: Vec<u8> = (0..12).filter(|n| world.refusal(*n).is_some()).collect();
    assert_eq!(refused.len(), 2, "an ENI holds ten");
    reconfigured(&mut world, r#""max_eni": 2,"#);
    for n in &refused {
        world.add(*n, false, SECOND * 30);
    }
    reconfigured(&mut world, r#""max_eni": 2,"#);
    assert!((0..12).all(|n| world.allocation(n).is_some()), "{:?}", world.callers);
}

#[test]
fn who_waits_for_a_vswitch_that_does_not_exist_is_served_from_the_new_one() {
    let mut world = World::new(1, "", &[("vsw-c", 90)]);
    world.add(1, false, SECOND * 30);
    let mut other = options("");
    let zone = other.config.vswitches.values_mut().next().unwrap();
    *zone = vec![model::VSwitchId::new("vsw-c")];
    world.event(Event::Reconfigure(Box::new(other)));
    world.settle();
    assert!(world.allocation(1).is_some(), "{:?}", world.callers);
    // Nor are those described any more that nobody names.
    for _ in 0..7200 {
        world.pass(SECOND);
        let asked = |effect: &Effect| matches!(effect, Effect::Ask(Ask::VSwitch(id)) if id.as_str() == "vsw-a");
        assert!(!world.effects.iter().any(|(_, effect)| asked(effect)), "vsw-a is still asked for");
        world.drain();
    }
}

#[test]
fn idle_addresses_follow_the_pool_s_new_size() {
    let conf = |min, max| format!(r#""min_pool_size": {min}, "max_pool_size": {max},"#);
    let mut world = World::new(1, &conf(0, 0), &[("vsw-a", 90), ("vsw-b", 90)]);
    reconfigured(&mut world, &conf(6, 8));
    let addresses =
        |world: &World| world.cloud.enis.values().map(|eni| eni.v4.len()).sum::<usize>();
    let grown = addresses(&world);
    assert!((6..=9).contains(&grown), "{grown} addresses");
    reconfigured(&mut world, &conf(0, 2));
    assert!((1..=3).contains(&addresses(&world)), "{} addresses", addresses(&world));
}
