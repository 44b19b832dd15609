//! The two gRPC interfaces of the daemon: [`agent`] for the CNI binary, [`debug`] for `terwayctl`;
//! the [`queue`] in which the binary leaves a DEL while the daemon is down; and the [`conflist`].

/// `agent.proto`: CNI binary and daemon.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, reason = "generated")]
pub mod agent {
    tonic::include_proto!("terway.agent.v1");
}

/// `debug.proto`: `terwayctl` and daemon.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, reason = "generated")]
pub mod debug {
    tonic::include_proto!("terway.debug.v1");
}

pub mod conflist;
pub mod failure;
pub mod queue;

/// The file descriptors of both interfaces, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Where the daemon serves [`agent`].
pub const AGENT_SOCKET: &str = "/run/terway/agent.sock";
/// Where the daemon serves [`debug`].
pub const DEBUG_SOCKET: &str = "/run/terway/debug.sock";
/// Where the binary leaves a DEL that the daemon could not take.
pub const DEL_QUEUE: &str = "/var/lib/terway/del-queue";
