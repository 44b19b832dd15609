//! The cloud of the lab: an emulator of ECS, VPC and the instance metadata service, as strict as
//! the real one, and the API by which a test or a person controls it.

mod actions;
mod addresses;
mod arguments;
#[cfg(test)]
mod bed;
mod client;
mod cloud;
mod control;
mod credentials;
mod dump;
mod encoding;
mod fabric;
mod faults;
mod http;
mod instance_types;
mod journal;
#[cfg(test)]
mod laws;
mod metadata;
mod operations;
mod paging;
mod random;
mod recording;
mod refusal;
mod rules;
mod service;
mod settings;
mod setup;
mod signature;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;
mod tokens;
mod verdict;
mod versions;
mod views;
mod world;

pub use actions::Product;
pub use client::{Control, ControlError};
pub use control::{ControlRefusal, FlowQuery, Judgement, Reserved, Seed, WantedState};
pub use credentials::AccessKey;
pub use dump::{Dump, EniDump, GroupDump, InstanceDump, VSwitchDump};
pub use fabric::{Fabric, PluggedEni, PluggedKind};
pub use faults::{Fault, FaultKind, LostEffect};
pub use instance_types::InstanceKind;
pub use journal::{CallCount, CallRecord};
pub use metadata::{Identity, MetadataFaults};
pub use recording::{Recorded, RecordingFabric};
pub use refusal::Refusal;
pub use rules::{Direction, InnerAccess, Peer, Policy, PortRange, Protocol, Rule, SecurityGroup};
pub use service::Ecs;
pub use settings::Settings;
pub use setup::{InstanceSpec, VSwitchSpec, VpcSpec};
pub use tls::{Tls, TlsError};
pub use verdict::{Flow, Party, Verdict, verdict};
pub use world::InstanceState;
