//! What the pool looks like from outside: in few words to all who listen, whole to who asks.

use std::collections::BTreeMap;

use controlplane::{Eni, Goal, Kind, Owner, Stage};
use model::{EniId, Mac, SandboxKey, VlanId};
use proto::debug;

use super::pool::{Family, LinkState, Pool, Port, SlotState, mark};
use super::state::{State, owner_name};
use crate::datapath::EniKind;

/// What is told after each step, so it is small: nothing in it is by pod, unless the pod is cut off.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Links of the ENIs that have one.
    pub carriers: BTreeMap<EniId, Carrier>,
    /// Sandboxes whose addresses the cloud has lost, each with a sentence.
    pub cut_off: BTreeMap<SandboxKey, String>,
    /// Why an ADD could not be served now; `None` if it could.
    pub not_ready: Option<String>,
}

/// The link that carries the frames of an ENI's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Its name.
    pub name: String,
    /// The ENI's MAC.
    pub mac: Mac,
    /// Largest packet, bytes.
    pub mtu: u32,
}

/// All of it, for the debug socket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// ENIs, addresses and members.
    pub enis: debug::EnisReply,
    /// Numbers.
    pub pool: debug::Pool,
    /// The last error of the cloud's API, with its RequestId.
    pub last_cloud_error: Option<String>,
}

impl Standing {
    pub(super) fn of(state: &State) -> Self {
        let carriers = state.pool.ports().filter_map(|(_, port)| {
            let LinkState::Up(link) = &port.link else { return None };
            let carrier = Carrier { name: link.name.to_string(), mac: port.mac, mtu: link.mtu };
            Some((port.id.clone(), carrier))
        });
        Self {
            carriers: carriers.collect(),
            cut_off: cut_off(state),
            not_ready: state.pool.not_ready(),
        }
    }
}

impl Snapshot {
    pub(super) fn of(state: &State) -> Self {
        let lost: BTreeMap<&EniId, bool> =
            state.members.cut_off().map(|(_, eni, certain)| (eni, certain)).collect();
        let members: Vec<(EniId, debug::Member)> =
            state.members.enis().filter_map(|eni| member(eni, &lost)).collect();
        let enis = state.pool.records().map(|record| {
            let mut eni = eni(record, &state.pool);
            let mine = members.iter().filter(|(trunk, _)| record.id() == Some(trunk));
            eni.members = mine.map(|(_, member)| member.clone()).collect();
            eni
        });
        Self {
            enis: debug::EnisReply { enis: enis.collect() },
            pool: numbers(state),
            last_cloud_error: state.last_cloud_error.clone(),
        }
    }
}

fn cut_off(state: &State) -> BTreeMap<SandboxKey, String> {
    let members =
        state.members.cut_off().filter(|(_, _, certain)| *certain).map(|(key, eni, _)| {
            (
                key.clone(),
                format!("the cloud has lost the pod's member ENI {eni}; the pod is cut off"),
            )
        });
    let shared = state.pool.ports().flat_map(|(_, port)| {
        port.shelf.iter().filter_map(|(address, slot)| match &slot.state {
            SlotState::Invalid(key) => Some((
                key.clone(),
                format!(
                    "the cloud does not know {address} on ENI {} any more; the pod is cut off",
                    port.id
                ),
            )),
            _ => None,
        })
    });
    members.chain(shared).collect()
}

fn numbers(state: &State) -> debug::Pool {
    let (pool, settings) = (&state.pool, state.pool.settings());
    let stack = settings.stack;
    let family = if stack.v4() { Family::V4 } else { Family::V6 };
    let sum = |count: &dyn Fn(&Port) -> u32| pool.ports().map(|(_, port)| count(port)).sum();
    debug::Pool {
        enis: count(pool.records().count()),
        max_enis: pool.max_enis(),
        idle: sum(&|port| if port.serves() { port.shelf.idle_pairs(stack) } else { 0 }),
        used: sum(&|port| port.shelf.count(family, |state| state.owner().is_some())),
        resting: sum(&|port| port.shelf.resting(stack)),
        leaving: sum(&|port| port.shelf.leaving(stack)),
        capacity: pool.max_enis().saturating_mul(settings.capacity.per_eni),
        members: count(state.members.enis().count()),
        max_members: if settings.trunking { settings.capacity.members } else { 0 },
        waiting: count(pool.waiting() + state.members.waiting()),
    }
}

fn eni(record: &super::EniRecord, pool: &Pool) -> debug::Eni {
    let mask = pool.settings().mark_mask;
    let port = pool.ports().find(|(token, _)| **token == record.token).map(|(_, port)| port);
    let link = port.and_then(|port| match &port.link {
        LinkState::Up(link) => Some(link),
        LinkState::Setting { .. } | LinkState::Wanted(_) => None,
    });
    let index = link.map_or(0, |link| link.index.get());
    let kind = if record.spec.kind == Kind::Trunk { EniKind::Trunk } else { EniKind::Secondary };
    debug::Eni {
        id: record.id().map(ToString::to_string).unwrap_or_default(),
        kind: match kind {
            EniKind::Trunk => "trunk".to_owned(),
            EniKind::Secondary => "secondary".to_owned(),
        },
        phase: match port {
            Some(port) if port.lost => "lost",
            Some(port) if port.missing.is_some() => "missing",
            _ => phase(record),
        }
        .to_owned(),
        mac: port.map(|port| port.mac.to_string()).unwrap_or_default(),
        link: link.map(|link| link.name.to_string()).unwrap_or_default(),
        link_index: index,
        table: link.map_or(0, |link| model::TableId::of(link.index).get()),
        mark: mark(record.owner.number, mask).map_or(0, model::Mark::value),
        mark_mask: mask,
        vswitch: record.spec.vswitch.to_string(),
        security_groups: record.spec.security_groups.iter().map(ToString::to_string).collect(),
        addresses: port.map(addresses).unwrap_or_default(),
        members: Vec::new(),
        mtu: link.map_or(0, |link| link.mtu),
    }
}

/// A pod's pair is one line; what nobody has is a line by itself.
fn addresses(port: &Port) -> Vec<debug::Address> {
    let mut lines: Vec<debug::Address> = Vec::new();
    for (address, slot) in port.shelf.iter() {
        let owner = slot.state.owner().map(ToString::to_string).unwrap_or_default();
        let partner = lines.iter_mut().find(|line| {
            address.is_ipv6() && !owner.is_empty() && line.owner == owner && line.ipv6.is_empty()
        });
        let text = address.to_string();
        if let Some(line) = partner {
            line.ipv6 = text;
            continue;
        }
        let (ipv4, ipv6) =
            if address.is_ipv4() { (text, String::new()) } else { (String::new(), text) };
        let state = slot.state.name().to_owned();
        lines.push(debug::Address { ipv4, ipv6, state, primary: slot.primary, owner });
    }
    lines
}

fn member(eni: &Eni<Owner>, lost: &BTreeMap<&EniId, bool>) -> Option<(EniId, debug::Member)> {
    let Kind::Member(trunk) = &eni.spec.kind else { return None };
    let binding = eni.binding();
    let v4 = binding.and_then(|binding| binding.addresses.v4());
    let v6 = binding.and_then(|binding| binding.addresses.v6());
    let member = debug::Member {
        id: eni.id().map(ToString::to_string).unwrap_or_default(),
        vlan: binding.and_then(|b| b.vlan).map_or(0, |vlan: VlanId| vlan.get().into()),
        mac: binding.map(|binding| binding.mac).map(|mac: Mac| mac.to_string()).unwrap_or_default(),
        vswitch: eni.spec.vswitch.to_string(),
        security_groups: eni.spec.security_groups.iter().map(ToString::to_string).collect(),
        ipv4: v4.map(|address| address.to_string()).unwrap_or_default(),
        ipv6: v6.map(|address| address.to_string()).unwrap_or_default(),
        phase: match eni.id().and_then(|id| lost.get(id)) {
            Some(true) => "lost",
            Some(false) => "missing",
            None => phase(eni),
        }
        .to_owned(),
        pod_networking: eni.owner.pod_networking.clone(),
        owner: owner_name(&eni.owner),
    };
    Some((trunk.clone(), member))
}

const fn phase<T>(eni: &Eni<T>) -> &'static str {
    match (eni.goal, &eni.stage) {
        (Goal::Bound, Stage::Intended) => "creating",
        (Goal::Bound, Stage::Made(_)) => "attaching",
        (Goal::Bound, Stage::Bound(_)) => "in_use",
        (Goal::Gone, Stage::Bound(_)) => "detaching",
        (Goal::Gone, Stage::Intended | Stage::Made(_)) => "deleting",
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
