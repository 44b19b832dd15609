//! The state of the cloud and how it moves: calls come in, changes of ENIs take their time, and
//! what is true changes when the wires have followed. No clock and no socket: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use model::{EniId, InstanceId, Mac, SecurityGroupId, VSwitchId, VlanId, VpcId};
use serde_json::Value;

use super::addresses::{AddressPool, Ask, Denied};
use super::operations::{Change, Effect, Operation, OperationId, Operations, Work};
use super::random::Random;
use super::refusal::Refusal;
use super::settings::Settings;
use super::throttle::Buckets;
use super::tokens::Tokens;
use super::world::{Attachment, Dangling, Eni, EniStatus, Instance, View, World};

/// When a call is served, and how old the world is that it sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    /// What reads show is as it was then.
    pub(crate) seen: Timestamp,
}

impl Moment {
    /// `now`, with reads that lag by `lag`.
    pub(crate) fn lagging(now: Timestamp, lag: Duration) -> Self {
        Self { now, seen: now.checked_sub(lag).unwrap_or(now) }
    }
}

/// What an action answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The body without its `RequestId`.
    pub(crate) body: Value,
    /// The answer goes out when this is done.
    pub(crate) wait: Option<OperationId>,
    /// The answer goes out when the wires know this group's rules.
    pub(crate) rules: Option<SecurityGroupId>,
}

impl Answer {
    pub(crate) const fn now(body: Value) -> Self {
        Self { body, wait: None, rules: None }
    }

    pub(crate) const fn after(body: Value, wait: OperationId) -> Self {
        Self { body, wait: Some(wait), rules: None }
    }
}

/// The cloud.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) settings: Settings,
    pub(crate) world: World,
    pub(crate) pools: BTreeMap<VSwitchId, AddressPool>,
    pub(crate) operations: Operations,
    pub(crate) tokens: Tokens,
    pub(crate) buckets: Buckets,
    pub(crate) random: Random,
    /// What the wires refused, in order.
    pub(crate) failures: Vec<String>,
    last_id: u32,
}

impl Cloud {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            world: World::default(),
            pools: BTreeMap::new(),
            operations: Operations::default(),
            tokens: Tokens::default(),
            buckets: Buckets::default(),
            random: Random::new(seed),
            failures: Vec::new(),
            last_id: 0,
        }
    }

    /// As it is.
    pub(crate) const fn view(&self) -> View<'_> {
        self.world.now()
    }

    /// As a read shows it.
    pub(crate) const fn seen(&self, moment: Moment) -> View<'_> {
        self.world.seen(moment.seen)
    }

    /// A number that was never given before.
    pub(crate) const fn next_number(&mut self) -> u32 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// `eni-lab0000000a` and the like; never given twice.
    pub(crate) fn next_id(&mut self, prefix: &str) -> String {
        format!("{prefix}-lab{:08x}", self.next_number())
    }

    /// A MAC of the cloud's vendor prefix; never given twice.
    pub(crate) const fn next_mac(&mut self) -> Mac {
        let [_, a, b, c] = self.next_number().to_be_bytes();
        Mac::new([0x00, 0x16, 0x3e, a, b, c])
    }

    /// The ENI as it is, or the refusal that it does not exist.
    pub(crate) fn eni(&self, id: &str) -> Result<Eni, Refusal> {
        let found = self.view().eni(&EniId::new(id)).map(|eni| Eni::clone(eni));
        found.ok_or_else(|| Refusal::eni_not_found(id))
    }

    /// The ENI, if nothing else is being done to it.
    pub(crate) fn idle_eni(&self, id: &str) -> Result<Eni, Refusal> {
        let eni = self.eni(id)?;
        match eni.status {
            EniStatus::Available | EniStatus::InUse if self.operations.is_busy(&eni.id) => {
                Err(Refusal::conflict(id))
            }
            _ => Ok(eni),
        }
    }

    /// The instance, if it can be worked with at all.
    pub(crate) fn instance(&self, id: &str) -> Result<Instance, Refusal> {
        let found = self.view().instance(&InstanceId::new(id)).map(|found| Instance::clone(found));
        found.ok_or_else(|| Refusal::instance_not_found(id))
    }

    pub(crate) fn put_eni(&mut self, eni: Eni, now: Timestamp) {
        self.world.enis.put(eni.id.clone(), eni, now);
    }

    /// Takes addresses and prefixes of a vSwitch, all or none.
    pub(crate) fn take_addresses(
        &mut self,
        vswitch: &VSwitchId,
        ask: &Ask,
    ) -> Result<Vec<IpNetwork>, Refusal> {
        let pool = self.pools.get_mut(vswitch);
        let pool = pool.ok_or_else(|| Refusal::vswitch_not_found(vswitch))?;
        pool.take(ask, &mut self.random).map_err(|denied| refuse_address(denied, vswitch))
    }

    /// IPv4 addresses of the VPC that are given or about to be.
    pub(crate) fn taken_in(&self, vpc: &VpcId) -> usize {
        let of_vpc = self.world.vswitches.values().filter(|vswitch| &vswitch.vpc == vpc);
        let pools = of_vpc.filter_map(|vswitch| self.pools.get(&vswitch.id));
        pools.map(AddressPool::taken_v4).sum()
    }

    pub(crate) fn give_back(
        &mut self,
        vswitch: &VSwitchId,
        addresses: impl IntoIterator<Item = IpNetwork>,
    ) {
        if let Some(pool) = self.pools.get_mut(vswitch) {
            pool.give_back(addresses);
        }
    }

    /// Starts a change that becomes true `after` from now, when `effects` have been done.
    pub(crate) fn begin(
        &mut self,
        eni: &EniId,
        change: Change,
        effects: Vec<Effect>,
        after: u32,
        now: Timestamp,
    ) -> OperationId {
        let due = now.checked_add(Duration::from_millis(u64::from(after))).unwrap_or(now);
        self.operations.begin(Operation { eni: eni.clone(), change, effects, due, token: None })
    }

    /// The ENI becomes `next`: at once if the wires have nothing to do with it, else when they
    /// have followed.
    pub(crate) fn replace(
        &mut self,
        next: Eni,
        effect: fn(super::PluggedEni) -> Effect,
        taken: Vec<IpNetwork>,
        returned: Vec<IpNetwork>,
        now: Timestamp,
    ) -> Result<OperationId, Refusal> {
        let effects = match self.plugged(&next) {
            _ if !next.is_plugged() => Vec::new(),
            Ok(plugged) => vec![effect(plugged)],
            Err(refusal) => {
                self.give_back(&next.vswitch, taken);
                return Err(refusal);
            }
        };
        let id = next.id.clone();
        let change = Change::Replace { eni: Box::new(next), taken, returned };
        Ok(self.begin(&id, change, effects, self.settings.write_ms, now))
    }

    pub(crate) fn plugged(&self, eni: &Eni) -> Result<super::PluggedEni, Refusal> {
        self.view().plugged(eni).map_err(|dangling: Dangling| Refusal::internal(dangling))
    }

    /// What is due.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Vec<Work> {
        self.world.enis.forget(now);
        self.world.instances.forget(now);
        self.tokens.forget(now, self.settings.token_seconds);
        self.operations.due(now)
    }

    /// The wires have followed, or refused to and said why.
    pub(crate) fn finish(&mut self, id: OperationId, outcome: &Result<(), String>, now: Timestamp) {
        let Some(operation) = self.operations.finish(id) else { return };
        if let Err(why) = outcome {
            self.failures.push(format!("{}: {why}", operation.eni));
        }
        if let Some(token) = &operation.token {
            if outcome.is_ok() { self.tokens.done(token) } else { self.tokens.failed(token) }
        }
        let Some(eni) = self.view().eni(&operation.eni).map(|eni| Eni::clone(eni)) else { return };
        match (operation.change, outcome.is_ok()) {
            (Change::Attach, true) => {
                self.put_eni(Eni { status: EniStatus::InUse, ..eni }, now);
            }
            (Change::Attach, false) | (Change::Detach, true) => {
                let free = Eni { status: EniStatus::Available, attachment: None, ..eni };
                self.put_eni(free, now);
            }
            (Change::Remove, true) => self.remove_eni(&eni, now),
            (Change::Replace { eni: next, returned, .. }, true) => {
                self.give_back(&eni.vswitch, returned);
                // Tags are no business of the wires and may have changed meanwhile.
                self.put_eni(Eni { tags: eni.tags, ..*next }, now);
            }
            (Change::Replace { taken, .. }, false) => self.give_back(&eni.vswitch, taken),
            (Change::Detach | Change::Remove, false) => {}
        }
    }

    pub(crate) fn remove_eni(&mut self, eni: &Eni, now: Timestamp) {
        self.give_back(&eni.vswitch, eni.owned());
        self.world.enis.remove(&eni.id, now);
    }

    /// The lowest VLAN id that no member of `trunk` has: one that was just given up is the first to
    /// be given again, so that a stale filter is found out.
    pub(crate) fn free_vlan(&self, trunk: &EniId) -> Option<VlanId> {
        let taken: Vec<VlanId> = self
            .view()
            .members_of(trunk)
            .filter_map(|member| member.attachment.as_ref()?.member.as_ref().map(|(_, vlan)| *vlan))
            .collect();
        (1..=4094).filter_map(|id| VlanId::try_from(id).ok()).find(|vlan| !taken.contains(vlan))
    }

    /// `eni` on its way into `instance`, plugged `after` milliseconds from now.
    pub(crate) fn attaching(
        &mut self,
        eni: Eni,
        instance: InstanceId,
        member: Option<(EniId, VlanId)>,
        after: u32,
        now: Timestamp,
    ) -> Result<OperationId, Refusal> {
        let attachment = Some(Attachment { instance, member });
        let next = Eni { status: EniStatus::Attaching, attachment, ..eni };
        let effects = vec![Effect::Plug(self.plugged(&next)?)];
        let id = next.id.clone();
        self.put_eni(next, now);
        Ok(self.begin(&id, Change::Attach, effects, after, now))
    }

    /// `eni` on its way out, unplugged `after` milliseconds from now; `change` says what it is afterwards.
    pub(crate) fn detaching(
        &mut self,
        eni: Eni,
        change: Change,
        after: u32,
        now: Timestamp,
    ) -> Result<OperationId, Refusal> {
        let next = Eni { status: EniStatus::Detaching, ..eni };
        let effects = vec![Effect::Unplug(self.plugged(&next)?)];
        let id = next.id.clone();
        self.put_eni(next, now);
        Ok(self.begin(&id, change, effects, after, now))
    }
}

fn refuse_address(denied: Denied, vswitch: &VSwitchId) -> Refusal {
    match denied {
        Denied::UsedUp => Refusal::addresses_used_up(vswitch),
        Denied::NoIpv6 => {
            let text = format!("The VSwitch {vswitch} has no IPv6 block.");
            Refusal::new(403, "InvalidVSwitch.Ipv6NotTurnOn", text)
        }
        Denied::Taken(named) => {
            Refusal::new(403, "InvalidIp.IpAssigned", format!("The IP {named} is assigned."))
        }
        Denied::NotOfThisBlock(named) => {
            let text = format!("The IP {named} cannot be given in the VSwitch {vswitch}.");
            Refusal::new(403, "InvalidVSwitchId.IpInvalid", text)
        }
    }
}
