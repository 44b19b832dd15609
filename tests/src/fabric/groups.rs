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
