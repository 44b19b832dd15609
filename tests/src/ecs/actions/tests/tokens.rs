//! `ClientToken`, of every action that has one.

use std::collections::BTreeSet;

use super::super::{ACTIONS, TOKEN};
use super::ENI;
use crate::ecs::bed::Bed;

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Good parameters of each action with a token, and one that is other in another call.
fn samples(eni: &str) -> Vec<(&'static str, Pairs<'_>, (&'static str, &'static str))> {
    let rule = |peer| {
        vec![("SecurityGroupId", "sg-a"), ("IpProtocol", "tcp"), ("PortRange", "80/80"), peer]
    };
    let (source, dest) = (("SourceCidrIp", "10.9.0.0/16"), ("DestCidrIp", "10.9.0.0/16"));
    let other = ("PortRange", "81/81");
    let create = vec![("VSwitchId", "vsw-b"), ("SecurityGroupIds.1", "sg-a")];
    let count = ("SecondaryPrivateIpAddressCount", "1");
    vec![
        ("CreateNetworkInterface", create, ("VSwitchId", "vsw-a")),
        ("AssignPrivateIpAddresses", vec![(ENI, eni), count], (count.0, "2")),
        (
            "AssignIpv6Addresses",
            vec![(ENI, eni), ("Ipv6AddressCount", "1")],
            ("Ipv6AddressCount", "2"),
        ),
        ("CreateSecurityGroup", vec![("VpcId", "vpc-lab")], ("Description", "other")),
        (
            "ModifySecurityGroupPolicy",
            vec![("SecurityGroupId", "sg-a"), ("InnerAccessPolicy", "Drop")],
            ("InnerAccessPolicy", "Accept"),
        ),
        ("AuthorizeSecurityGroup", rule(source), other),
        ("AuthorizeSecurityGroupEgress", rule(dest), other),
        ("RevokeSecurityGroup", rule(source), other),
        ("RevokeSecurityGroupEgress", rule(dest), other),
    ]
}

#[test]
fn a_token_means_one_call_of_its_action_until_it_is_forgotten() {
    let mut bed = Bed::new();
    bed.cloud.settings.token_seconds = 60;
    let eni = bed.create(&[]);
    let samples = samples(&eni);
    let with_token: BTreeSet<_> = ACTIONS
        .iter()
        .filter(|action| action.grammar.iter().any(|(name, _)| *name == TOKEN))
        .map(|action| action.name)
        .collect();
    assert_eq!(samples.iter().map(|(action, ..)| *action).collect::<BTreeSet<_>>(), with_token);
    for (action, mut pairs, other) in samples {
        // The same token for all: it counts within its action.
        pairs.push((TOKEN, "the-same"));
        let first = bed.call(action, &pairs).unwrap();
        assert_eq!(bed.call(action, &pairs).unwrap(), first, "{action}");
        let mut changed = pairs.clone();
        changed.retain(|(name, _)| *name != other.0);
        changed.push(other);
        let code = bed.refused(action, &changed);
        assert_eq!(code, "IdempotentParameterMismatch", "{action}");
        bed.advance(59.0);
        assert_eq!(bed.refused(action, &changed), code, "{action}");
        bed.advance(2.0);
        bed.call(action, &changed).unwrap();
    }
    assert_eq!(bed.cloud.view().enis().count(), 3, "two creates took effect");
    assert_eq!(bed.cloud.eni(&eni).unwrap().v4.len(), 4);
    assert_eq!(bed.cloud.eni(&eni).unwrap().v6.len(), 3);
}

#[test]
fn a_token_whose_change_is_in_flight_has_no_answer_yet() {
    let mut bed = Bed::new();
    let eni = bed.create(&[]);
    for (action, name) in [
        ("AssignPrivateIpAddresses", "SecondaryPrivateIpAddressCount"),
        ("AssignIpv6Addresses", "Ipv6AddressCount"),
    ] {
        let pairs = [(ENI, eni.as_str()), (name, "1"), (TOKEN, "t")];
        let answer = bed.start(action, &pairs).unwrap();
        assert_eq!(bed.refused(action, &pairs), "IdempotentFailed");
        let other = [pairs[0], (name, "2"), pairs[2]];
        assert_eq!(bed.refused(action, &other), "IdempotentParameterMismatch");
        bed.settle();
        assert_eq!(bed.call(action, &pairs).unwrap(), answer.body);
    }
}
