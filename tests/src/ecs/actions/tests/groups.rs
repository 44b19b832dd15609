//! Rules of security groups.

use serde_json::json;

use crate::ecs::bed::Bed;

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
