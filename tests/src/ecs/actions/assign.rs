//! `Assign…` and `Unassign…`: addresses of an ENI come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::attach::check_quota;
use super::create::{MOST_SECONDARIES, MOST_V6, check_address_quota, check_amount, check_repeated};
use super::{NUMBER, TEXT, TEXTS};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::operations::Effect;
use crate::ecs::refusal::Refusal;
use crate::ecs::world::{Eni, EniStatus, InstanceState};

pub(super) const V4: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("PrivateIpAddress", TEXTS),
    ("SecondaryPrivateIpAddressCount", NUMBER),
];

pub(super) fn assign_v4(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "AssignPrivateIpAddresses")?;
    let named: Vec<Ipv4Addr> = arguments.parsed("PrivateIpAddress")?;
    let count = arguments.number("SecondaryPrivateIpAddressCount")?;
    let most = cloud.settings.assign_batch;
    check_amount("SecondaryPrivateIpAddressCount", named.len(), count, most)?;
    let more = count.unwrap_or(named.len());
    if more == 0 {
        return Err(Refusal::missing("SecondaryPrivateIpAddressCount"));
    }
    check_room(cloud, &eni, eni.v4.len() + more, eni.v6.len())?;
    check_address_quota(cloud, &eni.vpc, more)?;
    let named: Vec<IpAddr> = named.into_iter().map(IpAddr::V4).collect();
    check_repeated(named.iter().copied())?;
    let taken = cloud.take_addresses(&eni.vswitch, count.unwrap_or(0), 0, &named)?;
    let body = json!({ "AssignedPrivateIpAddressesSet": {
        "NetworkInterfaceId": eni.id.as_str(),
        "PrivateIpSet": { "PrivateIpAddress": taken },
        "Ipv4PrefixSet": { "Ipv4Prefixes": [] },
    } });
    grow(cloud, eni, taken, moment).map(|id| Answer::after(body, id))
}

pub(super) const V6: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("Ipv6Address", TEXTS),
    ("Ipv6AddressCount", NUMBER),
];

pub(super) fn assign_v6(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "AssignIpv6Addresses")?;
    let named: Vec<Ipv6Addr> = arguments.parsed("Ipv6Address")?;
    let count = arguments.number("Ipv6AddressCount")?;
    let most = cloud.settings.assign_batch.min(MOST_V6);
    check_amount("Ipv6AddressCount", named.len(), count, most)?;
    let more = count.unwrap_or(named.len());
    if more == 0 {
        return Err(Refusal::missing("Ipv6AddressCount"));
    }
    check_room(cloud, &eni, eni.v4.len(), eni.v6.len() + more)?;
    let named: Vec<IpAddr> = named.into_iter().map(IpAddr::V6).collect();
    check_repeated(named.iter().copied())?;
    let taken = cloud.take_addresses(&eni.vswitch, 0, count.unwrap_or(0), &named)?;
    let body = json!({
        "NetworkInterfaceId": eni.id.as_str(),
        "Ipv6Sets": { "Ipv6Address": taken },
        "Ipv6PrefixSets": { "Ipv6Prefix": [] },
    });
    grow(cloud, eni, taken, moment).map(|id| Answer::after(body, id))
}

pub(super) const UNASSIGN_V4: Grammar =
    &[("RegionId", TEXT), ("NetworkInterfaceId", TEXT), ("PrivateIpAddress", TEXTS)];

/// Of one call.
const MOST_UNASSIGNED_V4: usize = 32;

pub(super) fn unassign_v4(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "UnassignPrivateIpAddresses")?;
    let named: Vec<Ipv4Addr> = arguments.parsed("PrivateIpAddress")?;
    if named.contains(&eni.primary_address()) {
        let why = format!("{} is the primary address of {}", eni.primary_address(), eni.id);
        return Err(Refusal::invalid("PrivateIpAddress", why));
    }
    let named = named.into_iter().map(IpAddr::V4).collect();
    shrink(cloud, eni, "PrivateIpAddress", named, MOST_UNASSIGNED_V4, moment)
}

pub(super) const UNASSIGN_V6: Grammar =
    &[("RegionId", TEXT), ("NetworkInterfaceId", TEXT), ("Ipv6Address", TEXTS)];

pub(super) fn unassign_v6(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = settled_eni(cloud, arguments, "UnassignIpv6Addresses")?;
    let named: Vec<Ipv6Addr> = arguments.parsed("Ipv6Address")?;
    let named = named.into_iter().map(IpAddr::V6).collect();
    shrink(cloud, eni, "Ipv6Address", named, MOST_V6, moment)
}

/// An ENI whose addresses may change: `Available`, or `InUse` in a live instance.
fn settled_eni(cloud: &Cloud, arguments: &Arguments, action: &str) -> Result<Eni, Refusal> {
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    if !matches!(eni.status, EniStatus::Available | EniStatus::InUse) {
        return Err(Refusal::eni_state(&eni.id, eni.status, action));
    }
    if let Some(id) = eni.instance() {
        let instance = cloud.instance(id.as_str())?;
        if instance.state == InstanceState::Released {
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
    Ok(())
}

fn grow(
    cloud: &mut Cloud,
    eni: Eni,
    taken: Vec<IpAddr>,
    moment: Moment,
) -> Result<crate::ecs::operations::OperationId, Refusal> {
    let mut next = eni;
    for address in &taken {
        match address {
            IpAddr::V4(v4) => next.v4.push(*v4),
            IpAddr::V6(v6) => next.v6.push(*v6),
        }
    }
    cloud.replace(next, Effect::SetAddresses, taken, Vec::new(), moment.now)
}

/// All of `named` or nothing.
fn shrink(
    cloud: &mut Cloud,
    eni: Eni,
    parameter: &str,
    named: Vec<IpAddr>,
    most: usize,
    moment: Moment,
) -> Result<Answer, Refusal> {
    if named.is_empty() {
        return Err(Refusal::missing(parameter));
    }
    if named.len() > most {
        return Err(Refusal::amount(parameter, format!("1 to {most} at once")));
    }
    check_repeated(named.iter().copied())?;
    if let Some(stranger) =
        named.iter().find(|address| !eni.addresses().any(|own| own == **address))
    {
        let text = format!("The specified IP {stranger} is not assigned to {}.", eni.id);
        return Err(Refusal::new(403, "InvalidIp.IpUnassigned", text));
    }
    let mut next = eni;
    next.v4.retain(|address| !named.contains(&IpAddr::V4(*address)));
    next.v6.retain(|address| !named.contains(&IpAddr::V6(*address)));
    let id = cloud.replace(next, Effect::SetAddresses, Vec::new(), named, moment.now)?;
    Ok(Answer::after(json!({}), id))
}
