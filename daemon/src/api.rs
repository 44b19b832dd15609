//! The agent socket: a gRPC request becomes a domain request, a domain error a status with a reason.

pub mod access;
pub mod agent;
pub mod convert;
pub mod deadline;
pub mod failure;
pub mod gate;
pub mod reply;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;
