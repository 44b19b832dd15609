//! What holds the house style: formatting, lints, documentation, dependencies.

use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Tool};
use crate::step;

/// The eBPF crates build for their own target only.
const HOST: [&str; 5] = ["--workspace", "--exclude", "ebpf", "--exclude", "terway-lab-ebpf"];

/// All of it.
pub(crate) fn run() -> Result<()> {
    lints()?;
    setup::ensure(&[Tool::Deny, Tool::Machete])?;
    step::run(
        "cargo doc",
        Command::new("cargo")
            .args(["doc", "--no-deps", "--document-private-items"])
            .args(HOST)
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    step::run(
        "cargo deny",
        Command::new("cargo").args(["deny", "check", "bans", "licenses", "sources"]),
    )?;
    step::run("cargo machete", Command::new("cargo").arg("machete"))
}

/// The part that `cargo xtask test` runs too.
pub(crate) fn lints() -> Result<()> {
    setup::ensure(&[Tool::Lints])?;
    step::run("cargo fmt --check", Command::new("cargo").args(["fmt", "--all", "--check"]))?;
    step::run(
        "cargo clippy",
        Command::new("cargo").arg("clippy").args(HOST).args([
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    )
}
