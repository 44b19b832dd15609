//! The agent socket: a gRPC request becomes a domain request, a domain error a status with a reason.

pub mod access;
pub mod deadline;
pub mod socket;
