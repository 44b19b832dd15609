//! `DescribeNetworkInterfaces` and the attributes of one: reads, which may lag.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use model::{EniId, InstanceId};
use serde_json::{Value, json};

use super::{FLAG, NUMBER, TAGS, TEXT, TEXTS};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::paging::Page;
use crate::ecs::refusal::Refusal;
use crate::ecs::views;
use crate::ecs::world::{Eni, Tags};

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("NetworkInterfaceId", TEXTS),
    ("InstanceId", TEXT),
    ("VSwitchId", TEXT),
    ("VpcId", TEXT),
    ("SecurityGroupId", TEXT),
    ("Type", TEXT),
    ("Status", TEXT),
    ("NetworkInterfaceName", TEXT),
    ("PrimaryIpAddress", TEXT),
    ("PrivateIpAddress", TEXTS),
    ("Ipv6Address", TEXTS),
    ("ResourceGroupId", TEXT),
    ("ServiceManaged", FLAG),
    ("Tag", TAGS),
    ("PageNumber", NUMBER),
    ("PageSize", NUMBER),
    ("MaxResults", NUMBER),
    ("NextToken", TEXT),
];

/// Entries of a page.
const MOST: usize = 500;
/// Ids or addresses of a filter.
const MOST_NAMED: usize = 100;
/// What a call with tag filters shows at most, whatever there is.
const MOST_BY_TAG: usize = 1000;

const STATES: [&str; 4] = ["Available", "Attaching", "InUse", "Detaching"];
const TYPES: [&str; 4] = ["Primary", "Secondary", "Trunk", "Member"];

pub(super) fn list(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let page = Page::asked(arguments, MOST)?;
    check(arguments)?;
    let mut found: Vec<_> =
        cloud.seen(moment).enis().filter(|eni| matches(eni, arguments)).cloned().collect();
    if !arguments.records("Tag").is_empty() {
        found.truncate(MOST_BY_TAG);
    }
    let piece = page.cut(found, |eni| eni.id.to_string());
    let list: Vec<_> = piece.items.iter().map(|eni| views::eni_with_attachment(eni)).collect();
    let mut body = Value::Object(piece.fields);
    views::merge(&mut body, json!({ "NetworkInterfaceSets": { "NetworkInterfaceSet": list } }));
    Ok(Answer::now(body))
}

pub(super) const ATTRIBUTE: Grammar =
    &[("RegionId", TEXT), ("NetworkInterfaceId", TEXT), ("Attribute", TEXT)];

pub(super) fn attribute(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let id = arguments.required("NetworkInterfaceId")?;
    if !matches!(arguments.text("Attribute"), None | Some("basic" | "attachment")) {
        return Err(Refusal::invalid("Attribute", "basic or attachment"));
    }
    let view = cloud.seen(moment);
    let found = view.eni(&EniId::new(id)).ok_or_else(|| Refusal::eni_not_found(id))?;
    let mut body = views::eni_with_attachment(found);
    let members: Vec<_> = view.members_of(&found.id).map(|member| member.id.as_str()).collect();
    if let Some(attachment) = body.get_mut("Attachment") {
        let members = json!({ "MemberNetworkInterfaceId": members });
        views::merge(attachment, json!({ "MemberNetworkInterfaceIds": members }));
    }
    Ok(Answer::now(body))
}

fn check(arguments: &Arguments) -> Result<(), Refusal> {
    for name in ["NetworkInterfaceId", "PrivateIpAddress", "Ipv6Address"] {
        if arguments.texts(name).len() > MOST_NAMED {
            return Err(Refusal::invalid(name, format!("more than {MOST_NAMED} values")));
        }
    }
    for (name, closed) in [("Status", STATES), ("Type", TYPES)] {
        if let Some(value) = arguments.text(name).filter(|value| !closed.contains(value)) {
            return Err(Refusal::invalid(name, value));
        }
    }
    Ok(())
}

fn matches(eni: &Eni, arguments: &Arguments) -> bool {
    let text = |name: &str, value: &str| arguments.text(name).is_none_or(|asked| asked == value);
    let any = |name: &str, has: &dyn Fn(&str) -> bool| {
        let asked = arguments.texts(name);
        asked.is_empty() || asked.iter().any(|asked| has(asked))
    };
    text("InstanceId", eni.instance().map(InstanceId::as_str).unwrap_or_default())
        && text("VSwitchId", eni.vswitch.as_str())
        && text("VpcId", eni.vpc.as_str())
        && text("Type", eni.type_name())
        && text("Status", &eni.status.to_string())
        && text("NetworkInterfaceName", &eni.name)
        && text("ResourceGroupId", &eni.resource_group)
        && text("PrimaryIpAddress", &eni.primary_address().to_string())
        && arguments
            .text("SecurityGroupId")
            .is_none_or(|asked| eni.groups.iter().any(|group| group.as_str() == asked))
        && any("NetworkInterfaceId", &|asked| eni.id.as_str() == asked)
        && any("PrivateIpAddress", &|asked| eni.v4.iter().any(|own| own.to_string() == asked))
        && any("Ipv6Address", &|asked| {
            asked.parse().is_ok_and(|asked: Ipv6Addr| eni.v6.contains(&asked))
        })
        // Nothing here is a cloud service's own.
        && arguments.flag("ServiceManaged") != Some(true)
        && has_tags(&eni.tags, &arguments.records("Tag"))
}

/// All of the tags asked for; one without a value is any value of its key.
pub(super) fn has_tags(tags: &Tags, asked: &[BTreeMap<&str, &str>]) -> bool {
    asked.iter().all(|record| {
        let own = record.get("Key").and_then(|key| tags.get(*key));
        let value = record.get("Value").copied().filter(|value| !value.is_empty());
        own.is_some_and(|own| value.is_none_or(|value| own == value))
    })
}
