//! The one thread that owns what is desired and changes the kernel: the kernel does one thing at a
//! time anyway, and so nothing here needs a lock across an op.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{EniId, LinkIndex, Mac, SandboxKey};
use tokio::sync::watch;

use super::desired::{self, Eni, Node, PodNetwork, Tombstone};
use super::diff::diff;
use super::error::{first, refused};
use super::foreign::{Ahead, Seen};
use super::kernel::survey::{self, Link, Scope, Survey};
use super::kernel::watch::{Told, Watched};
use super::kernel::{Failure, Kernel, KernelError, OnError, has_ipv6};
use super::reaper::Reaper;
use super::types::{Change, Inside, Object, Op, Place, State, objects};
use super::worker::Worker;
use super::{
    Changes, DatapathError, EniKind, EniLink, EniSpec, Options, Pod, PodLink, PodSpec, Primary,
    names,
};
use crate::bpf::{Bpf, Program};
use crate::failpoints::Point;

/// Where our numbers of links begin: far from those that the kernel gives.
const FIRST_INDEX: u32 = 100_000;
/// Kernel: an index is a positive `int`.
const LAST_INDEX: u32 = 2_000_000_000;
/// How often other names and numbers are tried for one pod.
const PLANS: u32 = 8;

/// Handles to the threads of the datapath.
#[derive(Debug, Clone)]
pub(super) struct Threads {
    /// Owns what is desired, and changes the kernel.
    pub(super) owner: Worker<Actor>,
    /// Only reads, beside the owner.
    pub(super) reader: Worker<()>,
    /// Makes the kernel forget addresses that rest: with many connections that takes long.
    pub(super) forgetter: Worker<()>,
    pub(super) reaper: Reaper,
    pub(super) changes: watch::Receiver<Changes>,
    pub(super) links: watch::Receiver<u64>,
}

/// The owner. See the module.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) kernel: Kernel,
    pub(super) node: Node,
    pub(super) primary_mac: Mac,
    pub(super) enis: BTreeMap<EniId, (EniSpec, Option<EniLink>)>,
    pub(super) pods: BTreeMap<SandboxKey, PodNetwork>,
    pub(super) tombstones: BTreeSet<Tombstone>,
    /// Of which addresses those in the map are taken over.
    pub(super) expected_tombstones: BTreeSet<IpAddr>,
    /// Somebody else's filter was seen on the link of a pod: the next pod's will get one too.
    pub(super) foreign_filters: bool,
    /// Somebody else's filters before ours as last seen; each was told of.
    pub(super) ahead: Seen,
    watched: Arc<Mutex<Watched>>,
    next_index: u32,
    /// Counts changes of what is desired.
    pub(super) generation: u64,
}

/// Loads, reads, and starts the threads, all in the namespace of the calling thread.
pub(super) fn start(options: &Options) -> Result<Threads, DatapathError> {
    let failed = |what| move |source| DatapathError::Read { what, source };
    let bpf = Bpf::load(&options.object, &options.pins)
        .map_err(|source| DatapathError::Bpf { what: "cannot load the programs".into(), source })?;
    let reaper = Reaper::start().map_err(failed("links of deleted pods"))?;
    let programs = Program::ALL.map(|program| (program, bpf.id(program))).into();
    let kernel = Kernel::open(bpf, reaper.clone()).map_err(failed("rtnetlink"))?;
    let survey = Survey::take(&Scope::default())?;
    let node = Node {
        primary: primary(&survey, options.primary_mac)?,
        stack: options.stack,
        layout: options.rule_layout,
        mark_mask: options.mark_mask,
        ipv6: has_ipv6(),
        advertised: survey.advertised.clone(),
        programs,
    };
    let (changes, heard) = watch::channel(Changes::default());
    let (links, seen) = watch::channel(0);
    let watched =
        Watched { desired: State::default(), enis: BTreeMap::new(), primary: node.primary.clone() };
    let mut actor = Actor {
        kernel,
        node,
        primary_mac: options.primary_mac,
        enis: BTreeMap::new(),
        pods: BTreeMap::new(),
        tombstones: BTreeSet::new(),
        expected_tombstones: BTreeSet::new(),
        foreign_filters: false,
        ahead: Seen::new(),
        watched: Arc::new(Mutex::new(watched)),
        next_index: first_index(&survey),
        generation: 0,
    };
    super::kernel::watch::start(Arc::downgrade(&actor.watched), Told { changes, links })
        .map_err(failed("netlink events"))?;
    actor.prepare_node()?;
    let failed = failed("the threads of the datapath");
    Ok(Threads {
        owner: Worker::start("datapath", actor).map_err(&failed)?,
        reader: Worker::start("datapath-reader", ()).map_err(&failed)?,
        forgetter: Worker::start("datapath-forget", ()).map_err(&failed)?,
        reaper,
        changes: heard,
        links: seen,
    })
}

pub(super) fn primary(survey: &Survey, mac: Mac) -> Result<Primary, DatapathError> {
    let link = survey.nic(mac).ok_or(DatapathError::NoPrimary(mac))?;
    let own = survey.addresses.iter().filter(|own| own.index == link.dev.index && own.global);
    let own: Vec<IpAddr> = own.map(|own| own.address.ip()).collect();
    Ok(Primary {
        index: link.dev.index,
        name: link.dev.name.clone(),
        v4: own.iter().find_map(|own| match own {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }),
        v6: own.iter().find_map(|own| match own {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        }),
    })
}

/// Behind all numbers that are in use, so that none is used again soon after a restart.
fn first_index(survey: &Survey) -> u32 {
    let used = survey.links.iter().flat_map(|link| [Some(link.dev.index), link.peer]).flatten();
    let last = used.map(LinkIndex::get).filter(|index| *index < LAST_INDEX).max();
    last.map_or(FIRST_INDEX, |last| FIRST_INDEX.max(last + 1))
}

impl Actor {
    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is desired from now on, before it is made.
    fn desire(&mut self, more: &State) {
        self.generation += 1;
        self.watched().desired.extend(more);
    }

    /// Forgets what is not desired any more, before it is taken away.
    pub(super) fn forget(&mut self, less: &State, instead: &State) {
        self.generation += 1;
        let mut watched = self.watched();
        less.node.keys().for_each(|slot| _ = watched.desired.node.remove(slot));
        less.pods.keys().for_each(|key| _ = watched.desired.pods.remove(key));
        watched.desired.extend(instead);
    }

    pub(super) fn rewrite(&mut self) {
        let desired = self.desired();
        self.generation += 1;
        let enis = self.enis.iter().map(|(id, (spec, _))| (spec.mac, id.clone())).collect();
        let primary = self.node.primary.clone();
        *self.watched() = Watched { desired, enis, primary };
    }

    pub(super) fn found_enis(&self) -> Vec<Eni> {
        let found = self
            .enis
            .values()
            .filter_map(|(spec, link)| Some(Eni { spec: spec.clone(), link: link.clone()? }));
        found.collect()
    }

    fn desired(&self) -> State {
        let pods: Vec<PodNetwork> = self.pods.values().cloned().collect();
        desired::desired(&self.node, &self.found_enis(), &pods, &self.tombstones)
    }

    pub(super) fn run(&mut self, owner: &dyn Display, ops: &[Op]) -> Result<(), DatapathError> {
        first(owner, self.kernel.run(ops, OnError::Continue, Point::EniStep))
    }

    fn prepare_node(&mut self) -> Result<(), DatapathError> {
        let wanted = State { node: desired::node_objects(&self.node), ..State::default() };
        self.desire(&wanted);
        self.run(&"the node", &diff(&State::default(), &wanted))
    }

    /// Sets up the ENI if its link is among these.
    pub(super) fn set_eni(
        &mut self,
        spec: &EniSpec,
        links: &[Link],
    ) -> Result<Option<EniLink>, DatapathError> {
        let Some(found) = survey::nic(links, spec.mac) else { return Ok(None) };
        let known = self.enis.get(&spec.id).and_then(|(_, link)| link.as_ref());
        let link = EniLink::seen(known, found);
        let eni = Eni { spec: spec.clone(), link: link.clone() };
        self.enis.insert(spec.id.clone(), (spec.clone(), Some(link.clone())));
        self.rewrite();
        let node = desired::eni_objects(&self.node, &eni);
        let wanted = State { node, ..State::default() };
        self.run(&spec.id, &diff(&State::default(), &wanted))?;
        self.precede(&eni)?;
        // Apart from the ENI itself: a pod whose link is gone must not keep it down.
        let pods = self.pods.values();
        let node = objects(pods.flat_map(|known| desired::pod_routes(&eni, &known.pod)));
        let wanted = State { node, ..State::default() };
        if let Err(error) = self.run(&spec.id, &diff(&State::default(), &wanted)) {
            tracing::warn!(eni = %spec.id, %error, "routes of pods are left to the next repair");
        }
        Ok(Some(link))
    }

    /// A TCX program of somebody else would see a trunk's tags.
    pub(super) fn precede(&mut self, eni: &Eni) -> Result<(), DatapathError> {
        if eni.spec.kind != EniKind::Trunk {
            return Ok(());
        }
        let preceded = self.kernel.bpf.precede_tcx(eni.link.index).map_err(|source| {
            DatapathError::Bpf { what: format!("TCX on trunk {}", eni.link.name), source }
        })?;
        if let Some(preceded) = preceded {
            tracing::info!(link = %eni.link.name, others = ?preceded.programs, "untag runs before TCX");
        }
        Ok(())
    }

    pub(super) fn remove_eni(&mut self, id: &EniId) -> Result<(), DatapathError> {
        if self.enis.remove(id).is_none() {
            return Ok(());
        }
        self.tombstones.retain(|stone| stone.eni != *id);
        let before = State { node: self.watched().desired.node.clone(), ..State::default() };
        self.rewrite();
        let after = State { node: self.watched().desired.node.clone(), ..State::default() };
        self.run(id, &diff(&before, &after))
    }

    /// Chooses names and numbers that nobody has.
    pub(super) fn plan_pod(&mut self, spec: &PodSpec) -> Result<PodLink, DatapathError> {
        if let Some(known) = self.pods.get(&spec.key) {
            return Ok(known.pod.link.clone());
        }
        let Some((_, Some(eni))) = self.enis.get(&spec.eni) else {
            return Err(DatapathError::UnknownEni { key: spec.key.clone(), eni: spec.eni.clone() });
        };
        let mtu = spec.mtu.unwrap_or(eni.mtu);
        let failed = |source| DatapathError::Read { what: "links", source };
        let mut nth = 0;
        let host = loop {
            let host = names::host(spec, nth);
            let planned = self.pods.values().any(|known| known.pod.link.host == host);
            if !planned && self.kernel.link_named(&host).map_err(failed)?.is_none() {
                break host;
            }
            nth += 1;
            if nth == PLANS {
                let (what, source) = (format!("a name like {host}"), io::ErrorKind::AlreadyExists);
                return Err(DatapathError::Refused { what, source: source.into() });
            }
        };
        Ok(PodLink {
            host,
            host_index: self.free_index().map_err(failed)?,
            host_mac: names::mac(&spec.key, "host"),
            pod_index: self.free_index().map_err(failed)?,
            pod_mac: spec.mac.unwrap_or_else(|| names::mac(&spec.key, "pod")),
            mtu,
        })
    }

    fn free_index(&mut self) -> io::Result<LinkIndex> {
        loop {
            let candidate = self.next_index;
            self.next_index = if candidate < LAST_INDEX { candidate + 1 } else { FIRST_INDEX };
            let index = LinkIndex::try_from(candidate).map_err(io::Error::other)?;
            if self.kernel.link(index)?.is_none() {
                return Ok(index);
            }
        }
    }

    pub(super) fn add_pod(&mut self, mut pod: Pod) -> Result<PodLink, DatapathError> {
        let Pod { spec, .. } = &pod;
        if !matches!(self.enis.get(&spec.eni), Some((_, Some(_)))) {
            return Err(DatapathError::UnknownEni { key: spec.key.clone(), eni: spec.eni.clone() });
        }
        let key = spec.key.clone();
        let mut plans = 0;
        loop {
            let known = self.pods.get(&key);
            let again = known.is_some_and(|known| known.pod == pod);
            let foreign_filter = self.foreign_filters;
            let network = PodNetwork { pod: pod.clone(), foreign_filter };
            let wanted = desired::pod_state(&self.node, &self.found_enis(), &network);
            let addresses = pod.spec.addresses;
            self.tombstones.retain(|stone| !addresses.iter().any(|own| own == stone.address));
            self.pods.insert(key.clone(), network);
            self.desire(&wanted);
            let ops = diff(&State::default(), &wanted);
            let Some(failure) =
                self.kernel.run(&ops, OnError::Stop, Point::AddStep).into_iter().next()
            else {
                self.settle(pod.link.host_index);
                return Ok(pod.link);
            };
            if !again {
                self.roll_back(&key);
            }
            if matches!(failure.error, KernelError::Occupied) {
                return Err(self.occupied(pod.spec));
            }
            plans += 1;
            if !matches!(failure.error, KernelError::Taken) || again || plans == PLANS {
                return Err(refused(&format_args!("sandbox {key}"), failure));
            }
            pod.link = self.plan_pod(&pod.spec)?;
        }
    }

    fn occupied(&self, spec: PodSpec) -> DatapathError {
        let PodSpec { key, ifname, netns, .. } = spec;
        let others = self.pods.values().map(|known| &known.pod.spec);
        let mut others = others.filter(|other| (&other.ifname, &other.netns) == (&ifname, &netns));
        let whose = others.find(|other| other.key != key).map(|other| Box::new(other.key.clone()));
        DatapathError::Occupied { ifname, netns, whose }
    }

    pub(super) fn settle(&mut self, host: LinkIndex) {
        if let Err(error) = self.kernel.settle(host) {
            tracing::debug!(%host, %error, "the new link was not looked at");
        }
    }

    /// Undoes an ADD: what the pod left in the kernel, whether it came so far or not.
    pub(super) fn roll_back(&mut self, key: &SandboxKey) {
        let Some(known) = self.pods.remove(key) else { return };
        for failure in self.take_away(&known.pod, &BTreeSet::new()) {
            tracing::warn!(%key, error = %failure, "an ADD was not undone");
        }
    }

    pub(super) fn del_pod(&mut self, pod: &Pod) -> Result<(), DatapathError> {
        let key = &pod.spec.key;
        let known = self.pods.remove(key);
        let stones: BTreeSet<Tombstone> = desired::tombstones(pod)
            .filter(|stone| !self.pods.values().any(|other| other.pod.has(stone.address)))
            .collect();
        let mut failures = self.take_away(pod, &stones);
        // It may have been made again under other numbers.
        if let Some(known) = known.filter(|known| known.pod.link != pod.link) {
            failures.extend(self.take_away(&known.pod, &stones));
        }
        first(&format_args!("sandbox {key}"), failures)
    }

    /// Takes away what this pod alone has; two sandboxes of one pod may share an address.
    fn take_away(&mut self, pod: &Pod, stones: &BTreeSet<Tombstone>) -> Vec<Failure> {
        self.tombstones.extend(stones.iter().cloned());
        let enis = self.found_enis();
        let network = PodNetwork { pod: pod.clone(), foreign_filter: false };
        let before = desired::pod_state(&self.node, &enis, &network);
        let mut after = State::default();
        let stones = stones.iter().filter_map(|stone| desired::tombstone(&enis, stone));
        after.node.extend(objects(stones));
        for other in self.pods.values().filter(|other| other.pod.shares_with(pod)) {
            after.extend(&desired::pod_state(&self.node, &enis, other));
        }
        let after = after.within(&before);
        self.forget(&before, &after);
        let mut gone = before;
        let insides = std::mem::take(&mut gone.pods);
        let kept = State { pods: BTreeMap::new(), ..after };
        let mut failures = self.kernel.run(&diff(&gone, &kept), OnError::Continue, Point::DelStep);
        failures.extend(self.leave(insides));
        failures
    }

    /// Takes the rules out of pods' namespaces, for only they do not go with the link. A namespace
    /// that is gone took them along.
    fn leave(&mut self, insides: BTreeMap<SandboxKey, Inside>) -> Vec<Failure> {
        let rules = insides.into_iter().flat_map(|(key, Inside { netns, objects })| {
            let rules = objects.into_values().filter(|object| matches!(object, Object::Rule(_)));
            let place = Place::Pod(key, netns);
            rules.map(move |rule| Op::new(place.clone(), Change::Remove(rule)))
        });
        let ops: Vec<Op> = rules.collect();
        let mut failures = self.kernel.run(&ops, OnError::Continue, Point::DelStep);
        failures.retain(|failure| matches!(failure.error, KernelError::Refused(_)));
        failures
    }

    /// These pods are there, as far as we know. Tombstones are read back from the map.
    pub(super) fn restore(&mut self, pods: Vec<Pod>) -> Result<(), DatapathError> {
        for pod in pods {
            // A record from before a reboot has numbers that no link has.
            let last = pod.link.host_index.max(pod.link.pod_index).get();
            if (self.next_index..LAST_INDEX).contains(&last) {
                self.next_index = last + 1;
            }
            let network = PodNetwork { pod, foreign_filter: false };
            self.pods.insert(network.pod.spec.key.clone(), network);
        }
        let entries = self.kernel.bpf.addresses().map_err(|source| DatapathError::Bpf {
            what: "cannot read the addresses".into(),
            source,
        })?;
        for (index, address, entry) in entries.into_iter().filter(|(.., entry)| entry.tombstone) {
            if !self.expected_tombstones.contains(&address) {
                tracing::info!(%address, "a tombstone without a rest is buried");
                continue;
            }
            let eni = self.found_enis().into_iter().find(|eni| eni.link.index == index);
            let vlan = entry.vlan;
            let stone = eni.map(|eni| Tombstone { eni: eni.spec.id, address, vlan });
            self.tombstones.extend(stone);
        }
        let pods = &self.pods;
        self.tombstones.retain(|stone| !pods.values().any(|known| known.pod.has(stone.address)));
        self.rewrite();
        Ok(())
    }

    pub(super) fn enis(&self) -> Vec<(EniSpec, Option<EniLink>)> {
        self.enis.values().cloned().collect()
    }

    pub(super) fn foreign_ahead(&self) -> Vec<String> {
        let one = |(ahead, links): (&Ahead, &BTreeSet<LinkIndex>)| match links.len() {
            0 | 1 => ahead.to_string(),
            many => format!("{ahead} ({many} links)"),
        };
        self.ahead.iter().map(one).collect()
    }

    pub(super) fn primary(&self) -> Primary {
        self.node.primary.clone()
    }

    pub(super) fn drops(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        let what = "cannot read the drop counters";
        self.kernel.bpf.drops().map_err(|source| DatapathError::Bpf { what: what.into(), source })
    }
}
