//! What the cloud answers, as it stands on the wire, and how it becomes ours. Sets are doubly
//! wrapped; what is empty may be missing, null, or an empty text.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
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
    Ipv4PrefixSets { "Ipv4PrefixSet": [Ipv4Prefix] }
    Ipv6PrefixSets { "Ipv6PrefixSet": [Ipv6Prefix] }
    SecurityGroupIds { "SecurityGroupId": [String] }
    Tags { "Tag": [Tag] }
    AssignedPrivateIps { "PrivateIpAddress": [String] }
    AssignedIpv6s { "Ipv6Address": [String] }
    AssignedIpv4Prefixes { "Ipv4Prefixes": [String] }
    AssignedIpv6Prefixes { "Ipv6Prefix": [String] }
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
    ipv4_prefix_sets: Ipv4PrefixSets,
    #[serde(default, deserialize_with = "or_default")]
    ipv6_prefix_sets: Ipv6PrefixSets,
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
struct Ipv4Prefix {
    ipv4_prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Prefix {
    ipv6_prefix: String,
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
        let v4_prefixes = self.ipv4_prefix_sets.items.into_iter().map(|item| item.ipv4_prefix);
        let v6_prefixes = self.ipv6_prefix_sets.items.into_iter().map(|item| item.ipv6_prefix);
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
            v4_prefixes: self::v4_prefixes(v4_prefixes)?,
            v6_prefixes: self::v6_prefixes(v6_prefixes)?,
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

fn v4_prefixes(items: impl IntoIterator<Item = String>) -> Result<Vec<Ipv4Network>, Misread> {
    let all = items.into_iter().map(|text| prefix("Ipv4Prefix", "an IPv4 prefix", &text));
    all.collect()
}

fn v6_prefixes(items: impl IntoIterator<Item = String>) -> Result<Vec<Ipv6Network>, Misread> {
    let all = items.into_iter().map(|text| prefix("Ipv6Prefix", "an IPv6 prefix", &text));
    all.collect()
}

/// A block with its length and without an address in it.
fn prefix<T>(field: &'static str, expected: &'static str, text: &str) -> Result<T, Misread>
where
    T: FromStr + Copy + Into<IpNetwork>,
{
    let wrong = || Misread { field, value: text.to_owned(), expected };
    let block: T = parse(field, expected, text)?;
    let network = block.into();
    let whole = text.contains('/') && network.ip() == network.network();
    if whole { Ok(block) } else { Err(wrong()) }
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

/// The same, when prefixes were asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AssignedV4Prefixes {
    assigned_private_ip_addresses_set: AssignedPrefixesSet,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssignedPrefixesSet {
    ipv4_prefix_set: AssignedIpv4Prefixes,
}

impl AssignedV4Prefixes {
    pub(crate) fn read(self) -> Result<Vec<Ipv4Network>, Misread> {
        v4_prefixes(self.assigned_private_ip_addresses_set.ipv4_prefix_set.items)
    }
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

/// The same, when prefixes were asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AssignedV6Prefixes {
    ipv6_prefix_sets: AssignedIpv6Prefixes,
}

impl AssignedV6Prefixes {
    pub(crate) fn read(self) -> Result<Vec<Ipv6Network>, Misread> {
        v6_prefixes(self.ipv6_prefix_sets.items)
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
mod tests;
