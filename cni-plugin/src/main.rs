//! The process around [`cni_plugin::run`].

use std::io::{self, IsTerminal as _, Read};
use std::process::ExitCode;

use cni_plugin::Caller;

fn main() -> ExitCode {
    // A person at a terminal gets an answer, not a program that waits for a configuration.
    let mut stdin: Box<dyn Read> =
        if io::stdin().is_terminal() { Box::new(io::empty()) } else { Box::new(io::stdin()) };
    let code = cni_plugin::run(Caller {
        env: &|name| std::env::var_os(name),
        stdin: &mut stdin,
        stdout: &mut io::stdout(),
        stderr: &mut io::stderr(),
    });
    ExitCode::from(code)
}
