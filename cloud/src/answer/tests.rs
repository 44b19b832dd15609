//! Answers as the cloud writes them, and others.

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
    "Ipv4PrefixSets": {"Ipv4PrefixSet": [{"Ipv4Prefix": "10.0.1.16/28"}]},
    "Ipv6PrefixSets": {"Ipv6PrefixSet": [{"Ipv6Prefix": "2408:0:0:0:1::/80"}]},
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
        v4_prefixes: vec!["10.0.1.16/28".parse().unwrap()],
        v6_prefixes: vec!["2408:0:0:0:1::/80".parse().unwrap()],
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
        ("10.0.1.16/28", "10.0.1.16", "Ipv4Prefix: \"10.0.1.16\" is not an IPv4 prefix"),
        ("10.0.1.16/28", "10.0.1.17/28", "Ipv4Prefix: \"10.0.1.17/28\" is not an IPv4 prefix"),
        ("2408:0:0:0:1::/80", "::/129", "Ipv6Prefix: \"::/129\" is not an IPv6 prefix"),
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
