//! The trip of a request: admit, route, resolve, authorize, inject, forward, persist, respond.

mod admit;
mod alarm;
mod authorize;
mod cache;
mod current;
pub mod explain;
mod fields;
mod finish;
mod forward;
mod inject;
mod limit;
mod persist;
mod plain;
mod recheck;
mod record;
mod recorded;
mod resolve;
mod respond;
mod route;
mod seen;
mod target;
mod trace;
mod tunnel;

use std::{mem, net::IpAddr, sync::Arc, time::Instant};

use http::{Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};

use self::{
    admit::Admitted,
    authorize::Denied,
    cache::Personal,
    forward::Forward,
    inject::{Injector, Prepared},
    limit::Limits,
    persist::Persist,
    recheck::{Opener, Watch},
    record::{Counting, Record, Witness},
    resolve::Resolution,
    respond::{Asked, Refusal},
    seen::{Name, Seen},
    tunnel::{Handshake, Tunnel},
};
pub use self::{
    admit::Peer,
    current::{Current, Reload, Reloads},
    recorded::Recorded,
    tunnel::{Ending, Kept, Tunnels},
};
use crate::{
    body::{Body, Cut},
    config::{self, Certificate, Config, Route, SessionMode, Target},
    error::Code,
    reserved::Reserved,
    session::SessionKey,
    sessions::{Sessions, handle::Session},
    telemetry::{metrics::Metrics, spans::Period},
    upstream::{Affinity, Upstream},
};

/// Everything that serving a request needs, as one immutable snapshot of the configuration.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    table: route::Table,
    upstreams: Vec<Behind>,
    sessions: Sessions,
    reserved: Reserved,
    limits: Limits,
    counting: Arc<Counting>,
    tunnels: Tunnels,
}

/// A request that has come as far as its upstream.
struct Approach<'a> {
    route: &'a Route,
    behind: &'a Behind,
    /// The client's address.
    client: Option<IpAddr>,
    resolution: Resolution,
    /// The other protocol that the upstream is asked for.
    handshake: Option<Handshake>,
}

/// An upstream, and the key for its tokens where it has one.
#[derive(Debug)]
struct Behind {
    upstream: Arc<Upstream>,
    injector: Option<Injector>,
    own_host: bool,
}

impl Gateway {
    /// Prepares the routes and upstreams of a configuration in front of its sessions; counts in `metrics`.
    pub fn new(config: Config, sessions: Sessions, metrics: Arc<Metrics>) -> Self {
        tell_expiry(&metrics, None, &config);
        let limits = Limits::new(&config, None);
        let tunnels = Tunnels::new(sessions.clone());
        let opened = |upstream: &_| Arc::new(Upstream::new(upstream, None, &metrics));
        Self::with(config, sessions, &metrics, limits, tunnels, opened)
    }

    /// The gateway after a change of the configuration. Servers that stay keep their connections,
    /// and what is known of them; tunnels stay open.
    pub fn after(&self, config: Config, sessions: Sessions) -> Self {
        let metrics = self.metrics();
        tell_expiry(metrics, Some(&self.config), &config);
        let limits = Limits::new(&config, Some(&self.limits));
        let tunnels = self.tunnels.clone();
        tunnels.look_into(sessions.clone());
        Self::with(config, sessions, metrics, limits, tunnels, |upstream| {
            let mut before = self.config.upstreams.iter().zip(&self.upstreams);
            match before.find(|(config, _)| config.name == upstream.name) {
                Some((config, behind)) if config == upstream => behind.upstream.clone(),
                before => {
                    let before = before.map(|(_, behind)| &*behind.upstream);
                    Arc::new(Upstream::new(upstream, before, metrics))
                }
            }
        })
    }

    fn with(
        config: Config,
        sessions: Sessions,
        metrics: &Arc<Metrics>,
        limits: Limits,
        tunnels: Tunnels,
        opened: impl Fn(&config::Upstream) -> Arc<Upstream>,
    ) -> Self {
        let behind = |upstream: &config::Upstream| Behind {
            upstream: opened(upstream),
            injector: Injector::new(upstream, &config.gateway, metrics),
            own_host: upstream.own_host,
        };
        Self {
            table: route::Table::new(&config.routes),
            upstreams: config.upstreams.iter().map(behind).collect(),
            sessions,
            reserved: Reserved::new(config.plain_header_names()),
            limits,
            counting: Arc::new(Counting::new(&config, metrics.clone())),
            tunnels,
            config,
        }
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Requests that are being served, up to the ends of their answers; tunnels do not count.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.counting.metrics
    }

    /// Starts what goes on beside the requests: upstreams look after their servers. It ends with this. Must be called
    /// in a runtime, and before the first request.
    pub fn start(&self) {
        for behind in &self.upstreams {
            behind.upstream.start();
        }
    }

    /// The upstreams, in the order of the file.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.upstreams.iter().map(|behind| &*behind.upstream)
    }

    /// What is open beyond its answer.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// The sessions behind.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Serves one request from its head to the head of the answer. It is logged when the body has ended too.
    ///
    /// The head stays where it is: futures that hand large values on hold them several times.
    pub async fn handle(
        &self,
        head: &mut Parts,
        body: Incoming,
        peer: &Peer,
    ) -> Response<Recorded> {
        let seen = Seen::of(&head.headers);
        let id = trace::request_id(&head.headers, seen, || self.trusts(peer));
        let asked = Asked::new(&head.headers, seen, id.clone());
        let counting = self.counting.clone();
        let mut record = Record::new(head, seen, peer, id.clone(), counting);
        let (mut response, tunnel) = match self.trip(head, body, peer, &mut record).await {
            Ok(answer) => answer,
            Err(denied) => (self.answer(denied, &asked, &mut record), None),
        };
        response.headers_mut().insert(trace::X_REQUEST_ID, id);
        record.answered(response.status());
        let Some(tunnel) = tunnel else {
            return response.map(|body| Recorded::new(body, record));
        };
        let kept = tunnel.spawn(self.tunnels.clone(), self.metrics().clone(), record);
        response.extensions_mut().insert(kept);
        response.map(Recorded::elsewhere)
    }

    /// Whether a peer's word on clients counts.
    fn trusts(&self, peer: &Peer) -> bool {
        let address = peer.address.map(|address| address.to_canonical());
        self.config.gateway.trusted_proxies.contains(address)
    }

    /// The gateway's own answer.
    fn answer(&self, denied: Denied, asked: &Asked, record: &mut Record) -> Response<Body> {
        let refuse = |refusal: &Refusal| respond::refusal(refusal, asked, &self.config);
        let unfit = || {
            Refusal::new(
                Code::BadRequest,
                "There is no URL for this request's target.",
            )
        };
        let mut response = match denied {
            Denied::Refused(refusal) => {
                record.code = Some(refusal.code);
                refuse(&refusal)
            }
            Denied::LoginPage(location) => {
                respond::login_page(&location).unwrap_or_else(|| refuse(&unfit()))
            }
            Denied::Moved(location) => {
                respond::moved(&location).unwrap_or_else(|| refuse(&unfit()))
            }
        };
        let headers = response.headers_mut();
        if record.reads_session {
            cache::protect(headers, Personal::No);
        }
        if let Some(place) = record.route {
            fields::add(headers, &self.config.routes[place].response_headers);
            cache::drop_overrides(headers);
        }
        response
    }

    async fn trip(
        &self,
        parts: &mut Parts,
        body: Incoming,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(Response<Body>, Option<Tunnel>), Denied> {
        let in_flight = self.limits.take()?;
        let open = |key, had_cookie| self.sessions.of_cookie(key, had_cookie);
        let limits = Some(&self.limits);
        let approach = self.approach(parts, peer, open, limits, record);
        let Approach {
            route,
            behind,
            client,
            mut resolution,
            handshake,
        } = approach.await?;
        let in_flight = (in_flight, self.limits.take_of(route)?);
        let Behind {
            upstream, own_host, ..
        } = behind;

        let body_limit = route.limits.request_body;
        let (body, watch) = Body::request(body, body_limit, route.timeouts.body_progress);
        let token = self.token(route, behind, &resolution)?;
        record.received = watch.clone();
        // The configuration can put one in.
        let may_be_traced = record.is_traced || !route.request_headers.is_empty();
        let (id, span) = (record.request_id.clone(), record.span.as_ref());
        record.trace = trace::mark(&mut parts.headers, id, may_be_traced, span);
        record.forwarded(token.as_ref().and_then(Prepared::sid));
        let forward = Forward {
            upstream,
            timeouts: &route.timeouts,
            own_host: *own_host,
            alarm: &peer.alarm,
            affinity: Affinity {
                sid: token.as_ref().and_then(Prepared::sid),
                client,
            },
            watch: watch.clone(),
            body_limit,
            handshake: handshake.as_ref(),
        };
        let client = parts.extensions.remove::<OnUpgrade>();
        let outgoing = request_of(parts, body);
        let sending = Instant::now();
        let answered = forward
            .send(outgoing, |request| {
                if let Some(token) = &token {
                    token.inject(request);
                }
            })
            .await;
        record.upstream_took = Some(Period::since(sending));
        let answered = answered?;
        record.served_by(&answered);

        let seen = Seen::of(answered.response.headers());
        let mut set_cookie = None;
        let opener = Opener::of(&resolution);
        if route.session != SessionMode::Pass {
            let persist = Persist {
                sessions: &self.sessions,
                config: &self.config,
                route,
                upstream: &upstream.name,
            };
            let (status, headers) = (answered.response.status(), answered.response.headers());
            // On an error the upstream's response is dropped, and its connection with it.
            let asks = seen.has(Name::XSessionSet);
            if asks || persist.extends() {
                let persisting = asks.then(Instant::now);
                // Boxed: few requests store anything, and all would have to keep the room.
                let persisted = Box::pin(persist.persist(status, headers, &mut resolution)).await;
                record.write_took = persisting.map(Period::since);
                set_cookie = persisted?;
            }
        }
        if let (Some(handshake), Some(client)) = (handshake, client)
            && answered.response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let (head, server, in_flight) = answered.into_tunnel();
            let mut response = head.map(|()| Body::Empty);
            let config = &self.config;
            finish::finish(config, route, &resolution, set_cookie, seen, &mut response);
            handshake.answer(&mut response);
            let tunnel = Tunnel {
                client,
                upstream: server,
                in_flight,
                is_websocket: handshake.is_websocket(),
                idle: route.timeouts.tunnel_idle,
                watch: Watch::of(route, opener, &resolution, true, self.tunnels.epoch()),
            };
            return Ok((response, Some(tunnel)));
        }
        let mut response = answered.into_response(route.timeouts.response_idle, watch);
        let config = &self.config;
        finish::finish(config, route, &resolution, set_cookie, seen, &mut response);
        self.look_after(route, opener, &resolution, &mut response);
        if !response.body().is_end_stream() {
            record.holds(in_flight);
        }
        Ok((response, None))
    }

    /// An answer that goes on for long ends when its reader may not have it any more.
    fn look_after(
        &self,
        route: &Route,
        opener: Option<Opener>,
        resolution: &Resolution,
        response: &mut Response<Body>,
    ) {
        let is_stream = fields::is_event_stream(response.headers());
        let tunnels = &self.tunnels;
        let watch = Watch::of(route, opener, resolution, is_stream, tunnels.epoch());
        if !is_stream && watch.is_none() {
            return;
        }
        let metrics = self.metrics().clone();
        let revoked = watch.map(|watch| watch.ended(tunnels.clone(), metrics.clone()));
        let restart = is_stream.then(|| tunnels.enter().ended());
        let ending = recheck::either(recheck::or_never(restart), recheck::or_never(revoked));
        response.body_mut().end_with(async move {
            metrics.streams_ended.count(ending.await.label());
            match is_stream {
                true => Cut::Cleanly,
                false => Cut::Off,
            }
        });
    }

    /// The stations before the upstream: leaves in `parts` what would be sent to it, but for the token. `open`
    /// gives the session of a cookie, `limits` count the request, `witness` is told what each station finds.
    async fn approach(
        &self,
        parts: &mut Parts,
        peer: &Peer,
        open: impl FnOnce(Option<SessionKey>, bool) -> Session,
        limits: Option<&Limits>,
        witness: &mut impl Witness,
    ) -> Result<Approach<'_>, Denied> {
        let trusted = &self.config.gateway.trusted_proxies;
        let mut admitted = admit::admit(
            parts,
            peer,
            trusted,
            self.config.limits.request_fields,
            &self.reserved,
            &self.metrics().scrubbed_fields,
        )?;
        witness.admitted(&admitted);

        let route = self.route(&admitted)?;
        let behind = match &route.target {
            Target::Upstream(place) => Ok(&self.upstreams[*place]),
            Target::Redirect(redirect) => Err(redirect),
        };
        witness.routed(route, behind.map_or("", |behind| &behind.upstream.name));
        if let Some(port) = peer.redirect
            && admitted.scheme == "http"
            && !route.prefix.is_for_acme()
        {
            return Err(Denied::Moved(target::with_https(port, &admitted)?));
        }
        target::check_slashes(route, &admitted)?;
        admit::check_length(admitted.length, route.limits.request_body)?;
        if let Some(limits) = limits {
            limits.count_address(route, admitted.client)?;
        }
        let elsewhere = |redirect| Denied::Moved(target::elsewhere(redirect, route, &admitted));
        let behind = behind.map_err(elsewhere)?;

        let preflight = authorize::is_preflight(parts);
        let cookie = &self.config.django.cookie;
        let headers = &mut parts.headers;
        let metrics = &self.counting.metrics;
        let resolution = resolve::resolve(cookie, open, route, preflight, headers, metrics).await?;
        witness.resolved(&resolution);
        if let Some(limits) = limits {
            limits.count_session(route, resolution.key(), admitted.client)?;
        }

        let origins = &self.config.gateway.trusted_origins;
        authorize::authorize(route, parts, &admitted, origins, preflight, &resolution)?;

        if !target::is_same(route, &admitted, &parts.uri) {
            parts.uri = target::target(route, &admitted)?;
        }
        if !behind.own_host
            && let Some(authority) = &admitted.authority
            && parts.headers.get(header::HOST) != Some(authority)
        {
            parts.headers.insert(header::HOST, authority.clone());
        }
        fields::change(&mut parts.headers, &route.request_headers);
        let handshake = match admitted.handshake.take() {
            Some(handshake)
                if !behind.upstream.is_http2() && handshake.is_one_of(&route.upgrades) =>
            {
                handshake.ask(&mut parts.headers);
                Some(handshake)
            }
            Some(handshake) if handshake.is_http2() => {
                let detail = "This route takes no WebSockets.";
                return Err(Refusal::new(Code::MethodRefused, detail).into());
            }
            _ => None,
        };
        Ok(Approach {
            route,
            behind,
            client: admitted.client,
            resolution,
            handshake,
        })
    }

    /// The token for the upstream, if it gets one.
    fn token<'a>(
        &self,
        route: &Route,
        behind: &'a Behind,
        resolution: &'a Resolution,
    ) -> Result<Option<Prepared<'a>>, Refusal> {
        let injector = behind.injector.as_ref();
        let injector = injector.filter(|_| route.session != SessionMode::Pass);
        injector
            .map(|injector| injector.prepare(&self.sessions, route, resolution))
            .transpose()
    }

    fn route(&self, admitted: &Admitted) -> Result<&Route, Refusal> {
        let place = self
            .table
            .find(&self.config.routes, &admitted.host, &admitted.path);
        let Some(route) = place.map(|place| &self.config.routes[place]) else {
            let detail = "No route of this gateway matches the host and path.";
            return Err(Refusal::new(Code::NoRoute, detail));
        };
        Ok(route)
    }
}

/// Tells when each certificate ends. One that a reload has taken out ends for nobody, and raises no alarm.
fn tell_expiry(metrics: &Metrics, before: Option<&Config>, now: &Config) {
    let name = |certificate: &Certificate| certificate.file.display().to_string();
    for old in before.into_iter().flat_map(Config::certificates) {
        if !now.certificates().any(|new| new.file == old.file) {
            metrics.certificate_expiry.forget(&[&name(old)]);
        }
    }
    for new in now.certificates() {
        let expiry = metrics.certificate_expiry.of(&[&name(new)]);
        expiry.set(new.not_after);
    }
}

/// Takes out of `parts` what goes on.
fn request_of(parts: &mut Parts, body: Body) -> Request<Body> {
    // Without this hyper would send no body of unknown length with a GET.
    if body.size_hint().exact().is_none() {
        let chunked = header::HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    let mut request = Request::new(body);
    *request.method_mut() = mem::take(&mut parts.method);
    *request.uri_mut() = mem::take(&mut parts.uri);
    *request.headers_mut() = mem::take(&mut parts.headers);
    request
}
