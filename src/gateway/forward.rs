//! Sends the request to a server of the upstream. Never repeats what may have happened.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::time::Instant;

use super::{admit, alarm::Alarm, respond::Refusal, tunnel::Handshake};
use crate::{
    body::{Body, Watch, is_chunked},
    config::Timeouts,
    error::Code,
    upstream::{self, Affinity, Answered, Outgoing, SendError, Server, Unanswered, Upstream},
};

/// What is needed to send one request.
pub struct Forward<'a> {
    /// Where to.
    pub upstream: &'a Upstream,
    /// For how long.
    pub timeouts: &'a Timeouts,
    /// The server's own name goes out as Host.
    pub own_host: bool,
    /// What the time for an answer is taken with.
    pub alarm: &'a Alarm,
    /// Whose request it is.
    pub affinity: Affinity<'a>,
    /// The request's body seen from beside it.
    pub watch: Option<Arc<Watch>>,
    /// `limits.request_body`, for the message.
    pub body_limit: Option<u64>,
    /// The other protocol that the request asks for.
    pub handshake: Option<&'a Handshake>,
}

impl Forward<'_> {
    /// Sends, and waits for the head of the answer. `inject` puts the token into the fields as the last step
    /// before each try, so that a second one carries a token of its own.
    ///
    /// # Errors
    ///
    /// 502 and 504, and what is wrong with the client's own body.
    pub async fn send(
        &self,
        mut request: Outgoing,
        inject: impl Fn(&mut Request<Body>),
    ) -> Result<Answered, Refusal> {
        let has_body = !matches!(request.body(), Body::Empty);
        let repeatable = !has_body && request.method().is_idempotent();
        let is_plain = upstream::is_plain(&request);
        let connect = self.timeouts.connect;
        // Why the first try failed, and where: from then on there is no other one.
        let mut first: Option<(Arc<Server>, String)> = None;
        loop {
            let not = first.as_ref().map(|(server, _)| server);
            let Some(server) = self.upstream.choose(self.affinity, not, connect).await else {
                return Err(match &first {
                    Some((_, why)) => self.unreachable(why),
                    None => self.no_server(),
                });
            };
            let second = first.is_some();
            let lease = match server.connection(is_plain, connect, second).await {
                Ok(lease) => lease,
                Err(error) if second => return Err(self.unreachable(&error.to_string())),
                Err(error) => {
                    self.upstream.doubt(&server, connect).await;
                    first = Some((server, error.to_string()));
                    continue;
                }
            };
            name_server(&mut request, self.own_host, &server.entry.host);
            inject(&mut request);
            let may_come_back = lease.may_refuse() || repeatable && lease.reused;
            let may_come_back = may_come_back && !lease.keeps_request();
            let spare = (may_come_back && !has_body && !second).then(|| copy_of(&request));
            let Some(sent) = self.in_time(lease.send(request)).await else {
                // While a body is under way, it may be the client who keeps the server waiting.
                let watch = self.watch.as_ref();
                if watch.is_none_or(|watch| watch.has_finished()) {
                    self.upstream.no_answer(&server, "no answer in time");
                }
                return Err(self.too_late());
            };
            let kept = |request: Option<Box<Outgoing>>| {
                let request = request.map(|request| *request).or(spare);
                request.filter(|_| !second)
            };
            request = match sent {
                Ok(answered) => {
                    check_response(&answered.response, &self.upstream.name, self.handshake)?;
                    return Ok(answered);
                }
                // That was no try.
                Err(Unanswered::Ended(unsent)) => {
                    request = *unsent;
                    continue;
                }
                // The server has not looked at it.
                Err(Unanswered::NotSent(request)) => match kept(request) {
                    Some(request) => request,
                    None => {
                        let why = "the connection was closed at once";
                        self.upstream.no_answer(&server, why);
                        return Err(self.unreachable(why));
                    }
                },
                Err(Unanswered::Broken {
                    error,
                    request,
                    crossed,
                }) => {
                    // The server closed a connection that had been idle, and nothing depends on how often this
                    // request is carried out.
                    match kept(request).filter(|_| crossed && repeatable) {
                        Some(request) => request,
                        None => return Err(self.broken(&server, &error)),
                    }
                }
            };
            first = Some((server, "the connection was closed at once".to_owned()));
        }
    }

    /// The time for an answer runs from the last byte of the request's body.
    async fn in_time<T>(&self, sending: impl Future<Output = T>) -> Option<T> {
        let limit = self.timeouts.response_head;
        let mut sending = pin!(sending);
        let last_moved = || self.watch.as_ref().map(|watch| watch.last_moved());
        let mut last = last_moved().unwrap_or_else(Instant::now);
        let mut wait = self.alarm.wait(last + limit);
        poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(Some(sent));
            }
            loop {
                ready!(wait.poll(cx));
                match last_moved().filter(|moved| *moved > last) {
                    None => return Poll::Ready(None),
                    Some(moved) => {
                        last = moved;
                        wait.put_off(last + limit);
                    }
                }
            }
        })
        .await
    }

    fn unreachable(&self, why: &str) -> Refusal {
        tracing::warn!(upstream = %self.upstream.name, cause = why, "no connection to an upstream");
        Refusal::new(
            Code::UpstreamUnreachable,
            format!(
                "The service {} cannot be reached at the moment.",
                self.upstream.name
            ),
        )
    }

    fn no_server(&self) -> Refusal {
        Refusal::new(
            Code::NoServer,
            format!(
                "No server of the service {} is available at the moment.",
                self.upstream.name
            ),
        )
    }

    fn too_late(&self) -> Refusal {
        Refusal::new(
            Code::UpstreamTimeout,
            format!("The service {} did not answer in time.", self.upstream.name),
        )
    }

    fn broken(&self, server: &Arc<Server>, error: &SendError) -> Refusal {
        if let Some(watch) = self.watch.as_ref().filter(|watch| watch.has_failed()) {
            return match self.body_limit.filter(|_| watch.was_too_large()) {
                Some(limit) => admit::too_large(limit),
                None => Refusal::new(Code::BadRequest, "The request's body ended before its end.")
                    .closing(),
            };
        }
        // The causes are I/O errors and parser states; they never quote what was sent.
        let cause = std::error::Error::source(error)
            .map(ToString::to_string)
            .unwrap_or_default();
        self.upstream
            .no_answer(server, "the connection broke before an answer");
        tracing::warn!(upstream = %self.upstream.name, %error, cause, "an upstream broke off");
        Refusal::new(
            Code::UpstreamBadResponse,
            format!(
                "The service {} broke off before it had answered.",
                self.upstream.name
            ),
        )
    }
}

/// The server's own name goes out as Host where it is configured so, and where the client gave none.
pub fn name_server(request: &mut Request<Body>, own_host: bool, server: &str) {
    if (own_host || !request.headers().contains_key(header::HOST))
        && let Ok(host) = HeaderValue::from_str(server)
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// An answer that cannot be passed on as it is.
fn check_response(
    response: &Response<()>,
    upstream: &str,
    handshake: Option<&Handshake>,
) -> Result<(), Refusal> {
    let headers = response.headers();
    let codings = headers.get_all(header::TRANSFER_ENCODING);
    let is_number = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    let (coding_count, length_count) = (codings.iter().count(), lengths.iter().count());
    // What hyper has decided for itself, the client would be told in another way (RFC 9112, section 6.3).
    let odd_framing = coding_count + length_count > 1
        || !codings.iter().all(is_chunked)
        || !lengths.iter().all(is_number);
    // 101 for what was not asked, or an interim answer that came as the final one.
    let is_final = match handshake {
        None => !response.status().is_informational(),
        Some(handshake) => {
            handshake.is_agreed(response) || handshake.can_be_refused_with(response.status())
        }
    };
    if odd_framing || !is_final {
        tracing::warn!(
            upstream,
            status = response.status().as_u16(),
            "an upstream's answer cannot be passed on"
        );
        return Err(Refusal::after(
            Code::UpstreamBadResponse,
            format!("The answer of the service {upstream} cannot be passed on."),
            response.status(),
        ));
    }
    Ok(())
}

fn copy_of(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = HeaderMap::clone(request.headers());
    copy
}
