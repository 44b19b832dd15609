//! `cargo xtask`: everything that is done to this repository, each command with the set-up that it
//! needs and no more.

mod build;
mod check;
mod lab;
mod setup;
mod simulate;
mod step;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::build::Profile;
use crate::setup::Tool;

/// Set up, build, show, test and measure terway-rs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what a fresh Debian 12 with rustup (and Go, for containerd) lacks.
    Setup {
        /// Only what `demo` needs: neither Go, Python nor the test runner.
        #[arg(long)]
        demo: bool,
        /// Only the Python SDK of the cloud.
        #[arg(long)]
        python: bool,
        /// Only containerd, runc and cnitool.
        #[arg(long)]
        containerd: bool,
    },
    /// Build the binaries and eBPF objects into target/stage/PROFILE (dev or release).
    Build {
        /// Optimised, into target/stage/release (the plugin always is).
        #[arg(long)]
        release: bool,
        /// Only the eBPF objects.
        #[arg(long)]
        bpf: bool,
    },
    /// Show the main job: a lab of two nodes, pods in both modes, who reaches whom.
    Demo {
        /// Leave the lab up and say how to look around.
        #[arg(long)]
        keep: bool,
        /// Write the facts that are shown to this file too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Run all checks and tests.
    Test {
        /// Only what needs neither namespaces nor root nor the other tools' builds.
        #[arg(long)]
        quick: bool,
        /// A nextest filter expression, or names of tests.
        #[arg(trailing_var_arg = true)]
        filter: Vec<String>,
    },
    /// Play many seeds of the pool against a simulated cloud, and show the first that breaks a law.
    Simulate(simulate::Arguments),
    /// Run fmt, clippy, doc, deny, machete.
    Check,
    /// Measure, each figure beside its peer or floor in the same interleaved run.
    Bench {
        /// Arguments for `terway-lab bench`: `add`, `burst`, `forward`, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[expect(clippy::print_stderr, reason = "an error is for the terminal")]
fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = step::enter_root()?;
    match task {
        Task::Setup { demo: true, .. } => setup::ensure(Tool::FOR_DEMO),
        Task::Setup { python: true, .. } => setup::ensure(&[Tool::Python]),
        Task::Setup { containerd: true, .. } => setup::ensure(&[Tool::Containerd]),
        Task::Setup { .. } => setup::ensure(Tool::ALL),
        Task::Build { bpf: true, .. } => {
            setup::ensure(Tool::FOR_BPF)?;
            build::bpf(&root, Profile::Dev)?;
            build::bpf(&root, Profile::Release)
        }
        Task::Build { release, .. } => {
            setup::ensure(Tool::FOR_BUILD)?;
            build::all(&root, if release { Profile::Release } else { Profile::Dev })
        }
        Task::Demo { keep, json } => lab::demo(&root, keep, json),
        Task::Test { quick, filter } => test::run(&root, quick, &filter),
        Task::Simulate(arguments) => simulate::run(&root, &arguments),
        Task::Check => check::run(),
        Task::Bench { arguments } => lab::bench(&root, &arguments),
    }
}
