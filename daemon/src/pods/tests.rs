//! One sandbox's life against a node in memory.

mod crash;
mod crossed;
mod garbage;
mod one;
mod queued;
pub(crate) mod world;

pub(crate) use crash::del as queue_of;
