//! Spans: what a request did when, for a collector of traces. They leave in builds with the feature `otlp`, where
//! `OTEL_EXPORTER_OTLP_ENDPOINT` says to whom; otherwise nothing is made.

#[cfg(feature = "otlp")]
mod otlp;

use std::time::{Duration, Instant, SystemTime};

/// Begins to send spans where the environment says so; `env` looks up its variables.
///
/// # Errors
///
/// A sentence, where a variable cannot be understood.
pub fn start(env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    #[cfg(feature = "otlp")]
    return otlp::start(env);
    #[cfg(not(feature = "otlp"))]
    {
        if env("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this build cannot send spans: build with --features otlp"
            );
        }
        Ok(())
    }
}

/// Waits until everything has been sent, within reason.
pub fn flush() {
    #[cfg(feature = "otlp")]
    otlp::flush();
}

/// Something that took a while.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
}

impl Period {
    /// From then to now.
    pub fn since(began: Instant) -> Self {
        Self {
            began,
            took: began.elapsed(),
        }
    }
}

/// Whom a request belongs to, by its `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent<'a> {
    /// The trace: 32 hexadecimal digits.
    pub trace: &'a str,
    /// The span of who asks: 16 hexadecimal digits.
    pub span: &'a str,
    /// Whether it is recorded there.
    pub sampled: bool,
}

/// The span of one request.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "no span is ever made")
)]
pub struct Span {
    trace: String,
    parent: Option<String>,
    id: u64,
    sampled: bool,
    began: SystemTime,
    since: Instant,
}

/// What is told of a span when it has ended. No query, no cookie, no session data.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "no span is ever made")
)]
pub struct Ended {
    /// The method, and the route where there is one.
    pub name: String,
    /// By the names of OpenTelemetry's semantic conventions for HTTP.
    pub attributes: Vec<(&'static str, String)>,
    /// The status; `None` for a client that left.
    pub status: Option<u16>,
    /// Whether the fault is on this side.
    pub is_fault: bool,
    /// What it was made up of.
    pub parts: Vec<(&'static str, Period)>,
}

impl Span {
    /// Begins a span where spans are sent.
    pub fn begin(parent: Option<Parent<'_>>) -> Option<Self> {
        #[cfg(feature = "otlp")]
        return otlp::begin(parent);
        #[cfg(not(feature = "otlp"))]
        {
            let _ = parent;
            None
        }
    }

    /// The trace's id.
    pub fn trace(&self) -> &str {
        &self.trace
    }

    /// What an upstream is told (W3C Trace Context, section 3.2).
    pub fn traceparent(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{:016x}-{flags:02x}", self.trace, self.id)
    }

    /// Sends it, unless the trace is not recorded.
    pub fn end(self, ended: impl FnOnce() -> Ended) {
        #[cfg(feature = "otlp")]
        if self.sampled {
            otlp::send(&self, &ended());
        }
        #[cfg(not(feature = "otlp"))]
        let _ = ended;
    }
}
