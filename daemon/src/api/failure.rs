//! The one place where an error of the domain becomes a failure on the wire: a reason (which the
//! plugin turns into a CNI code), a sentence that says what failed and why, and what to do.

use std::error::Error;

use model::{PodRef, SandboxKey};
use proto::agent::{Failure, Reason};

use super::convert::RequestError;
use crate::datapath::DatapathError;
use crate::pods::{GcFailure, Interruption, PodError};

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// As CNI spells it.
    pub verb: &'static str,
    /// Under Kubernetes.
    pub pod: Option<PodRef>,
    /// The attachment.
    pub key: Option<SandboxKey>,
}

impl Subject {
    /// A request that could not be carried out.
    pub fn failed(&self, error: &PodError) -> Failure {
        self.failure(reason(error), &chain(error), details(error))
    }

    /// A request that could not be read.
    pub fn misread(&self, error: &RequestError) -> Failure {
        let details = "correct the network configuration or the pod; nothing was done".to_owned();
        self.failure(error.reason(), &chain(error), details)
    }

    /// A CHECK that found these differences.
    pub fn differs(&self, differences: &[String]) -> Failure {
        let what = match differences {
            [only] => only.clone(),
            all => format!("{} differences to what the pod should have", all.len()),
        };
        self.failure(Reason::CheckFailed, &what, differences.join("\n"))
    }

    /// A daemon that cannot take requests.
    pub fn not_now(&self, why: &str) -> Failure {
        let details = "the runtime will try again".to_owned();
        self.failure(Reason::TryAgainLater, why, details)
    }

    fn failure(&self, reason: Reason, what: &str, details: String) -> Failure {
        let message = format!("{}: {what}", self.text());
        Failure { reason: reason.into(), message, details }
    }

    fn text(&self) -> String {
        let pod = self.pod.as_ref().map(|pod| format!(" of pod {pod}")).unwrap_or_default();
        let key = self.key.as_ref().map(|key| {
            let container = key.container_id.get(..12).unwrap_or(&key.container_id);
            format!(" (container {container}, {})", key.ifname)
        });
        format!("{}{pod}{}", self.verb, key.unwrap_or_default())
    }
}

/// GC that left something.
pub fn gc(failure: &GcFailure) -> Failure {
    let lines = failure.failures.iter().map(|(key, error)| format!("{key}: {}", chain(error)));
    Failure {
        reason: Reason::Unspecified.into(),
        message: format!("GC: {failure}"),
        details: lines.collect::<Vec<_>>().join("\n"),
    }
}

/// An error and what lies below it, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes =
        std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (**error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn reason(error: &PodError) -> Reason {
    match error {
        PodError::NamespaceGone(_) | PodError::Unknown => Reason::UnknownContainer,
        PodError::NotANamespace(_) | PodError::OtherNamespace { .. } => Reason::BadEnvironment,
        PodError::OwnNamespace(_) => Reason::OwnNamespace,
        PodError::Mtu { .. } => Reason::InvalidConfig,
        PodError::Interrupted(_) => Reason::TryAgainLater,
        PodError::Address(error) => error.reason(),
        PodError::Datapath(error) => datapath(error),
        PodError::Checkpoint(_) | PodError::Release(_) | PodError::Queue { .. } => Reason::Io,
        PodError::Panicked => Reason::Unspecified,
    }
}

fn datapath(error: &DatapathError) -> Reason {
    match error {
        DatapathError::Namespace { source, .. } if source.is_closed() => Reason::Io,
        DatapathError::Namespace { .. } | DatapathError::UnknownPod(_) => Reason::UnknownContainer,
        DatapathError::Occupied { .. } => Reason::BadEnvironment,
        DatapathError::OwnNamespace { .. } => Reason::OwnNamespace,
        DatapathError::NoLink { .. }
        | DatapathError::UnknownEni { .. }
        | DatapathError::Stopped => Reason::TryAgainLater,
        DatapathError::Unsupported { .. } => Reason::KernelFeatureMissing,
        DatapathError::NoPrimary(_)
        | DatapathError::Owned { .. }
        | DatapathError::Refused { .. }
        | DatapathError::Read { .. }
        | DatapathError::Bpf { .. } => Reason::Unspecified,
    }
}

fn details(error: &PodError) -> String {
    let text = match error {
        PodError::Address(error) => return error.details(),
        PodError::NamespaceGone(_) => "the sandbox has ended; nothing was left behind",
        PodError::Unknown => "it was never added here, or a DEL has removed it; add it again",
        PodError::NotANamespace(_) => {
            "CNI_NETNS must name a network namespace of the pod's own, and terwayd must see the \
             runtime's mounts (in a container: mountPropagation HostToContainer); nothing was done"
        }
        PodError::OwnNamespace(_) => {
            "CNI_NETNS must name a network namespace of the pod's own; nothing was done"
        }
        PodError::OtherNamespace { .. } => "nothing was changed",
        PodError::Mtu { .. } => "lower `mtu` in the network configuration; nothing was left behind",
        PodError::Interrupted(Interruption::Deadline) => {
            "all was undone; the runtime will try again; raise `timeout` in the network \
             configuration if it happens often"
        }
        PodError::Interrupted(_) => "all was undone; the runtime will try again",
        PodError::Datapath(error) => match &**error {
            DatapathError::Unsupported { feature, .. } => {
                return format!("run a kernel that has {feature}; nothing was left behind");
            }
            DatapathError::Occupied { .. } => {
                "remove that link, or give another CNI_IFNAME, or give each sandbox a namespace of \
                 its own; nothing was left behind"
            }
            DatapathError::Namespace { source, .. } if source.is_closed() => {
                "terwayd must be root with CAP_SYS_ADMIN, and see the runtime's mounts; nothing was \
                 left behind"
            }
            _ => "what was begun was undone; the daemon's log has more",
        },
        PodError::Checkpoint(_) | PodError::Release(_) => {
            "see that the daemon's state directory can be written and has room"
        }
        PodError::Queue { .. } => "see that the directory of the DEL queue can be written",
        PodError::Panicked => "this is a bug of terwayd; please report it with the log",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::netns::NetNsError;

    fn subject() -> Subject {
        Subject {
            verb: "ADD",
            pod: Some(PodRef {
                namespace: "default".to_owned(),
                name: "web-0".to_owned(),
                uid: None,
            }),
            key: Some(SandboxKey {
                network: "terway".to_owned(),
                container_id: "0123456789abcdef0123456789abcdef".to_owned(),
                ifname: "eth0".to_owned(),
            }),
        }
    }

    fn refused() -> DatapathError {
        let what = "link add cali01234567890 type veth".to_owned();
        DatapathError::Refused { what, source: io::Error::from_raw_os_error(16) }
    }

    #[test]
    fn every_failure_says_what_why_and_what_to_do() {
        let gone = PathBuf::from("/run/netns/a");
        let unsupported = DatapathError::Unsupported {
            what: "filter add dev eth1 egress".to_owned(),
            feature: "CONFIG_NET_CLS_BPF",
            source: io::Error::from_raw_os_error(2),
        };
        let occupied = |whose| DatapathError::Occupied {
            ifname: "eth0".parse().unwrap(),
            netns: PathBuf::from("/run/netns/a"),
            whose,
        };
        let closed = DatapathError::Namespace {
            owner: "sandbox terway/a/eth0".to_owned(),
            source: NetNsError::Open {
                path: gone.clone(),
                source: io::Error::from_raw_os_error(13),
            },
        };
        let other = subject().key.map(Box::new);
        let mtu = PodError::Mtu { asked: 9000, limit: 1500, link: "eth1".to_owned() };
        let errors = [
            PodError::NamespaceGone(gone.clone()),
            PodError::NotANamespace(gone.clone()),
            PodError::OwnNamespace(gone.clone()),
            PodError::OtherNamespace { has: gone, asked: PathBuf::from("/run/netns/b") },
            PodError::Unknown,
            mtu,
            PodError::Interrupted(Interruption::CallerGone),
            PodError::Interrupted(Interruption::Deleted),
            PodError::Interrupted(Interruption::Deadline),
            PodError::Interrupted(Interruption::Stopping),
            PodError::from(refused()),
            PodError::from(unsupported),
            PodError::from(occupied(None)),
            PodError::from(occupied(other)),
            PodError::from(closed),
            PodError::Panicked,
        ];
        let lines = errors.map(|error| {
            let Failure { reason, message, details } = subject().failed(&error);
            let reason = Reason::try_from(reason).unwrap();
            format!("{} {message}\n    {details}", proto::failure::cni_code(reason))
        });
        insta::assert_snapshot!(lines.join("\n"), @r#"
        3 ADD of pod default/web-0 (container 0123456789ab, eth0): network namespace /run/netns/a does not exist
            the sandbox has ended; nothing was left behind
        4 ADD of pod default/web-0 (container 0123456789ab, eth0): /run/netns/a is not a network namespace
            CNI_NETNS must name a network namespace of the pod's own, and terwayd must see the runtime's mounts (in a container: mountPropagation HostToContainer); nothing was done
        8 ADD of pod default/web-0 (container 0123456789ab, eth0): network namespace /run/netns/a is the node's own
            CNI_NETNS must name a network namespace of the pod's own; nothing was done
        4 ADD of pod default/web-0 (container 0123456789ab, eth0): the sandbox is attached already, in network namespace /run/netns/a, not /run/netns/b; a DEL must come first
            nothing was changed
        3 ADD of pod default/web-0 (container 0123456789ab, eth0): the sandbox has no attachment on this node
            it was never added here, or a DEL has removed it; add it again
        7 ADD of pod default/web-0 (container 0123456789ab, eth0): mtu 9000 is above the 1500 of eth1, which carries the pod's frames
            lower `mtu` in the network configuration; nothing was left behind
        11 ADD of pod default/web-0 (container 0123456789ab, eth0): the caller went away
            all was undone; the runtime will try again
        11 ADD of pod default/web-0 (container 0123456789ab, eth0): a DEL of the same sandbox came while it was being added
            all was undone; the runtime will try again
        11 ADD of pod default/web-0 (container 0123456789ab, eth0): the caller's deadline has passed
            all was undone; the runtime will try again; raise `timeout` in the network configuration if it happens often
        11 ADD of pod default/web-0 (container 0123456789ab, eth0): terwayd is stopping
            all was undone; the runtime will try again
        999 ADD of pod default/web-0 (container 0123456789ab, eth0): the kernel refused: link add cali01234567890 type veth: Device or resource busy (os error 16)
            what was begun was undone; the daemon's log has more
        105 ADD of pod default/web-0 (container 0123456789ab, eth0): the kernel cannot do this: filter add dev eth1 egress; needed is CONFIG_NET_CLS_BPF: No such file or directory (os error 2)
            run a kernel that has CONFIG_NET_CLS_BPF; nothing was left behind
        4 ADD of pod default/web-0 (container 0123456789ab, eth0): CNI_IFNAME eth0: the namespace /run/netns/a (CNI_NETNS) has a link eth0 already, which is none of terwayd's
            remove that link, or give another CNI_IFNAME, or give each sandbox a namespace of its own; nothing was left behind
        4 ADD of pod default/web-0 (container 0123456789ab, eth0): CNI_IFNAME eth0: the namespace /run/netns/a (CNI_NETNS) has a link eth0 already, that of sandbox terway/0123456789abcdef0123456789abcdef/eth0
            remove that link, or give another CNI_IFNAME, or give each sandbox a namespace of its own; nothing was left behind
        5 ADD of pod default/web-0 (container 0123456789ab, eth0): the network namespace of sandbox terway/a/eth0: cannot open network namespace /run/netns/a: Permission denied (os error 13)
            terwayd must be root with CAP_SYS_ADMIN, and see the runtime's mounts; nothing was left behind
        999 ADD of pod default/web-0 (container 0123456789ab, eth0): the daemon failed at an unexpected place; its log has the panic
            this is a bug of terwayd; please report it with the log
        "#);
    }

    #[test]
    fn a_check_names_each_difference() {
        let one = subject().differs(&["no link cali0".to_owned()]);
        assert!(one.message.ends_with(": no link cali0"), "{}", one.message);
        let two = subject().differs(&["no link cali0".to_owned(), "no rule".to_owned()]);
        assert_eq!(two.details, "no link cali0\nno rule");
        assert!(two.message.ends_with(": 2 differences to what the pod should have"));
    }

    #[test]
    fn gc_reports_all_that_is_left() {
        let key = |id: &str| SandboxKey { container_id: id.to_owned(), ..subject().key.unwrap() };
        let failures = vec![
            (key("a"), PodError::from(refused())),
            (key("b"), PodError::Interrupted(Interruption::Deadline)),
        ];
        let failure = gc(&GcFailure { removed: 3, failures });
        insta::assert_snapshot!(format!("{}\n{}", failure.message, failure.details), @r#"
        GC: 3 sandboxes removed, 2 not
        terway/a/eth0: the kernel refused: link add cali01234567890 type veth: Device or resource busy (os error 16)
        terway/b/eth0: the caller's deadline has passed
        "#);
    }
}
