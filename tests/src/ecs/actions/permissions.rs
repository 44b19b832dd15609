//! Rules of security groups: authorized and revoked, one by flat parameters or several as
//! `Permissions.N`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use model::SecurityGroupId;
use serde_json::{Value, json};

use super::groups::{find, put};
use super::{TEXT, TEXTS};
use crate::ecs::arguments::{Arguments, Grammar, Shape};
use crate::ecs::cloud::{Answer, Cloud, Moment};
use crate::ecs::refusal::Refusal;
use crate::ecs::rules::{Direction, Peer, Policy, PortRange, Protocol, Rule};
use crate::ecs::views;

macro_rules! fields {
    ($($more:literal),*) => {
        &[
            "IpProtocol",
            "PortRange",
            "SourcePortRange",
            "SourceCidrIp",
            "Ipv6SourceCidrIp",
            "DestCidrIp",
            "Ipv6DestCidrIp",
            "Policy",
            "Priority",
            "NicType",
            "Description",
            $($more),*
        ]
    };
}

/// Of a rule that is given flat.
const FIELDS: &[&str] = fields!("SourceGroupId", "DestGroupId");
const INGRESS_RULES: Shape = Shape::Records(fields!("SourceGroupId"));
const EGRESS_RULES: Shape = Shape::Records(fields!("DestGroupId"));

macro_rules! grammar {
    ($($more:expr),*) => {
        &[
            ("RegionId", TEXT),
            ("ClientToken", TEXT),
            ("SecurityGroupId", TEXT),
            ("IpProtocol", TEXT),
            ("PortRange", TEXT),
            ("SourcePortRange", TEXT),
            ("SourceCidrIp", TEXT),
            ("Ipv6SourceCidrIp", TEXT),
            ("DestCidrIp", TEXT),
            ("Ipv6DestCidrIp", TEXT),
            ("Policy", TEXT),
            ("Priority", TEXT),
            ("NicType", TEXT),
            ("Description", TEXT),
            $($more),*
        ]
    };
}

pub(super) const INGRESS: Grammar =
    grammar!(("SourceGroupId", TEXT), ("Permissions", INGRESS_RULES));
pub(super) const EGRESS: Grammar = grammar!(("DestGroupId", TEXT), ("Permissions", EGRESS_RULES));
pub(super) const REVOKE_INGRESS: Grammar = grammar!(
    ("SourceGroupId", TEXT),
    ("SecurityGroupRuleId", TEXTS),
    ("Permissions", INGRESS_RULES)
);
pub(super) const REVOKE_EGRESS: Grammar =
    grammar!(("DestGroupId", TEXT), ("SecurityGroupRuleId", TEXTS), ("Permissions", EGRESS_RULES));

/// Of all rules of a group.
const MOST_RULES: usize = 200;

pub(super) fn authorize_ingress(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    authorize(cloud, arguments, Direction::Ingress, moment)
}

pub(super) fn authorize_egress(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    authorize(cloud, arguments, Direction::Egress, moment)
}

pub(super) fn revoke_ingress(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    revoke(cloud, arguments, Direction::Ingress, moment)
}

pub(super) fn revoke_egress(
    cloud: &mut Cloud,
    arguments: &Arguments,
    moment: Moment,
) -> Result<Answer, Refusal> {
    revoke(cloud, arguments, Direction::Egress, moment)
}

fn authorize(
    cloud: &mut Cloud,
    arguments: &Arguments,
    direction: Direction,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let mut group = find(cloud, arguments.required("SecurityGroupId")?)?;
    for wanted in asked(cloud, arguments, direction, moment)? {
        // A rule that is there already is no error and no second rule.
        if group.rules.rules.iter().any(|rule| same(rule, &wanted)) {
            continue;
        }
        let id = cloud.next_id("sgr");
        group.rules.rules.push(Rule { id, ..wanted });
    }
    if group.rules.rules.len() > MOST_RULES {
        let text = format!("More than {MOST_RULES} rules in {}.", group.rules.id);
        return Err(Refusal::new(403, "AuthorizationLimitExceed", text));
    }
    Ok(put(cloud, group))
}

fn revoke(
    cloud: &mut Cloud,
    arguments: &Arguments,
    direction: Direction,
    moment: Moment,
) -> Result<Answer, Refusal> {
    let mut group = find(cloud, arguments.required("SecurityGroupId")?)?;
    let ids = arguments.texts("SecurityGroupRuleId");
    if !ids.is_empty() {
        let of_group = |id: &&str| {
            group.rules.rules.iter().any(|rule| rule.id == *id && rule.direction == direction)
        };
        if let Some(stranger) = ids.iter().find(|id| !of_group(id)) {
            let text = format!("The specified SecurityGroupRuleId {stranger} does not exist.");
            return Err(Refusal::new(404, "InvalidSecurityGroupRuleId.NotFound", text));
        }
        group.rules.rules.retain(|rule| !ids.contains(&rule.id.as_str()));
        return Ok(put(cloud, group));
    }
    // One that is not there is no error: it is revoked.
    let gone = asked(cloud, arguments, direction, moment)?;
    group.rules.rules.retain(|rule| !gone.iter().any(|gone| same(rule, gone)));
    Ok(put(cloud, group))
}

/// Whether two rules do the same, whatever their ids and descriptions.
fn same(one: &Rule, other: &Rule) -> bool {
    let bare = |rule: &Rule| Rule {
        id: String::new(),
        description: String::new(),
        created: Timestamp::UNIX_EPOCH,
        ..rule.clone()
    };
    bare(one) == bare(other)
}

/// The rules that a call names: several, or one flat.
fn asked(
    cloud: &Cloud,
    arguments: &Arguments,
    direction: Direction,
    moment: Moment,
) -> Result<Vec<Rule>, Refusal> {
    let rule = |fields: &BTreeMap<&str, &str>| rule(cloud, fields, direction, moment.now);
    let records = arguments.records("Permissions");
    let flat: BTreeMap<&str, &str> =
        FIELDS.iter().filter_map(|name| arguments.text(name).map(|value| (*name, value))).collect();
    match (records.is_empty(), flat.is_empty()) {
        (true, true) => Err(Refusal::missing("Permissions")),
        (false, false) => Err(Refusal::invalid("Permissions", "rules are given flat as well")),
        (true, false) => Ok(vec![rule(&flat)?]),
        (false, true) => records.iter().map(rule).collect(),
    }
}

fn rule(
    cloud: &Cloud,
    fields: &BTreeMap<&str, &str>,
    direction: Direction,
    created: Timestamp,
) -> Result<Rule, Refusal> {
    let get = |name: &str| fields.get(name).copied().filter(|value| !value.is_empty());
    if !matches!(get("NicType"), None | Some("intranet")) {
        return Err(Refusal::invalid("NicType", "in a VPC it is intranet"));
    }
    let protocol = protocol(get("IpProtocol").ok_or_else(|| Refusal::missing("IpProtocol"))?)?;
    let ports = ports("PortRange", get("PortRange").ok_or_else(|| Refusal::missing("PortRange"))?)?;
    let with_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    if !with_ports && ports != PortRange::All {
        return Err(Refusal::invalid("PortRange", "this protocol has -1/-1"));
    }
    if with_ports && ports == PortRange::All {
        return Err(Refusal::invalid("PortRange", "TCP and UDP have 1 to 65535"));
    }
    let source_ports = get("SourcePortRange")
        .map_or(Ok(PortRange::All), |text| self::ports("SourcePortRange", text))?;
    Ok(Rule {
        id: String::new(),
        direction,
        protocol,
        ports,
        source_ports,
        peer: peer(cloud, &get, direction)?,
        policy: policy(get("Policy"))?,
        priority: priority(get("Priority"))?,
        description: get("Description").unwrap_or_default().to_owned(),
        created,
    })
}

fn protocol(text: &str) -> Result<Protocol, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "icmp" => Ok(Protocol::Icmp),
        "icmpv6" => Ok(Protocol::Icmpv6),
        "gre" => Ok(Protocol::Gre),
        "all" => Ok(Protocol::All),
        _ => Err(Refusal::new(400, "InvalidIpProtocol.Malformed", format!("IpProtocol {text}."))),
    }
}

fn ports(name: &str, text: &str) -> Result<PortRange, Refusal> {
    if text == "-1/-1" {
        return Ok(PortRange::All);
    }
    let range = text.split_once('/').and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first > 0 && first <= last).then_some(PortRange::Ports { first, last })
    });
    range.ok_or_else(|| Refusal::invalid(name, text))
}

fn policy(text: Option<&str>) -> Result<Policy, Refusal> {
    match text.unwrap_or("accept").to_ascii_lowercase().as_str() {
        "accept" => Ok(Policy::Accept),
        "drop" => Ok(Policy::Drop),
        other => Err(Refusal::new(400, "InvalidPolicy.Malformed", format!("Policy {other}."))),
    }
}

fn priority(text: Option<&str>) -> Result<u8, Refusal> {
    let text = text.unwrap_or("1");
    text.parse().ok().filter(|priority| (1..=100).contains(priority)).ok_or_else(|| {
        Refusal::new(400, "InvalidPriority.Malformed", format!("Priority {text} is not 1 to 100."))
    })
}

/// Exactly one of the three ways to say it.
fn peer<'a>(
    cloud: &Cloud,
    get: &impl Fn(&str) -> Option<&'a str>,
    direction: Direction,
) -> Result<Peer, Refusal> {
    let (v4, v6, group, own) = match direction {
        Direction::Ingress => ("SourceCidrIp", "Ipv6SourceCidrIp", "SourceGroupId", "DestCidrIp"),
        Direction::Egress => ("DestCidrIp", "Ipv6DestCidrIp", "DestGroupId", "SourceCidrIp"),
    };
    if get(own).is_some() {
        return Err(Refusal::unsupported(own));
    }
    match (get(v4), get(v6), get(group)) {
        (Some(text), None, None) => cidr(v4, text, IpNetwork::is_ipv4),
        (None, Some(text), None) => cidr(v6, text, IpNetwork::is_ipv6),
        (None, None, Some(id)) => {
            find(cloud, id).map(|_found| Peer::Group(SecurityGroupId::new(id)))
        }
        (None, None, None) => Err(Refusal::missing(v4)),
        _ => Err(Refusal::invalid(v4, format!("{v4}, {v6} and {group} exclude each other"))),
    }
}

fn cidr(name: &str, text: &str, fits: fn(&IpNetwork) -> bool) -> Result<Peer, Refusal> {
    let network: Option<IpNetwork> = text.parse().ok();
    let network = network.filter(fits).filter(|network| network.ip() == network.network());
    network.map(Peer::Cidr).ok_or_else(|| {
        Refusal::new(400, format!("Invalid{name}.Malformed"), format!("{name} {text}."))
    })
}

/// A rule as `DescribeSecurityGroupAttribute` shows it.
pub(crate) fn permission(rule: &Rule) -> Value {
    let (v4, v6, group) = match &rule.peer {
        Peer::Cidr(IpNetwork::V4(block)) => (block.to_string(), String::new(), String::new()),
        Peer::Cidr(IpNetwork::V6(block)) => (String::new(), block.to_string(), String::new()),
        Peer::Group(id) => (String::new(), String::new(), id.to_string()),
    };
    let mut body = json!({
        "SecurityGroupRuleId": rule.id,
        "Direction": if rule.direction == Direction::Ingress { "ingress" } else { "egress" },
        "IpProtocol": format!("{:?}", rule.protocol).to_uppercase(),
        "PortRange": port_text(rule.ports),
        "SourcePortRange": port_text(rule.source_ports),
        "Policy": format!("{:?}", rule.policy),
        "Priority": rule.priority.to_string(),
        "NicType": "intranet",
        "Description": rule.description,
        "CreateTime": views::time(rule.created),
    });
    let more = match rule.direction {
        Direction::Ingress => {
            json!({ "SourceCidrIp": v4, "Ipv6SourceCidrIp": v6, "SourceGroupId": group })
        }
        Direction::Egress => {
            json!({ "DestCidrIp": v4, "Ipv6DestCidrIp": v6, "DestGroupId": group })
        }
    };
    views::merge(&mut body, more);
    body
}

fn port_text(ports: PortRange) -> String {
    match ports {
        PortRange::All => "-1/-1".to_owned(),
        PortRange::Ports { first, last } => format!("{first}/{last}"),
    }
}
