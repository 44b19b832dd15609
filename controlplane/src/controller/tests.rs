//! The controller against a simulated cloud, with faults, and killed at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloud::ClientToken;
use model::{
    EniId, InstanceId, IpStack, SandboxKey, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId,
};
use proptest::prelude::*;

use super::{
    Controller, ControllerSettings, Durability, Owner, Pending, PodRequest, Refusal, Source,
    Status, Store,
};
use crate::simulation::{Faults, Limits, Simulation};
use crate::{
    Allocation, Attachment, Call, Defaults, Eni, Failure, FleetSettings, PodNetworking, Timing,
    VSwitches,
};

/// Which pods there are is up to the test.
#[derive(Default)]
struct Cluster {
    pods: BTreeMap<SandboxKey, PodRequest>,
    pod_networkings: Vec<PodNetworking>,
}

impl Source for Cluster {
    fn pods(&self) -> Vec<PodRequest> {
        self.pods.values().cloned().collect()
    }

    fn pod_networking(&self, name: &str) -> Option<&PodNetworking> {
        self.pod_networkings.iter().find(|found| found.name == name)
    }

    fn names(&self) -> Vec<String> {
        self.pod_networkings.iter().map(|found| found.name.clone()).collect()
    }
}

/// What survives a kill: all that was durable, and as much of the rest as chance will have it.
#[derive(Default, Clone)]
struct Disk {
    durable: BTreeMap<ClientToken, Eni<Owner>>,
    pending: Vec<(ClientToken, Option<Eni<Owner>>)>,
}

impl Store for Disk {
    fn put(&mut self, eni: &Eni<Owner>, durability: Durability) {
        self.pending.push((eni.token.clone(), Some(eni.clone())));
        if durability == Durability::Before {
            self.sync(self.pending.len());
        }
    }

    fn remove(&mut self, token: &ClientToken) {
        self.pending.push((token.clone(), None));
    }
}

impl Disk {
    fn sync(&mut self, count: usize) {
        for (token, record) in self.pending.drain(..count) {
            match record {
                Some(record) => self.durable.insert(token, record),
                None => self.durable.remove(&token),
            };
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn key(n: u8) -> SandboxKey {
    SandboxKey {
        network: "terway".to_owned(),
        container_id: format!("c{n}"),
        ifname: "eth0".to_owned(),
    }
}

fn pod_networking(name: &str, vswitches: &[&str]) -> PodNetworking {
    PodNetworking {
        name: name.to_owned(),
        attachment: Attachment::Trunk,
        allocation: Allocation::Elastic,
        vswitches: Some(vswitches.iter().map(|id| VSwitchId::new(*id)).collect()),
        policy: SelectionPolicy::Ordered,
        security_groups: None,
    }
}

struct World {
    cloud: Simulation,
    cluster: Cluster,
    disk: Disk,
    controller: Controller,
    vswitches: VSwitches,
    /// Calls handed out and not performed yet, and when they were.
    calls: Vec<(Duration, Call)>,
    now: Duration,
    kills: u64,
}

fn settings(members: u32) -> ControllerSettings {
    let instance = InstanceId::new("i-1");
    ControllerSettings {
        fleet: FleetSettings {
            blocked: Vec::new(),
            instance,
            timing: Timing::default(),
            degradation: crate::Degradation::Off,
        },
        zone: ZoneId::new("h"),
        stack: IpStack::Dual,
        trunking: true,
        members,
        defaults: Defaults {
            vswitches: vec![VSwitchId::new("vsw-a")],
            security_groups: vec![SecurityGroupId::new("sg-default")],
        },
        tags: BTreeMap::new(),
        resource_group: None,
        source_dest_check: true,
    }
}

impl World {
    fn new(seed: u64, members: u32, vswitches: &[(&str, u64)]) -> Self {
        let limits = Limits { enis: 2, members: 5, addresses: 10 };
        let names: Vec<&str> = vswitches.iter().map(|(name, _)| *name).collect();
        let mut world = Self {
            cloud: Simulation::new(seed, limits, vswitches),
            cluster: Cluster {
                pod_networkings: vec![pod_networking("web", &names)],
                ..Cluster::default()
            },
            disk: Disk::default(),
            controller: Controller::new(settings(members), Vec::new(), seed, Duration::ZERO),
            vswitches: VSwitches::new(seed),
            calls: Vec::new(),
            now: Duration::ZERO,
            kills: 0,
        };
        world.controller.set_trunk(Some(EniId::new("eni-trunk")));
        world
    }

    fn want(&mut self, n: u8) {
        let pod_networking = "web".to_owned();
        let pod = PodRequest { sandbox: key(n), pod: None, pod_networking };
        self.cluster.pods.insert(key(n), pod);
    }

    fn reconcile(&mut self) {
        self.cloud.advance(self.now);
        for id in self.vswitches.due(self.now) {
            let found = self.cloud.vswitches.get(&id).cloned();
            self.vswitches.answer(&id, Ok(found), self.now);
        }
        let (calls, _) =
            self.controller.reconcile(&self.cluster, &mut self.disk, &mut self.vswitches, self.now);
        self.calls.extend(calls.into_iter().map(|call| (self.now, call)));
    }

    /// Performs one of the calls in flight, and takes its answer in.
    fn answer(&mut self, choice: usize) {
        if self.calls.is_empty() {
            return;
        }
        let (begun, call) = self.calls.swap_remove(choice % self.calls.len());
        let answer = self.cloud.perform(call);
        self.controller.answer(answer, begun, &mut self.vswitches, self.now);
        self.reconcile();
    }

    /// `kill -9`: a part of the calls in flight was sent, a part of the notes was synced.
    fn kill(&mut self, chance: usize) {
        for (n, (_, call)) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            if (chance >> (n % 16)) & 1 == 1 {
                self.cloud.perform(call);
            }
        }
        self.disk.sync(chance % (self.disk.pending.len() + 1));
        self.disk.pending.clear();
        self.kills += 1;
        let records: Vec<_> = self.disk.durable.values().cloned().collect();
        // An ADD that was not answered is gone with the daemon; what was answered has a record.
        let bound: BTreeSet<_> = records
            .iter()
            .filter(|eni| eni.binding().is_some())
            .map(|eni| eni.owner.sandbox.clone())
            .collect();
        self.cluster.pods.retain(|sandbox, _| bound.contains(sandbox));
        let seed = self.kills * 1000;
        self.controller = Controller::new(settings(5), records, seed, self.now);
        self.controller.set_trunk(Some(EniId::new("eni-trunk")));
        self.vswitches = VSwitches::new(seed);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.reconcile();
    }

    /// Without faults, until nothing happens any more.
    fn settle(&mut self) {
        self.cloud.faults = Faults::default();
        for _ in 0..1000 {
            while !self.calls.is_empty() {
                self.answer(0);
            }
            self.pass(SECOND);
        }
        assert!(self.calls.is_empty(), "still calling: {:?}", self.calls);
    }

    fn bound(&self, n: u8) -> Option<EniId> {
        match self.controller.status(&key(n)) {
            Some(Status::Bound(_, binding)) => Some(binding.id.clone()),
            _ => None,
        }
    }

    /// What must hold when all is quiet.
    fn check(&self) {
        assert_eq!(self.cloud.violations, []);
        let mut seen = BTreeSet::new();
        for sandbox in self.cluster.pods.keys() {
            match self.controller.status(sandbox) {
                Some(Status::Bound(eni, binding)) => {
                    assert_eq!(&eni.owner.sandbox, sandbox);
                    let truth = &self.cloud.enis[&binding.id];
                    assert_eq!(truth.status, cloud::EniStatus::InUse);
                    assert_eq!(truth.vlan(), binding.vlan);
                    assert_eq!(truth.primary_v4, binding.addresses.v4());
                    assert!(seen.insert(binding.id.clone()), "{} has two owners", binding.id);
                }
                Some(Status::Refused(_)) => {}
                other => panic!("{sandbox} is neither bound nor refused: {other:?}"),
            }
        }
        let truth: BTreeSet<_> = self.cloud.enis.keys().cloned().collect();
        assert_eq!(seen, truth, "the cloud has ENIs of nobody");
        let mut disk = self.disk.clone();
        disk.sync(disk.pending.len());
        let recorded: BTreeSet<_> =
            disk.durable.values().filter_map(|eni| eni.id().cloned()).collect();
        assert_eq!(recorded, truth, "the records say otherwise than the cloud");
    }
}

#[test]
fn a_pod_gets_its_member_and_gives_it_back() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    world.want(1);
    world.settle();
    let id = world.bound(1).unwrap();
    let eni = &world.cloud.enis[&id];
    assert_eq!(eni.security_groups, [SecurityGroupId::new("sg-default")]);
    assert!(eni.vlan().is_some());
    world.check();
    world.cluster.pods.clear();
    world.settle();
    world.check();
    assert!(world.cloud.enis.is_empty());
    let room = world.cloud.vswitches[&VSwitchId::new("vsw-a")].available;
    assert_eq!(room, 100, "an address was not given back");
}

#[test]
fn an_intent_is_durable_before_anything_is_asked() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    world.want(1);
    world.reconcile();
    world.reconcile();
    let Some((_, Call::Create(create))) = world.calls.first() else { panic!("{:?}", world.calls) };
    assert!(world.disk.durable.contains_key(&create.token));
}

#[test]
fn an_exhausted_vswitch_gives_way_to_the_next_and_then_to_a_refusal_with_numbers() {
    let mut world = World::new(1, 5, &[("vsw-a", 1), ("vsw-b", 1)]);
    // What the cloud says of its room is old news.
    world.vswitches.watch(&[VSwitchId::new("vsw-a"), VSwitchId::new("vsw-b")]);
    for n in 1..=3 {
        world.want(n);
    }
    world.settle();
    let bound: Vec<_> = (1..=3).filter_map(|n| world.bound(n)).collect();
    assert_eq!(bound.len(), 2);
    let vswitches: BTreeSet<_> = bound.iter().map(|id| &world.cloud.enis[id].vswitch).collect();
    assert_eq!(vswitches.len(), 2);
    let refused = (1..=3).find_map(|n| match world.controller.status(&key(n)) {
        Some(Status::Refused(refusal)) => Some(refusal.clone()),
        _ => None,
    });
    let Some(Refusal::Exhausted(name, exhausted)) = refused else { panic!("{refused:?}") };
    assert_eq!((name.as_str(), exhausted.rooms.len()), ("web", 2));
    world.check();
}

#[test]
fn no_more_members_than_the_instance_may_have() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    for n in 1..=6 {
        world.want(n);
    }
    world.settle();
    assert_eq!((1..=6).filter_map(|n| world.bound(n)).count(), 5);
    let refused = world.controller.status(&key(6));
    assert_eq!(refused, Some(Status::Refused(&Refusal::Quota { max: 5 })));
    world.check();

    // One that leaves makes room for one that waits.
    world.cluster.pods.remove(&key(1));
    world.reconcile();
    world.controller.retry(&key(6));
    world.reconcile();
    let waits = Status::Pending(Pending::Room { max: 5, leaving: 1 });
    assert_eq!(world.controller.status(&key(6)), Some(waits));
    world.settle();
    assert!(world.bound(6).is_some());
    world.check();
}

#[test]
fn the_cloud_s_own_limit_is_a_refusal_and_leaves_nothing_behind() {
    let mut world = World::new(1, 50, &[("vsw-a", 100)]);
    for n in 1..=6 {
        world.want(n);
    }
    world.settle();
    let refused: Vec<_> = (1..=6)
        .filter_map(|n| match world.controller.status(&key(n)) {
            Some(Status::Refused(Refusal::Failed(Some(_), Failure::Cloud(error)))) => {
                Some(error.meaning().cloned())
            }
            _ => None,
        })
        .collect();
    assert_eq!(refused, [Some(cloud::Meaning::EniQuota)]);
    world.check();
}

#[test]
fn a_member_without_a_vlan_is_a_typed_failure_and_is_cleaned_up() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    world.want(1);
    for _ in 0..5 {
        world.answer(0);
        world.pass(SECOND);
        for eni in world.cloud.enis.values_mut() {
            eni.device_index = None;
        }
    }
    world.settle();
    let Some(Status::Refused(Refusal::Failed(_, failure))) = world.controller.status(&key(1))
    else {
        panic!("{:?}", world.controller.status(&key(1)))
    };
    assert_eq!(
        failure.to_string(),
        "member ENI eni-1 is attached to trunk eni-trunk without a usable VLAN id (DeviceIndex None)"
    );
    world.check();
}

#[test]
fn what_keeps_a_pod_waiting_is_said() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    world.want(1);
    let (calls, _) =
        world.controller.reconcile(&world.cluster, &mut world.disk, &mut world.vswitches, SECOND);
    assert_eq!(calls, []);
    let waits = Status::Pending(Pending::VSwitches(None));
    assert_eq!(world.controller.status(&key(1)), Some(waits));
    world.controller.set_trunk(None);
    world.reconcile();
    assert_eq!(world.controller.status(&key(1)), Some(Status::Pending(Pending::Trunk)));
    world.controller.set_trunk(Some(EniId::new("eni-trunk")));
    world.cloud.faults.throttled = 100;
    world.reconcile();
    world.answer(0);
    let Some(Status::Pending(Pending::Eni { phase, trouble, .. })) =
        world.controller.status(&key(1))
    else {
        panic!()
    };
    assert_eq!(phase, "Creating");
    assert!(trouble.unwrap().to_string().contains("Throttling.User"));
}

#[test]
fn a_pod_networking_that_has_no_effect_here_is_refused_by_name() {
    let mut world = World::new(1, 5, &[("vsw-a", 100)]);
    world.cluster.pod_networkings[0].allocation = Allocation::Fixed;
    world.want(1);
    world.reconcile();
    let Some(Status::Refused(Refusal::NotReady(name, why))) = world.controller.status(&key(1))
    else {
        panic!()
    };
    assert_eq!(name, "web");
    assert!(why.to_string().starts_with("allocationType Fixed needs"));
    world.cluster.pod_networkings.clear();
    world.controller.retry(&key(1));
    world.reconcile();
    let unknown = Refusal::Unknown { name: "web".to_owned(), known: Vec::new() };
    assert_eq!(world.controller.status(&key(1)), Some(Status::Refused(&unknown)));
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8),
    Drop(u8),
    Answer(usize),
    Pass(u64),
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..8).prop_map(Step::Want),
        1 => (0u8..8).prop_map(Step::Drop),
        8 => any::<usize>().prop_map(Step::Answer),
        4 => (1u64..5000).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Kill),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_pod_has_its_own_member_or_a_reason_and_nothing_is_leaked(
        seed in any::<u64>(),
        faults in (0u64..30, 0u64..20, 0u64..20, 0u64..20),
        lag in 0u64..10,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(seed, 5, &[("vsw-a", 3), ("vsw-b", 100)]);
        let (throttled, answer_lost, late, call_lost) = faults;
        world.cloud.faults = Faults { throttled, answer_lost, late, call_lost, ..Faults::default() };
        world.cloud.lag = SECOND * u32::try_from(lag).unwrap();
        for step in steps {
            match step {
                Step::Want(n) => world.want(n),
                Step::Drop(n) => drop(world.cluster.pods.remove(&key(n))),
                Step::Answer(choice) => world.answer(choice),
                Step::Pass(millis) => world.pass(Duration::from_millis(millis)),
                Step::Kill(chance) => world.kill(chance),
            }
            world.reconcile();
        }
        world.settle();
        world.check();
    }
}
