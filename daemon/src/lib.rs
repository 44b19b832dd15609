//! `terwayd`: the daemon of one node. One idea carries it: desired state -> diff -> ops.
//! What each module is for stands in its own first line; the map is ARCHITECTURE.md.

pub mod api;
pub mod args;
pub mod bpf;
pub mod checkpoint;
pub mod config;
pub mod conflist;
pub mod ctl;
pub mod datapath;
pub mod debug;
pub mod del_queue;
pub mod facts;
pub mod failpoints;
pub mod health;
pub mod ipam;
pub mod metrics;
pub mod netns;
pub mod pods;
pub mod reconcile;
pub mod reload;
pub mod standalone;
pub mod start;
pub mod tasks;
pub mod telemetry;
pub mod tombstones;
