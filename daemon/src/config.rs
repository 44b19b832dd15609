//! `eni_conf`, parsed once into types; a wrong value is an error that names its key.

mod backoff;
#[cfg(test)]
pub(crate) mod bad;
mod changes;
mod check;
mod keys;
mod pool;
mod raw;
mod scalar;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane::Degradation;
use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{IpStack, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId};
use secrecy::SecretString;

pub use backoff::{Backoff, BackoffKey};
pub use changes::{Change, Changes};
pub use keys::page;
pub use pool::{EniCapacity, EniPolicy, IdleRange, IdleReclaim, IpamType, Prefixes};
use raw::Raw;

/// `eni_conf`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, by its key's name")]
pub struct Config {
    /// `access_key` and `access_secret`; without them `credential_path`, then the RAM role.
    pub access_key: Option<AccessKey>,
    /// `credential_path`: the encrypted token file.
    pub credential_path: Option<PathBuf>,
    /// `region_id`; the metadata service's if `None`.
    pub region: Option<String>,
    /// `ip_stack`.
    pub stack: IpStack,
    /// `service_cidr`.
    pub service_cidr: ServiceCidr,
    /// `vswitches`: by zone, in the order of preference.
    pub vswitches: BTreeMap<ZoneId, Vec<VSwitchId>>,
    /// `vswitch_selection_policy`.
    pub vswitch_policy: SelectionPolicy,
    /// `security_group` and `security_groups`: 1 to 5, each once.
    pub security_groups: Vec<SecurityGroupId>,
    /// `eni_tags`: set on what we create, beside our own.
    pub eni_tags: BTreeMap<String, String>,
    /// `eni_tag_filter`: only ENIs with all of these tags are ours.
    pub tag_filter: BTreeMap<String, String>,
    /// `eni_tag_block_list`: an ENI with one of these tags is another's; the two that are always
    /// another's come first.
    pub tag_block_list: Vec<(String, String)>,
    /// `resource_group_id`.
    pub resource_group: Option<String>,
    /// `source_dest_check`: whether the VPC drops sources that an ENI does not own.
    pub source_dest_check: bool,
    /// `min_pool_size` and `max_pool_size`.
    pub idle: IdleRange,
    /// `ip_warm_up_size`: addresses that a new node asks for once.
    pub warm_up: u32,
    /// `idle_ip_reclaim_*`; `None` when `idle_ip_reclaim_after` is absent.
    pub reclaim: Option<IdleReclaim>,
    /// `min_eni`: at least as many secondary ENIs, the trunk included; at most `max_enis`.
    pub min_enis: u32,
    /// `max_eni`: at most as many secondary ENIs, the trunk included.
    pub max_enis: Option<NonZeroU32>,
    /// `eni_cap_ratio` and `eni_cap_shift`.
    pub eni_capacity: EniCapacity,
    /// `eni_selection_policy`.
    pub eni_policy: EniPolicy,
    /// `degradation`: what is left undone while the cloud is in trouble.
    pub degradation: Degradation,
    /// `enable_ip_prefix` and its counts.
    pub prefixes: Option<Prefixes>,
    /// `request_batch`: addresses of one call, 1 to 49.
    pub batch: u32,
    /// `ip_cooldown`: how long an address rests after its pod.
    pub cooldown: Duration,
    /// `ip_pool_sync_period`: how often the truth is read while something is in flight.
    pub sync_period: Duration,
    /// `rate_limit`: calls a minute.
    pub rate_limit: BTreeMap<cloud::Action, NonZeroU32>,
    /// `backoff_override`.
    pub backoff: BTreeMap<BackoffKey, Backoff>,
    /// `enable_eni_trunking`.
    pub trunking: bool,
    /// `mark_mask`: the bits of a packet's mark that are ours.
    pub mark_mask: u32,
    /// `rule_layout`.
    pub rule_layout: RuleLayout,
    /// `member_mac`.
    pub member_mac: MemberMac,
    /// `custom_stateful_workload_kinds`: owners whose pods keep their address.
    pub stateful_kinds: Vec<String>,
    /// `disable_device_plugin`.
    pub disable_device_plugin: bool,
    /// `enable_patch_pod_ips`: whether a pod's addresses are written to its annotation.
    pub patch_pod_ips: bool,
    /// `ipam_type`.
    pub ipam_type: IpamType,
}

/// What requests are signed with.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// `access_key`.
    pub id: String,
    /// `access_secret`.
    pub secret: SecretString,
}

/// `service_cidr`: `"v4[,v6]"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The IPv4 part.
    pub v4: Option<Ipv4Network>,
    /// The IPv6 part.
    pub v6: Option<Ipv6Network>,
}

/// How an ENI's tables are reached (`rule_layout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleLayout {
    /// `per-eni`: two rules per ENI, by incoming link and by mark.
    #[default]
    PerEni,
    /// `per-pod`: by address, where marks cannot be used.
    PerPod,
}

/// Whose MAC a member's frames carry on the trunk (`member_mac`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberMac {
    /// `trunk`.
    #[default]
    Trunk,
    /// `own`: the member's, and its gateway's.
    Own,
}

/// A bad configuration: exit 64 and this line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or directory cannot be read.
    #[error("{path}: cannot be read", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON at all, or not an object.
    #[error("{path}: not a JSON object: {reason}", path = path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// A key with a wrong type or value.
    #[error("{path}: {key}: {reason}", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// The key, with its path inside the file.
        key: String,
        /// The value and the rule it breaks.
        reason: String,
    },
    /// A bad manifest beside `eni_conf`.
    #[error(transparent)]
    Manifest(#[from] crds::YamlError),
    /// Two manifests of one name.
    #[error("{second}: PodNetworking {name:?} is already in {first}", first = first.display(), second = second.display())]
    Duplicate {
        /// The name.
        name: String,
        /// Where it stands.
        first: PathBuf,
        /// Where it stands again.
        second: PathBuf,
    },
}

/// Something in `eni_conf` that is no error but should be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A key nobody knows: worth a warning.
    Unknown {
        /// The key.
        key: String,
        /// The nearest that is known, if one is near.
        nearest: Option<&'static str>,
    },
    /// A key that has no effect.
    NoEffect {
        /// The key.
        key: String,
        /// Why not.
        why: String,
    },
    /// A value that is allowed, and perhaps not what was meant.
    Odd {
        /// The key.
        key: String,
        /// The value and what it leads to.
        what: String,
    },
}

impl Config {
    /// Parses the JSON of `eni_conf`; `path` is for messages.
    pub fn parse(json: &str, path: &Path) -> Result<(Self, Vec<Remark>), ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).map_err(|e| syntax(e.to_string()))?;
        // Charts leave null where nothing is meant.
        object.retain(|_, value| !value.is_null());
        let mut remarks = keys::take_unknown(&mut object);
        let wrong =
            |key: String, reason: String| ConfigError::Key { path: path.to_owned(), key, reason };
        let object = serde_json::Value::Object(object);
        let raw: Raw = serde_path_to_error::deserialize(object.clone())
            .map_err(|e| wrong(e.path().to_string(), keys::misfit(&object, e.path(), e.inner())))?;
        let config =
            raw.into_config(&mut remarks).map_err(|bad| wrong(bad.key.into_owned(), bad.reason))?;
        Ok((config, remarks))
    }
}
