//! The whole way of a pod, on a lab: real binaries, a strict VPC, second witnesses. One binary, for
//! each that links the lab is large.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod all_pairs;
mod bad_cloud;
mod bad_configuration;
mod bad_namespace;
mod bench;
mod burst;
mod commands;
mod crash;
mod daemon_life;
mod demo;
mod garbage;
mod live_config;
mod lying_metadata;
mod prefixes;
mod random_kills;
mod runtimes;
mod second_witness;
mod small_node;
mod support;
mod throttled;
