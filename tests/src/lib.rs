//! The lab: a VPC on one machine, in network namespaces, with an emulator of the cloud's API.

pub mod bench;
pub mod containerd;
pub mod cri;
pub mod demo;
pub mod driver;
pub mod ecs;
pub mod fabric;
pub mod image;
pub mod lab;
pub mod namespace;
mod netlink;
pub mod node;
pub mod progress;
pub mod reach;
pub mod server;
pub mod stranger;
pub mod traffic;
