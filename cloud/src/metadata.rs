//! The instance metadata service: what a virtual machine can ask about itself. A hint, not a
//! proof: it lags behind the API.

pub(crate) mod text;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use model::{EniId, InstanceId, InstanceTypeId, Mac, RegionId, VSwitchId, VpcId, ZoneId};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use self::text::RoleCredentials;
use crate::patience::{Patience, Repeat};
use crate::{EndpointError, SetupError, Transport, TransportKind, endpoint, http};

/// One request takes at most this; the service is on the same host.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a token is to live.
const TOKEN_LIFE: Duration = Duration::from_hours(6);
/// A fact with more bytes than this is something else.
const LARGEST: usize = 1024 * 1024;
const TTL_HEADER: &str = "X-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "X-aliyun-ecs-metadata-token";
const TOKEN_PATH: &str = "/latest/api/token";
const FACTS: &str = "/latest/meta-data/";

/// A client of the metadata service.
#[derive(Debug)]
pub struct Metadata {
    http: reqwest::Client,
    base: String,
    token: Mutex<Option<Token>>,
}

#[derive(Debug, Clone)]
struct Token {
    value: SecretString,
    /// It is renewed at half of its life.
    until: Instant,
}

/// The virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// `instance-id`.
    pub id: InstanceId,
    /// `instance/instance-type`.
    pub kind: InstanceTypeId,
    /// `region-id`.
    pub region: RegionId,
    /// `zone-id`.
    pub zone: ZoneId,
    /// `vpc-id`.
    pub vpc: VpcId,
    /// `vswitch-id`: the primary ENI's.
    pub vswitch: VSwitchId,
    /// `mac`: the primary ENI's.
    pub mac: Mac,
}

/// An ENI with a NIC of its own (a member has none, and is not here).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniFacts {
    /// `network-interface-id`.
    pub id: EniId,
    /// What it was asked by.
    pub mac: Mac,
    /// `primary-ip-address`.
    pub primary_v4: Option<Ipv4Addr>,
    /// `private-ipv4s`, the primary one among them.
    pub v4: Vec<Ipv4Addr>,
    /// `ipv6s`.
    pub v6: Vec<Ipv6Addr>,
    /// `gateway`.
    pub v4_gateway: Option<Ipv4Addr>,
    /// `ipv6-gateway`.
    pub v6_gateway: Option<Ipv6Addr>,
    /// `vswitch-id`.
    pub vswitch: VSwitchId,
    /// `vswitch-cidr-block`.
    pub v4_block: Option<IpNetwork>,
    /// `vswitch-ipv6-cidr-block`.
    pub v6_block: Option<IpNetwork>,
}

/// Why the metadata service gave no fact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No answer.
    #[error("metadata {path}: no answer")]
    NoAnswer {
        /// What was asked for.
        path: String,
        /// Why.
        #[source]
        source: Transport,
    },
    /// There is no such fact.
    #[error("metadata {path}: not found")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// Another status than 200.
    #[error("metadata {path}: status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer of another form than the fact has.
    #[error("metadata {path}: answer not understood ({reason}): {body:?}")]
    Garbage {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// How it begins.
        body: String,
    },
}

impl Metadata {
    /// A client of the service at `base`, a URL like `http://100.100.100.200`.
    pub fn new(base: &str) -> Result<Self, MetadataSetupError> {
        let url = endpoint::parse("metadata", "http", base)?;
        let http = http::client(tls(&url), TIMEOUT)?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, token: Mutex::new(None) })
    }

    /// What the instance is. One call a fact: keep it.
    pub async fn instance(&self, deadline: Instant) -> Result<InstanceFacts, MetadataError> {
        let id = async |path: &str| self.id(path.to_owned(), deadline).await;
        Ok(InstanceFacts {
            id: InstanceId::new(id("instance-id").await?),
            kind: InstanceTypeId::new(id("instance/instance-type").await?),
            region: RegionId::new(id("region-id").await?),
            zone: ZoneId::new(id("zone-id").await?),
            vpc: VpcId::new(id("vpc-id").await?),
            vswitch: VSwitchId::new(id("vswitch-id").await?),
            mac: self.value("mac".to_owned(), deadline).await?,
        })
    }

    /// The MAC addresses of all ENIs with a NIC of their own.
    pub async fn macs(&self, deadline: Instant) -> Result<Vec<Mac>, MetadataError> {
        let path = "network/interfaces/macs/".to_owned();
        let text = self.fact(path.clone(), deadline).await?;
        text::list(&path, &text.replace('/', " "))
    }

    /// What the ENI with this address is.
    pub async fn eni(&self, mac: Mac, deadline: Instant) -> Result<EniFacts, MetadataError> {
        let path = |fact: &str| format!("network/interfaces/macs/{mac}/{fact}");
        Ok(EniFacts {
            id: EniId::new(self.id(path("network-interface-id"), deadline).await?),
            mac,
            primary_v4: self.maybe(path("primary-ip-address"), deadline).await?,
            v4: self.list(path("private-ipv4s"), deadline).await?,
            v6: self.list(path("ipv6s"), deadline).await?,
            v4_gateway: self.maybe(path("gateway"), deadline).await?,
            v6_gateway: self.maybe(path("ipv6-gateway"), deadline).await?,
            vswitch: VSwitchId::new(self.id(path("vswitch-id"), deadline).await?),
            v4_block: self.maybe(path("vswitch-cidr-block"), deadline).await?,
            v6_block: self.maybe(path("vswitch-ipv6-cidr-block"), deadline).await?,
        })
    }

    /// The keys of the instance's role.
    pub(crate) async fn role_credentials(
        &self,
        deadline: Instant,
    ) -> Result<RoleCredentials, MetadataError> {
        let roles = "ram/security-credentials/".to_owned();
        let role = self.id(roles.clone(), deadline).await?;
        let path = format!("{roles}{role}");
        let text = self.fact(path.clone(), deadline).await?;
        text::role(&path, &text)
    }

    /// A name: one word.
    async fn id(&self, path: String, deadline: Instant) -> Result<String, MetadataError> {
        let text = self.fact(path.clone(), deadline).await?;
        text::name(&path, &text)
    }

    async fn value<T: FromStr>(&self, path: String, deadline: Instant) -> Result<T, MetadataError> {
        let text = self.fact(path.clone(), deadline).await?;
        text::value(&path, &text)
    }

    /// A value that may not be there: not found, or empty.
    async fn maybe<T: FromStr>(
        &self,
        path: String,
        deadline: Instant,
    ) -> Result<Option<T>, MetadataError> {
        match self.fact(path.clone(), deadline).await {
            Ok(text) => text::maybe(&path, &text),
            Err(MetadataError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list<T: FromStr>(
        &self,
        path: String,
        deadline: Instant,
    ) -> Result<Vec<T>, MetadataError> {
        match self.fact(path.clone(), deadline).await {
            Ok(text) => text::list(&path, &text),
            Err(MetadataError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The text at `path`, asked for until it is there, or the deadline.
    async fn fact(&self, path: String, deadline: Instant) -> Result<String, MetadataError> {
        let mut patience = Patience::until(deadline);
        loop {
            let error = match self.attempt(&path, deadline).await {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            if !patience.wait(self.repeat(&error)).await {
                return Err(error);
            }
        }
    }

    fn repeat(&self, error: &MetadataError) -> Repeat {
        match error {
            MetadataError::Status { status: 401, .. } => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Repeat::AtOnce
            }
            MetadataError::Status { status: 429 | 500.., .. } | MetadataError::NoAnswer { .. } => {
                Repeat::After(Duration::ZERO)
            }
            _ => Repeat::No,
        }
    }

    async fn attempt(&self, path: &str, deadline: Instant) -> Result<String, MetadataError> {
        let token = self.token(deadline).await?;
        let url = format!("{}{FACTS}{path}", self.base);
        let request = self.http.get(url).header(TOKEN_HEADER, token.expose_secret());
        send(request, path, deadline).await
    }

    async fn token(&self, deadline: Instant) -> Result<SecretString, MetadataError> {
        let cached = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = cached.filter(|token| token.until > Instant::now()) {
            return Ok(token.value);
        }
        let url = format!("{}{TOKEN_PATH}", self.base);
        let request = self.http.request(Method::PUT, url).header(TTL_HEADER, TOKEN_LIFE.as_secs());
        let text = send(request, TOKEN_PATH, deadline).await?;
        let value = text::token(TOKEN_PATH, &text)?;
        let token = Token { value: value.clone(), until: Instant::now() + TOKEN_LIFE / 2 };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(value)
    }
}

/// A client of the metadata service cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MetadataSetupError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] SetupError),
}

fn tls(url: &Url) -> http::Tls {
    if url.scheme() == "https" { http::Tls::SystemRoots } else { http::Tls::None }
}

async fn send(
    request: reqwest::RequestBuilder,
    path: &str,
    deadline: Instant,
) -> Result<String, MetadataError> {
    let path = path.to_owned();
    let exchange = async {
        let answer = request.send().await.map_err(http::transport)?;
        let status = answer.status();
        Ok((status, http::body(answer, LARGEST).await?))
    };
    let (status, body) = match timeout_at(deadline, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => return Err(MetadataError::NoAnswer { path, source }),
        Err(_elapsed) => {
            let text = "the deadline came first".to_owned();
            let source = Transport { kind: TransportKind::Sent, text };
            return Err(MetadataError::NoAnswer { path, source });
        }
    };
    match status {
        StatusCode::OK => Ok(String::from_utf8_lossy(&body).into_owned()),
        StatusCode::NOT_FOUND => Err(MetadataError::NotFound { path }),
        _ => Err(MetadataError::Status { path, status: status.as_u16() }),
    }
}

#[cfg(test)]
mod tests;
