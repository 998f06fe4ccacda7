//! Spans by OTLP/HTTP with JSON (<https://opentelemetry.io/docs/specs/otlp/>), to a collector that listens without TLS
//! beside the gateway. A thread of its own sends them in batches; what it cannot send in time is left out.

use std::{
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, runtime, time::timeout};

use super::{Ended, Parent, Period, Span};
use crate::telemetry::Throttle;

/// Spans that wait to be sent.
const MOST_WAITING: usize = 8192;

/// Most spans in one message, as OTEL_BSP_MAX_EXPORT_BATCH_SIZE.
const BATCH: usize = 512;

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// How long the end of the program waits for what is not sent yet.
const LAST: Duration = Duration::from_secs(3);

const SAY_EVERY: Duration = Duration::from_secs(60);

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

struct Exporter {
    sampler: Sampler,
    tasks: SyncSender<Task>,
}

enum Task {
    /// A request's span and its parts.
    Send(Vec<Value>),
    Flush(SyncSender<()>),
}

/// `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sampler {
    On,
    Off,
    /// As the caller does; without one, this part of all traces.
    AsParent(f64),
}

impl Sampler {
    fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let part = || match env("OTEL_TRACES_SAMPLER_ARG") {
            None => Ok(1.0),
            Some(text) => {
                let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
                part.ok_or_else(|| "OTEL_TRACES_SAMPLER_ARG is a number from 0 to 1".to_owned())
            }
        };
        match env("OTEL_TRACES_SAMPLER").as_deref() {
            None | Some("parentbased_always_on") => Ok(Self::AsParent(1.0)),
            Some("parentbased_always_off") => Ok(Self::AsParent(0.0)),
            Some("parentbased_traceidratio") => part().map(Self::AsParent),
            Some("always_on") => Ok(Self::On),
            Some("always_off") => Ok(Self::Off),
            Some(other) => Err(format!(
                "OTEL_TRACES_SAMPLER={other:?} is not known: always_on, always_off, parentbased_always_on, \
                 parentbased_always_off or parentbased_traceidratio"
            )),
        }
    }

    fn takes(self, parent: Option<Parent<'_>>) -> bool {
        match (self, parent) {
            (Self::On, _) => true,
            (Self::Off, _) => false,
            (Self::AsParent(_), Some(parent)) => parent.sampled,
            (Self::AsParent(part), None) => rand::random::<f64>() < part,
        }
    }
}

/// Where to, and as whom.
struct Target {
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    service: String,
}

impl Target {
    fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let own = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let base = || {
            let base = env("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        };
        let Some(endpoint) = own.or_else(base) else {
            return Ok(None);
        };
        let wrong = || {
            format!(
                "the OTLP endpoint {endpoint:?} is not an http URL such as http://127.0.0.1:4318"
            )
        };
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(wrong());
        }
        let headers =
            env("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| env("OTEL_EXPORTER_OTLP_HEADERS"));
        let headers = headers.unwrap_or_default();
        let header = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let mut value = HeaderValue::try_from(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.trim()).ok()?, value))
        };
        let pairs = headers.split(',').filter(|pair| !pair.trim().is_empty());
        let headers = pairs.map(|pair| {
            // The value may be a secret.
            header(pair)
                .ok_or_else(|| "OTEL_EXPORTER_OTLP_HEADERS is not a list of name=value".to_owned())
        });
        let milliseconds = env("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|text| text.parse().ok());
        Ok(Some(Self {
            headers: headers.collect::<Result<_, _>>()?,
            timeout: Duration::from_millis(milliseconds.unwrap_or(10_000)),
            service: env("OTEL_SERVICE_NAME").unwrap_or_else(|| "session-gateway".to_owned()),
            uri,
        }))
    }

    /// One message, over a connection of its own: there is one a second at most.
    async fn post(&self, spans: Vec<Value>) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let host = self.uri.host().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or(80);
        let address = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((address, port))
            .await
            .map_err(|error| told(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| told(&error))?;
        let message = json!({"resourceSpans": [{
            "resource": {"attributes": [
                attribute("service.name", &self.service),
                attribute("service.version", env!("CARGO_PKG_VERSION")),
            ]},
            "scopeSpans": [{"scope": {"name": "session-gateway"}, "spans": spans}],
        }]});
        let target = self
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let authority = self
            .uri
            .authority()
            .map_or(host, |authority| authority.as_str());
        let mut request = Request::post(target)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::<Bytes>::from(message.to_string()))
            .map_err(|error| told(&error))?;
        // It ends with the runtime's task, when the sender is dropped.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let status = answer.map_err(|error| told(&error))?.status();
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(format!("it answered {status}"))
        }
    }
}

/// Starts the thread, where there is somebody to send to.
pub(super) fn start(env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let sampler = Sampler::read(env)?;
    let Some(target) = Target::read(env)? else {
        return Ok(());
    };
    if sampler == Sampler::Off || env("OTEL_SDK_DISABLED").as_deref() == Some("true") {
        return Ok(());
    }
    let (tasks, waiting) = sync_channel(MOST_WAITING);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("spans cannot be sent: {error}"))?;
    tracing::info!(service = target.service, "spans are sent to {}", target.uri);
    let thread = std::thread::Builder::new().name("spans".to_owned());
    thread
        .spawn(move || export(&waiting, &target, &runtime))
        .map_err(|error| format!("spans cannot be sent: {error}"))?;
    let _ = EXPORTER.set(Exporter { sampler, tasks });
    Ok(())
}

fn export(tasks: &Receiver<Task>, target: &Target, runtime: &runtime::Runtime) {
    static SAID: Throttle = Throttle::new();
    while let Ok(first) = tasks.recv() {
        let until = Instant::now() + GATHER;
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(task) = next.take() {
            match task {
                Task::Send(more) => spans.extend(more),
                Task::Flush(done) => flushed.push(done),
            }
            if spans.len() >= BATCH || !flushed.is_empty() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            // The end of everybody who could send one is an end of the batch too.
            next = tasks.recv_timeout(left).ok();
        }
        if !spans.is_empty() {
            let sent =
                runtime.block_on(async { timeout(target.timeout, target.post(spans)).await });
            let failed = match sent {
                Ok(sent) => sent.err(),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(cause) = failed
                && let Some(others) = SAID.pass(SAY_EVERY)
            {
                tracing::warn!(cause, others, "spans could not be sent");
            }
        }
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

pub(super) fn flush() {
    let Some(exporter) = EXPORTER.get() else {
        return;
    };
    let (done, wait) = sync_channel(1);
    if exporter.tasks.try_send(Task::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(LAST);
    }
}

pub(super) fn begin(parent: Option<Parent<'_>>) -> Option<Span> {
    let exporter = EXPORTER.get()?;
    let trace = match parent {
        Some(parent) => parent.trace.to_owned(),
        None => format!("{:032x}", rand::random::<u128>().max(1)),
    };
    Some(Span {
        trace,
        parent: parent.map(|parent| parent.span.to_owned()),
        id: new_id(),
        sampled: exporter.sampler.takes(parent),
        began: SystemTime::now(),
        since: Instant::now(),
    })
}

/// Zero is no id.
fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}

pub(super) fn send(span: &Span, ended: &Ended) {
    let Some(exporter) = EXPORTER.get() else {
        return;
    };
    // What does not fit is left out: no request waits for the collector.
    let _ = exporter.tasks.try_send(Task::Send(told(span, ended)));
}

/// The span and its parts, as the JSON of opentelemetry/proto/trace/v1/trace.proto.
fn told(span: &Span, ended: &Ended) -> Vec<Value> {
    let nanoseconds = |moment: Instant| {
        let since = moment.saturating_duration_since(span.since);
        let time = (span.began + since)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        time.as_nanos().to_string()
    };
    let id = format!("{:016x}", span.id);
    let mut attributes: Vec<Value> = ended
        .attributes
        .iter()
        .map(|(name, value)| attribute(name, value))
        .collect();
    if let Some(status) = ended.status {
        attributes.push(
            json!({"key": "http.response.status_code", "value": {"intValue": status.to_string()}}),
        );
    }
    let mut server = json!({
        "traceId": span.trace,
        "spanId": id,
        "name": ended.name,
        "kind": 2,
        "startTimeUnixNano": nanoseconds(span.since),
        "endTimeUnixNano": nanoseconds(Instant::now()),
        "attributes": attributes,
        "status": {"code": if ended.is_fault { 2 } else { 0 }},
    });
    if let Some(parent) = &span.parent {
        server["parentSpanId"] = parent.as_str().into();
    }
    let part = |(name, Period { began, took }): &(&str, Period)| {
        json!({
            "traceId": span.trace,
            "spanId": format!("{:016x}", new_id()),
            "parentSpanId": id,
            "name": name,
            "kind": if *name == "upstream" { 3 } else { 1 },
            "startTimeUnixNano": nanoseconds(*began),
            "endTimeUnixNano": nanoseconds(*began + *took),
            "status": {"code": 0},
        })
    };
    let parts = ended.parts.iter().map(part);
    std::iter::once(server.clone()).chain(parts).collect()
}

fn attribute(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn the_environment_says_where_to() {
        let at = |variables: &[(&str, &str)]| {
            let target = Target::read(&with(variables));
            target.map(|target| target.map(|target| target.uri.to_string()))
        };
        assert_eq!(at(&[]), Ok(None));
        let base = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/")];
        assert_eq!(
            at(&base),
            Ok(Some("http://127.0.0.1:4318/v1/traces".to_owned()))
        );
        let own = [
            base[0],
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:1/x"),
        ];
        assert_eq!(at(&own), Ok(Some("http://[::1]:1/x".to_owned())));
        for wrong in ["https://collector", "collector:4317", "grpc://x", ""] {
            assert!(
                at(&[("OTEL_EXPORTER_OTLP_ENDPOINT", wrong)]).is_err(),
                "{wrong}"
            );
        }
        let secret = Target::read(&with(&[
            base[0],
            ("OTEL_EXPORTER_OTLP_HEADERS", "planted secret"),
        ]));
        assert!(secret.is_err_and(|sentence| !sentence.contains("planted")));
    }

    #[test]
    fn a_trace_is_recorded_as_the_caller_does() {
        let parent = |sampled| {
            Some(Parent {
                trace: "t",
                span: "s",
                sampled,
            })
        };
        let read = |name: &str, part: &str| {
            Sampler::read(&with(&[
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", part),
            ]))
        };
        let usual = Sampler::read(&with(&[])).unwrap();
        assert!(usual.takes(None) && usual.takes(parent(true)) && !usual.takes(parent(false)));
        let none = read("parentbased_traceidratio", "0").unwrap();
        assert!(!none.takes(None) && none.takes(parent(true)));
        assert!(read("always_on", "1").unwrap().takes(parent(false)));
        assert!(read("parentbased_traceidratio", "2").is_err() && read("jaeger", "1").is_err());
    }
}
