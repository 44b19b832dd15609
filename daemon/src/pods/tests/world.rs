//! A node in memory: a pool, a kernel and a disk behind the seams of `pods`. Every effect goes
//! through [`World::step`], where it can be made to fail, to wait, or to be the last one ever.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{EniId, IpPair, LinkIndex, Mac, Mode, PodRef, SandboxKey};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::super::{Add, Addresses, Journal, Namespace, Network, Parts, Pods};
use crate::checkpoint::{Change, CheckpointError, Phase, SandboxRecord};
use crate::config::MemberMac;
use crate::datapath::{DatapathError, Pod, PodLink, PodSpec};
use crate::ipam::{AllocError, Allocation, Carrier, Request, Want};
use crate::tasks::Tasks;

/// What a world is made of.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Effects, in their order.
    pub(crate) log: Vec<String>,
    /// Pods whose links stand.
    pub(crate) kernel: BTreeMap<SandboxKey, Pod>,
    /// What would be there after a crash.
    pub(crate) disk: BTreeMap<SandboxKey, SandboxRecord>,
    noted: Vec<Change>,
    /// Addresses in use.
    pub(crate) used: BTreeMap<SandboxKey, Ipv4Addr>,
    /// How often each was given back.
    pub(crate) released: BTreeMap<Ipv4Addr, usize>,
    free: BTreeSet<Ipv4Addr>,
    /// The ENI of every pod has no link.
    pub(crate) no_link: bool,
    /// ENIs without a link, as the pool was told.
    pub(crate) unplugged: Vec<EniId>,
    /// Paths at which there is a namespace.
    pub(crate) namespaces: BTreeSet<PathBuf>,
    /// Effects that fail.
    pub(crate) failing: BTreeSet<&'static str>,
    /// An effect that panics.
    pub(crate) panicking: Option<&'static str>,
    holds: BTreeMap<&'static str, Arc<Semaphore>>,
    /// Effects until the world stops; `None` is never.
    pub(crate) left: Option<usize>,
}

/// Shared with the `Pods` under test.
#[derive(Debug, Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    /// Of the DEL queue.
    pub(crate) queue: PathBuf,
}

impl World {
    pub(crate) fn new(queue: &Path) -> Self {
        let free = (1..=9).map(|host| Ipv4Addr::new(10, 0, 1, host)).collect();
        let namespaces = ["a", "b", "c"].map(netns).into();
        let state = State { free, namespaces, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), queue: queue.to_owned() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The daemon starts with what is on the disk.
    pub(crate) fn start(&self) -> Arc<Pods> {
        self.start_with(Tasks::default())
    }

    pub(crate) fn start_with(&self, tasks: Tasks) -> Arc<Pods> {
        let records = self.state().disk.values().cloned().collect();
        let parts = Parts {
            addresses: Arc::new(self.clone()),
            network: Arc::new(self.clone()),
            journal: Arc::new(self.clone()),
            member_mac: MemberMac::Trunk,
            queue: self.queue.clone(),
            tasks,
        };
        Pods::new(parts, records)
    }

    /// The daemon of before is dead: what was not on the disk is lost, the kernel stays.
    pub(crate) fn crash(&self) {
        let mut state = self.state();
        let State { noted, used, free, disk, left, .. } = &mut *state;
        noted.clear();
        free.extend(used.values());
        *used = disk.iter().map(|(key, record)| (key.clone(), address(record))).collect();
        free.retain(|ip| used.values().all(|used| used != ip));
        *left = None;
    }

    /// The effect waits until [`go_on`](Self::go_on).
    pub(crate) fn hold(&self, effect: &'static str) {
        self.state().holds.insert(effect, Arc::new(Semaphore::new(0)));
    }

    pub(crate) fn go_on(&self, effect: &'static str) {
        if let Some(held) = self.state().holds.remove(effect) {
            held.close();
        }
    }

    /// Lets what can run run, until `done`.
    pub(crate) async fn until(&self, done: impl Fn(&State) -> bool) {
        for _ in 0..10_000 {
            if done(&self.state()) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it does not come to that: {:#?}", self.state());
    }

    /// Waits in real time, for what the kernel has to tell us.
    pub(crate) async fn come_to(&self, done: impl Fn(&State) -> bool) {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..10_000 {
            if done(&self.state()) {
                return;
            }
            tick.tick().await;
        }
        panic!("it does not come to that: {:#?}", self.state());
    }

    /// Until the effect was begun `count` times.
    pub(crate) async fn begun(&self, effect: &str, count: usize) {
        self.until(|state| {
            state.log.iter().filter(|line| line.starts_with(effect)).count() == count
        })
        .await;
    }

    /// Kernel, disk, pool and memory say the same; every address is used once.
    pub(crate) fn agree(&self, pods: &Pods) {
        let mut state = self.state();
        state.flush();
        let known: BTreeMap<_, _> =
            pods.list().into_iter().map(|record| (record.pod.spec.key.clone(), record)).collect();
        assert!(known.values().all(|record| record.phase == Phase::Up), "{known:#?}");
        assert_eq!(known, state.disk, "memory and disk");
        let kernel: BTreeMap<_, _> =
            known.iter().map(|(key, record)| (key.clone(), record.pod.clone())).collect();
        assert_eq!(kernel, state.kernel, "memory and kernel");
        let used: BTreeMap<_, _> =
            known.iter().map(|(key, record)| (key.clone(), address(record))).collect();
        assert_eq!(used, state.used, "memory and pool");
        let distinct: BTreeSet<_> = used.values().collect();
        assert_eq!(distinct.len(), used.len(), "two pods with one address");
        assert!(used.values().all(|ip| !state.free.contains(ip)), "used and free");
        assert_eq!(state.used.len() + state.free.len(), 9, "an address is lost");
    }

    /// What was noted is on the disk.
    pub(crate) fn flush(&self) {
        self.state().flush();
    }

    async fn step(&self, effect: &'static str, what: impl std::fmt::Display + Send) -> Step {
        let (held, last) = {
            let mut state = self.state();
            let last = match &mut state.left {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            if !last {
                state.log.push(format!("{effect} {what}"));
            }
            (state.holds.get(effect).cloned(), last)
        };
        if last {
            pending::<()>().await;
        }
        if let Some(held) = held {
            // Closed when it goes on.
            drop(held.acquire().await);
        }
        let panicking = self.state().panicking;
        assert_ne!(panicking, Some(effect), "on purpose");
        if self.state().failing.contains(effect) { Step::Fails } else { Step::Works }
    }
}

#[derive(PartialEq)]
enum Step {
    Works,
    Fails,
}

impl State {
    fn flush(&mut self) {
        for change in std::mem::take(&mut self.noted) {
            match change {
                Change::PutSandbox(record) => {
                    self.disk.insert(record.pod.spec.key.clone(), *record);
                }
                Change::RemoveSandbox(key) => {
                    self.disk.remove(&key);
                }
                other => panic!("pods do not write {other:?}"),
            }
        }
    }
}

impl Addresses for World {
    fn want(&self, _annotations: &BTreeMap<String, String>) -> Result<Want, AllocError> {
        Ok(Want::Shared)
    }

    fn allocate(
        &self,
        request: Request,
        _wait: Duration,
    ) -> BoxFuture<'_, Result<Allocation, AllocError>> {
        async move {
            if self.step("allocate", &request.key).await == Step::Fails {
                return Err(no_address());
            }
            let mut state = self.state();
            let ip = match state.used.get(&request.key) {
                Some(ip) => *ip,
                None => state.free.pop_first().unwrap(),
            };
            state.used.insert(request.key, ip);
            Ok(allocation(ip))
        }
        .boxed()
    }

    fn confirm<'a>(
        &'a self,
        key: &'a SandboxKey,
        _wait: Duration,
    ) -> BoxFuture<'a, Result<(), AllocError>> {
        async move {
            match self.step("confirm", key).await {
                Step::Works => Ok(()),
                Step::Fails => Err(no_address()),
            }
        }
        .boxed()
    }

    fn cut_off(&self, _key: &SandboxKey) -> Option<String> {
        None
    }

    fn release<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), AllocError>> {
        async move {
            if self.step("release", key).await == Step::Fails {
                return Err(no_address());
            }
            let mut state = self.state();
            state.flush();
            state.disk.remove(key);
            if let Some(ip) = state.used.remove(key) {
                assert!(state.free.insert(ip));
                *state.released.entry(ip).or_default() += 1;
            }
            Ok(())
        }
        .boxed()
    }

    fn link_gone(&self, eni: &EniId) {
        self.state().unplugged.push(eni.clone());
    }

    fn carrier(&self, _eni: &EniId) -> Option<Carrier> {
        Some(Carrier { name: "eth1".to_owned(), mac: Mac::new([2; 6]), mtu: 1500 })
    }
}

impl Network for World {
    fn plan<'a>(&'a self, spec: &'a PodSpec) -> BoxFuture<'a, Result<PodLink, DatapathError>> {
        async move {
            match self.step("plan", &spec.key).await {
                Step::Works if self.state().no_link => {
                    let (key, eni) = (spec.key.clone(), spec.eni.clone());
                    Err(DatapathError::UnknownEni { key, eni })
                }
                Step::Works => Ok(link(&spec.key)),
                Step::Fails => Err(refused()),
            }
        }
        .boxed()
    }

    fn add(&self, pod: Pod) -> BoxFuture<'_, Result<PodLink, DatapathError>> {
        async move {
            if self.step("kernel.add", &pod.spec.key).await == Step::Fails {
                return Err(refused());
            }
            let link = pod.link.clone();
            self.state().kernel.insert(pod.spec.key.clone(), pod);
            Ok(link)
        }
        .boxed()
    }

    fn del<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<(), DatapathError>> {
        async move {
            if self.step("kernel.del", &pod.spec.key).await == Step::Fails {
                return Err(refused());
            }
            self.state().kernel.remove(&pod.spec.key);
            Ok(())
        }
        .boxed()
    }

    fn check<'a>(
        &'a self,
        key: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<Vec<String>, DatapathError>> {
        let stands = self.state().kernel.contains_key(key);
        let lost = (!stands).then(|| format!("no link of {key}"));
        async move { Ok(lost.into_iter().collect()) }.boxed()
    }

    fn restore(&self, pods: Vec<Pod>) -> BoxFuture<'_, Result<(), DatapathError>> {
        let keys: Vec<_> = pods.iter().map(|pod| pod.spec.key.container_id.clone()).collect();
        async move {
            self.step("restore", keys.join(",")).await;
            Ok(())
        }
        .boxed()
    }

    fn namespace(&self, path: &Path) -> Namespace {
        match path.to_str() {
            Some("/proc/self/ns/net") => Namespace::Own,
            Some("/etc/passwd") => Namespace::Other,
            _ if self.state().namespaces.contains(path) => Namespace::Present,
            _ => Namespace::Absent,
        }
    }

    fn stands(&self, link: &PodLink) -> bool {
        self.state().kernel.values().any(|pod| pod.link == *link)
    }
}

impl Journal for World {
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), CheckpointError>> {
        async move {
            if self.step("write", names(&changes)).await == Step::Fails {
                return Err(no_disk());
            }
            let mut state = self.state();
            state.noted.extend(changes);
            state.flush();
            Ok(())
        }
        .boxed()
    }

    fn note(&self, changes: Vec<Change>) {
        let mut state = self.state();
        if state.left != Some(0) {
            state.log.push(format!("note {}", names(&changes)));
            state.noted.extend(changes);
        }
    }
}

fn names(changes: &[Change]) -> String {
    let names = changes.iter().map(|change| match change {
        Change::PutSandbox(record) => format!("{:?} {}", record.phase, record.pod.spec.key),
        other => panic!("pods do not write {other:?}"),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn address(record: &SandboxRecord) -> Ipv4Addr {
    record.allocation.addresses.v4().unwrap()
}

fn allocation(ip: Ipv4Addr) -> Allocation {
    Allocation {
        mode: Mode::Shared,
        addresses: IpPair::V4(ip),
        eni: EniId::new("eni-1"),
        parent: EniId::new("eni-1"),
        vlan: None,
        mac: Mac::new([2; 6]),
        security_groups: Vec::new(),
        pod_networking: None,
    }
}

fn link(key: &SandboxKey) -> PodLink {
    let index = LinkIndex::try_from(100).unwrap();
    PodLink {
        host: format!("cali{}", key.container_id).parse().unwrap(),
        host_index: index,
        host_mac: Mac::new([4; 6]),
        pod_index: index,
        pod_mac: Mac::new([6; 6]),
        mtu: 1500,
    }
}

fn refused() -> DatapathError {
    let source = io::Error::from_raw_os_error(16);
    DatapathError::Refused { what: "link add".to_owned(), source }
}

fn no_address() -> AllocError {
    AllocError::Stopping
}

fn no_disk() -> CheckpointError {
    CheckpointError::Closed
}

/// Path of the namespace of container `id`.
pub(crate) fn netns(id: &str) -> PathBuf {
    PathBuf::from(format!("/run/netns/{id}"))
}

/// Container `id` of the network `terway`.
pub(crate) fn key(id: &str) -> SandboxKey {
    SandboxKey {
        network: "terway".to_owned(),
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

/// An ADD of container `id`, which is a sandbox of the one pod there is.
pub(crate) fn add(id: &str) -> Add {
    let pod = PodRef { namespace: "default".to_owned(), name: "web-0".to_owned(), uid: None };
    Add {
        key: key(id),
        pod: Some(pod),
        netns: netns(id),
        ifname: "eth0".parse().unwrap(),
        annotations: BTreeMap::new(),
        mtu: None,
        mac: None,
    }
}

/// A minute from now.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}
