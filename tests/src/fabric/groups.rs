//! Security groups: chains of nftables per port, stateful, and the facts of what they refused.
//!
//! `desired` says what the table is to be, `script` how it gets there from what it is; both pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipnetwork::IpNetwork;
use model::{EniId, SecurityGroupId};

use crate::ecs::{Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup};

/// The table.
pub(super) const TABLE: &str = "inet lab";

/// An ENI's port in the VPC, and what guards it.
#[derive(Debug)]
pub(super) struct Guarded<'a> {
    pub(super) eni: &'a EniId,
    pub(super) port: &'a str,
    /// None: the port is not guarded.
    pub(super) groups: &'a [SecurityGroupId],
    pub(super) addresses: &'a [IpNetwork],
}

/// Who refused: packets carry the number of this when they are recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reason {
    pub(super) eni: EniId,
    pub(super) direction: Direction,
    pub(super) groups: Vec<SecurityGroupId>,
}

/// Numbers that outlive a change of the table.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    groups: Vec<SecurityGroupId>,
    reasons: Vec<Reason>,
}

impl Numbers {
    fn group(&mut self, id: &SecurityGroupId) -> usize {
        position(&mut self.groups, id)
    }

    /// From 1: a packet without a mark has 0.
    fn reason(&mut self, reason: &Reason) -> usize {
        position(&mut self.reasons, reason).saturating_add(1)
    }

    pub(super) fn reason_of(&self, number: u64) -> Option<&Reason> {
        self.reasons.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

fn position<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) -> usize {
    list.iter().position(|known| known == item).unwrap_or_else(|| {
        list.push(item.clone());
        list.len().saturating_sub(1)
    })
}

/// Something of the table with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Chain {
        /// `{ type filter hook … }` of a base chain.
        hook: &'static str,
        rules: Vec<String>,
    },
    Set {
        /// `{ type …; … }`.
        kind: String,
        elements: BTreeSet<String>,
    },
}

/// The table as named objects.
pub(super) type Table = BTreeMap<String, Object>;

/// What the table is to be.
pub(super) fn desired(
    ports: &[Guarded<'_>],
    groups: &BTreeMap<SecurityGroupId, SecurityGroup>,
    numbers: &mut Numbers,
) -> Table {
    let mut table = records();
    let guarded: Vec<_> = ports.iter().filter(|port| !port.groups.is_empty()).collect();
    table.insert("forward".to_owned(), base_chain(&guarded));
    for port in &guarded {
        for direction in [Direction::Egress, Direction::Ingress] {
            let chain = port_chain(port, direction, groups, numbers, &mut table);
            table.insert(chain_name(port.port, direction), chain);
        }
    }
    let named: BTreeSet<_> = groups
        .keys()
        .chain(ports.iter().flat_map(|port| port.groups))
        .chain(groups.values().flat_map(|group| &group.rules).filter_map(peer_group))
        .collect();
    for id in named {
        let members = ports.iter().filter(|port| port.groups.contains(id));
        let addresses: Vec<_> = members.flat_map(|port| port.addresses).collect();
        for (family, v6) in [("ipv4_addr", false), ("ipv6_addr", true)] {
            let kind = format!("{{ type {family}; flags interval; comment \"{id}\"; }}");
            let of_family = addresses.iter().filter(|prefix| prefix.is_ipv6() == v6);
            let elements = of_family.map(ToString::to_string).collect();
            table.insert(set_name(numbers.group(id), v6), Object::Set { kind, elements });
        }
    }
    table
}

/// The sets in which refused packets are recorded, and the chain that does it.
fn records() -> Table {
    let set = |family: &str, ports: &str| {
        let kind = format!(
            "{{ typeof meta mark . {family} saddr . {family} daddr . meta l4proto{ports}; \
             flags dynamic; size 65535; }}"
        );
        Object::Set { kind, elements: BTreeSet::new() }
    };
    let record = |family: &str, set: &str, ports: &str| {
        format!(
            "update @{set} {{ meta mark . {family} saddr . {family} daddr . meta l4proto{ports} \
             counter }} drop"
        )
    };
    let with_ports = "meta l4proto { tcp, udp, sctp }";
    let port = " . th dport";
    let rules = vec![
        format!("meta nfproto ipv4 {with_ports} {}", record("ip", "refused4", port)),
        format!("meta nfproto ipv6 {with_ports} {}", record("ip6", "refused6", port)),
        format!("meta nfproto ipv4 {}", record("ip", "refused4_other", "")),
        format!("meta nfproto ipv6 {}", record("ip6", "refused6_other", "")),
    ];
    [
        ("refused4".to_owned(), set("ip", port)),
        ("refused6".to_owned(), set("ip6", port)),
        ("refused4_other".to_owned(), set("ip", "")),
        ("refused6_other".to_owned(), set("ip6", "")),
        ("record".to_owned(), Object::Chain { hook: "", rules }),
    ]
    .into()
}

fn base_chain(guarded: &[&Guarded<'_>]) -> Object {
    let jumps = |key: &str, direction, verdict: &str| {
        let each = guarded
            .iter()
            .map(|port| {
                format!("\"{}\" : {verdict} {}", port.port, chain_name(port.port, direction))
            })
            .collect::<Vec<_>>();
        (!each.is_empty()).then(|| format!("{key} vmap {{ {} }}", each.join(", ")))
    };
    let rules = [Some("ct state established,related accept".to_owned())]
        .into_iter()
        .chain([
            jumps("iifname", Direction::Egress, "jump"),
            jumps("oifname", Direction::Ingress, "goto"),
        ])
        .flatten();
    Object::Chain {
        hook: "{ type filter hook forward priority 0; policy accept; }",
        rules: rules.collect(),
    }
}

/// What may leave or reach one ENI. Out of it, what is allowed still has to pass its receiver.
fn port_chain(
    port: &Guarded<'_>,
    direction: Direction,
    groups: &BTreeMap<SecurityGroupId, SecurityGroup>,
    numbers: &mut Numbers,
    table: &mut Table,
) -> Object {
    let allowed = match direction {
        Direction::Egress => "return",
        Direction::Ingress => "accept",
    };
    let mut refuse = |numbers: &mut Numbers, groups: Vec<SecurityGroupId>| {
        let number = numbers.reason(&Reason { eni: port.eni.clone(), direction, groups });
        let name = format!("refuse_{number}");
        let rules = vec![format!("meta mark set {number}"), "goto record".to_owned()];
        table.insert(name.clone(), Object::Chain { hook: "", rules });
        format!("goto {name}")
    };
    let known: Vec<_> = port.groups.iter().filter_map(|id| groups.get(id)).collect();
    let mut lines = Vec::new();
    for (group, rule) in in_order(&known, direction) {
        let verdict = match rule.policy {
            Policy::Accept => allowed.to_owned(),
            Policy::Drop => refuse(numbers, vec![group.id.clone()]),
        };
        for matched in matches(rule, numbers) {
            lines.push(format!("{matched} {verdict}").trim().to_owned());
        }
    }
    if direction == Direction::Ingress {
        let open = known.iter().filter(|group| group.inner_access == InnerAccess::Accept);
        for group in open {
            let number = numbers.group(&group.id);
            lines.push(format!("ip saddr @{} accept", set_name(number, false)));
            lines.push(format!("ip6 saddr @{} accept", set_name(number, true)));
        }
        lines.push(refuse(numbers, port.groups.to_vec()));
    }
    Object::Chain { hook: "", rules: lines }
}

/// The lowest priority decides; of equals, a drop does.
fn in_order<'a>(
    groups: &[&'a SecurityGroup],
    direction: Direction,
) -> Vec<(&'a SecurityGroup, &'a Rule)> {
    let mut rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group.rules.iter().map(|rule| (*group, rule)))
        .filter(|(_, rule)| rule.direction == direction)
        .collect();
    rules.sort_by_key(|(_, rule)| (rule.priority, rule.policy == Policy::Accept));
    rules
}

/// The rule's condition; one for each family where it names a group.
fn matches(rule: &Rule, numbers: &mut Numbers) -> Vec<String> {
    let field = match rule.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let peers = match &rule.peer {
        Peer::Cidr(IpNetwork::V4(block)) if block.prefix() == 0 => {
            vec!["meta nfproto ipv4".to_owned()]
        }
        Peer::Cidr(IpNetwork::V6(block)) if block.prefix() == 0 => {
            vec!["meta nfproto ipv6".to_owned()]
        }
        Peer::Cidr(IpNetwork::V4(block)) => vec![format!("ip {field} {block}")],
        Peer::Cidr(IpNetwork::V6(block)) => vec![format!("ip6 {field} {block}")],
        Peer::Group(id) => {
            let number = numbers.group(id);
            vec![
                format!("ip {field} @{}", set_name(number, false)),
                format!("ip6 {field} @{}", set_name(number, true)),
            ]
        }
    };
    let packet = packet_match(rule);
    peers.into_iter().map(|peer| format!("{peer} {packet}")).collect()
}

fn packet_match(rule: &Rule) -> String {
    let ports = |protocol: &str| {
        let one = |field: &str, range: PortRange| match range {
            PortRange::All => String::new(),
            PortRange::Ports { first, last } => format!(" {protocol} {field} {first}-{last}"),
        };
        let destination = one("dport", rule.ports);
        let source = one("sport", rule.source_ports);
        format!("meta l4proto {protocol}{destination}{source}")
    };
    match rule.protocol {
        Protocol::Tcp => ports("tcp"),
        Protocol::Udp => ports("udp"),
        Protocol::Icmp => "meta l4proto icmp".to_owned(),
        Protocol::Icmpv6 => "meta l4proto ipv6-icmp".to_owned(),
        Protocol::Gre => "meta l4proto gre".to_owned(),
        Protocol::All => String::new(),
    }
}

fn peer_group(rule: &Rule) -> Option<&SecurityGroupId> {
    match &rule.peer {
        Peer::Group(id) => Some(id),
        Peer::Cidr(_) => None,
    }
}

fn chain_name(port: &str, direction: Direction) -> String {
    match direction {
        Direction::Ingress => format!("in_{port}"),
        Direction::Egress => format!("out_{port}"),
    }
}

fn set_name(group: usize, v6: bool) -> String {
    format!("g{group}_{}", if v6 { 6 } else { 4 })
}

/// One transaction of `nft -f` that makes `new` of `old`; empty if they are the same.
pub(super) fn script(old: &Table, new: &Table) -> String {
    let mut script = String::new();
    if old == new {
        return script;
    }
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(script, "{text}");
    };
    line(format_args!("add table {TABLE}"));
    let is_new = |name: &str| !old.contains_key(name);
    for (name, object) in new.iter().filter(|(name, _)| is_new(name)) {
        match object {
            Object::Set { kind, .. } => line(format_args!("add set {TABLE} {name} {kind}")),
            Object::Chain { hook, .. } => line(format_args!("add chain {TABLE} {name} {hook}")),
        }
    }
    for (name, object) in old {
        if matches!(object, Object::Chain { .. }) && new.get(name) != Some(object) {
            line(format_args!("flush chain {TABLE} {name}"));
        }
    }
    for (name, object) in new {
        if let Object::Set { elements, .. } = object {
            let none = BTreeSet::new();
            let before = match old.get(name) {
                Some(Object::Set { elements, .. }) => elements,
                _ => &none,
            };
            for (verb, list) in [
                ("delete", before.difference(elements).collect::<Vec<_>>()),
                ("add", elements.difference(before).collect()),
            ] {
                for element in list {
                    line(format_args!("{verb} element {TABLE} {name} {{ {element} }}"));
                }
            }
        }
    }
    for (name, object) in new {
        if let Object::Chain { rules, .. } = object
            && old.get(name) != Some(object)
        {
            for rule in rules {
                line(format_args!("add rule {TABLE} {name} {rule}"));
            }
        }
    }
    for (name, object) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        let kind = match object {
            Object::Chain { .. } => "chain",
            Object::Set { .. } => "set",
        };
        line(format_args!("delete {kind} {TABLE} {name}"));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, rules: Vec<Rule>) -> SecurityGroup {
        SecurityGroup { id: SecurityGroupId::new(id), inner_access: InnerAccess::Accept, rules }
    }

    fn rule(direction: Direction, peer: Peer, policy: Policy, priority: u8) -> Rule {
        Rule {
            id: "sgr-1".to_owned(),
            direction,
            protocol: Protocol::Tcp,
            ports: PortRange::Ports { first: 80, last: 88 },
            source_ports: PortRange::All,
            peer,
            policy,
            priority,
            description: String::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn table(groups: &[SecurityGroup], of_web: &[&str], numbers: &mut Numbers) -> Table {
        let groups = groups.iter().map(|group| (group.id.clone(), group.clone())).collect();
        let of_web: Vec<_> = of_web.iter().copied().map(SecurityGroupId::new).collect();
        let of_database = [SecurityGroupId::new("sg-database")];
        let (web, database) = (EniId::new("eni-web"), EniId::new("eni-database"));
        let in_web = ["10.0.1.1/32", "fd00::1/128"].map(|text| text.parse().unwrap());
        let in_database = ["10.0.1.16/28"].map(|text| text.parse().unwrap());
        let ports = [
            Guarded { eni: &web, port: "p3", groups: &of_web, addresses: &in_web },
            Guarded { eni: &database, port: "m4", groups: &of_database, addresses: &in_database },
        ];
        desired(&ports, &groups, numbers)
    }

    fn groups() -> [SecurityGroup; 2] {
        let everybody = Peer::Cidr("0.0.0.0/0".parse().unwrap());
        let web = Peer::Group(SecurityGroupId::new("sg-web"));
        [
            group(
                "sg-web",
                vec![
                    rule(Direction::Ingress, everybody.clone(), Policy::Accept, 5),
                    rule(Direction::Ingress, everybody.clone(), Policy::Drop, 5),
                    rule(Direction::Egress, everybody, Policy::Drop, 9),
                ],
            ),
            group("sg-database", vec![rule(Direction::Ingress, web, Policy::Accept, 1)]),
        ]
    }

    #[test]
    fn rules_become_chains_of_a_port_with_drops_before_accepts() {
        let table = table(&groups(), &["sg-web"], &mut Numbers::default());
        let chain = |name: &str| match table.get(name) {
            Some(Object::Chain { rules, .. }) => rules.join("\n"),
            other => panic!("{name}: {other:?}"),
        };
        insta::assert_snapshot!(chain("forward"), @r#"
        ct state established,related accept
        iifname vmap { "p3" : jump out_p3, "m4" : jump out_m4 }
        oifname vmap { "p3" : goto in_p3, "m4" : goto in_m4 }
        "#);
        insta::assert_snapshot!(chain("in_p3"), @"
        meta nfproto ipv4 meta l4proto tcp tcp dport 80-88 goto refuse_2
        meta nfproto ipv4 meta l4proto tcp tcp dport 80-88 accept
        ip saddr @g0_4 accept
        ip6 saddr @g0_6 accept
        goto refuse_2
        ");
        insta::assert_snapshot!(chain("out_p3"), @"meta nfproto ipv4 meta l4proto tcp tcp dport 80-88 goto refuse_1");
        insta::assert_snapshot!(chain("in_m4"), @"
        ip saddr @g0_4 meta l4proto tcp tcp dport 80-88 accept
        ip6 saddr @g0_6 meta l4proto tcp tcp dport 80-88 accept
        ip saddr @g1_4 accept
        ip6 saddr @g1_6 accept
        goto refuse_3
        ");
        insta::assert_snapshot!(chain("refuse_3"), @"
        meta mark set 3
        goto record
        ");
    }

    #[test]
    fn a_script_changes_only_what_is_different() {
        let mut numbers = Numbers::default();
        let before = table(&groups(), &["sg-web"], &mut numbers);
        assert_eq!(script(&before, &before), "");
        let after = table(&groups(), &["sg-database"], &mut numbers);
        insta::assert_snapshot!(script(&before, &after), @r#"
        add table inet lab
        add chain inet lab refuse_4 
        flush chain inet lab in_p3
        flush chain inet lab out_p3
        flush chain inet lab refuse_1
        flush chain inet lab refuse_2
        delete element inet lab g0_4 { 10.0.1.1/32 }
        delete element inet lab g0_6 { fd00::1/128 }
        add element inet lab g1_4 { 10.0.1.1/32 }
        add element inet lab g1_6 { fd00::1/128 }
        add rule inet lab in_p3 ip saddr @g0_4 meta l4proto tcp tcp dport 80-88 accept
        add rule inet lab in_p3 ip6 saddr @g0_6 meta l4proto tcp tcp dport 80-88 accept
        add rule inet lab in_p3 ip saddr @g1_4 accept
        add rule inet lab in_p3 ip6 saddr @g1_6 accept
        add rule inet lab in_p3 goto refuse_4
        add rule inet lab refuse_4 meta mark set 4
        add rule inet lab refuse_4 goto record
        delete chain inet lab refuse_1
        delete chain inet lab refuse_2
        "#);
        assert_eq!(script(&after, &after), "");
    }
}
