//! Why the programs could not be used.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use model::{LinkIndex, OutOfRange};
use nix::libc::ENODEV;

use super::Program;

/// Why the programs could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object file is missing or unreadable.
    #[error("cannot read the eBPF object {path}: give its path with --bpf-object")]
    ReadObject {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object file is not one that this kernel takes.
    #[error("cannot load the eBPF object {path}")]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<EbpfError>,
    },
    /// The object file is of another version.
    #[error("the eBPF object has no program {}: take the object of this version", .0.name())]
    NoProgram(Program),
    /// The object file is of another version.
    #[error("the eBPF object has no map {0}: take the object of this version")]
    NoMap(&'static str),
    /// The directory of pins cannot be made or read.
    #[error("cannot use the directory of pins {path}")]
    Pins {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Pins live only on a BPF file system.
    #[error("{path} is not on a BPF file system: run `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// A map of another shape is pinned.
    #[error(transparent)]
    PinShape(Box<PinShape>),
    /// A program cannot be pinned.
    #[error("cannot pin program {} at {path}", .program.name())]
    PinProgram {
        /// Which.
        program: Program,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: PinError,
    },
    /// A program cannot be loaded or attached.
    #[error("program {}", .program.name())]
    Program {
        /// Which.
        program: Program,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map cannot be read or written.
    #[error("map {map}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A map holds what this daemon never writes.
    #[error("a pinned map holds what this version never writes: remove the pins")]
    Entry(#[from] OutOfRange),
    /// The number of CPUs is not known.
    #[error("cannot count the possible CPUs")]
    Cpus(#[source] io::Error),
    /// The kernel refuses a filter.
    #[error("cannot {what} the tc filters of link {link}")]
    Filter {
        /// What was tried.
        what: &'static str,
        /// The link.
        link: LinkIndex,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TCX cannot be used, though there is a TCX program.
    #[error("cannot put vlan_untag before the TCX programs of link {link}")]
    Tcx {
        /// The link.
        link: LinkIndex,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The buffer of events cannot be waited for.
    #[error("cannot read drop events")]
    Events(#[source] io::Error),
}

/// A map of another shape is pinned.
#[derive(Debug, thiserror::Error)]
#[error(
    "map {map} pinned at {pin} has {what} {found}, this version wants {wanted}: \
     remove the pin (pods are without a network until the daemon has started again)"
)]
pub struct PinShape {
    /// Its name.
    pub map: &'static str,
    /// Its pin.
    pub pin: PathBuf,
    /// Which property differs.
    pub what: &'static str,
    /// What the pinned map has.
    pub found: String,
    /// What it should have.
    pub wanted: String,
}

impl BpfError {
    /// Whether it failed because the link does not exist (any more).
    pub fn is_link_gone(&self) -> bool {
        matches!(self, Self::Filter { source, .. } if source.raw_os_error() == Some(ENODEV))
    }

    /// Names the map.
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { map, source }
    }

    /// Names the program.
    pub(super) fn program(program: Program) -> impl Fn(ProgramError) -> Self {
        move |source| Self::Program { program, source: Box::new(source) }
    }
}
