//! `terwayctl`: a thin main around [`daemon::ctl`].

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use daemon::api::failure::chain;
use daemon::ctl::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args, &mut io::stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without stderr there is nobody to tell.
            drop(writeln!(io::stderr(), "terwayctl: {}", chain(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}
