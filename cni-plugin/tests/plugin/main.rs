//! The plugin's contract, against a daemon that says what the test wants: most tests call
//! `cni_plugin::run` in process, those of [`binary`] run the program, those of [`release`] look at
//! the staged one.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod binary;
mod configuration;
mod daemon;
mod del;
mod environment;
mod release;
mod requests;
mod results;
mod support;
