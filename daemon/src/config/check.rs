//! What must hold of the values of `eni_conf`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::{IpStack, Mark, SecurityGroupId, SelectionPolicy, VSwitchId, ZoneId};
use secrecy::{ExposeSecret as _, SecretString};

use super::keys::nearest_of;
use super::raw::{RawRoute, RawTag};
use super::scalar::{Scalar, hundredths};
use controlplane::Degradation;

use super::{
    AccessKey, EniCapacity, EniPolicy, IdleRange, IpamType, MemberMac, Remark, RuleLayout,
    ServiceCidr,
};

/// A value that breaks a rule.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) key: Cow<'static, str>,
    pub(super) reason: String,
}

pub(super) fn bad(key: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Bad {
    Bad { key: key.into(), reason: reason.into() }
}

/// The words of a key; the first is the default.
pub(super) type Words<T> = [(&'static str, T)];

pub(super) const STACKS: [(&str, IpStack); 3] =
    [("ipv4", IpStack::V4), ("ipv6", IpStack::V6), ("dual", IpStack::Dual)];
pub(super) const POLICIES: [(&str, SelectionPolicy); 3] = [
    ("random", SelectionPolicy::Random),
    ("ordered", SelectionPolicy::Ordered),
    ("most", SelectionPolicy::Most),
];
pub(super) const ENI_POLICIES: [(&str, EniPolicy); 2] =
    [("most_ips", EniPolicy::MostIps), ("least_ips", EniPolicy::LeastIps)];
pub(super) const DEGRADATIONS: [(&str, Degradation); 3] =
    [("", Degradation::Off), ("l1", Degradation::NoReleases), ("l0", Degradation::NoCalls)];
pub(super) const IPAM_TYPES: [(&str, IpamType); 3] =
    [("", IpamType::Local), ("crd", IpamType::Crd), ("preferCRD", IpamType::PreferCrd)];
pub(super) const LAYOUTS: [(&str, RuleLayout); 2] =
    [("per-eni", RuleLayout::PerEni), ("per-pod", RuleLayout::PerPod)];
pub(super) const MEMBER_MACS: [(&str, MemberMac); 2] =
    [("trunk", MemberMac::Trunk), ("own", MemberMac::Own)];

/// Charts leave empty texts where nothing is meant.
pub(super) fn one_of<T: Copy>(
    key: &'static str,
    text: Option<&str>,
    words: &Words<T>,
) -> Result<T, Bad> {
    let found = match text {
        None | Some("") => words.first(),
        Some(text) => words.iter().find(|(word, _)| *word == text),
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).filter(|w| !w.is_empty()).collect();
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
pub(super) fn optional(key: &'static str, text: Option<String>) -> Result<Option<String>, Bad> {
    text.filter(|text| !text.is_empty()).map(|text| not_empty(key, text)).transpose()
}

pub(super) fn access_key(
    id: Option<String>,
    secret: Option<SecretString>,
) -> Result<Option<AccessKey>, Bad> {
    let id = optional("access_key", id)?;
    let secret = secret.filter(|secret| !secret.expose_secret().is_empty());
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Some(AccessKey { id, secret })),
        (Some(_), None) => Err(bad("access_secret", "is missing beside access_key")),
        (None, Some(_)) => Err(bad("access_key", "is missing beside access_secret")),
        (None, None) => Ok(None),
    }
}

pub(super) fn security_groups(
    one: Option<String>,
    more: Vec<String>,
) -> Result<Vec<SecurityGroupId>, Bad> {
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

pub(super) fn vswitches(
    raw: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<ZoneId, Vec<VSwitchId>>, Bad> {
    let mut zones = BTreeMap::new();
    for (zone, ids) in raw {
        let zone = not_empty("vswitches", zone)?;
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

fn nameless(key: &'static str, tags: &BTreeMap<String, String>) -> Bad {
    let value = tags.get("").map_or("", String::as_str);
    bad(key, format!("the value {value:?} is that of a tag without a name"))
}

/// Tags that we set ourselves.
const OWN_TAGS: [&str; 2] = ["creator", "ack.aliyun.com"];

pub(super) fn tags(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Bad> {
    if let Some(own) = OWN_TAGS.into_iter().find(|own| tags.contains_key(*own)) {
        let value = tags.get(own).map_or("", String::as_str);
        let rule = "is set by the daemon: choose another name";
        return Err(bad(format!("eni_tags.{own}"), format!("{value:?} {rule}")));
    }
    if tags.contains_key("") {
        return Err(nameless("eni_tags", &tags));
    }
    // The cloud takes 20, and we set up to 4.
    match tags.len() {
        0..=16 => Ok(tags),
        count => Err(bad("eni_tags", format!("has {count} tags, at most 16 are allowed"))),
    }
}

pub(super) fn idle(min: u32, max: u32) -> Result<IdleRange, Bad> {
    let above = || bad("min_pool_size", format!("{min} is above max_pool_size, which is {max}"));
    IdleRange::new(min, max).ok_or_else(above)
}

/// What `CreateNetworkInterface` takes of secondary addresses at once.
pub(super) fn batch(batch: u32) -> Result<u32, Bad> {
    match batch {
        1..=49 => Ok(batch),
        _ => Err(bad("request_batch", format!("{batch} is not in 1 to 49"))),
    }
}

pub(super) fn duration(
    key: &'static str,
    text: Option<String>,
    default: Duration,
) -> Result<Duration, Bad> {
    Ok(optional_duration(key, text)?.unwrap_or(default))
}

pub(super) fn optional_duration(
    key: &'static str,
    text: Option<String>,
) -> Result<Option<Duration>, Bad> {
    let text = text.filter(|text| !text.is_empty());
    let parse = |text: String| crds::duration::parse(&text).map_err(|e| bad(key, e.to_string()));
    text.map(parse).transpose()
}

pub(super) fn positive(
    key: &'static str,
    text: Option<String>,
    default: Duration,
) -> Result<Duration, Bad> {
    let shown = text.clone().unwrap_or_default();
    let found = duration(key, text, default)?;
    if found.is_zero() {
        Err(bad(key, format!("{shown:?} must be more than nothing")))
    } else {
        Ok(found)
    }
}

pub(super) fn mark_mask(number: Option<&Scalar>) -> Result<u32, Bad> {
    let key = "mark_mask";
    let mask = number.map_or(Ok(Mark::DEFAULT_MASK), Scalar::bits);
    match mask.map_err(|reason| bad(key, reason))? {
        0 => Err(bad(key, "0x0 has no bit, at least one is needed")),
        mask => Ok(mask),
    }
}

pub(super) fn service_cidr(text: Option<&str>) -> Result<ServiceCidr, Bad> {
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

pub(super) fn rate_limit(
    raw: BTreeMap<String, NonZeroU32>,
    remarks: &mut Vec<Remark>,
) -> BTreeMap<cloud::Action, NonZeroU32> {
    let mut found = BTreeMap::new();
    for (name, limit) in raw {
        if let Ok(action) = name.parse() {
            found.insert(action, limit);
        } else {
            let nearest = nearest_of(&name, cloud::Action::ALL.map(cloud::Action::name));
            remarks.push(Remark::Unknown { key: format!("rate_limit.{name}"), nearest });
        }
    }
    found
}

pub(super) fn eni_limits(min: u32, max: u32) -> Result<Option<NonZeroU32>, Bad> {
    match NonZeroU32::new(max) {
        Some(max) if min > max.get() => {
            Err(bad("min_eni", format!("{min} is above max_eni, which is {max}")))
        }
        max => Ok(max),
    }
}

pub(super) fn eni_capacity(ratio: Option<f64>, shift: i32) -> Result<EniCapacity, Bad> {
    let ratio = ratio.unwrap_or(1.0);
    let percent = hundredths(ratio).filter(|percent| (1..=1000).contains(percent));
    let wrong = || bad("eni_cap_ratio", format!("{ratio} is not in 0.01 to 10"));
    Ok(EniCapacity { ratio_percent: percent.ok_or_else(wrong)?, shift })
}

pub(super) fn tag_filter(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Bad> {
    if tags.contains_key("") {
        return Err(nameless("eni_tag_filter", &tags));
    }
    Ok(tags)
}

/// ENIs of others, whatever the configuration says: eRDMA's, and those that their owner marked.
const ALWAYS_BLOCKED: [(&str, &str); 2] =
    [("creator", "alibabacloud-erdma-controller"), ("terway.alibabacloud.com/excluded", "true")];

pub(super) fn tag_block_list(
    more: Vec<RawTag>,
    own: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, Bad> {
    let always = ALWAYS_BLOCKED.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut found = Vec::from(always);
    for (tag, i) in more.into_iter().zip(0..) {
        let path = || format!("eni_tag_block_list[{i}]");
        let RawTag { key, value } = tag;
        let key = not_empty(format!("{}.key", path()), key)?;
        let ours = key == "creator" && value.starts_with("terway");
        if ours || own.get(&key) == Some(&value) {
            let rule = "is a tag of the ENIs made here: none would be ours";
            return Err(bad(path(), format!("{key}={value} {rule}")));
        }
        let tag = (key, value);
        if !found.contains(&tag) {
            found.push(tag);
        }
    }
    Ok(found)
}

/// What is true is refused, for nothing here would do it.
pub(super) fn no_erdma(erdma: bool) -> Result<(), Bad> {
    let why = "true: eRDMA is not built here; set it to false or leave it out, and keep pods that                ask for aliyun/erdma on other nodes";
    if erdma { Err(bad("enable_erdma", why)) } else { Ok(()) }
}

pub(super) fn kube_qps(qps: Option<f64>) -> Result<(), Bad> {
    match qps {
        Some(qps) if qps < 0.0 => Err(bad("kube_client_qps", format!("{qps} is below 0"))),
        _ => Ok(()),
    }
}

pub(super) fn extra_routes(routes: Vec<RawRoute>) -> Result<(), Bad> {
    for (route, i) in routes.into_iter().zip(0..) {
        let dst = route.dst;
        let parsed = dst.contains('/').then(|| dst.parse::<IpNetwork>().ok()).flatten();
        if parsed.is_none() {
            let key = format!("extra_routes[{i}].dst");
            return Err(bad(key, format!("{dst:?} is no block like 10.0.0.0/8 or fd00::/64")));
        }
    }
    Ok(())
}

pub(super) fn stateful_kinds(kinds: Vec<String>) -> Result<Vec<String>, Bad> {
    let key = |i: usize| format!("custom_stateful_workload_kinds[{i}]");
    kinds.into_iter().enumerate().map(|(i, kind)| not_empty(key(i), kind)).collect()
}
