//! The lab: a VPC on one machine, in network namespaces, with an emulator of the cloud's API.

pub mod containerd;
pub mod cri;
pub mod driver;
pub mod ecs;
pub mod fabric;
pub mod image;
pub mod namespace;
mod netlink;
pub mod node;
pub mod reach;
pub mod traffic;
