//! What must hold when nothing goes wrong any more and time has passed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use controlplane::TOKEN_TAG;
use controlplane::simulation::Faults;
use ipnetwork::IpNetwork;
use model::{EniId, VSwitchId};

use super::callers::{Caller, Record};
use super::laws::{Law, is_member};
use super::setup::Latency;
use super::world::World;
use crate::ipam::snapshot::Standing;

const MINUTE: Duration = Duration::from_mins(1);
/// The most calls until all is at rest.
const SETTLES_IN: u64 = 400;
/// The most calls of an idle node in an hour.
const IDLE: u64 = 4;

impl World {
    /// Faults stop, time passes, and the books are looked at.
    pub(super) fn come_to_rest(&mut self) {
        self.end_faults();
        let before = self.cloud.calls;
        self.run_to(self.now + MINUTE * 3);
        // What users did is seen by a look at the start, else within hours.
        self.stop(MINUTE / 60);
        self.run_to(self.now + MINUTE * 6);
        self.bury_the_dead();
        self.run_to(self.now + MINUTE * 5);
        if self.setup.fixed.is_some() {
            // What is in no record is seen twice with ten minutes between, and then goes.
            self.run_to(self.now + MINUTE * 30);
        }
        let calls = self.cloud.calls - before;
        if self.works() && calls > SETTLES_IN {
            self.breach(Law::Converges, format!("{calls} calls until all was at rest"));
        }
        self.look_around();
        let before = self.cloud.calls;
        self.run_to(self.now + MINUTE * 60);
        let calls = self.cloud.calls - before;
        if self.works() && calls > IDLE {
            self.breach(Law::Idle, format!("{calls} calls"));
        }
        self.look_around();
    }

    fn end_faults(&mut self) {
        self.say(|| "no faults from here on".to_owned());
        self.setup.faults = Faults::default();
        self.setup.kernel_fails = 0;
        self.setup.latency = Latency { most: 100, slow: 0, slow_most: 0 };
        self.disk_full_until = Duration::ZERO;
        self.throttled_until = Duration::ZERO;
        self.silent_until = Duration::ZERO;
        self.unplugged.clear();
        self.end_extras();
        let ids: Vec<VSwitchId> = self.cloud.vswitches.keys().cloned().collect();
        for id in &ids {
            self.fill(id);
        }
    }

    pub(super) fn fill(&mut self, id: &VSwitchId) {
        if let Some(vswitch) = self.cloud.vswitches.get_mut(id) {
            vswitch.available = vswitch.available.max(1000);
        }
    }

    /// Pods that were told that they are cut off are deleted, and those that were being deleted.
    fn bury_the_dead(&mut self) {
        let Some(state) = &self.state else {
            return self.breach(Law::Converges, "the daemon does not start");
        };
        let cut_off = Standing::of(state).cut_off;
        let dead = |(key, caller): &(&_, &Caller)| match caller {
            Caller::Dying { .. } | Caller::Releasing { .. } => true,
            Caller::Has { .. } => cut_off.contains_key(*key),
            Caller::Waiting { .. } => false,
        };
        let dead: Vec<_> = self.callers.iter().filter(dead).map(|(key, _)| key.clone()).collect();
        for key in dead {
            self.say(|| format!("DEL {}, which is dead", key.container_id));
            self.release(&key);
        }
        let unwritten: Vec<_> = self
            .callers
            .iter()
            .filter(|(_, caller)| matches!(caller, Caller::Has { record: Record::None, .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &unwritten {
            self.write_record(key);
        }
    }

    fn look_around(&mut self) {
        if !self.works() {
            return;
        }
        let waits = self.callers.iter().find(|(_, caller)| !matches!(caller, Caller::Has { .. }));
        if let Some((key, caller)) = waits {
            let what = format!("{key} is still {caller:?}");
            return self.breach(Law::Converges, what);
        }
        self.no_orphans();
        self.shelves_are_right();
        self.foreign_stay();
        self.targets();
    }

    /// Records and cloud agree, and members have pods.
    fn no_orphans(&mut self) {
        let disk = self.disk.whole();
        let records = disk.enis.iter().filter_map(|eni| eni.id());
        let members = disk.members.iter().filter_map(|eni| eni.id());
        let recorded: BTreeSet<EniId> = records.chain(members).cloned().collect();
        let ours = self.cloud.enis.values().filter(|eni| eni.tags.contains_key(TOKEN_TAG));
        let truth: BTreeSet<EniId> = ours.map(|eni| eni.id.clone()).collect();
        if recorded != truth {
            let what = format!("records {recorded:?}, cloud {truth:?}");
            self.breach(Law::Orphans, what);
        }
        let (recorded, made) = (disk.enis.len() + disk.members.len(), truth.len());
        if recorded != made {
            self.breach(Law::Orphans, format!("{recorded} records for {made} ENIs"));
        }
        let live = self.callers.values().filter_map(Caller::lives_on);
        let held: BTreeSet<EniId> =
            live.filter(|had| had.vlan.is_some()).map(|had| had.eni.clone()).collect();
        let members = self.cloud.enis.values().filter(|eni| is_member(eni));
        let members: BTreeSet<EniId> = members.map(|eni| eni.id.clone()).collect();
        if held != members {
            self.breach(Law::Orphans, format!("pods have {held:?}, members are {members:?}"));
        }
    }

    /// Each shelf has what its ENI has, and the disk knows what rests.
    fn shelves_are_right(&mut self) {
        let Some(state) = &self.state else { return };
        let stack = state.pool.settings().stack;
        let rests: BTreeSet<IpAddr> =
            self.disk.whole().rests.iter().map(|rest| rest.address).collect();
        let mut known_rests = BTreeSet::new();
        let mut wrong = None;
        for (_, port) in state.pool.ports() {
            let resting = port.shelf.iter().filter(|(_, slot)| slot.state.rests());
            known_rests
                .extend(resting.map(|(address, _)| address).chain(port.left.keys().copied()));
            let known: BTreeSet<IpAddr> = port.shelf.iter().map(|(address, _)| address).collect();
            let Some(eni) = self.cloud.enis.get(&port.id) else {
                wrong = Some(format!("{} is a port and not there", port.id));
                continue;
            };
            let v4 = eni.v4.iter().copied().map(IpAddr::V4);
            let prefixed = eni.v4_prefixes.iter().flat_map(|it| it.iter()).map(IpAddr::V4);
            let v6 = eni.v6.iter().copied().map(IpAddr::V6);
            // Addresses of an IPv6 prefix are known once they were handed out.
            let of_prefix = known.iter().copied().filter(|address| {
                eni.v6_prefixes.iter().any(|it| IpNetwork::V6(*it).contains(*address))
            });
            let v4 = v4.chain(prefixed).filter(|_| stack.v4());
            let v6 = v6.filter(|_| stack.v6()).chain(of_prefix);
            let truth: BTreeSet<IpAddr> = v4.chain(v6).collect();
            if known != truth {
                wrong = Some(format!("{}: known {known:?}, there {truth:?}", port.id));
            }
        }
        if let Some(what) = wrong {
            return self.breach(Law::Known, what);
        }
        if rests != known_rests {
            self.breach(Law::Accounting, format!("disk {rests:?}, pool {known_rests:?}"));
        }
    }

    fn foreign_stay(&mut self) {
        let gone = self.foreign.iter().find(|id| !self.cloud.enis.contains_key(*id)).cloned();
        if let Some(id) = gone {
            self.breach(Law::Foreign, format!("{id} is gone"));
        }
    }

    /// Idle addresses are as many as wanted, where the instance has room for them.
    fn targets(&mut self) {
        let Some(state) = &self.state else { return };
        let settings = &self.setup.options.config;
        let stack = settings.stack;
        let idle: u32 = state.pool.ports().map(|(_, port)| port.shelf.idle_pairs(stack)).sum();
        let ports = state.pool.ports().count();
        let room = u32::try_from(ports).unwrap_or(u32::MAX) < state.pool.max_enis();
        if idle < settings.idle.min() && room {
            let what = format!("{idle} idle, at least {} wanted", settings.idle.min());
            return self.breach(Law::Target, what);
        }
        // A primary address cannot go, and in dual stack it keeps one of the other family.
        let spare: u32 = state
            .pool
            .ports()
            .map(|(_, port)| {
                let families = crate::ipam::pool::Family::all(stack);
                let spare = families.map(|family| port.shelf.releasable(family).len()).min();
                u32::try_from(spare.unwrap_or(0)).unwrap_or(u32::MAX)
            })
            .sum();
        if spare > settings.idle.max() {
            let what = format!("{spare} could go, at most {} wanted", settings.idle.max());
            self.breach(Law::Target, what);
        }
    }
}
