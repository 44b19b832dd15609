//! What schedules of seeds from [`WHOLE`] on have besides: prefixes, tags, other configurations while
//! the daemon runs, a kernel that names addresses as used, ENIs in no record, and lost records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cloud::Eni;
use controlplane::{Random, TOKEN_TAG};
use ipnetwork::IpNetwork;
use model::{EniId, InstanceId, SandboxKey};

use super::chance::{chance, pick, range};
use super::play::nth;
use super::schedule::{Entry, Move, START};
use super::setup::INSTANCE;
use super::world::World;
use crate::config::Config;
use crate::ipam::event::Event;
use crate::ipam::{Allocation, Options};

/// Seeds from here on have all that can happen; those before are as they were when they broke a law.
pub const WHOLE: u64 = 1_000_000;

/// The tag of `eni_tag_block_list` that is always in it.
const BLOCKED: (&str, &str) = ("terway.alibabacloud.com/excluded", "true");

/// What no configuration of a run changes: it waits for a restart.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    pub(super) stack: &'static str,
    pub(super) trunking: bool,
    pub(super) prefixes: bool,
    pub(super) vswitches: Vec<String>,
}

impl Fixed {
    /// Another configuration of the same node.
    pub(super) fn conf(&self, random: &mut Random) -> String {
        let Self { stack, trunking, prefixes, vswitches } = self;
        let first = usize::try_from(range(random, 0, 2)).unwrap_or(0) % vswitches.len();
        let count = usize::try_from(range(random, 1, 3)).unwrap_or(1);
        let ids: Vec<String> = vswitches
            .iter()
            .cycle()
            .skip(first)
            .take(count.min(vswitches.len()))
            .map(|id| format!("{id:?}"))
            .collect();
        let max = pick(random, if *prefixes { &[0, 5, 16, 40] } else { &[0, 2, 5, 10] });
        let min = range(random, 0, max);
        let batch = pick(random, &[1, 3, 10, 10]);
        let policy = pick(random, &["ordered", "most", "random"]);
        let eni_policy = pick(random, &["most_ips", "least_ips"]);
        let mut keys = String::new();
        if *prefixes {
            let v4 = if *stack == "ipv6" { 0 } else { pick(random, &[0, 0, 1, 3]) };
            let v6 = if *stack == "ipv4" { 0 } else { range(random, 0, 1) };
            keys.extend([format!(
                r#""enable_ip_prefix": true, "ipv4_prefix_count": {v4}, "ipv6_prefix_count": {v6}, "#
            )]);
        }
        if chance(random, 25) {
            let most = range(random, 1, 3);
            keys.extend([format!(r#""max_eni": {most}, "min_eni": {}, "#, range(random, 0, most))]);
        } else if chance(random, 30) {
            keys.push_str(r#""min_eni": 1, "#);
        }
        if chance(random, 25) {
            let (ratio, shift) = (pick(random, &["0.5", "1", "2"]), pick(random, &[-1, 0, 1]));
            keys.extend([format!(r#""eni_cap_ratio": {ratio}, "eni_cap_shift": {shift}, "#)]);
        }
        if chance(random, 30) {
            let batch = range(random, 1, 5);
            keys.push_str(r#""idle_ip_reclaim_after": "1m", "idle_ip_reclaim_interval": "30s", "#);
            keys.extend([format!(r#""idle_ip_reclaim_batch_size": {batch}, "#)]);
        }
        if chance(random, 20) {
            let word = pick(random, &["l0", "l1"]);
            keys.extend([format!(r#""degradation": "{word}", "#)]);
        }
        if chance(random, 30) {
            keys.push_str(r#""eni_tag_filter": {"team": "net"}, "#);
        }
        if chance(random, 30) {
            keys.push_str(r#""eni_tag_block_list": [{"key": "owner", "value": "somebody"}], "#);
        }
        format!(
            r#"{{"security_group": "sg-1", "vswitches": {{"h": [{}]}}, "ip_stack": "{stack}", "min_pool_size": {min}, "max_pool_size": {max}, "request_batch": {batch}, "enable_eni_trunking": {trunking}, "vswitch_selection_policy": "{policy}", "eni_selection_policy": "{eni_policy}", "eni_tags": {{"team": "net"}}, {keys}"ip_cooldown": "30s"}}"#,
            ids.join(", ")
        )
    }
}

/// Something that happens only in these schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extra {
    /// Another configuration is taken up.
    Reconfigure,
    /// A vSwitch has no whole prefix left, or has again.
    Fragment(usize, bool),
    /// A blocked tag is put on one of our ENIs.
    Tag(usize),
    /// All of them are taken off again.
    Untag,
    /// A user assigns a prefix to one of our ENIs.
    AssignPrefix(usize),
    /// A user takes one away.
    TakePrefix(usize, usize),
    /// An ENI with our tags that no record knows, attached or not, perhaps used by the kernel.
    Stray { attached: bool, used: bool },
    /// For so long the kernel says that an address of ours is in use.
    Haunt(usize, usize, Duration),
    /// `kill -9`, and the checkpoint is gone.
    LoseRecords(Duration),
}

impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reconfigure => f.write_str("RECONFIGURE"),
            Self::Fragment(n, true) => write!(f, "FRAGMENT vSwitch {n}"),
            Self::Fragment(n, false) => write!(f, "DEFRAGMENT vSwitch {n}"),
            Self::Tag(n) => write!(f, "USER puts a blocked tag on ENI {n}"),
            Self::Untag => f.write_str("USER takes all blocked tags off"),
            Self::AssignPrefix(n) => write!(f, "USER assigns a prefix to ENI {n}"),
            Self::TakePrefix(n, m) => write!(f, "USER takes prefix {m} of ENI {n}"),
            Self::Stray { attached, used } => {
                write!(f, "STRAY ENI with our tags, attached {attached}, used {used}")
            }
            Self::Haunt(n, m, time) => {
                write!(f, "KERNEL names address {m} of ENI {n} as used for {time:?}")
            }
            Self::LoseRecords(pause) => {
                write!(f, "KILL -9 and the records are LOST, started again after {pause:?}")
            }
        }
    }
}

/// Moves between the others.
pub(super) fn mix_in(random: &mut Random, entries: &mut Vec<Entry>) {
    let kinds: Vec<bool> =
        (0..9).map(|kind| chance(random, if kind == 8 { 12 } else { 45 })).collect();
    let end = entries.last().map_or(START, |entry| entry.at);
    let span = u64::try_from(end.saturating_sub(START).as_millis()).unwrap_or(0);
    for _ in 0..range(random, 0, 30) {
        let at = START + Duration::from_millis(range(random, 0, span));
        let kind = usize::try_from(range(random, 0, 8)).unwrap_or(0);
        let extra = draw(random, kind);
        let seed = random.next();
        if kinds.get(kind) == Some(&true) {
            entries.push(Entry { at, seed, what: Move::Extra(extra) });
        }
    }
    entries.sort_by_key(|entry| entry.at);
}

fn draw(random: &mut Random, kind: usize) -> Extra {
    let n = usize::try_from(range(random, 0, 9)).unwrap_or(0);
    let m = usize::try_from(range(random, 0, 19)).unwrap_or(0);
    let yes = chance(random, 50);
    let mut pause = |most| Duration::from_millis(range(random, 10, most));
    match kind {
        0 => Extra::Reconfigure,
        1 => Extra::Fragment(n, yes),
        2 => Extra::Tag(n),
        3 => Extra::Untag,
        4 => Extra::AssignPrefix(n),
        5 => Extra::TakePrefix(n, m),
        6 => Extra::Stray { attached: yes, used: m < 7 },
        7 => Extra::Haunt(n, m, pause(600_000)),
        _ => Extra::LoseRecords(pause(3_000)),
    }
}

/// What the laws need to remember of these moves.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// ENIs with a blocked tag, as the daemon was told, and when by its clock.
    pub(super) excluded: BTreeMap<EniId, Duration>,
    /// ENIs in no record that nobody's life led there: and whether the kernel uses them.
    pub(super) strays: BTreeMap<EniId, bool>,
    /// Addresses that the kernel says are used, and until when.
    pub(super) haunted: BTreeMap<IpAddr, Duration>,
    /// Sandboxes that live on and whose records are lost.
    pub(super) ghosts: BTreeMap<SandboxKey, Allocation>,
    /// Whether records were ever lost.
    pub(super) lost: bool,
    /// What users put on an ENI whose addresses are known, and how often the daemon was told.
    pub(super) sightings: BTreeMap<(EniId, IpNetwork), u32>,
    /// So many ENIs were there or on their way when a lower limit was taken up.
    pub(super) kept: usize,
    /// Since when the daemon has the configuration that it has, by its clock.
    pub(super) degraded_at: Duration,
    /// Prefixes that were frozen before the step.
    pub(super) frozen: BTreeSet<IpAddr>,
}

impl World {
    pub(super) fn make_extra(&mut self, extra: &Extra) {
        let ours: Vec<EniId> =
            self.cloud.enis.keys().filter(|id| !self.foreign.contains(*id)).cloned().collect();
        match extra {
            Extra::Reconfigure => self.reconfigure(),
            Extra::Fragment(n, yes) => {
                let Some(id) = nth(self.cloud.vswitches.keys(), *n) else { return };
                if *yes {
                    self.cloud.fragmented.insert(id);
                } else {
                    self.cloud.fragmented.remove(&id);
                }
            }
            Extra::Tag(n) => {
                if let Some(id) = nth(&ours, *n) {
                    self.cloud.user_tags(&id, BLOCKED.0, Some(BLOCKED.1));
                }
            }
            Extra::Untag => self.untag(),
            Extra::AssignPrefix(n) => {
                let Some(id) = nth(&ours, *n) else { return };
                let Some(prefix) = self.cloud.user_assigns_prefix(&id) else { return };
                self.planted.extend(prefix.iter().map(IpAddr::V4));
                self.expect_sightings(&id, IpNetwork::V4(prefix));
            }
            Extra::TakePrefix(n, m) => {
                let taken = nth(&ours, *n).and_then(|id| self.cloud.user_takes_prefix(&id, *m));
                self.taken.extend(taken.iter().flat_map(|it| it.iter()).map(IpAddr::V4));
            }
            Extra::Stray { attached, used } => self.stray(*attached, *used),
            Extra::Haunt(n, m, time) => {
                let eni = nth(&ours, *n).and_then(|id| self.cloud.enis.get(&id));
                let address = eni.and_then(|eni| nth(&all(eni), *m));
                self.memory.haunted.extend(address.map(|address| (address, self.now + *time)));
            }
            Extra::LoseRecords(pause) => {
                self.kill(*pause);
                self.lose_records();
            }
        }
    }

    fn reconfigure(&mut self) {
        let Some(fixed) = self.setup.fixed.clone() else { return };
        let conf = fixed.conf(&mut self.random);
        self.take_up(conf);
    }

    fn take_up(&mut self, conf: String) {
        self.say(|| conf.clone());
        let options = Options { config: parse(&conf), ..self.setup.options.clone() };
        let records = self.disk.whole().enis.len();
        let pool = self.state.as_ref().map_or(0, |state| state.pool.records().count());
        let there = self.cloud.enis.values().filter(|eni| eni.tags.contains_key(TOKEN_TAG)).count();
        self.memory.kept = records.max(pool).max(there);
        (self.setup.options, self.setup.conf) = (options.clone(), conf);
        self.memory.degraded_at = self.clock();
        self.step(Event::Reconfigure(Box::new(options)));
    }

    /// Whether an ENI is there, with a blocked tag.
    pub(super) fn is_blocked(&self, id: &EniId) -> bool {
        let eni = self.cloud.enis.get(id);
        eni.is_some_and(|eni| eni.tags.get(BLOCKED.0).is_some_and(|value| value == BLOCKED.1))
    }

    pub(super) fn untag(&mut self) {
        let ids: Vec<EniId> = self.cloud.enis.keys().cloned().collect();
        for id in ids {
            self.cloud.user_tags(&id, BLOCKED.0, None);
        }
    }

    /// An ENI as a daemon of this node would have made it.
    fn stray(&mut self, attached: bool, used: bool) {
        let Some(vswitch) = self.cloud.vswitches.keys().next().cloned() else { return };
        let token = format!("stray-{}", self.random.next());
        let tags = [
            ("creator", "terway"),
            ("ack.aliyun.com", INSTANCE),
            ("node", "node1"),
            ("team", "net"),
            (TOKEN_TAG, token.as_str()),
        ];
        let tags =
            tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let instance = InstanceId::new(INSTANCE);
        let made = self.cloud.user_makes(vswitch, tags, attached.then_some(&instance));
        let Some(id) = made else { return };
        if self.setup.options.config.stack.v6() {
            self.cloud.user_assigns_v6(&id);
        }
        let addresses = self.cloud.enis.get(&id).map(all).unwrap_or_default();
        if used {
            self.memory.haunted.extend(addresses.into_iter().map(|it| (it, Duration::MAX)));
        }
        self.memory.strays.insert(id, used);
    }

    /// The file is gone, and the pods live on.
    fn lose_records(&mut self) {
        self.memory.lost = true;
        for (key, caller) in std::mem::take(&mut self.callers) {
            if let Some(allocation) = caller.lives_on() {
                self.memory.ghosts.insert(key, allocation.clone());
            }
        }
        self.disk.contents = crate::checkpoint::Contents::default();
    }

    /// From now on a block that a user put on an ENI is taken in at its second sight.
    pub(super) fn expect_sightings(&mut self, id: &EniId, block: IpNetwork) {
        let port = self.port(id);
        let known = port
            .is_some_and(|port| port.known && !port.shelf.iter().any(|(a, _)| block.contains(a)));
        if known {
            self.memory.sightings.insert((id.clone(), block), 0);
        }
    }

    fn port(&self, id: &EniId) -> Option<&crate::ipam::pool::Port> {
        let mut ports = self.state.iter().flat_map(|state| state.pool.ports());
        ports.find(|(_, port)| port.id == *id).map(|(_, port)| port)
    }

    /// The daemon is told of all ENIs of its instance.
    pub(super) fn remember_told(&mut self, enis: &[Eni]) {
        let now = self.clock();
        for eni in enis {
            if eni.tags.get(BLOCKED.0).is_some_and(|value| value == BLOCKED.1) {
                self.memory.excluded.entry(eni.id.clone()).or_insert(now);
            } else {
                self.memory.excluded.remove(&eni.id);
            }
        }
        for ((id, block), count) in &mut self.memory.sightings {
            let lists = |eni: &Eni| match block {
                IpNetwork::V4(v4) if v4.prefix() == 28 => eni.v4_prefixes.contains(v4),
                block => all(eni).contains(&block.ip()),
            };
            let listed = enis.iter().any(|eni| eni.id == *id && lists(eni));
            *count = if listed || *count >= 2 { *count + 1 } else { 0 };
        }
    }

    /// What users put on an ENI and was taken in too early.
    pub(super) fn taken_in_early(&self) -> Option<String> {
        let early = self.memory.sightings.iter().filter(|(_, count)| **count < 2);
        let mut early = early.filter(|((id, block), _)| {
            self.port(id).is_some_and(|port| port.shelf.iter().any(|(a, _)| block.contains(a)))
        });
        early.next().map(|((id, block), count)| format!("{block} of {id} was seen {count} times"))
    }

    /// What the kernel uses beside the pods that have records.
    pub(super) fn used_by_others(&self) -> impl Iterator<Item = IpAddr> {
        let ghosts =
            self.memory.ghosts.values().flat_map(|it| it.addresses.iter().collect::<Vec<_>>());
        let haunted = self.memory.haunted.iter().filter(|(_, until)| self.now < **until);
        ghosts.chain(haunted.map(|(address, _)| *address))
    }

    /// A stray that the kernel uses and that is gone.
    pub(super) fn lost_stray(&self) -> Option<String> {
        let mut used = self.memory.strays.iter().filter(|(_, used)| **used);
        let gone =
            used.find(|(id, _)| !self.cloud.enis.contains_key(*id) && !self.touched.contains(*id));
        gone.map(|(id, _)| format!("{id} is in no record, and in use, and gone"))
    }

    /// Which addresses are of a frozen prefix.
    pub(super) fn remember_frozen(&mut self) {
        self.memory.frozen.clear();
        let Some(state) = &self.state else { return };
        for (_, port) in state.pool.ports().filter(|(_, port)| port.shelf.thaws_at().is_some()) {
            use crate::ipam::pool::SlotState;
            let frozen = port.shelf.iter().map(|(address, _)| address);
            let frozen = frozen.filter(|a| port.shelf.rested(*a) == SlotState::Frozen);
            self.memory.frozen.extend(frozen);
        }
    }

    /// Whether an address that was just handed out was, and is, of a frozen prefix.
    pub(super) fn is_frozen(&self, allocation: &Allocation, address: IpAddr) -> bool {
        use crate::ipam::pool::SlotState;
        let port = self.port(&allocation.eni);
        self.memory.frozen.contains(&address)
            && port.is_some_and(|port| port.shelf.rested(address) == SlotState::Frozen)
    }

    /// Users and the kernel are quiet from now on.
    pub(super) fn end_extras(&mut self) {
        let well = self.setup.conf.replace(r#""degradation": "l0", "#, "");
        let well = well.replace(r#""degradation": "l1", "#, "");
        if well != self.setup.conf {
            self.take_up(well);
        }
        self.untag();
        self.cloud.fragmented.clear();
        self.memory.haunted.clear();
        self.memory.ghosts.clear();
        self.memory.strays.values_mut().for_each(|used| *used = false);
    }
}

/// A configuration that the parser refuses is a fault of this file.
pub(super) fn parse(conf: &str) -> Config {
    let (config, _remarks) = Config::parse(conf, Path::new("eni_conf"))
        .expect("the simulation makes configurations that are right");
    config
}

/// All single addresses.
fn all(eni: &Eni) -> Vec<IpAddr> {
    let v4 = eni.v4.iter().copied().map(IpAddr::V4);
    v4.chain(eni.v6.iter().copied().map(IpAddr::V6)).collect()
}
