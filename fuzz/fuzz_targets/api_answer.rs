//! Answers of the API.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cloud::fuzzing::api_answer(bytes));
