//! The binaries and eBPF objects, side by side in target/stage/PROFILE.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, BpfCompiler};
use crate::step::run;

/// How the daemon and the lab are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests: quick to build.
    Dev,
    /// For the demo, benchmarks and people.
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// Cargo's name of the folder.
    const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Where the binaries of `profile` are put together.
pub(crate) fn stage(root: &Path, profile: Profile) -> PathBuf {
    root.join("target/stage").join(profile.name())
}

/// Everything.
pub(crate) fn all(root: &Path, profile: Profile) -> Result<()> {
    bpf(root, profile)?;
    plugin(root, profile)?;
    daemon_and_lab(root, profile)
}

/// The eBPF objects. They have a target folder of their own: `RUSTC_BOOTSTRAP` would otherwise
/// rebuild the world's build scripts on each change of hands.
pub(crate) fn bpf(root: &Path, profile: Profile) -> Result<()> {
    let target = root.join("target/bpf");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", "bpfel-unknown-none"])
        .args(["--package", "ebpf", "--package", "terway-lab-ebpf", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf");
    match setup::bpf_compiler_here().context("no compiler for eBPF: run cargo xtask setup")? {
        BpfCompiler::RustSrc => {
            cargo.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1");
        }
        BpfCompiler::RustcWeb => {
            cargo.env("RUSTC", "/usr/bin/rustc");
        }
    }
    run("eBPF programs", &mut cargo)?;
    let built = target.join("bpfel-unknown-none/release");
    [
        ("terway", "terway.bpf.o"),
        ("terway-lab", "lab.bpf.o"),
        ("probe", "probe.bpf.o"),
        ("bench", "bench.bpf.o"),
    ]
    .iter()
    .try_for_each(|(name, object)| put(&built.join(name), &stage(root, profile).join(object)))
}

/// The CNI binary and what runs in the lab's containers: static, and always optimised.
fn plugin(root: &Path, profile: Profile) -> Result<()> {
    let target =
        if setup::has_musl() { "x86_64-unknown-linux-musl" } else { "x86_64-unknown-linux-gnu" };
    run(
        "CNI binary and the lab's container",
        Command::new("cargo")
            .args(["build", "--profile", "plugin", "--target", target])
            .args(["--package", "cni-plugin", "--package", "terway-lab-pod"])
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static"),
    )?;
    let built = root.join("target").join(target).join("plugin");
    ["terway", "lab-pod"]
        .iter()
        .try_for_each(|name| put(&built.join(name), &stage(root, profile).join(name)))
}

fn daemon_and_lab(root: &Path, profile: Profile) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--package", "daemon", "--package", "terway-lab", "--bins"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    run(&format!("daemon and lab ({})", profile.name()), &mut cargo)?;
    let built = root.join("target").join(profile.folder());
    ["terwayd", "terwayctl", "terway-lab"]
        .iter()
        .try_for_each(|name| put(&built.join(name), &stage(root, profile).join(name)))
}

/// Copies by rename, so that a process that runs the old file keeps it.
fn put(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("a staged file lies in a folder")?;
    fs::create_dir_all(dir)?;
    let name = to.file_name().and_then(OsStr::to_str).context("a staged file has a name")?;
    let aside = dir.join(format!(".{name}.tmp"));
    fs::copy(from, &aside).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&aside, to).with_context(|| format!("cannot write {}", to.display()))
}
