//! Frames that a link receives as fast as one CPU makes them, and what they cost up to where they
//! are taken away.
//!
//! An XDP program run by `BPF_PROG_TEST_RUN` with live frames: the link receives each frame as if
//! its driver had it from the wire, and the kernel carries it on in the same thread, up to a tc
//! program that counts it and takes it away.
//!
//! The time is the kernel's own: without its preparations, which take longer than some thousand
//! frames, and without what others had of the CPU. The thread's CPU time says the same.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifier, SchedClassifierLink, TcAttachOptions};
use aya::programs::{TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::traffic::Frame;

/// Of every generated frame; see the eBPF side.
const LENGTH: usize = 64;
/// Frames that the kernel makes at once; what `napi` takes at once.
const BATCH: u32 = 64;

/// The loaded programs; clones are the same.
#[derive(Clone)]
pub struct Generator(Arc<Mutex<Programs>>);

struct Programs {
    ebpf: Ebpf,
    template: Array<MapData, [u64; 8]>,
    taken: PerCpuArray<MapData, u64>,
}

/// Takes generated frames away from a link as long as it lives.
pub struct Sink(
    #[expect(dead_code, reason = "the kernel detaches the program when the last holder closes it")]
    SchedClassifierLink,
);

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").finish_non_exhaustive()
    }
}

impl Generator {
    /// Loads bench.bpf.o.
    pub fn load(object: &Path) -> Result<Self> {
        let loaded = EbpfLoader::new().btf(None).load_file(object);
        let mut ebpf = loaded
            .with_context(|| format!("cannot load {}: run cargo xtask build", object.display()))?;
        generate(&mut ebpf)?.load().context("the kernel refuses the program generate")?;
        take_away(&mut ebpf)?.load().context("the kernel refuses the program take_away")?;
        let mut map = |name: &str| {
            ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))
        };
        let (template, taken) = (map("TEMPLATE")?, map("TAKEN")?);
        let (template, taken) = (Array::try_from(template)?, PerCpuArray::try_from(taken)?);
        Ok(Self(Arc::new(Mutex::new(Programs { ebpf, template, taken }))))
    }

    /// Takes generated frames away where `link` of `place` receives them, before anybody else
    /// sees them.
    pub async fn take_away_at(&self, place: &Namespace, link: &str) -> Result<Sink> {
        let (this, link) = (self.clone(), link.to_owned());
        place
            .run(move || {
                let mut programs = this.programs();
                let program = take_away(&mut programs.ebpf)?;
                let first = TcAttachOptions::TcxOrder(LinkOrder::first());
                let id = program
                    .attach_with_options(&link, TcAttachType::Ingress, first)
                    .with_context(|| format!("cannot attach take_away to {link}"))?;
                Ok(Sink(program.take_link(id)?))
            })
            .await?
    }

    /// Lets `link` of `place` receive `frame` so many times, on one CPU; the CPU's time for one
    /// frame, in nanoseconds. An error if not all of them came to a [`Sink`].
    pub async fn run(
        &self,
        place: &Namespace,
        link: &str,
        frame: &Frame,
        count: u32,
    ) -> Result<f64> {
        let (this, name, bytes) = (self.clone(), link.to_owned(), frame.bytes());
        let ran = place.run(move || this.programs().receive(&name, &bytes, count)).await?;
        ran.with_context(|| format!("{link} in {}", place.name()))
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Programs {
    /// The calling thread dies afterwards: it is bound to one CPU.
    fn receive(&mut self, link: &str, frame: &[u8], count: u32) -> Result<f64> {
        let ifindex = nix::net::if_::if_nametoindex(link).context("there is no such link")?;
        self.template.set(0, words(frame)?, 0)?;
        bind_to_last_cpu()?;
        let context = context(frame.len(), ifindex)?;
        let before = self.taken()?;
        let ran = generate(&mut self.ebpf)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: count,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })
            .context("cannot generate frames")?;
        let taken = self.taken()?.saturating_sub(before);
        anyhow::ensure!(
            taken == u64::from(count),
            "of {count} frames {taken} came through: the others were dropped on their way"
        );
        Ok(ran.duration.as_secs_f64() * 1e9)
    }

    fn taken(&self) -> Result<u64> {
        Ok(self.taken.get(&0, 0)?.iter().sum())
    }
}

fn generate(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(ebpf.program_mut("generate").context("the object has no program generate")?.try_into()?)
}

fn take_away(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    Ok(ebpf.program_mut("take_away").context("the object has no program take_away")?.try_into()?)
}

/// The frame as the template has it.
fn words(frame: &[u8]) -> Result<[u64; 8]> {
    let (words, rest) = frame.as_chunks::<8>();
    let words: Vec<_> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let length = frame.len();
    anyhow::ensure!(rest.is_empty(), "a frame has {LENGTH} bytes, and this one {length}");
    words.try_into().ok().with_context(|| format!("a frame has {LENGTH} bytes, not {length}"))
}

/// `struct xdp_md`: `data`, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`,
/// `egress_ifindex`.
fn context(length: usize, ifindex: u32) -> Result<Vec<u8>> {
    let fields = [0, u32::try_from(length)?, 0, ifindex, 0, 0];
    Ok(fields.into_iter().flat_map(u32::to_ne_bytes).collect())
}

/// The last: the first does more of the machine's own work.
fn bind_to_last_cpu() -> Result<()> {
    let itself = Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(itself)?;
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or_default();
    let last = (0..CpuSet::count()).rev().find(is_allowed).context("no CPU is allowed")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(itself, &one).context("cannot stay on one CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_another_length_is_refused() {
        let frame: Vec<u8> = (0..64).collect();
        assert_eq!(words(&frame).unwrap().map(u64::to_ne_bytes).concat(), frame);
        for length in [0, 63, 65, 72] {
            assert!(words(&vec![0; length]).is_err(), "{length}");
        }
    }
}
