//! The kernel side of the node: desired state -> diff -> ops, for ENIs and pods.

use std::path::PathBuf;

use model::{EniId, IfName, IpPair, LinkIndex, Mac, Mark, PodRef, SandboxKey, VlanId};

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
#[error("datapath")]
pub struct DatapathError;

/// What `repair` did, one line each.
pub type Repairs = Vec<String>;

/// How to build the datapath.
#[derive(Debug, Clone)]
pub struct Options {
    /// MAC of the node's primary ENI: its link and addresses are read, never changed.
    pub primary_mac: Mac,
    /// Families.
    pub stack: model::IpStack,
    /// The eBPF object file.
    pub object: PathBuf,
    /// Directory of the pins, with the schema version in it.
    pub pins: PathBuf,
}

/// The datapath: a handle to the one task that owns what is desired and talks to the kernel.
#[derive(Debug, Clone)]
pub struct Datapath;

impl Datapath {
    /// Loads the programs and reads the node; changes nothing yet but node-wide sysctls.
    pub async fn start(_options: Options) -> Result<Self, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Waits (at most `wait`) for the ENI's link, brings it up as designed and keeps it so.
    /// All ENIs' tables get all local pods.
    pub async fn set_eni(
        &self,
        _eni: EniSpec,
        _wait: std::time::Duration,
    ) -> Result<EniLink, DatapathError> {
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

    /// Builds the pod's network; rolled back on error. Again is fine.
    pub async fn add_pod(&self, _pod: Pod) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Takes it away: routes and map entries at once, the trunk's entries become tombstones, the
    /// link goes to the reaper. What is gone is success.
    pub async fn del_pod(&self, _pod: &Pod) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Removes the tombstones of addresses that have rested.
    pub async fn bury(&self, _addresses: IpPair) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// How the kernel differs from what the pod should have, one sentence each.
    pub async fn check_pod(&self, _key: &SandboxKey) -> Result<Vec<String>, DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// At start: makes these the desired state (ENIs are set before by `set_eni`) without any op.
    pub async fn restore(&self, _pods: Vec<Pod>) -> Result<(), DatapathError> {
        unimplemented!("owner: datapath")
    }

    /// Reads the kernel, and runs the difference to the desired state; removes what is ours and
    /// not desired.
    pub async fn repair(&self) -> Result<Repairs, DatapathError> {
        unimplemented!("owner: datapath")
    }
}
