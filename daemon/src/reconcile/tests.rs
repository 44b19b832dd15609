use std::collections::VecDeque;

use model::EniId;
use tokio::task::JoinHandle;

use super::*;
use crate::pods::tests::world::{World, add, key, netns, soon};

#[derive(Debug)]
struct Kernel {
    changes: watch::Sender<Changes>,
    repairs: Mutex<VecDeque<Result<Repairs, DatapathError>>>,
    times: watch::Sender<Vec<Instant>>,
}

impl Mend for Kernel {
    fn repair(&self) -> BoxFuture<'_, Result<Repairs, DatapathError>> {
        self.times.send_modify(|times| times.push(Instant::now()));
        let next = self.repairs.lock().unwrap().pop_front();
        async move { next.unwrap_or(Ok(Repairs::default())) }.boxed()
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }
}

struct Running {
    kernel: Arc<Kernel>,
    world: World,
    pods: Arc<Pods>,
    verdict: Verdict,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Stopped>>,
    start: Instant,
    _queue: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let queue = tempfile::tempdir().unwrap();
        let world = World::new(queue.path());
        let pods = world.start();
        let kernel = Arc::new(Kernel {
            changes: watch::Sender::new(Changes::default()),
            repairs: Mutex::default(),
            times: watch::Sender::new(Vec::new()),
        });
        let verdict = Verdict::default();
        let mend = Arc::<Kernel>::clone(&kernel);
        let reconciler = Reconciler::new(mend, Arc::clone(&pods), verdict.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(reconciler.run(stop.clone()));
        let start = Instant::now();
        Self { kernel, world, pods, verdict, stop, task, start, _queue: queue }
    }

    fn change(&self, last: &str) {
        self.kernel.changes.send_modify(|changes| {
            changes.count += 1;
            last.clone_into(&mut changes.last);
        });
    }

    fn fail(&self, times: usize) {
        let failed = || Err(DatapathError::Stopped);
        self.kernel.repairs.lock().unwrap().extend(std::iter::repeat_with(failed).take(times));
    }

    /// Waits for so many repairs; when they were, after the start.
    async fn repairs(&self, count: usize) -> Vec<Duration> {
        let mut times = self.kernel.times.subscribe();
        let times = times.wait_for(|times| times.len() >= count).await.unwrap();
        times.iter().map(|time| time.duration_since(self.start)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_one_repair_and_does_not_put_the_timer_off() {
    let running = Running::start();
    tokio::task::yield_now().await;
    for change in ["a rule is gone", "a route is gone"] {
        running.change(change);
    }
    assert_eq!(running.repairs(2).await, [DUST, PERIOD]);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_changes_back_does_not_make_us_spin() {
    let running = Running::start();
    for round in 0..3 {
        tokio::task::yield_now().await;
        running.change("a rule is gone");
        running.repairs(round + 1).await;
    }
    assert_eq!(running.repairs(3).await, [DUST, DUST + PAUSE, DUST + PAUSE * 2]);
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_fails_is_tried_again_soon_and_is_bad_news_after_some() {
    let running = Running::start();
    running.fail(3);
    let first = PERIOD;
    assert_eq!(running.repairs(2).await, [first, first + RETRY]);
    assert_eq!(running.verdict.lost(), None);
    running.repairs(3).await;
    tokio::task::yield_now().await;
    assert_eq!(running.verdict.lost(), Some(DatapathError::Stopped.to_string()));
    running.repairs(4).await;
    tokio::task::yield_now().await;
    assert_eq!(running.verdict.lost(), None);
}

#[tokio::test(start_paused = true)]
async fn the_timer_collects_the_dead_and_finishes_dels() {
    let running = Running::start();
    for id in ["a", "b"] {
        running.pods.add(add(id), soon()).await.unwrap();
    }
    running.world.state().namespaces.remove(&netns("a"));
    running.world.state().kernel.remove(&key("a"));
    running.world.state().failing.insert("kernel.del");
    running.pods.del(key("b")).await.unwrap();
    running.world.state().failing.clear();
    running.repairs(1).await;
    assert!(running.pods.list().is_empty());
    running.world.agree(&running.pods);
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_told_of_a_link_that_is_gone() {
    let running = Running::start();
    let unplugged = vec![EniId::new("eni-7")];
    let repairs = Repairs { unplugged, ..Repairs::default() };
    running.kernel.repairs.lock().unwrap().push_back(Ok(repairs));
    running.repairs(1).await;
    tokio::task::yield_now().await;
    assert_eq!(running.world.state().unplugged, [EniId::new("eni-7")]);
}

#[tokio::test(start_paused = true)]
async fn links_under_new_numbers_are_written_down() {
    let running = Running::start();
    let mut link = running.pods.add(add("a"), soon()).await.unwrap().record.pod.link;
    link.host = "calinew".parse().unwrap();
    let moved = vec![(key("a"), link.clone())];
    let repairs = Repairs { moved, ..Repairs::default() };
    running.kernel.repairs.lock().unwrap().push_back(Ok(repairs));
    running.repairs(1).await;
    tokio::task::yield_now().await;
    running.world.flush();
    assert_eq!(running.world.state().disk[&key("a")].pod.link, link);
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_told_also_while_the_dust_settles() {
    let running = Running::start();
    tokio::task::yield_now().await;
    running.change("a rule is gone");
    tokio::task::yield_now().await;
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    assert!(running.kernel.times.borrow().is_empty());
}
