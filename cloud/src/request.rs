//! What we ask, as parameters on the wire: the names of the official SDK, booleans as `true` and
//! `false`, and what is not asked for is not sent.

use std::collections::BTreeMap;
use std::fmt::Display;

use model::{EniId, InstanceTypeId, RegionId, VSwitchId};

use crate::{
    Action, AddressRequest, AssignAddresses, AssignPrefixes, AttachEni, CreateEni, DetachEni,
    EniFilter, NewEni,
};

/// The parameters of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn new(region: &RegionId) -> Self {
        Self(Vec::new()).with("RegionId", region)
    }

    pub(crate) fn as_slice(&self) -> &[(String, String)] {
        &self.0
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn with(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn with_count(self, name: &str, count: u32) -> Self {
        self.with_some(name, (count > 0).then_some(count))
    }

    fn with_list(self, name: &str, values: impl IntoIterator<Item: Display>) -> Self {
        let numbered = (1..).zip(values);
        numbered.fold(self, |all, (number, value)| all.with(format!("{name}.{number}"), value))
    }

    fn with_tags(self, tags: &BTreeMap<String, String>) -> Self {
        let numbered = (1..).zip(tags);
        numbered.fold(self, |all, (number, (key, value))| {
            all.with(format!("Tag.{number}.Key"), key).with(format!("Tag.{number}.Value"), value)
        })
    }
}

/// A page of `DescribeNetworkInterfaces` has at most this many ENIs.
pub(crate) const PAGE: u32 = 500;

pub(crate) fn create_eni(region: &RegionId, request: &CreateEni) -> Parameters {
    let kind = match request.kind {
        NewEni::Secondary => "Secondary",
        NewEni::Trunk => "Trunk",
    };
    Parameters::new(region)
        .with("ClientToken", &request.token)
        .with("InstanceType", kind)
        .with("VSwitchId", &request.vswitch)
        .with_list("SecurityGroupIds", &request.security_groups)
        .with_count(List::V4.count, request.secondary_v4)
        .with_count(List::V6.count, request.v6)
        .with_count(List::V4_PREFIXES.count, request.v4_prefixes)
        .with_count(List::V6_PREFIXES.count, request.v6_prefixes)
        .with_tags(&request.tags)
        .with_some("ResourceGroupId", request.resource_group.as_ref())
        .with_some("Description", request.description.as_ref())
        .with("DeleteOnRelease", request.delete_on_release)
        .with("SourceDestCheck", request.source_dest_check)
}

pub(crate) fn describe_enis(region: &RegionId, filter: &EniFilter) -> Parameters {
    Parameters::new(region)
        .with_list("NetworkInterfaceId", &filter.ids)
        .with_some("InstanceId", filter.instance.as_ref())
        .with_some("VpcId", filter.vpc.as_ref())
        .with_some("Type", filter.kind.as_ref())
        .with_some("Status", filter.status.as_ref())
        .with_tags(&filter.tags)
        .with("MaxResults", PAGE)
}

pub(crate) fn attach_eni(region: &RegionId, request: &AttachEni) -> Parameters {
    Parameters::new(region)
        .with("NetworkInterfaceId", &request.eni)
        .with("InstanceId", &request.instance)
        .with_some("TrunkNetworkInstanceId", request.trunk.as_ref())
        .with_some("NetworkCardIndex", request.network_card)
}

pub(crate) fn detach_eni(region: &RegionId, request: &DetachEni) -> Parameters {
    Parameters::new(region)
        .with("NetworkInterfaceId", &request.eni)
        .with("InstanceId", &request.instance)
        .with_some("TrunkNetworkInstanceId", request.trunk.as_ref())
}

pub(crate) fn delete_eni(region: &RegionId, eni: &EniId) -> Parameters {
    Parameters::new(region).with("NetworkInterfaceId", eni)
}

pub(crate) fn assign<A: Display>(
    region: &RegionId,
    names: List,
    request: &AssignAddresses<A>,
) -> Parameters {
    let all = Parameters::new(region)
        .with("ClientToken", &request.token)
        .with("NetworkInterfaceId", &request.eni);
    match &request.addresses {
        AddressRequest::Any(count) => all.with(names.count, count),
        AddressRequest::These(addresses) => all.with_list(names.items, addresses),
    }
}

pub(crate) fn assign_prefixes(
    region: &RegionId,
    names: List,
    request: &AssignPrefixes,
) -> Parameters {
    Parameters::new(region)
        .with("ClientToken", &request.token)
        .with("NetworkInterfaceId", &request.eni)
        .with(names.count, request.count)
}

pub(crate) fn unassign(
    region: &RegionId,
    names: List,
    eni: &EniId,
    addresses: &[impl Display],
) -> Parameters {
    Parameters::new(region).with("NetworkInterfaceId", eni).with_list(names.items, addresses)
}

/// The one action without a region: its grammar has none.
pub(crate) fn instance_types(id: &InstanceTypeId) -> Parameters {
    Parameters(Vec::new()).with_list("InstanceTypes", [id])
}

pub(crate) fn vswitches(region: &RegionId, id: &VSwitchId) -> Parameters {
    Parameters::new(region).with("VSwitchId", id)
}

/// One kind of thing on an ENI: its names on the wire, and how many the API takes in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List {
    /// Parameter of a count.
    pub(crate) count: &'static str,
    /// Parameter of a list.
    pub(crate) items: &'static str,
    pub(crate) assign: Action,
    pub(crate) assign_most: usize,
    pub(crate) unassign: Action,
    pub(crate) unassign_most: usize,
}

impl List {
    pub(crate) const V4: Self = Self {
        count: "SecondaryPrivateIpAddressCount",
        items: "PrivateIpAddress",
        assign: Action::AssignPrivateIpAddresses,
        assign_most: 49,
        unassign: Action::UnassignPrivateIpAddresses,
        unassign_most: 32,
    };
    pub(crate) const V6: Self = Self {
        count: "Ipv6AddressCount",
        items: "Ipv6Address",
        assign: Action::AssignIpv6Addresses,
        assign_most: 10,
        unassign: Action::UnassignIpv6Addresses,
        unassign_most: 10,
    };
    pub(crate) const V4_PREFIXES: Self = Self {
        count: "Ipv4PrefixCount",
        items: "Ipv4Prefix",
        assign_most: 10,
        unassign_most: 10,
        ..Self::V4
    };
    pub(crate) const V6_PREFIXES: Self =
        Self { count: "Ipv6PrefixCount", items: "Ipv6Prefix", ..Self::V6 };
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnetwork::{Ipv4Network, Ipv6Network};
    use model::{InstanceId, SecurityGroupId, VpcId};

    use super::*;
    use crate::fixture::sdk_requests;
    use crate::{ClientToken, EniKind, EniStatus};

    fn token(text: &str) -> ClientToken {
        ClientToken::try_from(text.to_owned()).unwrap()
    }

    /// What `testdata/capture.py` asked for, in its order, asked by us.
    fn ours() -> Vec<Parameters> {
        let region = &RegionId::new("cn-hangzhou");
        let (eni, instance, trunk) =
            (EniId::new("eni-1"), InstanceId::new("i-1"), Some(EniId::new("eni-trunk")));
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let creator = tag("creator", "terway");
        let secondary = CreateEni {
            token: token("123e4567-e89b-12d3-a456-426655440000"),
            kind: NewEni::Secondary,
            vswitch: VSwitchId::new("vsw-1"),
            security_groups: ["sg-1", "sg-2"].map(SecurityGroupId::new).to_vec(),
            secondary_v4: 9,
            v6: 10,
            v4_prefixes: 0,
            v6_prefixes: 0,
            tags: BTreeMap::from([tag("ack.aliyun.com", "c 1/2+3=4*~ä名"), creator.clone()]),
            resource_group: Some("rg-1".to_owned()),
            delete_on_release: true,
            source_dest_check: false,
            description: Some("interface of terway".to_owned()),
        };
        let filter = EniFilter {
            ids: (1..=12).map(|number| EniId::new(format!("eni-{number}"))).collect(),
            instance: Some(instance.clone()),
            vpc: Some(VpcId::new("vpc-1")),
            kind: Some(EniKind::Member),
            status: Some(EniStatus::InUse),
            tags: BTreeMap::from([creator]),
        };
        let attach = AttachEni {
            eni: eni.clone(),
            instance: instance.clone(),
            trunk: trunk.clone(),
            network_card: Some(0),
        };
        let v4: Vec<Ipv4Addr> = ["10.0.1.5", "10.0.1.6"].map(|text| text.parse().unwrap()).to_vec();
        let v6: Vec<Ipv6Addr> = ["2408::5", "2408::6"].map(|text| text.parse().unwrap()).to_vec();
        let some = AssignAddresses {
            token: token("t"),
            eni: eni.clone(),
            addresses: AddressRequest::<Ipv4Addr>::Any(10),
        };
        let these = AssignAddresses {
            token: token("t"),
            eni: eni.clone(),
            addresses: AddressRequest::These(v6.clone()),
        };
        let prefixes = AssignPrefixes { token: token("t"), eni: eni.clone(), count: 3 };
        let v4_prefixes: Vec<Ipv4Network> =
            ["10.0.1.16/28", "10.0.1.32/28"].map(|text| text.parse().unwrap()).to_vec();
        let v6_prefixes: Vec<Ipv6Network> = vec!["2408::1:0:0:0/80".parse().unwrap()];
        vec![
            create_eni(region, &secondary),
            create_eni(region, &trunk_request()),
            describe_enis(region, &filter).with("NextToken", "AAAAA+/="),
            attach_eni(region, &attach),
            detach_eni(region, &DetachEni { eni: eni.clone(), instance, trunk }),
            delete_eni(region, &eni),
            assign(region, List::V4, &some),
            unassign(region, List::V4, &eni, &v4),
            assign(region, List::V6, &these),
            unassign(region, List::V6, &eni, &v6[..1]),
            assign_prefixes(region, List::V4_PREFIXES, &prefixes),
            unassign(region, List::V4_PREFIXES, &eni, &v4_prefixes),
            assign_prefixes(region, List::V6_PREFIXES, &prefixes),
            unassign(region, List::V6_PREFIXES, &eni, &v6_prefixes),
            instance_types(&InstanceTypeId::new("ecs.g7.4xlarge")),
            vswitches(region, &VSwitchId::new("vsw-1")),
        ]
    }

    fn trunk_request() -> CreateEni {
        CreateEni {
            token: token("t"),
            kind: NewEni::Trunk,
            vswitch: VSwitchId::new("vsw-1"),
            security_groups: vec![SecurityGroupId::new("sg-1")],
            secondary_v4: 0,
            v6: 0,
            v4_prefixes: 2,
            v6_prefixes: 1,
            tags: BTreeMap::new(),
            resource_group: None,
            delete_on_release: false,
            source_dest_check: false,
            description: None,
        }
    }

    #[test]
    fn we_send_what_the_official_sdk_sends() {
        let always = [("DeleteOnRelease", "false"), ("SourceDestCheck", "false")];
        assert_eq!(ours().len(), sdk_requests().requests.len());
        for (ours, theirs) in ours().iter().zip(sdk_requests().requests) {
            let mut ours: BTreeMap<_, _> = ours.0.iter().cloned().collect();
            let mut theirs: BTreeMap<_, _> = theirs.parameters.into_iter().collect();
            for value in
                theirs.values_mut().filter(|value| matches!(value.as_str(), "True" | "False"))
            {
                *value = value.to_ascii_lowercase();
            }
            // What the SDK's caller left out, and we always say.
            for (name, value) in always {
                if !theirs.contains_key(name) && ours.get(name).is_some_and(|ours| ours == value) {
                    ours.remove(name);
                }
            }
            assert_eq!(ours, theirs);
        }
    }
}
