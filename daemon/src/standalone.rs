//! The node without a cluster: `eni_conf` and PodNetworkings from a directory.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Config, ConfigError, Remark};
use crate::ipam::{AllocError, Want};

/// The PodNetworkings of the directory, by name.
#[derive(Debug, Clone, Default)]
pub struct PodNetworkings;

/// What the directory says.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The file `eni_conf`.
    pub config: Config,
    /// Said once at start.
    pub remarks: Vec<Remark>,
    /// All `*.yaml`.
    pub pod_networkings: PodNetworkings,
}

impl Manifests {
    /// Reads the directory; the error names file and key.
    pub fn read(_directory: &Path) -> Result<Self, ConfigError> {
        unimplemented!("owner: ipam")
    }
}

impl PodNetworkings {
    /// What a pod with these annotations gets: `k8s.aliyun.com/pod-networking` chooses, without it
    /// the pod shares an ENI; a name that is not known is an error that names it and the known ones.
    pub fn want(&self, _annotations: &BTreeMap<String, String>) -> Result<Want, AllocError> {
        unimplemented!("owner: ipam")
    }
}
