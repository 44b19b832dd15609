//! A node that a test drives by hand, one effect after the other: where the order itself is the case.
//! Whatever may come in any order is [`simulation`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cloud::{AddressRequest, AssignAddresses, AssignPrefixes, EniFilter, EniStatus};
use controlplane::simulation::{Faults, Limits, Simulation, Write, Written};
use controlplane::{Allocation as Kept, Attachment, CallError, PodNetworking};
use ipnetwork::IpNetwork;
use model::{
    Capacity, EniId, InstanceId, LinkIndex, SandboxKey, SelectionPolicy, VSwitchId, ZoneId,
};

use crate::checkpoint::{Change, Contents};
use crate::config::Config;
use crate::datapath::EniLink;
use crate::ipam::addresses::Parts;
use crate::ipam::disagreement::Disagreement;
use crate::ipam::event::{Ask, Effect, Event, Outcome, Ticket, Told};
use crate::ipam::lot::Lot;
use crate::ipam::simulation::{self, Disk, record_of};
use crate::ipam::state::State;
use crate::ipam::{AllocError, Allocation, Node, Options, Request, Want};
use crate::metrics::Metrics;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const COOLDOWN: Duration = Duration::from_secs(30);

/// Where the time of a run begins: a machine is not booted at zero.
const START: Duration = Duration::from_secs(1000);

/// One sandbox, as its caller sees it.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    Waiting {
        ticket: Ticket,
        deadline: Duration,
    },
    /// With its address, and whether its record was written.
    Has {
        allocation: Allocation,
        written: bool,
    },
    /// Turned away.
    Refused(AllocError),
}

pub(super) struct World {
    pub(super) cloud: Simulation,
    pub(super) state: State,
    pub(super) disk: Disk,
    pub(super) callers: BTreeMap<SandboxKey, Caller>,
    /// Effects handed out and not carried out yet.
    pub(super) effects: Vec<(Duration, Effect)>,
    pub(super) now: Duration,
    confirmed: BTreeMap<Ticket, Result<(), AllocError>>,
    options: Options,
    boot_id: String,
    rested: BTreeMap<IpAddr, Duration>,
    linked: BTreeSet<EniId>,
    /// ENIs whose link does not come.
    pub(super) unplugged: BTreeSet<EniId>,
    /// What the kernel knows in use though nobody has it.
    pub(super) in_use: BTreeSet<IpAddr>,
    /// Where two witnesses differed.
    pub(super) disagreements: Vec<Disagreement>,
    tickets: Ticket,
    kills: u64,
    seed: u64,
}

pub(super) fn key(n: u8) -> SandboxKey {
    simulation::key(n.into())
}

/// Three ENIs beside the primary one, ten addresses on each, three members.
pub(super) fn options(conf: &str) -> Options {
    let conf = format!(
        r#"{{"security_group": "sg-1", "vswitches": {{"h": ["vsw-a", "vsw-b"]}}, {conf} "ip_cooldown": "30s"}}"#
    );
    let (config, _) = Config::parse(&conf, Path::new("eni_conf")).unwrap();
    let web = PodNetworking {
        name: "web".to_owned(),
        attachment: Attachment::Trunk,
        allocation: Kept::Elastic,
        vswitches: Some(vec![VSwitchId::new("vsw-b")]),
        policy: SelectionPolicy::Ordered,
        security_groups: None,
    };
    Options {
        node: Node {
            instance: InstanceId::new("i-1"),
            zone: ZoneId::new("h"),
            vswitch: VSwitchId::new("vsw-a"),
            capacity: Capacity { enis: 3, per_eni: 10, shared: 30, members: 3, exclusive: 3 },
            name: "node1".to_owned(),
        },
        config,
        pod_networkings: [web].into_iter().collect(),
        metrics: Metrics::default(),
    }
}

pub(super) const LIMITS: Limits = Limits { enis: 4, members: 3, addresses: 10 };

impl World {
    pub(super) fn new(seed: u64, conf: &str, vswitches: &[(&str, u64)]) -> Self {
        let options = options(conf);
        let boot_id = "boot-1".to_owned();
        let state = State::new(&options, &Contents::default(), boot_id.clone(), seed, START);
        let mut world = Self {
            cloud: Simulation::new(seed, LIMITS, vswitches),
            state,
            disk: Disk::default(),
            callers: BTreeMap::new(),
            effects: Vec::new(),
            now: START,
            confirmed: BTreeMap::new(),
            options,
            boot_id,
            rested: BTreeMap::new(),
            linked: BTreeSet::new(),
            unplugged: BTreeSet::new(),
            in_use: BTreeSet::new(),
            disagreements: Vec::new(),
            tickets: 0,
            kills: 0,
            seed,
        };
        world.cloud.advance(START);
        world.event(Event::Tick);
        world
    }

    pub(super) fn event(&mut self, event: Event) {
        let Outcome { answers, confirmations, writes, notes, effects, disagreements } =
            self.state.step(event, self.now);
        self.confirmed.extend(confirmations);
        self.disagreements.extend(disagreements);
        self.disk.note(notes, self.now);
        if !writes.is_empty() {
            self.write(writes);
        }
        for (ticket, answer) in answers {
            self.answered(ticket, answer);
        }
        for effect in effects {
            self.effects.push((self.now, effect));
        }
        self.check_always();
    }

    fn answered(&mut self, ticket: Ticket, answer: Result<Allocation, AllocError>) {
        let asked = |caller: &Caller| matches!(caller, Caller::Waiting { ticket: asked, .. } if *asked == ticket);
        let Some((key, _)) = self.callers.iter().find(|(_, caller)| asked(caller)) else {
            // Its caller went away: a real one says so.
            return;
        };
        let key = key.clone();
        if let Ok(allocation) = &answer {
            self.check_served(allocation);
        }
        let caller = match answer {
            Ok(allocation) => Caller::Has { allocation, written: false },
            Err(error) => Caller::Refused(error),
        };
        self.callers.insert(key, caller);
    }

    /// What must hold of every address at the moment that a pod gets it.
    fn check_served(&self, allocation: &Allocation) {
        let eni = &self.cloud.enis[&allocation.eni];
        assert_eq!(eni.status, EniStatus::InUse, "{} is served from and not InUse", eni.id);
        assert!(self.linked.contains(&allocation.parent), "{} has no link", allocation.parent);
        for address in allocation.addresses.iter() {
            let here = self.cloud.has_address(&eni.id, address);
            assert!(here, "{address} is not on {}", eni.id);
            let rested = self.rested.get(&address).map(|since| self.now.saturating_sub(*since));
            assert!(
                allocation.vlan.is_some() || rested.is_none_or(|rested| rested >= COOLDOWN),
                "{address} rested for {rested:?} only"
            );
        }
    }

    /// What must hold at any time.
    fn check_always(&self) {
        let mut owners: BTreeMap<IpAddr, &SandboxKey> = BTreeMap::new();
        for (key, caller) in &self.callers {
            match caller {
                Caller::Has { allocation, .. } => {
                    for address in allocation.addresses.iter() {
                        let other = owners.insert(address, key);
                        assert!(other.is_none(), "{address} belongs to {key} and {other:?}");
                    }
                }
                Caller::Waiting { deadline, .. } => {
                    assert!(*deadline > self.now, "{key} was not answered by its deadline");
                }
                Caller::Refused(_) => {}
            }
        }
        assert_eq!(self.cloud.violations, []);
        let shared = self.cloud.enis.values().filter(|eni| !is_member(eni)).count();
        assert!(shared < LIMITS.enis, "{shared} ENIs beside the primary one");
    }

    pub(super) fn add(&mut self, n: u8, member: bool, wait: Duration) {
        if let Some(Caller::Waiting { .. } | Caller::Has { .. }) = self.callers.get(&key(n)) {
            return;
        }
        self.tickets += 1;
        let (ticket, deadline) = (self.tickets, self.now + wait);
        self.callers.insert(key(n), Caller::Waiting { ticket, deadline });
        let want =
            if member { Want::Member { pod_networking: "web".to_owned() } } else { Want::Shared };
        let request = Request { key: key(n), pod: None, want };
        self.event(Event::Allocate { ticket, request, deadline });
    }

    /// The caller writes its record.
    pub(super) fn acknowledge(&mut self, n: u8) {
        let Some(Caller::Has { allocation, written }) = self.callers.get_mut(&key(n)) else {
            return;
        };
        *written = true;
        let record = record_of(&key(n), allocation);
        self.write(vec![Change::PutSandbox(Box::new(record))]);
    }

    /// At once, with all that was noted before.
    fn write(&mut self, changes: Vec<Change>) {
        self.disk.close(true);
        for change in changes {
            self.disk.apply(change);
        }
    }

    pub(super) fn del(&mut self, n: u8) {
        if let Some(Caller::Has { allocation, .. }) = self.callers.remove(&key(n)) {
            for address in allocation.addresses.iter() {
                self.rested.insert(address, self.now);
            }
        }
        self.tickets += 1;
        let ticket = self.tickets;
        self.event(Event::Release { ticket, key: key(n) });
    }

    /// The kernel loses the link of an ENI, and the datapath says so.
    pub(super) fn unplug(&mut self, eni: &EniId) {
        self.linked.remove(eni);
        self.event(Event::LinkGone(eni.clone()));
    }

    /// A sandbox that asks whether it still has what it was given, and is answered within `wait`.
    pub(super) fn confirm(&mut self, n: u8, wait: Duration) -> Result<(), AllocError> {
        self.tickets += 1;
        let (ticket, deadline) = (self.tickets, self.now + wait);
        self.event(Event::Confirm { ticket, key: key(n), deadline });
        self.drain();
        if !self.confirmed.contains_key(&ticket) {
            self.pass(wait);
        }
        self.confirmed.remove(&ticket).unwrap()
    }

    /// Carries one effect out, and takes its outcome in.
    pub(super) fn carry(&mut self, choice: usize) {
        if self.effects.is_empty() {
            return;
        }
        let (begun, effect) = self.effects.swap_remove(choice % self.effects.len());
        if let Some(told) = self.perform(effect) {
            self.event(Event::Told { begun, told });
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Told> {
        Some(match effect {
            Effect::Ask(ask) => self.ask(ask),
            Effect::SetLink(port, spec) if self.unplugged.contains(&spec.id) => {
                Told::LinkSet(port, Err("no link".to_owned()))
            }
            Effect::SetLink(port, spec) => {
                assert_eq!(self.cloud.enis[&spec.id].mac, spec.mac);
                self.linked.insert(spec.id.clone());
                let index = LinkIndex::try_from(spec.mark.value() + 2).unwrap();
                let link = EniLink { index, name: "eth1".parse().unwrap(), mtu: 1500 };
                Told::LinkSet(port, Ok(link))
            }
            Effect::RemoveLink(eni) => {
                self.linked.remove(&eni);
                Told::LinkRemoved(eni, Ok(()))
            }
            Effect::Witness { port, addresses, .. } => {
                let in_use = addresses.into_iter().filter(|a| self.in_use.contains(a)).collect();
                Told::Witnessed { port, result: Ok(in_use) }
            }
            Effect::WitnessOrphan { eni, addresses } => {
                let in_use = addresses.into_iter().filter(|a| self.in_use.contains(a)).collect();
                Told::OrphanWitnessed { eni, result: Ok(in_use) }
            }
            Effect::Audit(addresses) => {
                let in_use = addresses.into_iter().filter(|a| self.in_use.contains(a)).collect();
                Told::Audited(Ok(in_use))
            }
            Effect::Bury(addresses) => Told::Buried(addresses, Ok(())),
            Effect::Rewritten(tried) => Told::Rewritten(tried),
            Effect::Released(..) => return None,
        })
    }

    fn ask(&mut self, ask: Ask) -> Told {
        let cloud = &mut self.cloud;
        match ask {
            Ask::Eni(whose, call) => Told::Eni(whose, cloud.perform(call)),
            Ask::Instance => {
                let filter = EniFilter::instance(InstanceId::new("i-1"));
                Told::Instance(cloud.describe(&filter).map_err(CallError::from))
            }
            Ask::Tagged(tags) => {
                let filter = EniFilter { tags, ..EniFilter::default() };
                Told::Tagged(cloud.describe(&filter).map_err(CallError::from))
            }
            Ask::VSwitch(id) => {
                let found = cloud.vswitches.get(&id).cloned();
                Told::VSwitch(id, Ok(found))
            }
            Ask::Assign { port, eni, lot, count, token } => {
                let written = cloud.change(match lot {
                    Lot::V4 => Write::AssignV4(AssignAddresses {
                        token,
                        eni,
                        addresses: AddressRequest::Any(count),
                    }),
                    Lot::V6 => Write::AssignV6(AssignAddresses {
                        token,
                        eni,
                        addresses: AddressRequest::Any(count),
                    }),
                    Lot::V4Prefix => Write::AssignV4Prefixes(AssignPrefixes { token, eni, count }),
                    Lot::V6Prefix => Write::AssignV6Prefixes(AssignPrefixes { token, eni, count }),
                });
                let result = written.map(|written| match written {
                    Written::V4(all) => all
                        .into_iter()
                        .map(|address| IpNetwork::from(IpAddr::V4(address)))
                        .collect(),
                    Written::V6(all) => all
                        .into_iter()
                        .map(|address| IpNetwork::from(IpAddr::V6(address)))
                        .collect(),
                    Written::V4Prefixes(all) => all.into_iter().map(IpNetwork::V4).collect(),
                    Written::V6Prefixes(all) => all.into_iter().map(IpNetwork::V6).collect(),
                    Written::Eni(_) | Written::Done => Vec::new(),
                });
                Told::Assigned { port, lot, result: result.map_err(CallError::from) }
            }
            Ask::Unassign { port, eni, blocks } => {
                let Parts { v4, v6, v4_prefixes, v6_prefixes } = Parts::of(&blocks);
                let mut result = Ok(());
                let writes = [
                    (!v4.is_empty()).then(|| Write::UnassignV4(eni.clone(), v4)),
                    (!v4_prefixes.is_empty())
                        .then(|| Write::UnassignV4Prefixes(eni.clone(), v4_prefixes)),
                    (!v6.is_empty()).then(|| Write::UnassignV6(eni.clone(), v6)),
                    (!v6_prefixes.is_empty())
                        .then(|| Write::UnassignV6Prefixes(eni.clone(), v6_prefixes)),
                ];
                for write in writes.into_iter().flatten() {
                    if result.is_ok() {
                        result = cloud.change(write).map(drop);
                    }
                }
                Told::Unassigned { port, blocks, result: result.map_err(CallError::from) }
            }
        }
    }

    /// Time passes, with a step whenever one is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wakes = [self.state.wake(self.now), self.cloud.wake()];
            let next = wakes.into_iter().flatten().filter(|at| *at < end).min();
            let next = next.map_or(end, |at| at.max(self.now));
            let stuck = next == self.now;
            self.now = next;
            self.cloud.advance(self.now);
            self.event(Event::Tick);
            if self.now >= end {
                return;
            }
            if stuck {
                let wake = self.state.wake(self.now);
                assert!(
                    wake.is_none_or(|at| at > self.now),
                    "a step at {:?} leaves work for the same moment",
                    self.now
                );
            }
        }
    }

    /// `kill -9`, and a new process: a part of what was in flight was sent, a part of the notes
    /// reached the disk.
    pub(super) fn kill(&mut self, chance: usize) {
        for (n, (_, effect)) in std::mem::take(&mut self.effects).into_iter().enumerate() {
            if (chance >> (n % 16)) & 1 == 1 {
                self.perform(effect);
            }
        }
        self.disk.cut(u64::try_from(chance).unwrap(), true);
        // Who was not written down is gone, with its address; the kernel never saw it.
        self.callers.retain(|_, caller| matches!(caller, Caller::Has { written: true, .. }));
        self.restart();
    }

    pub(super) fn restart(&mut self) {
        self.kills += 1;
        self.linked.clear();
        let seed = self.seed.wrapping_add(self.kills.wrapping_mul(0x1234_5678_9abc));
        let contents = self.disk.contents.clone();
        self.state = State::new(&self.options, &contents, self.boot_id.clone(), seed, self.now);
        self.event(Event::Tick);
    }

    /// Another configuration.
    pub(super) fn reconfigure(&mut self, options: Options) {
        self.event(Event::Reconfigure(Box::new(options)));
    }

    /// A new process that finds no records.
    pub(super) fn lose_checkpoint(&mut self) {
        self.disk = Disk::default();
        self.callers.clear();
        self.restart();
    }

    /// A machine that boots again: its clock starts anew.
    pub(super) fn reboot(&mut self) {
        self.boot_id = "boot-2".to_owned();
        self.restart();
    }

    /// Without faults, until nothing happens any more.
    pub(super) fn settle(&mut self) {
        self.cloud.faults = Faults::default();
        self.settle_with_faults(600);
    }

    /// So many seconds, in which all that is asked is answered.
    pub(super) fn settle_with_faults(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.drain();
            self.pass(SECOND);
        }
        self.drain();
    }

    /// The effects that are there now.
    pub(super) fn drain_one_round(&mut self) {
        for _ in 0..self.effects.len() {
            self.carry(0);
        }
        self.pass(SECOND / 100);
    }

    /// All effects, and those that follow at once.
    pub(super) fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.effects.is_empty() {
                return;
            }
            self.carry(0);
        }
        panic!("effects without end: {:?}", self.effects);
    }

    /// What must hold when all is quiet.
    pub(super) fn check_quiet(&self) {
        let disk = self.disk.whole();
        let records = disk.enis.iter().filter_map(|eni| eni.id());
        let members = disk.members.iter().filter_map(|eni| eni.id());
        let recorded: BTreeSet<_> = records.chain(members).collect();
        let truth: BTreeSet<_> = self.cloud.enis.keys().collect();
        assert_eq!(recorded, truth, "records and cloud differ");
        // A read may be old news for a minute: so long what has left is remembered.
        let rests: BTreeSet<_> = disk.rests.iter().map(|rest| rest.address).collect();
        let mut known_rests = BTreeSet::new();
        for (_, port) in self.state.pool.ports() {
            let resting = port.shelf.iter().filter(|(_, slot)| slot.state.rests());
            known_rests
                .extend(resting.map(|(address, _)| address).chain(port.left.keys().copied()));
            let eni = &self.cloud.enis[&port.id];
            let known: BTreeSet<_> = port.shelf.iter().map(|(address, _)| address).collect();
            let stack = self.state.pool.settings().stack;
            let v4 = eni.v4.iter().copied().map(IpAddr::V4);
            let prefixed = eni.v4_prefixes.iter().flat_map(|prefix| prefix.iter()).map(IpAddr::V4);
            let v6 = eni.v6.iter().copied().map(IpAddr::V6);
            // Addresses of an IPv6 prefix are known once they were handed out.
            let of_prefix = known.iter().copied().filter(|address| {
                let prefixed = eni.v6_prefixes.iter().any(|p| IpNetwork::V6(*p).contains(*address));
                address.is_ipv6() && prefixed
            });
            let truth: BTreeSet<_> = v4
                .chain(prefixed)
                .filter(|_| stack.v4())
                .chain(v6.filter(|_| stack.v6()))
                .chain(of_prefix)
                .collect();
            assert_eq!(known, truth, "the shelf of {} and the cloud differ", eni.id);
        }
        assert_eq!(rests, known_rests, "the disk says otherwise of what rests");
        let held: BTreeSet<_> = self
            .callers
            .values()
            .filter_map(|caller| match caller {
                Caller::Has { allocation, .. } if allocation.vlan.is_some() => {
                    Some(allocation.eni.clone())
                }
                _ => None,
            })
            .collect();
        let members: BTreeSet<_> =
            self.cloud.enis.values().filter(|eni| is_member(eni)).map(|e| e.id.clone()).collect();
        assert_eq!(held, members, "members of nobody, or pods without theirs");
    }

    pub(super) fn allocation(&self, n: u8) -> Option<&Allocation> {
        match self.callers.get(&key(n)) {
            Some(Caller::Has { allocation, .. }) => Some(allocation),
            _ => None,
        }
    }

    pub(super) fn refusal(&self, n: u8) -> Option<&AllocError> {
        match self.callers.get(&key(n)) {
            Some(Caller::Refused(error)) => Some(error),
            _ => None,
        }
    }
}

fn is_member(eni: &cloud::Eni) -> bool {
    eni.tags.get("creator").is_some_and(|creator| creator == "terway-controller")
}
