//! The network configuration on stdin. A key is checked where it enters, and one that nobody
//! knows is an error that names it: a typing mistake must not become a default.

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use proto::agent::{Attachment as ValidAttachment, Bandwidth};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::env::{NAME, is_name};
use crate::error::Error;
use crate::log::Level;
use crate::result::CniResult;
use crate::section::Section;

/// Our own keys.
const OURS: [&str; 6] = ["agentSocket", "timeout", "mtu", "logLevel", "logFile", "runtimeConfig"];

/// Keys of the specification. `cni.dev/…` are the runtime's too.
const STANDARD: [&str; 13] = [
    "args",
    "capabilities",
    "cniVersion",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "dns",
    "ipMasq",
    "ipam",
    "loadOnlyInlinedPlugins",
    "name",
    "prevResult",
    "type",
];

/// Keys that configurations of other implementations of `type: terway` have.
const REFERENCE: [&str; 17] = [
    "auto_mtu",
    "bandwidth_mode",
    "cilium_args",
    "cilium_enable_hubble",
    "cilium_hubble_listen_address",
    "cilium_hubble_metrics",
    "cilium_hubble_metrics_server",
    "debug",
    "disable_host_peer",
    "enable_network_priority",
    "eniip_virtual_type",
    "host_stack_cidrs",
    "network_policy_provider",
    "symmetric_routing",
    "symmetric_routing_config",
    "veth_prefix",
    "vlan_strip_type",
];

/// What the runtime may pass at each call, if the configuration's `capabilities` ask for it.
const RUNTIME: [&str; 4] = ["bandwidth", "ips", "mac", ANNOTATIONS];
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// Capabilities that the reference declares, and that mean nothing on Linux.
const RUNTIME_REFERENCE: [&str; 2] = ["dns", "portMappings"];

const BANDWIDTH: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

/// The default of `timeout`.
const TIMEOUT: Duration = Duration::from_mins(1);
/// No configuration comes near this; a pod's annotations take up to 256 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// The configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conf {
    /// `name`: the network.
    pub(crate) network: String,
    pub(crate) agent_socket: PathBuf,
    /// From the start of the call to its answer.
    pub(crate) timeout: Duration,
    /// Bytes; 0 means the ENI's.
    pub(crate) mtu: u32,
    pub(crate) log_level: Level,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) bandwidth: Option<Bandwidth>,
    /// In CIDR form.
    pub(crate) ips: Vec<String>,
    /// Lower case; empty when the runtime asks for none.
    pub(crate) mac: String,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) dns: Map<String, Value>,
    pub(crate) previous: Option<CniResult>,
    /// `cni.dev/valid-attachments`: none when the runtime gives no list, which is not an empty one.
    pub(crate) valid: Option<Vec<ValidAttachment>>,
    /// Keys that are known and mean nothing to us.
    pub(crate) ignored: Vec<String>,
}

/// Reads stdin up to its end.
pub(crate) fn read(stdin: &mut dyn Read) -> Result<Map<String, Value>, Error> {
    let mut bytes = Vec::new();
    stdin.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::Stdin)?;
    if bytes.trim_ascii().is_empty() {
        let problem = "it is empty; the runtime passes the network configuration there";
        return Err(Error::Decode { problem: problem.to_owned() });
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(Error::Decode { problem: format!("it is longer than {MAX_BYTES} bytes") });
    }
    serde_json::from_slice(&bytes).map_err(|error| Error::Decode { problem: error.to_string() })
}

/// `cniVersion`, as text.
pub(crate) fn spec_version(map: &Map<String, Value>) -> Result<Option<&str>, Error> {
    match map.get("cniVersion") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            Err(Error::Decode { problem: format!("cniVersion {other} is not a string") })
        }
    }
}

impl Conf {
    /// Checks every key.
    pub(crate) fn parse(map: Map<String, Value>) -> Result<Self, Error> {
        let mut top = Section::new("", map);
        top.drop_keys(|key| key.starts_with("cni.dev/") && !ATTACHMENTS.contains(&key));
        let mut ignored = top.ignore(&REFERENCE);
        top.only(&OURS, &[STANDARD.as_slice(), &ATTACHMENTS].concat())?;
        refuse_masquerade(&mut top)?;

        let network = network(&mut top)?;
        let runtime = top.section("runtimeConfig")?;
        let mut conf = Self {
            network,
            agent_socket: path(&mut top, "agentSocket")?
                .unwrap_or_else(|| PathBuf::from(proto::AGENT_SOCKET)),
            timeout: timeout(&mut top)?,
            mtu: mtu(&mut top)?,
            log_level: level(&mut top)?,
            log_file: path(&mut top, "logFile")?,
            bandwidth: None,
            ips: Vec::new(),
            mac: String::new(),
            annotations: HashMap::new(),
            dns: top.get("dns")?.unwrap_or_default(),
            previous: top.get("prevResult")?.map(CniResult::parse).transpose()?,
            valid: valid(&mut top)?,
            ignored: Vec::new(),
        };
        if let Some(mut runtime) = runtime {
            ignored.append(&mut runtime.ignore(&RUNTIME_REFERENCE));
            runtime.only(&RUNTIME, &[])?;
            conf.bandwidth = runtime.section("bandwidth")?.map(bandwidth).transpose()?;
            conf.ips = ips(&mut runtime)?;
            conf.mac = mac(&mut runtime)?;
            conf.annotations = runtime.get(ANNOTATIONS)?.unwrap_or_default();
        }
        if top.section("ipam")?.is_some_and(|ipam| !ipam.is_empty()) {
            ignored.push("ipam".to_owned());
        }
        conf.ignored = ignored;
        Ok(conf)
    }
}

fn network(top: &mut Section) -> Result<String, Error> {
    let name: String =
        top.get("name")?.ok_or_else(|| top.bad("name", "the network has no name"))?;
    if !is_name(&name) {
        return Err(top.bad("name", format!("{name:?} is not made of {NAME}")));
    }
    Ok(name)
}

fn refuse_masquerade(top: &mut Section) -> Result<(), Error> {
    if top.get::<bool>("ipMasq")? == Some(true) {
        return Err(Error::UnsupportedField {
            key: "ipMasq",
            value: "true".to_owned(),
            cure: "pods have addresses of the VPC: leave ipMasq out, and let a NAT gateway of the \
                   VPC translate",
        });
    }
    Ok(())
}

fn path(top: &mut Section, key: &'static str) -> Result<Option<PathBuf>, Error> {
    let Some(path) = top.get::<PathBuf>(key)? else { return Ok(None) };
    if !path.is_absolute() {
        return Err(top.bad(key, format!("{} is not an absolute path", path.display())));
    }
    Ok(Some(path))
}

fn timeout(top: &mut Section) -> Result<Duration, Error> {
    let Some(seconds) = top.get::<f64>("timeout")? else { return Ok(TIMEOUT) };
    let timeout = Duration::try_from_secs_f64(seconds).ok();
    timeout
        .filter(|timeout| (Duration::from_millis(10)..=Duration::from_hours(1)).contains(timeout))
        .ok_or_else(|| {
            top.bad("timeout", format!("{} is not 0.01 to 3600 seconds", json!(seconds)))
        })
}

/// From 1280, the least that IPv6 lives with.
fn mtu(top: &mut Section) -> Result<u32, Error> {
    match top.get::<u32>("mtu")? {
        None => Ok(0),
        Some(mtu @ 1280..=65535) => Ok(mtu),
        Some(mtu) => Err(top.bad("mtu", format!("{mtu} is not 1280 to 65535 bytes"))),
    }
}

fn level(top: &mut Section) -> Result<Level, Error> {
    let Some(text) = top.get::<String>("logLevel")? else { return Ok(Level::Info) };
    Level::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
        let all = Level::ALL.map(Level::as_str).join(", ");
        top.bad("logLevel", format!("{text:?} is not one of {all}"))
    })
}

/// The list's name, and what libcni called it first.
const ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

#[derive(Deserialize)]
struct AttachmentIn {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// `null` is how libcni writes a list that is there and empty.
fn valid(top: &mut Section) -> Result<Option<Vec<ValidAttachment>>, Error> {
    let Some(key) = ATTACHMENTS.into_iter().find(|key| top.has(key)) else { return Ok(None) };
    let list: Vec<AttachmentIn> = top.get(key)?.unwrap_or_default();
    let valid = list
        .into_iter()
        .map(|AttachmentIn { container_id, ifname }| ValidAttachment { container_id, ifname });
    Ok(Some(valid.collect()))
}

fn bandwidth(mut section: Section) -> Result<Bandwidth, Error> {
    section.only(&BANDWIDTH, &[])?;
    let mut number = |key| section.get(key).map(Option::unwrap_or_default);
    Ok(Bandwidth {
        ingress_rate: number("ingressRate")?,
        ingress_burst: number("ingressBurst")?,
        egress_rate: number("egressRate")?,
        egress_burst: number("egressBurst")?,
    })
}

fn ips(runtime: &mut Section) -> Result<Vec<String>, Error> {
    let ips: Vec<String> = runtime.get("ips")?.unwrap_or_default();
    let cidr = |ip: String| {
        cidr(&ip).ok_or_else(|| runtime.bad("ips", format!("{ip:?} is not an address or CIDR")))
    };
    ips.into_iter().map(cidr).collect()
}

/// `text` in CIDR form; an address alone is a network of one.
fn cidr(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = if length.is_empty() { most } else { length.parse().ok()? };
    (length <= most && !text.ends_with('/')).then(|| format!("{address}/{length}"))
}

/// A unicast hardware address, in lower case.
fn mac(runtime: &mut Section) -> Result<String, Error> {
    let Some(text) = runtime.get::<String>("mac")? else { return Ok(String::new()) };
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok())?)
        .collect();
    match bytes.as_deref() {
        Some([first, rest @ ..])
            if rest.len() == 5
                && first & 1 == 0
                && (*first != 0 || rest.iter().any(|byte| *byte != 0)) =>
        {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(runtime.bad("mac", format!("{text:?} is not a unicast hardware address"))),
    }
}
