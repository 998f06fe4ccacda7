//! One line in the access log for each request, also when its client leaves before the answer.

use std::{net::IpAddr, time::Instant};

use http::{Method, StatusCode};

use super::{admit::Admitted, resolve::Resolution};
use crate::{
    config::{Route, SessionMode},
    error::Code,
    telemetry,
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

/// What the access log says of a request. Written when it is dropped. No query, no cookie, no key.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    method: Method,
    /// The client's address.
    client: IpAddr,
    /// The host that was routed.
    host: String,
    /// The resolved path.
    path: String,
    /// The upstream's name.
    upstream: String,
    /// Whether the answer depends on the session; not logged.
    pub reads_session: bool,
    /// The opaque id of the session, as the upstream got it.
    pub sid: Option<String>,
    /// Why the gateway answered itself.
    pub code: Option<Code>,
    /// What was answered.
    pub status: Option<StatusCode>,
}

impl Record {
    /// Starts the clock.
    pub fn new(method: Method, peer: IpAddr) -> Self {
        Self {
            started: Instant::now(),
            method,
            client: peer,
            host: String::new(),
            path: String::new(),
            upstream: String::new(),
            reads_session: false,
            sid: None,
            code: None,
            status: None,
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
        self.upstream.push_str(upstream);
        self.reads_session = route.session == SessionMode::Read;
    }

    fn resolved(&mut self, _: &Resolution) {}
}

impl Drop for Record {
    fn drop(&mut self) {
        tracing::info!(
            target: telemetry::ACCESS,
            client = %self.client,
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
