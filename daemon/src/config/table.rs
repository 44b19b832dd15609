//! The table of keys: what the page says of each, and how a change of it is taken up.

use std::fmt::{self, Debug, Display};
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::Config;
use super::check::{self, Words};

/// A key of `eni_conf`.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Its type, for the page.
    pub(super) kind: &'static str,
    /// As it stands in JSON; empty if there is none.
    pub(super) default: &'static str,
    pub(super) taken: Taken,
    pub(super) meaning: &'static str,
}

/// When a change of a key is taken up.
pub(super) enum Taken {
    /// While the daemon runs.
    Live(Value),
    /// By the next start: `keep` puts back what the daemon runs with.
    Restart { value: Value, keep: fn(to: &mut Config, from: &Config) },
    /// While the daemon runs, and told as another key that it is joined to.
    Joined,
    /// Never, for the key has no effect.
    Nothing,
}

/// What a key has in a configuration.
pub(super) type Value = fn(&Config) -> Shown;

/// A value that can be compared; only what is no secret can be printed.
#[derive(PartialEq, Eq)]
pub(super) enum Shown {
    /// As it is printed.
    Text(String),
    /// Not printed.
    Secret(String),
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(text) => text,
            Self::Secret(_) => "(secret)",
        })
    }
}

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    taken: Taken,
    meaning: &'static str,
) -> Key {
    Key { name, kind, default, taken, meaning }
}

const fn live(value: Value) -> Taken {
    Taken::Live(value)
}

const fn restart(value: Value, keep: fn(&mut Config, &Config)) -> Taken {
    Taken::Restart { value, keep }
}

pub(super) const KEYS: [Key; 50] = [
    key("version", "text", "", Taken::Nothing, "Of the file; its value means nothing."),
    key(
        "access_key",
        "text",
        "",
        live(|c| text_of(c.access_key.as_ref().map(|key| &key.id))),
        "AccessKey id. Without it, and without `access_secret`, `credential_path` or the instance's RAM role signs.",
    ),
    key("access_secret", "text", "", live(secret), "Secret of `access_key`; never printed."),
    key(
        "region_id",
        "text",
        "",
        restart(|c| text_of(c.region.as_ref()), |to, from| to.region.clone_from(&from.region)),
        "Region; the metadata service's if absent.",
    ),
    key(
        "credential_path",
        "path",
        "",
        live(|c| text_of(c.credential_path.as_ref().map(|path| path.display()))),
        "Encrypted token file, read again every 30 minutes; without an AccessKey it comes before the instance's RAM role.",
    ),
    key(
        "service_cidr",
        "`v4[,v6]` blocks",
        "",
        restart(|c| debug(&c.service_cidr), |to, from| to.service_cidr = from.service_cidr),
        "Addresses of Services. Checked, without effect yet.",
    ),
    key(
        "vswitches",
        "object: zone to list of vSwitch ids",
        "{}",
        live(|c| debug(&c.vswitches)),
        "Where new ENIs go, by zone; for a zone that is absent, the vSwitch of the instance's primary ENI.",
    ),
    key(
        "vswitch_selection_policy",
        "`random`, `ordered` or `most`",
        "\"random\"",
        live(|c| word(&c.vswitch_policy, &check::POLICIES)),
        "Which vSwitch of the zone is tried first: by lot, as listed, or by most free addresses.",
    ),
    key(
        "security_group",
        "security group id",
        "",
        Taken::Joined,
        "Of new ENIs. One is needed here or in `security_groups`.",
    ),
    key(
        "security_groups",
        "list of security group ids",
        "[]",
        live(|c| list(&c.security_groups)),
        "With `security_group`, 1 to 5, each once.",
    ),
    key(
        "eni_tags",
        "object of texts",
        "{}",
        live(|c| debug(&c.eni_tags)),
        "Tags of new ENIs beside our own; at most 16, none named `creator` or `ack.aliyun.com`.",
    ),
    key(
        "eni_tag_filter",
        "object of texts",
        "{}",
        live(|c| debug(&c.tag_filter)),
        "Only ENIs with all of these tags are ours. An ENI made here has what `eni_tags` says: a tag that is not there is remarked upon.",
    ),
    key(
        "eni_tag_block_list",
        "list of `{\"key\", \"value\"}`",
        "[]",
        live(|c| debug(&c.tag_block_list)),
        "An ENI with one of these tags is another's and never touched. Always in it: `creator=alibabacloud-erdma-controller` and `terway.alibabacloud.com/excluded=true`.",
    ),
    key(
        "min_pool_size",
        "number of addresses",
        "0",
        live(|c| text(c.idle.min())),
        "With fewer idle, more are asked for. At most `max_pool_size`.",
    ),
    key(
        "max_pool_size",
        "number of addresses",
        "0",
        live(|c| text(c.idle.max())),
        "With more idle, some are given back.",
    ),
    key(
        "ip_warm_up_size",
        "number of addresses",
        "0",
        restart(|c| text(c.warm_up), |to, from| to.warm_up = from.warm_up),
        "Addresses that a new node asks for once, idle or in use; at most `max_pool_size`, and above it a remark.",
    ),
    key(
        "idle_ip_reclaim_after",
        "duration",
        "",
        live(|c| text_of(c.reclaim.map(|it| span(it.after)))),
        "How long the pool must have been left alone before it shrinks to `min_pool_size`; absent: it does not.",
    ),
    key(
        "idle_ip_reclaim_batch_size",
        "number of addresses, 1 or more",
        "5",
        live(|c| text_of(c.reclaim.map(|it| it.batch))),
        "Given back at once, once in `idle_ip_reclaim_interval`. Needs `idle_ip_reclaim_after`.",
    ),
    key(
        "idle_ip_reclaim_interval",
        "duration, above 0",
        "\"10m\"",
        live(|c| text_of(c.reclaim.map(|it| span(it.interval)))),
        "Between two batches. Needs `idle_ip_reclaim_after`.",
    ),
    key(
        "idle_ip_reclaim_jitter_factor",
        "number of 0 to 1, or its text",
        "\"0.1\"",
        live(|c| text_of(c.reclaim.map(|it| percent(it.jitter_percent)))),
        "By how much of itself an interval may be longer, by lot, in hundredths. Needs `idle_ip_reclaim_after`.",
    ),
    key(
        "min_eni",
        "number of ENIs",
        "0",
        live(|c| text(c.min_enis)),
        "At least as many secondary ENIs are kept, used or not. At most `max_eni`.",
    ),
    key(
        "max_eni",
        "number of ENIs",
        "0",
        live(|c| text(c.max_enis.map_or(0, NonZeroU32::get))),
        "At most as many secondary ENIs, the trunk included; 0: what the instance type takes.",
    ),
    key(
        "eni_cap_ratio",
        "number, 0.01 to 10",
        "1",
        live(|c| text(percent(c.eni_capacity.ratio_percent))),
        "Share of the instance type's ENIs that are ours, rounded to hundredths: ENIs x ratio, rounded down, + `eni_cap_shift` - 1 (the primary), at most what the type takes.",
    ),
    key(
        "eni_cap_shift",
        "number of ENIs, also below 0",
        "0",
        live(|c| text(c.eni_capacity.shift)),
        "Added to the product of `eni_cap_ratio`.",
    ),
    key(
        "eni_selection_policy",
        "`most_ips` or `least_ips`",
        "\"most_ips\"",
        live(|c| word(&c.eni_policy, &check::ENI_POLICIES)),
        "Which ENI a pod's address is of: the fullest, so that others can be given back, or the emptiest.",
    ),
    key(
        "degradation",
        "`l0`, `l1` or empty",
        "\"\"",
        live(|c| word(&c.degradation, &check::DEGRADATIONS)),
        "What is left undone while the cloud is in trouble. `l1`: nothing is given back, detached or deleted, and the truth is not read again. `l0`: the cloud is not called at all; pods get what is idle. The reference has it in its control plane's configuration.",
    ),
    key(
        "ip_stack",
        "`ipv4`, `ipv6` or `dual`",
        "\"ipv4\"",
        restart(|c| word(&c.stack, &check::STACKS), |to, from| to.stack = from.stack),
        "Addresses of a pod.",
    ),
    key(
        "enable_eni_trunking",
        "boolean",
        "false",
        restart(|c| text(c.trunking), |to, from| to.trunking = from.trunking),
        "Make a trunk ENI, for pods of a PodNetworking.",
    ),
    key(
        "enable_ip_prefix",
        "boolean",
        "false",
        restart(|c| text(c.prefixes.is_some()), keep_prefixing),
        "Ask for prefixes (/28, /80) instead of single addresses, which come where a vSwitch has no prefix left. Pool sizes still count addresses.",
    ),
    key(
        "ipv4_prefix_count",
        "number of prefixes",
        "0",
        live(|c| text_of(c.prefixes.map(|it| it.v4))),
        "Prefixes /28 that the node keeps, used or not. Needs `enable_ip_prefix`; more come with demand.",
    ),
    key(
        "ipv6_prefix_count",
        "0 or 1",
        "0",
        live(|c| text_of(c.prefixes.map(|it| it.v6))),
        "Prefixes /80 that the node keeps, used or not; with `dual` each ENI gets one. Needs `enable_ip_prefix`.",
    ),
    key(
        "rate_limit",
        "object: API action to calls a minute",
        "{}",
        live(|c| debug(&c.rate_limit)),
        "Our own budget; at most a fifth of a minute's comes in one burst.",
    ),
    key(
        "backoff_override",
        "object: name to `{InitialDelay, Duration, Factor, Jitter, Steps, Cap}`",
        "{}",
        live(|c| debug(&c.backoff)),
        "How a call or a wait is repeated, see below.",
    ),
    key(
        "resource_group_id",
        "text",
        "",
        live(|c| text_of(c.resource_group.as_ref())),
        "Of new ENIs.",
    ),
    key(
        "ip_pool_sync_period",
        "duration, above 0",
        "\"2m\"",
        live(|c| text(span(c.sync_period))),
        "How often the cloud is asked while something is in flight.",
    ),
    key(
        "custom_stateful_workload_kinds",
        "list of texts",
        "[]",
        Taken::Nothing,
        "Kinds of owners whose pods keep their address as a StatefulSet's do. Checked; comes with Kubernetes.",
    ),
    key(
        "disable_device_plugin",
        "boolean",
        "false",
        Taken::Nothing,
        "No device plugin for ENIs. Checked; comes with Kubernetes.",
    ),
    key(
        "enable_patch_pod_ips",
        "boolean",
        "true",
        Taken::Nothing,
        "Write a pod's addresses to its annotation `k8s.aliyun.com/pod-ips`. Checked; comes with Kubernetes.",
    ),
    key(
        "ipam_type",
        "absent, `crd` or `preferCRD`",
        "\"\"",
        Taken::Nothing,
        "Who decides on addresses: this daemon, or the control plane. Checked; comes with Kubernetes.",
    ),
    key(
        "enable_erdma",
        "`false`",
        "false",
        Taken::Nothing,
        "eRDMA is not built: `true` is an error.",
    ),
    key(
        "extra_routes",
        "list of `{\"dst\": block}`",
        "[]",
        Taken::Nothing,
        "Checked, without effect: the reference's daemon does not read it either. Routes of pods are the CNI's.",
    ),
    key(
        "kube_client_qps",
        "number, 0 or more",
        "0",
        Taken::Nothing,
        "Requests a second to the API server. Checked, without effect: our client's own budget is not settable.",
    ),
    key(
        "kube_client_burst",
        "number, 0 or more",
        "0",
        Taken::Nothing,
        "Requests at once to the API server. Checked, without effect, as `kube_client_qps`.",
    ),
    key(
        "prefix",
        "text",
        "",
        Taken::Nothing,
        "Checked, without effect: nor has it any in the reference.",
    ),
    key(
        "mark_mask",
        "number, or its text in decimal or `0x…`",
        "\"0x7f\"",
        restart(|c| text(format!("{:#x}", c.mark_mask)), |to, from| to.mark_mask = from.mark_mask),
        "Bits of a packet's mark that are ours; another's must not overlap.",
    ),
    key(
        "source_dest_check",
        "boolean",
        "true",
        live(|c| text(c.source_dest_check)),
        "Whether the VPC drops frames whose source an ENI does not own.",
    ),
    key(
        "ip_cooldown",
        "duration",
        "\"30s\"",
        live(|c| text(span(c.cooldown))),
        "How long an address rests after its pod.",
    ),
    key(
        "rule_layout",
        "`per-eni` or `per-pod`",
        "\"per-eni\"",
        restart(
            |c| word(&c.rule_layout, &check::LAYOUTS),
            |to, from| to.rule_layout = from.rule_layout,
        ),
        "How an ENI's table is reached: two rules per ENI by link and mark, or rules by address where others overwrite marks.",
    ),
    key(
        "member_mac",
        "`trunk` or `own`",
        "\"trunk\"",
        restart(
            |c| word(&c.member_mac, &check::MEMBER_MACS),
            |to, from| to.member_mac = from.member_mac,
        ),
        "Whose MAC a member ENI's frames have on the trunk.",
    ),
    key(
        "request_batch",
        "number, 1 to 49",
        "10",
        live(|c| text(c.batch)),
        "Addresses of one call.",
    ),
];

fn text(value: impl Display) -> Shown {
    Shown::Text(value.to_string())
}

fn text_of(value: Option<impl Display>) -> Shown {
    Shown::Text(value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
}

fn debug(value: &impl Debug) -> Shown {
    Shown::Text(format!("{value:?}"))
}

fn list(values: &[impl Display]) -> Shown {
    Shown::Text(values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn word<T: PartialEq>(value: &T, words: &Words<T>) -> Shown {
    let found = words.iter().find(|(_, known)| known == value);
    text_of(found.map(|(word, _)| *word))
}

fn secret(config: &Config) -> Shown {
    let secret = config.access_key.as_ref().map(|key| key.secret.expose_secret().to_owned());
    Shown::Secret(secret.unwrap_or_default())
}

fn span(duration: Duration) -> String {
    format!("{duration:?}")
}

pub(super) fn percent(hundredths: u32) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Single addresses do not become prefixes, nor the other way, while pods have them.
fn keep_prefixing(to: &mut Config, from: &Config) {
    if to.prefixes.is_some() != from.prefixes.is_some() {
        to.prefixes = from.prefixes;
    }
}
