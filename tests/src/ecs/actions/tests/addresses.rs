//! Addresses come and go.

use serde_json::json;

use super::{ENI, INSTANCE};
use crate::ecs::bed::Bed;
use crate::ecs::operations::Effect;

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
