//! The daemon's configuration.
#![no_main]

use std::path::Path;

use daemon::config::Config;
use libfuzzer_sys::fuzz_target;

const LEAST: &str = r#"{"security_group": "sg-1"}"#;

fuzz_target!(|text: &str| {
    let parse = |text| Config::parse(text, Path::new("eni_conf"));
    match parse(text) {
        Ok((config, _remarks)) => {
            let (start, _) = parse(LEAST).expect("the least configuration is one");
            drop(start.changes(&config));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
