//! `Assign…` and `Unassign…`: addresses of an ENI come and go.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::json;

use super::asked::{Asked, Family, IPV4, IPV6, check_prefix_amount, check_repeated};
use super::attach::check_quota;
use super::create::{MOST_SECONDARIES, MOST_V6, check_address_quota};
use super::{NUMBER, TEXT, TEXTS};
use crate::ecs::addresses::{Ask, prefixes_v4, prefixes_v6, single_v4, single_v6};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::operations::{Effect, OperationId};
use crate::ecs::refusal::Refusal;
use crate::ecs::world::{Eni, EniKind, EniStatus, InstanceState};

pub(super) const V4: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("PrivateIpAddress", TEXTS),
    ("SecondaryPrivateIpAddressCount", NUMBER),
    ("Ipv4Prefix", TEXTS),
    ("Ipv4PrefixCount", NUMBER),
];

pub(super) fn assign_v4(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "AssignPrivateIpAddresses")?;
    let asked = IPV4.asked(arguments, cloud.settings.assign_batch)?;
    if asked.slots() == 0 {
        return Err(Refusal::missing(IPV4.count));
    }
    check_room(cloud, &eni, eni.v4_slots() + asked.slots(), eni.v6_slots())?;
    check_address_quota(cloud, &eni.vpc, asked.v4_addresses())?;
    let Asked { named, addresses, prefixes } = asked;
    let ask = Ask { named, v4: addresses, v4_prefixes: prefixes, ..Ask::default() };
    let taken = cloud.take_addresses(&eni.vswitch, &ask)?;
    let body = json!({ "AssignedPrivateIpAddressesSet": {
        "NetworkInterfaceId": eni.id.as_str(),
        "PrivateIpSet": { "PrivateIpAddress": single_v4(&taken) },
        "Ipv4PrefixSet": { "Ipv4Prefixes": prefixes_v4(&taken) },
    } });
    grow(cloud, eni, taken, moment).map(|id| Answer::after(body, id))
}

pub(super) const V6: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("Ipv6Address", TEXTS),
    ("Ipv6AddressCount", NUMBER),
    ("Ipv6Prefix", TEXTS),
    ("Ipv6PrefixCount", NUMBER),
];

pub(super) fn assign_v6(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "AssignIpv6Addresses")?;
    let asked = IPV6.asked(arguments, cloud.settings.assign_batch.min(MOST_V6))?;
    if asked.slots() == 0 {
        return Err(Refusal::missing(IPV6.count));
    }
    check_room(cloud, &eni, eni.v4_slots(), eni.v6_slots() + asked.slots())?;
    let Asked { named, addresses, prefixes } = asked;
    let ask = Ask { named, v6: addresses, v6_prefixes: prefixes, ..Ask::default() };
    let taken = cloud.take_addresses(&eni.vswitch, &ask)?;
    let body = json!({
        "NetworkInterfaceId": eni.id.as_str(),
        "Ipv6Sets": { "Ipv6Address": single_v6(&taken) },
        "Ipv6PrefixSets": { "Ipv6Prefix": prefixes_v6(&taken) },
    });
    grow(cloud, eni, taken, moment).map(|id| Answer::after(body, id))
}

pub(super) const UNASSIGN_V4: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("PrivateIpAddress", TEXTS),
    ("Ipv4Prefix", TEXTS),
];

/// Of one call.
const MOST_UNASSIGNED_V4: usize = 32;

pub(super) fn unassign_v4(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "UnassignPrivateIpAddresses")?;
    let named = unassigned(IPV4, arguments, MOST_UNASSIGNED_V4)?;
    let primary = IpNetwork::from(IpAddr::V4(eni.primary_address()));
    if named.contains(&primary) {
        let why = format!("{primary} is the primary address of {}", eni.id);
        return Err(Refusal::invalid("PrivateIpAddress", why));
    }
    shrink(cloud, eni, named, moment)
}

pub(super) const UNASSIGN_V6: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("Ipv6Address", TEXTS),
    ("Ipv6Prefix", TEXTS),
];

pub(super) fn unassign_v6(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "UnassignIpv6Addresses")?;
    let named = unassigned(IPV6, arguments, MOST_V6)?;
    shrink(cloud, eni, named, moment)
}

/// Addresses or whole prefixes, not both.
fn unassigned(
    family: Family,
    arguments: &Arguments,
    most: usize,
) -> Result<Vec<IpNetwork>, Refusal> {
    let addresses = family.named_addresses(arguments)?;
    let prefixes = family.named_prefixes(arguments)?;
    if !addresses.is_empty() && !prefixes.is_empty() {
        return Err(Refusal::invalid(family.prefix, "addresses are named as well"));
    }
    if addresses.is_empty() && prefixes.is_empty() {
        return Err(Refusal::missing(family.address));
    }
    if addresses.len() > most {
        return Err(Refusal::amount(family.address, format!("1 to {most} at once")));
    }
    check_prefix_amount(family.prefix, prefixes.len())?;
    let named: Vec<_> = addresses.into_iter().chain(prefixes).collect();
    check_repeated(named.iter().copied())?;
    Ok(named)
}

/// An ENI whose addresses may change: `Available`, or `InUse` in a live instance.
fn settled_eni(cloud: &Cloud, arguments: &Arguments, action: &str) -> Result<Eni, Refusal> {
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    if !matches!(eni.status, EniStatus::Available | EniStatus::InUse) {
        return Err(Refusal::eni_state(&eni.id, eni.status, action));
    }
    if let Some(id) = eni.instance() {
        let instance = cloud.instance(id.as_str())?;
        let allows = match instance.state {
            InstanceState::Running | InstanceState::Stopped => true,
            InstanceState::Starting | InstanceState::Stopping => eni.kind != EniKind::Primary,
            InstanceState::Released => false,
        };
        if !allows {
            return Err(Refusal::instance_state(id, instance.state));
        }
    }
    Ok(eni)
}

/// The instance's type decides; without an instance, what Create allows.
fn check_room(cloud: &Cloud, eni: &Eni, v4: usize, v6: usize) -> Result<(), Refusal> {
    if let Some(id) = eni.instance() {
        let instance = cloud.instance(id.as_str())?;
        check_quota("Ipv4", v4, instance.kind.v4_per_eni, &instance)?;
        return check_quota("Ipv6", v6, instance.kind.v6_per_eni, &instance);
    }
    if v4 > MOST_SECONDARIES + 1 {
        let text = format!("{} would have more than 49 secondary addresses.", eni.id);
        return Err(Refusal::new(403, "InvalidOperation.Ipv4CountExceeded", text));
    }
    if v6 > MOST_V6 {
        let text = format!("{} would have more than {MOST_V6} IPv6 addresses.", eni.id);
        return Err(Refusal::new(403, "InvalidOperation.Ipv6CountExceeded", text));
    }
    Ok(())
}

fn grow(
    cloud: &mut Cloud,
    eni: Eni,
    taken: Vec<IpNetwork>,
    moment: Moment,
) -> Result<OperationId, Refusal> {
    let mut next = eni;
    next.v4.extend(single_v4(&taken));
    next.v6.extend(single_v6(&taken));
    next.v4_prefixes.extend(prefixes_v4(&taken));
    next.v6_prefixes.extend(prefixes_v6(&taken));
    cloud.replace(next, Effect::SetAddresses, taken, Vec::new(), moment.now)
}

/// All of `named` or nothing.
fn shrink(
    cloud: &mut Cloud,
    eni: Eni,
    named: Vec<IpNetwork>,
    moment: Moment,
) -> Result<Answer, Refusal> {
    if let Some(stranger) = named.iter().find(|one| !eni.owned().any(|own| own == **one)) {
        let text = format!("The specified IP {stranger} is not assigned to {}.", eni.id);
        return Err(Refusal::new(403, "InvalidIp.IpUnassigned", text));
    }
    let mut next = eni;
    next.v4.retain(|address| !named.contains(&IpAddr::V4(*address).into()));
    next.v6.retain(|address| !named.contains(&IpAddr::V6(*address).into()));
    next.v4_prefixes.retain(|prefix| !named.contains(&IpNetwork::V4(*prefix)));
    next.v6_prefixes.retain(|prefix| !named.contains(&IpNetwork::V6(*prefix)));
    let id = cloud.replace(next, Effect::SetAddresses, Vec::new(), named, moment.now)?;
    Ok(Answer::after(json!({}), id))
}
