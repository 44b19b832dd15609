//! Laws, whatever happens and in whatever order.

use controlplane::simulation::Faults;
use proptest::prelude::*;

use super::world::{Caller, SECOND, World, key};

#[derive(Debug, Clone)]
enum Step {
    Add { n: u8, member: bool, wait: u32 },
    Acknowledge(u8),
    Del(u8),
    Cancel(u8),
    Unplug(usize),
    Carry(usize),
    Pass(u64),
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let add = (0u8..40, prop::bool::weighted(0.2), 1u32..90);
    prop_oneof![
        6 => add.prop_map(|(n, member, wait)| Step::Add { n, member, wait }),
        5 => (0u8..40).prop_map(Step::Acknowledge),
        3 => (0u8..40).prop_map(Step::Del),
        1 => (0u8..40).prop_map(Step::Cancel),
        1 => (0usize..3).prop_map(Step::Unplug),
        20 => any::<usize>().prop_map(Step::Carry),
        8 => (1u64..8000).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Kill),
    ]
}

fn conf() -> impl Strategy<Value = String> {
    let stack = prop_oneof![Just("ipv4"), Just("dual"), Just("ipv6")];
    let idle = prop_oneof![Just((0, 0)), Just((0, 5)), Just((3, 5)), Just((8, 30))];
    (stack, idle, prop_oneof![Just(10), Just(3)], any::<bool>()).prop_map(
        |(stack, (min, max), batch, trunking)| {
            format!(
                r#""ip_stack": "{stack}", "min_pool_size": {min}, "max_pool_size": {max},
                   "request_batch": {batch}, "enable_eni_trunking": {trunking},"#
            )
        },
    )
}

proptest! {
    #[test]
    fn every_pod_has_an_address_of_its_own_or_a_reason_and_nothing_is_leaked(
        seed in any::<u64>(),
        conf in conf(),
        room in prop_oneof![Just(5u64), Just(1000)],
        faults in (0u64..30, 0u64..20, 0u64..20, 0u64..20, 0u64..50),
        lag in 0u64..10,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(seed, &conf, &[("vsw-a", room), ("vsw-b", 1000)]);
        let (throttled, answer_lost, late, call_lost, forbidden) = faults;
        world.cloud.faults = Faults { throttled, answer_lost, late, call_lost, forbidden };
        world.cloud.lag = SECOND * u32::try_from(lag).unwrap();
        for step in steps {
            match step {
                Step::Add { n, member, wait } => world.add(n, member, SECOND * wait),
                Step::Acknowledge(n) => world.acknowledge(n),
                Step::Del(n) => world.del(n),
                Step::Cancel(n) => world.cancel(n),
                Step::Unplug(n) => {
                    let eni = world.state.pool.ports().nth(n).map(|(_, port)| port.id.clone());
                    if let Some(eni) = eni {
                        world.unplug(&eni);
                    }
                }
                Step::Carry(choice) => world.carry(choice),
                Step::Pass(millis) => world.pass(std::time::Duration::from_millis(millis)),
                Step::Kill(chance) => world.kill(chance),
            }
        }
        world.settle();
        for n in 0..40 {
            let waits = matches!(world.callers.get(&key(n)), Some(Caller::Waiting { .. }));
            prop_assert!(!waits, "{} still waits", key(n));
        }
        world.check_quiet();

        // With no demand and no faults it is at its target, and asks the cloud for next to nothing.
        let before = world.cloud.calls;
        for _ in 0..60 {
            world.drain();
            world.pass(SECOND * 10);
        }
        let calls = world.cloud.calls - before;
        prop_assert!(calls <= 10, "{calls} calls in ten quiet minutes");
        world.check_quiet();
    }
}
