//! Nouns and pure rules of an ENI network. No I/O, no clock, no `await`: a value is checked where
//! it enters and is then a type.

mod address;
mod id;
mod instance;
mod link;
mod sandbox;
mod vswitch;

pub use address::{IpPair, IpStack, host_prefix};
pub use id::{
    EniId, InstanceId, InstanceTypeId, RegionId, SecurityGroupId, VSwitchId, VpcId, ZoneId,
};
pub use instance::{Capacity, InstanceType, JoinError};
pub use link::{IfName, LinkIndex, Mac, Mark, TABLE_BASE, TableId, VlanId};
pub use sandbox::{Mode, PodRef, SandboxKey};
pub use vswitch::{SelectionPolicy, VSwitch, choose, gateway};

/// A number outside of what its type may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} out of range: {value}")]
pub struct OutOfRange {
    /// What was to be made.
    pub what: &'static str,
    /// What it was to be made of.
    pub value: String,
}

impl OutOfRange {
    fn new(what: &'static str, value: impl std::fmt::Display) -> Self {
        Self { what, value: format!("{value}") }
    }
}
