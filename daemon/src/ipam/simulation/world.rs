//! A node around the state machine, and its time: a cloud, a disk, a kernel, callers. Everything
//! that is under way has its moment, and the world goes from moment to moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use controlplane::Random;
use controlplane::simulation::Simulation;
use model::{EniId, SandboxKey};

use super::callers::{Caller, Question};
use super::disk::{Awaited, Disk};
use super::hands::Flight;
use super::laws::{Broken, Law};
use super::schedule::START;
use super::setup::Setup;
use super::trace::Trace;
use super::whole::Memory;
use crate::ipam::event::{Event, Outcome, Ticket};
use crate::ipam::state::State;

/// More than this at one moment is work without end.
const ROUNDS: u32 = 5_000;
/// A daemon that stops is killed when it is not done by then.
const STOP_AT_MOST: Duration = Duration::from_mins(2);

/// A node.
#[derive(Debug)]
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) cloud: Simulation,
    /// The daemon, while it runs.
    pub(super) state: Option<State>,
    pub(super) disk: Disk,
    pub(super) callers: BTreeMap<SandboxKey, Caller>,
    pub(super) questions: BTreeMap<Ticket, Question>,
    pub(super) flights: Vec<Flight>,
    /// The world's time; the node's clock begins with its boot.
    pub(super) now: Duration,
    boot: Duration,
    boots: u32,
    starts: u64,
    seed: u64,
    pub(super) random: Random,
    /// When a daemon that does not run is started.
    up_at: Duration,
    /// Since when the daemon stops, and for how long it is to be down.
    stopping: Option<(Duration, Duration)>,
    pub(super) disk_full_until: Duration,
    pub(super) throttled_until: Duration,
    pub(super) silent_until: Duration,
    /// Links that the kernel has.
    pub(super) linked: BTreeSet<EniId>,
    /// Links that do not come.
    pub(super) unplugged: BTreeSet<EniId>,
    /// Links that are gone, and when the daemon hears of it.
    pub(super) gone: Vec<(Duration, EniId)>,
    /// When an address was released last.
    pub(super) rested: BTreeMap<IpAddr, Duration>,
    /// ENIs that a user detached or deleted, addresses that one took, and all else they did.
    pub(super) touched: BTreeSet<EniId>,
    pub(super) taken: BTreeSet<IpAddr>,
    pub(super) planted: BTreeSet<IpAddr>,
    pub(super) foreign: BTreeSet<EniId>,
    /// How often in a row the cloud has not listed an ENI, as far as the daemon was told.
    pub(super) misses: BTreeMap<EniId, u32>,
    /// What the laws remember of moves that only some schedules have.
    pub(super) memory: Memory,
    pub(super) tickets: Ticket,
    pub(super) steps: u64,
    pub(super) trace: Trace,
    pub(super) broken: Option<Broken>,
    rounds: (Duration, u32),
}

impl World {
    pub(super) fn new(setup: Setup, seed: u64, trace: Trace) -> Self {
        let vswitches: Vec<(&str, u64)> =
            setup.vswitches.iter().map(|(id, free)| (id.as_str(), *free)).collect();
        let mut cloud = Simulation::new(seed, setup.limits.clone(), &vswitches);
        (cloud.faults, cloud.lag, cloud.delay) = (setup.faults, setup.lag, setup.delay);
        cloud.advance(START);
        let mut world = Self {
            cloud,
            state: None,
            disk: Disk::default(),
            callers: BTreeMap::new(),
            questions: BTreeMap::new(),
            flights: Vec::new(),
            now: START,
            boot: Duration::ZERO,
            boots: 1,
            starts: 0,
            seed,
            random: Random::new(seed),
            up_at: START,
            stopping: None,
            disk_full_until: Duration::ZERO,
            throttled_until: Duration::ZERO,
            silent_until: Duration::ZERO,
            linked: BTreeSet::new(),
            unplugged: BTreeSet::new(),
            gone: Vec::new(),
            rested: BTreeMap::new(),
            touched: BTreeSet::new(),
            taken: BTreeSet::new(),
            planted: BTreeSet::new(),
            foreign: BTreeSet::new(),
            misses: BTreeMap::new(),
            memory: Memory::default(),
            tickets: 0,
            steps: 0,
            trace,
            broken: None,
            rounds: (START, 0),
            setup,
        };
        world.start();
        world
    }

    /// The node's clock.
    pub(super) fn clock(&self) -> Duration {
        self.now.saturating_sub(self.boot)
    }

    pub(super) const fn works(&self) -> bool {
        self.broken.is_none()
    }

    /// Whether a daemon runs that is not about to end.
    pub(super) const fn is_up(&self) -> bool {
        self.state.is_some() && self.stopping.is_none()
    }

    pub(super) fn disk_works(&self) -> bool {
        self.now >= self.disk_full_until
    }

    pub(super) fn breach(&mut self, law: Law, what: impl Into<String>) {
        let what = what.into();
        if self.broken.is_none() {
            self.trace.line(self.now, || format!("BROKEN: {}: {what}", law.sentence()));
            self.broken = Some(Broken { law, what, at: self.now });
        }
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.line(self.now, || format!("    {}", line()));
    }

    /// One step of the daemon.
    pub(super) fn step(&mut self, event: Event) {
        let now = self.clock();
        self.remember_frozen();
        let Some(state) = &mut self.state else { return };
        self.steps += 1;
        let stepped = catch_unwind(AssertUnwindSafe(|| state.step(event, now)));
        let Ok(out) = stepped else {
            self.breach(Law::Panic, "the step panicked; its message is on stderr");
            return;
        };
        let Outcome { answers, confirmations, writes, notes, effects, disagreements: _ } = out;
        for (ticket, answer) in answers {
            self.answered(ticket, answer);
        }
        for (ticket, answer) in confirmations {
            self.confirmed(ticket, &answer);
        }
        if !notes.is_empty() {
            self.disk.note(notes, self.now);
        }
        if writes.is_empty() {
            self.begin(effects, now);
        } else {
            let takes = Duration::from_micros(self.random.next() % 20_000);
            self.disk.write(writes, Awaited::Effects(effects, now), takes, self.now);
        }
        self.uphold();
    }

    /// The daemon starts on what the disk has.
    fn start(&mut self) {
        self.starts += 1;
        let seed = self.seed.wrapping_add(self.starts.wrapping_mul(0x1234_5678_9abc));
        let boot_id = format!("boot-{}", self.boots);
        let contents = self.disk.contents.clone();
        let state = State::new(&self.setup.options, &contents, boot_id, seed, self.clock());
        self.state = Some(state);
        self.step(Event::Tick);
    }

    /// The process ends at once, and another one comes after `pause`.
    pub(super) fn kill(&mut self, pause: Duration) {
        if self.state.take().is_none() {
            return;
        }
        self.stopping = None;
        self.up_at = self.now + pause;
        self.abandon_flights();
        let works = self.disk_works();
        self.disk.cut(self.random.next(), works);
        self.lose_process();
    }

    /// What only the process knew.
    fn lose_process(&mut self) {
        self.linked.clear();
        self.gone.clear();
        self.misses.clear();
        self.memory.degraded_at = Duration::ZERO;
        self.memory.excluded.clear();
        self.memory.sightings.clear();
        self.questions.clear();
        self.recall_callers();
    }

    /// The daemon is told to stop, and ends when nothing is in flight.
    pub(super) fn stop(&mut self, pause: Duration) {
        if self.is_up() {
            self.step(Event::Stop);
            self.stopping = Some((self.now, pause));
            self.stop_ends();
        }
    }

    fn stop_ends(&mut self) {
        let Some((since, pause)) = self.stopping else { return };
        let done = self.flights.is_empty() && !self.disk.is_awaited();
        if done {
            self.say(|| "the daemon has ended".to_owned());
            self.state = None;
            self.stopping = None;
            self.up_at = self.now + pause;
            let works = self.disk_works();
            self.disk.close(works);
            self.lose_process();
        } else if self.now >= since + STOP_AT_MOST {
            self.kill(pause);
        }
    }

    /// The machine boots: its clock begins anew.
    pub(super) fn reboot(&mut self) {
        self.kill(Duration::from_secs(20));
        self.up_at = self.up_at.max(self.now + Duration::from_secs(20));
        (self.boot, self.boots) = (self.now, self.boots + 1);
    }

    /// When the daemon is to be woken.
    fn wake(&self) -> Option<Duration> {
        let wake = self.state.as_ref()?.wake(self.clock())?;
        Some(wake.saturating_add(self.boot))
    }

    /// When something happens next, by itself.
    fn next(&self) -> Option<Duration> {
        let flights = self.flights.iter().map(|flight| flight.due).min();
        let gone = self.gone.iter().map(|(at, _)| *at).min();
        let up = self.state.is_none().then_some(self.up_at);
        let stop = self.stopping.map(|(since, _)| since + STOP_AT_MOST);
        let disk = self.disk.wake();
        [self.wake(), flights, gone, up, stop, disk, self.cloud.wake()].into_iter().flatten().min()
    }

    /// Goes on until `end`, from moment to moment.
    pub(super) fn run_to(&mut self, end: Duration) {
        while self.works() {
            let Some(next) = self.next().filter(|at| *at < end) else { break };
            // Asked before the time goes on, as the daemon's own timer is set.
            let wake = self.wake();
            self.now = next.max(self.now);
            self.moment(wake);
            self.count_rounds();
        }
        self.now = end.max(self.now);
        self.cloud.advance(self.now);
        self.watch_links();
    }

    /// Time goes by and nobody does anything.
    pub(super) fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// All that is due now, each once.
    fn moment(&mut self, wake: Option<Duration>) {
        self.cloud.advance(self.now);
        self.watch_links();
        if self.state.is_none() && self.up_at <= self.now {
            self.say(|| "a daemon starts".to_owned());
            self.start();
        }
        let due = |at: &Duration| *at <= self.now;
        let told_first = self.is_link_told();
        if let Some(index) = self.gone.iter().position(|(at, _)| due(at) && !told_first) {
            let (_, eni) = self.gone.swap_remove(index);
            self.step(Event::LinkGone(eni));
        }
        if self.disk.wake().is_some_and(|at| at <= self.now) {
            let works = self.disk_works();
            if let Some((awaited, written)) = self.disk.end(works, self.now) {
                self.written(awaited, written);
            }
        }
        self.land();
        if wake.is_some_and(|at| at <= self.now) {
            self.step(Event::Tick);
        }
        self.stop_ends();
    }

    fn count_rounds(&mut self) {
        self.rounds =
            if self.rounds.0 == self.now { (self.now, self.rounds.1 + 1) } else { (self.now, 0) };
        if self.rounds.1 > ROUNDS {
            self.breach(Law::Endless, format!("{ROUNDS} rounds at one moment"));
        }
    }

    fn written(&mut self, awaited: Awaited, written: bool) {
        match awaited {
            Awaited::Effects(effects, begun) if written => self.begin(effects, begun),
            Awaited::Effects(effects, begun) => {
                self.say(|| "the disk is full: what depended on it is not done".to_owned());
                self.releases_failed(&effects);
                let error = "no space left on device".to_owned();
                self.step(Event::Unwritten { begun, effects, error });
            }
            Awaited::Record(key, ticket) => self.recorded(&key, ticket, written),
        }
    }
}
