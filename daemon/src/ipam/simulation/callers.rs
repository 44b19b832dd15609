//! The sandboxes of the node as their callers see them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::{LinkIndex, Mac, SandboxKey};

use super::disk::Awaited;
use super::laws::Law;
use super::world::World;
use crate::checkpoint::{Change, Phase, SandboxRecord};
use crate::datapath::{MemberSpec, Pod, PodLink, PodSpec};
use crate::ipam::event::{Effect, Event, Ticket};
use crate::ipam::{AllocError, Allocation, Request, Want};

/// One sandbox, as its caller sees it.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Waits for an address, or for the one that it has; the deadline is of the world's time.
    Waiting { ticket: Ticket, deadline: Duration, had: Option<Allocation> },
    /// Has one.
    Has { allocation: Allocation, ticket: Ticket, record: Record },
    /// Its pod is torn down, and its release is under way.
    Releasing { ticket: Ticket, allocation: Option<Allocation> },
    /// Its pod is torn down, and its record is still there: it is to be deleted once more.
    Dying { allocation: Allocation },
}

/// The record of a sandbox that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    None,
    Writing,
    Written,
}

/// Somebody asks whether a sandbox still has what it has.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) key: SandboxKey,
    pub(super) deadline: Duration,
}

impl Caller {
    /// What its pod lives on.
    pub(super) const fn lives_on(&self) -> Option<&Allocation> {
        match self {
            Self::Has { allocation, .. } => Some(allocation),
            Self::Waiting { .. } | Self::Releasing { .. } | Self::Dying { .. } => None,
        }
    }

    /// What may still be written down as its own.
    pub(super) const fn holds(&self) -> Option<&Allocation> {
        match self {
            Self::Has { allocation, .. } | Self::Dying { allocation } => Some(allocation),
            Self::Releasing { allocation, .. } => allocation.as_ref(),
            Self::Waiting { .. } => None,
        }
    }
}

/// The sandbox of a pod by its number.
pub(in crate::ipam) fn key(pod: u64) -> SandboxKey {
    SandboxKey {
        network: "terway".to_owned(),
        container_id: format!("c{pod}"),
        ifname: "eth0".to_owned(),
    }
}

impl World {
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    /// An ADD, perhaps a repeated one.
    pub(super) fn add(&mut self, pod: u64, member: bool, wait: Duration) {
        let key = key(pod);
        match self.callers.get(&key) {
            _ if !self.is_up() => return,
            // It is to be deleted first, though nobody here knows it.
            None if self.memory.ghosts.contains_key(&key) => return,
            // From the record, without the pool.
            Some(Caller::Has { record: Record::Written | Record::Writing, .. }) => return,
            Some(Caller::Dying { .. }) => return self.del(pod),
            Some(Caller::Has { allocation, .. }) if allocation.vlan.is_some() != member => return,
            _ => {}
        }
        let (ticket, deadline) = (self.ticket(), self.now + wait);
        let had = self.callers.get(&key).and_then(Caller::lives_on).cloned();
        self.callers.insert(key.clone(), Caller::Waiting { ticket, deadline, had: had.clone() });
        let want =
            if member { Want::Member { pod_networking: "web".to_owned() } } else { Want::Shared };
        let request = Request { key: key.clone(), pod: None, want };
        let deadline = self.clock() + wait;
        self.step(Event::Allocate { ticket, request, deadline });
        if let Some(had) = had {
            self.check_again(&key, &had);
        }
    }

    fn check_again(&mut self, key: &SandboxKey, before: &Allocation) {
        let now = self.callers.get(key).and_then(Caller::lives_on);
        if now != Some(before) {
            let what = format!("{key} had {before:?} and got {now:?}");
            self.breach(Law::Same, what);
        }
    }

    pub(super) fn answered(&mut self, ticket: Ticket, answer: Result<Allocation, AllocError>) {
        let asked = |caller: &Caller| matches!(caller, Caller::Waiting { ticket: asked, .. } if *asked == ticket);
        let Some((key, caller)) = self.callers.iter().find(|(_, caller)| asked(caller)) else {
            // Its caller went away: a real one says so.
            return;
        };
        let again = matches!(caller, Caller::Waiting { had: Some(_), .. });
        let key = key.clone();
        match answer {
            Ok(allocation) => {
                self.say(|| {
                    format!(
                        "{} gets {} on {}",
                        key.container_id, allocation.addresses, allocation.eni
                    )
                });
                if !again {
                    self.check_served(&allocation);
                }
                let caller = Caller::Has { allocation, ticket, record: Record::None };
                self.callers.insert(key, caller);
            }
            Err(error) => {
                self.say(|| format!("{} is refused: {error}", key.container_id));
                self.callers.remove(&key);
            }
        }
    }

    /// The sandbox's record is written.
    pub(super) fn acknowledge(&mut self, pod: u64) {
        if self.state.is_some() {
            self.write_record(&key(pod));
        }
    }

    pub(super) fn write_record(&mut self, key: &SandboxKey) {
        let Some(Caller::Has { allocation, ticket, record }) = self.callers.get_mut(key) else {
            return;
        };
        if *record != Record::None {
            return;
        }
        *record = Record::Writing;
        let (change, ticket) = (record_of(key, allocation), *ticket);
        let takes = Duration::from_micros(self.random.next() % 20_000);
        let changes = vec![Change::PutSandbox(Box::new(change))];
        self.disk.write(changes, Awaited::Record(key.clone(), ticket), takes, self.now);
    }

    pub(super) fn recorded(&mut self, key: &SandboxKey, asked: Ticket, written: bool) {
        let Some(Caller::Has { ticket, record, .. }) = self.callers.get_mut(key) else { return };
        if *ticket != asked {
            return;
        }
        *record = if written { Record::Written } else { Record::None };
        if !written {
            // The ADD fails, and takes back what it did: nothing yet in the kernel.
            self.release(key);
        }
    }

    pub(super) fn del(&mut self, pod: u64) {
        if self.state.is_some() {
            self.release(&key(pod));
        }
    }

    pub(super) fn release(&mut self, key: &SandboxKey) {
        let ticket = self.ticket();
        let before = self.callers.remove(key);
        self.memory.ghosts.remove(key);
        // Nothing is in the kernel before the record is durable.
        let lived = matches!(before, Some(Caller::Has { record: Record::Written, .. }));
        let dying = matches!(before, Some(Caller::Dying { .. }));
        let allocation = match before {
            Some(Caller::Has { allocation, .. } | Caller::Dying { allocation }) => Some(allocation),
            Some(Caller::Releasing { allocation, .. }) => allocation,
            Some(Caller::Waiting { .. }) | None => None,
        };
        for address in allocation.iter().flat_map(|allocation| allocation.addresses.iter()) {
            // A release that is repeated begins no other rest, unless the pool has forgotten the first.
            if lived || (dying && self.is_used_by(address, key)) {
                self.rested.insert(address, self.now);
            }
        }
        self.callers.insert(key.clone(), Caller::Releasing { ticket, allocation });
        self.step(Event::Release { ticket, key: key.clone() });
    }

    fn is_used_by(&self, address: IpAddr, key: &SandboxKey) -> bool {
        let ports = self.state.iter().flat_map(|state| state.pool.ports());
        let mut slots = ports.filter_map(|(_, port)| port.shelf.get(address));
        slots.any(|slot| slot.state.owner() == Some(key))
    }

    pub(super) fn released(&mut self, asked: Ticket) {
        self.callers.retain(
            |_, caller| !matches!(caller, Caller::Releasing { ticket, .. } if *ticket == asked),
        );
    }

    /// Releases that could not be written down: the runtime will ask again.
    pub(super) fn releases_failed(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Released(failed, _) = effect else { continue };
            let of = |caller: &Caller| matches!(caller, Caller::Releasing { ticket, .. } if ticket == failed);
            let Some((key, _)) = self.callers.iter().find(|(_, caller)| of(caller)) else {
                continue;
            };
            let key = key.clone();
            if let Some(Caller::Releasing { allocation: Some(allocation), .. }) =
                self.callers.remove(&key)
            {
                self.callers.insert(key, Caller::Dying { allocation });
            }
        }
    }

    /// Who waits goes away, or never sees its answer.
    pub(super) fn cancel(&mut self, pod: u64) {
        let key = key(pod);
        let ticket = match self.callers.get(&key) {
            Some(
                Caller::Waiting { ticket, .. } | Caller::Has { ticket, record: Record::None, .. },
            ) => *ticket,
            _ => return,
        };
        self.callers.remove(&key);
        self.step(Event::Cancel { ticket, key });
    }

    /// A repeated ADD that finds the sandbox's record.
    pub(super) fn confirm(&mut self, pod: u64, wait: Duration) {
        let key = key(pod);
        let has =
            matches!(self.callers.get(&key), Some(Caller::Has { record: Record::Written, .. }));
        if !has || !self.is_up() {
            return;
        }
        let (ticket, deadline) = (self.ticket(), self.now + wait);
        self.questions.insert(ticket, Question { key: key.clone(), deadline });
        let deadline = self.clock() + wait;
        self.step(Event::Confirm { ticket, key, deadline });
    }

    pub(super) fn confirmed(&mut self, ticket: Ticket, answer: &Result<(), AllocError>) {
        let Some(Question { key, .. }) = self.questions.remove(&ticket) else { return };
        self.say(|| format!("{} is told: {answer:?}", key.container_id));
        let Err(error) = answer else { return };
        let Some(allocation) = self.callers.get(&key).and_then(Caller::lives_on) else { return };
        let shared = allocation.vlan.is_none();
        let sound = !self.touched.contains(&allocation.eni)
            && allocation.addresses.iter().all(|address| !self.taken.contains(&address));
        // Of a member one look says "missing", which may be old news.
        if shared && sound && *error != AllocError::Stopping {
            self.breach(Law::Witness, format!("{key} is told that it lost its address: {error}"));
        }
    }

    /// A new process knows of a sandbox what the disk has, and so does the kernel.
    pub(super) fn recall_callers(&mut self) {
        let before = std::mem::take(&mut self.callers);
        let mut after = BTreeMap::new();
        for record in &self.disk.contents.sandboxes {
            let key = record.pod.spec.key.clone();
            let allocation = record.allocation.clone();
            let lived = matches!(before.get(&key), Some(Caller::Has { allocation: had, record, .. })
                if *had == allocation && *record != Record::None);
            let caller = if lived {
                Caller::Has { allocation, ticket: 0, record: Record::Written }
            } else {
                Caller::Dying { allocation }
            };
            after.insert(key, caller);
        }
        for (key, caller) in &before {
            let lost = matches!(caller, Caller::Has { record: Record::Written, .. })
                && !after.contains_key(key);
            if lost {
                self.breach(Law::Durable, format!("the record of {key} is not on the disk"));
            }
        }
        self.callers = after;
    }
}

/// The record of a sandbox, as `pods` would write it.
pub(in crate::ipam) fn record_of(key: &SandboxKey, allocation: &Allocation) -> SandboxRecord {
    let index = LinkIndex::try_from(100).expect("100 is an index");
    let link = PodLink {
        host: "cali0123456789a".parse().expect("it is a name"),
        host_index: index,
        host_mac: Mac::new([4; 6]),
        pod_index: index,
        pod_mac: Mac::new([6; 6]),
        mtu: 1500,
    };
    let spec = PodSpec {
        key: key.clone(),
        pod: None,
        netns: PathBuf::from("/run/netns/x"),
        ifname: "eth0".parse().expect("it is a name"),
        addresses: allocation.addresses,
        eni: allocation.parent.clone(),
        member: allocation.vlan.map(|vlan| MemberSpec { vlan, macs: None }),
        mtu: None,
        mac: None,
    };
    let (allocation, add_time) = (allocation.clone(), Duration::from_secs(1));
    SandboxRecord { phase: Phase::Up, pod: Pod { spec, link }, allocation, add_time }
}
