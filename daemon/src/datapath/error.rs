//! Why the kernel is not as it should be.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::{EniId, IfName, Mac, SandboxKey};
use nix::errno::Errno;

use super::kernel::{Failure, KernelError, errno};
use super::types::{Object, Op};
use crate::bpf::BpfError;
use crate::netns::NetNsError;

/// Why the kernel is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The namespace cannot be opened or entered.
    #[error("the network namespace of {owner}")]
    Namespace {
        /// Whose.
        owner: String,
        /// Why.
        #[source]
        source: NetNsError,
    },
    /// The namespace is the daemon's own.
    #[error("the network namespace of {owner} is the node's own; give the pod one of its own")]
    OwnNamespace {
        /// Whose.
        owner: String,
    },
    /// The pod's namespace has a link of that name.
    #[error(
        "CNI_IFNAME {ifname}: the namespace {} (CNI_NETNS) has a link {ifname} already, {}",
        netns.display(),
        whose.as_ref().map_or_else(
            || "which is none of terwayd's".to_owned(),
            |other| format!("that of sandbox {other}"),
        )
    )]
    Occupied {
        /// The name.
        ifname: IfName,
        /// The namespace.
        netns: PathBuf,
        /// Who has it, if it is one of ours.
        whose: Option<Box<SandboxKey>>,
    },
    /// The NIC did not come.
    #[error(
        "no link with MAC {mac} for {eni} after {waited:?}; is the ENI attached to this instance?"
    )]
    NoLink {
        /// The ENI.
        eni: EniId,
        /// Its MAC.
        mac: Mac,
        /// How long was waited.
        waited: Duration,
    },
    /// The node's primary NIC is not there.
    #[error("no link with MAC {0}, the primary ENI's")]
    NoPrimary(Mac),
    /// A pod names an ENI that was not set, or whose link is gone.
    #[error("sandbox {key} needs {eni}, which has no link on this node")]
    UnknownEni {
        /// Whose.
        key: SandboxKey,
        /// Which.
        eni: EniId,
    },
    /// No such pod here.
    #[error("sandbox {0} has no network here")]
    UnknownPod(SandboxKey),
    /// An address is to be buried and is not free.
    #[error("{address} belongs to sandbox {key} and cannot be buried; remove the sandbox first")]
    Owned {
        /// Which.
        address: IpAddr,
        /// Whose.
        key: Box<SandboxKey>,
    },
    /// The kernel lacks what we need.
    #[error("the kernel cannot do this: {what}; needed is {feature}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// What is missing.
        feature: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("the kernel refused: {what}")]
    Refused {
        /// What was tried, in the words of `ip`; names link, ENI or pod.
        what: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The kernel's state could not be read.
    #[error("cannot read {what} from the kernel")]
    Read {
        /// What.
        what: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A program or map could not be used.
    #[error("eBPF: {what}")]
    Bpf {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: BpfError,
    },
    /// The thread that owns the datapath has ended.
    #[error("the datapath has stopped; the daemon must be restarted")]
    Stopped,
}

/// Puts a failed op, and why, into the words of the boundary.
pub(super) fn refused(owner: &dyn Display, failure: Failure) -> DatapathError {
    let Failure { op, error } = failure;
    let what = format!("{op} (for {owner})");
    match error {
        KernelError::Refused(source) if is_missing(&op, &source) => {
            DatapathError::Unsupported { what, feature: feature(op.object()), source }
        }
        KernelError::Refused(source) => DatapathError::Refused { what, source },
        KernelError::Bpf(source) => DatapathError::Bpf { what, source },
        KernelError::Namespace(source) => {
            DatapathError::Namespace { owner: owner.to_string(), source }
        }
        KernelError::OwnNamespace => DatapathError::OwnNamespace { owner: owner.to_string() },
        KernelError::Taken | KernelError::Occupied => {
            DatapathError::Refused { what, source: io::ErrorKind::AlreadyExists.into() }
        }
        KernelError::NotRun => DatapathError::Refused { what, source: io::Error::other(error) },
    }
}

pub(super) fn first(owner: &dyn Display, failures: Vec<Failure>) -> Result<(), DatapathError> {
    match failures.into_iter().next() {
        None => Ok(()),
        Some(failure) => Err(refused(owner, failure)),
    }
}

fn is_missing(op: &Op, error: &io::Error) -> bool {
    let switch = matches!(op.object(), Object::Sysctl(..) | Object::LinkSysctl(..));
    match errno(error) {
        Some(Errno::EAFNOSUPPORT | Errno::ENOSYS | Errno::EOPNOTSUPP) => true,
        Some(Errno::ENOENT) => switch,
        _ => false,
    }
}

const fn feature(object: &Object) -> &'static str {
    match object {
        Object::Pair(_) => "veth links (CONFIG_VETH)",
        Object::Filter { .. } => "clsact and cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)",
        Object::Rule(_) => {
            "policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => "the pod's address family (for IPv6: CONFIG_IPV6, and no ipv6.disable=1)",
    }
}
