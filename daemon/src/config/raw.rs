//! `eni_conf` as it stands in JSON, and what must hold of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::{IpStack, Mark, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId};
use secrecy::SecretString;
use serde::Deserialize;

use super::{AccessKey, Config, IdleRange, MemberMac, Remark, RuleLayout, ServiceCidr};

/// The types of the JSON; every key may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
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
    min_pool_size: u32,
    max_pool_size: u32,
    max_eni: u32,
    ip_stack: Option<String>,
    enable_eni_trunking: bool,
    rate_limit: BTreeMap<String, NonZeroU32>,
    resource_group_id: Option<String>,
    ip_pool_sync_period: Option<String>,
    mark_mask: Option<Number>,
    source_dest_check: Option<bool>,
    ip_cooldown: Option<String>,
    rule_layout: Option<String>,
    member_mac: Option<String>,
    request_batch: Option<u32>,
}

/// A text that is not printed.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// A number, or its text, also in hexadecimal.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u32),
    Text(String),
}

/// A value that breaks a rule.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) key: Cow<'static, str>,
    pub(super) reason: String,
}

fn bad(key: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Bad {
    Bad { key: key.into(), reason: reason.into() }
}

impl Raw {
    pub(super) fn into_config(self, remarks: &mut Vec<Remark>) -> Result<Config, Bad> {
        let security_groups = security_groups(self.security_group, self.security_groups)?;
        Ok(Config {
            access_key: access_key(self.access_key, self.access_secret, self.credential_path)?,
            region: optional("region_id", self.region_id)?,
            stack: one_of("ip_stack", self.ip_stack.as_deref(), &STACKS)?,
            service_cidr: service_cidr(self.service_cidr.as_deref())?,
            vswitches: vswitches(self.vswitches)?,
            vswitch_policy: one_of(
                "vswitch_selection_policy",
                self.vswitch_selection_policy.as_deref(),
                &POLICIES,
            )?,
            security_groups,
            eni_tags: tags(self.eni_tags)?,
            resource_group: optional("resource_group_id", self.resource_group_id)?,
            source_dest_check: self.source_dest_check.unwrap_or(true),
            idle: idle(self.min_pool_size, self.max_pool_size)?,
            max_enis: NonZeroU32::new(self.max_eni),
            batch: batch(self.request_batch.unwrap_or(10))?,
            cooldown: duration("ip_cooldown", self.ip_cooldown, Duration::from_secs(30))?,
            sync_period: positive(
                "ip_pool_sync_period",
                self.ip_pool_sync_period,
                Duration::from_mins(2),
            )?,
            rate_limit: rate_limit(self.rate_limit, remarks),
            trunking: self.enable_eni_trunking,
            mark_mask: mark_mask(self.mark_mask)?,
            rule_layout: one_of("rule_layout", self.rule_layout.as_deref(), &LAYOUTS)?,
            member_mac: one_of("member_mac", self.member_mac.as_deref(), &MEMBER_MACS)?,
        })
    }
}

/// The words of a key; the first is the default.
type Words<T> = [(&'static str, T)];

const STACKS: [(&str, IpStack); 3] =
    [("ipv4", IpStack::V4), ("ipv6", IpStack::V6), ("dual", IpStack::Dual)];
const POLICIES: [(&str, SelectionPolicy); 3] = [
    ("ordered", SelectionPolicy::Ordered),
    ("most", SelectionPolicy::Most),
    ("random", SelectionPolicy::Random),
];
const LAYOUTS: [(&str, RuleLayout); 2] =
    [("per-eni", RuleLayout::PerEni), ("per-pod", RuleLayout::PerPod)];
const MEMBER_MACS: [(&str, MemberMac); 2] = [("trunk", MemberMac::Trunk), ("own", MemberMac::Own)];

fn one_of<T: Copy>(key: &'static str, text: Option<&str>, words: &Words<T>) -> Result<T, Bad> {
    let found = match text {
        None => words.first(),
        Some(text) => words.iter().find(|(word, _)| *word == text),
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        bad(key, format!("{:?} is none of {}", text.unwrap_or_default(), known.join(", ")))
    })
}

fn not_empty(key: impl Into<Cow<'static, str>>, text: String) -> Result<String, Bad> {
    if text.trim().is_empty() || text.trim().len() != text.len() {
        Err(bad(key, format!("{text:?} must not be empty nor have white space around it")))
    } else {
        Ok(text)
    }
}

/// Charts leave empty strings where nothing is meant.
fn optional(key: &'static str, text: Option<String>) -> Result<Option<String>, Bad> {
    text.filter(|text| !text.is_empty()).map(|text| not_empty(key, text)).transpose()
}

fn access_key(
    id: Option<String>,
    secret: Option<SecretText>,
    file: Option<String>,
) -> Result<Option<AccessKey>, Bad> {
    let id = optional("access_key", id)?;
    let secret = secret.filter(|secret| !secret.0.is_empty());
    let file = optional("credential_path", file)?;
    match (id, secret, file) {
        (Some(id), Some(secret), _) => {
            Ok(Some(AccessKey { id, secret: SecretString::from(secret.0) }))
        }
        (Some(_), None, _) => Err(bad("access_secret", "is missing beside access_key")),
        (None, Some(_), _) => Err(bad("access_key", "is missing beside access_secret")),
        (None, None, Some(file)) => {
            let reason = "is the only credential, and encrypted token files are not read yet: \
                          set access_key and access_secret, or leave it out to use the RAM role";
            Err(bad("credential_path", format!("{file:?} {reason}")))
        }
        (None, None, None) => Ok(None),
    }
}

fn security_groups(one: Option<String>, more: Vec<String>) -> Result<Vec<SecurityGroupId>, Bad> {
    let one = one.filter(|id| !id.is_empty()).map(|id| ("security_group".to_owned(), id));
    let more = more.into_iter().zip(0..).map(|(id, i)| (format!("security_groups[{i}]"), id));
    let mut found = Vec::new();
    for (key, id) in one.into_iter().chain(more) {
        let id = SecurityGroupId::new(not_empty(key, id)?);
        if !found.contains(&id) {
            found.push(id);
        }
    }
    match found.len() {
        0 => Err(bad(
            "security_group",
            "is missing: name 1 to 5 in security_group or security_groups",
        )),
        1..=5 => Ok(found),
        count => Err(bad("security_groups", format!("has {count} groups, an ENI takes at most 5"))),
    }
}

fn vswitches(raw: BTreeMap<String, Vec<String>>) -> Result<BTreeMap<ZoneId, Vec<VSwitchId>>, Bad> {
    let mut zones = BTreeMap::new();
    for (zone, ids) in raw {
        if ids.is_empty() {
            return Err(bad(format!("vswitches.{zone}"), "is empty: leave the zone out"));
        }
        let key = |i: usize| format!("vswitches.{zone}[{i}]");
        let ids = ids.into_iter().enumerate().map(|(i, id)| not_empty(key(i), id));
        let ids = ids.map(|id| id.map(VSwitchId::new)).collect::<Result<_, _>>()?;
        zones.insert(ZoneId::new(zone), ids);
    }
    Ok(zones)
}

/// Tags that we set ourselves.
const OWN_TAGS: [&str; 2] = ["creator", "ack.aliyun.com"];

fn tags(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Bad> {
    if let Some(own) = OWN_TAGS.into_iter().find(|own| tags.contains_key(*own)) {
        return Err(bad(format!("eni_tags.{own}"), "is set by the daemon: choose another name"));
    }
    if tags.contains_key("") {
        return Err(bad("eni_tags", "has a tag without a name"));
    }
    // The cloud takes 20, and we set up to 4.
    match tags.len() {
        0..=16 => Ok(tags),
        count => Err(bad("eni_tags", format!("has {count} tags, at most 16 are allowed"))),
    }
}

fn idle(min: u32, max: u32) -> Result<IdleRange, Bad> {
    let above = || bad("min_pool_size", format!("{min} is above max_pool_size, which is {max}"));
    IdleRange::new(min, max).ok_or_else(above)
}

/// What `CreateNetworkInterface` takes of secondary addresses at once.
fn batch(batch: u32) -> Result<u32, Bad> {
    match batch {
        1..=49 => Ok(batch),
        _ => Err(bad("request_batch", format!("{batch} is not in 1 to 49"))),
    }
}

fn duration(key: &'static str, text: Option<String>, default: Duration) -> Result<Duration, Bad> {
    let parse = |text: String| crds::duration::parse(&text);
    text.map_or(Ok(default), parse).map_err(|e| bad(key, e.to_string()))
}

fn positive(key: &'static str, text: Option<String>, default: Duration) -> Result<Duration, Bad> {
    let shown = text.clone().unwrap_or_default();
    let found = duration(key, text, default)?;
    if found.is_zero() {
        Err(bad(key, format!("{shown:?} must be more than nothing")))
    } else {
        Ok(found)
    }
}

fn mark_mask(number: Option<Number>) -> Result<u32, Bad> {
    let key = "mark_mask";
    let mask = match number {
        None => Mark::DEFAULT_MASK,
        Some(Number::Plain(mask)) => mask,
        Some(Number::Text(text)) => {
            let hex = text.strip_prefix("0x").map(|hex| u32::from_str_radix(hex, 16));
            hex.unwrap_or_else(|| text.parse())
                .map_err(|e| bad(key, format!("{text:?} is no number of 32 bits: {e}")))?
        }
    };
    if mask == 0 { Err(bad(key, "0x0 has no bit, at least one is needed")) } else { Ok(mask) }
}

fn service_cidr(text: Option<&str>) -> Result<ServiceCidr, Bad> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(ServiceCidr::default());
    };
    let mut found = ServiceCidr::default();
    let wrong = |why: String| bad("service_cidr", format!("{text:?} is not \"v4[,v6]\": {why}"));
    for part in text.split(',') {
        match part.trim().parse().map_err(|e| wrong(format!("{part:?}: {e}")))? {
            IpNetwork::V4(net) if found.v4.is_none() => found.v4 = Some(net),
            IpNetwork::V6(net) if found.v6.is_none() => found.v6 = Some(net),
            _ => return Err(wrong("two blocks of one family".to_owned())),
        }
    }
    Ok(found)
}

fn rate_limit(
    raw: BTreeMap<String, NonZeroU32>,
    remarks: &mut Vec<Remark>,
) -> BTreeMap<cloud::Action, NonZeroU32> {
    let mut found = BTreeMap::new();
    for (name, limit) in raw {
        match name.parse() {
            Ok(action) => {
                found.insert(action, limit);
            }
            Err(_) => {
                remarks.push(Remark::Unknown { key: format!("rate_limit.{name}"), nearest: None });
            }
        }
    }
    found
}
