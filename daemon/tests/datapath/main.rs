//! The datapath against the real kernel, in namespaces of its own; the second witness is `ip -j`,
//! `tc -j` and `bpftool`, and packets of real sockets. Needs root and the staged eBPF object.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod further;
mod life;
mod node;
mod repair;
mod rest;
mod trouble;
mod witness;
