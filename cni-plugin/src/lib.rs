//! The CNI plugin `terway`: reads the environment and stdin, makes one gRPC call to `terwayd`, and
//! prints JSON. It keeps no state and enters no namespace, so that it can be replaced under a
//! running daemon.
//!
//! Verbs: ADD, DEL, CHECK, GC, STATUS and VERSION of the CNI specification 1.1.0, with
//! configurations of 0.3.1, 0.4.0, 1.0.0 and 1.1.0. stdout gets the result or the error object,
//! and nothing else; log lines go to stderr and to `logFile`.
//!
//! A DEL that the daemon cannot take now is left in the queue ([`proto::queue`]) and succeeds. The
//! queue is [`proto::DEL_QUEUE`]; tests put it elsewhere with the environment variable
//! `TERWAY_DEL_QUEUE`.

mod agent;
mod conf;
mod env;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod namespace;
mod result;
mod section;
mod verbs;
mod version;

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};

use crate::conf::Conf;
use crate::env::{Command, Verb};
use crate::error::Error;
use crate::log::{Level, Log};
use crate::verbs::Call;
use crate::version::SpecVersion;

/// What the container runtime hands to the plugin.
pub struct Caller<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The network configuration.
    pub stdin: &'a mut dyn Read,
    /// Takes the result or the error object.
    pub stdout: &'a mut dyn Write,
    /// Takes the log.
    pub stderr: &'a mut dyn Write,
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Serves one call; returns the exit code of the process, 0 or 1.
pub fn run(caller: Caller<'_>) -> u8 {
    let Caller { env, stdin, stdout, stderr } = caller;
    let mut log = Log::new(stderr);
    let mut version = SpecVersion::NEWEST;
    let served = serve(env, stdin, &mut log, &mut version);
    let (answer, code) = match served {
        Ok(answer) => (answer, 0),
        Err(error) => {
            log.write(
                Level::Error,
                &error.to_string(),
                &[("code", &error.code()), ("details", &error.details())],
            );
            (Some(error.to_json(version)), 1)
        }
    };
    let Some(answer) = answer else { return code };
    match writeln!(stdout, "{answer}").and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => {
            let error = Error::Stdout(error);
            log.write(Level::Error, &error.to_string(), &[("details", &error.details())]);
            1
        }
    }
}

/// The result to print, if the verb has one. `version` is set as soon as it is known, so that an
/// error goes out in it.
fn serve(
    env: env::Env<'_>,
    stdin: &mut dyn Read,
    log: &mut Log<'_>,
    version: &mut SpecVersion,
) -> Result<Option<String>, Error> {
    let verb = match Command::from_env(env)? {
        Command::Version => return Ok(Some(supported(stdin))),
        Command::Verb(verb) => verb,
    };
    let map = conf::read(stdin)?;
    *version = SpecVersion::parse(conf::spec_version(&map)?)?;
    version.allows(verb)?;
    let conf = Conf::parse(map)?;
    log.configure(conf.log_level, conf.log_file.as_deref());
    if !conf.ignored.is_empty() {
        // Once for each pod is enough: STATUS comes every few seconds.
        let level = if verb == Verb::Add { Level::Warn } else { Level::Debug };
        let keys = conf.ignored.join(",");
        log.write(level, "configuration keys without a meaning here", &[("keys", &keys)]);
    }
    Call { verb, version: *version, env, conf, log }.serve()
}

/// The result of VERSION, in the caller's version if that is one of ours.
fn supported(stdin: &mut dyn Read) -> String {
    let asked = conf::read(stdin)
        .and_then(|map| SpecVersion::parse(conf::spec_version(&map)?))
        .unwrap_or(SpecVersion::NEWEST);
    let versions = SpecVersion::ALL.map(SpecVersion::as_str);
    let object = serde_json::json!({
        "cniVersion": asked.as_str(),
        "supportedVersions": versions,
    });
    serde_json::to_string_pretty(&object).expect("strings are JSON")
}
