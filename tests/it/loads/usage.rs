//! What the gateway's process uses, as Linux tells it.

use std::time::Duration;

use crate::support::Gateway;

/// A line of `/proc/PID/status`, in KiB.
fn status(gateway: &Gateway, name: &str) -> u64 {
    let file = format!("/proc/{}/status", gateway.process.id());
    let text = std::fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap()
}

/// The memory it has now, in KiB.
pub fn memory(gateway: &Gateway) -> u64 {
    status(gateway, "VmRSS:")
}

/// The most memory it has had since [`forget_most_memory`], in KiB.
pub fn most_memory(gateway: &Gateway) -> u64 {
    status(gateway, "VmHWM:")
}

/// From now on the most memory counts from here.
pub fn forget_most_memory(gateway: &Gateway) {
    let file = format!("/proc/{}/clear_refs", gateway.process.id());
    std::fs::write(file, "5").unwrap();
}

/// The processor time of all its threads.
pub fn processor_time(gateway: &Gateway) -> Duration {
    let folder = format!("/proc/{}/task", gateway.process.id());
    let threads = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
