//! `DescribeInstances`, `DescribeInstanceTypes`.

use serde_json::{Value, json};

use super::describe::has_tags;
use super::{NUMBER, TAGS, TEXT, TEXTS};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::instance_types::InstanceKind;
use crate::ecs::paging::Page;
use crate::ecs::refusal::Refusal;
use crate::ecs::views;
use crate::ecs::world::{Eni, Instance, View};

/// Its `RegionId` is not documented, and the older SDK sends one all the same.
pub(super) const TYPES: Grammar = &[
    ("RegionId", TEXT),
    ("InstanceTypes", TEXTS),
    ("InstanceTypeFamily", TEXT),
    ("MinimumEniQuantity", NUMBER),
    ("MaxResults", NUMBER),
    ("NextToken", TEXT),
];

/// Types named in one call.
const MOST_TYPES: usize = 10;

pub(super) fn types(
    _cloud: &mut Cloud,
    arguments: &Arguments,
    _moment: Moment,
) -> Result<Answer, Refusal> {
    let named = arguments.texts("InstanceTypes");
    if named.len() > MOST_TYPES {
        return Err(Refusal::invalid("InstanceTypes", format!("more than {MOST_TYPES}")));
    }
    let family = arguments.text("InstanceTypeFamily");
    let least = arguments.number("MinimumEniQuantity")?.unwrap_or(0);
    let mut found: Vec<_> = InstanceKind::all()
        .iter()
        .filter(|kind| named.is_empty() || named.contains(&kind.id))
        .filter(|kind| family.is_none_or(|family| kind.family() == family))
        .filter(|kind| kind.enis >= least)
        .collect();
    found.sort_by_key(|kind| kind.id);
    let piece = Page::asked(arguments, 100)?.cut(found, |kind| kind.id.to_owned());
    let list: Vec<_> = piece.items.into_iter().map(instance_type).collect();
    let next = piece.fields.get("NextToken").cloned().unwrap_or_else(|| json!(""));
    let body = json!({ "InstanceTypes": { "InstanceType": list }, "NextToken": next });
    Ok(Answer::now(body))
}

fn instance_type(kind: &InstanceKind) -> Value {
    json!({
        "InstanceTypeId": kind.id,
        "InstanceTypeFamily": kind.family(),
        "CpuCoreCount": kind.cores,
        "MemorySize": f64::from(kind.memory),
        "CpuArchitecture": "X86",
        "EniQuantity": kind.enis,
        "EniTotalQuantity": kind.total_enis,
        "EniPrivateIpAddressQuantity": kind.v4_per_eni,
        "EniIpv6AddressQuantity": kind.v6_per_eni,
        "EniTrunkSupported": kind.trunk,
        "EriQuantity": 0,
        "JumboFrameSupport": kind.jumbo,
        "NetworkCardQuantity": 1,
        "NetworkCards": { "NetworkCardInfo": [{ "NetworkCardIndex": 0 }] },
    })
}

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("InstanceIds", TEXT),
    ("InstanceName", TEXT),
    ("InstanceType", TEXT),
    ("VpcId", TEXT),
    ("VSwitchId", TEXT),
    ("ZoneId", TEXT),
    ("SecurityGroupId", TEXT),
    ("Status", TEXT),
    ("Tag", TAGS),
    ("PageNumber", NUMBER),
    ("PageSize", NUMBER),
    ("MaxResults", NUMBER),
    ("NextToken", TEXT),
];

pub(super) fn list(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let page = Page::asked(arguments, 100)?;
    let ids = json_list(arguments, "InstanceIds")?;
    if ids.len() > 100 {
        return Err(Refusal::invalid("InstanceIds", "more than 100"));
    }
    let view = cloud.seen(moment);
    let found: Vec<_> = view
        .instances()
        .filter(|instance| ids.is_empty() || ids.iter().any(|id| id == instance.id.as_str()))
        .filter(|instance| matches(view, instance, arguments))
        .cloned()
        .collect();
    let piece = page.cut(found, |instance| instance.id.to_string());
    let list: Vec<_> =
        piece.items.iter().map(|found| instance(view, found, &cloud.settings.region)).collect();
    let mut body = Value::Object(piece.fields);
    views::merge(&mut body, json!({ "Instances": { "Instance": list } }));
    Ok(Answer::now(body))
}

/// A parameter that is a JSON array of texts: `["i-1","i-2"]`.
pub(super) fn json_list(arguments: &Arguments, name: &str) -> Result<Vec<String>, Refusal> {
    let Some(text) = arguments.text(name) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| Refusal::invalid(name, error))
}

fn matches(view: View<'_>, instance: &Instance, arguments: &Arguments) -> bool {
    let text = |name: &str, value: &str| arguments.text(name).is_none_or(|asked| asked == value);
    text("InstanceName", &instance.name)
        && text("InstanceType", instance.kind.id)
        && text("VpcId", instance.vpc.as_str())
        && text("VSwitchId", instance.vswitch.as_str())
        && text("ZoneId", instance.zone.as_str())
        && text("Status", &instance.state.to_string())
        && arguments.text("SecurityGroupId").is_none_or(|asked| {
            let primary = view.eni(&instance.primary);
            primary.is_some_and(|eni| eni.groups.iter().any(|group| group.as_str() == asked))
        })
        && has_tags(&instance.tags, &arguments.records("Tag"))
}

fn instance(view: View<'_>, instance: &Instance, region: &str) -> Value {
    let primary = view.eni(&instance.primary);
    let nics: Vec<_> = view.enis_of(&instance.id).map(|eni| nic(eni)).collect();
    let address = primary.map(|eni| eni.primary_address().to_string());
    json!({
        "InstanceId": instance.id.as_str(),
        "InstanceName": instance.name,
        "HostName": instance.name,
        "InstanceType": instance.kind.id,
        "InstanceTypeFamily": instance.kind.family(),
        "InstanceNetworkType": "vpc",
        "Cpu": instance.kind.cores,
        "Memory": instance.kind.memory * 1024,
        "OSType": "linux",
        "RegionId": region,
        "ZoneId": instance.zone.as_str(),
        "Status": instance.state.to_string(),
        "CreationTime": views::time(instance.created),
        "VpcAttributes": {
            "VpcId": instance.vpc.as_str(),
            "VSwitchId": instance.vswitch.as_str(),
            "NatIpAddress": "",
            "PrivateIpAddress": { "IpAddress": address.into_iter().collect::<Vec<_>>() },
        },
        "SecurityGroupIds": primary.map_or_else(|| json!({}), |eni| views::groups(eni)),
        "NetworkInterfaces": { "NetworkInterface": nics },
        "Tags": views::tags(&instance.tags),
    })
}

fn nic(eni: &Eni) -> Value {
    json!({
        "NetworkInterfaceId": eni.id.as_str(),
        "Type": eni.type_name(),
        "MacAddress": eni.mac.to_string(),
        "PrimaryIpAddress": eni.primary_address(),
        "PrivateIpSets": views::private_ips(eni),
        "Ipv6Sets": views::ipv6s(eni),
        "Ipv4PrefixSets": views::ipv4_prefixes(eni),
        "Ipv6PrefixSets": views::ipv6_prefixes(eni),
    })
}
