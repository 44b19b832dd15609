//! The kernel side of the node: desired state -> diff -> ops, for ENIs and pods.
//!
//! `desired` says what the kernel should hold, `diff` what has to be done, both pure;
//! `kernel` reads and runs. One thread (`actor`) owns what is desired; this is the handle to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use model::{EniId, IfName, IpPair, LinkIndex, Mac, Mark, PodRef, SandboxKey, TableId, VlanId};

use crate::bpf::BpfError;
use crate::netns::NetNsError;

/// An ENI whose NIC is plugged into this node, as the cloud describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniSpec {
    /// Its id.
    pub id: EniId,
    /// Whether it carries members.
    pub kind: EniKind,
    /// Finds its link.
    pub mac: Mac,
    /// Its pods' mark.
    pub mark: Mark,
    /// Gateway of its vSwitch, per family.
    pub gateway: IpPair,
}

/// What an ENI carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EniKind {
    /// Untagged frames of shared pods.
    Secondary,
    /// Those, and the tagged ones of members.
    Trunk,
}

/// The link of an ENI, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniLink {
    /// Its index; the table is 1000 + this.
    pub index: LinkIndex,
    /// Its name, as the node calls it.
    pub name: IfName,
    /// Bytes.
    pub mtu: u32,
}

/// A pod that is to have a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The attachment.
    pub key: SandboxKey,
    /// Its pod, under Kubernetes.
    pub pod: Option<PodRef>,
    /// Its namespace.
    pub netns: PathBuf,
    /// Name of the pod's end.
    pub ifname: IfName,
    /// Its addresses.
    pub addresses: IpPair,
    /// The ENI whose link carries its frames: the trunk, for a member's pod.
    pub eni: EniId,
    /// For a member's pod.
    pub member: Option<MemberSpec>,
    /// Bytes; the ENI's if `None`.
    pub mtu: Option<u32>,
    /// Hardware address asked for.
    pub mac: Option<Mac>,
}

/// The member ENI of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// VLAN id on the trunk.
    pub vlan: VlanId,
    /// Its MAC and its gateway's, if it does not use the trunk's.
    pub macs: Option<crate::bpf::MemberMacs>,
}

/// The pod's pair of links, decided before anything is done, so that an intent can name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The host's end: `cali` and 11 hex digits.
    pub host: IfName,
    /// Its index, chosen by us.
    pub host_index: LinkIndex,
    /// Its MAC.
    pub host_mac: Mac,
    /// Index of the pod's end in the pod's namespace, chosen by us.
    pub pod_index: LinkIndex,
    /// Its MAC.
    pub pod_mac: Mac,
    /// Of both ends, bytes.
    pub mtu: u32,
}

/// A pod and its links: what the desired state is made of, and what the checkpoint keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What it is to have.
    pub spec: PodSpec,
    /// By which links.
    pub link: PodLink,
}

/// Why the kernel is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The namespace cannot be opened or entered.
    #[error("namespace of sandbox {key}")]
    Namespace {
        /// Whose.
        key: SandboxKey,
        /// Why.
        #[source]
        source: NetNsError,
    },
    /// The namespace is the daemon's own.
    #[error(
        "network namespace {path} of sandbox {key} is the node's own; give the pod one of its own"
    )]
    OwnNamespace {
        /// Whose.
        key: SandboxKey,
        /// Its path.
        path: PathBuf,
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
    /// The kernel lacks what we need.
    #[error("the kernel cannot do this: {what}; needed is {feature}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// What is missing.
        feature: &'static str,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("the kernel refused: {what}")]
    Refused {
        /// What was tried, in the words of `ip`; names link, ENI or pod.
        what: String,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's state could not be read.
    #[error("cannot read {what} from the kernel")]
    Read {
        /// What.
        what: &'static str,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
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

/// What `repair` found and did, one sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// What was put right.
    pub mended: Vec<String>,
    /// What could not be, and why.
    pub left: Vec<String>,
    /// Pods whose links had to be made anew under other numbers: to be written to the checkpoint.
    pub moved: Vec<(SandboxKey, PodLink)>,
}

/// How packets find the table of their ENI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuleLayout {
    /// By the ENI they came in by, and by the pod's mark: two rules per ENI.
    #[default]
    PerEni,
    /// By the pod's address: two rules per pod and family, where marks cannot be used.
    PerPod,
}

/// How to build the datapath.
#[derive(Debug, Clone)]
pub struct Options {
    /// MAC of the node's primary ENI: its link and addresses are read, never changed.
    pub primary_mac: Mac,
    /// Families.
    pub stack: model::IpStack,
    /// Where the rules go by.
    pub rule_layout: RuleLayout,
    /// The eBPF object file.
    pub object: PathBuf,
    /// Directory of the pins, with the schema version in it.
    pub pins: PathBuf,
}

/// The node's own link and addresses, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: IfName,
    /// Its first global address.
    pub v4: Option<Ipv4Addr>,
    /// Its first global address.
    pub v6: Option<Ipv6Addr>,
}

/// A rule of ours that the kernel has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleView {
    /// Whether it is of IPv6.
    pub v6: bool,
    /// Its priority.
    pub priority: u32,
    /// As `ip rule` prints it, without the priority.
    pub text: String,
    /// The table it looks up, if it does.
    pub table: Option<TableId>,
}

/// Where a filter sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What comes in by the link.
    Ingress,
    /// What leaves by it.
    Egress,
}

/// A filter on one of our links that the kernel has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterView {
    /// The link's name.
    pub link: IfName,
    /// Its index.
    pub index: LinkIndex,
    /// Where.
    pub direction: Direction,
    /// Its priority.
    pub priority: u16,
    /// Its handle.
    pub handle: u32,
    /// Name of its program; the filter's kind if it is no eBPF.
    pub program: String,
    /// Kernel id of its program; 0 if it is no eBPF.
    pub program_id: u32,
    /// Not at one of our places: shown, never touched.
    pub foreign: bool,
}

/// The last of the changes by others that contradict what is desired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// How many there were.
    pub count: u64,
    /// The last, in a sentence.
    pub last: String,
}

/// The datapath: a handle to the one thread that owns what is desired and talks to the kernel.
/// The node's namespace is that of the thread that calls [`start`](Self::start).
#[derive(Debug, Clone)]
pub struct Datapath;

impl Datapath {
    /// Loads the programs and reads the node; changes nothing yet but node-wide sysctls.
    pub async fn start(_options: Options) -> Result<Self, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Waits (at most `wait`) for the ENI's link, brings it up as designed and keeps it so.
    /// All ENIs' tables get all local pods. Again is fine.
    pub async fn set_eni(&self, _eni: EniSpec, _wait: Duration) -> Result<EniLink, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Takes the ENI out of the desired state; a link that is gone is success.
    pub async fn remove_eni(&self, _id: &EniId) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Chooses names, indexes and MACs; no effect.
    pub async fn plan_pod(&self, _spec: &PodSpec) -> Result<PodLink, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Builds the pod's network; rolled back on error. Again is fine. The links are as planned
    /// unless somebody took their numbers meanwhile: what is returned goes to the checkpoint.
    pub async fn add_pod(&self, _pod: Pod) -> Result<PodLink, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Takes it away: routes and map entries at once, the addresses become tombstones, the
    /// link goes to the reaper. What is gone is success.
    pub async fn del_pod(&self, _pod: &Pod) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Removes the tombstones of addresses that have rested.
    pub async fn bury(&self, _addresses: IpPair) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// The addresses that have a tombstone: after a crash those that do not rest are to be buried.
    pub async fn tombstones(&self) -> Result<Vec<IpAddr>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// How the kernel differs from what the pod and its ENI should have, one sentence each.
    pub async fn check_pod(&self, _key: &SandboxKey) -> Result<Vec<String>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// At start: makes these the desired state (ENIs are set before by `set_eni`) without any op.
    pub async fn restore(&self, _pods: Vec<Pod>) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Reads the kernel, and runs the difference to the desired state; removes what is ours and
    /// not desired. The reading does not hold up an ADD.
    pub async fn repair(&self) -> Result<Repairs, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Tells of changes by others that `repair` would undo. Wait for a change, let the dust settle
    /// for some milliseconds, repair.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<Changes> {
        unimplemented!("owner: datapath")
    }

    /// Our rules, as the kernel has them.
    pub async fn rules(&self) -> Result<Vec<RuleView>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// The filters on our links, as the kernel has them.
    pub async fn filters(&self) -> Result<Vec<FilterView>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// The ENIs that were set, and their links as last seen.
    pub async fn enis(&self) -> Result<Vec<(EniSpec, Option<EniLink>)>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// The node's own link and addresses.
    pub async fn primary(&self) -> Result<Primary, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Dropped frames by cause name, summed over CPUs.
    pub async fn drops(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Links that the reaper has still to delete.
    pub fn reaper_queue(&self) -> usize {
        unimplemented!("owner: datapath")
    }
}
