//! The result of ADD in the layout of each version, and `prevResult`, which it extends.

use proto::agent::{AddReply, CheckRequest, Interface, Ip, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::section::typed;
use crate::version::SpecVersion;

/// A result, as given (`prevResult`) or as printed. What we do not know stays in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct CniResult {
    #[serde(rename = "cniVersion")]
    version: &'static str,
    interfaces: Vec<Map<String, Value>>,
    ips: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    dns: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl CniResult {
    /// Reads `prevResult`.
    pub(crate) fn parse(value: Value) -> Result<Self, Error> {
        let mut object: Map<String, Value> = typed("prevResult", value)?;
        let mut list = |name: &str| match object.remove(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => typed(&format!("prevResult.{name}"), value),
        };
        let (interfaces, ips, routes) = (list("interfaces")?, list("ips")?, list("routes")?);
        let dns = match object.remove("dns") {
            None | Some(Value::Null) => Map::new(),
            Some(value) => typed("prevResult.dns", value)?,
        };
        object.remove("cniVersion");
        Ok(Self { version: "", interfaces, ips, routes, dns, rest: object })
    }

    /// Adds what the daemon set up, in the layout of `version`, and the configuration's `dns` if it
    /// has one. What stood here before stays as it is.
    pub(crate) fn extend(
        &mut self,
        version: SpecVersion,
        reply: AddReply,
        dns: Map<String, Value>,
    ) {
        let before = self.interfaces.len();
        self.interfaces.extend(reply.interfaces.into_iter().map(|it| interface(version, it)));
        self.ips.extend(reply.ips.into_iter().map(|it| ip(version, it, before)));
        self.routes.extend(reply.routes.into_iter().map(route));
        if !dns.is_empty() {
            self.dns = dns;
        }
        self.version = version.as_str();
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers are JSON")
    }

    /// Puts into `request` what this result says of attachments. An address without an interface
    /// is not of ours: we always give one.
    pub(crate) fn fill(&self, request: &mut CheckRequest) -> Result<(), Error> {
        let interfaces: Vec<InterfaceIn> = all("prevResult.interfaces", &self.interfaces)?;
        let ips: Vec<IpIn> = all("prevResult.ips", &self.ips)?;
        let routes: Vec<RouteIn> = all("prevResult.routes", &self.routes)?;
        request.interfaces = interfaces
            .into_iter()
            .map(|InterfaceIn { name, mac, sandbox, mtu }| Interface { name, mac, sandbox, mtu })
            .collect();
        request.ips = ips
            .into_iter()
            .filter_map(|IpIn { address, gateway, interface }| {
                interface.map(|interface| Ip { address, gateway, interface })
            })
            .collect();
        request.routes = routes.into_iter().map(|RouteIn { dst, gw }| Route { dst, gw }).collect();
        Ok(())
    }
}

#[derive(Deserialize)]
struct InterfaceIn {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
    #[serde(default)]
    mtu: u32,
}

#[derive(Deserialize)]
struct IpIn {
    address: String,
    #[serde(default)]
    gateway: String,
    interface: Option<u32>,
}

#[derive(Deserialize)]
struct RouteIn {
    dst: String,
    #[serde(default)]
    gw: String,
}

fn interface(version: SpecVersion, given: Interface) -> Map<String, Value> {
    let mut entry = Map::from_iter([("name".to_owned(), json!(given.name))]);
    put(&mut entry, "mac", given.mac);
    put(&mut entry, "sandbox", given.sandbox);
    if given.mtu != 0 && version >= SpecVersion::V1_1_0 {
        entry.insert("mtu".to_owned(), json!(given.mtu));
    }
    entry
}

/// `before`: how many interfaces stand before those that the reply counts from 0.
fn ip(version: SpecVersion, given: Ip, before: usize) -> Map<String, Value> {
    let index = u64::from(given.interface) + u64::try_from(before).expect("a list fits in memory");
    let mut entry = Map::new();
    if version < SpecVersion::V1_0_0 {
        let family = if given.address.contains(':') { "6" } else { "4" };
        entry.insert("version".to_owned(), json!(family));
    }
    entry.insert("address".to_owned(), json!(given.address));
    entry.insert("interface".to_owned(), json!(index));
    put(&mut entry, "gateway", given.gateway);
    entry
}

fn route(given: Route) -> Map<String, Value> {
    let mut entry = Map::from_iter([("dst".to_owned(), json!(given.dst))]);
    put(&mut entry, "gw", given.gw);
    entry
}

fn put(entry: &mut Map<String, Value>, key: &str, value: String) {
    if !value.is_empty() {
        entry.insert(key.to_owned(), Value::String(value));
    }
}

fn all<T: for<'de> Deserialize<'de>>(
    key: &str,
    entries: &[Map<String, Value>],
) -> Result<Vec<T>, Error> {
    let entries = entries.iter().enumerate();
    entries.map(|(i, it)| typed(&format!("{key}[{i}]"), Value::Object(it.clone()))).collect()
}
