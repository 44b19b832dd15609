//! All tests.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup::{self, Tool};
use crate::{check, step};

/// Checks and tests; with `quick` only the unit tests and what needs no kernel.
pub(crate) fn run(root: &Path, quick: bool, filter: &[String]) -> Result<()> {
    if quick {
        setup::ensure(Tool::FOR_QUICK)?;
        let mut nextest = nextest(filter);
        return step::run_visibly(nextest.args(["--profile", "quick"]));
    }
    if filter.is_empty() {
        check::lints()?;
    }
    setup::ensure(Tool::FOR_DEMO)?;
    setup::ensure(&[Tool::Nextest, Tool::Python, Tool::Containerd])?;
    build::all(root, Profile::Dev)?;
    let mut nextest = nextest(filter);
    nextest
        .env("TERWAY_STAGE", build::stage(root, Profile::Dev))
        .env("TERWAY_CONTAINERD", root.join(setup::containerd_dir()))
        .env("TERWAY_VENV", root.join("target/venv"));
    step::run_visibly(&mut nextest)
}

fn nextest(filter: &[String]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["nextest", "run", "--workspace", "--no-fail-fast"])
        .args(["--exclude", "ebpf", "--exclude", "terway-lab-ebpf"])
        .args(filter);
    cargo
}
