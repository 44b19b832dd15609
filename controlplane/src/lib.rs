//! Turns what pods want into ENIs that are there: reconcilers that look at a record and at what
//! was observed, and say what to do next. They neither await nor read a clock; whoever drives them
//! (the daemon in standalone mode, the control plane in a cluster) writes the records down,
//! performs the calls and comes back with the answers.
//!
//! [`next`] is the life of one ENI, [`Fleet`] is many of them, [`Controller`] gives pods their
//! member ENIs. Pods and PodNetworkings come from a [`Source`], records go to a [`Store`].

mod call;
mod controller;
mod eni;
mod fleet;
mod life;
mod pace;
mod pod_networking;
mod random;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod vswitches;

pub use call::{Answer, Call, CallError, Change, Verb, perform};
pub use controller::{
    Controller, ControllerSettings, Durability, Owner, Pending, PodRequest, Refusal, Source,
    Status, Store,
};
pub use eni::{Binding, Eni, EniSpec, Goal, Kind, Stage, TOKEN_TAG};
pub use fleet::{Degradation, Fleet, FleetSettings, Notice, Steps};
pub use life::{Action, Creation, Failure, Seen, Timing, View, first_v6, is_final, next};
pub use pace::Pace;
pub use pod_networking::{Allocation, Attachment, Defaults, NotReady, PodNetworking};
pub use random::Random;
pub use vswitches::{Exhausted, NoVSwitch, Room, VSwitches};
