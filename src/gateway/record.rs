//! What is told of each request: it is counted when its answer begins, and one line goes to the access log when the
//! answer has ended, or its client has left.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{admit::Admitted, resolve::Resolution};
use crate::{
    body::{Body, BodyError},
    config::{Config, Route, SessionMode},
    error::Code,
    telemetry::{
        self,
        metrics::{Class, Held, Metrics, RouteMetrics},
    },
};

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

/// What requests are counted by.
#[derive(Debug)]
pub struct Counting {
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// For each route, in the order of the file.
    routes: Box<[RouteMetrics]>,
}

impl Counting {
    /// Makes the series of the configured routes.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let routes = config.routes.iter();
        Self {
            routes: routes.map(|route| metrics.route(&route.name())).collect(),
            metrics,
        }
    }

    fn of(&self, route: Option<usize>) -> &RouteMetrics {
        let route = route.and_then(|place| self.routes.get(place));
        route.unwrap_or(&self.metrics.no_route)
    }
}

/// What is told of a request. It is logged when this is dropped. No query, no cookie, no key.
#[derive(Debug)]
pub struct Record {
    counting: Arc<Counting>,
    _in_flight: Held,
    started: Instant,
    method: Method,
    /// The client's address; none behind a Unix socket.
    client: Option<IpAddr>,
    /// The host that was routed.
    host: String,
    /// The resolved path.
    path: String,
    /// The upstream's name.
    upstream: String,
    /// The place of the route.
    pub route: Option<usize>,
    /// Whether the answer depends on the session; not logged.
    pub reads_session: bool,
    /// The opaque id of the session, as the upstream got it.
    pub sid: Option<String>,
    /// Why the gateway answered itself.
    pub code: Option<Code>,
    /// What was answered.
    status: Option<StatusCode>,
}

impl Record {
    /// Starts the clock.
    pub fn new(method: Method, peer: Option<IpAddr>, counting: Arc<Counting>) -> Self {
        Self {
            _in_flight: Held::new(&counting.metrics.requests_in_flight),
            counting,
            started: Instant::now(),
            method,
            client: peer,
            host: String::new(),
            path: String::new(),
            route: None,
            upstream: String::new(),
            reads_session: false,
            sid: None,
            code: None,
            status: None,
        }
    }

    /// The head of the answer goes out.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        let route = self.counting.of(self.route);
        route.requests.count(Class::of(self.status));
        route.duration.observe_duration(self.started.elapsed());
        if let Some(code) = self.code {
            self.counting.metrics.gateway_errors.count(code);
        }
    }
}

impl Witness for Record {
    fn admitted(&mut self, admitted: &Admitted) {
        self.client = admitted.client;
        self.host.clone_from(&admitted.host);
        self.path.push_str(admitted.path.forwarded());
    }

    fn routed(&mut self, route: &Route, upstream: &str) {
        self.route = Some(route.place);
        self.upstream.push_str(upstream);
        self.reads_session = route.session == SessionMode::Read;
    }

    fn resolved(&mut self, _: &Resolution) {}
}

/// A client as logs call it: as nginx does where it has no address.
fn told(client: Option<IpAddr>) -> String {
    client.map_or_else(|| "unix:".to_owned(), |client| client.to_string())
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status.is_none() {
            let route = self.counting.of(self.route);
            route.requests.count(Class::Left);
        }
        tracing::info!(
            target: telemetry::ACCESS,
            client = %told(self.client),
            method = self.method.as_str(),
            host = self.host,
            path = self.path,
            status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            upstream = self.upstream,
            sid = self.sid,
            error = self.code.map(Code::as_str),
            duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
    }
}

/// The body of an answer, and the record of its request, which ends with it.
#[derive(Debug)]
pub struct Recorded {
    body: Body,
    _record: Box<Record>,
}

impl Recorded {
    /// Keeps the record until the body has ended or is given up.
    pub fn new(body: Body, record: Record) -> Self {
        Self {
            body,
            _record: Box::new(record),
        }
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
