//! One seed from its first draw to the last law.

use std::time::Duration;

use controlplane::Random;
use ipnetwork::IpNetwork;
use model::{EniId, InstanceId, VSwitchId};

use super::laws::Broken;
use super::schedule::{Entry, Move, generate};
use super::setup::{INSTANCE, Setup};
use super::trace::Trace;
use super::whole::{WHOLE, mix_in};
use super::world::World;

/// What came of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Moves that were made.
    pub moves: usize,
    /// Steps of the state machine.
    pub steps: u64,
    /// The first law that was broken.
    pub broken: Option<Broken>,
    /// What happened, if it was asked for.
    pub lines: Vec<String>,
}

/// Plays the schedule of a seed.
pub fn play(seed: u64) -> Played {
    let (setup, entries) = plan(seed);
    perform(seed, setup, &entries, Trace::default())
}

/// The same, with all that happens in lines.
pub fn replay(seed: u64) -> Played {
    let (setup, entries) = plan(seed);
    perform(seed, setup, &entries, Trace::kept())
}

/// Everything that a seed decides.
pub(super) fn plan(seed: u64) -> (Setup, Vec<Entry>) {
    // Neighbouring seeds are to have nothing in common.
    let mut random = Random::new(Random::new(seed).next());
    let whole = seed >= WHOLE;
    let setup = Setup::new(&mut random, whole);
    let mut entries = generate(&mut random);
    if whole {
        mix_in(&mut random, &mut entries);
    }
    (setup, entries)
}

pub(super) fn perform(seed: u64, setup: Setup, entries: &[Entry], mut trace: Trace) -> Played {
    trace.line(Duration::ZERO, || {
        format!(
            "seed {seed}: {} ENIs of {} addresses, {} members, vSwitches {:?}, lag {:?}, {:?}, {:?}\n  {}",
            setup.limits.enis - 1,
            setup.limits.addresses,
            setup.limits.members,
            setup.vswitches,
            setup.lag,
            setup.faults,
            setup.latency,
            setup.conf
        )
    });
    let mut world = World::new(setup, seed, trace);
    for entry in entries {
        world.run_to(entry.at);
        if !world.works() {
            break;
        }
        world.make(entry);
    }
    if world.works() {
        world.come_to_rest();
    }
    let (steps, broken) = (world.steps, world.broken.take());
    Played { moves: entries.len(), steps, broken, lines: world.trace.into_lines() }
}

impl World {
    fn make(&mut self, entry: &Entry) {
        self.random = Random::new(entry.seed);
        let seed = self.random.next();
        self.cloud.reseed(seed);
        self.trace.line(self.now, || entry.what.to_string());
        match &entry.what {
            Move::Add { pod, member, wait } => self.add(*pod, *member, *wait),
            Move::Acknowledge(pod) => self.acknowledge(*pod),
            Move::Del(pod) => self.del(*pod),
            Move::Cancel(pod) => self.cancel(*pod),
            Move::Confirm(pod, wait) => self.confirm(*pod, *wait),
            Move::Unplug(n) => {
                if let Some(id) = nth(&self.linked, *n) {
                    self.unplugged.insert(id.clone());
                    self.lose_link(id);
                }
            }
            Move::Plug => self.unplugged.clear(),
            Move::Kill(pause) => self.kill(*pause),
            Move::Restart(pause) => self.stop(*pause),
            Move::Reboot => self.reboot(),
            Move::Suspend(time) => self.sleep(*time),
            Move::DiskFull(time) => self.disk_full_until = self.now + *time,
            Move::Throttle(time) => self.throttled_until = self.now + *time,
            Move::Silence(time) => self.silent_until = self.now + *time,
            Move::Empty(n) => {
                if let Some(vswitch) = nth(self.cloud.vswitches.keys(), *n)
                    .and_then(|id: VSwitchId| self.cloud.vswitches.get_mut(&id))
                {
                    vswitch.available = 0;
                }
            }
            Move::Fill(n) => {
                if let Some(id) = nth(self.cloud.vswitches.keys(), *n) {
                    self.fill(&id);
                }
            }
            Move::Extra(extra) => self.make_extra(extra),
            what => self.make_user(what),
        }
        self.watch_links();
    }

    fn make_user(&mut self, what: &Move) {
        let ours: Vec<EniId> =
            self.cloud.enis.keys().filter(|id| !self.foreign.contains(*id)).cloned().collect();
        match what {
            Move::UserAttaches => {
                let made = self.cloud.user_attaches(&InstanceId::new(INSTANCE));
                self.foreign.extend(made);
            }
            Move::UserAssigns(n) => {
                let Some(id) = nth(&ours, *n) else { return };
                let Some(planted) = self.cloud.user_assigns(&id) else { return };
                self.planted.insert(planted);
                self.expect_sightings(&id, IpNetwork::from(planted));
            }
            Move::UserTakes(n, address) => {
                let taken = nth(&ours, *n).and_then(|id| self.cloud.user_takes(&id, *address));
                self.taken.extend(taken);
            }
            Move::UserDetaches(n) => {
                let detached = nth(&ours, *n).filter(|id| self.cloud.user_detaches(id));
                self.touched.extend(detached);
            }
            Move::UserDeletes(n) => {
                let deleted = nth(&ours, *n).filter(|id| self.cloud.user_deletes(id));
                self.touched.extend(deleted);
            }
            _ => {}
        }
    }
}

/// The `n`th of them, counted round and round.
pub(super) fn nth<'a, T: Clone + 'a>(
    from: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    n: usize,
) -> Option<T> {
    let from = from.into_iter();
    let index = n.checked_rem(from.len())?;
    from.into_iter().nth(index).cloned()
}
