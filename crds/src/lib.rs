//! The types of `network.alibabacloud.com/v1beta1` as they stand in YAML. They are a boundary:
//! identifiers stay strings, and `controlplane` makes domain types of them.

pub mod duration;
mod pod_networking;
mod yaml;

pub use pod_networking::{
    AllocationKind, AllocationType, EniKind, EniOptions, LabelOperator, LabelRequirement,
    LabelSelector, PodNetworking, PodNetworkingSpec, ReleaseStrategy, Selector, VSwitchPolicy,
    VSwitchSelectOptions,
};
pub use yaml::YamlError;

/// `apiVersion` of every kind here.
pub const API_VERSION: &str = "network.alibabacloud.com/v1beta1";
