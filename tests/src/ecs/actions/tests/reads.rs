//! What is shown, and how the call itself is judged.

use serde_json::json;

use super::{ENI, INSTANCE};
use crate::ecs::bed::Bed;

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
    use super::super::{Product, call};
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
