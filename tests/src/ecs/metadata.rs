//! The instance metadata service: what a virtual machine is told about itself, behind, and with
//! lies if the lab wants some.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State as Extension};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};
use model::{EniId, InstanceId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use super::cloud::Moment;
use super::service::{Ecs, State, now};
use super::views;
use super::world::{Eni, EniStatus, Instance, View};

/// Which instance is behind an address that a request comes from.
pub type Identity = Arc<dyn Fn(SocketAddr) -> Option<InstanceId> + Send + Sync>;

/// What is wrong with the metadata service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetadataFaults {
    /// ENIs that it does not show though they are attached.
    pub missing: BTreeSet<String>,
    /// ENIs that it shows to an instance though they are not attached to it.
    pub extra: BTreeMap<String, BTreeSet<String>>,
    /// Every request is answered by this status; see `only`.
    pub status: Option<u16>,
    /// `status` is for paths below this one, as `network/interfaces/macs/`; absent: for all, the
    /// token's as well.
    pub only: Option<String>,
    /// How far lists (of MACs, of addresses) are behind, in milliseconds, besides
    /// `metadata_lag_ms`; at most ten minutes.
    pub stale_lists_ms: u32,
    /// Every answer takes this long, in milliseconds.
    pub latency_ms: u32,
}

impl MetadataFaults {
    fn status_of(&self, path: &str) -> Option<StatusCode> {
        let below = |only: &String| path.strip_prefix(ROOT).is_some_and(|at| at.starts_with(only));
        let status = self.status.filter(|_status| self.only.as_ref().is_none_or(below));
        StatusCode::from_u16(status?).ok()
    }
}

/// Whether an item is a list, of MACs or of addresses.
fn is_list(item: &str) -> bool {
    item.ends_with("macs/") || item.ends_with("/private-ipv4s") || item.ends_with("/ipv6s")
}

/// The state of the service.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) faults: MetadataFaults,
    tokens: BTreeMap<String, (InstanceId, Timestamp)>,
}

const TTL: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aliyun-ecs-metadata-token";
const ROOT: &str = "/latest/meta-data/";

impl Ecs {
    /// Who asks, by the address that it asks from: a VPC that lets nobody forge one tells the same
    /// as the port that a request came in by.
    pub fn identity_by_address(&self) -> Identity {
        let ecs = self.clone();
        Arc::new(move |peer: SocketAddr| ecs.instance_at(peer.ip()))
    }

    /// Serves the metadata of the instances on a socket that is bound already, until the cloud
    /// stops.
    pub fn serve_metadata(&self, listener: TcpListener, identity: Identity) {
        let router = Router::new().fallback(answer).with_state((self.clone(), identity));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let stop = self.token();
        self.spawn(async move {
            let server = axum::serve(listener, service);
            if let Some(Err(error)) = stop.run_until_cancelled(server.into_future()).await {
                tracing::warn!(%error, "metadata service ended");
            }
        });
    }
}

async fn answer(
    Extension((ecs, identity)): Extension<(Ecs, Identity)>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let faults = ecs.lock().metadata.faults.clone();
    tokio::time::sleep(Duration::from_millis(faults.latency_ms.into())).await;
    if let Some(status) = faults.status_of(uri.path()) {
        return (status, String::new());
    }
    let Some(instance) = identity(peer) else {
        return (StatusCode::NOT_FOUND, format!("{peer} is no instance of this VPC"));
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut state = ecs.lock();
    let served = match (method, uri.path()) {
        (Method::PUT, "/latest/api/token") => state.new_token(instance, header(TTL), now()),
        (Method::GET, path) => state.metadata(&instance, header(TOKEN), path, now()),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    };
    served.map_or_else(|status| (status, String::new()), |body| (StatusCode::OK, body))
}

impl State {
    /// A token for 1 to 21,600 seconds.
    fn new_token(
        &mut self,
        instance: InstanceId,
        ttl: Option<&str>,
        now: Timestamp,
    ) -> Result<String, StatusCode> {
        let seconds: Option<i64> = ttl.and_then(|ttl| ttl.parse().ok());
        let seconds = seconds.filter(|seconds| (1..=21_600).contains(seconds));
        let seconds = seconds.ok_or(StatusCode::BAD_REQUEST)?;
        let random = &mut self.cloud.random;
        let token = format!("{:016x}{:016x}", random.next(), random.next());
        let until = now + SignedDuration::from_secs(seconds);
        self.metadata.tokens.retain(|_, (_, until)| now < *until);
        self.metadata.tokens.insert(token.clone(), (instance, until));
        Ok(token)
    }

    pub(crate) fn metadata(
        &mut self,
        id: &InstanceId,
        token: Option<&str>,
        path: &str,
        now: Timestamp,
    ) -> Result<String, StatusCode> {
        let token = token.ok_or(StatusCode::FORBIDDEN)?;
        let good = self.metadata.tokens.get(token).filter(|(of, until)| of == id && now < *until);
        good.ok_or(StatusCode::UNAUTHORIZED)?;
        let item = path.strip_prefix(ROOT).ok_or(StatusCode::NOT_FOUND)?;
        let behind = if is_list(item) { self.metadata.faults.stale_lists_ms } else { 0 };
        let lag = self.cloud.settings.metadata_lag_ms.saturating_add(behind);
        let moment = Moment::lagging(now, Duration::from_millis(lag.into()));
        let instance =
            self.cloud.seen(moment).instance(id).cloned().ok_or(StatusCode::NOT_FOUND)?;
        if let Some(role) = item.strip_prefix("ram/security-credentials/") {
            return self.role(&instance, role, now).ok_or(StatusCode::NOT_FOUND);
        }
        let view = self.cloud.seen(moment);
        let found = match item.strip_prefix("network/interfaces/macs/") {
            Some(rest) => self.interfaces(view, &instance, rest),
            None => fact(view, &instance, &self.cloud.settings.region, item),
        };
        found.ok_or(StatusCode::NOT_FOUND)
    }

    /// The role's name, or its credentials.
    fn role(&mut self, instance: &Instance, asked: &str, now: Timestamp) -> Option<String> {
        let role = instance.ram_role.as_deref()?;
        if asked.is_empty() {
            return Some(role.to_owned());
        }
        let key =
            (asked == role).then(|| self.keyring.of_role(role, now, &mut self.cloud.random))?;
        let body = json!({
            "Code": "Success",
            "AccessKeyId": key.id,
            "AccessKeySecret": key.secret,
            "SecurityToken": key.token,
            "LastUpdated": views::time(key.since),
            "Expiration": views::time(key.until),
        });
        Some(body.to_string())
    }

    /// Nothing lists the MACs, `<mac>/` the items of one, `<mac>/<item>` is its value.
    fn interfaces(&self, view: View<'_>, instance: &Instance, rest: &str) -> Option<String> {
        let shown = self.shown(view, instance);
        let Some((mac, item)) = rest.split_once('/') else {
            let macs: Vec<_> = shown.iter().map(|eni| format!("{}/", eni.mac)).collect();
            return rest.is_empty().then(|| macs.join("\n"));
        };
        let eni = shown.into_iter().find(|eni| eni.mac.to_string() == mac)?;
        if item.is_empty() { Some(ITEMS.join("\n")) } else { interface(view, eni, item) }
    }

    /// NICs only: a member is a VLAN, and the instance's metadata knows nothing of it.
    fn shown<'a>(&self, view: View<'a>, instance: &Instance) -> Vec<&'a Eni> {
        let lies = &self.metadata.faults;
        let extra = lies.extra.get(instance.id.as_str()).into_iter().flatten();
        let extra = extra.filter_map(|id| view.eni(&EniId::new(id)));
        view.enis_of(&instance.id)
            .filter(|eni| matches!(eni.status, EniStatus::InUse | EniStatus::Detaching))
            .filter(|eni| eni.trunk().is_none() && !lies.missing.contains(eni.id.as_str()))
            .chain(extra)
            .map(AsRef::as_ref)
            .collect()
    }
}

const ITEMS: [&str; 10] = [
    "gateway",
    "ipv6-gateway",
    "ipv6s",
    "network-interface-id",
    "primary-ip-address",
    "private-ipv4s",
    "vpc-cidr-block",
    "vswitch-cidr-block",
    "vswitch-id",
    "vswitch-ipv6-cidr-block",
];

fn fact(view: View<'_>, instance: &Instance, region: &str, item: &str) -> Option<String> {
    Some(match item {
        "instance-id" => instance.id.to_string(),
        "instance/instance-type" => instance.kind.id.to_owned(),
        "instance/instance-name" | "hostname" => instance.name.clone(),
        "region-id" => region.to_owned(),
        "zone-id" => instance.zone.to_string(),
        "vpc-id" => instance.vpc.to_string(),
        "vpc-cidr-block" => view.world.vpcs.get(&instance.vpc)?.v4.to_string(),
        "vswitch-id" => instance.vswitch.to_string(),
        "vswitch-cidr-block" => view.world.vswitches.get(&instance.vswitch)?.v4.to_string(),
        "private-ipv4" => view.eni(&instance.primary)?.primary_address().to_string(),
        "mac" => view.eni(&instance.primary)?.mac.to_string(),
        "network-type" => "vpc".to_owned(),
        _ => return None,
    })
}

/// IPv4 addresses are JSON, IPv6 addresses stand in brackets without quotes: so it is.
fn interface(view: View<'_>, eni: &Eni, item: &str) -> Option<String> {
    let vswitch = view.world.vswitches.get(&eni.vswitch)?;
    let gateway = |block: IpNetwork| model::gateway(block).map(|gateway| gateway.to_string());
    match item {
        "network-interface-id" => Some(eni.id.to_string()),
        "primary-ip-address" => Some(eni.primary_address().to_string()),
        "private-ipv4s" => Some(json!(eni.v4).to_string()),
        "ipv6s" if !eni.v6.is_empty() => {
            let list: Vec<_> = eni.v6.iter().map(ToString::to_string).collect();
            Some(format!("[{}]", list.join(",")))
        }
        "gateway" => gateway(vswitch.v4.into()),
        "ipv6-gateway" => gateway(vswitch.v6?.into()),
        "vswitch-id" => Some(vswitch.id.to_string()),
        "vswitch-cidr-block" => Some(vswitch.v4.to_string()),
        "vswitch-ipv6-cidr-block" => Some(vswitch.v6?.to_string()),
        "vpc-cidr-block" => Some(view.world.vpcs.get(&eni.vpc)?.v4.to_string()),
        _ => None,
    }
}
