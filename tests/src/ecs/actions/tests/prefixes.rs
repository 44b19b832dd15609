//! Prefixes come and go as a whole.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use model::VSwitchId;
use serde_json::{Value, json};

use super::{ENI, INSTANCE};
use crate::ecs::bed::Bed;
use crate::ecs::operations::Effect;

const ASSIGN: &str = "AssignPrivateIpAddresses";
const UNASSIGN: &str = "UnassignPrivateIpAddresses";
const ASSIGN_V6: &str = "AssignIpv6Addresses";

fn available(bed: &mut Bed, vswitch: &str) -> u64 {
    let body = bed.call("DescribeVSwitches", &[("VSwitchId", vswitch)]).unwrap();
    body["VSwitches"]["VSwitch"][0]["AvailableIpAddressCount"].as_u64().unwrap()
}

fn prefixes(eni: &Value) -> (Value, usize) {
    let v6 = eni["Ipv6PrefixSets"]["Ipv6PrefixSet"].as_array().unwrap().len();
    (eni["Ipv4PrefixSets"]["Ipv4PrefixSet"].clone(), v6)
}

#[test]
fn a_prefix_is_assigned_shown_everywhere_and_unassigned_only_whole() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.attach(&eni, &instance);
    bed.done.clear();
    let body = bed.call(ASSIGN, &[(ENI, &eni), ("Ipv4PrefixCount", "2")]).unwrap();
    let set = &body["AssignedPrivateIpAddressesSet"];
    let both = json!(["10.0.2.16/28", "10.0.2.32/28"]);
    assert_eq!(set["Ipv4PrefixSet"]["Ipv4Prefixes"], both);
    assert_eq!(set["PrivateIpSet"]["PrivateIpAddress"], json!([]));
    let body = bed.call(ASSIGN_V6, &[(ENI, &eni), ("Ipv6PrefixCount", "1")]).unwrap();
    let v6 = body["Ipv6PrefixSets"]["Ipv6Prefix"][0].as_str().unwrap().to_owned();
    assert!(v6.starts_with("2408:4005:3a0:2:") && v6.ends_with("/80"), "{v6}");
    let Some(Effect::SetAddresses(plugged)) = bed.done.last() else { panic!("{:?}", bed.done) };
    let owned: Vec<_> = plugged.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(owned, ["10.0.2.1/32", "10.0.2.16/28", "10.0.2.32/28", &v6]);

    let shown = json!([{ "Ipv4Prefix": "10.0.2.16/28" }, { "Ipv4Prefix": "10.0.2.32/28" }]);
    assert_eq!(prefixes(&bed.describe(&eni).unwrap()), (shown.clone(), 1));
    let attribute = bed.call("DescribeNetworkInterfaceAttribute", &[(ENI, &eni)]).unwrap();
    assert_eq!(prefixes(&attribute), (shown.clone(), 1));
    let nics = bed.call("DescribeInstances", &[]).unwrap();
    let nics = &nics["Instances"]["Instance"][0]["NetworkInterfaces"]["NetworkInterface"];
    assert_eq!(prefixes(&nics[1]), (shown, 1));
    assert_eq!(available(&mut bed, "vsw-b"), 252 - 1 - 32);

    for (name, value, code) in [
        ("PrivateIpAddress.1", "10.0.2.17", "InvalidIp.IpUnassigned"),
        ("Ipv4Prefix.1", "10.0.2.16/29", "InvalidParameter"),
        ("Ipv4Prefix.1", "10.0.2.17/28", "InvalidParameter"),
        ("Ipv4Prefix.1", "10.0.2.48/28", "InvalidIp.IpUnassigned"),
        ("Ipv4Prefix.1", "2408:4005:3a0:2::/80", "InvalidParameter"),
    ] {
        assert_eq!(bed.refused(UNASSIGN, &[(ENI, &eni), (name, value)]), code, "{value}");
    }
    bed.call(UNASSIGN, &[(ENI, &eni), ("Ipv4Prefix.1", "10.0.2.16/28")]).unwrap();
    bed.call("UnassignIpv6Addresses", &[(ENI, &eni), ("Ipv6Prefix.1", &v6)]).unwrap();
    let left = json!([{ "Ipv4Prefix": "10.0.2.32/28" }]);
    assert_eq!(prefixes(&bed.describe(&eni).unwrap()), (left, 0));
    assert_eq!(available(&mut bed, "vsw-b"), 252 - 1 - 16);
}

#[test]
fn an_eni_is_created_with_prefixes_and_gives_them_back_when_it_is_deleted() {
    let mut bed = Bed::new();
    let eni = bed.create(&[("Ipv4PrefixCount", "2"), ("Ipv6Prefix.1", "2408:4005:3a0:2:5::/80")]);
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(prefixes(&shown).0.as_array().unwrap().len(), 2);
    let v6 = json!([{ "Ipv6Prefix": "2408:4005:3a0:2:5::/80" }]);
    assert_eq!(shown["Ipv6PrefixSets"]["Ipv6PrefixSet"], v6);
    assert_eq!(shown["PrivateIpSets"]["PrivateIpSet"].as_array().unwrap().len(), 1);
    assert_eq!(available(&mut bed, "vsw-b"), 252 - 33);
    bed.call("DeleteNetworkInterface", &[(ENI, &eni)]).unwrap();
    assert_eq!(available(&mut bed, "vsw-b"), 252);
    // A primary address inside of the prefix: nothing is taken.
    let named = [("Ipv4Prefix.1", "10.0.2.64/28"), ("PrimaryIpAddress", "10.0.2.64")];
    let pairs = [&[("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a")], &named[..]].concat();
    assert_eq!(bed.refused("CreateNetworkInterface", &pairs), "InvalidIp.IpAssigned");
    assert_eq!(available(&mut bed, "vsw-b"), 252);
}

#[test]
fn a_prefix_takes_one_slot_of_the_quota_whatever_else_does() {
    let mut bed = Bed::new();
    // Six IPv4 addresses an ENI, of which the primary one is the first, and one of IPv6.
    let (instance, eni) = (bed.boot("ecs.g6.large"), bed.create(&[]));
    bed.attach(&eni, &instance);
    let v4 = |count| [(ENI, eni.as_str()), ("Ipv4PrefixCount", count)];
    assert_eq!(bed.refused(ASSIGN, &v4("6")), "InvalidOperation.Ipv4CountExceeded");
    bed.call(ASSIGN, &v4("4")).unwrap();
    bed.call(ASSIGN, &[(ENI, &eni), ("SecondaryPrivateIpAddressCount", "1")]).unwrap();
    assert_eq!(bed.refused(ASSIGN, &v4("1")), "InvalidOperation.Ipv4CountExceeded");
    let v6 = [(ENI, eni.as_str()), ("Ipv6PrefixCount", "1")];
    bed.call(ASSIGN_V6, &v6).unwrap();
    assert_eq!(bed.refused(ASSIGN_V6, &v6), "InvalidOperation.Ipv6CountExceeded");
    let heavy = bed.create(&[("Ipv4PrefixCount", "6")]);
    let other = bed.boot("ecs.g6.large");
    let pairs = [(ENI, heavy.as_str()), (INSTANCE, other.as_str())];
    let code = "InvalidOperation.Ipv4CountExceeded";
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), code);
}

#[test]
fn ten_prefixes_a_call_and_none_beside_addresses() {
    let mut bed = Bed::new();
    let eni = bed.create(&[]);
    for (action, first, second, code) in [
        (ASSIGN, ("Ipv4PrefixCount", "11"), ("RegionId", "cn-hangzhou"), "InvalidParam.Amount"),
        (ASSIGN, ("Ipv4PrefixCount", "0"), ("RegionId", "cn-hangzhou"), "InvalidParam.Amount"),
        (
            ASSIGN,
            ("Ipv4PrefixCount", "1"),
            ("SecondaryPrivateIpAddressCount", "1"),
            "InvalidParameter",
        ),
        (
            ASSIGN,
            ("Ipv4Prefix.1", "10.0.2.16/28"),
            ("PrivateIpAddress.1", "10.0.2.99"),
            "InvalidParameter",
        ),
        (ASSIGN, ("Ipv4PrefixCount", "1"), ("Ipv4Prefix.1", "10.0.2.16/28"), "InvalidParameter"),
        (
            ASSIGN,
            ("Ipv4Prefix.1", "10.0.2.16/28"),
            ("Ipv4Prefix.2", "10.0.2.16/28"),
            "InvalidIp.IpRepeated",
        ),
        (ASSIGN_V6, ("Ipv6PrefixCount", "1"), ("Ipv6AddressCount", "1"), "InvalidParameter"),
        (ASSIGN_V6, ("Ipv6PrefixCount", "11"), ("RegionId", "cn-hangzhou"), "InvalidParam.Amount"),
        (
            UNASSIGN,
            ("Ipv4Prefix.1", "10.0.2.16/28"),
            ("PrivateIpAddress.1", "10.0.2.9"),
            "InvalidParameter",
        ),
    ] {
        let pairs = [(ENI, eni.as_str()), first, second];
        let pairs: Vec<_> = pairs.into_iter().filter(|(name, _)| *name != "RegionId").collect();
        assert_eq!(bed.refused(action, &pairs), code, "{first:?} {second:?}");
    }
    let eleven: Vec<_> =
        (1..=11).map(|n| (format!("Ipv4Prefix.{n}"), format!("10.0.2.{}/28", n * 16))).collect();
    let mut pairs = vec![(ENI, eni.as_str())];
    pairs.extend(eleven.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert_eq!(bed.refused(UNASSIGN, &pairs), "InvalidParam.Amount");
    let dual = [(ENI, eni.as_str()), ("Ipv4PrefixCount", "10")];
    bed.call(ASSIGN, &dual).unwrap();
}

#[test]
fn a_fragmented_vswitch_has_addresses_and_no_prefix() {
    let mut bed = Bed::new();
    let (id, eni) = (VSwitchId::new("vsw-b"), bed.create(&[]));
    // One of every sixteen.
    let reserved: BTreeSet<_> = (1..15).map(|n| Ipv4Addr::new(10, 0, 2, n * 16)).collect();
    bed.cloud.reserve(&id, reserved.clone()).unwrap();
    assert_eq!(available(&mut bed, "vsw-b"), 252 - 1 - 14);
    let ask = [(ENI, eni.as_str()), ("Ipv4PrefixCount", "1")];
    assert_eq!(bed.refused(ASSIGN, &ask), "InvalidVSwitchId.IpNotEnough");
    let single = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "10")];
    bed.call(ASSIGN, &single).unwrap();
    let named = [(ENI, eni.as_str()), ("PrivateIpAddress.1", "10.0.2.16")];
    assert_eq!(bed.refused(ASSIGN, &named), "InvalidIp.IpAssigned");

    // What an ENI has cannot be reserved, and then nothing is.
    let all = reserved.iter().copied().chain([Ipv4Addr::new(10, 0, 2, 1)]).collect();
    assert_eq!(bed.cloud.reserve(&id, all).unwrap_err().code, "InvalidIp.IpAssigned");
    assert_eq!(available(&mut bed, "vsw-b"), 252 - 11 - 14);
    bed.cloud.reserve(&id, reserved.into_iter().skip(1).collect()).unwrap();
    let body = bed.call(ASSIGN, &ask).unwrap();
    let given = &body["AssignedPrivateIpAddressesSet"]["Ipv4PrefixSet"]["Ipv4Prefixes"];
    assert_eq!(*given, json!(["10.0.2.16/28"]));
}

#[test]
fn a_prefix_counts_for_sixteen_of_the_vpcs_quota() {
    let mut bed = Bed::new();
    let eni = bed.create(&[]);
    let quota = bed.cloud.world.vpcs.values_mut().next().unwrap();
    quota.address_quota = 16;
    let ask = [(ENI, eni.as_str()), ("Ipv4PrefixCount", "1")];
    assert_eq!(bed.refused(ASSIGN, &ask), "QuotaExceeded.PrivateIpAddress");
    bed.cloud.world.vpcs.values_mut().next().unwrap().address_quota = 17;
    bed.call(ASSIGN, &ask).unwrap();
}
