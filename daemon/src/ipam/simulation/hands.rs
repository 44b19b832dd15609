//! Effects on their way: to the cloud and back, to the kernel and back, each in its own time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cloud::{AddressRequest, AssignAddresses, AssignPrefixes, ClientToken, EniFilter, EniStatus};
use controlplane::simulation::{Simulation, Write, Written};
use controlplane::{Answer, Call, CallError, Change, Degradation};
use ipnetwork::IpNetwork;
use model::{EniId, InstanceId, LinkIndex};

use super::callers::Caller;
use super::chance::chance;
use super::laws::Law;
use super::setup::INSTANCE;
use super::world::World;
use crate::datapath::{EniLink, EniSpec};
use crate::ipam::addresses::Parts;
use crate::ipam::event::{Ask, Effect, Event, Told};
use crate::ipam::lot::Lot;

/// A call whose process was killed arrives within this time, or never.
const STRAY: u64 = 20_000;

/// An effect on its way, there or back.
#[derive(Debug)]
pub(super) struct Flight {
    /// When it was handed out, by the node's clock.
    begun: Duration,
    /// When it arrives.
    pub(super) due: Duration,
    leg: Leg,
}

#[derive(Debug)]
enum Leg {
    There(Effect),
    Back(Told),
}

impl World {
    /// What had to be durable is.
    pub(super) fn begin(&mut self, effects: Vec<Effect>, begun: Duration) {
        for effect in effects {
            if let Some(id) = changed(&effect).filter(|id| self.is_blocked(id))
                && self.memory.excluded.get(id).is_some_and(|told| *told + self.setup.lag < begun)
            {
                let what = format!("{effect:?}, and {id} has a blocked tag");
                self.breach(Law::Excluded, what);
            }
            if begun > self.memory.degraded_at
                && is_left_undone(self.setup.options.config.degradation, &effect)
            {
                self.breach(Law::Degraded, format!("{effect:?}"));
            }
            if let Effect::Released(ticket, _) = effect {
                self.released(ticket);
                continue;
            }
            let due = self.now + self.setup.latency.draw(&mut self.random);
            self.flights.push(Flight { begun, due, leg: Leg::There(effect) });
        }
    }

    /// One effect that has arrived, there or back.
    pub(super) fn land(&mut self) {
        let due = self.flights.iter().enumerate().filter(|(_, flight)| flight.due <= self.now);
        let Some((index, _)) = due.min_by_key(|(_, flight)| flight.due) else { return };
        let Flight { begun, leg, .. } = self.flights.swap_remove(index);
        match leg {
            Leg::There(effect) => {
                let Some(told) = self.perform(effect) else { return };
                let due = self.now + self.setup.latency.draw(&mut self.random);
                self.flights.push(Flight { begun, due, leg: Leg::Back(told) });
            }
            Leg::Back(told) => {
                self.witness(&told);
                self.say(|| format!("answer: {}", brief(&told)));
                self.step(Event::Told { begun, told });
            }
        }
    }

    /// The process is gone: what it had sent may arrive, and nobody hears the answer.
    pub(super) fn abandon_flights(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            let Leg::There(Effect::Ask(ask)) = flight.leg else { continue };
            if !chance(&mut self.random, 50) {
                continue;
            }
            let latest = self.now + Duration::from_millis(self.random.next() % STRAY);
            for write in writes(ask) {
                self.cloud.later(flight.due.min(latest), write);
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Told> {
        Some(match effect {
            Effect::Ask(ask) => {
                self.weather();
                ask_cloud(&mut self.cloud, ask)
            }
            Effect::SetLink(port, spec) => Told::LinkSet(port, self.set_link(&spec)),
            Effect::RemoveLink(eni) => {
                self.linked.remove(&eni);
                Told::LinkRemoved(eni, Ok(()))
            }
            Effect::Witness { port, eni, addresses } => {
                let result = self.kernel("the kernel cannot be read");
                let result = result.map(|()| self.users(eni.as_ref(), &addresses));
                Told::Witnessed { port, result }
            }
            Effect::WitnessOrphan { eni, addresses } => {
                let result = self.kernel("the kernel cannot be read");
                let result = result.map(|()| self.users(Some(&eni), &addresses));
                Told::OrphanWitnessed { eni, result }
            }
            Effect::Bury(addresses) => {
                let buried = self.kernel("the traces cannot be removed");
                Told::Buried(addresses, buried)
            }
            Effect::Audit(addresses) => {
                let result = self.kernel("the kernel cannot be read");
                Told::Audited(result.map(|()| self.users(None, &addresses)))
            }
            Effect::Rewritten(tried) => Told::Rewritten(tried),
            Effect::Released(..) => return None,
        })
    }

    fn kernel(&mut self, error: &str) -> Result<(), String> {
        let fails = chance(&mut self.random, self.setup.kernel_fails);
        if fails { Err(error.to_owned()) } else { Ok(()) }
    }

    /// Which of these addresses the kernel sees in use, and all that are used on an ENI.
    fn users(&self, eni: Option<&EniId>, addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
        let live = self.callers.values().filter_map(Caller::lives_on);
        let mut users: BTreeSet<IpAddr> = BTreeSet::new();
        let on_it = |address| eni.is_some_and(|id| self.cloud.has_address(id, address));
        let others = self.used_by_others().filter(|it| addresses.contains(it) || on_it(*it));
        users.extend(others);
        for allocation in live {
            let whole = eni.is_some_and(|id| allocation.eni == *id || allocation.parent == *id);
            let used = allocation.addresses.iter();
            users.extend(used.filter(|address| whole || addresses.contains(address)));
        }
        users
    }

    /// How the cloud is disposed at this moment.
    fn weather(&mut self) {
        let mut faults = self.setup.faults;
        if self.now < self.throttled_until {
            faults.throttled = 100;
        }
        if self.now < self.silent_until {
            (faults.call_lost, faults.reads_lost, faults.late) = (100, 100, 0);
        }
        self.cloud.faults = faults;
    }

    fn set_link(&mut self, spec: &EniSpec) -> Result<EniLink, String> {
        if self.unplugged.contains(&spec.id) || !self.has_nic(&spec.id) {
            return Err("no link with this MAC".to_owned());
        }
        self.kernel("the link cannot be set")?;
        self.linked.insert(spec.id.clone());
        let index = LinkIndex::try_from(spec.mark.value() + 2).map_err(|e| e.to_string())?;
        let name = "eth1".parse().map_err(|_no_name| "eth1 is no name".to_owned())?;
        Ok(EniLink { index, name, mtu: 1500 })
    }

    fn has_nic(&self, id: &EniId) -> bool {
        self.cloud.enis.get(id).is_some_and(|eni| eni.status == EniStatus::InUse)
    }

    /// Links that went with their NIC: the daemon hears of it after what it was told before.
    pub(super) fn watch_links(&mut self) {
        let lost: Vec<EniId> = self.linked.iter().filter(|id| !self.has_nic(id)).cloned().collect();
        for id in lost {
            self.lose_link(id);
        }
    }

    /// Whether the daemon is about to be told that a link is up.
    pub(super) fn is_link_told(&self) -> bool {
        let mut due = self.flights.iter().filter(|flight| flight.due <= self.now);
        due.any(|flight| matches!(&flight.leg, Leg::Back(Told::LinkSet(..))))
    }

    /// The kernel loses a link.
    pub(super) fn lose_link(&mut self, id: EniId) {
        self.linked.remove(&id);
        if self.state.is_none() {
            return;
        }
        let told = self
            .flights
            .iter()
            .filter(|flight| matches!(&flight.leg, Leg::Back(Told::LinkSet(..))));
        let after = told.map(|flight| flight.due).max().unwrap_or_default();
        let at = (self.now + Duration::from_millis(2)).max(after + Duration::from_millis(1));
        self.say(|| format!("the kernel has no link of {id} any more"));
        self.gone.push((at, id));
    }

    /// What the daemon is told of where its ENIs are.
    fn witness(&mut self, told: &Told) {
        if let Told::Assigned { result: Ok(came), .. } = told {
            // Told by the cloud as ours, perhaps of old.
            self.memory.sightings.retain(|(_, block), _| !came.contains(block));
        }
        let Told::Instance(Ok(enis)) = told else { return };
        self.remember_told(enis);
        let Some(state) = &self.state else { return };
        for (_, port) in state.pool.ports() {
            let listed = |eni: &cloud::Eni| eni.id == port.id && eni.status == EniStatus::InUse;
            let misses = self.misses.entry(port.id.clone()).or_default();
            *misses = if enis.iter().any(listed) { 0 } else { *misses + 1 };
        }
    }
}

fn ask_cloud(cloud: &mut Simulation, ask: Ask) -> Told {
    match ask {
        Ask::Eni(whose, call) => Told::Eni(whose, cloud.perform(call)),
        Ask::Instance => {
            let filter = EniFilter::instance(InstanceId::new(INSTANCE));
            Told::Instance(cloud.describe(&filter).map_err(CallError::from))
        }
        Ask::Tagged(tags) => {
            let filter = EniFilter { tags, ..EniFilter::default() };
            Told::Tagged(cloud.describe(&filter).map_err(CallError::from))
        }
        Ask::VSwitch(id) => {
            let found = cloud.describe_vswitch(&id).map_err(CallError::from);
            Told::VSwitch(id, found)
        }
        Ask::Assign { port, eni, lot, count, token } => {
            let result = cloud.change(assign(lot, token, eni, count)).map(blocks_of);
            Told::Assigned { port, lot, result: result.map_err(CallError::from) }
        }
        Ask::Unassign { port, eni, blocks } => {
            let mut result = Ok(());
            for write in unassigns(&eni, &blocks) {
                if result.is_ok() {
                    result = cloud.change(write).map(drop);
                }
            }
            Told::Unassigned { port, blocks, result: result.map_err(CallError::from) }
        }
    }
}

/// Whether `degradation` forbids an effect.
fn is_left_undone(degradation: Degradation, effect: &Effect) -> bool {
    let Effect::Ask(ask) = effect else { return false };
    let gives_back = match ask {
        Ask::Eni(_, Call::Change(_, change)) => !matches!(change, Change::Attach(_)),
        ask => matches!(ask, Ask::Unassign { .. } | Ask::Tagged(_)),
    };
    !degradation.calls() || (gives_back && !degradation.releases())
}

/// The ENI that an effect changes.
const fn changed(effect: &Effect) -> Option<&EniId> {
    match effect {
        Effect::Ask(Ask::Eni(_, Call::Change(_, change))) => Some(match change {
            Change::Attach(request) => &request.eni,
            Change::Detach(request) => &request.eni,
            Change::Delete(id) => id,
        }),
        Effect::Ask(Ask::Assign { eni, .. } | Ask::Unassign { eni, .. }) => Some(eni),
        _ => None,
    }
}

/// What of a question changes the cloud.
fn writes(ask: Ask) -> Vec<Write> {
    match ask {
        Ask::Eni(_, Call::Create(request)) => vec![Write::Create(*request)],
        Ask::Eni(_, Call::Change(_, change)) => vec![match change {
            Change::Attach(request) => Write::Attach(request),
            Change::Detach(request) => Write::Detach(request),
            Change::Delete(id) => Write::Delete(id),
        }],
        Ask::Eni(_, Call::Find(_) | Call::Describe(_))
        | Ask::Instance
        | Ask::Tagged(_)
        | Ask::VSwitch(_) => Vec::new(),
        Ask::Assign { eni, lot, count, token, .. } => vec![assign(lot, token, eni, count)],
        Ask::Unassign { eni, blocks, .. } => unassigns(&eni, &blocks),
    }
}

const fn assign(lot: Lot, token: ClientToken, eni: EniId, count: u32) -> Write {
    match lot {
        Lot::V4 => Write::AssignV4(any(token, eni, count)),
        Lot::V6 => Write::AssignV6(any(token, eni, count)),
        Lot::V4Prefix => Write::AssignV4Prefixes(AssignPrefixes { token, eni, count }),
        Lot::V6Prefix => Write::AssignV6Prefixes(AssignPrefixes { token, eni, count }),
    }
}

const fn any<A>(token: ClientToken, eni: EniId, count: u32) -> AssignAddresses<A> {
    AssignAddresses { token, eni, addresses: AddressRequest::Any(count) }
}

/// One after the other, as the daemon does.
fn unassigns(eni: &EniId, blocks: &[IpNetwork]) -> Vec<Write> {
    let Parts { v4, v6, v4_prefixes, v6_prefixes } = Parts::of(blocks);
    let writes = [
        (!v4.is_empty()).then(|| Write::UnassignV4(eni.clone(), v4)),
        (!v4_prefixes.is_empty()).then(|| Write::UnassignV4Prefixes(eni.clone(), v4_prefixes)),
        (!v6.is_empty()).then(|| Write::UnassignV6(eni.clone(), v6)),
        (!v6_prefixes.is_empty()).then(|| Write::UnassignV6Prefixes(eni.clone(), v6_prefixes)),
    ];
    writes.into_iter().flatten().collect()
}

fn blocks_of(written: Written) -> Vec<IpNetwork> {
    let single = |address: IpAddr| IpNetwork::from(address);
    match written {
        Written::V4(all) => all.into_iter().map(|a| single(IpAddr::V4(a))).collect(),
        Written::V6(all) => all.into_iter().map(|a| single(IpAddr::V6(a))).collect(),
        Written::V4Prefixes(all) => all.into_iter().map(IpNetwork::V4).collect(),
        Written::V6Prefixes(all) => all.into_iter().map(IpNetwork::V6).collect(),
        Written::Eni(_) | Written::Done => Vec::new(),
    }
}

/// An answer in one line.
fn brief(told: &Told) -> String {
    let ids = |enis: &[cloud::Eni]| {
        let each = enis.iter().map(|eni| {
            format!("{} {} ({} IPv4, {} IPv6)", eni.id, eni.status, eni.v4.len(), eni.v6.len())
        });
        each.collect::<Vec<_>>().join(", ")
    };
    match told {
        Told::Eni(whose, Answer::Found(_, found)) => {
            format!("{whose:?} Find: {:?}", found.as_ref().map(|enis| ids(enis)))
        }
        Told::Eni(whose, Answer::Created(token, made)) => {
            format!("{whose:?} Create {token}: {:?}", made.as_ref().map(|eni| &eni.id))
        }
        Told::Eni(whose, Answer::Described(_, seen)) => {
            format!("{whose:?} Describe: {:?}", seen.as_ref().map(|enis| ids(enis)))
        }
        Told::Eni(whose, Answer::Changed(token, verb, done)) => {
            format!("{whose:?} {verb:?} {token}: {done:?}")
        }
        Told::Instance(seen) => format!("all ENIs: {:?}", seen.as_ref().map(|enis| ids(enis))),
        other => format!("{other:?}"),
    }
}
