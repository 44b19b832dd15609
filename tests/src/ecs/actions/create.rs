//! `CreateNetworkInterface`, `DeleteNetworkInterface`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use model::{EniId, SecurityGroupId, VSwitchId, VpcId};
use serde_json::json;

use super::asked::{Asked, IPV4, IPV6, check_repeated};
use super::{FLAG, MOST_TAGS, NUMBER, TAGS, TEXT, TEXTS};
use crate::ecs::addresses::{Ask, prefixes_v4, prefixes_v6, single_v4, single_v6};
use crate::ecs::arguments::{Arguments, Grammar};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::refusal::Refusal;
use crate::ecs::views;
use crate::ecs::world::{Eni, EniKind, EniStatus, Tags, VSwitch};

pub(super) const GRAMMAR: Grammar = &[
    ("RegionId", TEXT),
    ("ClientToken", TEXT),
    ("VSwitchId", TEXT),
    ("SecurityGroupId", TEXT),
    ("SecurityGroupIds", TEXTS),
    ("InstanceType", TEXT),
    ("PrimaryIpAddress", TEXT),
    ("PrivateIpAddress", TEXTS),
    ("SecondaryPrivateIpAddressCount", NUMBER),
    ("Ipv4Prefix", TEXTS),
    ("Ipv4PrefixCount", NUMBER),
    ("Ipv6Address", TEXTS),
    ("Ipv6AddressCount", NUMBER),
    ("Ipv6Prefix", TEXTS),
    ("Ipv6PrefixCount", NUMBER),
    ("NetworkInterfaceName", TEXT),
    ("NetworkInterfaceTrafficMode", TEXT),
    ("Description", TEXT),
    ("ResourceGroupId", TEXT),
    ("Tag", TAGS),
    ("DeleteOnRelease", FLAG),
    ("SourceDestCheck", FLAG),
];

/// At Create and while the ENI is in no instance.
pub(super) const MOST_SECONDARIES: usize = 49;
/// Of one call.
pub(super) const MOST_V6: usize = 10;

pub(super) fn run(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let vswitch = vswitch(cloud, arguments.required("VSwitchId")?)?;
    let groups = groups(cloud, arguments, &vswitch.vpc)?;
    let kind = kind(arguments)?;
    if let Some(mode) = arguments.text("NetworkInterfaceTrafficMode").filter(|m| *m != "Standard") {
        return Err(Refusal::invalid("NetworkInterfaceTrafficMode", mode));
    }
    let tags = tags(arguments)?;
    check_eni_quota(cloud)?;
    let wanted = wanted(arguments)?;
    check_address_quota(cloud, &vswitch.vpc, wanted.v4.v4_addresses() + 1)?;
    let taken = cloud.take_addresses(&vswitch.id, &wanted.ask())?;
    let eni = Eni {
        id: EniId::new(cloud.next_id("eni")),
        name: arguments.text("NetworkInterfaceName").unwrap_or_default().to_owned(),
        description: arguments.text("Description").unwrap_or_default().to_owned(),
        kind,
        status: EniStatus::Available,
        mac: cloud.next_mac(),
        vpc: vswitch.vpc,
        vswitch: vswitch.id,
        zone: vswitch.zone,
        groups,
        v4: wanted.primary_first(&taken),
        v6: single_v6(&taken),
        v4_prefixes: prefixes_v4(&taken),
        v6_prefixes: prefixes_v6(&taken),
        tags,
        resource_group: arguments.text("ResourceGroupId").unwrap_or_default().to_owned(),
        delete_on_release: arguments.flag("DeleteOnRelease").unwrap_or(true),
        source_dest_check: arguments.flag("SourceDestCheck").unwrap_or(false),
        attachment: None,
        created: moment.now,
    };
    let body = views::eni(&eni);
    cloud.put_eni(eni, moment.now);
    Ok(Answer::now(body))
}

pub(super) const DELETE: Grammar = &[("RegionId", TEXT), ("NetworkInterfaceId", TEXT)];

pub(super) fn delete(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let eni = cloud.idle_eni(arguments.required("NetworkInterfaceId")?)?;
    if eni.status != EniStatus::Available {
        return Err(Refusal::eni_state(&eni.id, eni.status, "DeleteNetworkInterface"));
    }
    cloud.remove_eni(&eni, moment.now);
    Ok(Answer::now(json!({})))
}

/// The addresses that a call asks for.
#[derive(Debug, Default)]
struct Wanted {
    primary: Option<Ipv4Addr>,
    /// Besides the primary one.
    v4: Asked,
    v6: Asked,
}

impl Wanted {
    fn ask(&self) -> Ask {
        let primary = self.primary.iter().map(|primary| IpNetwork::from(IpAddr::V4(*primary)));
        Ask {
            named: primary.chain(self.v4.named.clone()).chain(self.v6.named.clone()).collect(),
            v4: self.v4.addresses + usize::from(self.primary.is_none()),
            v6: self.v6.addresses,
            v4_prefixes: self.v4.prefixes,
            v6_prefixes: self.v6.prefixes,
        }
    }

    /// Of what was taken: the one named primary, else the first that the cloud chose.
    fn primary_first(&self, taken: &[IpNetwork]) -> Vec<Ipv4Addr> {
        let mut all = single_v4(taken);
        if self.primary.is_none() {
            let named = self.v4.named.iter().filter(|named| named.prefix() == 32).count();
            let count = all.len();
            all.rotate_left(named.min(count));
        }
        all
    }
}

fn wanted(arguments: &Arguments) -> Result<Wanted, Refusal> {
    let primary = arguments
        .text("PrimaryIpAddress")
        .map(|text| text.parse().map_err(|_wrong| Refusal::invalid("PrimaryIpAddress", text)))
        .transpose()?;
    let v4 = IPV4.asked(arguments, MOST_SECONDARIES)?;
    let v6 = IPV6.asked(arguments, MOST_V6)?;
    let wanted = Wanted { primary, v4, v6 };
    check_repeated(wanted.ask().named)?;
    Ok(wanted)
}

pub(super) fn check_address_quota(cloud: &Cloud, vpc: &VpcId, more: usize) -> Result<(), Refusal> {
    let quota = cloud.world.vpcs.get(vpc).map_or(usize::MAX, |vpc| vpc.address_quota);
    if cloud.taken_in(vpc) + more <= quota {
        return Ok(());
    }
    let text = format!("The quota of {quota} private IP addresses of {vpc} is exceeded.");
    Err(Refusal::new(403, "QuotaExceeded.PrivateIpAddress", text))
}

fn check_eni_quota(cloud: &Cloud) -> Result<(), Refusal> {
    let quota = cloud.settings.eni_quota;
    if cloud.view().enis().count() < quota {
        return Ok(());
    }
    let text = format!("The number of ENIs exceeds the limit of {quota} in this region.");
    Err(Refusal::new(403, "MaxEniCountExceeded", text))
}

fn vswitch(cloud: &Cloud, id: &str) -> Result<VSwitch, Refusal> {
    let found = cloud.world.vswitches.get(&VSwitchId::new(id));
    found.cloned().ok_or_else(|| Refusal::vswitch_not_found(id))
}

/// `SecurityGroupId` or `SecurityGroupIds`, not both: 1 to 5 groups of the VPC.
fn groups(
    cloud: &Cloud,
    arguments: &Arguments,
    vpc: &VpcId,
) -> Result<Vec<SecurityGroupId>, Refusal> {
    let one = arguments.text("SecurityGroupId");
    let several = arguments.texts("SecurityGroupIds");
    if one.is_some() && !several.is_empty() {
        return Err(Refusal::invalid("SecurityGroupIds", "it excludes SecurityGroupId"));
    }
    let named: Vec<_> = one.into_iter().chain(several).collect();
    if named.is_empty() {
        return Err(Refusal::missing("SecurityGroupIds"));
    }
    check_groups(cloud, "SecurityGroupIds", &named, vpc)
}

pub(super) fn check_groups(
    cloud: &Cloud,
    parameter: &str,
    named: &[&str],
    vpc: &VpcId,
) -> Result<Vec<SecurityGroupId>, Refusal> {
    let distinct: BTreeSet<_> = named.iter().collect();
    if !(1..=5).contains(&named.len()) || distinct.len() != named.len() {
        return Err(Refusal::invalid(parameter, "1 to 5 different groups"));
    }
    let find = |id: &&str| {
        let group = SecurityGroupId::new(*id);
        let found = cloud.world.groups.get(&group).ok_or_else(|| Refusal::group_not_found(id))?;
        if &found.vpc == vpc { Ok(group) } else { Err(Refusal::vpc_mismatch(id, vpc)) }
    };
    named.iter().map(find).collect()
}

fn kind(arguments: &Arguments) -> Result<EniKind, Refusal> {
    match arguments.text("InstanceType") {
        None | Some("Secondary") => Ok(EniKind::Secondary),
        Some("Trunk") => Ok(EniKind::Trunk),
        Some(other) => Err(Refusal::invalid("InstanceType", other)),
    }
}

/// `Tag.N`: up to 20 keys, of which none is the cloud's own.
pub(super) fn tags(arguments: &Arguments) -> Result<Tags, Refusal> {
    let records = arguments.records("Tag");
    let mut tags = Tags::new();
    for record in &records {
        let key = record.get("Key").copied().unwrap_or_default();
        if key.is_empty() || key.len() > 128 || key.starts_with("acs:") || key.starts_with("aliyun")
        {
            return Err(Refusal::new(400, "InvalidTagKey.Malformed", format!("Tag key {key:?}.")));
        }
        let value = record.get("Value").copied().unwrap_or_default();
        if value.len() > 128 || value.starts_with("acs:") {
            let text = format!("Tag value {value:?}.");
            return Err(Refusal::new(400, "InvalidTagValue.Malformed", text));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::new(400, "Duplicate.TagKey", format!("Tag key {key:?}.")));
        }
    }
    if tags.len() > MOST_TAGS {
        let text = format!("More than {MOST_TAGS} tags.");
        return Err(Refusal::new(400, "InvalidTagCount", text));
    }
    Ok(tags)
}
