//! Real sockets in the lab's namespaces: servers, probes, streams of datagrams, raw frames.

mod datagrams;
mod echo;
mod frame;
mod probe;
mod wire;

pub use datagrams::{Datagrams, DatagramsReport};
pub use echo::Echo;
pub use frame::Frame;
pub use probe::{Answer, Probe, probe, probe_all};
pub use wire::{Tag, Wire};
