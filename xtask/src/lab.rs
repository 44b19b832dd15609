//! The commands that `terway-lab` carries out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup::{self, Tool};
use crate::step;

/// `terway-lab demo` on optimised binaries.
pub(crate) fn demo(root: &Path, keep: bool, json: Option<PathBuf>) -> Result<()> {
    let mut lab = ready(root)?;
    lab.arg("demo");
    if keep {
        lab.arg("--keep");
    }
    if let Some(file) = json {
        lab.arg("--json").arg(file);
    }
    step::run_visibly(&mut lab)
}

/// `terway-lab bench` on optimised binaries.
pub(crate) fn bench(root: &Path, arguments: &[String]) -> Result<()> {
    setup::ensure(&[Tool::CniPlugins])?;
    let mut lab = ready(root)?;
    step::run_visibly(lab.arg("bench").args(arguments))
}

fn ready(root: &Path) -> Result<Command> {
    setup::ensure(Tool::FOR_DEMO)?;
    build::all(root, Profile::Release)?;
    let stage = build::stage(root, Profile::Release);
    let mut lab = Command::new(stage.join("terway-lab"));
    lab.env("TERWAY_STAGE", &stage);
    Ok(lab)
}
