//! What a pod may send, and what never gets out of its node: the VPC's ports are the witness, and
//! the daemon's counters say why.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "spoofing/capture.rs"]
mod capture;
#[path = "spoofing/cases.rs"]
mod cases;
#[path = "spoofing/forger.rs"]
mod forger;
#[path = "spoofing/legitimate.rs"]
mod legitimate;

use std::collections::BTreeMap;
use std::time::Duration;

use terway_lab::lab::{DaemonSettings, Lab, LabOptions, LabPod, PodRequest};

const NODE: &str = "node1";
/// For what follows: a frame on its way, a counter that rises.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// Dropped frames by cause, as `terwayctl status` names them.
type Drops = BTreeMap<String, u64>;

async fn drops(lab: &Lab) -> Drops {
    let status = lab.terwayctl(NODE, "status").await.unwrap();
    let drops = status["drops"].as_array().unwrap().iter();
    let drops: Drops = drops
        .map(|drop| (drop["cause"].as_str().unwrap().to_owned(), drop["packets"].as_u64().unwrap()))
        .collect();
    assert!(drops.contains_key("spoofed_mac"), "every cause is shown: {drops:?}");
    drops
}
