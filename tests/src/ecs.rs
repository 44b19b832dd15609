//! The cloud of the lab: an emulator of ECS, VPC and the instance metadata service, as strict as
//! the real one, and the API by which a test or a person controls it.

mod fabric;
mod rules;

pub use fabric::{Fabric, PluggedEni, PluggedKind};
pub use rules::{Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup};
