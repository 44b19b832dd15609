//! What the actions do and what they refuse, against the pure state machine.

use serde_json::json;

use crate::ecs::bed::Bed;
use crate::ecs::fabric::PluggedKind;
use crate::ecs::operations::Effect;

const ENI: &str = "NetworkInterfaceId";
const INSTANCE: &str = "InstanceId";
const TRUNK: &str = "TrunkNetworkInstanceId";

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
        (("Ipv4PrefixCount", "1"), "UnsupportedParameter"),
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
fn attach_takes_its_time_and_is_in_use_only_when_the_wires_have_followed() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.done.clear();
    let pairs = [(ENI, eni.as_str()), (INSTANCE, instance.as_str())];
    bed.start("AttachNetworkInterface", &pairs).unwrap();
    assert_eq!(bed.status_now(&eni), "Attaching");
    bed.advance(0.4);
    assert_eq!(bed.cloud.tick(bed.now), [], "the delay is not over");
    bed.advance(0.2);
    let work = bed.cloud.tick(bed.now).remove(0);
    assert_eq!(bed.status_now(&eni), "Attaching", "the wires have not followed");
    bed.finish(work, &Ok(()));
    assert_eq!(bed.status_now(&eni), "InUse");
    assert!(matches!(&bed.done[..], [Effect::Plug(plugged)]
        if plugged.kind == PluggedKind::Secondary && plugged.instance == "node1"));
}

#[test]
fn an_attach_that_the_wires_refuse_ends_available_and_is_recorded() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    let pairs = [(ENI, eni.as_str()), (INSTANCE, instance.as_str())];
    bed.start("AttachNetworkInterface", &pairs).unwrap();
    bed.advance(1.0);
    let work = bed.cloud.tick(bed.now).remove(0);
    bed.finish(work, &Err("no such namespace".to_owned()));
    assert_eq!(bed.status_now(&eni), "Available");
    assert_eq!(bed.cloud.failures, [format!("{eni}: no such namespace")]);
}

#[test]
fn states_that_do_not_allow_an_action_refuse_it() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    let pairs = [(ENI, eni.as_str()), (INSTANCE, instance.as_str())];
    let state = "InvalidOperation.InvalidEniState";
    assert_eq!(bed.refused("DetachNetworkInterface", &pairs), state, "it is in no instance");
    bed.start("AttachNetworkInterface", &pairs).unwrap();
    for action in ["AttachNetworkInterface", "DetachNetworkInterface"] {
        assert_eq!(bed.refused(action, &pairs), state, "{action} while attaching");
    }
    assert_eq!(bed.refused("DeleteNetworkInterface", &pairs[..1]), state);
    let assign = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "1")];
    assert_eq!(bed.refused("AssignPrivateIpAddresses", &assign), state);
    bed.settle();
    assert_eq!(bed.refused("DeleteNetworkInterface", &pairs[..1]), state, "in use");
    bed.start("DetachNetworkInterface", &pairs).unwrap();
    assert_eq!(bed.status_now(&eni), "Detaching");
    assert_eq!(bed.refused("AssignPrivateIpAddresses", &assign), state);
    bed.start("DetachNetworkInterface", &pairs).unwrap();
    bed.settle();
    assert_eq!(bed.status_now(&eni), "Available");
    bed.call("DeleteNetworkInterface", &pairs[..1]).unwrap();
    assert_eq!(bed.status_now(&eni), "gone");
    assert_eq!(bed.refused("DeleteNetworkInterface", &pairs[..1]), "InvalidEniId.NotFound");
    let gone = [(ENI, eni.as_str()), (INSTANCE, "i-gone")];
    assert_eq!(bed.refused("DetachNetworkInterface", &gone), "InvalidEniId.NotFound");
}

#[test]
fn a_primary_eni_stays_where_it_is() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.g7.xlarge");
    let primary = bed.cloud.view().enis().next().unwrap().id.to_string();
    let pairs = [(ENI, primary.as_str()), (INSTANCE, instance.as_str())];
    let code = "InvalidOperation.DetachPrimaryEniNotAllowed";
    assert_eq!(bed.refused("DetachNetworkInterface", &pairs), code);
}

#[test]
fn an_eni_goes_only_into_an_instance_of_its_zone_that_is_alive() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    let elsewhere = [("VSwitchId", "vsw-elsewhere"), ("SecurityGroupIds.1", "sg-a")];
    let elsewhere = bed.call("CreateNetworkInterface", &elsewhere).unwrap();
    let elsewhere = elsewhere[ENI].as_str().unwrap();
    let pairs = [(ENI, elsewhere), (INSTANCE, instance.as_str())];
    let code = "InvalidOperation.AvailabilityZoneMismatch";
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), code);
    let pairs = [(ENI, eni.as_str()), (INSTANCE, "i-x")];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), "InvalidEcsId.NotFound");
    let released = crate::ecs::InstanceState::Released;
    bed.cloud.set_instance_state(&instance, released, bed.now).unwrap();
    let pairs = [(ENI, eni.as_str()), (INSTANCE, instance.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), "InvalidOperation.InvalidEcsState");
}

#[test]
fn an_instance_takes_as_many_nics_and_members_as_its_type() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.g7.2xlarge");
    let trunk = bed.create(&[("InstanceType", "Trunk")]);
    bed.attach(&trunk, &instance);
    for _nic in 0..2 {
        let eni = bed.create(&[]);
        bed.attach(&eni, &instance);
    }
    let one_more = bed.create(&[]);
    let pairs = [(ENI, one_more.as_str()), (INSTANCE, instance.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), "EniPerInstanceLimitExceeded");
    for _member in 0..6 {
        let eni = bed.create(&[]);
        bed.attach_member(&eni, &instance, &trunk);
    }
    let pairs = [pairs[0], pairs[1], (TRUNK, trunk.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), "EniPerInstanceLimitExceeded");
}

#[test]
fn a_member_has_a_vlan_of_its_trunk_once_it_is_in_use() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.g7.xlarge");
    let trunk = bed.create(&[("InstanceType", "Trunk")]);
    bed.attach(&trunk, &instance);
    let member = bed.create(&[]);
    let pairs = [(ENI, member.as_str()), (INSTANCE, instance.as_str()), (TRUNK, trunk.as_str())];
    bed.start("AttachNetworkInterface", &pairs).unwrap();
    let attaching = bed.describe_now(&member);
    assert_eq!(attaching["Attachment"]["DeviceIndex"], json!(null));
    bed.settle();
    let shown = bed.describe(&member).unwrap();
    assert_eq!(shown["Type"], "Member");
    assert_eq!(shown["Attachment"]["DeviceIndex"], 1);
    assert_eq!(shown["Attachment"]["TrunkNetworkInterfaceId"], trunk.as_str());
    assert_eq!(shown["Attachment"]["InstanceId"], instance.as_str());

    // The trunk stays while it carries somebody, and a member goes by its trunk's name.
    let detach_trunk = [(ENI, trunk.as_str()), (INSTANCE, instance.as_str())];
    let linked = "InvalidOperation.EniLinked";
    assert_eq!(bed.refused("DetachNetworkInterface", &detach_trunk), linked);
    assert_eq!(bed.refused("DetachNetworkInterface", &pairs[..2]), "MissingParameter");
    bed.call("DetachNetworkInterface", &pairs).unwrap();
    assert_eq!(bed.describe(&member).unwrap()["Type"], "Secondary");
    bed.call("DetachNetworkInterface", &detach_trunk).unwrap();
    assert_eq!(bed.status(&trunk), "Available");
}

#[test]
fn trunks_are_for_types_that_have_them_and_one_each() {
    let mut bed = Bed::new();
    let (small, big) = (bed.boot("ecs.g6.large"), bed.boot("ecs.g7.xlarge"));
    let trunk = bed.create(&[("InstanceType", "Trunk")]);
    let wrong = "InvalidOperation.InvalidEniType";
    let pairs = [(ENI, trunk.as_str()), (INSTANCE, small.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), wrong);
    bed.attach(&trunk, &big);
    let second = bed.create(&[("InstanceType", "Trunk")]);
    let pairs = [(ENI, second.as_str()), (INSTANCE, big.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), wrong);
    let pairs = [pairs[0], pairs[1], (TRUNK, trunk.as_str())];
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), wrong, "a trunk on a trunk");
    let plain = bed.create(&[]);
    let pairs = [(ENI, plain.as_str()), (INSTANCE, small.as_str()), (TRUNK, trunk.as_str())];
    let state = "InvalidOperation.InvalidEniState";
    assert_eq!(bed.refused("AttachNetworkInterface", &pairs), state, "it is not there");
}

#[test]
fn assigned_addresses_are_shown_when_the_wires_take_them() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.attach(&eni, &instance);
    bed.done.clear();
    let pairs = [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "2")];
    let answer = bed.start("AssignPrivateIpAddresses", &pairs).unwrap();
    let assigned = &answer.body["AssignedPrivateIpAddressesSet"]["PrivateIpSet"];
    assert_eq!(assigned["PrivateIpAddress"], json!(["10.0.2.2", "10.0.2.3"]));
    assert!(answer.wait.is_some());
    let shown =
        |eni: &serde_json::Value| eni["PrivateIpSets"]["PrivateIpSet"].as_array().unwrap().len();
    assert_eq!(shown(&bed.describe_now(&eni)), 1, "not yet");
    assert_eq!(bed.refused("AssignPrivateIpAddresses", &pairs), "Operation.Conflict");
    assert_eq!(
        bed.refused("DetachNetworkInterface", &[pairs[0], (INSTANCE, &instance)]),
        "Operation.Conflict"
    );
    bed.settle();
    assert_eq!(shown(&bed.describe_now(&eni)), 3);
    let [Effect::SetAddresses(plugged)] = &bed.done[..] else { panic!("{:?}", bed.done) };
    assert_eq!(plugged.addresses.len(), 3);

    let pairs = [(ENI, eni.as_str()), ("Ipv6AddressCount", "2")];
    bed.call("AssignIpv6Addresses", &pairs).unwrap();
    let shown = bed.describe_now(&eni);
    let address = shown["Ipv6Sets"]["Ipv6Set"][0]["Ipv6Address"].as_str().unwrap().to_owned();
    bed.call("UnassignIpv6Addresses", &[(ENI, &eni), ("Ipv6Address.1", &address)]).unwrap();
    assert_eq!(bed.describe_now(&eni)["Ipv6Sets"]["Ipv6Set"].as_array().unwrap().len(), 1);
}

#[test]
fn an_assign_that_the_wires_refuse_keeps_nothing() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.attach(&eni, &instance);
    let pairs =
        [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", "2"), ("ClientToken", "t")];
    bed.start("AssignPrivateIpAddresses", &pairs).unwrap();
    bed.advance(1.0);
    let work = bed.cloud.tick(bed.now).remove(0);
    bed.finish(work, &Err("no route".to_owned()));
    let body = bed.call("AssignPrivateIpAddresses", &pairs).unwrap();
    let assigned = &body["AssignedPrivateIpAddressesSet"]["PrivateIpSet"]["PrivateIpAddress"];
    assert_eq!(*assigned, json!(["10.0.2.2", "10.0.2.3"]), "the token was free again");
}

#[test]
fn an_address_quota_is_the_types_and_without_an_instance_it_is_50() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.r6.8xlarge");
    let eni = bed.create(&[("SecondaryPrivateIpAddressCount", "18"), ("Ipv6AddressCount", "1")]);
    bed.attach(&eni, &instance);
    let v4 = |count| [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", count)];
    assert_eq!(
        bed.refused("AssignPrivateIpAddresses", &v4("2")),
        "InvalidOperation.Ipv4CountExceeded"
    );
    bed.call("AssignPrivateIpAddresses", &v4("1")).unwrap();
    assert_eq!(
        bed.refused("AssignIpv6Addresses", &[(ENI, &eni), ("Ipv6AddressCount", "1")]),
        "InvalidOperation.Ipv6CountExceeded"
    );
    let full = bed.create(&[("SecondaryPrivateIpAddressCount", "49")]);
    assert_eq!(
        bed.refused(
            "AssignPrivateIpAddresses",
            &[(ENI, &full), ("SecondaryPrivateIpAddressCount", "1")]
        ),
        "InvalidOperation.Ipv4CountExceeded"
    );
    assert_eq!(
        bed.refused("AttachNetworkInterface", &[(ENI, &full), (INSTANCE, &instance)]),
        "InvalidOperation.Ipv4CountExceeded"
    );
    let without_v6 = bed.boot("ecs.ic5.large");
    let dual = bed.create(&[("Ipv6AddressCount", "1")]);
    assert_eq!(
        bed.refused("AttachNetworkInterface", &[(ENI, &dual), (INSTANCE, &without_v6)]),
        "InvalidOperation.Ipv6NotSupport"
    );
}

#[test]
fn batches_are_limited_and_all_or_nothing() {
    let mut bed = Bed::new();
    let eni = bed.create(&[("SecondaryPrivateIpAddressCount", "3")]);
    let count = |count| [(ENI, eni.as_str()), ("SecondaryPrivateIpAddressCount", count)];
    assert_eq!(bed.refused("AssignPrivateIpAddresses", &count("11")), "InvalidParam.Amount");
    assert_eq!(bed.refused("AssignPrivateIpAddresses", &count("")), "MissingParameter");
    bed.call("AssignPrivateIpAddresses", &count("10")).unwrap();
    let unassign = |first, second| {
        [(ENI, eni.as_str()), ("PrivateIpAddress.1", first), ("PrivateIpAddress.2", second)]
    };
    for (first, second, code) in [
        ("10.0.2.2", "10.0.2.99", "InvalidIp.IpUnassigned"),
        ("10.0.2.2", "10.0.2.2", "InvalidIp.IpRepeated"),
        ("10.0.2.2", "10.0.2.1", "InvalidParameter"),
        ("10.0.2.2", "ten", "InvalidParameter"),
    ] {
        let pairs = unassign(first, second);
        assert_eq!(bed.refused("UnassignPrivateIpAddresses", &pairs), code, "{second}");
    }
    let names: Vec<_> =
        (1..=33).map(|n| (format!("PrivateIpAddress.{n}"), format!("10.0.2.{}", n + 1))).collect();
    let mut pairs = vec![(ENI, eni.as_str())];
    pairs.extend(names.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert_eq!(bed.refused("UnassignPrivateIpAddresses", &pairs), "InvalidParam.Amount");
    bed.call("UnassignPrivateIpAddresses", &unassign("10.0.2.2", "10.0.2.3")).unwrap();
    let shown = bed.describe(&eni).unwrap();
    assert_eq!(shown["PrivateIpSets"]["PrivateIpSet"].as_array().unwrap().len(), 12);
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

#[test]
fn reads_are_as_old_as_the_lag_and_writes_know_the_truth() {
    let mut bed = Bed::new();
    bed.cloud.settings.api_lag_ms = 5000;
    let eni = bed.create(&[]);
    assert_eq!(bed.status(&eni), "gone", "not there yet");
    bed.advance(5.0);
    assert_eq!(bed.status(&eni), "Available");
    bed.call("DeleteNetworkInterface", &[(ENI, &eni)]).unwrap();
    assert_eq!(bed.status(&eni), "Available", "still there");
    assert_eq!(bed.refused("DeleteNetworkInterface", &[(ENI, &eni)]), "InvalidEniId.NotFound");
    bed.advance(5.0);
    assert_eq!(bed.status(&eni), "gone");
}

#[test]
fn describe_filters_by_everything_that_a_daemon_asks_for() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.g7.xlarge");
    let trunk = bed.create(&[("InstanceType", "Trunk")]);
    bed.attach(&trunk, &instance);
    let member = bed.create(&[("Tag.1.Key", "creator"), ("Tag.1.Value", "terway")]);
    bed.attach_member(&member, &instance, &trunk);
    let free = bed.create(&[("SecondaryPrivateIpAddressCount", "1")]);
    let primary = bed.cloud.view().enis().next().unwrap().id.to_string();
    let all = [primary.as_str(), &trunk, &member, &free];
    let mut check = |pairs: &[(&str, &str)], expected: &[usize]| {
        let body = bed.call("DescribeNetworkInterfaces", pairs).unwrap();
        let shown = body["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap();
        let ids: Vec<_> = shown.iter().map(|eni| eni[ENI].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = expected.iter().map(|index| all[*index]).collect();
        assert_eq!(ids, expected, "{pairs:?}");
    };
    check(&[], &[0, 1, 2, 3]);
    check(&[(INSTANCE, &instance)], &[0, 1, 2]);
    check(&[("Type", "Member")], &[2]);
    check(&[("Type", "Secondary")], &[3]);
    check(&[("Status", "Available")], &[3]);
    check(&[("VSwitchId", "vsw-a")], &[0]);
    check(&[("VpcId", "vpc-x")], &[]);
    check(&[("Tag.1.Key", "creator")], &[2]);
    check(&[("Tag.1.Key", "creator"), ("Tag.1.Value", "other")], &[]);
    check(&[("PrivateIpAddress.1", "10.0.2.4")], &[3]);
    check(&[("PrimaryIpAddress", "10.0.2.4")], &[]);
    check(&[("NetworkInterfaceId.1", &trunk), ("NetworkInterfaceId.2", "eni-x")], &[1]);
    check(&[("MaxResults", "2")], &[0, 1]);
    assert_eq!(bed.refused("DescribeNetworkInterfaces", &[("Status", "Gone")]), "InvalidParameter");
}

#[test]
fn the_region_is_asked_for_and_actions_belong_to_their_endpoint() {
    use super::{Product, call};
    use crate::ecs::cloud::Moment;
    let mut bed = Bed::new();
    let moment = Moment { now: bed.now, seen: bed.now };
    let region = |name: &str| vec![("RegionId".to_owned(), name.to_owned())];
    let mut code = |product, action, raw| {
        call(&mut bed.cloud, product, action, raw, moment)
            .map_or_else(|refusal| refusal.code, |_answer| "ok".to_owned())
    };
    let enis = "DescribeNetworkInterfaces";
    assert_eq!(code(Product::Ecs, enis, region("cn-hangzhou")), "ok");
    assert_eq!(code(Product::Ecs, enis, vec![]), "MissingParameter");
    assert_eq!(code(Product::Ecs, enis, region("cn-beijing")), "InvalidRegionId.NotFound");
    assert_eq!(code(Product::Vpc, enis, region("cn-hangzhou")), "InvalidAction.NotFound");
    assert_eq!(code(Product::Ecs, "DeleteEverything", vec![]), "InvalidAction.NotFound");
    assert_eq!(code(Product::Ecs, "DescribeInstanceTypes", vec![]), "ok", "it knows no region");
}

#[test]
fn too_many_calls_a_minute_are_throttled_each_action_for_itself() {
    let mut bed = Bed::new();
    bed.cloud.settings.per_minute.insert("DescribeNetworkInterfaces".to_owned(), 3);
    for _call in 0..3 {
        bed.call("DescribeNetworkInterfaces", &[]).unwrap();
    }
    assert_eq!(bed.refused("DescribeNetworkInterfaces", &[]), "Throttling.User");
    bed.call("DescribeVSwitches", &[]).unwrap();
    bed.advance(20.0);
    bed.call("DescribeNetworkInterfaces", &[]).unwrap();
}

#[test]
fn instance_types_and_instances_are_described() {
    let mut bed = Bed::new();
    let instance = bed.boot("ecs.g7.4xlarge");
    let body = bed.call("DescribeInstanceTypes", &[("InstanceTypes.1", "ecs.g7.4xlarge")]).unwrap();
    let kind = &body["InstanceTypes"]["InstanceType"][0];
    assert_eq!(kind["EniQuantity"], 8);
    assert_eq!(kind["EniTotalQuantity"], 30);
    assert_eq!(kind["EniPrivateIpAddressQuantity"], 30);
    assert_eq!(kind["EniTrunkSupported"], true);
    let body = bed.call("DescribeInstanceTypes", &[("InstanceTypes.1", "ecs.none")]).unwrap();
    assert_eq!(body["InstanceTypes"]["InstanceType"], json!([]));

    let ids = format!("[\"{instance}\"]");
    let body = bed.call("DescribeInstances", &[("InstanceIds", &ids)]).unwrap();
    let shown = &body["Instances"]["Instance"][0];
    assert_eq!(shown["InstanceType"], "ecs.g7.4xlarge");
    assert_eq!(shown["Status"], "Running");
    assert_eq!(shown["NetworkInterfaces"]["NetworkInterface"][0]["Type"], "Primary");
    assert_eq!(bed.refused("DescribeInstances", &[("InstanceIds", "i-1")]), "InvalidParameter");
}

#[test]
fn the_wires_learn_of_rules_before_the_answer_goes_out() {
    let mut bed = Bed::new();
    let pairs = [
        ("SecurityGroupId", "sg-a"),
        ("Permissions.1.IpProtocol", "TCP"),
        ("Permissions.1.PortRange", "80/443"),
        ("Permissions.1.SourceGroupId", "sg-b"),
        ("Permissions.2.IpProtocol", "ALL"),
        ("Permissions.2.PortRange", "-1/-1"),
        ("Permissions.2.SourceCidrIp", "10.0.0.0/8"),
        ("Permissions.2.Policy", "drop"),
        ("Permissions.2.Priority", "50"),
    ];
    let answer = bed.start("AuthorizeSecurityGroup", &pairs).unwrap();
    assert_eq!(answer.rules.unwrap().as_str(), "sg-a");
    bed.call("AuthorizeSecurityGroup", &pairs).unwrap();
    let shown = |bed: &mut Bed| {
        let pairs = [("SecurityGroupId", "sg-a"), ("Direction", "ingress")];
        bed.call("DescribeSecurityGroupAttribute", &pairs).unwrap()["Permissions"]["Permission"]
            .clone()
    };
    let rules = shown(&mut bed);
    assert_eq!(rules.as_array().unwrap().len(), 2, "a rule twice is one rule");
    assert_eq!(rules[0]["SourceGroupId"], "sg-b");
    assert_eq!(rules[0]["PortRange"], "80/443");
    assert_eq!(rules[1]["Policy"], "Drop");
    assert_eq!(rules[1]["Priority"], "50");
    let flat = [
        ("SecurityGroupId", "sg-a"),
        ("IpProtocol", "tcp"),
        ("PortRange", "80/443"),
        ("SourceGroupId", "sg-b"),
    ];
    bed.call("RevokeSecurityGroup", &flat).unwrap();
    let id = rules[1]["SecurityGroupRuleId"].as_str().unwrap();
    bed.call("RevokeSecurityGroup", &[("SecurityGroupId", "sg-a"), ("SecurityGroupRuleId.1", id)])
        .unwrap();
    assert_eq!(shown(&mut bed), json!([]));
}

#[test]
fn a_rule_that_says_too_little_or_too_much_is_refused() {
    let mut bed = Bed::new();
    let good = [
        ("SecurityGroupId", "sg-a"),
        ("IpProtocol", "TCP"),
        ("PortRange", "80/80"),
        ("SourceCidrIp", "10.0.0.0/8"),
    ];
    for (change, code) in [
        (("SecurityGroupId", "sg-x"), "InvalidSecurityGroupId.NotFound"),
        (("IpProtocol", "SCTP"), "InvalidIpProtocol.Malformed"),
        (("PortRange", "80"), "InvalidParameter"),
        (("PortRange", "443/80"), "InvalidParameter"),
        (("PortRange", "-1/-1"), "InvalidParameter"),
        (("SourceCidrIp", "10.0.0.1/8"), "InvalidSourceCidrIp.Malformed"),
        (("SourceCidrIp", ""), "MissingParameter"),
        (("SourceGroupId", "sg-b"), "InvalidParameter"),
        (("DestCidrIp", "10.0.0.0/8"), "UnsupportedParameter"),
        (("Priority", "0"), "InvalidPriority.Malformed"),
        (("Policy", "reject"), "InvalidPolicy.Malformed"),
        (("NicType", "internet"), "InvalidParameter"),
        (("SourcePrefixListId", "pl-1"), "UnsupportedParameter"),
    ] {
        let mut pairs: Vec<_> = good.into_iter().filter(|(name, _)| *name != change.0).collect();
        pairs.push(change);
        assert_eq!(bed.refused("AuthorizeSecurityGroup", &pairs), code, "{change:?}");
    }
}
