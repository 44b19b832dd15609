//! What holds after any calls in any order, whatever the wires refuse and however time goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::bed::Bed;
use super::operations::{Change, Work};
use super::world::{Eni, EniKind, EniStatus};

/// What may happen next. Numbers choose among what is there, and often something that is not fit.
#[derive(Debug, Clone)]
enum Step {
    Create {
        vswitch: usize,
        trunk: bool,
        v4: usize,
        v6: usize,
        token: usize,
    },
    Attach {
        eni: usize,
        instance: usize,
    },
    /// Onto a trunk that is in use, if there is one.
    Join {
        eni: usize,
    },
    Detach {
        eni: usize,
    },
    Delete {
        eni: usize,
    },
    Assign {
        eni: usize,
        v6: bool,
        prefix: bool,
        count: usize,
        token: usize,
    },
    Unassign {
        eni: usize,
        count: usize,
    },
    Vanish {
        eni: usize,
    },
    /// Time goes on; of what is due, the wires refuse some.
    Wait {
        tenths: u32,
        refuse: u8,
    },
}

const VSWITCHES: [&str; 4] = ["vsw-a", "vsw-b", "vsw-tiny", "vsw-tiny"];
const TYPES: [&str; 3] = ["ecs.g7.2xlarge", "ecs.g6.large", "ecs.r6.8xlarge"];

fn step() -> impl Strategy<Value = Step> {
    let eni = 0..16_usize;
    prop_oneof![
        3 => (0..4_usize, any::<bool>(), 0..9_usize, 0..3_usize, 0..40_usize).prop_map(
            |(vswitch, trunk, v4, v6, token)| Step::Create { vswitch, trunk, v4, v6, token }
        ),
        7 => (eni.clone(), 0..3_usize).prop_map(|(eni, instance)| Step::Attach { eni, instance }),
        6 => eni.clone().prop_map(|eni| Step::Join { eni }),
        2 => eni.clone().prop_map(|eni| Step::Detach { eni }),
        1 => eni.clone().prop_map(|eni| Step::Delete { eni }),
        4 => (eni.clone(), any::<bool>(), prop::bool::weighted(0.2), 1..11_usize, 0..40_usize).prop_map(
            |(eni, v6, prefix, count, token)| Step::Assign { eni, v6, prefix, count, token }
        ),
        2 => (eni.clone(), 1..5_usize).prop_map(|(eni, count)| Step::Unassign { eni, count }),
        1 => eni.prop_map(|eni| Step::Vanish { eni }),
        5 => (0..12_u32, any::<u8>()).prop_map(|(tenths, refuse)| Step::Wait { tenths, refuse }),
    ]
}

struct World {
    bed: Bed,
    instances: Vec<String>,
    /// The answers that tokens got.
    answers: BTreeMap<String, (Vec<(String, String)>, serde_json::Value)>,
}

impl World {
    fn new() -> Self {
        let mut bed = Bed::new();
        let instances = TYPES.map(|kind| bed.boot(kind)).to_vec();
        let trunk = bed.create(&[("InstanceType", "Trunk")]);
        bed.attach(&trunk, &instances[0]);
        Self { bed, instances, answers: BTreeMap::new() }
    }

    /// One of the ENIs that are no primary one; now and then one that never was.
    fn eni(&self, index: usize) -> String {
        let enis = self.bed.cloud.view().enis().filter(|eni| eni.kind != EniKind::Primary);
        let enis: Vec<_> = enis.map(|eni| eni.id.to_string()).collect();
        let chosen = index.checked_rem(enis.len()).filter(|_any| index < 15);
        chosen.map_or_else(|| "eni-never".to_owned(), |index| enis[index].clone())
    }

    fn call(&mut self, action: &str, pairs: &[(&str, String)]) {
        let borrowed: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = self.bed.start(action, &borrowed);
        let Some((_, token)) = borrowed.iter().find(|(name, _)| *name == "ClientToken") else {
            return;
        };
        let Ok(answer) = answer else { return };
        let owned = || borrowed.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let key = format!("{action} {token}");
        if let Some((parameters, body)) = self.answers.get(&key) {
            assert_eq!(*parameters, owned(), "one token, one meaning");
            assert_eq!(*body, answer.body, "one token, one answer");
        }
        self.answers.insert(key, (owned(), answer.body));
    }

    fn take(&mut self, step: &Step) {
        let id = |eni: &usize| ("NetworkInterfaceId", self.eni(*eni));
        match step {
            Step::Create { vswitch, trunk, v4, v6, token } => {
                let mut pairs = vec![
                    ("VSwitchId", VSWITCHES[*vswitch].to_owned()),
                    ("SecurityGroupIds.1", "sg-a".to_owned()),
                    ("InstanceType", if *trunk { "Trunk" } else { "Secondary" }.to_owned()),
                    ("ClientToken", format!("create-{token}")),
                ];
                let counts = [("SecondaryPrivateIpAddressCount", v4), ("Ipv6AddressCount", v6)];
                pairs.extend(
                    counts.into_iter().filter(|(_, n)| **n > 0).map(|(k, n)| (k, n.to_string())),
                );
                self.call("CreateNetworkInterface", &pairs);
            }
            Step::Attach { eni, instance } => {
                let pairs = [id(eni), ("InstanceId", self.instances[*instance].clone())];
                self.call("AttachNetworkInterface", &pairs);
            }
            Step::Join { eni } => self.join(*eni),
            Step::Detach { eni } => self.detach(*eni),
            Step::Delete { eni } => self.call("DeleteNetworkInterface", &[id(eni)]),
            Step::Assign { eni, v6, prefix, count, token } => {
                let (action, name) = match (v6, prefix) {
                    (true, false) => ("AssignIpv6Addresses", "Ipv6AddressCount"),
                    (true, true) => ("AssignIpv6Addresses", "Ipv6PrefixCount"),
                    (false, false) => {
                        ("AssignPrivateIpAddresses", "SecondaryPrivateIpAddressCount")
                    }
                    (false, true) => ("AssignPrivateIpAddresses", "Ipv4PrefixCount"),
                };
                let token = ("ClientToken", format!("assign-{token}"));
                self.call(action, &[id(eni), (name, count.to_string()), token]);
            }
            Step::Unassign { eni, count } => self.unassign(*eni, *count),
            Step::Vanish { eni } => drop(self.bed.cloud.vanish(&self.eni(*eni), self.bed.now)),
            Step::Wait { tenths, refuse } => self.wait(*tenths, *refuse),
        }
    }

    fn join(&mut self, index: usize) {
        let mut enis = self.bed.cloud.view().enis();
        let is_trunk = |eni: &&Arc<Eni>| eni.kind == EniKind::Trunk && eni.is_plugged();
        let Some(trunk) = enis.find(is_trunk).cloned() else { return };
        drop(enis);
        let instance = trunk.instance().map(ToString::to_string).unwrap_or_default();
        let pairs = [
            ("NetworkInterfaceId", self.eni(index)),
            ("InstanceId", instance),
            ("TrunkNetworkInstanceId", trunk.id.to_string()),
        ];
        self.call("AttachNetworkInterface", &pairs);
    }

    fn detach(&mut self, index: usize) {
        let Ok(eni) = self.bed.cloud.eni(&self.eni(index)) else { return };
        let Some(instance) = eni.instance() else { return };
        let mut pairs =
            vec![("NetworkInterfaceId", eni.id.to_string()), ("InstanceId", instance.to_string())];
        pairs.extend(eni.trunk().map(|trunk| ("TrunkNetworkInstanceId", trunk.to_string())));
        self.call("DetachNetworkInterface", &pairs);
    }

    fn unassign(&mut self, index: usize, count: usize) {
        let Ok(eni) = self.bed.cloud.eni(&self.eni(index)) else { return };
        let (name, named): (_, Vec<_>) = match eni.v4_prefixes.len() {
            0 => ("PrivateIpAddress", eni.v4.iter().rev().map(ToString::to_string).collect()),
            _ => ("Ipv4Prefix", eni.v4_prefixes.iter().map(ToString::to_string).collect()),
        };
        let named = named.into_iter().take(count);
        let parameters: Vec<_> = (1..=count).map(|n| format!("{name}.{n}")).collect();
        let mut pairs = vec![("NetworkInterfaceId", eni.id.to_string())];
        pairs.extend(parameters.iter().map(String::as_str).zip(named));
        self.call("UnassignPrivateIpAddresses", &pairs);
    }

    fn wait(&mut self, tenths: u32, refuse: u8) {
        self.bed.advance(f64::from(tenths) / 10.0);
        let due = self.bed.cloud.tick(self.bed.now);
        for (index, work) in due.into_iter().enumerate() {
            let refused = !work.effects.is_empty() && refuse >> (index % 8) & 7 == 7;
            let outcome = if refused { Err("refused".to_owned()) } else { Ok(()) };
            self.forget_failed(&work, &outcome);
            self.bed.finish(work, &outcome);
        }
    }

    /// A token whose work failed is free for anything.
    fn forget_failed(&mut self, work: &Work, outcome: &Result<(), String>) {
        let operation = self.bed.cloud.operations.get_mut(work.id);
        let assigns = operation.is_some_and(|operation| operation.token.is_some());
        if outcome.is_err() && assigns {
            self.answers.retain(|key, _| key.starts_with("Create"));
        }
    }
}

/// Everything that must hold at any moment.
fn check(world: &mut World) {
    let view = world.bed.cloud.view();
    let enis: Vec<Eni> = view.enis().map(|eni| Eni::clone(eni)).collect();
    let pending = world.bed.cloud.operations.changes().cloned().collect::<Vec<_>>();
    check_addresses(world, &enis, &pending);
    for instance in view.instances() {
        let of: Vec<_> = enis.iter().filter(|eni| eni.instance() == Some(&instance.id)).collect();
        let (members, nics): (Vec<&Eni>, Vec<&Eni>) =
            of.iter().partition(|eni| eni.trunk().is_some());
        assert!(nics.len() <= instance.kind.enis, "{} NICs in {}", nics.len(), instance.kind.id);
        assert!(members.len() <= instance.kind.members(), "{} members", members.len());
        assert!(nics.iter().filter(|eni| eni.kind == EniKind::Trunk).count() <= 1);
        for eni in of {
            assert!(eni.v4_slots() <= instance.kind.v4_per_eni, "{} IPv4", eni.v4.len());
            assert!(eni.v6_slots() <= instance.kind.v6_per_eni, "{} IPv6", eni.v6.len());
        }
    }
    for eni in &enis {
        assert!((1..=50).contains(&eni.v4.len()));
        assert_eq!(eni.status == EniStatus::Available, eni.attachment.is_none(), "{eni:?}");
    }
    check_trunks(&enis);
}

fn check_trunks(enis: &[Eni]) {
    let mut vlans = BTreeSet::new();
    for member in enis {
        let Some((trunk, vlan)) = member.attachment.as_ref().and_then(|a| a.member.as_ref()) else {
            continue;
        };
        assert!(vlans.insert((trunk, vlan)), "VLAN {vlan} twice on {trunk}");
        let trunk = enis.iter().find(|eni| &eni.id == trunk).expect("a trunk outlives its members");
        assert_eq!(trunk.status, EniStatus::InUse);
        assert_eq!(trunk.instance(), member.instance());
    }
}

/// Whether one of them is, or lies in, the other.
fn touch(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.ip()) || other.contains(one.ip())
}

/// An address belongs to one ENI or is on its way to one; the pools know all of them and no other.
fn check_addresses(world: &World, enis: &[Eni], pending: &[Change]) {
    let mut owned: BTreeMap<IpNetwork, &str> = BTreeMap::new();
    for eni in enis {
        for address in eni.owned() {
            let around = owned.keys().find(|other| touch(**other, address));
            assert_eq!(around, None, "{address} of {} is another's", eni.id);
            owned.insert(address, eni.id.as_str());
        }
    }
    for change in pending {
        let Change::Replace { taken, .. } = change else { continue };
        for address in taken {
            let around = owned.keys().find(|other| touch(**other, *address));
            assert_eq!(around, None, "{address} is given twice");
            owned.insert(*address, "in flight");
        }
    }
    let taken: BTreeSet<IpNetwork> =
        world.bed.cloud.pools.values().flat_map(|pool| pool.taken().copied()).collect();
    assert_eq!(taken, owned.keys().copied().collect(), "the pools and the ENIs differ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn quotas_addresses_vlans_and_tokens_hold_whatever_happens(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            check(&mut world);
        }
        world.bed.settle();
        check(&mut world);
        prop_assert_eq!(world.bed.cloud.operations.len(), 0);
    }
}

#[test]
fn the_steps_reach_members_prefixes_and_full_vswitches() {
    // The laws would hold in a world where nothing ever succeeds.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut members, mut conflicts, mut full, mut prefixes) = (0, 0, 0, 0);
    for _run in 0..100 {
        let mut world = World::new();
        let (mut most, mut conflict, mut prefix) = (0, false, false);
        for _step in 0..100 {
            let step = step().new_tree(&mut runner).unwrap().current();
            world.take(&step);
            let view = world.bed.cloud.view();
            most = most.max(view.enis().filter(|eni| eni.trunk().is_some()).count());
            prefix |= view.enis().any(|eni| !eni.v4_prefixes.is_empty());
            conflict |= view.enis().any(|eni| {
                eni.status == EniStatus::InUse && world.bed.cloud.operations.is_busy(&eni.id)
            });
        }
        let tiny = world.bed.cloud.pools[&model::VSwitchId::new("vsw-tiny")].taken_v4();
        members += usize::from(most > 0);
        conflicts += usize::from(conflict);
        full += usize::from(tiny >= 10);
        prefixes += usize::from(prefix);
    }
    let reached = [members, conflicts, full, prefixes];
    assert!(reached.iter().all(|times| *times > 10), "{reached:?}");
}
