//! The VPC API: `DescribeVSwitches`, `DescribeVSwitchAttributes`, `DescribeVpcs`.

use model::{VSwitchId, VpcId};
use serde_json::{Value, json};

use super::{FLAG, NUMBER, TEXT};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::paging::Page;
use crate::ecs::refusal::Refusal;
use crate::ecs::views;
use crate::ecs::world::{Vpc, World};

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("VSwitchId", TEXT),
    ("VSwitchName", TEXT),
    ("VpcId", TEXT),
    ("ZoneId", TEXT),
    ("IsDefault", FLAG),
    ("PageNumber", NUMBER),
    ("PageSize", NUMBER),
];

/// Entries of a page.
const MOST: usize = 50;

pub(super) fn list(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let page = Page::asked(arguments, MOST)?;
    let text = |name: &str, value: &str| arguments.text(name).is_none_or(|asked| asked == value);
    let view = cloud.seen(moment);
    let found: Vec<_> = view
        .world
        .vswitches
        .values()
        .filter(|vswitch| {
            text("VSwitchId", vswitch.id.as_str())
                && text("VSwitchName", vswitch.id.as_str())
                && text("VpcId", vswitch.vpc.as_str())
                && text("ZoneId", vswitch.zone.as_str())
                && arguments.flag("IsDefault") != Some(true)
        })
        .collect();
    let piece = page.cut(found, |vswitch| vswitch.id.to_string());
    let list: Vec<_> = piece.items.iter().map(|vswitch| views::vswitch(view, vswitch)).collect();
    let mut body = Value::Object(piece.fields);
    views::merge(&mut body, json!({ "VSwitches": { "VSwitch": list } }));
    Ok(Answer::now(body))
}

pub(super) const ATTRIBUTES: Grammar = &[("RegionId", TEXT), ("VSwitchId", TEXT)];

pub(super) fn attributes(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let id = arguments.required("VSwitchId")?;
    let view = cloud.seen(moment);
    let found = view.world.vswitches.get(&VSwitchId::new(id));
    let found = found.ok_or_else(|| Refusal::vswitch_not_found(id))?;
    Ok(Answer::now(views::vswitch(view, found)))
}

pub(super) const VPCS: Grammar = &[
    ("RegionId", TEXT),
    ("VpcId", TEXT),
    ("VpcName", TEXT),
    ("IsDefault", FLAG),
    ("PageNumber", NUMBER),
    ("PageSize", NUMBER),
];

pub(super) fn vpcs(
    cloud: &mut Cloud,
    arguments: &Arguments,
    _moment: Moment,
) -> Result<Answer, Refusal> {
    let page = Page::asked(arguments, MOST)?;
    let id = arguments.text("VpcId").map(VpcId::new);
    let found: Vec<_> = cloud
        .world
        .vpcs
        .values()
        .filter(|vpc| id.as_ref().is_none_or(|id| &vpc.id == id))
        .filter(|vpc| arguments.text("VpcName").is_none_or(|name| name == vpc.id.as_str()))
        .filter(|_vpc| arguments.flag("IsDefault") != Some(true))
        .collect();
    let piece = page.cut(found, |vpc| vpc.id.to_string());
    let list: Vec<_> =
        piece.items.iter().map(|found| vpc(&cloud.world, found, &cloud.settings.region)).collect();
    let mut body = Value::Object(piece.fields);
    views::merge(&mut body, json!({ "Vpcs": { "Vpc": list } }));
    Ok(Answer::now(body))
}

fn vpc(world: &World, vpc: &Vpc, region: &str) -> Value {
    let vswitches: Vec<_> = world
        .vswitches
        .values()
        .filter(|vswitch| vswitch.vpc == vpc.id)
        .map(|vswitch| vswitch.id.as_str())
        .collect();
    json!({
        "VpcId": vpc.id.as_str(),
        "VpcName": vpc.id.as_str(),
        "RegionId": region,
        "Status": "Available",
        "CidrBlock": vpc.v4.to_string(),
        "Ipv6CidrBlock": vpc.v6.map(|block| block.to_string()).unwrap_or_default(),
        "EnabledIpv6": vpc.v6.is_some(),
        "CreationTime": views::time(vpc.created),
        "IsDefault": false,
        "OwnerId": views::OWNER.parse::<u64>().unwrap_or_default(),
        "Description": "",
        "ResourceGroupId": "",
        "VRouterId": "vrt-lab",
        "RouterTableIds": { "RouterTableIds": ["vtb-lab"] },
        "NatGatewayIds": { "NatGatewayIds": [] },
        "SecondaryCidrBlocks": { "SecondaryCidrBlock": [] },
        "UserCidrs": { "UserCidr": [] },
        "Tags": { "Tag": [] },
        "VSwitchIds": { "VSwitchId": vswitches },
    })
}
