//! The pool's simulation for long.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step;

/// What is to be played.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them; those before a million have fewer kinds of events.
    #[arg(long, default_value_t = 1_000_000)]
    from: u64,
    /// Only this one, with all that happens.
    #[arg(long, conflicts_with_all = ["seeds", "from", "count"])]
    seed: Option<u64>,
    /// Go on after a law was broken, and count.
    #[arg(long)]
    count: bool,
}

/// Builds it, optimised, and runs it on all processors.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--package", "daemon", "--features", "simulation"]);
    step::run("simulation (release)", cargo.args(["--bin", "simulate"]))?;
    let mut simulate = Command::new(root.join("target/release/simulate"));
    match arguments.seed {
        Some(seed) => simulate.args(["--seed", &seed.to_string()]),
        None => simulate
            .args(["--seeds", &arguments.seeds.to_string()])
            .args(["--from", &arguments.from.to_string()])
            .args(arguments.count.then_some("--count")),
    };
    step::run_visibly(&mut simulate)
}
