//! `terwayctl`: asks the daemon's debug socket, and prints tables for people or JSON for scripts.
//! The JSON is the message of `debug.proto`, by its field names: they are stable.

mod client;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

pub use client::CtlError;

/// Shows what terwayd has and does on this node.
#[derive(Debug, Parser)]
#[command(name = "terwayctl", version, arg_required_else_help = true)]
pub struct Args {
    /// What to show.
    #[command(subcommand)]
    pub what: What,
    /// The daemon's debug socket.
    #[arg(long, global = true, env = "TERWAYCTL_SOCKET", default_value = proto::DEBUG_SOCKET)]
    pub socket: PathBuf,
    /// How to print it.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum What {
    /// The pods of this node: addresses, ENI, VLAN, links.
    Pods,
    /// The ENIs, their addresses and members.
    Enis,
    /// Our ip rules, as the kernel has them now.
    Rules,
    /// The tc filters on our links, ours and others', as the kernel has them now.
    Filters,
    /// Health, pool, and frames dropped by cause.
    Status,
    /// Counters and gauges, as Prometheus reads them.
    Metrics,
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// Asks and prints.
pub async fn run(args: &Args, out: &mut impl Write) -> Result<(), CtlError> {
    let mut client = client::connect(&args.socket).await?;
    match args.what {
        What::Pods => {
            let reply = client::said(client.pods(proto::debug::PodsRequest {}).await)?;
            print(args.output, out, &reply, table::pods)
        }
        What::Enis => {
            let reply = client::said(client.enis(proto::debug::EnisRequest {}).await)?;
            print(args.output, out, &reply, table::enis)
        }
        What::Rules => {
            let reply = client::said(client.rules(proto::debug::RulesRequest {}).await)?;
            print(args.output, out, &reply, table::rules)
        }
        What::Filters => {
            let reply = client::said(client.filters(proto::debug::FiltersRequest {}).await)?;
            print(args.output, out, &reply, table::filters)
        }
        What::Status => {
            let reply = client::said(client.status(proto::debug::StatusRequest {}).await)?;
            print(args.output, out, &reply, table::status)
        }
        What::Metrics => {
            let reply = client::said(client.metrics(proto::debug::MetricsRequest {}).await)?;
            print(args.output, out, &reply, |reply| reply.text.trim_end().to_owned())
        }
    }
}

fn print<T: Serialize>(
    output: Output,
    out: &mut impl Write,
    reply: &T,
    table: impl Fn(&T) -> String,
) -> Result<(), CtlError> {
    let text = match output {
        Output::Table => table(reply),
        Output::Json => {
            serde_json::to_string_pretty(reply).map_err(|error| CtlError::Print(error.into()))?
        }
    };
    match writeln!(out, "{text}") {
        // `terwayctl pods | head -1` is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CtlError::Print),
    }
}
