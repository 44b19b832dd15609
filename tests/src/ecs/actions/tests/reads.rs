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
    check(&[("ServiceManaged", "true")], &[]);
    check(&[("ServiceManaged", "false")], &[0, 1, 2, 3]);
    check(&[("SecurityGroupId", "sg-a"), ("VSwitchId", "vsw-b")], &[1, 2, 3]);
    check(&[("SecurityGroupId", "sg-b")], &[]);
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

#[test]
fn tags_are_asked_for_together_and_show_a_thousand_at_most() {
    let mut bed = Bed::new();
    let both = [("Tag.1.Key", "a"), ("Tag.1.Value", "1"), ("Tag.2.Key", "b")];
    let (with_both, with_one) = (bed.create(&both), bed.create(&both[..2]));
    let mut ids = |pairs: &[(&str, &str)]| {
        let body = bed.call("DescribeNetworkInterfaces", pairs).unwrap();
        let shown = body["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap();
        shown.iter().map(|eni| eni[ENI].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&both[..2]), [with_both.clone(), with_one.clone()]);
    assert_eq!(ids(&both), [with_both], "both of them");
    assert_eq!(ids(&[both[0], ("Tag.1.Value", "1"), ("Tag.2.Key", "c")]), [""; 0]);

    let pattern = bed.cloud.eni(&with_one).unwrap();
    for number in 0..1100 {
        let id = model::EniId::new(format!("eni-x{number:04}"));
        bed.cloud.put_eni(crate::ecs::world::Eni { id, ..pattern.clone() }, bed.now);
    }
    let count = |bed: &mut Bed, pairs: &[(&str, &str)]| {
        let (by_token, by_page) = (walk(bed, pairs), pages(bed, pairs));
        assert_eq!(by_token, by_page, "{pairs:?}");
        by_token.len()
    };
    assert_eq!(count(&mut bed, &[]), 1102, "without tags all are shown");
    assert_eq!(count(&mut bed, &both[..2]), 1000, "and no word of the rest");
}

/// All ids by `NextToken`, each once; what the last answer says of the total is that number.
fn walk(bed: &mut Bed, pairs: &[(&str, &str)]) -> Vec<String> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    for _page in 0..100 {
        let more = [("MaxResults", "37"), ("NextToken", token.as_str())];
        let body = bed.call("DescribeNetworkInterfaces", &[pairs, &more].concat()).unwrap();
        let shown = body["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap();
        ids.extend(shown.iter().map(|eni| eni[ENI].as_str().unwrap().to_owned()));
        token = body["NextToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            assert_eq!(body["TotalCount"], ids.len());
            return ids;
        }
    }
    panic!("the pages do not end");
}

/// All ids by `PageNumber`.
fn pages(bed: &mut Bed, pairs: &[(&str, &str)]) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 1..100 {
        let number = number.to_string();
        let more = [("PageNumber", number.as_str()), ("PageSize", "100")];
        let body = bed.call("DescribeNetworkInterfaces", &[pairs, &more].concat()).unwrap();
        let shown = body["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap();
        if shown.is_empty() {
            return ids;
        }
        ids.extend(shown.iter().map(|eni| eni[ENI].as_str().unwrap().to_owned()));
    }
    panic!("the pages do not end");
}

#[test]
fn every_read_lags_behind_the_writes() {
    let mut bed = Bed::new();
    let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&[]));
    bed.advance(60.0);
    bed.cloud.settings.api_lag_ms = 5000;
    let read = |bed: &mut Bed| {
        let vswitch = bed.start("DescribeVSwitches", &[("VSwitchId", "vsw-b")]).unwrap().body;
        let attributes = [("VSwitchId", "vsw-b")];
        let attributes = bed.start("DescribeVSwitchAttributes", &attributes).unwrap().body;
        let instances = bed.start("DescribeInstances", &[]).unwrap().body;
        let nics = &instances["Instances"]["Instance"][0]["NetworkInterfaces"];
        let eni = [(ENI, eni.as_str())];
        let one = bed.start("DescribeNetworkInterfaceAttribute", &eni).unwrap().body;
        (
            vswitch["VSwitches"]["VSwitch"][0]["AvailableIpAddressCount"].clone(),
            attributes["AvailableIpAddressCount"].clone(),
            nics["NetworkInterface"].as_array().unwrap().len(),
            one["Status"].clone(),
        )
    };
    let before = (json!(251), json!(251), 1, json!("Available"));
    assert_eq!(read(&mut bed), before);
    bed.call("AssignPrivateIpAddresses", &[(ENI, &eni), ("Ipv4PrefixCount", "1")]).unwrap();
    bed.attach(&eni, &instance);
    assert_eq!(read(&mut bed), before, "the writes are done and not seen");
    bed.advance(5.0);
    assert_eq!(read(&mut bed), (json!(235), json!(235), 2, json!("InUse")));
}
