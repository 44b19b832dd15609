//! What holds the house style: formatting, lints, documentation, dependencies, generated files.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::setup::{self, Tool};
use crate::step;

/// They build for their own target only; `cargo xtask build` does it.
const FOR_BPF: [&str; 2] = ["ebpf", "terway-lab-ebpf"];

/// All of it.
pub(crate) fn run() -> Result<()> {
    let packages = packages()?;
    lints()?;
    setup::ensure(&[Tool::Deny, Tool::Machete])?;
    step::run(
        "cargo doc",
        host("doc")
            .args(["--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    step::run(
        "cargo deny",
        Command::new("cargo").args(["deny", "check", "bans", "licenses", "sources"]),
    )?;
    // With this of ours it takes itself for no subcommand, and its name for a folder.
    let mut machete = Command::new("cargo");
    step::run("cargo machete", machete.arg("machete").env_remove("CARGO_PKG_NAME"))?;
    packages.iter().try_for_each(|package| {
        step::run(
            &format!("{package} alone"),
            Command::new("cargo").args(["check", "--all-targets", "--package", package]),
        )
    })
}

/// The part that `cargo xtask test` runs too.
pub(crate) fn lints() -> Result<()> {
    setup::ensure(&[Tool::Lints])?;
    step::run("cargo fmt --check", Command::new("cargo").args(["fmt", "--all", "--check"]))?;
    step::run("cargo clippy", host("clippy").args(["--all-targets", "--", "--deny", "warnings"]))
}

/// For all packages but those of the eBPF target.
fn host(command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args([command, "--workspace"]);
    for package in FOR_BPF {
        cargo.args(["--exclude", package]);
    }
    cargo
}

/// The workspace's packages, but those of the eBPF target. Fails if Cargo.lock, the one generated
/// file that is kept, is not what Cargo would write now; go.sum is held by the Go build.
fn packages() -> Result<Vec<String>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("Cargo.lock is not up to date: commit what `cargo metadata` makes of it");
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    let ours = packages.filter(|package| package.get("source").is_some_and(Value::is_null));
    let names = ours.filter_map(|package| package.get("name")?.as_str());
    Ok(names.filter(|name| !FOR_BPF.contains(name)).map(str::to_owned).collect())
}
