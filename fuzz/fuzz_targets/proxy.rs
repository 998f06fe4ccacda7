//! What holds for every input is in `src/proxy.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| session_gateway_fuzz::proxy::check(input));
