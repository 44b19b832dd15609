//! The token file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cloud::fuzzing::token_file(bytes));
