//! What the operating system says of this process.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::Registry,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::gauge;

/// Measured when it is asked for.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    start: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
    most_files: Gauge,
    resident_bytes: Gauge,
    open_files: Gauge,
}

/// What is known of this process. What the system does not say is 0.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// When it began; Unix time, seconds.
    pub started: i64,
    /// CPU time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: i64,
    /// Open files and sockets.
    pub open_files: i64,
    /// Most of them.
    pub most_files: i64,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the program", version);
        let start = gauge(
            registry,
            "process_start_time_seconds",
            "When the process began",
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        start.set(now.map_or(0, |now| now.as_secs() as i64));
        let cpu_seconds = Counter::default();
        registry.register(
            "process_cpu_seconds",
            "CPU time of the process",
            cpu_seconds.clone(),
        );
        let most_files = gauge(registry, "process_max_fds", "Most files it may have open");
        let limit = getrlimit(Resource::Nofile).current;
        most_files.set(limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
        Self {
            start,
            cpu_seconds,
            most_files,
            resident_bytes: gauge(
                registry,
                "process_resident_memory_bytes",
                "Memory that the process has",
            ),
            open_files: gauge(
                registry,
                "process_open_fds",
                "Files and sockets that it has open",
            ),
        }
    }

    /// What was measured last.
    pub(super) fn told(&self) -> Process {
        Process {
            started: self.start.get(),
            cpu_seconds: self.cpu_seconds.get(),
            resident_bytes: self.resident_bytes.get(),
            open_files: self.open_files.get(),
            most_files: self.most_files.get(),
        }
    }

    /// Asks the system. What it does not say (on another system than Linux) stays 0.
    pub(super) fn measure(&self) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let inner = self.cpu_seconds.inner();
        inner.store(seconds.to_bits(), Ordering::Relaxed);
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        if let Some(count) = open_files() {
            self.open_files.set(count);
        }
    }
}

/// `VmRSS` of proc_pid_status(5), which is told in KiB.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Since Linux 6.2 the size of the folder is the number of its entries (proc_pid_fd(5)); before, it is 0.
fn open_files() -> Option<i64> {
    const FOLDER: &str = "/proc/self/fd";
    let count = match fs::metadata(FOLDER).ok()?.len() {
        0 => fs::read_dir(FOLDER).ok()?.count() as u64,
        count => count,
    };
    i64::try_from(count).ok()
}
