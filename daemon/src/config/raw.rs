//! `eni_conf` as it stands in JSON, and the way from there to a [`Config`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::backoff::{self, RawBackoff};
use super::check::{self, Bad, bad, duration, one_of, optional, optional_duration, positive};
use super::scalar::{Scalar, hundredths};
use super::{Config, IdleReclaim, Prefixes, Remark};

/// The types of the JSON; every key may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the keys' types are given")]
pub(super) struct Raw {
    /// Its type is checked; its value means nothing.
    #[serde(rename = "version")]
    _version: Option<String>,
    access_key: Option<String>,
    access_secret: Option<SecretText>,
    region_id: Option<String>,
    credential_path: Option<String>,
    service_cidr: Option<String>,
    vswitches: BTreeMap<String, Vec<String>>,
    vswitch_selection_policy: Option<String>,
    security_group: Option<String>,
    security_groups: Vec<String>,
    eni_tags: BTreeMap<String, String>,
    eni_tag_filter: BTreeMap<String, String>,
    eni_tag_block_list: Vec<RawTag>,
    min_pool_size: u32,
    max_pool_size: u32,
    ip_warm_up_size: u32,
    idle_ip_reclaim_after: Option<String>,
    idle_ip_reclaim_batch_size: Option<NonZeroU32>,
    idle_ip_reclaim_interval: Option<String>,
    idle_ip_reclaim_jitter_factor: Option<Scalar>,
    min_eni: u32,
    max_eni: u32,
    eni_cap_ratio: Option<f64>,
    eni_cap_shift: i32,
    eni_selection_policy: Option<String>,
    degradation: Option<String>,
    ip_stack: Option<String>,
    enable_eni_trunking: bool,
    enable_ip_prefix: bool,
    ipv4_prefix_count: Option<u32>,
    ipv6_prefix_count: Option<u32>,
    rate_limit: BTreeMap<String, NonZeroU32>,
    backoff_override: BTreeMap<String, RawBackoff>,
    resource_group_id: Option<String>,
    ip_pool_sync_period: Option<String>,
    custom_stateful_workload_kinds: Vec<String>,
    disable_device_plugin: bool,
    enable_erdma: bool,
    enable_patch_pod_ips: Option<bool>,
    ipam_type: Option<String>,
    extra_routes: Vec<RawRoute>,
    kube_client_qps: Option<f64>,
    /// Its type is checked.
    #[serde(rename = "kube_client_burst")]
    _kube_client_burst: Option<u32>,
    /// Its type is checked; the reference does not use it either.
    #[serde(rename = "prefix")]
    _prefix: Option<String>,
    mark_mask: Option<Scalar>,
    source_dest_check: Option<bool>,
    ip_cooldown: Option<String>,
    rule_layout: Option<String>,
    member_mac: Option<String>,
    request_batch: Option<u32>,
}

/// A text that is not printed, neither right nor wrong.
#[derive(Debug)]
struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(SecretString::from(text))),
            _ => {
                Err(D::Error::custom("invalid type: expected a text (what is there is not shown)"))
            }
        }
    }
}

/// An entry of `eni_tag_block_list`.
#[derive(Debug, Deserialize)]
pub(super) struct RawTag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

/// An entry of `extra_routes`.
#[derive(Debug, Deserialize)]
pub(super) struct RawRoute {
    pub(super) dst: String,
}

impl Raw {
    pub(super) fn into_config(mut self, remarks: &mut Vec<Remark>) -> Result<Config, Bad> {
        check::no_erdma(self.enable_erdma)?;
        check::kube_qps(self.kube_client_qps)?;
        check::extra_routes(std::mem::take(&mut self.extra_routes))?;
        let security_groups = check::security_groups(
            self.security_group.take(),
            std::mem::take(&mut self.security_groups),
        )?;
        let idle = check::idle(self.min_pool_size, self.max_pool_size)?;
        let reclaim = self.reclaim(remarks)?;
        let prefixes = self.prefixes(remarks)?;
        self.remark(remarks);
        let eni_tags = check::tags(self.eni_tags)?;
        Ok(Config {
            access_key: check::access_key(self.access_key, self.access_secret.map(|text| text.0))?,
            credential_path: optional("credential_path", self.credential_path)?.map(PathBuf::from),
            region: optional("region_id", self.region_id)?,
            stack: one_of("ip_stack", self.ip_stack.as_deref(), &check::STACKS)?,
            service_cidr: check::service_cidr(self.service_cidr.as_deref())?,
            vswitches: check::vswitches(self.vswitches)?,
            vswitch_policy: one_of(
                "vswitch_selection_policy",
                self.vswitch_selection_policy.as_deref(),
                &check::POLICIES,
            )?,
            security_groups,
            tag_filter: check::tag_filter(self.eni_tag_filter)?,
            tag_block_list: check::tag_block_list(self.eni_tag_block_list, &eni_tags)?,
            eni_tags,
            resource_group: optional("resource_group_id", self.resource_group_id)?,
            source_dest_check: self.source_dest_check.unwrap_or(true),
            idle,
            warm_up: self.ip_warm_up_size,
            reclaim,
            min_enis: self.min_eni,
            max_enis: check::eni_limits(self.min_eni, self.max_eni)?,
            eni_capacity: check::eni_capacity(self.eni_cap_ratio, self.eni_cap_shift)?,
            eni_policy: one_of(
                "eni_selection_policy",
                self.eni_selection_policy.as_deref(),
                &check::ENI_POLICIES,
            )?,
            degradation: one_of("degradation", self.degradation.as_deref(), &check::DEGRADATIONS)?,
            prefixes,
            batch: check::batch(self.request_batch.unwrap_or(10))?,
            cooldown: duration("ip_cooldown", self.ip_cooldown, Duration::from_secs(30))?,
            sync_period: positive(
                "ip_pool_sync_period",
                self.ip_pool_sync_period,
                Duration::from_mins(2),
            )?,
            rate_limit: check::rate_limit(self.rate_limit, remarks),
            backoff: backoff::overrides(self.backoff_override, remarks)?,
            trunking: self.enable_eni_trunking,
            mark_mask: check::mark_mask(self.mark_mask.as_ref())?,
            rule_layout: one_of("rule_layout", self.rule_layout.as_deref(), &check::LAYOUTS)?,
            member_mac: one_of("member_mac", self.member_mac.as_deref(), &check::MEMBER_MACS)?,
            stateful_kinds: check::stateful_kinds(self.custom_stateful_workload_kinds)?,
            disable_device_plugin: self.disable_device_plugin,
            patch_pod_ips: self.enable_patch_pod_ips.unwrap_or(true),
            ipam_type: one_of("ipam_type", self.ipam_type.as_deref(), &check::IPAM_TYPES)?,
        })
    }

    /// All are checked, also when the first is absent and the others mean nothing.
    fn reclaim(&mut self, remarks: &mut Vec<Remark>) -> Result<Option<IdleReclaim>, Bad> {
        let of_it = [
            ("idle_ip_reclaim_batch_size", self.idle_ip_reclaim_batch_size.is_some()),
            ("idle_ip_reclaim_interval", self.idle_ip_reclaim_interval.is_some()),
            ("idle_ip_reclaim_jitter_factor", self.idle_ip_reclaim_jitter_factor.is_some()),
        ];
        let batch = self.idle_ip_reclaim_batch_size.or(NonZeroU32::new(5));
        let interval = self.idle_ip_reclaim_interval.take();
        let interval = positive("idle_ip_reclaim_interval", interval, Duration::from_mins(10))?;
        let jitter_percent = jitter(self.idle_ip_reclaim_jitter_factor.as_ref())?;
        let after = optional_duration("idle_ip_reclaim_after", self.idle_ip_reclaim_after.take())?;
        if after.is_none() {
            without(&of_it, "idle_ip_reclaim_after", remarks);
        }
        let batch = batch.unwrap_or(NonZeroU32::MIN);
        Ok(after.map(|after| IdleReclaim { after, batch, interval, jitter_percent }))
    }

    fn prefixes(&self, remarks: &mut Vec<Remark>) -> Result<Option<Prefixes>, Bad> {
        let v4 = self.ipv4_prefix_count.unwrap_or(0);
        let v6 = match self.ipv6_prefix_count.unwrap_or(0) {
            v6 @ 0..=1 => v6,
            v6 => return Err(bad("ipv6_prefix_count", format!("{v6} is neither 0 nor 1"))),
        };
        if self.enable_ip_prefix {
            return Ok(Some(Prefixes { v4, v6 }));
        }
        // A chart writes zeros where nothing is meant.
        let counts = [("ipv4_prefix_count", v4 > 0), ("ipv6_prefix_count", v6 > 0)];
        without(&counts, "enable_ip_prefix", remarks);
        Ok(None)
    }

    /// What is allowed, and perhaps not what was meant.
    fn remark(&self, remarks: &mut Vec<Remark>) {
        let (warm_up, max) = (self.ip_warm_up_size, self.max_pool_size);
        if warm_up > max {
            let what = format!(
                "{warm_up} is above max_pool_size, which is {max}: so many are asked for, and no more"
            );
            remarks.push(Remark::Odd { key: "ip_warm_up_size".to_owned(), what });
        }
        let stack = self.ip_stack.as_deref().filter(|stack| !stack.is_empty()).unwrap_or("ipv4");
        for (key, count, family) in [
            ("ipv4_prefix_count", self.ipv4_prefix_count, "ipv6"),
            ("ipv6_prefix_count", self.ipv6_prefix_count, "ipv4"),
        ] {
            if self.enable_ip_prefix && count.is_some_and(|count| count > 0) && stack == family {
                let why = format!("ip_stack is {family}");
                remarks.push(Remark::NoEffect { key: key.to_owned(), why });
            }
        }
        for (tag, value) in &self.eni_tag_filter {
            if tag != "creator" && self.eni_tags.get(tag) != Some(value) {
                let what = format!(
                    "{value:?} is not among eni_tags: an ENI made here has it only when something else sets it"
                );
                remarks.push(Remark::Odd { key: format!("eni_tag_filter.{tag}"), what });
            }
        }
    }
}

/// Keys that mean nothing without another.
fn without(keys: &[(&str, bool)], other: &str, remarks: &mut Vec<Remark>) {
    for (key, present) in keys {
        if *present {
            let why = format!("it needs {other}");
            remarks.push(Remark::NoEffect { key: (*key).to_owned(), why });
        }
    }
}

fn jitter(factor: Option<&Scalar>) -> Result<u32, Bad> {
    let Some(factor) = factor.filter(|factor| **factor != Scalar::Text(String::new())) else {
        return Ok(10);
    };
    let percent = factor.number().and_then(hundredths).filter(|percent| *percent <= 100);
    let wrong = || bad("idle_ip_reclaim_jitter_factor", format!("{factor} is no number of 0 to 1"));
    percent.ok_or_else(wrong)
}
