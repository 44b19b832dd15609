//! One sandbox's life: ADD, DEL, CHECK and GC.

pub mod lock;
