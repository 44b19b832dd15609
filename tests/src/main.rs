//! `terway-lab`: makes a VPC on this machine, and looks into it.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use terway_lab::node::LabName;

/// A VPC on one machine: nodes, an emulator of the ECS API, and terwayd on them.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The lab's directory.
    #[arg(long, global = true, default_value = "/run/terway-lab")]
    dir: PathBuf,
    /// What its namespaces begin with: 1 to 10 lower-case letters and digits.
    #[arg(long = "name", id = "lab", global = true, default_value = "tl")]
    name: LabName,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a lab and leave it running in the background.
    Up(Up),
    /// Make a lab and hold it in the foreground, until SIGTERM.
    Serve(Up),
    /// Take the lab down, also what a killed one left behind.
    Down,
    /// Run a command on a node; a shell if there is none.
    Enter {
        /// The node.
        node: String,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Make and delete pods by the real CNI binary.
    #[command(subcommand)]
    Pod(Pod),
    /// Who reaches whom by TCP, and what kept the others away.
    Reach,
    /// Make the emulated cloud fail, or list what is set.
    #[command(subcommand)]
    Fault(Fault),
    /// The emulated cloud's truth, as JSON.
    Dump,
    /// Measure, each figure beside its peer or floor in the same interleaved run.
    #[command(subcommand)]
    Bench(Bench),
    /// The demo of `cargo xtask demo`.
    Demo {
        /// Leave the lab up until SIGTERM.
        #[arg(long)]
        keep: bool,
        /// Write the facts that are shown to this file too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// How a lab is to be made.
#[derive(Debug, Clone, clap::Args)]
struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Instance type of the nodes.
    #[arg(long, default_value = "ecs.g7.4xlarge")]
    instance_type: String,
    /// Do not start terwayd.
    #[arg(long)]
    no_daemon: bool,
    /// The VPC asks by ARP and NS before it sends, as a switch would.
    #[arg(long)]
    arp: bool,
    /// Member ENIs use their own MACs on the trunk.
    #[arg(long)]
    own_member_macs: bool,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// ADD and DEL beside `ptp` with `host-local`, and ADDs side by side.
    Add(Measured),
    /// 60 pods at once on an empty pool, with an API that takes 300 ms a call.
    Burst(Measured),
    /// What a packet into and out of a pod costs with 2, 100 and 500 pods.
    Forward(Measured),
}

#[derive(Debug, Clone, clap::Args)]
struct Measured {
    /// Only a few rounds, to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Pod {
    /// Make a pod; prints the CNI result.
    Add {
        /// The node.
        node: String,
        /// The pod's name.
        name: String,
        /// Its PodNetworking (`web` or `db`); an address of a shared ENI without.
        #[arg(long)]
        pod_networking: Option<String>,
    },
    /// Delete a pod.
    Del {
        /// The pod's name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Set a fault, as JSON: {"action": "*", "times": 3, "what": {"kind": "throttle"}}.
    Set {
        /// The fault.
        json: String,
    },
    /// List the faults.
    List,
    /// Remove all faults.
    Clear,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "an error is for the terminal")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let Arguments { dir, name, command } = Arguments::parse();
    match commands::run(&dir, name, command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
