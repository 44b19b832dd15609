//! `AttachNetworkInterface`, `DetachNetworkInterface`: into an instance, or onto its trunk.

use model::{EniId, VlanId};
use serde_json::json;

use super::{FLAG, NUMBER, TEXT};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::operations::Change;
use crate::ecs::refusal::Refusal;
use crate::ecs::world::{Eni, EniKind, EniStatus, Instance, InstanceState};

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("InstanceId", TEXT),
    ("TrunkNetworkInstanceId", TEXT),
    ("NetworkCardIndex", NUMBER),
    ("WaitForNetworkConfigurationReady", FLAG),
];

pub(super) fn attach(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    if arguments.number("NetworkCardIndex")?.unwrap_or(0) != 0 {
        return Err(Refusal::invalid("NetworkCardIndex", "the instance type has one card"));
    }
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    let instance = live_instance(cloud, arguments.required("InstanceId")?)?;
    if eni.status != EniStatus::Available {
        return Err(Refusal::eni_state(&eni.id, eni.status, "AttachNetworkInterface"));
    }
    if eni.vpc != instance.vpc {
        return Err(Refusal::vpc_mismatch(&eni.id, &instance.id));
    }
    if eni.zone != instance.zone {
        return Err(Refusal::zone_mismatch(&eni.id, &instance.id));
    }
    check_address_counts(&eni, &instance)?;
    let member = match arguments.text("TrunkNetworkInstanceId") {
        None => {
            check_room_for_nic(cloud, &eni, &instance)?;
            None
        }
        Some(trunk) => Some(place_on_trunk(cloud, &eni, trunk, &instance)?),
    };
    cloud.attaching(eni, instance.id, member, cloud.settings.attach_ms, moment.now)?;
    Ok(Answer::now(json!({})))
}

pub(super) const DETACH: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("InstanceId", TEXT),
    ("TrunkNetworkInstanceId", TEXT),
];

pub(super) fn detach(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    let instance = live_instance(cloud, arguments.required("InstanceId")?)?;
    if eni.kind == EniKind::Primary {
        let text = format!("Detaching the primary ENI {} is not allowed.", eni.id);
        return Err(Refusal::new(400, "InvalidOperation.DetachPrimaryEniNotAllowed", text));
    }
    if !matches!(eni.status, EniStatus::InUse | EniStatus::Detaching) {
        return Err(Refusal::eni_state(&eni.id, eni.status, "DetachNetworkInterface"));
    }
    if eni.instance() != Some(&instance.id) {
        return Err(Refusal::instance_not_found(format!("{} of {}", instance.id, eni.id)));
    }
    check_trunk_named(&eni, arguments.text("TrunkNetworkInstanceId"))?;
    if let Some(member) = cloud.view().members_of(&eni.id).next() {
        let text = format!("The member {} is on the trunk {}.", member.id, eni.id);
        return Err(Refusal::new(403, "InvalidOperation.EniLinked", text));
    }
    // One that is stuck in `Detaching` starts again; one that is under way goes on.
    if !cloud.operations.is_busy(&eni.id) {
        cloud.detaching(eni, Change::Detach, cloud.settings.detach_ms, moment.now)?;
    }
    Ok(Answer::now(json!({})))
}

fn live_instance(cloud: &Cloud, id: &str) -> Result<Instance, Refusal> {
    let instance = cloud.instance(id)?;
    match instance.state {
        InstanceState::Running | InstanceState::Stopped => Ok(instance),
        InstanceState::Starting | InstanceState::Stopping | InstanceState::Released => {
            Err(Refusal::instance_state(id, instance.state))
        }
    }
}

/// An ENI in no instance may have more addresses than an instance's type takes.
fn check_address_counts(eni: &Eni, instance: &Instance) -> Result<(), Refusal> {
    check_quota("Ipv4", eni.v4_slots(), instance.kind.v4_per_eni, instance)?;
    check_quota("Ipv6", eni.v6_slots(), instance.kind.v6_per_eni, instance)
}

/// `family`: `Ipv4` or `Ipv6`, as it stands in the code.
pub(super) fn check_quota(
    family: &str,
    count: usize,
    quota: usize,
    instance: &Instance,
) -> Result<(), Refusal> {
    if count <= quota {
        return Ok(());
    }
    let kind = instance.kind.id;
    if quota == 0 {
        let text = format!("The instance type {kind} has no {family} addresses.");
        return Err(Refusal::new(403, format!("InvalidOperation.{family}NotSupport"), text));
    }
    let text = format!("{count} {family} addresses on one ENI exceed the {quota} of {kind}.");
    Err(Refusal::new(403, format!("InvalidOperation.{family}CountExceeded"), text))
}

fn check_room_for_nic(cloud: &Cloud, eni: &Eni, instance: &Instance) -> Result<(), Refusal> {
    let nics = cloud.view().enis_of(&instance.id).filter(|other| other.trunk().is_none()).count();
    if nics >= instance.kind.enis {
        return Err(limit_exceeded(instance, instance.kind.enis, "ENIs"));
    }
    if eni.kind == EniKind::Trunk {
        if !instance.kind.trunk {
            let why = format!("{} does not support trunk ENIs", instance.kind.id);
            return Err(Refusal::eni_type(why));
        }
        if cloud.view().enis_of(&instance.id).any(|other| other.kind == EniKind::Trunk) {
            return Err(Refusal::eni_type(format!("{} has a trunk already", instance.id)));
        }
    }
    Ok(())
}

/// The trunk and the VLAN for a new member.
fn place_on_trunk(
    cloud: &Cloud,
    eni: &Eni,
    trunk: &str,
    instance: &Instance,
) -> Result<(EniId, VlanId), Refusal> {
    let trunk = cloud.eni(trunk)?;
    if trunk.kind != EniKind::Trunk {
        return Err(Refusal::eni_type(format!("{} is no trunk", trunk.id)));
    }
    if eni.kind != EniKind::Secondary {
        return Err(Refusal::eni_type(format!("{} cannot be a member", eni.id)));
    }
    if trunk.status != EniStatus::InUse || trunk.instance() != Some(&instance.id) {
        return Err(Refusal::eni_state(&trunk.id, trunk.status, "members on that instance"));
    }
    if cloud.view().members_of(&trunk.id).count() >= instance.kind.members() {
        return Err(limit_exceeded(instance, instance.kind.members(), "member ENIs"));
    }
    let vlan = cloud.free_vlan(&trunk.id);
    let vlan = vlan.ok_or_else(|| limit_exceeded(instance, 4094, "VLANs"))?;
    Ok((trunk.id, vlan))
}

fn limit_exceeded(instance: &Instance, limit: usize, what: &str) -> Refusal {
    let kind = instance.kind.id;
    let text = format!("The number of {what} exceeds the limit of {limit} of {kind}.");
    Refusal::new(403, "EniPerInstanceLimitExceeded", text)
}

/// A member is detached from its trunk by name; who is no member has none.
fn check_trunk_named(eni: &Eni, trunk: Option<&str>) -> Result<(), Refusal> {
    match (eni.trunk(), trunk) {
        (None, None) => Ok(()),
        (Some(is), Some(named)) if is.as_str() == named => Ok(()),
        (Some(_), None) => Err(Refusal::missing("TrunkNetworkInstanceId")),
        (_, Some(named)) => {
            let why = format!("{} is not on {named}", eni.id);
            Err(Refusal::invalid("TrunkNetworkInstanceId", why))
        }
    }
}
