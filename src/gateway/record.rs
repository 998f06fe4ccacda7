//! What is told of each request: it is counted when its answer begins, and one line goes to the access log when the
//! answer has ended, or its client has left.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};

use super::{
    admit::{Admitted, Peer},
    limit::Slot,
    resolve::{Caller, Resolution},
    seen::{Name, Seen},
    trace,
};
use crate::{
    body::{BodyError, Watch},
    config::{Access, Config, Field, Log, Route, SessionMode, Target},
    error::Code,
    telemetry::{
        self, Format,
        access::{self, Line},
        metrics::{Class, Held, Metrics, RouteMetrics},
        spans::{Ended, Period, Span},
    },
    upstream::Answered,
};

/// Most bytes of a field of the client's own that are logged.
const LONGEST: usize = 512;

/// Logged as the status of a request whose client left, as nginx does.
const CLIENT_LEFT: u16 = 499;

/// Is told what the stations before the upstream find.
pub trait Witness {
    /// The request is unambiguous.
    fn admitted(&mut self, admitted: &Admitted);

    /// A route serves it, and this upstream is behind it.
    fn routed(&mut self, route: &Route, upstream: &str);

    /// It is known who asks, as far as it can be.
    fn resolved(&mut self, resolution: &Resolution);
}

/// What requests are counted by, and how they are logged.
#[derive(Debug)]
pub struct Counting {
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// For each route, in the order of the file.
    routes: Box<[OfRoute]>,
    log: Log,
}

/// What is told of a route.
#[derive(Debug)]
struct OfRoute {
    name: String,
    /// The upstream's name; empty without one.
    upstream: String,
    counted: RouteMetrics,
}

impl Counting {
    /// Makes the series of the configured routes.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let routes = config.routes.iter().map(|route| {
            let name = route.name();
            let upstream = match &route.target {
                Target::Upstream(place) => config.upstreams.get(*place),
                Target::Redirect(_) => None,
            };
            OfRoute {
                upstream: upstream
                    .map(|upstream| upstream.name.clone())
                    .unwrap_or_default(),
                counted: metrics.route(&name),
                name,
            }
        });
        Self {
            routes: routes.collect(),
            log: config.log.clone(),
            metrics,
        }
    }

    fn of(&self, route: Option<usize>) -> &RouteMetrics {
        let route = self.route(route);
        route.map_or(&self.metrics.no_route, |route| &route.counted)
    }

    fn route(&self, place: Option<usize>) -> Option<&OfRoute> {
        place.and_then(|place| self.routes.get(place))
    }

    /// How the access log is written; `None` where it is not.
    fn format(&self) -> Option<Format> {
        if !tracing::enabled!(target: telemetry::ACCESS, tracing::Level::INFO) {
            return None;
        }
        match self.log.access {
            Access::AsLog => Some(access::usual_format()),
            Access::Text => Some(Format::Text),
            Access::Json => Some(Format::Json),
            Access::Off => None,
        }
    }

    fn tells(&self, field: Field) -> bool {
        self.log.fields.contains(&field)
    }
}

/// What is told of a request. It is logged when this is dropped. No query, no cookie, no key.
#[derive(Debug)]
pub struct Record {
    counting: Arc<Counting>,
    /// How it will be logged.
    format: Option<Format>,
    in_flight: Option<Held>,
    /// Its places among those that are served at the same time.
    slots: Option<(Slot, Option<Slot>)>,
    started: Instant,
    version: Version,
    method: Method,
    /// The client's address; none behind a Unix socket.
    client: Option<IpAddr>,
    /// That address as text, where it is the peer's and will be logged.
    spelt: Option<HeaderValue>,
    /// The host that was routed, where somebody is told.
    host: String,
    /// The resolved path, likewise.
    path: String,
    server: Option<String>,
    /// The place of the route.
    pub route: Option<usize>,
    /// Whether the answer depends on the session; not logged.
    pub reads_session: bool,
    sid: Option<String>,
    user: Option<String>,
    /// The name of this request.
    pub request_id: HeaderValue,
    /// Whether it came with a trace context, valid or not; not logged.
    pub is_traced: bool,
    /// The id of the trace that it belongs to.
    pub trace: Option<String>,
    /// What is told of it to a collector of traces.
    pub span: Option<Span>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// Why the gateway answered itself.
    pub code: Option<Code>,
    /// What was answered.
    status: Option<StatusCode>,
    /// What came of the request's body.
    pub received: Option<Arc<Watch>>,
    sent: u64,
    /// Whether the answer has come to its end.
    complete: bool,
    routed_at: Option<Instant>,
    lookup_took: Option<Period>,
    /// From the first try to the head of the upstream's answer.
    pub upstream_took: Option<Period>,
    /// Until the change was committed or refused, where there was one.
    pub write_took: Option<Period>,
    head_took: Option<Duration>,
    /// Bytes that a tunnel has carried to the upstream.
    carried: u64,
}

impl Record {
    /// Starts the clock.
    pub fn new(
        request: &Parts,
        seen: Seen,
        peer: &Peer,
        request_id: HeaderValue,
        counting: Arc<Counting>,
    ) -> Box<Self> {
        let format = counting.format();
        let spelt = format.and_then(|_| peer.spelt().cloned());
        let field = |field: Field, name: HeaderName| {
            let headers = &request.headers;
            let is_told = format.is_some() && counting.tells(field);
            is_told.then(|| headers.get(name).cloned())?
        };
        Box::new(Self {
            format,
            in_flight: Some(Held::new(&counting.metrics.requests_in_flight)),
            slots: None,
            started: Instant::now(),
            version: request.version,
            method: request.method.clone(),
            client: peer.address,
            spelt,
            host: String::new(),
            path: String::new(),
            server: None,
            route: None,
            reads_session: false,
            sid: None,
            user: None,
            request_id,
            is_traced: seen.has(Name::Traceparent) || seen.has(Name::Tracestate),
            trace: None,
            span: Span::begin(trace::parent(&request.headers, seen)),
            user_agent: field(Field::UserAgent, header::USER_AGENT),
            referer: field(Field::Referer, header::REFERER),
            code: None,
            status: None,
            received: None,
            sent: 0,
            complete: false,
            routed_at: None,
            lookup_took: None,
            upstream_took: None,
            write_took: None,
            head_took: None,
            carried: 0,
            counting,
        })
    }

    /// Whether the log has this field.
    fn logs(&self, field: Field) -> bool {
        self.format.is_some() && self.counting.tells(field)
    }

    /// The session's opaque id, as the upstream gets it.
    pub fn forwarded(&mut self, sid: Option<&str>) {
        if self.logs(Field::Sid) {
            self.sid = sid.map(str::to_owned);
        }
    }

    /// An upstream has answered.
    pub fn served_by(&mut self, answered: &Answered) {
        if self.logs(Field::Server) {
            self.server = Some(answered.server().to_owned());
        }
    }

    /// The request takes these places until its answer has ended or is given up.
    pub fn holds(&mut self, slots: (Slot, Option<Slot>)) {
        self.slots = Some(slots);
    }

    /// The answer has so many more bytes.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The answer has come to its end.
    pub fn ended(&mut self) {
        self.complete = true;
    }

    /// The answer has come to an end before its end.
    pub fn broke_off(&self, error: &BodyError) {
        // What the gateway cuts off by itself is no fault of the upstream.
        if matches!(error, BodyError::Cut) {
            return;
        }
        let route = self.counting.route(self.route);
        tracing::warn!(
            upstream = route.map(|route| route.upstream.as_str()),
            request_id = self.request_id.to_str().ok(),
            cause = error.cause(),
            "an upstream's answer broke off"
        );
    }

    /// Others may be served in its place.
    pub fn frees_places(&mut self) {
        self.slots = None;
    }

    /// The request has become a tunnel, which is no request in flight.
    pub fn is_tunnel(&mut self) {
        self.in_flight = None;
    }

    /// The tunnel has ended; so many bytes went to the client and to the upstream.
    pub fn carried(&mut self, to_client: u64, to_upstream: u64) {
        self.sent = to_client;
        self.carried = to_upstream;
        self.complete = true;
    }

    /// The head of the answer goes out.
    pub fn answered(&mut self, status: StatusCode) {
        let took = self.started.elapsed();
        self.status = Some(status);
        self.head_took = Some(took);
        let route = self.counting.of(self.route);
        route.requests.count(Class::of(self.status));
        route.duration.observe_duration(took);
        if let Some(code) = self.code {
            self.counting.metrics.gateway_errors.count(code);
        }
    }

    fn log(&self, line: &mut Line, field: Field) {
        let name = field.name();
        let mut text = |value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line.text(name, value);
            }
        };
        let took = match field {
            Field::Host => return text(Some(&self.host)),
            Field::Path => return text(Some(&self.path)),
            Field::Method => return text(Some(self.method.as_str())),
            Field::Route => {
                let route = self.counting.route(self.route);
                return text(route.map(|route| route.name.as_str()));
            }
            Field::Upstream => {
                let route = self.counting.route(self.route);
                return text(route.map(|route| route.upstream.as_str()));
            }
            Field::Server => return text(self.server.as_deref()),
            Field::Sid => return text(self.sid.as_deref()),
            Field::User => return text(self.user.as_deref()),
            Field::RequestId => return text(self.request_id.to_str().ok()),
            Field::TraceId => return text(self.trace.as_deref()),
            Field::Error => return text(self.code.map(Code::as_str)),
            Field::UserAgent => return text(self.user_agent.as_ref().map(shown).as_deref()),
            Field::Referer => return text(self.referer.as_ref().map(without_query).as_deref()),
            Field::Client => {
                let spelt = self.spelt.as_ref().and_then(|spelt| spelt.to_str().ok());
                return match spelt {
                    Some(spelt) => line.word(name, spelt),
                    None => line.word(name, &told(self.client)),
                };
            }
            Field::Protocol => return line.word(name, protocol(self.version)),
            Field::Status => {
                let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
                return line.number(name, status.into());
            }
            Field::Received => {
                let received = self.received.as_ref().map_or(0, |watch| watch.received());
                return line.number(name, received + self.carried);
            }
            Field::Sent => return line.number(name, self.sent),
            Field::Aborted => {
                // hyper does not ask for the body of an answer to HEAD.
                if self.status.is_some() && !self.complete && self.method != Method::HEAD {
                    line.plain(name, true);
                }
                return;
            }
            Field::DurationUs => Some(self.started.elapsed()),
            Field::HeadUs => self.head_took,
            Field::LookupUs => self.lookup_took.map(|period| period.took),
            Field::UpstreamUs => self.upstream_took.map(|period| period.took),
            Field::WriteUs => self.write_took.map(|period| period.took),
        };
        if let Some(took) = took {
            line.number(name, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// What a client says of itself, no longer than it needs to be.
fn shown(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned()
}

fn without_query(value: &HeaderValue) -> String {
    let text = shown(value);
    let end = text.find(['?', '#']).unwrap_or(text.len());
    text[..end].to_owned()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}

impl Witness for Record {
    fn admitted(&mut self, admitted: &Admitted) {
        if self.client.map(|peer| peer.to_canonical()) != admitted.client {
            self.spelt = None;
        }
        self.client = admitted.client;
        if self.span.is_some() || self.logs(Field::Host) {
            self.host.clone_from(&admitted.host);
        }
        if self.span.is_some() || self.logs(Field::Path) {
            self.path.push_str(admitted.path.forwarded());
        }
    }

    fn routed(&mut self, route: &Route, _: &str) {
        self.route = Some(route.place);
        self.reads_session = route.session == SessionMode::Read;
        self.routed_at = self.reads_session.then(Instant::now);
    }

    fn resolved(&mut self, resolution: &Resolution) {
        self.lookup_took = self.routed_at.map(Period::since);
        if let Caller::Visitor(session) = &resolution.caller
            && self.logs(Field::User)
        {
            let user = session.known().and_then(|(_, known)| known.user.as_ref());
            self.user = user.map(|user| user.id.clone());
        }
    }
}

/// A client as logs call it: as nginx does where it has no address.
fn told(client: Option<IpAddr>) -> String {
    client.map_or_else(|| "unix:".to_owned(), |client| client.to_string())
}

impl Record {
    /// By OpenTelemetry's semantic conventions for HTTP servers.
    fn told(&self) -> Ended {
        let route = self.counting.route(self.route);
        let upstream = route.map(|route| route.upstream.as_str());
        let route = route.map(|route| route.name.as_str());
        let name = route.map_or_else(
            || self.method.to_string(),
            |route| format!("{} {route}", self.method),
        );
        let attributes = [
            ("http.request.method", Some(self.method.as_str())),
            ("http.route", route),
            ("url.path", Some(self.path.as_str())),
            ("server.address", Some(self.host.as_str())),
            ("error.type", self.code.map(Code::as_str)),
            ("session_gateway.upstream", upstream),
            ("session_gateway.request_id", self.request_id.to_str().ok()),
        ];
        let told = attributes.into_iter().filter_map(|(name, value)| {
            let value = value.filter(|value| !value.is_empty())?;
            Some((name, value.to_owned()))
        });
        let parts = [
            ("resolve", self.lookup_took),
            ("upstream", self.upstream_took),
            ("persist", self.write_took),
        ];
        Ended {
            name,
            attributes: told.collect(),
            status: self.status.map(|status| status.as_u16()),
            is_fault: self.status.is_some_and(|status| status.is_server_error()),
            parts: parts
                .into_iter()
                .filter_map(|(name, period)| Some((name, period?)))
                .collect(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            span.end(|| self.told());
        }
        if self.status.is_none() {
            let route = self.counting.of(self.route);
            route.requests.count(Class::Left);
        }
        let Some(format) = self.format else {
            return;
        };
        let mut line = Line::new(format);
        for field in &self.counting.log.fields {
            self.log(&mut line, *field);
        }
        line.send();
    }
}
