//! The eBPF programs and what loads them, against the kernel. Needs root and a built stage.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attach;
mod egress;
mod events;
mod frames;
mod from_pod;
mod ingress;
mod place;
mod probe;
mod run;
mod tap;
mod world;
