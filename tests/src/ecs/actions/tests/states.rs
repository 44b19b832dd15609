//! What each state allows: tables of state and action.

use super::{ENI, INSTANCE, TRUNK};
use crate::ecs::InstanceState;
use crate::ecs::bed::Bed;
use crate::ecs::world::EniStatus;

const OK: &str = "ok";
const ENI_STATE: &str = "InvalidOperation.InvalidEniState";
const ECS_STATE: &str = "InvalidOperation.InvalidEcsState";
const CONFLICT: &str = "Operation.Conflict";
const GONE: &str = "InvalidEniId.NotFound";

const ATTACH: &str = "AttachNetworkInterface";
const ASSIGN: &str = "AssignPrivateIpAddresses";

/// An ENI and the instance that it is in or could go into.
struct Case {
    bed: Bed,
    eni: String,
    instance: String,
}

impl Case {
    fn new(state: &str) -> Self {
        let mut bed = Bed::new();
        let more = [("SecondaryPrivateIpAddressCount", "2"), ("Ipv6AddressCount", "2")];
        let (instance, eni) = (bed.boot("ecs.g7.xlarge"), bed.create(&more));
        let place = [(ENI, eni.as_str()), (INSTANCE, instance.as_str())];
        if !matches!(state, "Available" | "Attaching" | "gone") {
            bed.attach(&eni, &instance);
        }
        match state {
            "Attaching" => drop(bed.start(ATTACH, &place).unwrap()),
            "Detaching" | "stuck" => drop(bed.start("DetachNetworkInterface", &place).unwrap()),
            "writing" => {
                let ask = [place[0], ("SecondaryPrivateIpAddressCount", "1")];
                bed.start(ASSIGN, &ask).unwrap();
            }
            "gone" => drop(bed.call("DeleteNetworkInterface", &place[..1]).unwrap()),
            _ => {}
        }
        if state == "stuck" {
            bed.cloud.operations.abandon(&model::EniId::new(&eni));
            bed.advance(60.0);
        }
        Self { bed, eni, instance }
    }

    /// The code of an action on the ENI.
    fn code(&mut self, action: &str) -> String {
        let found = self.bed.cloud.eni(&self.eni);
        let last = |list: Vec<String>| list.last().cloned().unwrap_or_default();
        let (v4, v6) = found.map_or_else(
            |_gone| ("10.0.2.3".to_owned(), "2408:4005:3a0:2::3".to_owned()),
            |eni| {
                let v4 = eni.v4.iter().map(ToString::to_string).collect();
                (last(v4), last(eni.v6.iter().map(ToString::to_string).collect()))
            },
        );
        let more = match action {
            "DeleteNetworkInterface" => None,
            ASSIGN => Some(("SecondaryPrivateIpAddressCount", "1")),
            "AssignIpv6Addresses" => Some(("Ipv6AddressCount", "1")),
            "UnassignPrivateIpAddresses" => Some(("PrivateIpAddress.1", v4.as_str())),
            "UnassignIpv6Addresses" => Some(("Ipv6Address.1", v6.as_str())),
            "ModifyNetworkInterfaceAttribute" => Some(("Description", "other")),
            _ => Some((INSTANCE, self.instance.as_str())),
        };
        let mut pairs = vec![(ENI, self.eni.as_str())];
        pairs.extend(more);
        let answer = self.bed.start(action, &pairs);
        answer.map_or_else(|refusal| refusal.code, |_answer| OK.to_owned())
    }
}

#[test]
fn each_state_of_an_eni_refuses_what_it_does_not_allow() {
    let actions = [
        ATTACH,
        "DetachNetworkInterface",
        "DeleteNetworkInterface",
        ASSIGN,
        "AssignIpv6Addresses",
        "UnassignPrivateIpAddresses",
        "UnassignIpv6Addresses",
        "ModifyNetworkInterfaceAttribute",
    ];
    for (state, codes) in [
        ("Available", [OK, ENI_STATE, OK, OK, OK, OK, OK, OK]),
        ("Attaching", [ENI_STATE; 8]),
        ("InUse", [ENI_STATE, OK, ENI_STATE, OK, OK, OK, OK, OK]),
        (
            "Detaching",
            [ENI_STATE, OK, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE],
        ),
        (
            "stuck",
            [ENI_STATE, OK, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE, ENI_STATE],
        ),
        // One change of an ENI at a time.
        ("writing", [CONFLICT; 8]),
        ("gone", [GONE; 8]),
    ] {
        for (action, expected) in actions.into_iter().zip(codes) {
            assert_eq!(Case::new(state).code(action), expected, "{state}: {action}");
        }
    }
}

#[test]
fn a_detach_that_is_stuck_goes_on_when_it_is_sent_again() {
    let mut case = Case::new("stuck");
    assert_eq!(case.bed.cloud.operations.len(), 0);
    assert_eq!(case.bed.status(&case.eni), "Detaching");
    assert_eq!(case.code("DetachNetworkInterface"), OK);
    case.bed.settle();
    assert_eq!(case.bed.status(&case.eni), "Available");
}

#[test]
fn an_instance_that_neither_runs_nor_stands_still_refuses_nics() {
    use InstanceState::{Released, Running, Starting, Stopped, Stopping};
    for (state, attach, detach, secondary, primary) in [
        (Running, OK, OK, OK, OK),
        (Stopped, OK, OK, OK, OK),
        (Starting, ECS_STATE, ECS_STATE, OK, ECS_STATE),
        (Stopping, ECS_STATE, ECS_STATE, OK, ECS_STATE),
        (Released, ECS_STATE, ECS_STATE, ECS_STATE, ECS_STATE),
    ] {
        let set = |case: &mut Case| {
            let id = case.instance.clone();
            case.bed.cloud.set_instance_state(&id, state, case.bed.now).unwrap();
        };
        let code = |eni: &str, action| {
            let mut case = Case::new(eni);
            set(&mut case);
            case.code(action)
        };
        assert_eq!(code("Available", ATTACH), attach, "{state}");
        assert_eq!(code("InUse", "DetachNetworkInterface"), detach, "{state}");
        assert_eq!(code("InUse", ASSIGN), secondary, "{state}");
        let mut case = Case::new("Available");
        case.eni = case.bed.cloud.view().enis().next().unwrap().id.to_string();
        set(&mut case);
        assert_eq!(case.code(ASSIGN), primary, "{state}: primary");
    }
}

#[test]
fn a_member_needs_a_trunk_that_is_in_use_in_its_instance() {
    for (of_trunk, expected) in [
        ("Available", ENI_STATE),
        ("Attaching", ENI_STATE),
        ("elsewhere", ENI_STATE),
        ("InUse", OK),
        ("Detaching", ENI_STATE),
        ("secondary", "InvalidOperation.InvalidEniType"),
        ("gone", GONE),
    ] {
        let mut bed = Bed::new();
        let (instance, other) = (bed.boot("ecs.g7.xlarge"), bed.boot("ecs.g7.xlarge"));
        let kind = if of_trunk == "secondary" { "Secondary" } else { "Trunk" };
        let (trunk, member) = (bed.create(&[("InstanceType", kind)]), bed.create(&[]));
        let place = [(ENI, trunk.as_str()), (INSTANCE, instance.as_str())];
        match of_trunk {
            "Available" => {}
            "Attaching" => drop(bed.start(ATTACH, &place).unwrap()),
            "elsewhere" => bed.attach(&trunk, &other),
            "gone" => drop(bed.call("DeleteNetworkInterface", &place[..1]).unwrap()),
            _ => bed.attach(&trunk, &instance),
        }
        if of_trunk == "Detaching" {
            bed.start("DetachNetworkInterface", &place).unwrap();
        }
        let pairs = [(ENI, member.as_str()), place[1], (TRUNK, trunk.as_str())];
        let answer = bed.start(ATTACH, &pairs);
        let code = answer.map_or_else(|refusal| refusal.code, |_answer| OK.to_owned());
        assert_eq!(code, expected, "{of_trunk}");
        let found = bed.cloud.eni(&member).unwrap();
        assert_eq!(found.status == EniStatus::Available, expected != OK, "{of_trunk}");
    }
}

#[test]
fn the_types_are_those_of_the_public_answers() {
    // EniQuantity, EniTotalQuantity, EniPrivateIpAddressQuantity, EniIpv6AddressQuantity, trunk.
    for (kind, numbers, trunk) in [
        ("ecs.g7.4xlarge", [8, 30, 30, 30], true),
        ("ecs.g7.2xlarge", [4, 10, 15, 15], true),
        ("ecs.g7.xlarge", [4, 20, 15, 15], true),
        ("ecs.g6.16xlarge", [8, 60, 20, 1], true),
        ("ecs.r6.8xlarge", [8, 40, 20, 1], true),
        ("ecs.u1-c1m4.xlarge", [3, 6, 10, 1], true),
        ("ecs.g6.large", [2, 2, 6, 1], false),
        ("ecs.ic5.large", [2, 2, 6, 0], false),
        ("ecs.ebmg5.24xlarge", [32, 32, 10, 0], false),
    ] {
        let mut bed = Bed::new();
        let body = bed.call("DescribeInstanceTypes", &[("InstanceTypes.1", kind)]).unwrap();
        let shown = &body["InstanceTypes"]["InstanceType"][0];
        let names = ["EniQuantity", "EniTotalQuantity"]
            .into_iter()
            .chain(["EniPrivateIpAddressQuantity", "EniIpv6AddressQuantity"]);
        for (name, number) in names.zip(numbers) {
            assert_eq!(shown[name], number, "{kind}: {name}");
        }
        assert_eq!(shown["EniTrunkSupported"], trunk, "{kind}");
        // The primary ENI is one of them.
        let instance = bed.boot(kind);
        for _nic in 1..numbers[0] {
            let eni = bed.create(&[]);
            bed.attach(&eni, &instance);
        }
        let one_more = bed.create(&[]);
        let pairs = [(ENI, one_more.as_str()), (INSTANCE, instance.as_str())];
        assert_eq!(bed.refused(ATTACH, &pairs), "EniPerInstanceLimitExceeded", "{kind}");
    }
}
