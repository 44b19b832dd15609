//! Security groups as data.

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use model::SecurityGroupId;

/// A security group and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// `InnerAccessPolicy`: what members of the group may do to each other by default.
    pub inner_access: InnerAccess,
    /// In the order they were made; which one decides is by priority.
    pub rules: Vec<Rule>,
}

/// `InnerAccessPolicy`. It decides where no rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InnerAccess {
    /// Members may talk to each other.
    Accept,
    /// They may not, unless a rule says so.
    Drop,
}

/// One rule. Of the rules of all groups of an ENI that match, the one with the lowest `priority`
/// decides; of equals, `Drop` does. Where none matches: ingress from a member of the same group is
/// decided by [`InnerAccess`], other ingress is dropped, egress is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `sgr-…`, unique in the cloud.
    pub id: String,
    /// Into or out of the group's members.
    pub direction: Direction,
    /// Which packets.
    pub protocol: Protocol,
    /// Destination ports; all ports where the protocol has none.
    pub ports: PortRange,
    /// Source ports; all unless given.
    pub source_ports: PortRange,
    /// Whom it concerns on the other side.
    pub peer: Peer,
    /// The verdict.
    pub policy: Policy,
    /// 1 (first) to 100.
    pub priority: u8,
    /// Free text.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Which way a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into a member; the peer is the source.
    Ingress,
    /// Out of a member; the peer is the destination.
    Egress,
}

/// `IpProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`.
    Tcp,
    /// `UDP`.
    Udp,
    /// `ICMP`.
    Icmp,
    /// `ICMPv6`.
    Icmpv6,
    /// `GRE`.
    Gre,
    /// `ALL`.
    All,
}

/// `PortRange`: `first/last`, inclusive; `-1/-1` is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRange {
    /// `-1/-1`.
    All,
    /// Both ends belong to it.
    Ports {
        /// 1 to 65535.
        first: u16,
        /// Not below `first`.
        last: u16,
    },
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// `SourceCidrIp`, `Ipv6SourceCidrIp`, `DestCidrIp`, `Ipv6DestCidrIp`.
    Cidr(IpNetwork),
    /// `SourceGroupId`, `DestGroupId`: whoever is a member of that group.
    Group(SecurityGroupId),
}

/// `Policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// `Accept`.
    Accept,
    /// `Drop`.
    Drop,
}
