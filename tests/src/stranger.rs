//! A stranger's tc program at 25000, where Cilium would be: it looks, or it overwrites the whole
//! mark, and lets every frame pass.

use std::fmt;
use std::mem::ManuallyDrop;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{HashMap, MapError};
use aya::programs::TcAttachType;
use aya::programs::links::Link as _;
use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use terway_lab_ebpf_common::{Stream, map};

use crate::driver::staged;
use crate::node::Node;

pub use terway_lab_ebpf_common::Numbered;

/// Where the stranger sits.
pub const PRIORITY: u16 = 25_000;

/// What the stranger does, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Looks at what comes in.
    WatchIngress,
    /// Looks at what goes out.
    WatchEgress,
    /// Sets every bit of the mark of what comes in.
    OverwriteMark,
}

impl Deed {
    const fn program(self) -> &'static str {
        match self {
            Self::WatchIngress => "probe_ingress",
            Self::WatchEgress => "probe_egress",
            Self::OverwriteMark => "probe_mark",
        }
    }

    const fn direction(self) -> (TcAttachType, u32) {
        match self {
            Self::WatchIngress | Self::OverwriteMark => (TcAttachType::Ingress, 0),
            Self::WatchEgress => (TcAttachType::Egress, 1),
        }
    }
}

/// A stranger on one link. It stays until it leaves or the link goes.
pub struct Stranger {
    node: Node,
    deed: Deed,
    ebpf: Ebpf,
    /// aya would detach it on drop, in whatever namespace that happens.
    link: ManuallyDrop<SchedClassifierLink>,
}

impl fmt::Debug for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stranger")
            .field("node", &self.node.name())
            .field("deed", &self.deed)
            .finish_non_exhaustive()
    }
}

impl Stranger {
    /// Attaches a program of its own to a link of the node.
    pub async fn attach(node: &Node, link: &str, deed: Deed) -> Result<Self> {
        let name = link.to_owned();
        let attached = node.run(move || attach(&name, deed)).await?;
        let (ebpf, link) = attached.with_context(|| format!("a stranger cannot sit on {link}"))?;
        Ok(Self { node: node.clone(), deed, ebpf, link: ManuallyDrop::new(link) })
    }

    /// What it saw of the numbered datagrams to a port.
    pub fn stream(&self, port: u16) -> Result<Numbered> {
        let streams = self.ebpf.map(map::STREAMS).context("the stranger has no map of streams")?;
        let streams: HashMap<_, Stream, Numbered> = HashMap::try_from(streams)?;
        let (_, direction) = self.deed.direction();
        match streams.get(&Stream { direction, port: port.into() }, 0) {
            Err(MapError::KeyNotFound) => Ok(Numbered::default()),
            found => Ok(found?),
        }
    }

    /// Detaches it.
    pub async fn leave(self) -> Result<()> {
        let Self { node, link, ebpf, .. } = self;
        node.run(move || {
            let left = ManuallyDrop::into_inner(link).detach();
            drop(ebpf);
            left
        })
        .await?
        .context("a stranger cannot leave")
    }
}

fn attach(link: &str, deed: Deed) -> Result<(Ebpf, SchedClassifierLink)> {
    // There is a clsact on every link that is the daemon's.
    drop(qdisc_add_clsact(link));
    let object = staged("probe.bpf.o")?;
    // As in `fabric::programs`: without the kernel's BTF.
    let mut ebpf = aya::EbpfLoader::new().btf(None).load_file(&object)?;
    let program = ebpf.program_mut(deed.program());
    let program: &mut SchedClassifier =
        program.context("the stranger's object lacks a program")?.try_into()?;
    program.load()?;
    let handle = TcHandle::new(0, 1);
    let options = NlOptions { priority: PRIORITY, handle, classid: None };
    let (direction, _) = deed.direction();
    let id = program.attach_with_options(link, direction, TcAttachOptions::Netlink(options))?;
    let link = program.take_link(id)?;
    Ok((ebpf, link))
}
