//! ENIs go into instances and onto trunks.

use serde_json::json;

use super::{ENI, INSTANCE, TRUNK};
use crate::ecs::bed::Bed;
use crate::ecs::fabric::PluggedKind;
use crate::ecs::operations::Effect;

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
