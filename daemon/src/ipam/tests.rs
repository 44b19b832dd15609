//! The whole state machine against a simulated cloud: laws under any interleaving, faults and kills.

mod claims;
mod degradation;
mod law;
mod lost;
mod one;
mod orphans;
mod prefixes;
mod reconfigure;
mod sizes;
mod task;
mod world;
