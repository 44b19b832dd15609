//! A stranger's filter at 25000, where Cilium would be.

use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TcHandle};

use crate::place::stage;

/// The stranger; it is attached while this lives.
pub(crate) struct Probe {
    ebpf: Ebpf,
    direction: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Seen {
    frames: u64,
    tagged: u64,
}

/// What it saw last.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Last {
    pub(crate) mark: u32,
    pub(crate) length: u32,
    pub(crate) ether_type: u32,
}

#[expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]
mod pod {
    // SAFETY: `repr(C)`, without padding, valid for every bit pattern.
    unsafe impl aya::Pod for super::Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Last {}
}

impl Probe {
    /// Attaches one of the probe's programs at 25000.
    pub(crate) fn attach(link: &str, program: &str) -> Self {
        Self::attach_at(link, program, 25_000)
    }

    /// Attaches one of the probe's programs at another priority.
    pub(crate) fn attach_at(link: &str, program: &str, priority: u16) -> Self {
        // There may be a clsact already.
        drop(qdisc_add_clsact(link));
        let options = NlOptions { priority, handle: TcHandle::new(0, 1), classid: None };
        Self::attach_as(link, program, TcAttachOptions::Netlink(options))
    }

    /// Attaches one of the probe's programs as TCX, which runs before any priority.
    pub(crate) fn attach_tcx(link: &str, program: &str) -> Self {
        Self::attach_as(link, program, TcAttachOptions::TcxOrder(LinkOrder::default()))
    }

    fn attach_as(link: &str, program: &str, options: TcAttachOptions) -> Self {
        let mut ebpf = Ebpf::load_file(stage("probe.bpf.o")).unwrap();
        let egress = program == "probe_egress";
        let direction = if egress { TcAttachType::Egress } else { TcAttachType::Ingress };
        let loaded: &mut SchedClassifier = ebpf.program_mut(program).unwrap().try_into().unwrap();
        loaded.load().unwrap();
        loaded.attach_with_options(link, direction, options).unwrap();
        Self { ebpf, direction: u32::from(egress) }
    }

    /// Frames.
    pub(crate) fn seen(&self) -> u64 {
        self.sums().0
    }

    /// Frames that were tagged.
    pub(crate) fn tagged(&self) -> u64 {
        self.sums().1
    }

    /// The last frame.
    pub(crate) fn last(&self) -> Last {
        let last: Array<_, Last> = self.ebpf.map("LAST").unwrap().try_into().unwrap();
        last.get(&self.direction, 0).unwrap()
    }

    fn sums(&self) -> (u64, u64) {
        let seen: PerCpuArray<_, Seen> = self.ebpf.map("SEEN").unwrap().try_into().unwrap();
        let values = seen.get(&self.direction, 0).unwrap();
        values.iter().fold((0, 0), |sums, cpu| (sums.0 + cpu.frames, sums.1 + cpu.tagged))
    }
}
