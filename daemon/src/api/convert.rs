//! A request's fields become types, or an error that names the field.

use std::collections::BTreeSet;
use std::path::PathBuf;

use model::{IfName, Mac, OutOfRange, PodRef, SandboxKey};
use proto::agent::{self, Reason};

use crate::pods::Add;

/// IPv6 does without less (RFC 8200, section 5).
const MTU_FLOOR: u32 = 1280;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A variable of the CNI protocol.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The pod's end cannot have this name.
    #[error("CNI_IFNAME cannot be used")]
    IfName(#[source] OutOfRange),
    /// `runtimeConfig.mac`.
    #[error("runtimeConfig.mac cannot be used")]
    Mac(#[source] OutOfRange),
    /// A group address is no link's.
    #[error("runtimeConfig.mac {0} is a multicast address")]
    Multicast(Mac),
    /// `mtu`.
    #[error("mtu {0} is not between {MTU_FLOOR} and 65535")]
    Mtu(u32),
    /// Asked for, and not done: better no pod than one without its limits.
    #[error("{0} is not supported by this version; leave it out")]
    Unsupported(&'static str),
}

impl RequestError {
    /// Decides the CNI code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing(_) | Self::IfName(_) => Reason::BadEnvironment,
            Self::Mac(_) | Self::Multicast(_) | Self::Mtu(_) => Reason::InvalidConfig,
            Self::Unsupported(_) => Reason::UnsupportedField,
        }
    }
}

/// The attachment that a request is about.
pub fn key(sandbox: Option<&agent::Sandbox>) -> Result<SandboxKey, RequestError> {
    let sandbox = sandbox.ok_or(RequestError::Missing("the sandbox"))?;
    let agent::Sandbox { network, container_id, ifname } = sandbox.clone();
    for (name, value) in [
        ("the network's name", &network),
        ("CNI_CONTAINERID", &container_id),
        ("CNI_IFNAME", &ifname),
    ] {
        if value.is_empty() {
            return Err(RequestError::Missing(name));
        }
    }
    Ok(SandboxKey { network, container_id, ifname })
}

/// The pod, if the runtime names one.
pub fn pod(pod: Option<&agent::Pod>) -> Option<PodRef> {
    let agent::Pod { namespace, name, uid } = pod?.clone();
    let uid = (!uid.is_empty()).then_some(uid);
    (!namespace.is_empty() && !name.is_empty()).then_some(PodRef { namespace, name, uid })
}

/// The namespace's path.
pub fn netns(path: &str) -> Result<PathBuf, RequestError> {
    if path.is_empty() { Err(RequestError::Missing("CNI_NETNS")) } else { Ok(path.into()) }
}

/// An ADD.
pub fn add(request: agent::AddRequest) -> Result<Add, RequestError> {
    let key = key(request.sandbox.as_ref())?;
    if !request.ips.is_empty() {
        return Err(RequestError::Unsupported("runtimeConfig.ips (an address of one's choice)"));
    }
    if request.bandwidth.is_some_and(limits) {
        return Err(RequestError::Unsupported("runtimeConfig.bandwidth (a limit of the rate)"));
    }
    Ok(Add {
        pod: pod(request.pod.as_ref()),
        netns: netns(&request.netns)?,
        ifname: key.ifname.parse::<IfName>().map_err(RequestError::IfName)?,
        annotations: request.annotations.into_iter().collect(),
        mtu: mtu(request.mtu)?,
        mac: mac(&request.mac)?,
        key,
    })
}

/// The attachments that GC is to keep, by container id and interface name.
pub fn valid(attachments: Vec<agent::Attachment>) -> BTreeSet<(String, String)> {
    attachments.into_iter().map(|valid| (valid.container_id, valid.ifname)).collect()
}

fn limits(bandwidth: agent::Bandwidth) -> bool {
    bandwidth.ingress_rate != 0 || bandwidth.egress_rate != 0
}

fn mtu(mtu: u32) -> Result<Option<u32>, RequestError> {
    match mtu {
        0 => Ok(None),
        MTU_FLOOR..=0xffff => Ok(Some(mtu)),
        _ => Err(RequestError::Mtu(mtu)),
    }
}

fn mac(text: &str) -> Result<Option<Mac>, RequestError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mac: Mac = text.parse().map_err(RequestError::Mac)?;
    let [first, ..] = mac.bytes();
    if first & 1 == 1 { Err(RequestError::Multicast(mac)) } else { Ok(Some(mac)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> agent::AddRequest {
        agent::AddRequest {
            sandbox: Some(agent::Sandbox {
                network: "terway".to_owned(),
                container_id: "c1".to_owned(),
                ifname: "eth0".to_owned(),
            }),
            netns: "/run/netns/a".to_owned(),
            ..agent::AddRequest::default()
        }
    }

    #[test]
    fn a_plain_request_is_taken() {
        let add = add(request()).unwrap();
        assert_eq!((add.pod, add.mtu, add.mac), (None, None, None));
        assert_eq!(add.key.to_string(), "terway/c1/eth0");
    }

    #[test]
    fn a_pod_is_known_by_namespace_and_name() {
        let mut found = agent::Pod { namespace: "default".to_owned(), ..agent::Pod::default() };
        assert_eq!(pod(Some(&found)), None);
        found.name = "web-0".to_owned();
        let known = pod(Some(&found)).unwrap();
        assert_eq!((known.to_string().as_str(), known.uid), ("default/web-0", None));
    }

    #[test]
    fn a_field_that_is_wrong_is_named_with_its_code() {
        type Break = fn(&mut agent::AddRequest);
        let cases: [(Break, Reason, &str); 12] = [
            (|r| r.sandbox = None, Reason::BadEnvironment, "the sandbox is missing"),
            (
                |r| r.sandbox.as_mut().unwrap().network.clear(),
                Reason::BadEnvironment,
                "the network's name is missing",
            ),
            (
                |r| r.sandbox.as_mut().unwrap().container_id.clear(),
                Reason::BadEnvironment,
                "CNI_CONTAINERID is missing",
            ),
            (
                |r| r.sandbox.as_mut().unwrap().ifname.clear(),
                Reason::BadEnvironment,
                "CNI_IFNAME is missing",
            ),
            (
                |r| r.sandbox.as_mut().unwrap().ifname = "a/b".to_owned(),
                Reason::BadEnvironment,
                "CNI_IFNAME cannot be used",
            ),
            (|r| r.netns.clear(), Reason::BadEnvironment, "CNI_NETNS is missing"),
            (|r| r.mtu = 500, Reason::InvalidConfig, "mtu 500 is not between 1280 and 65535"),
            (|r| r.mtu = 65536, Reason::InvalidConfig, "mtu 65536 is not between 1280 and 65535"),
            (|r| r.mac = "x".to_owned(), Reason::InvalidConfig, "runtimeConfig.mac cannot be used"),
            (
                |r| r.mac = "01:00:5e:00:00:01".to_owned(),
                Reason::InvalidConfig,
                "runtimeConfig.mac 01:00:5e:00:00:01 is a multicast address",
            ),
            (
                |r| r.ips.push("10.0.0.9/24".to_owned()),
                Reason::UnsupportedField,
                "runtimeConfig.ips (an address of one's choice) is not supported by this version; \
                 leave it out",
            ),
            (
                |r| r.bandwidth = Some(agent::Bandwidth { egress_rate: 1, ..Default::default() }),
                Reason::UnsupportedField,
                "runtimeConfig.bandwidth (a limit of the rate) is not supported by this version; \
                 leave it out",
            ),
        ];
        for (spoil, reason, text) in cases {
            let mut request = request();
            spoil(&mut request);
            let error = add(request).unwrap_err();
            assert_eq!((error.reason(), error.to_string().as_str()), (reason, text));
        }
    }
}
