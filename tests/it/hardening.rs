//! What is hostile, broken or stalled harms only itself: rows, uploads, answers, servers, addresses.

mod requests;
mod responses;
mod rows;
mod start;
mod uploads;
mod upstreams;

use std::{
    io::BufReader,
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::{Gateway, http};

/// Far more than anything here takes, and far less than the timeouts that would end it otherwise.
const SOON: Duration = Duration::from_secs(10);

/// How many sockets the gateway holds: its listeners, clients, upstream connections.
fn sockets(gateway: &Gateway) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).unwrap();
    files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Asserts that `work` does not wait for a timeout.
#[track_caller]
fn soon<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    result
}

/// Reads a request's head and gives its first line; its body is left.
fn read_head(stream: &TcpStream) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream.try_clone()?);
    Ok(http::head_lines(&mut reader)?.swap_remove(0))
}
