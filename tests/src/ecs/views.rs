//! Objects of the cloud as the API's JSON: sets are wrapped twice, times are in UTC to the second.

use jiff::Timestamp;
use model::{InstanceId, SecurityGroupId};
use serde_json::{Value, json};

use super::addresses::AddressPool;
use super::world::{Eni, EniStatus, Tags, VSwitch, View};

/// The account that owns everything.
pub(crate) const OWNER: &str = "1234567890123456";

pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `Tags.Tag[]` as ECS words it.
pub(crate) fn tags(tags: &Tags) -> Value {
    let list: Vec<_> =
        tags.iter().map(|(key, value)| json!({ "TagKey": key, "TagValue": value })).collect();
    json!({ "Tag": list })
}

pub(crate) fn groups(eni: &Eni) -> Value {
    let list: Vec<_> = eni.groups.iter().map(SecurityGroupId::as_str).collect();
    json!({ "SecurityGroupId": list })
}

pub(crate) fn private_ips(eni: &Eni) -> Value {
    let list: Vec<_> = eni
        .v4
        .iter()
        .enumerate()
        .map(|(index, address)| json!({ "PrivateIpAddress": address, "Primary": index == 0 }))
        .collect();
    json!({ "PrivateIpSet": list })
}

pub(crate) fn ipv6s(eni: &Eni) -> Value {
    let list: Vec<_> =
        eni.v6.iter().map(|address| json!({ "Ipv6Address": address, "Primary": false })).collect();
    json!({ "Ipv6Set": list })
}

pub(crate) fn ipv4_prefixes(eni: &Eni) -> Value {
    let list: Vec<_> =
        eni.v4_prefixes.iter().map(|prefix| json!({ "Ipv4Prefix": prefix })).collect();
    json!({ "Ipv4PrefixSet": list })
}

pub(crate) fn ipv6_prefixes(eni: &Eni) -> Value {
    let list: Vec<_> =
        eni.v6_prefixes.iter().map(|prefix| json!({ "Ipv6Prefix": prefix })).collect();
    json!({ "Ipv6PrefixSet": list })
}

/// The fields that Create, Describe and the attribute call have in common.
pub(crate) fn eni(eni: &Eni) -> Value {
    json!({
        "NetworkInterfaceId": eni.id.as_str(),
        "NetworkInterfaceName": eni.name,
        "Description": eni.description,
        "Type": eni.type_name(),
        "Status": eni.status.to_string(),
        "MacAddress": eni.mac.to_string(),
        "VpcId": eni.vpc.as_str(),
        "VSwitchId": eni.vswitch.as_str(),
        "ZoneId": eni.zone.as_str(),
        "PrivateIpAddress": eni.primary_address(),
        "PrivateIpSets": private_ips(eni),
        "Ipv6Sets": ipv6s(eni),
        "Ipv4PrefixSets": ipv4_prefixes(eni),
        "Ipv6PrefixSets": ipv6_prefixes(eni),
        "SecurityGroupIds": groups(eni),
        "Tags": tags(&eni.tags),
        "ResourceGroupId": eni.resource_group,
        "SourceDestCheck": eni.source_dest_check,
        "OwnerId": OWNER,
        "ServiceManaged": false,
        "ServiceID": 0,
    })
}

/// The same and where it is attached.
pub(crate) fn eni_with_attachment(found: &Eni) -> Value {
    let mut body = eni(found);
    merge(
        &mut body,
        json!({
            "CreationTime": time(found.created),
            "DeleteOnRelease": found.delete_on_release,
            "InstanceId": found.instance().map(InstanceId::as_str).unwrap_or_default(),
            "Attachment": attachment(found),
            "NetworkInterfaceTrafficMode": "Standard",
            "QueueNumber": 1,
            "QueuePairNumber": 0,
            "AssociatedPublicIp": {},
        }),
    );
    body
}

/// A member's VLAN id is its `DeviceIndex`, and it has one only once it is attached.
fn attachment(eni: &Eni) -> Value {
    let Some(attachment) = &eni.attachment else { return json!({}) };
    let mut body = json!({ "InstanceId": attachment.instance.as_str(), "NetworkCardIndex": 0 });
    if let Some((trunk, vlan)) = &attachment.member {
        merge(&mut body, json!({ "TrunkNetworkInterfaceId": trunk.as_str() }));
        if matches!(eni.status, EniStatus::InUse | EniStatus::Detaching) {
            merge(&mut body, json!({ "DeviceIndex": vlan.get() }));
        }
    }
    body
}

pub(crate) fn vswitch(view: View<'_>, found: &VSwitch) -> Value {
    let free = AddressPool::capacity(found.v4).saturating_sub(view.used_in(found));
    json!({
        "VSwitchId": found.id.as_str(),
        "VSwitchName": found.id.as_str(),
        "VpcId": found.vpc.as_str(),
        "ZoneId": found.zone.as_str(),
        "Status": "Available",
        "CidrBlock": found.v4.to_string(),
        "Ipv6CidrBlock": found.v6.map(|block| block.to_string()).unwrap_or_default(),
        "EnabledIpv6": found.v6.is_some(),
        "AvailableIpAddressCount": free,
        "CreationTime": time(found.created),
        "Description": "",
        "IsDefault": false,
        "NetworkAclId": "",
        "OwnerId": OWNER.parse::<u64>().unwrap_or_default(),
        "ResourceGroupId": "",
        "RouteTable": { "RouteTableId": "vtb-lab", "RouteTableType": "System" },
        "ShareType": "",
        "Tags": { "Tag": [] },
    })
}

/// Adds the fields of `more` to `body`; both are objects.
pub(crate) fn merge(body: &mut Value, more: Value) {
    if let (Value::Object(body), Value::Object(more)) = (body, more) {
        body.extend(more);
    }
}
