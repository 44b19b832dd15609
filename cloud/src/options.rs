//! What a caller says of a call beside its parameters: until when, and how urgent.

use tokio::time::Instant;

/// How a call is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOptions {
    /// It ends by then, with an answer or an error.
    pub deadline: Instant,
    /// Who goes first when the budget of an action is short.
    pub priority: Priority,
}

impl CallOptions {
    /// A call that somebody of this priority waits for, until `deadline`.
    pub const fn new(priority: Priority, deadline: Instant) -> Self {
        Self { deadline, priority }
    }
}

/// For whom a call is made. The order is the order of service: the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A pod waits for it.
    Pod,
    /// A fixed address is kept or moved by it.
    Fixed,
    /// It fills the pool ahead of demand.
    WarmPool,
    /// It gives back or cleans up what nobody needs.
    Collection,
}

impl Priority {
    /// All of them, the first to be served first.
    pub const ALL: [Self; 4] = [Self::Pod, Self::Fixed, Self::WarmPool, Self::Collection];
}
