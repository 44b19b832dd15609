//! `terwayd`: a thin main around [`daemon::start`].

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use daemon::api::failure::chain;
use daemon::args::Args;
use daemon::failpoints::{self, Point};
use daemon::standalone::Manifests;
use daemon::tasks::End;
use daemon::{config, start, telemetry};

/// `EX_USAGE`: the command line or the configuration.
const USAGE: u8 = 64;
/// `EX_SOFTWARE`: a part of ours ended.
const SOFTWARE: u8 = 70;
/// One owns what is desired, one answers meanwhile.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Without stderr there is nobody to tell.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if args.explain_config {
        return print(&config::page());
    }
    let Some(directory) = args.standalone.clone() else { return print(&failpoints()) };
    if let Some(fault) = args.failpoint {
        failpoints::arm(fault);
    }
    if let Err(error) = telemetry::start(&args.log, args.log_format) {
        return failed(USAGE, &error);
    }
    let manifests = match Manifests::read(&directory) {
        Ok(manifests) => manifests,
        Err(error) => return failed(USAGE, &error),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(1, &error),
    };
    match runtime.block_on(start::run(args, manifests)) {
        Ok(End::Asked | End::Overdue(_)) => ExitCode::SUCCESS,
        Ok(End::Broken(_)) => ExitCode::from(SOFTWARE),
        Err(error) => failed(error.exit_code(), &error),
    }
}

/// A line for each.
fn failpoints() -> String {
    let names: Vec<_> = Point::ALL.iter().map(ToString::to_string).collect();
    names.join("\n") + "\n"
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(1, &error),
    }
}

fn failed(code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    drop(writeln!(io::stderr(), "terwayd: {}", chain(error)));
    ExitCode::from(code)
}
