//! TCX: programs attached so run before `clsact`, at whatever priority.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use model::LinkIndex;
use nix::net::if_::if_indextoname;

use super::{BpfError, Program};

/// `vlan_untag` runs before these TCX programs as well, or they would see tagged frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preceded {
    /// The trunk.
    pub link: LinkIndex,
    /// Kernel ids and names of the others' programs.
    pub programs: Vec<(u32, String)>,
}

type Failure = Box<dyn Error + Send + Sync>;

/// See [`Bpf::precede_tcx`](super::Bpf::precede_tcx).
pub(super) fn precede(
    untag: &mut SchedClassifier,
    trunk: LinkIndex,
    pins: &Path,
) -> Result<Option<Preceded>, BpfError> {
    try_precede(untag, trunk, pins).map_err(|source| BpfError::Tcx { link: trunk, source })
}

fn try_precede(
    untag: &mut SchedClassifier,
    trunk: LinkIndex,
    pins: &Path,
) -> Result<Option<Preceded>, Failure> {
    let name = if_indextoname(trunk.get())?.into_string()?;
    let pin = pins.join(format!("tcx_{trunk}"));
    let programs = foreign(&name);
    if programs.is_empty() {
        // `vlan_untag` at 20000 is enough again, and this one would be of an old version some day.
        remove(&pin)?;
        return Ok(None);
    }
    if !update(untag, &pin) {
        create(untag, &name, &pin)?;
    }
    Ok(Some(Preceded { link: trunk, programs }))
}

/// Programs of others. A kernel without TCX (before 6.6) has none, and refuses the question.
fn foreign(name: &str) -> Vec<(u32, String)> {
    let Ok((_revision, programs)) = SchedClassifier::query_tcx(name, TcAttachType::Ingress) else {
        return Vec::new();
    };
    let named = programs
        .iter()
        .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()));
    named.filter(|(_id, name)| name != Program::VlanUntag.name()).collect()
}

/// Swaps the program of the pinned link; false if there is none, or it is of a link that is gone.
fn update(untag: &mut SchedClassifier, pin: &Path) -> bool {
    let Ok(pinned) = PinnedLink::from_pin(pin) else {
        return false;
    };
    let Ok(link) = SchedClassifierLink::try_from(FdLink::from(pinned)) else {
        return false;
    };
    // The pin keeps the link when aya lets go of it.
    untag.attach_to_link(link).and_then(|id| untag.take_link(id)).is_ok()
}

fn create(untag: &mut SchedClassifier, name: &str, pin: &Path) -> Result<(), Failure> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = untag.attach_with_options(name, TcAttachType::Ingress, first)?;
    let link = FdLink::try_from(untag.take_link(id)?)?;
    remove(pin)?;
    drop(link.pin(pin)?);
    Ok(())
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
