//! ENIs come, change and go.

use serde_json::json;

use super::ENI;
use crate::ecs::bed::Bed;
use crate::ecs::operations::Effect;

#[test]
fn a_new_eni_is_available_and_has_what_was_asked_for() {
    let mut bed = Bed::new();
    let eni = bed.create(&[
        ("SecondaryPrivateIpAddressCount", "2"),
        ("Ipv6AddressCount", "1"),
        ("Tag.1.Key", "creator"),
        ("Tag.1.Value", "terway"),
        ("SourceDestCheck", "False"),
        ("Description", "interface create by terway"),
    ]);
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(shown["Status"], "Available");
    assert_eq!(shown["Type"], "Secondary");
    assert_eq!(shown["PrivateIpAddress"], "10.0.2.1");
    assert_eq!(
        shown["PrivateIpSets"]["PrivateIpSet"],
        json!([
            { "PrivateIpAddress": "10.0.2.1", "Primary": true },
            { "PrivateIpAddress": "10.0.2.2", "Primary": false },
            { "PrivateIpAddress": "10.0.2.3", "Primary": false },
        ])
    );
    assert_eq!(shown["Ipv6Sets"]["Ipv6Set"].as_array().unwrap().len(), 1);
    assert_eq!(shown["Tags"]["Tag"], json!([{ "TagKey": "creator", "TagValue": "terway" }]));
    assert_eq!(shown["MacAddress"].as_str().unwrap().get(..9), Some("00:16:3e:"));
    assert_eq!(shown["ZoneId"], "cn-hangzhou-h");
    assert_eq!(shown["InstanceId"], "");
    assert_eq!(bed.done, [], "an ENI in no instance is no business of the wires");
}

#[test]
fn addresses_may_be_named_and_the_primary_one_comes_first() {
    let mut bed = Bed::new();
    let named = [("PrivateIpAddress.1", "10.0.2.9"), ("PrivateIpAddress.2", "10.0.2.8")];
    let eni = bed.create(&named);
    assert_eq!(bed.describe(&eni).unwrap()["PrivateIpAddress"], "10.0.2.1");
    let eni =
        bed.create(&[("PrimaryIpAddress", "10.0.2.5"), ("SecondaryPrivateIpAddressCount", "1")]);
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(shown["PrivateIpAddress"], "10.0.2.5");
    assert_eq!(shown["PrivateIpSets"]["PrivateIpSet"][1]["PrivateIpAddress"], "10.0.2.2");
}

#[test]
fn a_create_that_the_real_api_would_refuse_is_refused() {
    let mut bed = Bed::new();
    let good = [("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a")];
    for (change, code) in [
        (("VSwitchId", "vsw-x"), "InvalidVSwitchId.NotFound"),
        (("SecurityGroupIds.1", "sg-x"), "InvalidSecurityGroupId.NotFound"),
        (("SecurityGroupIds.2", "sg-a"), "InvalidParameter"),
        (("SecurityGroupId", "sg-a"), "InvalidParameter"),
        (("InstanceType", "Member"), "InvalidParameter"),
        (("SecondaryPrivateIpAddressCount", "50"), "InvalidParam.Amount"),
        (("SecondaryPrivateIpAddressCount", "0"), "InvalidParam.Amount"),
        (("Ipv6AddressCount", "11"), "InvalidParam.Amount"),
        (("PrimaryIpAddress", "10.0.2.253"), "InvalidVSwitchId.IpInvalid"),
        (("PrimaryIpAddress", "10.0.1.7"), "InvalidVSwitchId.IpInvalid"),
        (("Tag.1.Key", "acs:own"), "InvalidTagKey.Malformed"),
        (("QueueNumber", "2"), "UnsupportedParameter"),
        (("NetworkInterfaceTrafficMode", "HighPerformance"), "InvalidParameter"),
        (("Ipv4PrefixCount", "11"), "InvalidParam.Amount"),
        (("ClientToken", "tök"), "InvalidParameter"),
    ] {
        let mut pairs: Vec<_> = good.into_iter().filter(|(name, _)| *name != change.0).collect();
        pairs.push(change);
        assert_eq!(bed.refused("CreateNetworkInterface", &pairs), code, "{change:?}");
    }
    assert_eq!(bed.refused("CreateNetworkInterface", &good[..1]), "MissingParameter");
    let without_v6 =
        [("VSwitchId", "vsw-tiny"), ("SecurityGroupIds.1", "sg-a"), ("Ipv6AddressCount", "1")];
    assert_eq!(bed.refused("CreateNetworkInterface", &without_v6), "InvalidVSwitch.Ipv6NotTurnOn");
    assert_eq!(bed.cloud.view().enis().count(), 0);
    assert_eq!(bed.cloud.taken_in(&model::VpcId::new("vpc-lab")), 0, "nothing leaked");
}

#[test]
fn a_vswitch_runs_out_and_says_so_and_counts_down() {
    let mut bed = Bed::new();
    let free = |bed: &mut Bed| {
        let body = bed.call("DescribeVSwitches", &[("VSwitchId", "vsw-tiny")]).unwrap();
        body["VSwitches"]["VSwitch"][0]["AvailableIpAddressCount"].as_u64().unwrap()
    };
    assert_eq!(free(&mut bed), 12);
    let pairs = |count| {
        [
            ("VSwitchId", "vsw-tiny"),
            ("SecurityGroupIds.1", "sg-a"),
            ("SecondaryPrivateIpAddressCount", count),
        ]
    };
    bed.call("CreateNetworkInterface", &pairs("7")).unwrap();
    assert_eq!(free(&mut bed), 4);
    assert_eq!(bed.refused("CreateNetworkInterface", &pairs("4")), "InvalidVSwitchId.IpNotEnough");
    assert_eq!(free(&mut bed), 4, "a refused call keeps none");
}

#[test]
fn quotas_of_the_account_and_of_the_vpc_are_kept() {
    let mut bed = Bed::new();
    bed.cloud.settings.eni_quota = 1;
    bed.create(&[]);
    let pairs = [("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a")];
    assert_eq!(bed.refused("CreateNetworkInterface", &pairs), "MaxEniCountExceeded");

    bed.cloud.settings.eni_quota = 10;
    bed.cloud.world.vpcs.get_mut(&model::VpcId::new("vpc-lab")).unwrap().address_quota = 1;
    assert_eq!(bed.refused("CreateNetworkInterface", &pairs), "QuotaExceeded.PrivateIpAddress");
}

#[test]
fn a_client_token_means_one_eni() {
    let mut bed = Bed::new();
    let pairs =
        [("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a"), ("ClientToken", "0b6e1a7e")];
    let first = bed.call("CreateNetworkInterface", &pairs).unwrap();
    let second = bed.call("CreateNetworkInterface", &pairs).unwrap();
    assert_eq!(first, second);
    assert_eq!(bed.cloud.view().enis().count(), 1);
    let other = [("VSwitchId", "vsw-a"), pairs[1], pairs[2]];
    assert_eq!(bed.refused("CreateNetworkInterface", &other), "IdempotentParameterMismatch");
    bed.advance(25.0 * 3600.0);
    bed.cloud.tick(bed.now);
    let later = bed.call("CreateNetworkInterface", &other).unwrap();
    assert_ne!(first[ENI], later[ENI]);
}

#[test]
fn modify_changes_groups_and_flags_by_the_wires() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.attach(&eni, &instance);
    bed.done.clear();
    bed.call(
        "ModifyNetworkInterfaceAttribute",
        &[
            (ENI, &eni),
            ("SecurityGroupId.1", "sg-b"),
            ("SecurityGroupId.2", "sg-c"),
            ("SourceDestCheck", "true"),
        ],
    )
    .unwrap();
    assert!(matches!(&bed.done[..], [Effect::SetGroups(groups), Effect::SetSourceDestCheck(check)]
        if groups.groups.len() == 2 && check.source_dest_check));
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(shown["SecurityGroupIds"]["SecurityGroupId"], json!(["sg-b", "sg-c"]));
    assert_eq!(shown["SourceDestCheck"], true);
    let names: Vec<_> = (1..=6).map(|n| (format!("SecurityGroupId.{n}"), "sg-a")).collect();
    let mut pairs = vec![(ENI, eni.as_str())];
    pairs.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
    assert_eq!(bed.refused("ModifyNetworkInterfaceAttribute", &pairs), "InvalidParameter");
}

#[test]
fn tags_are_added_without_a_conflict() {
    let mut bed = Bed::new();
    let eni = bed.create(&[("Tag.1.Key", "a"), ("Tag.1.Value", "1")]);
    bed.start("AssignPrivateIpAddresses", &[(ENI, &eni), ("SecondaryPrivateIpAddressCount", "1")])
        .unwrap();
    let pairs = [
        ("ResourceType", "eni"),
        ("ResourceId.1", eni.as_str()),
        ("Tag.1.Key", "b"),
        ("Tag.1.Value", "2"),
    ];
    bed.call("TagResources", &pairs).unwrap();
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(shown["Tags"]["Tag"].as_array().unwrap().len(), 2);
    let pairs = [pairs[0], ("ResourceId.1", "eni-x"), pairs[2]];
    assert_eq!(bed.refused("TagResources", &pairs), "InvalidResourceId.NotFound");
}
