//! What holds for every input is in `src/answer.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| session_gateway_fuzz::answer::check(input));
