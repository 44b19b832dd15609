//! Claims that others make or break, held by tests of their own, and the page that lists them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane::simulation::Faults;

use super::world::{SECOND, World};
use crate::ipam::snapshot::Snapshot;

const ROOMY: &[(&str, u64)] = &[("vsw-a", 1000), ("vsw-b", 1000)];

#[test]
fn a_resting_address_counts_as_none_when_the_pool_decides_to_grow() {
    let mut world = World::new(1, r#""max_pool_size": 10,"#, ROOMY);
    world.add(0, false, SECOND * 60);
    world.settle();
    let before = world.allocation(0).unwrap().addresses;
    world.del(0);
    world.add(1, false, SECOND * 20);
    for _ in 0..20 {
        world.drain();
        world.pass(SECOND / 2);
    }
    let after = world.allocation(1).expect("the cloud is asked for another one").addresses;
    assert_ne!(after, before);
    assert_eq!(Snapshot::of(&world.state).pool.resting, 1);
}

#[test]
fn a_thousand_sandboxes_of_one_pod_leave_one_address() {
    let mut world = World::new(1, r#""max_pool_size": 3,"#, ROOMY);
    for _ in 0..1000 {
        world.add(0, false, SECOND * 60);
        for _ in 0..8 {
            world.drain();
            world.pass(SECOND);
        }
        world.acknowledge(0);
        world.del(0);
    }
    world.add(0, false, SECOND * 60);
    world.settle();
    world.acknowledge(0);
    world.settle();
    let pool = Snapshot::of(&world.state).pool;
    assert_eq!(pool.used, 1);
    assert!(pool.idle <= 4, "{} idle", pool.idle);
    world.check_quiet();
}

#[test]
fn when_ten_minutes_of_throttling_end_pods_come_first_and_nothing_is_lost() {
    let mut world = World::new(1, r#""min_pool_size": 8, "max_pool_size": 10,"#, ROOMY);
    world.cloud.faults = Faults { throttled: 100, ..Faults::default() };
    for _ in 0..600 {
        world.drain();
        world.pass(SECOND);
    }
    (0..4).for_each(|n| world.add(n, false, SECOND * 60));
    world.cloud.faults = Faults::default();
    let mut served = None;
    for second in 0..60 {
        world.drain();
        world.pass(SECOND);
        if served.is_none() && (0..4).all(|n| world.allocation(n).is_some()) {
            served = Some((second, Snapshot::of(&world.state).pool.idle));
        }
    }
    let (second, _) = served.expect("all pods are served");
    assert!(second <= 45, "the last pod was served after {second} s");
    world.settle();
    world.check_quiet();
}

#[test]
fn a_machine_that_slept_for_an_hour_gives_nothing_back_and_ends_no_rest_before_its_time() {
    let mut world = World::new(1, r#""min_pool_size": 5, "max_pool_size": 10,"#, ROOMY);
    (0..4).for_each(|n| world.add(n, false, SECOND * 60));
    world.settle();
    (0..4).for_each(|n| world.acknowledge(n));
    world.del(3);
    let rests: Vec<Duration> = world.disk.whole().rests.iter().map(|rest| rest.since).collect();
    let addresses = |world: &World| world.cloud.enis.values().map(|e| e.v4.len()).sum::<usize>();
    let before = addresses(&world);
    // The clock of the machine goes on while it sleeps, and no step was made: so long has it rested.
    world.now += Duration::from_hours(1);
    world.settle();
    assert!(rests.iter().all(|since| *since < world.now));
    assert_eq!(addresses(&world), before, "nothing goes back for a sleep");
    assert!((0..3).all(|n| world.allocation(n).is_some()));
    world.check_quiet();
}

/// The claims of `peers.md` that concern the pool, the checkpoint and the cloud.
fn claims() -> BTreeSet<String> {
    let numbers = (1..=15).chain(20..=32).chain(80..=82);
    numbers.map(|n| format!("T{n:02}")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_page_of_claims_names_every_claim_and_only_tests_that_are_there() {
    let page = fs::read_to_string(root().join("docs/claims.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| T"));
    let mut listed = BTreeSet::new();
    let mut code = Vec::new();
    for folder in ["cloud", "controlplane", "daemon", "model", "tests", "cni-plugin"] {
        sources(&root().join(folder), &mut code);
    }
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (number, tests) = (cells[1], cells[3]);
        assert!(listed.insert(number.to_owned()), "{number} is there twice");
        assert!(!tests.is_empty(), "{number} has neither a test nor a reason");
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || tests.starts_with("not held"), "{number}: {tests}");
        for test in named {
            let name = test.rsplit("::").next().unwrap();
            let there = code.iter().any(|text| text.contains(&format!("fn {name}(")));
            assert!(there, "{number} names {test}, which is nowhere");
        }
    }
    assert_eq!(listed, claims());
}
