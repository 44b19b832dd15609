//! The actions that we call: a closed set, with what is the same for every call of one.

use std::fmt;
use std::str::FromStr;

/// Which service takes the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// Elastic Compute Service.
    Ecs,
    /// Virtual Private Cloud.
    Vpc,
}

impl Product {
    /// `x-acs-version` of its API.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Ecs => "2014-05-26",
            Self::Vpc => "2016-04-28",
        }
    }
}

/// Whether an action changes anything, and what a repetition of it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads: an answer that was lost is no loss.
    Read,
    /// It writes: when the answer was lost, the effect may still come.
    Write,
}

/// What is asked of the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `CreateNetworkInterface`.
    CreateNetworkInterface,
    /// `DescribeNetworkInterfaces`.
    DescribeNetworkInterfaces,
    /// `AttachNetworkInterface`.
    AttachNetworkInterface,
    /// `DetachNetworkInterface`.
    DetachNetworkInterface,
    /// `DeleteNetworkInterface`.
    DeleteNetworkInterface,
    /// `AssignPrivateIpAddresses`.
    AssignPrivateIpAddresses,
    /// `UnassignPrivateIpAddresses`.
    UnassignPrivateIpAddresses,
    /// `AssignIpv6Addresses`.
    AssignIpv6Addresses,
    /// `UnassignIpv6Addresses`.
    UnassignIpv6Addresses,
    /// `DescribeInstanceTypes`.
    DescribeInstanceTypes,
    /// `DescribeVSwitches`.
    DescribeVSwitches,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CreateNetworkInterface,
        Self::DescribeNetworkInterfaces,
        Self::AttachNetworkInterface,
        Self::DetachNetworkInterface,
        Self::DeleteNetworkInterface,
        Self::AssignPrivateIpAddresses,
        Self::UnassignPrivateIpAddresses,
        Self::AssignIpv6Addresses,
        Self::UnassignIpv6Addresses,
        Self::DescribeInstanceTypes,
        Self::DescribeVSwitches,
    ];

    /// Its name on the wire, and in `eni_conf`'s `rate_limit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateNetworkInterface => "CreateNetworkInterface",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::AttachNetworkInterface => "AttachNetworkInterface",
            Self::DetachNetworkInterface => "DetachNetworkInterface",
            Self::DeleteNetworkInterface => "DeleteNetworkInterface",
            Self::AssignPrivateIpAddresses => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses => "UnassignPrivateIpAddresses",
            Self::AssignIpv6Addresses => "AssignIpv6Addresses",
            Self::UnassignIpv6Addresses => "UnassignIpv6Addresses",
            Self::DescribeInstanceTypes => "DescribeInstanceTypes",
            Self::DescribeVSwitches => "DescribeVSwitches",
        }
    }

    /// Who takes it.
    pub const fn product(self) -> Product {
        match self {
            Self::DescribeVSwitches => Product::Vpc,
            _ => Product::Ecs,
        }
    }

    /// Whether it changes anything.
    pub const fn effect(self) -> Effect {
        match self {
            Self::DescribeNetworkInterfaces
            | Self::DescribeInstanceTypes
            | Self::DescribeVSwitches => Effect::Read,
            Self::CreateNetworkInterface
            | Self::AttachNetworkInterface
            | Self::DetachNetworkInterface
            | Self::DeleteNetworkInterface
            | Self::AssignPrivateIpAddresses
            | Self::UnassignPrivateIpAddresses
            | Self::AssignIpv6Addresses
            | Self::UnassignIpv6Addresses => Effect::Write,
        }
    }

    /// How many calls a minute we allow ourselves unless `rate_limit` says otherwise.
    pub const fn calls_per_minute(self) -> u32 {
        match self {
            Self::CreateNetworkInterface
            | Self::AttachNetworkInterface
            | Self::DeleteNetworkInterface => 500,
            Self::DescribeNetworkInterfaces => 800,
            Self::DetachNetworkInterface
            | Self::AssignPrivateIpAddresses
            | Self::UnassignPrivateIpAddresses
            | Self::AssignIpv6Addresses
            | Self::UnassignIpv6Addresses
            | Self::DescribeInstanceTypes => 400,
            Self::DescribeVSwitches => 300,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no action of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action {0}")]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.name() == name);
        found.ok_or_else(|| UnknownAction(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_prints_as_it_parses() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        let odd = "RunInstances".parse::<Action>();
        assert_eq!(odd.unwrap_err().to_string(), "unknown action RunInstances");
    }
}
