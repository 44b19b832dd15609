//! The one thread that owns what is desired and changes the kernel: the kernel does one thing at a
//! time anyway, and so nothing here needs a lock across an op.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use model::{EniId, IpPair, LinkIndex, Mac, SandboxKey};
use nix::errno::Errno;
use tokio::sync::{oneshot, watch};

use super::desired::{self, Eni, Node, PodNetwork, Tombstone};
use super::diff::diff;
use super::kernel::survey::{self, Link, Scope, Survey};
use super::kernel::watch::{Told, Watched};
use super::kernel::{Failure, Kernel, KernelError, OnError, errno, has_ipv6};
use super::reaper::Reaper;
use super::types::{Change, Dev, Object, Op, Place, Slot, State, objects};
use super::{
    Changes, DatapathError, EniLink, EniSpec, Options, Pod, PodLink, PodSpec, Primary, Repairs,
    names,
};
use crate::bpf::{Bpf, Program};

/// Where our numbers of links begin: far from those that the kernel gives.
const FIRST_INDEX: u32 = 100_000;
/// Kernel: an index is a positive `int`.
const LAST_INDEX: u32 = 2_000_000_000;
/// How often other names and numbers are tried for one pod.
const PLANS: u32 = 8;

/// A handle to a thread that owns an `S` and does one job after the other.
#[derive(Debug)]
pub(super) struct Worker<S>(Sender<Job<S>>);

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts it in the namespace of the calling thread; it ends with the last handle.
    fn start(name: &str, mut owned: S) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            while let Ok(job) = queue.recv() {
                job(&mut owned);
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs `job` behind those that came before, also if the caller gives up waiting.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, DatapathError> {
        let (reply, answer) = oneshot::channel();
        let job: Job<S> = Box::new(move |owned| drop(reply.send(job(owned))));
        self.0.send(job).map_err(|_ended| DatapathError::Stopped)?;
        answer.await.map_err(|_ended| DatapathError::Stopped)
    }
}

/// Handles to the threads of the datapath.
#[derive(Debug, Clone)]
pub(super) struct Threads {
    /// Owns what is desired, and changes the kernel.
    pub(super) owner: Worker<Actor>,
    /// Only reads, beside the owner.
    pub(super) reader: Worker<()>,
    pub(super) reaper: Reaper,
    pub(super) changes: watch::Receiver<Changes>,
    pub(super) links: watch::Receiver<u64>,
}

/// What a look at the survey came to.
pub(super) enum Mended {
    /// Something changed while it was taken: take another.
    Stale,
    /// `again` says that ops were run, which may have had effects of their own.
    Done { repairs: Repairs, again: bool },
}

/// The owner. See the module.
#[derive(Debug)]
pub(super) struct Actor {
    kernel: Kernel,
    node: Node,
    primary_mac: Mac,
    enis: BTreeMap<EniId, (EniSpec, Option<EniLink>)>,
    pods: BTreeMap<SandboxKey, PodNetwork>,
    tombstones: BTreeSet<Tombstone>,
    watched: Arc<Mutex<Watched>>,
    next_index: u32,
    /// Counts changes of what is desired.
    generation: u64,
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
    let (changes, changed) = watch::channel(Changes::default());
    let (links, linked) = watch::channel(0);
    let watched =
        Watched { desired: State::default(), enis: BTreeMap::new(), primary: node.primary.clone() };
    let mut actor = Actor {
        kernel,
        node,
        primary_mac: options.primary_mac,
        enis: BTreeMap::new(),
        pods: BTreeMap::new(),
        tombstones: BTreeSet::new(),
        watched: Arc::new(Mutex::new(watched)),
        next_index: first_index(&survey),
        generation: 0,
    };
    super::kernel::watch::start(Arc::downgrade(&actor.watched), Told { changes, links })
        .map_err(failed("netlink events"))?;
    actor.prepare_node()?;
    let failed = failed("the threads of the datapath");
    let reader = Worker::start("datapath-reader", ()).map_err(&failed)?;
    let owner = Worker::start("datapath", actor).map_err(&failed)?;
    Ok(Threads { owner, reader, reaper, changes: changed, links: linked })
}

fn primary(survey: &Survey, mac: Mac) -> Result<Primary, DatapathError> {
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

/// Puts a failed op, and why, into the words of the boundary.
fn refused(owner: &dyn Display, failure: Failure) -> DatapathError {
    let Failure { op, error } = failure;
    let what = format!("{op} (for {owner})");
    match error {
        KernelError::Refused(source) if is_missing(&op, &source) => {
            DatapathError::Unsupported { what, feature: feature(op.object()), source }
        }
        KernelError::Refused(source) => DatapathError::Refused { what, source },
        KernelError::Bpf(source) => DatapathError::Bpf { what, source },
        KernelError::Namespace(source) => {
            DatapathError::Namespace { owner: owner.to_string(), source }
        }
        KernelError::OwnNamespace => DatapathError::OwnNamespace { owner: owner.to_string() },
        KernelError::Taken => {
            DatapathError::Refused { what, source: io::ErrorKind::AlreadyExists.into() }
        }
    }
}

fn first(owner: &dyn Display, failures: Vec<Failure>) -> Result<(), DatapathError> {
    match failures.into_iter().next() {
        None => Ok(()),
        Some(failure) => Err(refused(owner, failure)),
    }
}

fn is_missing(op: &Op, error: &io::Error) -> bool {
    let switch = matches!(op.object(), Object::Sysctl(..) | Object::LinkSysctl(..));
    match errno(error) {
        Some(Errno::EAFNOSUPPORT | Errno::ENOSYS | Errno::EOPNOTSUPP) => true,
        Some(Errno::ENOENT) => switch,
        _ => false,
    }
}

const fn feature(object: &Object) -> &'static str {
    match object {
        Object::Pair(_) => "veth links (CONFIG_VETH)",
        Object::Filter { .. } => "clsact and cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)",
        Object::Rule(_) => {
            "policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => "the pod's address family (for IPv6: CONFIG_IPV6, and no ipv6.disable=1)",
    }
}

impl Actor {
    fn watched(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is desired from now on, before it is made.
    fn desire(&mut self, more: &State) {
        self.generation += 1;
        self.watched().desired.extend(more);
    }

    /// Forgets what is not desired any more, before it is taken away.
    fn forget(&mut self, less: &State, instead: &State) {
        self.generation += 1;
        let mut watched = self.watched();
        watched.desired.node.retain(|slot, _| !less.node.contains_key(slot));
        watched.desired.pods.retain(|key, _| !less.pods.contains_key(key));
        watched.desired.extend(instead);
    }

    fn rewrite(&mut self) {
        let desired = self.desired();
        self.generation += 1;
        let enis = self.enis.iter().map(|(id, (spec, _))| (spec.mac, id.clone())).collect();
        let primary = self.node.primary.clone();
        *self.watched() = Watched { desired, enis, primary };
    }

    fn found_enis(&self) -> Vec<Eni> {
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

    fn run(&mut self, owner: &dyn Display, ops: &[Op]) -> Result<(), DatapathError> {
        first(owner, self.kernel.run(ops, OnError::Continue))
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
        let Dev { index, name } = found.dev.clone();
        let link = EniLink { index, name, mtu: found.mtu };
        let eni = Eni { spec: spec.clone(), link: link.clone() };
        self.enis.insert(spec.id.clone(), (spec.clone(), Some(link.clone())));
        self.rewrite();
        let mut node = desired::eni_objects(&self.node, &eni);
        let pods = self.pods.values();
        node.extend(objects(pods.flat_map(|known| desired::pod_routes(&eni, &known.pod))));
        let wanted = State { node, ..State::default() };
        self.run(&spec.id, &diff(&State::default(), &wanted))?;
        self.precede(&eni)?;
        Ok(Some(link))
    }

    /// A TCX program of somebody else would see a trunk's tags.
    fn precede(&mut self, eni: &Eni) -> Result<(), DatapathError> {
        if eni.spec.kind != super::EniKind::Trunk {
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
            let foreign_filter = known.is_some_and(|known| known.foreign_filter);
            let again = known.is_some_and(|known| known.pod == pod);
            let network = PodNetwork { pod: pod.clone(), foreign_filter };
            let wanted = desired::pod_state(&self.node, &self.found_enis(), &network);
            let addresses = pod.spec.addresses;
            self.tombstones.retain(|stone| !addresses.iter().any(|own| own == stone.address));
            self.pods.insert(key.clone(), network);
            self.desire(&wanted);
            let ops = diff(&State::default(), &wanted);
            let Some(failure) = self.kernel.run(&ops, OnError::Stop).into_iter().next() else {
                return Ok(pod.link);
            };
            if !again {
                self.roll_back(&key);
            }
            plans += 1;
            if !matches!(failure.error, KernelError::Taken) || again || plans == PLANS {
                return Err(refused(&format_args!("sandbox {key}"), failure));
            }
            pod.link = self.plan_pod(&pod.spec)?;
        }
    }

    /// Undoes an ADD: what the pod left in the kernel, whether it came so far or not.
    fn roll_back(&mut self, key: &SandboxKey) {
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
        gone.pods.clear();
        let kept = State { pods: BTreeMap::new(), ..after };
        self.kernel.run(&diff(&gone, &kept), OnError::Continue)
    }

    pub(super) fn bury(&mut self, addresses: IpPair) -> Result<(), DatapathError> {
        let of_them = |stone: &Tombstone| addresses.iter().any(|own| own == stone.address);
        let enis = self.found_enis();
        let stones: Vec<Tombstone> =
            self.tombstones.iter().filter(|stone| of_them(stone)).cloned().collect();
        self.tombstones.retain(|stone| !of_them(stone));
        let before = stones.iter().filter_map(|stone| desired::tombstone(&enis, stone));
        let before = State { node: objects(before), ..State::default() };
        self.forget(&before, &State::default());
        self.run(&addresses, &diff(&before, &State::default()))
    }

    pub(super) fn tombstones(&self) -> Vec<IpAddr> {
        self.tombstones.iter().map(|stone| stone.address).collect()
    }

    /// These pods are there, as far as we know. Tombstones are read back from the map.
    pub(super) fn restore(&mut self, pods: Vec<Pod>) -> Result<(), DatapathError> {
        for pod in pods {
            let network = PodNetwork { pod, foreign_filter: false };
            self.pods.insert(network.pod.spec.key.clone(), network);
        }
        let entries = self.kernel.bpf.addresses().map_err(|source| DatapathError::Bpf {
            what: "cannot read the addresses".into(),
            source,
        })?;
        for (index, address, entry) in entries.into_iter().filter(|(.., entry)| entry.tombstone) {
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

    pub(super) fn primary(&self) -> Primary {
        self.node.primary.clone()
    }

    pub(super) fn drops(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        let what = "cannot read the drop counters";
        self.kernel.bpf.drops().map_err(|source| DatapathError::Bpf { what: what.into(), source })
    }

    /// Our links, to look at.
    pub(super) fn devs(&self) -> Vec<Dev> {
        let enis = self.found_enis().into_iter().map(|eni| eni.dev());
        let pods = self.pods.values().map(|known| {
            let PodLink { host, host_index, .. } = &known.pod.link;
            Dev { index: *host_index, name: host.clone() }
        });
        enis.chain(pods).collect()
    }

    /// What to read for a repair, and when that was said.
    pub(super) fn scope(&self) -> (Scope, u64) {
        let netns = |known: &PodNetwork| known.pod.spec.netns.clone();
        let pods = self.pods.iter().map(|(key, known)| (key.clone(), netns(known)));
        (Scope { pods: pods.collect(), ..self.node_scope() }, self.generation)
    }

    /// What to read for a CHECK.
    pub(super) fn pod_scope(&self, key: &SandboxKey) -> Result<Scope, DatapathError> {
        let known = self.pods.get(key).ok_or_else(|| DatapathError::UnknownPod(key.clone()))?;
        let pods = [(key.clone(), known.pod.spec.netns.clone())].into();
        Ok(Scope { pods, ..self.node_scope() })
    }

    fn node_scope(&self) -> Scope {
        let switches =
            |object: &&Object| matches!(object, Object::Sysctl(..) | Object::LinkSysctl(..));
        Scope {
            enis: self.enis.values().map(|(spec, _)| spec.mac).collect(),
            pods: BTreeMap::new(),
            sysctls: self.watched().desired.node.values().filter(switches).cloned().collect(),
        }
    }

    fn actual(&self, survey: &Survey) -> Result<State, DatapathError> {
        let enis = self.found_enis().iter().map(|eni| eni.link.index).collect();
        let mut state = survey.state(&enis, &self.node.programs, &self.kernel.bpf)?;
        // The map has always a node in it, and nobody else writes it.
        let node = desired::node_objects(&self.node).into_iter();
        state.node.extend(node.filter(|(_, object)| matches!(object, Object::Node(_))));
        Ok(state)
    }

    /// How the kernel differs from what the pod and its ENI should have.
    pub(super) fn check(
        &self,
        key: &SandboxKey,
        survey: &Survey,
    ) -> Result<Vec<String>, DatapathError> {
        let known = self.pods.get(key).ok_or_else(|| DatapathError::UnknownPod(key.clone()))?;
        if let Some(why) = survey.closed.get(key) {
            return Ok(vec![why.clone()]);
        }
        let enis = self.found_enis();
        let mut wanted = desired::pod_state(&self.node, &enis, known);
        match enis.iter().find(|eni| eni.spec.id == known.pod.spec.eni) {
            Some(eni) => wanted.node.extend(desired::eni_objects(&self.node, eni)),
            None => return Ok(vec![format!("the link of {} is gone", known.pod.spec.eni)]),
        }
        let actual = self.actual(survey)?.within(&wanted);
        Ok(diff(&actual, &wanted).iter().map(Op::finding).collect())
    }

    /// Looks at a survey taken at `generation`, and runs the difference.
    pub(super) fn mend(
        &mut self,
        survey: &Survey,
        generation: Option<u64>,
    ) -> Result<Mended, DatapathError> {
        if generation.is_some_and(|generation| generation != self.generation) {
            return Ok(Mended::Stale);
        }
        let mut repairs = Repairs::default();
        self.observe(survey, &mut repairs);
        self.rewrite();
        let mut actual = self.actual(survey)?;
        let wanted = self.wanted(survey, &mut actual, &mut repairs);
        let ops = diff(&actual, &wanted);
        let failures = self.kernel.run(&ops, OnError::Continue);
        let failed: Vec<&Op> = failures.iter().map(|failure| &failure.op).collect();
        let done = ops.iter().filter(|op| !failed.contains(op));
        repairs.mended.extend(done.map(Op::finding));
        let mut moved = Vec::new();
        for failure in failures {
            match (&failure.error, failure.op.object()) {
                (KernelError::Taken, Object::Pair(pair)) => moved.push(pair.alias.clone()),
                _ => repairs.left.push(failure.to_string()),
            }
        }
        for alias in moved {
            self.move_pod(&alias, &mut repairs)?;
        }
        for eni in self.found_enis() {
            self.precede(&eni)?;
        }
        Ok(Mended::Done { again: !ops.is_empty(), repairs })
    }

    /// Takes from the survey what what is desired depends on.
    fn observe(&mut self, survey: &Survey, repairs: &mut Repairs) {
        for (id, (spec, link)) in &mut self.enis {
            let found = survey.nic(spec.mac).map(|found| EniLink {
                index: found.dev.index,
                name: found.dev.name.clone(),
                mtu: found.mtu,
            });
            match (&found, &link) {
                (None, _) => repairs.left.push(format!("the link of {id} is gone")),
                (Some(found), Some(link)) if found == link => {}
                (Some(found), _) => {
                    let EniLink { index, name, .. } = found;
                    repairs.mended.push(format!("the link of {id} is {name}, index {index}"));
                }
            }
            *link = found;
        }
        let foreign = survey.foreign_filters();
        for known in self.pods.values_mut() {
            known.foreign_filter = foreign.contains(&known.pod.link.host_index);
        }
        let own: BTreeSet<_> = self.found_enis().into_iter().map(|eni| eni.link.name).collect();
        let advertised = survey.advertised.iter().filter(|name| !own.contains(name)).cloned();
        self.node.advertised.extend(advertised);
        match primary(survey, self.primary_mac) {
            Ok(primary) if primary != self.node.primary => {
                let Primary { name, v4, v6, .. } = &primary;
                repairs.mended.push(format!("the node is {v4:?} {v6:?} on {name} now"));
                self.node.primary = primary;
                self.rewrite_node(repairs);
            }
            Ok(_) => {}
            Err(error) => repairs.left.push(error.to_string()),
        }
    }

    /// The map's entry is not read back, so it is written when the node changes.
    fn rewrite_node(&mut self, repairs: &mut Repairs) {
        let node = desired::node_objects(&self.node).into_values();
        let entry = node.filter(|object| matches!(object, Object::Node(_)));
        let ops: Vec<Op> = entry.map(|node| Op::new(Place::Node, Change::Add(node))).collect();
        for failure in self.kernel.run(&ops, OnError::Continue) {
            repairs.left.push(failure.to_string());
        }
    }

    /// What is desired, without what cannot be looked at: a pod whose namespace is closed to us is
    /// left as it is if its link stands, and nothing is kept for it if not.
    fn wanted(&self, survey: &Survey, actual: &mut State, repairs: &mut Repairs) -> State {
        let mut pods: Vec<PodNetwork> = Vec::new();
        let mut closed = Vec::new();
        for (key, known) in &self.pods {
            let Some(why) = survey.closed.get(key) else {
                pods.push(known.clone());
                continue;
            };
            repairs.left.push(format!("sandbox {key}: {why}"));
            let slot = Slot::Pair(known.pod.link.host_index);
            if let Some(Object::Pair(pair)) = actual.node.get_mut(&slot) {
                desired::assume_peer(pair, &known.pod);
                pods.push(known.clone());
                closed.push(key);
            }
        }
        let mut wanted = desired::desired(&self.node, &self.found_enis(), &pods, &self.tombstones);
        for key in closed {
            wanted.pods.remove(key);
        }
        wanted
    }

    /// Somebody has the numbers of a pod's links: others are taken.
    fn move_pod(&mut self, alias: &str, repairs: &mut Repairs) -> Result<(), DatapathError> {
        let known = self.pods.iter().find(|(key, _)| names::alias(key) == alias);
        let Some(pod) = known.map(|(_, known)| known.pod.clone()) else { return Ok(()) };
        let key = pod.spec.key.clone();
        self.roll_back(&key);
        let link = self.plan_pod(&pod.spec)?;
        let link = self.add_pod(Pod { link, spec: pod.spec })?;
        repairs.mended.push(format!("the links of {key} were made anew as {}", link.host));
        repairs.moved.push((key, link));
        Ok(())
    }
}
