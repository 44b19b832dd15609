//! What the cloud answers, as it stands on the wire, and how it becomes ours. Sets are doubly
//! wrapped; what is empty may be missing, null, or an empty text.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use model::{
    EniId, InstanceId, InstanceType, InstanceTypeId, SecurityGroupId, VSwitch, VSwitchId, VpcId,
    ZoneId,
};
use serde::{Deserialize, Deserializer};

use crate::{Eni, EniKind, EniStatus};

/// A field of an answer that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub(crate) struct Misread {
    field: &'static str,
    value: String,
    expected: &'static str,
}

fn parse<T: FromStr>(
    field: &'static str,
    expected: &'static str,
    value: &str,
) -> Result<T, Misread> {
    value.parse().map_err(|_wrong| Misread { field, value: value.to_owned(), expected })
}

fn filled(field: &'static str, value: String) -> Result<String, Misread> {
    if value.is_empty() { Err(Misread { field, value, expected: "filled" }) } else { Ok(value) }
}

/// The empty text is nothing, on this wire.
fn something(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// `null` is the default, as if the field were missing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A set in its wrap: `{"Name": [..]}`.
macro_rules! set {
    ($($wrap:ident { $name:literal: [$item:ty] })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        struct $wrap {
            #[serde(rename = $name, default, deserialize_with = "or_default")]
            items: Vec<$item>,
        }
    )*};
}

set! {
    NetworkInterfaceSets { "NetworkInterfaceSet": [NetworkInterface] }
    PrivateIpSets { "PrivateIpSet": [PrivateIp] }
    Ipv6Sets { "Ipv6Set": [Ipv6] }
    SecurityGroupIds { "SecurityGroupId": [String] }
    Tags { "Tag": [Tag] }
    AssignedPrivateIps { "PrivateIpAddress": [String] }
    AssignedIpv6s { "Ipv6Address": [String] }
    InstanceTypes { "InstanceType": [WireInstanceType] }
    VSwitches { "VSwitch": [WireVSwitch] }
}

/// The error body of any action.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Refusal {
    pub(crate) code: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) message: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) request_id: String,
}

/// The answer of an action that only says that it was done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Done {
    #[expect(dead_code, reason = "an answer without a RequestId is not one")]
    request_id: String,
}

/// `DescribeNetworkInterfaces`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkInterfaces {
    network_interface_sets: NetworkInterfaceSets,
    next_token: Option<String>,
}

impl NetworkInterfaces {
    /// The ENIs of the page, and the token of the next one.
    pub(crate) fn read(self) -> Result<(Vec<Eni>, Option<String>), Misread> {
        let enis = self.network_interface_sets.items.into_iter().map(NetworkInterface::read);
        Ok((enis.collect::<Result<_, _>>()?, something(self.next_token)))
    }
}

/// An ENI, in a page and as the answer of `CreateNetworkInterface`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkInterface {
    #[serde(rename = "NetworkInterfaceId")]
    id: String,
    mac_address: String,
    r#type: String,
    status: String,
    v_switch_id: String,
    vpc_id: String,
    zone_id: String,
    private_ip_address: Option<String>,
    instance_id: Option<String>,
    creation_time: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    attachment: Attachment,
    #[serde(default, deserialize_with = "or_default")]
    private_ip_sets: PrivateIpSets,
    #[serde(default, deserialize_with = "or_default")]
    ipv6_sets: Ipv6Sets,
    #[serde(default, deserialize_with = "or_default")]
    security_group_ids: SecurityGroupIds,
    #[serde(default, deserialize_with = "or_default")]
    tags: Tags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attachment {
    instance_id: Option<String>,
    trunk_network_interface_id: Option<String>,
    device_index: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrivateIp {
    private_ip_address: String,
    #[serde(default, deserialize_with = "or_default")]
    primary: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6 {
    ipv6_address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    tag_key: String,
    #[serde(default, deserialize_with = "or_default")]
    tag_value: String,
}

impl NetworkInterface {
    pub(crate) fn read(self) -> Result<Eni, Misread> {
        let (primary_v4, v4) = private_ips(self.private_ip_address, self.private_ip_sets.items)?;
        let v6 = self.ipv6_sets.items.into_iter().map(|item| item.ipv6_address);
        let instance = something(self.instance_id).or(something(self.attachment.instance_id));
        Ok(Eni {
            id: EniId::new(filled("NetworkInterfaceId", self.id)?),
            mac: parse("MacAddress", "a MAC address", &self.mac_address)?,
            kind: EniKind::from(self.r#type.as_str()),
            status: EniStatus::from(self.status.as_str()),
            vswitch: VSwitchId::new(filled("VSwitchId", self.v_switch_id)?),
            zone: ZoneId::new(filled("ZoneId", self.zone_id)?),
            vpc: VpcId::new(filled("VpcId", self.vpc_id)?),
            security_groups: ids(self.security_group_ids.items, SecurityGroupId::new),
            instance: instance.map(InstanceId::new),
            trunk: something(self.attachment.trunk_network_interface_id).map(EniId::new),
            device_index: self.attachment.device_index,
            primary_v4,
            v4,
            v6: v6_addresses("Ipv6Address", v6)?,
            tags: self.tags.items.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect(),
            created: self.creation_time.and_then(|text| text.parse().ok()),
        })
    }
}

/// The primary address and all of them, the primary one first.
fn private_ips(
    primary: Option<String>,
    set: Vec<PrivateIp>,
) -> Result<(Option<Ipv4Addr>, Vec<Ipv4Addr>), Misread> {
    let field = "PrivateIpAddress";
    let mut primary = match something(primary) {
        Some(text) => Some(parse(field, "an IPv4 address", &text)?),
        None => None,
    };
    let mut secondary = Vec::with_capacity(set.len());
    for item in set {
        let address = parse(field, "an IPv4 address", &item.private_ip_address)?;
        if item.primary {
            primary = primary.or(Some(address));
        }
        secondary.push(address);
    }
    secondary.retain(|address| Some(*address) != primary);
    Ok((primary, primary.into_iter().chain(secondary).collect()))
}

fn v4_addresses(
    field: &'static str,
    items: impl IntoIterator<Item = String>,
) -> Result<Vec<Ipv4Addr>, Misread> {
    items.into_iter().map(|text| parse(field, "an IPv4 address", &text)).collect()
}

fn v6_addresses(
    field: &'static str,
    items: impl IntoIterator<Item = String>,
) -> Result<Vec<Ipv6Addr>, Misread> {
    items.into_iter().map(|text| parse(field, "an IPv6 address", &text)).collect()
}

fn ids<T>(items: Vec<String>, new: fn(String) -> T) -> Vec<T> {
    items.into_iter().map(new).collect()
}

/// `AssignPrivateIpAddresses`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AssignedV4 {
    assigned_private_ip_addresses_set: AssignedPrivateIpAddressesSet,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssignedPrivateIpAddressesSet {
    private_ip_set: AssignedPrivateIps,
}

impl AssignedV4 {
    pub(crate) fn read(self) -> Result<Vec<Ipv4Addr>, Misread> {
        let set = self.assigned_private_ip_addresses_set.private_ip_set;
        v4_addresses("PrivateIpAddress", set.items)
    }
}

/// `AssignIpv6Addresses`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AssignedV6 {
    ipv6_sets: AssignedIpv6s,
}

impl AssignedV6 {
    pub(crate) fn read(self) -> Result<Vec<Ipv6Addr>, Misread> {
        v6_addresses("Ipv6Address", self.ipv6_sets.items)
    }
}

/// `DescribeInstanceTypes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribedInstanceTypes {
    instance_types: InstanceTypes,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireInstanceType {
    instance_type_id: String,
    eni_quantity: u32,
    eni_total_quantity: Option<u32>,
    eni_private_ip_address_quantity: u32,
    #[serde(default, deserialize_with = "or_default")]
    eni_ipv6_address_quantity: u32,
    #[serde(default, deserialize_with = "or_default")]
    eni_trunk_supported: bool,
}

impl DescribedInstanceTypes {
    /// The type that was asked for; the cloud may add others.
    pub(crate) fn find(self, id: &InstanceTypeId) -> Option<InstanceType> {
        let mut items = self.instance_types.items.into_iter();
        items.find(|item| item.instance_type_id == id.as_str()).map(|item| InstanceType {
            id: id.clone(),
            enis: item.eni_quantity,
            total_enis: item.eni_total_quantity.unwrap_or(item.eni_quantity),
            v4_per_eni: item.eni_private_ip_address_quantity,
            v6_per_eni: item.eni_ipv6_address_quantity,
            trunk: item.eni_trunk_supported,
        })
    }
}

/// `DescribeVSwitches`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribedVSwitches {
    v_switches: VSwitches,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireVSwitch {
    v_switch_id: String,
    zone_id: String,
    cidr_block: String,
    ipv6_cidr_block: Option<String>,
    available_ip_address_count: u64,
}

impl DescribedVSwitches {
    pub(crate) fn read(self) -> Result<Vec<VSwitch>, Misread> {
        self.v_switches.items.into_iter().map(WireVSwitch::read).collect()
    }
}

impl WireVSwitch {
    fn read(self) -> Result<VSwitch, Misread> {
        let block = |field, text: &str| parse(field, "an address block", text);
        let v6 = something(self.ipv6_cidr_block);
        Ok(VSwitch {
            id: VSwitchId::new(filled("VSwitchId", self.v_switch_id)?),
            zone: ZoneId::new(filled("ZoneId", self.zone_id)?),
            v4: block("CidrBlock", &self.cidr_block)?,
            v6: v6.map(|text| block("Ipv6CidrBlock", &text)).transpose()?,
            available: self.available_ip_address_count,
        })
    }
}

/// JSON as `T`, or where it differs.
pub(crate) fn from_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| place(&error))?;
    json.end().map_err(|error| error.to_string())?;
    Ok(value)
}

fn place(error: &serde_path_to_error::Error<impl Display>) -> String {
    match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: &str = r#"{"NetworkInterfaceSets": {"NetworkInterfaceSet": [{
        "NetworkInterfaceId": "eni-1", "MacAddress": "00:16:3e:00:00:01", "Type": "Member",
        "Status": "InUse", "VSwitchId": "vsw-1", "VpcId": "vpc-1", "ZoneId": "cn-hangzhou-h",
        "InstanceId": "i-1", "PrivateIpAddress": "10.0.1.5", "CreationTime": "2026-11-20T12:00:00Z",
        "Attachment": {"InstanceId": "i-1", "DeviceIndex": 1027, "TrunkNetworkInterfaceId": "eni-t"},
        "PrivateIpSets": {"PrivateIpSet": [
            {"PrivateIpAddress": "10.0.1.9", "Primary": false},
            {"PrivateIpAddress": "10.0.1.5", "Primary": true}]},
        "Ipv6Sets": {"Ipv6Set": [{"Ipv6Address": "2408::5"}]},
        "SecurityGroupIds": {"SecurityGroupId": ["sg-1", "sg-2"]},
        "Tags": {"Tag": [{"TagKey": "creator", "TagValue": "terway"}]},
        "QueueNumber": 4, "ServiceManaged": false
    }]}, "NextToken": "more", "TotalCount": 2, "RequestId": "r"}"#;

    const BARE: &str = r#"{"NetworkInterfaceId": "eni-2", "MacAddress": "00:16:3e:00:00:02",
        "Type": "Odd", "Status": "Odder", "VSwitchId": "vsw-1", "VpcId": "vpc-1", "ZoneId": "z",
        "InstanceId": "", "PrivateIpAddress": "", "Attachment": null, "CreationTime": "soon",
        "PrivateIpSets": {}, "Tags": null}"#;

    #[test]
    fn a_member_is_read_with_its_vlan_and_its_primary_address_first() {
        let page: NetworkInterfaces = from_json(MEMBER.as_bytes()).unwrap();
        let (enis, next) = page.read().unwrap();
        assert_eq!(next.as_deref(), Some("more"));
        assert_eq!(enis[0].vlan().unwrap().get(), 1027);
        let detached = Eni { trunk: None, ..enis[0].clone() };
        assert_eq!(detached.vlan(), None, "the number of a NIC is no VLAN");
        let expected = Eni {
            id: EniId::new("eni-1"),
            mac: "00:16:3e:00:00:01".parse().unwrap(),
            kind: EniKind::Member,
            status: EniStatus::InUse,
            vswitch: VSwitchId::new("vsw-1"),
            zone: ZoneId::new("cn-hangzhou-h"),
            vpc: VpcId::new("vpc-1"),
            security_groups: ["sg-1", "sg-2"].map(SecurityGroupId::new).to_vec(),
            instance: Some(InstanceId::new("i-1")),
            trunk: Some(EniId::new("eni-t")),
            device_index: Some(1027),
            primary_v4: Some("10.0.1.5".parse().unwrap()),
            v4: ["10.0.1.5", "10.0.1.9"].map(|text| text.parse().unwrap()).to_vec(),
            v6: vec!["2408::5".parse().unwrap()],
            tags: [("creator".to_owned(), "terway".to_owned())].into(),
            created: Some("2026-11-20T12:00:00Z".parse().unwrap()),
        };
        assert_eq!(enis, [expected]);
    }

    #[test]
    fn what_is_empty_is_nothing() {
        let eni: NetworkInterface = from_json(BARE.as_bytes()).unwrap();
        let eni = eni.read().unwrap();
        assert_eq!(eni.kind, EniKind::Other("Odd".to_owned()));
        assert_eq!(eni.status, EniStatus::Other("Odder".to_owned()));
        assert_eq!((eni.instance, eni.trunk, eni.primary_v4), (None, None, None));
        assert!(eni.v4.is_empty() && eni.tags.is_empty() && eni.created.is_none());
    }

    #[test]
    fn what_is_wrong_in_an_answer_is_said_with_its_place() {
        let odd = MEMBER.replace("\"MacAddress\": \"00:16:3e:00:00:01\",", "");
        let error = from_json::<NetworkInterfaces>(odd.as_bytes()).unwrap_err();
        assert!(error.contains("NetworkInterfaceSets.NetworkInterfaceSet[0]"), "{error}");
        assert!(error.contains("missing field `MacAddress`"), "{error}");
        for (from, to, expected) in [
            ("00:16:3e:00:00:01", "x", "MacAddress: \"x\" is not a MAC address"),
            ("10.0.1.9", "10.0.1", "PrivateIpAddress: \"10.0.1\" is not an IPv4 address"),
            ("2408::5", "", "Ipv6Address: \"\" is not an IPv6 address"),
            ("eni-1", "", "NetworkInterfaceId: \"\" is not filled"),
        ] {
            let page: NetworkInterfaces = from_json(MEMBER.replace(from, to).as_bytes()).unwrap();
            assert_eq!(page.read().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_instance_type_and_a_vswitch_may_leave_out_what_they_have_not() {
        let types = r#"{"InstanceTypes": {"InstanceType": [{"InstanceTypeId": "ecs.g6.large",
            "EniQuantity": 2, "EniPrivateIpAddressQuantity": 6}]}}"#;
        let types = || from_json::<DescribedInstanceTypes>(types.as_bytes()).unwrap();
        assert_eq!(types().find(&InstanceTypeId::new("ecs.g7.large")), None);
        let small = types().find(&InstanceTypeId::new("ecs.g6.large")).unwrap();
        assert_eq!((small.total_enis, small.v6_per_eni, small.trunk), (2, 0, false));

        let vswitches = r#"{"VSwitches": {"VSwitch": [{"VSwitchId": "vsw-1", "ZoneId": "z",
            "CidrBlock": "10.0.1.0/24", "Ipv6CidrBlock": "", "AvailableIpAddressCount": 252}]}}"#;
        let vswitches: DescribedVSwitches = from_json(vswitches.as_bytes()).unwrap();
        let found = &vswitches.read().unwrap()[0];
        assert_eq!((found.v6, found.available), (None, 252));
    }
}
