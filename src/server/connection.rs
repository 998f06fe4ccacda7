//! One connection of a client: its requests go on the trip until it ends.

use std::{convert::Infallible, future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    accept::Shared,
    arrive::{self, Arrived, Rejected},
    drive::{self, Ended, Watch},
    exchange::{Answer, Streams},
    guard::{Guard, Transport},
    pace::{Overdue, Pace},
    places::Place,
    proxy::Client,
    socket::Socket,
    stage::{Stage, Stages},
};
use crate::{
    config::{Limits, Timeouts},
    gateway::{Current, Gateway, Kept, Peer},
    telemetry::{
        Throttle,
        metrics::{Overstayed, Protocol, Refused},
    },
};

/// At most one line about what every client can cause.
const LOG_EVERY: Duration = Duration::from_secs(10);

static UNTRUSTED: Throttle = Throttle::new();

/// How many bytes of one request body an HTTP/2 client may send ahead of the upstream.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same of all bodies of a connection: what one can make the gateway hold. Four that nobody reads stop it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of one answer is kept for an HTTP/2 client that reads slowly.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client has reset before they were looked at (CVE-2023-44487), and that the gateway had to reset
/// because of the client (CVE-2025-8671); with more the connection ends.
const RESETS_NOT_ACCEPTED: usize = 20;
const OWN_RESETS: usize = 128;

/// An HTTP/2 client is asked at times whether it is there; one that has gone without a word does not hold its streams.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a client until one of the two ends the connection. What is configured when it begins holds for the
/// connection; each request is served by what is configured when it comes. `place` is the listener's.
pub async fn serve(socket: Socket, open: Place, place: usize, shared: Shared) {
    let gateway = shared.current.load();
    let timeouts = gateway.config().timeouts.clone();
    let limits = gateway.config().limits.clone();
    // Boxed, as all that a connection does not need while it idles.
    let arriving = Box::pin(arrive(socket, open, place, &gateway));
    let (arrived, open) = match arriving.await {
        Ok(arrived) => arrived,
        Err(rejected) => return count(&rejected, &gateway),
    };
    let Arrived {
        mut transport,
        alpn,
        peer,
    } = arrived;
    let pace = Pace::new(&timeouts);
    let mut stages = shared.stages.clone();
    let is_h2 = match (&mut transport, alpn) {
        (_, Some(is_h2)) => is_h2,
        (Transport::Tls(_), None) => false,
        (Transport::Plain(socket), None) => {
            let deadline = Instant::now() + timeouts.head;
            let spoken = tokio::select! {
                spoken = arrive::speaks_h2(socket, deadline) => spoken,
                () = stages.reached(Stage::Ending) => return,
            };
            match spoken {
                Ok(is_h2) => is_h2,
                Err(rejected) => return count(&rejected, &gateway),
            }
        }
    };
    let protocol = match is_h2 {
        true => Protocol::Http2,
        false => Protocol::Http1,
    };
    let metrics = gateway.metrics().clone();
    let open = (metrics.connections_open.hold(protocol), open);
    // Kept no longer: a connection may outlive many configurations.
    drop(gateway);
    let guard = Guard::new(transport, pace.clone(), is_h2, open);
    let watch = Watch::new(pace.clone(), stages);
    let trip = Arc::new(Trip {
        current: shared.current,
        stages: shared.stages,
        pace,
        peer,
        is_h2,
    });
    let service = service_fn(move |request| trip.clone().answer(request));
    let ended = if is_h2 {
        let connection =
            h2_settings(&limits, &timeouts).serve_connection(TokioIo::new(guard), service);
        drive::http2(connection, watch, timeouts.head).await
    } else {
        drive::http1(&h1_settings(&limits), guard, service, watch).await
    };
    match ended {
        Ended::Done(Ok(())) => {}
        Ended::Done(Err(error)) => tracing::debug!(%error, "a client connection ended early"),
        Ended::Overdue(why) => {
            let why = match why {
                Overdue::Head => Overstayed::Head,
                Overdue::Idle => Overstayed::Idle,
                Overdue::Send => Overstayed::Send,
            };
            metrics.connections_overdue.count(why);
            tracing::debug!(?why, "a client connection was closed at a deadline");
        }
    }
}

/// Goes through what comes before HTTP, and counts the connection for its client.
async fn arrive(
    mut socket: Socket,
    mut open: Place,
    place: usize,
    gateway: &Gateway,
) -> Result<(Arrived, Place), Rejected> {
    let config = gateway.config();
    // A reload leaves the listeners where they are.
    let Some(listener) = config.listeners.get(place) else {
        return Err(Rejected::Left);
    };
    let trusted = &config.gateway.trusted_proxies;
    let mut client = Client {
        address: socket.peer(),
        encrypted: false,
    };
    if listener.proxy_protocol {
        if !trusted.contains(socket.peer()) {
            refuse_untrusted(socket.peer(), gateway);
            return Err(Rejected::Left);
        }
        let told = arrive::read_proxy_header(&mut socket, config.timeouts.head).await?;
        client = told.unwrap_or(client);
    }
    if let (Some(most), Some(address)) = (config.limits.connections_per_address, client.address)
        && !trusted.contains(client.address)
        && !open.count_for(address, most)
    {
        gateway
            .metrics()
            .connections_refused
            .count(Refused::Address);
        return Err(Rejected::Left);
    }
    let arrived = arrive::secure(socket, listener, &config.timeouts, client).await?;
    Ok((arrived, open))
}

fn refuse_untrusted(peer: Option<IpAddr>, gateway: &Gateway) {
    gateway
        .metrics()
        .connections_refused
        .count(Refused::UntrustedProxy);
    if let Some(held_back) = UNTRUSTED.pass(LOG_EVERY) {
        let peer = peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        tracing::warn!(
            peer,
            held_back,
            "closed a connection to a listener with proxy_protocol: its peer is not in trusted_proxies"
        );
    }
}

fn count(rejected: &Rejected, gateway: &Gateway) {
    let metrics = gateway.metrics();
    match rejected {
        Rejected::Left => {}
        Rejected::Late => metrics.connections_overdue.count(Overstayed::Head),
        Rejected::NoProxyHeader => {
            metrics.connections_refused.count(Refused::NoProxyHeader);
            tracing::debug!("a connection had no PROXY protocol header");
        }
        Rejected::Tls(why, error) => {
            metrics.tls_failures.count(*why);
            let cause = error.as_ref().map(ToString::to_string);
            tracing::debug!(?why, cause, "a TLS handshake failed");
        }
    }
}

fn h1_settings(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(limits.request_fields)
        .max_header_size(limits.request_head);
    builder
}

fn h2_settings(limits: &Limits, timeouts: &Timeouts) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams {
        send: timeouts.send,
    });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.request_head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_NOT_ACCEPTED)
        .max_local_error_reset_streams(OWN_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .enable_connect_protocol();
    builder
}

/// What serving a request on this connection takes.
#[derive(Debug)]
struct Trip {
    current: Arc<Current>,
    stages: Stages,
    pace: Arc<Pace>,
    peer: Peer,
    is_h2: bool,
}

impl Trip {
    /// Boxed: between requests the connection then keeps no room for one. The head lies in the box too, for everyone
    /// to work on it there.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>> {
        let has_body = !request.body().is_end_stream();
        let exchange = self.pace.begin(has_body);
        if request.extensions().get::<OnUpgrade>().is_some() {
            self.pace.asks_upgrade();
        }
        if !self.is_h2 {
            self.pace.head_ends();
        }
        let gateway = self.current.load();
        let (mut head, body) = request.into_parts();
        Box::pin(async move {
            let mut response = gateway.handle(&mut head, body, &self.peer).await;
            if self.is_h2 {
                // A connection with a tunnel in one of its streams is not idle.
                if let Some(kept) = response.extensions_mut().remove::<Kept>() {
                    kept.keep(self.pace.begin(false));
                }
            } else {
                self.stages.say_goodbye(&mut response);
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    exchange.becomes_tunnel();
                }
                if has_body && response.headers().contains_key(header::CONNECTION) {
                    exchange.lingers();
                }
            }
            Ok(response.map(|body| Answer::new(body, self.is_h2, exchange)))
        })
    }
}
