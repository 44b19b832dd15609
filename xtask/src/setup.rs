//! What a fresh Debian 12 with rustup (and Go) lacks. Each step looks first and is skipped when
//! done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::step::{run, say};

/// Something that is installed at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Debian's packages for building.
    Packages,
    /// Debian's packages that the lab and its assertions use.
    LabPackages,
    /// A compiler for bpfel-unknown-none.
    BpfCompiler,
    /// bpf-linker against LLVM 22.
    BpfLinker,
    /// The target of the static plugin.
    Musl,
    /// The test runner.
    Nextest,
    /// rustfmt and clippy.
    Lints,
    /// cargo-deny.
    Deny,
    /// cargo-machete.
    Machete,
    /// The official Python SDK of the cloud, in target/venv.
    Python,
    /// containerd, its shim, ctr and cnitool, built from Go modules, and Debian's runc.
    Containerd,
    /// Debian's CNI plugins: what ours is measured beside.
    CniPlugins,
}

const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

impl Tool {
    pub(crate) const FOR_BPF: &[Self] = &[Self::Packages, Self::BpfCompiler, Self::BpfLinker];
    pub(crate) const FOR_BUILD: &[Self] =
        &[Self::Packages, Self::BpfCompiler, Self::BpfLinker, Self::Musl];
    pub(crate) const FOR_DEMO: &[Self] =
        &[Self::Packages, Self::LabPackages, Self::BpfCompiler, Self::BpfLinker, Self::Musl];
    pub(crate) const FOR_QUICK: &[Self] = &[Self::Nextest];
    pub(crate) const ALL: &[Self] = &[
        Self::Packages,
        Self::LabPackages,
        Self::BpfCompiler,
        Self::BpfLinker,
        Self::Musl,
        Self::Nextest,
        Self::Lints,
        Self::Deny,
        Self::Machete,
        Self::Python,
        Self::Containerd,
        Self::CniPlugins,
    ];
}

/// Installs what is missing of `tools`, in their order.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    tools.iter().try_for_each(|tool| match tool {
        Tool::Packages => packages(
            "build packages, about 1 min",
            &["llvm-22-dev", "libzstd-dev", "zlib1g-dev", "gcc"],
        ),
        Tool::LabPackages => packages(
            "lab packages, about 20 s",
            &[
                "iproute2",
                "nftables",
                "bpftool",
                "conntrack",
                "util-linux",
                "ethtool",
                "iputils-ping",
            ],
        ),
        Tool::BpfCompiler => bpf_compiler(),
        Tool::BpfLinker => bpf_linker(),
        Tool::Musl => {
            musl();
            Ok(())
        }
        Tool::Nextest => cargo_install(
            "cargo-nextest",
            "0.9.151",
            "4 min",
            &["--no-default-features", "--features", "default-no-update"],
        ),
        Tool::Lints => lints(),
        Tool::Deny => cargo_install("cargo-deny", "0.20.2", "5 min", &[]),
        Tool::Machete => cargo_install("cargo-machete", "0.9.2", "1 min", &[]),
        Tool::Python => python(),
        Tool::Containerd => containerd(),
        Tool::CniPlugins => {
            packages("the reference CNI plugins, about 10 s", &["containernetworking-plugins"])
        }
    })
}

/// How the eBPF programs are compiled on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BpfCompiler {
    /// The pinned toolchain with its own `core` built from rust-src.
    RustSrc,
    /// Debian's rustc-web with a prebuilt `core`: where rustup's server does not answer.
    RustcWeb,
}

/// Which compiler is there.
pub(crate) fn bpf_compiler_here() -> Option<BpfCompiler> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if source.exists() {
        Some(BpfCompiler::RustSrc)
    } else if Path::new("/usr/lib/rustlib/bpfel-unknown-none").exists() {
        Some(BpfCompiler::RustcWeb)
    } else {
        None
    }
}

/// Whether the musl target is there; without it the plugin is linked statically with glibc.
pub(crate) fn has_musl() -> bool {
    let libdir = output(Command::new("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        "x86_64-unknown-linux-musl",
    ]));
    libdir.is_some_and(|dir| {
        fs::read_dir(dir.trim()).is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
            })
        })
    })
}

fn packages(title: &str, names: &[&str]) -> Result<()> {
    let missing: Vec<_> = names.iter().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if nix_uid() != Some(0) {
        let names: Vec<_> = missing.iter().map(|name| **name).collect();
        bail!("not root; install by hand: apt-get install --yes {}", names.join(" "));
    }
    run("apt-get update", Command::new("apt-get").args(["update", "--quiet"]))?;
    run(
        title,
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn installed(package: &str) -> bool {
    let query = output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}", package]));
    query.is_some_and(|status| status.starts_with("ii"))
}

fn nix_uid() -> Option<u32> {
    output(Command::new("id").arg("-u"))?.trim().parse().ok()
}

fn bpf_compiler() -> Result<()> {
    if bpf_compiler_here().is_some() {
        return Ok(());
    }
    let rustup = run(
        "rust-src by rustup, about 10 s",
        Command::new("timeout").args(["120", "rustup", "component", "add", "rust-src"]),
    );
    if rustup.is_ok() {
        return Ok(());
    }
    say("rustup's server does not answer; Debian's rustc-web serves");
    packages("rustc-web, about 30 s", &["rustc-web", "libstd-rust-web-dev-bpf"])
}

fn bpf_linker() -> Result<()> {
    if cargo_version("bpf-linker").as_deref() == Some(BPF_LINKER) {
        return Ok(());
    }
    run(
        "bpf-linker, about 1 min",
        Command::new("cargo")
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM),
    )
}

/// Without the target there is another way, so this cannot fail.
fn musl() {
    if has_musl() {
        return;
    }
    let rustup = run(
        "musl target by rustup, about 10 s",
        Command::new("timeout").args([
            "120",
            "rustup",
            "target",
            "add",
            "x86_64-unknown-linux-musl",
        ]),
    );
    if rustup.is_err() {
        say("rustup's server does not answer; the plugin will be linked statically with glibc");
    }
}

fn lints() -> Result<()> {
    let works = |tool: &str| output(Command::new("cargo").args([tool, "--version"])).is_some();
    if works("clippy") && works("fmt") {
        return Ok(());
    }
    run(
        "clippy and rustfmt by rustup, about 10 s",
        Command::new("rustup").args(["component", "add", "clippy", "rustfmt"]),
    )
}

fn cargo_install(name: &str, version: &str, time: &str, arguments: &[&str]) -> Result<()> {
    if cargo_version(name).is_some() {
        return Ok(());
    }
    run(
        &format!("{name}, about {time}"),
        Command::new("cargo")
            .args(["install", name, "--version", version, "--locked"])
            .args(arguments),
    )
}

/// The version of a binary that `cargo install` made.
fn cargo_version(name: &str) -> Option<String> {
    let list = output(Command::new("cargo").args(["install", "--list"]))?;
    let line = list.lines().find_map(|line| line.strip_prefix(&format!("{name} v")))?;
    Some(line.trim_end_matches(':').to_owned())
}

fn python() -> Result<()> {
    let requirements = Path::new("tests/python/requirements.txt");
    let venv = Path::new("target/venv");
    let stamp = venv.join("requirements.txt");
    let wanted = fs::read(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    if output(Command::new("python3").args(["-c", "import ensurepip"])).is_none() {
        packages("python3-venv, about 20 s", &["python3-venv"])?;
    }
    run("Python environment, about 10 s", Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    run(
        "the cloud's Python SDK, about 1 min",
        Command::new(venv.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(requirements),
    )?;
    fs::copy(requirements, &stamp)?;
    Ok(())
}

/// Where the container runtime's binaries lie.
pub(crate) fn containerd_dir() -> PathBuf {
    PathBuf::from("target/containerd")
}

fn containerd() -> Result<()> {
    packages(
        "runc and the reference CNI plugins, about 10 s",
        &["runc", "containernetworking-plugins"],
    )?;
    let dir = containerd_dir();
    let stamp = dir.join("go.sum");
    let module = Path::new("tests/cluster/containerd");
    let wanted = fs::read(module.join("go.sum"))
        .with_context(|| format!("cannot read {}/go.sum", module.display()))?;
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    fs::create_dir_all(&dir)?;
    let out = fs::canonicalize(&dir)?;
    run(
        "containerd and cnitool from Go modules, about 2 min",
        Command::new("go")
            .args(["build", "-trimpath", "-tags", "no_btrfs", "-ldflags", "-s -w", "-o"])
            .arg(&out)
            .args([
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
                "github.com/containernetworking/cni/cnitool",
            ])
            .current_dir(module)
            .env("CGO_ENABLED", "0"),
    )?;
    fs::write(&stamp, wanted)?;
    Ok(())
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
