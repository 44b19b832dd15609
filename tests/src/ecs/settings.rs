//! What of the cloud can be set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the emulated cloud behaves; the control API reads and writes it whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `RegionId`; calls for another one are refused.
    pub region: String,
    /// From the answer of `AttachNetworkInterface` to the plug, in milliseconds.
    pub attach_ms: u32,
    /// From the answer of `DetachNetworkInterface` to the unplug, in milliseconds.
    pub detach_ms: u32,
    /// How long `Assign…`, `Unassign…` and `Modify…` take, in milliseconds; meanwhile the ENI
    /// refuses other writes.
    pub write_ms: u32,
    /// How far reads of the API are behind, in milliseconds; at most ten minutes.
    pub api_lag_ms: u32,
    /// How far the metadata service is behind, in milliseconds; at most ten minutes.
    pub metadata_lag_ms: u32,
    /// Calls per minute and action; more are `Throttling.User`. Actions not named: `other`.
    pub per_minute: BTreeMap<String, u32>,
    /// Calls per minute of every action that `per_minute` does not name.
    pub other_per_minute: u32,
    /// How long a `ClientToken` is remembered, in seconds.
    pub token_seconds: u32,
    /// `MaxEniCountExceeded` above this many ENIs in the region.
    pub eni_quota: usize,
    /// How many addresses one Assign or Unassign of IPv4 or IPv6 may name or ask for.
    pub assign_batch: usize,
    /// How far the cloud's clock, by which signatures are judged, is ahead of the machine's, in
    /// seconds.
    pub clock_ahead_s: i32,
}

impl Default for Settings {
    fn default() -> Self {
        let per_minute = [
            ("CreateNetworkInterface", 500),
            ("AttachNetworkInterface", 500),
            ("DeleteNetworkInterface", 500),
            ("DetachNetworkInterface", 400),
            ("AssignPrivateIpAddresses", 400),
            ("UnassignPrivateIpAddresses", 400),
            ("AssignIpv6Addresses", 400),
            ("UnassignIpv6Addresses", 400),
            ("DescribeNetworkInterfaces", 800),
            ("DescribeVSwitches", 300),
        ];
        Self {
            region: "cn-hangzhou".to_owned(),
            attach_ms: 500,
            detach_ms: 500,
            write_ms: 50,
            api_lag_ms: 0,
            metadata_lag_ms: 0,
            per_minute: per_minute.map(|(action, calls)| (action.to_owned(), calls)).into(),
            other_per_minute: 500,
            token_seconds: 24 * 60 * 60,
            eni_quota: 10_000,
            assign_batch: 10,
            clock_ahead_s: 0,
        }
    }
}

impl Settings {
    /// The limit of an action, in calls per minute.
    pub(crate) fn limit(&self, action: &str) -> u32 {
        self.per_minute.get(action).copied().unwrap_or(self.other_per_minute)
    }
}
