//! The plugin's stdin.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cni_plugin::fuzzing::stdin(bytes));
