//! `eni_conf`, parsed once into types; a wrong value is an error that names its key.

mod keys;
mod raw;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::{Ipv4Network, Ipv6Network};
use model::{IpStack, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId};
use secrecy::SecretString;

pub use keys::page;
use raw::Raw;

/// `eni_conf`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `access_key` and `access_secret`; the instance's RAM role if `None`.
    pub access_key: Option<AccessKey>,
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
    /// `resource_group_id`.
    pub resource_group: Option<String>,
    /// `source_dest_check`: whether the VPC drops sources that an ENI does not own.
    pub source_dest_check: bool,
    /// `min_pool_size` and `max_pool_size`.
    pub idle: IdleRange,
    /// `max_eni`: at most as many secondary ENIs, the trunk included.
    pub max_enis: Option<NonZeroU32>,
    /// `request_batch`: addresses of one call, 1 to 49.
    pub batch: u32,
    /// `ip_cooldown`: how long an address rests after its pod.
    pub cooldown: Duration,
    /// `ip_pool_sync_period`: how often the truth is read while something is in flight.
    pub sync_period: Duration,
    /// `rate_limit`: calls a minute.
    pub rate_limit: BTreeMap<cloud::Action, NonZeroU32>,
    /// `enable_eni_trunking`.
    pub trunking: bool,
    /// `mark_mask`: the bits of a packet's mark that are ours.
    pub mark_mask: u32,
    /// `rule_layout`.
    pub rule_layout: RuleLayout,
    /// `member_mac`.
    pub member_mac: MemberMac,
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

/// How many addresses are to be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleRange {
    min: u32,
    max: u32,
}

impl IdleRange {
    /// `None` if `min` is above `max`.
    pub const fn new(min: u32, max: u32) -> Option<Self> {
        if min <= max { Some(Self { min, max }) } else { None }
    }

    /// Below it, more are asked for.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// Above it, they are given back.
    pub const fn max(self) -> u32 {
        self.max
    }
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
    /// A key of the reference's that has no effect yet.
    Unused {
        /// The key.
        key: String,
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
        let mut remarks = keys::take_foreign(&mut object);
        let wrong =
            |key: String, reason: String| ConfigError::Key { path: path.to_owned(), key, reason };
        let raw: Raw = serde_path_to_error::deserialize(serde_json::Value::Object(object))
            .map_err(|e| wrong(e.path().to_string(), e.inner().to_string()))?;
        let config =
            raw.into_config(&mut remarks).map_err(|bad| wrong(bad.key.into_owned(), bad.reason))?;
        Ok((config, remarks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<(Config, Vec<Remark>), ConfigError> {
        Config::parse(json, Path::new("/etc/eni/eni_conf"))
    }

    #[test]
    fn a_cluster_s_file_is_read() {
        let (config, remarks) = parse(
            r#"{"version": "1", "access_key": "AK", "access_secret": "top", "region_id": "cn-hangzhou",
                "service_cidr": "172.16.0.0/16,fd00::/108", "security_group": "sg-1",
                "security_groups": ["sg-1", "sg-2"],
                "vswitches": {"cn-hangzhou-h": ["vsw-1", "vsw-2"]}, "vswitch_selection_policy": "most",
                "eni_tags": {"team": "net"}, "min_pool_size": 2, "max_pool_size": 5,                 "ip_stack": "dual", "enable_eni_trunking": true, "ip_pool_sync_period": "90s",
                "rate_limit": {"AttachNetworkInterface": 100, "DescribeSubnets": 1},
                "resource_group_id": "rg-1", "mark_mask": "0x7f0", "ip_cooldown": "1m",
                "rule_layout": "per-pod", "member_mac": "own", "request_batch": 7,
                "source_dest_check": false, "ipam_type": "crd", "credential_path": "/var/addon/token", "max_eni": null}"#,
        )
        .unwrap();
        insta::assert_debug_snapshot!(config);
        assert!(!format!("{config:?}").contains("top"), "the secret is printed");
        assert_eq!(
            remarks,
            [
                Remark::Unused { key: "ipam_type".to_owned() },
                Remark::Unknown { key: "rate_limit.DescribeSubnets".to_owned(), nearest: None },
            ]
        );
    }

    #[test]
    fn what_is_left_out_has_the_reference_s_defaults() {
        let (config, remarks) = parse(r#"{"security_group": "sg-1"}"#).unwrap();
        assert_eq!((config.idle.min(), config.idle.max(), config.batch), (0, 0, 10));
        assert_eq!((config.stack, config.mark_mask), (IpStack::V4, 0x7f));
        assert_eq!(config.cooldown, Duration::from_secs(30));
        assert!(config.source_dest_check && !config.trunking && config.access_key.is_none());
        assert_eq!(remarks, []);
    }

    #[test]
    fn an_unknown_key_is_a_remark_with_the_nearest_known_one() {
        let (_, remarks) =
            parse(r#"{"security_group": "sg-1", "min_pool_sise": 1, "frobnicate": {}}"#).unwrap();
        let unknown = |key: &str, nearest| Remark::Unknown { key: key.to_owned(), nearest };
        assert_eq!(
            remarks,
            [unknown("frobnicate", None), unknown("min_pool_sise", Some("min_pool_size"))]
        );
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_key_value_and_rule() {
        for (json, expected) in [
            ("[]", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"min_pool_size": "5"}"#, "min_pool_size: invalid type: string \"5\""),
            (r#"{"max_pool_size": -1}"#, "max_pool_size: invalid value: integer `-1`"),
            (r#"{"vswitches": {"z": "v"}}"#, "vswitches.z: invalid type: string \"v\""),
            ("{}", "security_group: is missing"),
            (r#"{"security_groups": ["a","b","c","d","e","f"]}"#, "security_groups: has 6 groups"),
            (r#"{"security_group": " "}"#, "security_group: \" \""),
            (r#"{"security_group": "s", "vswitches": {"z": []}}"#, "vswitches.z: is empty"),
            (
                r#"{"security_group": "s", "vswitch_selection_policy": "best"}"#,
                "vswitch_selection_policy: \"best\" is none of ordered, most, random",
            ),
            (r#"{"security_group": "s", "ip_stack": "v4"}"#, "ip_stack: \"v4\" is none of"),
            (
                r#"{"security_group": "s", "min_pool_size": 7, "max_pool_size": 5}"#,
                "min_pool_size: 7 is above max_pool_size, which is 5",
            ),
            (r#"{"security_group": "s", "mark_mask": 0}"#, "mark_mask: 0x0"),
            (r#"{"security_group": "s", "mark_mask": "0xzz"}"#, "mark_mask: \"0xzz\""),
            (
                r#"{"security_group": "s", "request_batch": 50}"#,
                "request_batch: 50 is not in 1 to 49",
            ),
            (
                r#"{"security_group": "s", "ip_cooldown": "30"}"#,
                "ip_cooldown: \"30\" is not a duration",
            ),
            (
                r#"{"security_group": "s", "ip_pool_sync_period": "0s"}"#,
                "ip_pool_sync_period: \"0s\"",
            ),
            (
                r#"{"security_group": "s", "service_cidr": "10.0.0.0/8,10.1.0.0/16"}"#,
                "service_cidr: \"10.0.0.0/8,10.1.0.0/16\"",
            ),
            (
                r#"{"security_group": "s", "rate_limit": {"AttachNetworkInterface": 0}}"#,
                "rate_limit.AttachNetworkInterface: invalid value: integer `0`",
            ),
            (r#"{"security_group": "s", "access_key": "AK"}"#, "access_secret: is missing"),
            (
                r#"{"security_group": "s", "credential_path": "/t"}"#,
                "credential_path: \"/t\" is the only credential",
            ),
            (r#"{"security_group": "s", "member_mac": "mine"}"#, "member_mac: \"mine\" is none of"),
            (r#"{"security_group": "s", "eni_tags": {"creator": "me"}}"#, "eni_tags.creator:"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.starts_with("/etc/eni/eni_conf: "), "{error}");
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
