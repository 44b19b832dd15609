//! A cloud in memory with a clock of its own: what property tests of reconcilers run against. It
//! answers late, loses answers, lets lost calls take effect afterwards, refuses, and remembers
//! whether anybody went past a quota.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cloud::{
    Action, AddressRequest, ApiError, AssignAddresses, AssignPrefixes, AttachEni, ClientToken,
    CloudError, CreateEni, DetachEni, Eni, EniFilter, EniKind, EniStatus, Meaning, NewEni, Thing,
};
use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{EniId, InstanceId, Mac, VSwitch, VSwitchId, VpcId, ZoneId};

use crate::call::{Answer, Call, Change};
use crate::{Random, TOKEN_TAG};

mod prefixes;
mod rules;
mod user;

use rules::Intents;
pub use rules::{Rule, Violation};

/// What the simulated cloud allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// ENIs of an instance, the primary one included.
    pub enis: usize,
    /// Members of an instance.
    pub members: usize,
    /// Addresses of either family on one ENI.
    pub addresses: usize,
}

/// How often things go wrong, in percent of the calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Refused as throttled, without effect.
    pub throttled: u64,
    /// Performed, and the answer is lost.
    pub answer_lost: u64,
    /// Answered by nobody, and performed some seconds later.
    pub late: u64,
    /// Answered by nobody, and never performed.
    pub call_lost: u64,
    /// Unassigns that are forbidden, without effect.
    pub forbidden: u64,
    /// Reads that nobody answers.
    pub reads_lost: u64,
}

/// The cloud.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// What it allows.
    pub limits: Limits,
    /// How it fails.
    pub faults: Faults,
    /// How long attach and detach take.
    pub delay: Duration,
    /// How old a read may be.
    pub lag: Duration,
    /// The truth.
    pub enis: BTreeMap<EniId, Eni>,
    /// vSwitches, and what they have free.
    pub vswitches: BTreeMap<VSwitchId, VSwitch>,
    /// Every rule that was broken: it must stay empty.
    pub violations: Vec<Violation>,
    /// ENIs that carry a pod now: nobody may detach or delete them.
    pub live_enis: BTreeSet<EniId>,
    /// Addresses that a pod has now: nobody may take them from their ENI.
    pub live_addresses: BTreeSet<IpAddr>,
    /// vSwitches that have addresses and no whole prefix.
    pub fragmented: BTreeSet<VSwitchId>,
    /// How many calls there were.
    pub calls: u64,
    now: Duration,
    tokens: BTreeMap<ClientToken, EniId>,
    intents: Intents,
    freed: Vec<IpAddr>,
    assigned: BTreeMap<ClientToken, (Vec<Ipv4Addr>, Vec<Ipv6Addr>)>,
    prefixed: BTreeMap<ClientToken, (Vec<Ipv4Network>, Vec<Ipv6Network>)>,
    pending: Vec<(Duration, Pending)>,
    past: Vec<(Duration, BTreeMap<EniId, Eni>)>,
    random: Random,
    made: u32,
}

#[derive(Debug, Clone)]
enum Pending {
    Status(EniId, EniStatus),
    Late(Box<Write>),
}

/// A call that changes something.
#[derive(Debug, Clone)]
pub enum Write {
    /// Make an ENI.
    Create(CreateEni),
    /// Attach one.
    Attach(AttachEni),
    /// Detach one.
    Detach(DetachEni),
    /// Delete one.
    Delete(EniId),
    /// Add IPv4 addresses.
    AssignV4(AssignAddresses<Ipv4Addr>),
    /// Add IPv6 addresses.
    AssignV6(AssignAddresses<Ipv6Addr>),
    /// Add IPv4 prefixes.
    AssignV4Prefixes(AssignPrefixes),
    /// Add IPv6 prefixes.
    AssignV6Prefixes(AssignPrefixes),
    /// Take IPv4 prefixes away.
    UnassignV4Prefixes(EniId, Vec<Ipv4Network>),
    /// Take IPv6 prefixes away.
    UnassignV6Prefixes(EniId, Vec<Ipv6Network>),
    /// Take IPv4 addresses away.
    UnassignV4(EniId, Vec<Ipv4Addr>),
    /// Take IPv6 addresses away.
    UnassignV6(EniId, Vec<Ipv6Addr>),
}

/// What a change brought.
#[derive(Debug, Clone)]
pub enum Written {
    /// A new ENI.
    Eni(Box<Eni>),
    /// New addresses.
    V4(Vec<Ipv4Addr>),
    /// New addresses.
    V6(Vec<Ipv6Addr>),
    /// New prefixes.
    V4Prefixes(Vec<Ipv4Network>),
    /// New prefixes.
    V6Prefixes(Vec<Ipv6Network>),
    /// Nothing to say.
    Done,
}

impl Write {
    const fn action(&self) -> Action {
        match self {
            Self::Create(_) => Action::CreateNetworkInterface,
            Self::Attach(_) => Action::AttachNetworkInterface,
            Self::Detach(_) => Action::DetachNetworkInterface,
            Self::Delete(_) => Action::DeleteNetworkInterface,
            Self::AssignV4(_) | Self::AssignV4Prefixes(_) => Action::AssignPrivateIpAddresses,
            Self::AssignV6(_) | Self::AssignV6Prefixes(_) => Action::AssignIpv6Addresses,
            Self::UnassignV4(..) | Self::UnassignV4Prefixes(..) => {
                Action::UnassignPrivateIpAddresses
            }
            Self::UnassignV6(..) | Self::UnassignV6Prefixes(..) => Action::UnassignIpv6Addresses,
        }
    }
}

impl Simulation {
    /// An empty VPC with one zone, `h`.
    pub fn new(seed: u64, limits: Limits, vswitches: &[(&str, u64)]) -> Self {
        let vswitch = |(id, available): &(&str, u64)| {
            let v4 = "10.0.0.0/16".parse().ok()?;
            let v6 = "2408:1:2:3::/64".parse().ok();
            let (id, zone) = (VSwitchId::new(*id), ZoneId::new("h"));
            Some((id.clone(), VSwitch { id, zone, v4, v6, available: *available }))
        };
        Self {
            limits,
            faults: Faults::default(),
            delay: Duration::from_secs(2),
            lag: Duration::ZERO,
            enis: BTreeMap::new(),
            vswitches: vswitches.iter().filter_map(vswitch).collect(),
            violations: Vec::new(),
            live_enis: BTreeSet::new(),
            live_addresses: BTreeSet::new(),
            calls: 0,
            now: Duration::ZERO,
            tokens: BTreeMap::new(),
            intents: Intents::default(),
            freed: Vec::new(),
            assigned: BTreeMap::new(),
            prefixed: BTreeMap::new(),
            fragmented: BTreeSet::new(),
            pending: Vec::new(),
            past: Vec::new(),
            random: Random::new(seed),
            made: 0,
        }
    }

    /// Time passes, and with it what was under way comes to its end.
    pub fn advance(&mut self, now: Duration) {
        self.now = now;
        loop {
            let due = self.pending.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            let Some((index, _)) = due.min_by_key(|(_, (at, _))| *at) else { break };
            match self.pending.swap_remove(index).1 {
                Pending::Status(id, status) => self.settle(&id, &status),
                // Its caller is long gone.
                Pending::Late(write) => drop(self.write(*write)),
            }
        }
        self.remember();
    }

    /// When something under way comes to its end.
    pub fn wake(&self) -> Option<Duration> {
        self.pending.iter().map(|(at, _)| *at).min()
    }

    fn remember(&mut self) {
        if self.past.last().is_none_or(|(_, enis)| *enis != self.enis) {
            self.past.push((self.now, self.enis.clone()));
        }
        // The newest that is older than any read may be stays.
        let horizon = self.now.saturating_sub(self.lag);
        let old = self.past.iter().filter(|(at, _)| *at <= horizon).count();
        self.past.drain(..old.saturating_sub(1));
    }

    fn settle(&mut self, id: &EniId, status: &EniStatus) {
        let Some(eni) = self.enis.get_mut(id) else { return };
        eni.status = status.clone();
        if *status == EniStatus::Available {
            (eni.instance, eni.trunk, eni.device_index) = (None, None, None);
            if eni.kind == EniKind::Member {
                eni.kind = EniKind::Secondary;
            }
        }
    }

    fn roll(&mut self, percent: u64) -> bool {
        self.random.next() % 100 < percent
    }

    /// Performs a call, or fails as the faults will have it.
    pub fn perform(&mut self, call: Call) -> Answer {
        match call {
            Call::Find(token) => {
                let tags = BTreeMap::from([(TOKEN_TAG.to_owned(), token.to_string())]);
                let found = self.describe(&EniFilter { tags, ..EniFilter::default() });
                Answer::Found(token, found.map_err(Into::into))
            }
            Call::Describe(ids) => {
                let found = self.describe(&EniFilter { ids: ids.clone(), ..EniFilter::default() });
                Answer::Described(ids, found.map_err(Into::into))
            }
            Call::Create(request) => {
                let token = request.token.clone();
                let made = match self.change(Write::Create(*request)) {
                    Ok(Written::Eni(eni)) => Ok(eni),
                    Ok(_) => Err(garbage(Action::CreateNetworkInterface).into()),
                    Err(error) => Err(error.into()),
                };
                Answer::Created(token, made)
            }
            Call::Change(token, change) => {
                let verb = change.verb();
                let write = match change {
                    Change::Attach(request) => Write::Attach(request),
                    Change::Detach(request) => Write::Detach(request),
                    Change::Delete(id) => Write::Delete(id),
                };
                let done = self.change(write).map(drop);
                Answer::Changed(token, verb, done.map_err(Into::into))
            }
        }
    }

    /// Reads, perhaps old news.
    pub fn describe(&mut self, filter: &EniFilter) -> Result<Vec<Eni>, CloudError> {
        self.calls += 1;
        if self.roll(self.faults.throttled) {
            return Err(refused(
                Action::DescribeNetworkInterfaces,
                Meaning::Throttled,
                "Throttling",
            ));
        }
        if self.roll(self.faults.reads_lost) {
            return Err(unknown(Action::DescribeNetworkInterfaces));
        }
        self.remember();
        let horizon = self.now.saturating_sub(self.lag);
        let newest = self.past.iter().filter(|(at, _)| *at <= horizon).count().saturating_sub(1);
        let ages = u64::try_from(self.past.len().saturating_sub(newest)).unwrap_or(1).max(1);
        let age = usize::try_from(self.random.next() % ages).unwrap_or(0);
        let enis = self.past.get(newest + age).map_or(&self.enis, |(_, enis)| enis);
        Ok(enis.values().filter(|eni| matches(eni, filter)).cloned().collect())
    }

    /// Reads one vSwitch.
    pub fn describe_vswitch(&mut self, id: &VSwitchId) -> Result<Option<VSwitch>, CloudError> {
        self.calls += 1;
        if self.roll(self.faults.throttled) {
            return Err(refused(Action::DescribeVSwitches, Meaning::Throttled, "Throttling"));
        }
        if self.roll(self.faults.reads_lost) {
            return Err(unknown(Action::DescribeVSwitches));
        }
        Ok(self.vswitches.get(id).cloned())
    }

    /// From now on chance is another one: so a run with one event less is like the run before.
    pub const fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Performs a call whose caller is gone, at that time.
    pub fn later(&mut self, at: Duration, write: Write) {
        self.pending.push((at, Pending::Late(Box::new(write))));
    }

    /// Writes, or fails as the faults will have it.
    pub fn change(&mut self, write: Write) -> Result<Written, CloudError> {
        self.calls += 1;
        let action = write.action();
        if self.roll(self.faults.throttled) {
            return Err(refused(action, Meaning::Throttled, "Throttling.User"));
        }
        if self.roll(self.faults.late) {
            let later = self.now + Duration::from_millis(self.random.next() % 20_000);
            self.pending.push((later, Pending::Late(Box::new(write))));
            return Err(unknown(action));
        }
        if self.roll(self.faults.call_lost) {
            return Err(unknown(action));
        }
        let unassigns = matches!(write, Write::UnassignV4(..) | Write::UnassignV6(..));
        if unassigns && self.roll(self.faults.forbidden) {
            return Err(refused(action, Meaning::Forbidden, "Forbidden.RAM"));
        }
        let done = self.write(write);
        if self.roll(self.faults.answer_lost) { Err(unknown(action)) } else { done }
    }

    fn write(&mut self, write: Write) -> Result<Written, CloudError> {
        self.judge(&write);
        let done = match write {
            Write::Create(request) => self.create(&request),
            Write::Attach(request) => self.attach(&request),
            Write::Detach(request) => self.detach(&request),
            Write::Delete(id) => self.delete(&id),
            Write::AssignV4(request) => self.assign_v4(&request),
            Write::AssignV6(request) => self.assign_v6(&request),
            Write::AssignV4Prefixes(request) => self.assign_v4_prefixes(&request),
            Write::AssignV6Prefixes(request) => self.assign_v6_prefixes(&request),
            Write::UnassignV4Prefixes(id, prefixes) => {
                self.unassign_v4_prefixes(&id, &prefixes);
                Ok(Written::Done)
            }
            Write::UnassignV6Prefixes(id, prefixes) => {
                self.unassign_v6_prefixes(&id, &prefixes);
                Ok(Written::Done)
            }
            Write::UnassignV4(id, addresses) => Ok(self.unassign(&id, |eni| {
                let primary = eni.primary_v4;
                let goes = |a: &Ipv4Addr| Some(*a) != primary && addresses.contains(a);
                eni.v4.extract_if(.., |a| goes(a)).map(IpAddr::V4).collect()
            })),
            Write::UnassignV6(id, addresses) => Ok(self.unassign(&id, |eni| {
                eni.v6.extract_if(.., |a| addresses.contains(a)).map(IpAddr::V6).collect()
            })),
        };
        self.remember();
        done
    }

    fn create(&mut self, request: &CreateEni) -> Result<Written, CloudError> {
        let action = Action::CreateNetworkInterface;
        if let Some(id) = self.tokens.get(&request.token) {
            let made = self.enis.get(id).cloned();
            let gone = || refused(action, Meaning::TokenMismatch, "IdempotentParameterMismatch");
            return made.map(|eni| Written::Eni(Box::new(eni))).ok_or_else(gone);
        }
        let v4 = request.secondary_v4 + 1;
        self.take(&request.vswitch, u64::from(v4), action)?;
        let blocks = self.new_v4_prefixes(&request.vswitch, request.v4_prefixes, action);
        if blocks.is_err() {
            self.give_back(&request.vswitch, u64::from(v4));
        }
        let v4_prefixes = blocks?;
        let v6_prefixes = self.new_v6_prefixes(request.v6_prefixes);
        self.made += 1;
        let id = EniId::new(format!("eni-{}", self.made));
        let [_, b, c, d] = self.made.to_be_bytes();
        let v4: Vec<_> = (0..v4).map(|n| self.v4(n)).collect();
        let eni = Eni {
            id: id.clone(),
            mac: Mac::new([0, 0x16, 0x3e, b, c, d]),
            kind: match request.kind {
                NewEni::Secondary => EniKind::Secondary,
                NewEni::Trunk => EniKind::Trunk,
            },
            status: EniStatus::Available,
            vswitch: request.vswitch.clone(),
            zone: ZoneId::new("h"),
            vpc: VpcId::new("vpc"),
            security_groups: request.security_groups.clone(),
            instance: None,
            trunk: None,
            device_index: None,
            primary_v4: v4.first().copied(),
            v4,
            v6: (0..request.v6).map(|n| self.v6(n)).collect(),
            v4_prefixes,
            v6_prefixes,
            tags: request.tags.clone(),
            created: None,
        };
        self.tokens.insert(request.token.clone(), id.clone());
        self.enis.insert(id, eni.clone());
        Ok(Written::Eni(Box::new(eni)))
    }

    /// One that was given back, or one that was never given before.
    fn v4(&mut self, n: u32) -> Ipv4Addr {
        self.made += 1;
        let fresh = Ipv4Addr::from(0x0a00_0000 + self.made * 64 + n);
        let again = self.again(IpAddr::is_ipv4);
        again.and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }).unwrap_or(fresh)
    }

    fn v6(&mut self, n: u32) -> Ipv6Addr {
        self.made += 1;
        let base: u128 = 0x2408_0001_0002_0003_0000_0000_0000_0000;
        let fresh = Ipv6Addr::from(base + u128::from(self.made * 64 + n));
        let again = self.again(IpAddr::is_ipv6);
        again.and_then(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }).unwrap_or(fresh)
    }

    /// The cloud gives what it was given back again, and sometimes at once.
    fn again(&mut self, family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
        if self.freed.is_empty() || self.roll(50) {
            return None;
        }
        let index = self.freed.iter().rposition(family)?;
        Some(self.freed.swap_remove(index))
    }

    fn take(&mut self, id: &VSwitchId, count: u64, action: Action) -> Result<(), CloudError> {
        let exhausted = Meaning::VSwitchExhausted { vswitch: Some(id.clone()) };
        let empty = || refused(action, exhausted.clone(), "InvalidVSwitchId.IpNotEnough");
        let vswitch = self.vswitches.get_mut(id).ok_or_else(empty)?;
        vswitch.available = vswitch.available.checked_sub(count).ok_or_else(empty)?;
        Ok(())
    }

    fn attach(&mut self, request: &AttachEni) -> Result<Written, CloudError> {
        let action = Action::AttachNetworkInterface;
        let on = |eni: &&Eni| eni.instance.as_ref() == Some(&request.instance);
        let members = self.enis.values().filter(on).filter(|eni| eni.trunk.is_some()).count();
        // The primary ENI is not in the list.
        let enis = self.enis.values().filter(on).count() - members + 1;
        let (used, limit) = match request.trunk {
            Some(_) => (members, self.limits.members),
            None => (enis, self.limits.enis),
        };
        // A test may name a trunk that was never made here; one that was has to be there.
        let made = |id: &&EniId| self.tokens.values().any(|made| made == *id);
        let in_use = |id: &EniId| self.enis.get(id).is_some_and(|t| t.status == EniStatus::InUse);
        if request.trunk.as_ref().filter(made).is_some_and(|trunk| !in_use(trunk)) {
            return Err(missing(action, Thing::Eni));
        }
        let index = (1..=4094).find(|n| self.enis.values().all(|eni| eni.device_index != Some(*n)));
        let eni = self.enis.get_mut(&request.eni);
        let eni = eni.ok_or_else(|| missing(action, Thing::Eni))?;
        if eni.status != EniStatus::Available {
            return Err(refused(action, Meaning::EniState, "InvalidOperation.InvalidEniState"));
        }
        if used >= limit {
            return Err(refused(action, Meaning::EniQuota, "EniPerInstanceLimitExceeded"));
        }
        eni.status = EniStatus::Attaching;
        eni.instance = Some(request.instance.clone());
        eni.trunk.clone_from(&request.trunk);
        eni.device_index = index;
        if request.trunk.is_some() {
            eni.kind = EniKind::Member;
        }
        let in_use = Pending::Status(request.eni.clone(), EniStatus::InUse);
        self.pending.push((self.now + self.delay, in_use));
        Ok(Written::Done)
    }

    fn detach(&mut self, request: &DetachEni) -> Result<Written, CloudError> {
        let action = Action::DetachNetworkInterface;
        let Some(eni) = self.enis.get_mut(&request.eni) else { return Ok(Written::Done) };
        if !matches!(eni.status, EniStatus::InUse | EniStatus::Detaching) {
            return Err(refused(action, Meaning::EniState, "InvalidOperation.InvalidEniState"));
        }
        eni.status = EniStatus::Detaching;
        let free = Pending::Status(request.eni.clone(), EniStatus::Available);
        self.pending.push((self.now + self.delay, free));
        Ok(Written::Done)
    }

    fn delete(&mut self, id: &EniId) -> Result<Written, CloudError> {
        let Some(eni) = self.enis.get(id) else { return Ok(Written::Done) };
        if eni.status != EniStatus::Available {
            let action = Action::DeleteNetworkInterface;
            return Err(refused(action, Meaning::EniState, "InvalidOperation.InvalidEniState"));
        }
        let (held, vswitch) = (addresses(eni), eni.vswitch.clone());
        let prefixes = eni.v4_prefixes.clone();
        self.free(held, &vswitch);
        self.unassign_v4_prefixes(id, &prefixes);
        self.enis.remove(id);
        Ok(Written::Done)
    }

    fn assign_v4(&mut self, request: &AssignAddresses<Ipv4Addr>) -> Result<Written, CloudError> {
        let action = Action::AssignPrivateIpAddresses;
        if let Some((v4, _)) = self.assigned.get(&request.token) {
            return Ok(Written::V4(v4.clone()));
        }
        let AddressRequest::Any(count) = request.addresses else { return Err(garbage(action)) };
        let eni = self.enis.get(&request.eni).ok_or_else(|| missing(action, Thing::Eni))?;
        let taken = eni.v4.len() + eni.v4_prefixes.len();
        if taken + usize::try_from(count).unwrap_or(0) > self.limits.addresses {
            return Err(refused(action, Meaning::V4Quota, "Ipv4CountExceeded"));
        }
        let vswitch = eni.vswitch.clone();
        self.take(&vswitch, count.into(), action)?;
        let v4: Vec<_> = (0..count).map(|n| self.v4(n)).collect();
        if let Some(eni) = self.enis.get_mut(&request.eni) {
            eni.v4.extend(&v4);
        }
        self.assigned.insert(request.token.clone(), (v4.clone(), Vec::new()));
        Ok(Written::V4(v4))
    }

    fn assign_v6(&mut self, request: &AssignAddresses<Ipv6Addr>) -> Result<Written, CloudError> {
        let action = Action::AssignIpv6Addresses;
        if let Some((_, v6)) = self.assigned.get(&request.token) {
            return Ok(Written::V6(v6.clone()));
        }
        let AddressRequest::Any(count) = request.addresses else { return Err(garbage(action)) };
        let eni = self.enis.get(&request.eni).ok_or_else(|| missing(action, Thing::Eni))?;
        let taken = eni.v6.len() + eni.v6_prefixes.len();
        if taken + usize::try_from(count).unwrap_or(0) > self.limits.addresses {
            return Err(refused(action, Meaning::V6Quota, "Ipv6CountExceeded"));
        }
        let v6: Vec<_> = (0..count).map(|n| self.v6(n)).collect();
        if let Some(eni) = self.enis.get_mut(&request.eni) {
            eni.v6.extend(&v6);
        }
        self.assigned.insert(request.token.clone(), (Vec::new(), v6.clone()));
        Ok(Written::V6(v6))
    }

    fn unassign(&mut self, id: &EniId, take: impl FnOnce(&mut Eni) -> Vec<IpAddr>) -> Written {
        let Some(eni) = self.enis.get_mut(id) else { return Written::Done };
        let (taken, vswitch) = (take(eni), eni.vswitch.clone());
        self.free(taken, &vswitch);
        Written::Done
    }

    fn give_back(&mut self, id: &VSwitchId, count: u64) {
        if let Some(vswitch) = self.vswitches.get_mut(id) {
            vswitch.available += count;
        }
    }

    fn free(&mut self, addresses: Vec<IpAddr>, vswitch: &VSwitchId) {
        let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        if let Some(vswitch) = self.vswitches.get_mut(vswitch) {
            vswitch.available += u64::try_from(v4).unwrap_or(0);
        }
        self.freed.extend(addresses);
    }

    /// ENIs of an instance, attached or on their way.
    pub fn on<'a>(&'a self, instance: &'a InstanceId) -> impl Iterator<Item = &'a Eni> {
        self.enis.values().filter(move |eni| eni.instance.as_ref() == Some(instance))
    }
}

fn addresses(eni: &Eni) -> Vec<IpAddr> {
    let v4 = eni.v4.iter().copied().map(IpAddr::V4);
    v4.chain(eni.v6.iter().copied().map(IpAddr::V6)).collect()
}

fn matches(eni: &Eni, filter: &EniFilter) -> bool {
    let tagged = |(key, value): (&String, &String)| eni.tags.get(key) == Some(value);
    (filter.ids.is_empty() || filter.ids.contains(&eni.id))
        && filter.instance.as_ref().is_none_or(|i| eni.instance.as_ref() == Some(i))
        && filter.kind.as_ref().is_none_or(|kind| &eni.kind == kind)
        && filter.status.as_ref().is_none_or(|status| &eni.status == status)
        && filter.tags.iter().all(tagged)
}

fn refused(action: Action, meaning: Meaning, code: &str) -> CloudError {
    CloudError::Refused(Box::new(ApiError {
        action,
        status: 403,
        code: code.to_owned(),
        message: "as the simulation will have it".to_owned(),
        request_id: "R-1".to_owned(),
        meaning,
        retry_after: None,
    }))
}

fn missing(action: Action, thing: Thing) -> CloudError {
    refused(action, Meaning::NotFound(thing), "InvalidEniId.NotFound")
}

fn unknown(action: Action) -> CloudError {
    let last = Box::new(refused(action, Meaning::Unavailable, "ServiceUnavailable"));
    CloudError::Unknown { action, attempts: 1, last }
}

fn garbage(action: Action) -> CloudError {
    let (reason, body) = ("not simulated".to_owned(), String::new());
    CloudError::Garbage { action, status: 200, reason, body, last: None }
}
