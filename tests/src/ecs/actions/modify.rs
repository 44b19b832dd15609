//! `ModifyNetworkInterfaceAttribute`, `TagResources`.

use model::EniId;
use serde_json::json;

use super::create::{check_groups, tags};
use super::{FLAG, MOST_TAGS, TAGS, TEXT, TEXTS};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::operations::{Change, Effect};
use crate::ecs::refusal::Refusal;
use crate::ecs::world::{Eni, EniStatus, Instance, Tags};

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXT),
    ("NetworkInterfaceName", TEXT),
    ("Description", TEXT),
    ("SecurityGroupId", TEXTS),
    ("SourceDestCheck", FLAG),
    ("DeleteOnRelease", FLAG),
];

pub(super) fn run(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    if !matches!(eni.status, EniStatus::Available | EniStatus::InUse) {
        let action = "ModifyNetworkInterfaceAttribute";
        return Err(Refusal::eni_state(&eni.id, eni.status, action));
    }
    let next = modified(cloud, &eni, arguments)?;
    let mut effects = Vec::new();
    if next.is_plugged() {
        let plugged = cloud.plugged(&next)?;
        if next.groups != eni.groups {
            effects.push(Effect::SetGroups(plugged.clone()));
        }
        if next.source_dest_check != eni.source_dest_check {
            effects.push(Effect::SetSourceDestCheck(plugged));
        }
    }
    let change = Change::Replace { eni: Box::new(next), taken: Vec::new(), returned: Vec::new() };
    let id = cloud.begin(&eni.id, change, effects, cloud.settings.write_ms, moment.now);
    Ok(Answer::after(json!({}), id))
}

fn modified(cloud: &Cloud, eni: &Eni, arguments: &Arguments) -> Result<Eni, Refusal> {
    let mut next = eni.clone();
    let named = arguments.texts("SecurityGroupId");
    if !named.is_empty() {
        next.groups = check_groups(cloud, "SecurityGroupId", &named, &eni.vpc)?;
    }
    if let Some(check) = arguments.flag("SourceDestCheck") {
        next.source_dest_check = check;
    }
    if let Some(delete) = arguments.flag("DeleteOnRelease") {
        next.delete_on_release = delete;
    }
    if let Some(name) = arguments.text("NetworkInterfaceName") {
        name.clone_into(&mut next.name);
    }
    if let Some(description) = arguments.text("Description") {
        description.clone_into(&mut next.description);
    }
    Ok(next)
}

pub(super) const TAG: Grammar =
    &[("RegionId", TEXT), ("ResourceType", TEXT), ("ResourceId", TEXTS), ("Tag", TAGS)];

/// Of one call.
const MOST_RESOURCES: usize = 50;

pub(super) fn tag(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let kind = arguments.required("ResourceType")?;
    let new = tags(arguments)?;
    if new.is_empty() {
        return Err(Refusal::missing("Tag"));
    }
    let ids = arguments.texts("ResourceId");
    if ids.is_empty() {
        return Err(Refusal::missing("ResourceId"));
    }
    if ids.len() > MOST_RESOURCES {
        return Err(Refusal::invalid("ResourceId", format!("more than {MOST_RESOURCES}")));
    }
    match kind {
        "eni" => tag_enis(cloud, &ids, &new, moment)?,
        "instance" => tag_instances(cloud, &ids, &new, moment)?,
        _ => {
            let text = format!("The specified ResourceType {kind} does not exist.");
            return Err(Refusal::new(404, "InvalidResourceType.NotFound", text));
        }
    }
    Ok(Answer::now(json!({})))
}

fn tag_enis(cloud: &mut Cloud, ids: &[&str], new: &Tags, moment: Moment) -> Result<(), Refusal> {
    let find = |id: &&str| {
        let found = cloud.view().eni(&EniId::new(*id)).ok_or_else(|| resource_not_found(id))?;
        Ok(Eni { tags: merged(&found.tags, new)?, ..Eni::clone(found) })
    };
    let tagged: Vec<Eni> = ids.iter().map(find).collect::<Result<_, Refusal>>()?;
    for eni in tagged {
        cloud.put_eni(eni, moment.now);
    }
    Ok(())
}

fn tag_instances(
    cloud: &mut Cloud,
    ids: &[&str],
    new: &Tags,
    moment: Moment,
) -> Result<(), Refusal> {
    let find = |id: &&str| {
        let found = cloud.instance(id).map_err(|_absent| resource_not_found(id))?;
        Ok(Instance { tags: merged(&found.tags, new)?, ..found })
    };
    let tagged: Vec<Instance> = ids.iter().map(find).collect::<Result<_, Refusal>>()?;
    for instance in tagged {
        cloud.world.instances.put(instance.id.clone(), instance, moment.now);
    }
    Ok(())
}

fn merged(old: &Tags, new: &Tags) -> Result<Tags, Refusal> {
    let mut all = old.clone();
    all.extend(new.clone());
    if all.len() > MOST_TAGS {
        let text = format!("More than {MOST_TAGS} tags.");
        return Err(Refusal::new(400, "InvalidTagCount", text));
    }
    Ok(all)
}

fn resource_not_found(id: &str) -> Refusal {
    let text = format!("The specified ResourceId {id} does not exist.");
    Refusal::new(404, "InvalidResourceId.NotFound", text)
}
