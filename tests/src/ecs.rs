//! The cloud of the lab: an emulator of ECS, VPC and the instance metadata service, as strict as
//! the real one, and the API by which a test or a person controls it.

mod actions;
mod addresses;
mod arguments;
#[cfg(test)]
mod bed;
mod cloud;
mod credentials;
mod encoding;
mod fabric;
mod instance_types;
mod operations;
mod paging;
mod random;
mod refusal;
mod rules;
mod settings;
mod setup;
mod signature;
mod throttle;
mod tokens;
mod verdict;
mod versions;
mod views;
mod world;

pub use actions::Product;
pub use credentials::AccessKey;
pub use fabric::{Fabric, PluggedEni, PluggedKind};
pub use instance_types::InstanceKind;
pub use refusal::Refusal;
pub use rules::{Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup};
pub use settings::Settings;
pub use setup::{InstanceSpec, VSwitchSpec, VpcSpec};
pub use verdict::{Flow, Party, Verdict, verdict};
pub use world::InstanceState;
