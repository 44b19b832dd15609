//! `CreateNetworkInterface`, `DeleteNetworkInterface`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{EniId, SecurityGroupId, VSwitchId, VpcId};
use serde_json::json;

use super::{FLAG, MOST_TAGS, NUMBER, TAGS, TEXT, TEXTS};
use crate::ecs::addresses::{as_v4, as_v6};
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
    ("Ipv6Address", TEXTS),
    ("Ipv6AddressCount", NUMBER),
    ("NetworkInterfaceName", TEXT),
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
    let tags = tags(arguments)?;
    check_eni_quota(cloud)?;
    let wanted = wanted(arguments)?;
    check_address_quota(cloud, &vswitch.vpc, wanted.new_v4 + wanted.v4.len())?;
    let named: Vec<IpAddr> = wanted.named().collect();
    let taken = cloud.take_addresses(&vswitch.id, wanted.new_v4, wanted.new_v6, &named)?;
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
        v6: taken.iter().filter_map(as_v6).collect(),
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
pub(super) struct Wanted {
    primary: Option<Ipv4Addr>,
    /// Those named, without the primary one.
    pub(super) v4: Vec<Ipv4Addr>,
    pub(super) v6: Vec<Ipv6Addr>,
    /// Those that the cloud is to choose.
    pub(super) new_v4: usize,
    pub(super) new_v6: usize,
}

impl Wanted {
    fn named(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.primary.iter().chain(&self.v4).copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// Of what was taken: the one named primary, else the first that the cloud chose.
    fn primary_first(&self, taken: &[IpAddr]) -> Vec<Ipv4Addr> {
        let mut all: Vec<Ipv4Addr> = taken.iter().filter_map(as_v4).collect();
        if self.primary.is_none() {
            let count = all.len();
            all.rotate_left(self.v4.len().min(count));
        }
        all
    }
}

fn wanted(arguments: &Arguments) -> Result<Wanted, Refusal> {
    let primary = arguments
        .text("PrimaryIpAddress")
        .map(|text| text.parse().map_err(|_wrong| Refusal::invalid("PrimaryIpAddress", text)))
        .transpose()?;
    let v4 = arguments.parsed("PrivateIpAddress")?;
    let v6 = arguments.parsed("Ipv6Address")?;
    let more_v4 = arguments.number("SecondaryPrivateIpAddressCount")?;
    let new_v6 = arguments.number("Ipv6AddressCount")?;
    check_amount("SecondaryPrivateIpAddressCount", v4.len(), more_v4, MOST_SECONDARIES)?;
    check_amount("Ipv6AddressCount", v6.len(), new_v6, MOST_V6)?;
    let new_v4 = more_v4.unwrap_or(0) + usize::from(primary.is_none());
    let wanted = Wanted { primary, v4, v6, new_v4, new_v6: new_v6.unwrap_or(0) };
    check_repeated(wanted.named())?;
    Ok(wanted)
}

/// Names or a number, not both, and 1 to `most` of either.
pub(super) fn check_amount(
    count_name: &str,
    named: usize,
    count: Option<usize>,
    most: usize,
) -> Result<(), Refusal> {
    if named > 0 && count.is_some() {
        return Err(Refusal::invalid(count_name, "addresses are named as well"));
    }
    if count == Some(0) || count.unwrap_or(named) > most {
        return Err(Refusal::amount(count_name, format!("1 to {most} at once")));
    }
    Ok(())
}

pub(super) fn check_repeated(named: impl IntoIterator<Item = IpAddr>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    match named.into_iter().find(|address| !seen.insert(*address)) {
        None => Ok(()),
        Some(address) => {
            let text = format!("The specified IP {address} is repeated.");
            Err(Refusal::new(403, "InvalidIp.IpRepeated", text))
        }
    }
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
