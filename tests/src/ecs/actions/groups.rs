//! Security groups: made, listed, looked into.

use model::{SecurityGroupId, VpcId};
use serde_json::{Value, json};

use super::create::tags;
use super::describe::has_tags;
use super::instances::json_list;
use super::permissions::permission;
use super::{NUMBER, TAGS, TEXT};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::paging::Page;
use crate::ecs::refusal::Refusal;
use crate::ecs::rules::{Direction, InnerAccess, SecurityGroup};
use crate::ecs::views;
use crate::ecs::world::Group;

pub(super) const CREATE: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("VpcId", TEXT),
    ("SecurityGroupName", TEXT),
    ("SecurityGroupType", TEXT),
    ("Description", TEXT),
    ("ResourceGroupId", TEXT),
    ("Tag", TAGS),
];

pub(super) fn create(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let vpc = VpcId::new(arguments.required("VpcId")?);
    if !cloud.world.vpcs.contains_key(&vpc) {
        let text = format!("The specified VpcId {vpc} does not exist.");
        return Err(Refusal::new(404, "InvalidVpcId.NotFound", text));
    }
    if !matches!(arguments.text("SecurityGroupType"), None | Some("normal")) {
        return Err(Refusal::invalid("SecurityGroupType", "the lab has basic groups (normal)"));
    }
    let tags = tags(arguments)?;
    let id = SecurityGroupId::new(cloud.next_id("sg"));
    let group = Group {
        vpc,
        name: arguments.text("SecurityGroupName").unwrap_or_default().to_owned(),
        description: arguments.text("Description").unwrap_or_default().to_owned(),
        tags,
        created: moment.now,
        rules: SecurityGroup {
            id: id.clone(),
            inner_access: InnerAccess::Accept,
            rules: Vec::new(),
        },
    };
    cloud.world.groups.insert(id.clone(), group);
    let body = json!({ "SecurityGroupId": id.as_str() });
    Ok(Answer { rules: Some(id), ..Answer::now(body) })
}

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("VpcId", TEXT),
    ("SecurityGroupId", TEXT),
    ("SecurityGroupIds", TEXT),
    ("SecurityGroupName", TEXT),
    ("SecurityGroupType", TEXT),
    ("Tag", TAGS),
    ("PageNumber", NUMBER),
    ("PageSize", NUMBER),
    ("MaxResults", NUMBER),
    ("NextToken", TEXT),
];

pub(super) fn list(
    cloud: &mut Cloud,
    arguments: &Arguments,
    _moment: Moment,
) -> Result<Answer, Refusal> {
    let page = Page::asked(arguments, 100)?;
    let ids = json_list(arguments, "SecurityGroupIds")?;
    let text = |name: &str, value: &str| arguments.text(name).is_none_or(|asked| asked == value);
    let found: Vec<_> = cloud
        .world
        .groups
        .values()
        .filter(|group| {
            let id = group.rules.id.as_str();
            (ids.is_empty() || ids.iter().any(|asked| asked == id))
                && text("SecurityGroupId", id)
                && text("VpcId", group.vpc.as_str())
                && text("SecurityGroupName", &group.name)
                && text("SecurityGroupType", "normal")
                && has_tags(&group.tags, &arguments.records("Tag"))
        })
        .collect();
    let piece = page.cut(found, |group| group.rules.id.to_string());
    let list: Vec<_> = piece.items.into_iter().map(group).collect();
    let mut body = Value::Object(piece.fields);
    views::merge(
        &mut body,
        json!({
            "RegionId": cloud.settings.region,
            "SecurityGroups": { "SecurityGroup": list },
        }),
    );
    Ok(Answer::now(body))
}

fn group(group: &Group) -> Value {
    json!({
        "SecurityGroupId": group.rules.id.as_str(),
        "SecurityGroupName": group.name,
        "SecurityGroupType": "normal",
        "Description": group.description,
        "VpcId": group.vpc.as_str(),
        "CreationTime": views::time(group.created),
        "RuleCount": group.rules.rules.len(),
        "ServiceManaged": false,
        "ServiceID": 0,
        "ResourceGroupId": "",
        "Tags": views::tags(&group.tags),
    })
}

pub(super) const ATTRIBUTE: Grammar =
    &[("RegionId", TEXT), ("SecurityGroupId", TEXT), ("Direction", TEXT), ("NicType", TEXT)];

pub(super) fn attribute(
    cloud: &mut Cloud,
    arguments: &Arguments,
    _moment: Moment,
) -> Result<Answer, Refusal> {
    let group = find(cloud, arguments.required("SecurityGroupId")?)?;
    let direction = match arguments.text("Direction") {
        None | Some("all") => None,
        Some("ingress") => Some(Direction::Ingress),
        Some("egress") => Some(Direction::Egress),
        Some(other) => return Err(Refusal::invalid("Direction", other)),
    };
    let permissions: Vec<_> = group
        .rules
        .rules
        .iter()
        .filter(|rule| direction.is_none_or(|direction| rule.direction == direction))
        .map(permission)
        .collect();
    let inner = match group.rules.inner_access {
        InnerAccess::Accept => "Accept",
        InnerAccess::Drop => "Drop",
    };
    let body = json!({
        "RegionId": cloud.settings.region,
        "SecurityGroupId": group.rules.id.as_str(),
        "SecurityGroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc.as_str(),
        "InnerAccessPolicy": inner,
        "Permissions": { "Permission": permissions },
        "NextToken": "",
    });
    Ok(Answer::now(body))
}

pub(super) const POLICY: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("SecurityGroupId", TEXT),
    ("InnerAccessPolicy", TEXT),
];

pub(super) fn policy(
    cloud: &mut Cloud,
    arguments: &Arguments,
    _moment: Moment,
) -> Result<Answer, Refusal> {
    let mut group = find(cloud, arguments.required("SecurityGroupId")?)?;
    let policy = arguments.required("InnerAccessPolicy")?;
    group.rules.inner_access = match policy.to_ascii_lowercase().as_str() {
        "accept" => InnerAccess::Accept,
        "drop" => InnerAccess::Drop,
        _ => return Err(Refusal::invalid("InnerAccessPolicy", policy)),
    };
    Ok(put(cloud, group))
}

pub(super) fn find(cloud: &Cloud, id: &str) -> Result<Group, Refusal> {
    let found = cloud.world.groups.get(&SecurityGroupId::new(id));
    found.cloned().ok_or_else(|| Refusal::group_not_found(id))
}

/// The answer goes out when the wires know the rules.
pub(super) fn put(cloud: &mut Cloud, group: Group) -> Answer {
    let id = group.rules.id.clone();
    cloud.world.groups.insert(id.clone(), group);
    Answer { rules: Some(id), ..Answer::now(json!({})) }
}
