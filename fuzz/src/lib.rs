//! What must hold for every input, as functions that panic where it does not.
//!
//! Each fuzz target is a wrapper round one of these. The gateway's own tests include this file and run the
//! same functions over the kept inputs (`tests/it/fuzz.rs`), without libFuzzer.

pub mod answer;
pub mod assertion;
pub mod config;
pub mod cookie;
pub mod json;
mod oracle;
pub mod patch;
pub mod path;
pub mod payload;
pub mod proxy;
pub mod session;

/// A target's check.
pub type Check = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Check); 10] = [
    ("answer", answer::check),
    ("assertion", assertion::check),
    ("config", config::check),
    ("cookie", cookie::check),
    ("json", json::check),
    ("patch", patch::check),
    ("path", path::check),
    ("payload", payload::check),
    ("proxy", proxy::check),
    ("session", session::check),
];

/// The input's parts: what stands before its first line feed, and after it.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}
