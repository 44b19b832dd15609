//! The kernel side of the node: desired state -> diff -> ops, for ENIs and pods.
//!
//! `desired` says what the kernel should hold, `diff` what has to be done, both pure;
//! `kernel` reads and runs. One thread (`actor`) owns what is desired; this is the handle to it.

mod actor;
mod desired;
mod diff;
mod error;
mod foreign;
mod kernel;
mod names;
mod reaper;
mod repair;
mod rest;
mod shared;
#[cfg(test)]
mod tests;
mod trunk;
mod types;
mod worker;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use model::{EniId, IfName, IpPair, LinkIndex, Mac, Mark, PodRef, SandboxKey, TableId, VlanId};

pub use crate::bpf::Direction;
use actor::{Actor, Threads};
pub use error::DatapathError;
use kernel::survey::{self, Survey};
use repair::Mended;
use types::{Dev, Verdict};

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
    /// Bytes, as it came: a change by others is put right.
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

/// What `repair` found and did, one sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// What was put right.
    pub mended: Vec<String>,
    /// What could not be, and why.
    pub left: Vec<String>,
    /// Pods whose links had to be made anew under other numbers: to be written to the checkpoint.
    pub moved: Vec<(SandboxKey, PodLink)>,
    /// ENIs whose link is gone.
    pub unplugged: Vec<EniId>,
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
    /// What the rules go by.
    pub rule_layout: RuleLayout,
    /// The bits of the packet mark that are ours, as in every ENI's mark.
    pub mark_mask: u32,
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
pub struct Datapath(Threads);

/// An ENI's link that is looked for in vain is looked for again when a link comes, and this often
/// at least: an event may be lost.
const LOOK: Duration = Duration::from_secs(1);
/// Some ops have effects of their own: what a round has changed is looked at in the next.
const ROUNDS: u32 = 4;
/// How often a survey that was overtaken by an ADD is taken again beside the owner's thread.
const SURVEYS: u32 = 3;

impl Datapath {
    /// Loads the programs and reads the node; changes nothing yet but node-wide sysctls.
    pub async fn start(options: Options) -> Result<Self, DatapathError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("datapath-start".to_owned());
        thread
            .spawn(move || drop(reply.send(actor::start(&options))))
            .map_err(|source| DatapathError::Read { what: "the first thread", source })?;
        answer.await.map_err(|_ended| DatapathError::Stopped)?.map(Self)
    }

    /// Waits (at most `wait`) for the ENI's link, brings it up as designed and keeps it so.
    /// All ENIs' tables get all local pods. Again is fine.
    pub async fn set_eni(&self, eni: EniSpec, wait: Duration) -> Result<EniLink, DatapathError> {
        let mut links = self.0.links.clone();
        let enough = tokio::time::sleep(wait);
        tokio::pin!(enough);
        loop {
            links.borrow_and_update();
            let found = self.0.reader.ask(|()| survey::links()).await??;
            let spec = eni.clone();
            let set = self.0.owner.ask(move |actor| actor.set_eni(&spec, &found)).await??;
            if let Some(link) = set {
                return Ok(link);
            }
            // All of them may be dropped: none holds anything.
            tokio::select! {
                () = &mut enough => {
                    return Err(DatapathError::NoLink { eni: eni.id, mac: eni.mac, waited: wait });
                }
                _ = tokio::time::timeout(LOOK, links.changed()) => {}
            }
        }
    }

    /// Takes the ENI out of the desired state; a link that is gone is success.
    pub async fn remove_eni(&self, id: &EniId) -> Result<(), DatapathError> {
        let id = id.clone();
        self.0.owner.ask(move |actor| actor.remove_eni(&id)).await?
    }

    /// Chooses names, indexes and MACs; no effect.
    pub async fn plan_pod(&self, spec: &PodSpec) -> Result<PodLink, DatapathError> {
        let spec = spec.clone();
        self.0.owner.ask(move |actor| actor.plan_pod(&spec)).await?
    }

    /// Builds the pod's network; rolled back on error. Again is fine. The links are as planned
    /// unless somebody took their numbers meanwhile: what is returned goes to the checkpoint.
    pub async fn add_pod(&self, pod: Pod) -> Result<PodLink, DatapathError> {
        self.0.owner.ask(move |actor| actor.add_pod(pod)).await?
    }

    /// Takes it away: routes and map entries at once, the addresses become tombstones, the
    /// link goes to the reaper. What is gone is success.
    pub async fn del_pod(&self, pod: &Pod) -> Result<(), DatapathError> {
        let pod = pod.clone();
        self.0.owner.ask(move |actor| actor.del_pod(&pod)).await?
    }

    /// Links of pods that stand and are of none of these sandboxes.
    pub async fn links_of_others(
        &self,
        known: BTreeSet<SandboxKey>,
    ) -> Result<Vec<IfName>, DatapathError> {
        let links = self.0.reader.ask(|()| survey::links()).await??;
        let known: BTreeSet<String> = known.iter().map(names::alias).collect();
        let others = links.into_iter().filter(|link| survey::is_standing_pod(link, &known));
        Ok(others.map(|link| link.dev.name).collect())
    }

    /// How the kernel differs from what the pod and its ENI should have, one sentence each.
    pub async fn check_pod(&self, key: &SandboxKey) -> Result<Vec<String>, DatapathError> {
        let (asked, key) = (key.clone(), key.clone());
        let scope = self.0.owner.ask(move |actor| actor.pod_scope(&asked)).await??;
        let survey = self.0.reader.ask(move |()| Survey::take(&scope)).await??;
        self.0.owner.ask(move |actor| actor.check(&key, &survey)).await?
    }

    /// At start: makes these the desired state (ENIs are set before by `set_eni`) without any op.
    pub async fn restore(&self, pods: Vec<Pod>) -> Result<(), DatapathError> {
        self.0.owner.ask(move |actor| actor.restore(pods)).await?
    }

    /// Reads the kernel, and runs the difference to the desired state; removes what is ours and
    /// not desired. The reading does not hold up an ADD.
    pub async fn repair(&self) -> Result<Repairs, DatapathError> {
        let mut total = Repairs::default();
        for _ in 0..ROUNDS {
            let (repairs, again) = self.mend().await?;
            total.mended.extend(repairs.mended);
            total.moved.extend(repairs.moved);
            total.left = repairs.left;
            total.unplugged = repairs.unplugged;
            if !again {
                break;
            }
        }
        Ok(total)
    }

    async fn mend(&self) -> Result<(Repairs, bool), DatapathError> {
        for _ in 0..SURVEYS {
            let (scope, generation) = self.0.owner.ask(|actor| actor.scope()).await?;
            let survey = self.0.reader.ask(move |()| Survey::take(&scope)).await??;
            let mend = move |actor: &mut Actor| actor.mend(&survey, Some(generation));
            if let Mended::Done { repairs, again } = self.0.owner.ask(mend).await?? {
                return Ok((repairs, again));
            }
        }
        let mend = |actor: &mut Actor| {
            let survey = Survey::take(&actor.scope().0)?;
            actor.mend(&survey, None)
        };
        match self.0.owner.ask(mend).await?? {
            Mended::Done { repairs, again } => Ok((repairs, again)),
            Mended::Stale => Ok((Repairs::default(), false)),
        }
    }

    /// Tells of changes by others that `repair` would undo. Wait for a change, let the dust settle
    /// for some milliseconds, repair.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<Changes> {
        self.0.changes.clone()
    }

    /// Our rules, as the kernel has them.
    pub async fn rules(&self) -> Result<Vec<RuleView>, DatapathError> {
        let rules = self.0.reader.ask(|()| survey::rules()).await??;
        Ok(rules.iter().map(RuleView::from).collect())
    }

    /// The filters on our links, as the kernel has them.
    pub async fn filters(&self) -> Result<Vec<FilterView>, DatapathError> {
        let devs = self.0.owner.ask(|actor| actor.devs()).await?;
        self.0.reader.ask(move |()| survey::filters(&devs)).await?
    }

    /// Somebody else's filters on our links that run before one of ours, as the last repair saw
    /// them, one phrase each: where they end the chain, ours does not run.
    pub async fn foreign_ahead(&self) -> Result<Vec<String>, DatapathError> {
        self.0.owner.ask(|actor| actor.foreign_ahead()).await
    }

    /// The ENIs that were set, and their links as last seen.
    pub async fn enis(&self) -> Result<Vec<(EniSpec, Option<EniLink>)>, DatapathError> {
        self.0.owner.ask(|actor| actor.enis()).await
    }

    /// The node's own link and addresses.
    pub async fn primary(&self) -> Result<Primary, DatapathError> {
        self.0.owner.ask(|actor| actor.primary()).await
    }

    /// Dropped frames by cause name, summed over CPUs.
    pub async fn drops(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        self.0.owner.ask(|actor| actor.drops()).await?
    }

    /// Links that the reaper has still to delete.
    pub fn reaper_queue(&self) -> usize {
        self.0.reaper.queued()
    }
}

impl EniLink {
    /// As found. Its MTU stays what it was when the link came, and repair sees to that: pods were
    /// given it.
    fn seen(known: Option<&Self>, found: &survey::Link) -> Self {
        let Dev { index, name } = found.dev.clone();
        let known = known.filter(|known| known.index == index);
        Self { index, name, mtu: known.map_or(found.mtu, |known| known.mtu) }
    }
}

impl PodSpec {
    /// Whether the pod reaches by this interface whatever it has no other route to. Runtimes give
    /// this name to a pod's first interface; a further one leaves that way alone.
    pub fn is_first(&self) -> bool {
        self.ifname.as_str() == "eth0"
    }
}

impl Pod {
    fn has(&self, address: IpAddr) -> bool {
        self.spec.addresses.iter().any(|own| own == address)
    }

    /// Whether both have an address, or a member, in common: two sandboxes of one pod may overlap.
    fn shares_with(&self, other: &Self) -> bool {
        let address = other.spec.addresses.iter().any(|address| self.has(address));
        let vlan = |pod: &Self| pod.spec.member.as_ref().map(|member| member.vlan);
        let member = vlan(self).is_some() && vlan(self) == vlan(other);
        address || (member && self.spec.eni == other.spec.eni)
    }
}

impl From<&types::Rule> for RuleView {
    fn from(rule: &types::Rule) -> Self {
        let table = match rule.verdict {
            Verdict::Lookup(table) | Verdict::LookupNoDefault(table) => Some(table),
            Verdict::Unreachable => None,
        };
        let v6 = rule.family == types::Family::V6;
        Self { v6, priority: rule.priority, text: rule.text(), table }
    }
}
