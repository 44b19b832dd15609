//! What security groups say to a new connection: the lab's expectation, to be held against traffic.

use std::net::IpAddr;

use model::SecurityGroupId;

use super::rules::{
    Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup,
};

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The groups of its ENI; none for whoever is not of the VPC, and nothing guards those.
    pub groups: &'a [&'a SecurityGroup],
}

/// A new connection or its like; answers to it pass, for groups are stateful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Not [`Protocol::All`].
    pub protocol: Protocol,
    /// Where there are ports.
    pub source_port: u16,
    /// Where there are ports.
    pub port: u16,
}

/// What becomes of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It arrives.
    Accepted,
    /// It does not.
    Refused {
        /// The group whose rule, or whose want of a rule, refuses it.
        group: SecurityGroupId,
        /// On the way out of the first party, or into the second.
        direction: Direction,
    },
}

/// Whether `from` may open `flow` to `to`. It holds for what crosses the VPC: inside of one
/// instance no group acts.
pub fn verdict(from: Party<'_>, to: Party<'_>, flow: Flow) -> Verdict {
    let egress = one_way(Direction::Egress, from, to, flow);
    if egress == Verdict::Accepted { one_way(Direction::Ingress, to, from, flow) } else { egress }
}

fn one_way(direction: Direction, guarded: Party<'_>, other: Party<'_>, flow: Flow) -> Verdict {
    let Some(first) = guarded.groups.first() else { return Verdict::Accepted };
    let refused = |group: &SecurityGroup| Verdict::Refused { group: group.id.clone(), direction };
    let matching = guarded.groups.iter().flat_map(|group| {
        let rules = group.rules.iter().filter(|rule| rule.direction == direction);
        rules.filter(|rule| matches(rule, other, flow)).map(|rule| (*group, rule))
    });
    // Of the same priority the one that drops decides.
    let decisive = matching.min_by_key(|(_, rule)| (rule.priority, rule.policy == Policy::Accept));
    match decisive {
        Some((_, rule)) if rule.policy == Policy::Accept => Verdict::Accepted,
        Some((group, _)) => refused(group),
        None if direction == Direction::Egress => Verdict::Accepted,
        None if shares_an_open_group(guarded, other) => Verdict::Accepted,
        None => refused(first),
    }
}

fn shares_an_open_group(one: Party<'_>, other: Party<'_>) -> bool {
    one.groups.iter().any(|group| {
        group.inner_access == InnerAccess::Accept && other.groups.iter().any(|o| o.id == group.id)
    })
}

fn matches(rule: &Rule, other: Party<'_>, flow: Flow) -> bool {
    let protocol = rule.protocol == Protocol::All || rule.protocol == flow.protocol;
    let has_ports = matches!(flow.protocol, Protocol::Tcp | Protocol::Udp);
    let ports = !has_ports
        || (contains(rule.ports, flow.port) && contains(rule.source_ports, flow.source_port));
    let peer = match &rule.peer {
        Peer::Cidr(block) => block.contains(other.address),
        Peer::Group(id) => other.groups.iter().any(|group| &group.id == id),
    };
    protocol && ports && peer
}

const fn contains(range: PortRange, port: u16) -> bool {
    match range {
        PortRange::All => true,
        PortRange::Ports { first, last } => first <= port && port <= last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: Flow = Flow { protocol: Protocol::Tcp, source_port: 40_000, port: 80 };

    fn group(id: &str, rules: Vec<Rule>) -> SecurityGroup {
        let id = SecurityGroupId::new(id);
        SecurityGroup { id, inner_access: InnerAccess::Accept, rules }
    }

    fn rule(direction: Direction, peer: Peer, policy: Policy, priority: u8) -> Rule {
        Rule {
            id: "sgr-1".to_owned(),
            direction,
            protocol: Protocol::Tcp,
            ports: PortRange::Ports { first: 80, last: 80 },
            source_ports: PortRange::All,
            peer,
            policy,
            priority,
            description: String::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn from(block: &str) -> Peer {
        Peer::Cidr(block.parse().unwrap())
    }

    fn check(source: &[&SecurityGroup], target: &[&SecurityGroup], flow: Flow) -> String {
        let party = |address: &str, groups| Party { address: address.parse().unwrap(), groups };
        let source = party("10.0.1.5", source);
        let target = party("10.0.2.5", target);
        // The borrow checker asks for names; the verdict does not.
        match verdict(source, target, flow) {
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::Refused { group, direction } => format!("{group} {direction:?}"),
        }
    }

    #[test]
    fn a_group_without_rules_lets_its_own_in_and_all_out() {
        let (a, b) = (group("sg-a", vec![]), group("sg-b", vec![]));
        assert_eq!(check(&[&a], &[&a], HTTP), "accepted");
        assert_eq!(check(&[&a], &[&b], HTTP), "sg-b Ingress");
        assert_eq!(check(&[], &[&b], HTTP), "sg-b Ingress");
        assert_eq!(check(&[&a], &[], HTTP), "accepted");
        let closed = SecurityGroup { inner_access: InnerAccess::Drop, ..a };
        assert_eq!(check(&[&closed], &[&closed], HTTP), "sg-a Ingress");
    }

    #[test]
    fn a_rule_is_for_its_protocol_ports_and_peer() {
        let open = rule(Direction::Ingress, from("10.0.1.0/24"), Policy::Accept, 1);
        let b = group("sg-b", vec![open]);
        assert_eq!(check(&[], &[&b], HTTP), "accepted");
        assert_eq!(check(&[], &[&b], Flow { port: 81, ..HTTP }), "sg-b Ingress");
        assert_eq!(check(&[], &[&b], Flow { protocol: Protocol::Udp, ..HTTP }), "sg-b Ingress");
        let a = group("sg-a", vec![]);
        let by_group = rule(Direction::Ingress, Peer::Group(a.id.clone()), Policy::Accept, 1);
        let c = group("sg-c", vec![by_group]);
        assert_eq!(check(&[&a], &[&c], HTTP), "accepted");
        assert_eq!(check(&[&b], &[&c], HTTP), "sg-c Ingress");
    }

    #[test]
    fn the_lowest_priority_decides_over_all_groups_and_a_drop_over_an_equal() {
        let accept =
            |priority| rule(Direction::Ingress, from("0.0.0.0/0"), Policy::Accept, priority);
        let drop = |priority| rule(Direction::Ingress, from("10.0.1.0/24"), Policy::Drop, priority);
        for (one, other, expected) in [
            (accept(2), drop(1), "sg-d Ingress"),
            (accept(1), drop(2), "accepted"),
            (accept(1), drop(1), "sg-d Ingress"),
        ] {
            let (c, d) = (group("sg-c", vec![one]), group("sg-d", vec![other]));
            assert_eq!(check(&[], &[&c, &d], HTTP), expected);
            assert_eq!(check(&[], &[&d, &c], HTTP), expected, "the order of groups says nothing");
        }
    }

    #[test]
    fn a_rule_is_before_what_members_may_do_to_each_other() {
        let drop = rule(Direction::Ingress, from("10.0.1.0/24"), Policy::Drop, 100);
        let a = group("sg-a", vec![drop]);
        assert_eq!(check(&[&a], &[&a], HTTP), "sg-a Ingress");
        let out = rule(Direction::Egress, from("10.0.2.0/24"), Policy::Drop, 1);
        let e = group("sg-e", vec![out]);
        assert_eq!(check(&[&e], &[&e], HTTP), "sg-e Egress");
    }
}
