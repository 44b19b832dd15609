//! The task around the state: real time, a real checkpoint, a cloud in memory.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud::{
    AssignAddresses, AssignPrefixes, AttachEni, CallOptions, CloudError, CreateEni, DetachEni, Ecs,
    Eni, EniFilter,
};
use controlplane::PodNetworking;
use controlplane::simulation::{Simulation, Write, Written};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{
    EniId, InstanceType, InstanceTypeId, IpPair, LinkIndex, Mac, Mode, VSwitch, VSwitchId,
};
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::world::{LIMITS, key, options};
use crate::checkpoint::{Change, Checkpoint, Contents};
use crate::datapath::{DatapathError, EniLink, EniSpec};
use crate::ipam::clock::boot_time;
use crate::ipam::driver::Message;
use crate::ipam::state::State;
use crate::ipam::{AllocError, Allocation, Ipam, Links, Request, Want};

const LONG: Duration = Duration::from_secs(30);

/// A cloud that lives in real time, and can be made to hold its answers back.
#[derive(Clone)]
struct Cloud {
    simulation: Arc<Mutex<Simulation>>,
    held: Arc<Mutex<Option<Arc<Notify>>>>,
}

impl Cloud {
    fn new() -> Self {
        let mut simulation = Simulation::new(1, LIMITS, &[("vsw-a", 100), ("vsw-b", 100)]);
        simulation.delay = Duration::from_millis(20);
        Self { simulation: Arc::new(Mutex::new(simulation)), held: Arc::default() }
    }

    fn look<T>(&self, look: impl FnOnce(&mut Simulation) -> T) -> T {
        let mut simulation = self.simulation.lock().unwrap();
        simulation.advance(boot_time());
        look(&mut simulation)
    }

    async fn change(&self, write: Write) -> Result<Written, CloudError> {
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        self.look(|simulation| simulation.change(write))
    }
}

impl Ecs for Cloud {
    async fn create_eni(&self, request: &CreateEni, _: CallOptions) -> Result<Eni, CloudError> {
        match self.change(Write::Create(request.clone())).await? {
            Written::Eni(eni) => Ok(*eni),
            other => panic!("{other:?}"),
        }
    }

    async fn describe_enis(
        &self,
        filter: &EniFilter,
        _: CallOptions,
    ) -> Result<Vec<Eni>, CloudError> {
        self.look(|simulation| simulation.describe(filter))
    }

    async fn attach_eni(&self, request: &AttachEni, _: CallOptions) -> Result<(), CloudError> {
        self.change(Write::Attach(request.clone())).await.map(drop)
    }

    async fn detach_eni(&self, request: &DetachEni, _: CallOptions) -> Result<(), CloudError> {
        self.change(Write::Detach(request.clone())).await.map(drop)
    }

    async fn delete_eni(&self, eni: &EniId, _: CallOptions) -> Result<(), CloudError> {
        self.change(Write::Delete(eni.clone())).await.map(drop)
    }

    async fn assign_v4(
        &self,
        request: &AssignAddresses<Ipv4Addr>,
        _: CallOptions,
    ) -> Result<Vec<Ipv4Addr>, CloudError> {
        match self.change(Write::AssignV4(request.clone())).await? {
            Written::V4(all) => Ok(all),
            other => panic!("{other:?}"),
        }
    }

    async fn unassign_v4(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        _: CallOptions,
    ) -> Result<(), CloudError> {
        self.change(Write::UnassignV4(eni.clone(), addresses.to_vec())).await.map(drop)
    }

    async fn assign_v6(
        &self,
        request: &AssignAddresses<Ipv6Addr>,
        _: CallOptions,
    ) -> Result<Vec<Ipv6Addr>, CloudError> {
        match self.change(Write::AssignV6(request.clone())).await? {
            Written::V6(all) => Ok(all),
            other => panic!("{other:?}"),
        }
    }

    async fn unassign_v6(
        &self,
        eni: &EniId,
        addresses: &[Ipv6Addr],
        _: CallOptions,
    ) -> Result<(), CloudError> {
        self.change(Write::UnassignV6(eni.clone(), addresses.to_vec())).await.map(drop)
    }

    async fn assign_v4_prefixes(
        &self,
        request: &AssignPrefixes,
        _: CallOptions,
    ) -> Result<Vec<Ipv4Network>, CloudError> {
        panic!("{request:?}")
    }

    async fn unassign_v4_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv4Network],
        _: CallOptions,
    ) -> Result<(), CloudError> {
        panic!("{eni} {prefixes:?}")
    }

    async fn assign_v6_prefixes(
        &self,
        request: &AssignPrefixes,
        _: CallOptions,
    ) -> Result<Vec<Ipv6Network>, CloudError> {
        panic!("{request:?}")
    }

    async fn unassign_v6_prefixes(
        &self,
        eni: &EniId,
        prefixes: &[Ipv6Network],
        _: CallOptions,
    ) -> Result<(), CloudError> {
        panic!("{eni} {prefixes:?}")
    }

    async fn instance_type(
        &self,
        _: &InstanceTypeId,
        _: CallOptions,
    ) -> Result<Option<InstanceType>, CloudError> {
        Ok(None)
    }

    async fn vswitch(&self, id: &VSwitchId, _: CallOptions) -> Result<Option<VSwitch>, CloudError> {
        Ok(self.look(|simulation| simulation.vswitches.get(id).cloned()))
    }
}

/// A kernel that says yes, and remembers.
#[derive(Default)]
struct Kernel {
    set: Mutex<Vec<EniId>>,
}

impl Links for Kernel {
    fn set_eni(&self, eni: EniSpec, _: Duration) -> BoxFuture<'_, Result<EniLink, DatapathError>> {
        self.set.lock().unwrap().push(eni.id);
        let index = LinkIndex::try_from(eni.mark.value() + 2).unwrap();
        let link = EniLink { index, name: "eth1".parse().unwrap(), mtu: 1500 };
        async move { Ok(link) }.boxed()
    }

    fn remove_eni(&self, id: EniId) -> BoxFuture<'_, Result<(), DatapathError>> {
        self.set.lock().unwrap().retain(|set| *set != id);
        async { Ok(()) }.boxed()
    }

    fn bury(&self, _: Vec<IpPair>) -> BoxFuture<'_, Result<(), DatapathError>> {
        async { Ok(()) }.boxed()
    }

    fn users(&self, _: Vec<IpAddr>) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>> {
        async { Ok(BTreeSet::new()) }.boxed()
    }

    fn eni_users(&self, _: EniId) -> BoxFuture<'_, Result<BTreeSet<IpAddr>, DatapathError>> {
        async { Ok(BTreeSet::new()) }.boxed()
    }
}

struct Node {
    state: TempDir,
    cloud: Cloud,
}

/// A daemon's part of it.
struct Daemon {
    ipam: Ipam,
    checkpoint: Checkpoint,
    contents: Contents,
    kernel: Arc<Kernel>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), cloud: Cloud::new() }
    }

    async fn start(&self, conf: &str) -> Daemon {
        let opened = Checkpoint::open(self.state.path(), LONG).await.unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let kernel = Arc::new(Kernel::default());
        let links = Arc::<Kernel>::clone(&kernel);
        let ipam = Ipam::start(
            options(conf),
            Arc::new(self.cloud.clone()),
            links,
            opened.checkpoint.clone(),
            &opened.contents,
            &tasks,
            stop.clone(),
        )
        .await;
        let (checkpoint, contents) = (opened.checkpoint, opened.contents);
        Daemon { ipam, checkpoint, contents, kernel, tasks, stop }
    }
}

impl Daemon {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(LONG, self.tasks.wait()).await.unwrap();
    }

    async fn until(&self, wanted: impl Fn(&crate::ipam::Snapshot) -> bool) {
        let looking = async {
            while !wanted(&self.ipam.snapshot().await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        let late = tokio::time::timeout(LONG, looking).await;
        assert!(late.is_ok(), "{:#?}", self.ipam.snapshot().await);
    }
}

fn request(n: u8) -> Request {
    Request { key: key(n), pod: None, want: Want::Shared }
}

#[tokio::test]
async fn an_address_comes_from_the_cloud_and_its_rest_is_on_the_disk() {
    let node = Node::new();
    let daemon = node.start(r#""ip_stack": "dual","#).await;
    let allocation = daemon.ipam.allocate(request(0), LONG).await.unwrap();
    assert!(allocation.addresses.v4().is_some() && allocation.addresses.v6().is_some());
    assert_eq!(daemon.kernel.set.lock().unwrap().as_slice(), std::slice::from_ref(&allocation.eni));
    // What `carrier` shows is there when the answer is.
    assert_eq!(daemon.ipam.standing().borrow().carriers[&allocation.eni].name, "eth1");

    let record = crate::ipam::simulation::record_of(&key(0), &allocation);
    daemon.checkpoint.write(vec![Change::PutSandbox(Box::new(record))]).await.unwrap();
    daemon.ipam.release(&key(0)).await.unwrap();
    daemon.ipam.release(&key(1)).await.unwrap();
    daemon.end().await;

    let daemon = node.start("").await;
    assert!(daemon.contents.sandboxes.is_empty());
    let rests: Vec<_> = daemon.contents.rests.iter().map(|rest| rest.address).collect();
    assert_eq!(rests, allocation.addresses.iter().collect::<Vec<_>>());
    assert_eq!(
        *daemon.kernel.set.lock().unwrap(),
        [allocation.eni],
        "the link was not set at start"
    );
    daemon.end().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_address_idle() {
    let node = Node::new();
    let daemon = node.start(r#""min_pool_size": 1, "max_pool_size": 1,"#).await;
    daemon.until(|shown| shown.pool.idle == 1).await;
    // Answered and never looked at.
    let mut asked = Box::pin(daemon.ipam.allocate(request(0), LONG));
    assert!(futures::poll!(&mut asked).is_pending());
    daemon.until(|shown| shown.pool.used == 1).await;
    drop(asked);
    daemon.until(|shown| shown.pool.used == 0 && shown.pool.idle == 1).await;
    assert_eq!(daemon.ipam.snapshot().await.unwrap().pool.resting, 0);
    daemon.end().await;
}

#[tokio::test]
async fn another_configuration_reaches_the_pool_and_who_waits_for_it() {
    let node = Node::new();
    let daemon = node.start("").await;
    let ipam = daemon.ipam.clone();
    let want = Want::Member { pod_networking: "new".to_owned() };
    let member = Request { key: key(1), pod: None, want };
    let refused = ipam.allocate(member.clone(), LONG).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no PodNetworking \"new\" (known: web)");
    let changed = options(r#""min_pool_size": 3, "max_pool_size": 4,"#);
    let web = changed.pod_networkings.get("web").unwrap().clone();
    let new = PodNetworking { name: "new".to_owned(), ..web };
    ipam.reconfigure(changed.config, [new].into_iter().collect());
    daemon.until(|shown| shown.pool.idle >= 3).await;
    // Without a trunk it is refused for another reason.
    let refused = ipam.allocate(member, LONG).await.unwrap_err().to_string();
    assert!(!refused.contains("there is no PodNetworking"), "{refused}");
    daemon.end().await;
}

#[tokio::test]
async fn the_stop_answers_who_waits_and_ends_when_what_is_in_flight_is_written() {
    let node = Node::new();
    let daemon = node.start("").await;
    let held = Arc::new(Notify::new());
    *node.cloud.held.lock().unwrap() = Some(Arc::clone(&held));
    let ipam = daemon.ipam.clone();
    let waiting = tokio::spawn(async move { ipam.allocate(request(0), LONG).await });
    daemon.until(|shown| shown.enis.enis.len() == 1).await;
    daemon.stop.cancel();
    assert_eq!(waiting.await.unwrap(), Err(AllocError::Stopping));
    // Releases go on, for work that is in hand.
    daemon.ipam.release(&key(0)).await.unwrap();
    daemon.tasks.close();
    assert!(!daemon.tasks.is_empty(), "a call in flight was abandoned");
    held.notify_one();
    tokio::time::timeout(LONG, daemon.tasks.wait()).await.unwrap();
    assert_eq!(daemon.ipam.allocate(request(1), LONG).await, Err(AllocError::Stopping));
    drop(daemon);

    // The next one finishes what was begun.
    *node.cloud.held.lock().unwrap() = None;
    let daemon = node.start(r#""min_pool_size": 1, "max_pool_size": 1,"#).await;
    daemon.until(|shown| shown.pool.idle == 1).await;
    assert_eq!(node.cloud.look(|simulation| simulation.enis.len()), 1);
    daemon.end().await;
}

#[tokio::test]
async fn fifty_at_once_get_fifty_answers() {
    let node = Node::new();
    let daemon = node.start("").await;
    let asked = (0..50).map(|n| {
        let ipam = daemon.ipam.clone();
        tokio::spawn(async move { ipam.allocate(request(n), LONG).await })
    });
    let mut given = BTreeSet::new();
    let mut refused = 0;
    for answer in asked.collect::<Vec<_>>() {
        match answer.await.unwrap() {
            Ok(allocation) => assert!(given.insert(allocation.addresses)),
            Err(AllocError::Full { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((given.len(), refused), (30, 20));
    daemon.end().await;
}

#[tokio::test]
async fn a_step_s_records_reach_the_journal_before_those_of_what_comes_after_it() {
    let node = Node::new();
    let opened = Checkpoint::open(node.state.path(), LONG).await.unwrap();
    let (checkpoint, contents, options) = (opened.checkpoint, opened.contents, options(""));
    let state = State::new(&options, &contents, "boot".to_owned(), 1, boot_time());
    let (cloud, links) = (Arc::new(node.cloud.clone()), Arc::new(Kernel::default()));
    let (ipam, mut driver, _restored) =
        Ipam::assemble(state, boot_time, &options, cloud, links, checkpoint.clone());
    let (reply, released) = oneshot::channel();
    driver.message(Message::Release { ticket: 1, key: key(0), reply });
    // The sandbox's next ADD, before any other task has run.
    let allocation = Allocation {
        mode: Mode::Shared,
        addresses: IpPair::V4(Ipv4Addr::new(10, 0, 0, 5)),
        eni: EniId::new("eni-1"),
        parent: EniId::new("eni-1"),
        vlan: None,
        mac: Mac::new([2; 6]),
        security_groups: Vec::new(),
        pod_networking: None,
    };
    let record = crate::ipam::simulation::record_of(&key(0), &allocation);
    checkpoint.write(vec![Change::PutSandbox(Box::new(record.clone()))]).await.unwrap();
    let running = tokio::spawn(driver.run(CancellationToken::new()));
    released.await.unwrap().unwrap();
    drop((ipam, checkpoint));
    tokio::time::timeout(LONG, running).await.unwrap().unwrap();

    let opened = Checkpoint::open(node.state.path(), LONG).await.unwrap();
    assert_eq!(opened.contents.sandboxes, [record], "the DEL took the record of the ADD after it");
}
