//! The trip of a request: admit, route, resolve, authorize, inject, forward, persist, respond.

mod admit;
mod authorize;
mod cache;
mod fields;
mod forward;
mod inject;
mod persist;
mod plain;
mod record;
mod resolve;
mod respond;
mod route;

use std::{net::IpAddr, sync::Arc};

use http::{Request, Response, Uri, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use self::{
    admit::Admitted,
    authorize::Denied,
    cache::Personal,
    forward::Forward,
    inject::Injector,
    persist::Persist,
    record::Record,
    resolve::Resolution,
    respond::{Asked, Refusal},
};
use crate::{
    body::Body,
    config::{Config, Route, SessionMode},
    django::cookie,
    error::Code,
    path::EncodedSlashes,
    reserved::{self, Reserved},
    sessions::Sessions,
    upstream::Upstream,
};

/// Everything that serving a request needs, as one immutable snapshot of the configuration.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    table: route::Table,
    upstreams: Vec<Behind>,
    sessions: Sessions,
    reserved: Reserved,
}

/// An upstream, and the key for its tokens where it has one.
#[derive(Debug)]
struct Behind {
    upstream: Upstream,
    injector: Option<Injector>,
    own_host: bool,
}

impl Gateway {
    /// Prepares the routes and upstreams of a configuration in front of its sessions.
    pub fn new(config: Config, sessions: Sessions) -> Self {
        let behind = |upstream: &crate::config::Upstream| Behind {
            upstream: Upstream::new(upstream),
            injector: Injector::new(upstream, &config.gateway),
            own_host: upstream.own_host,
        };
        Self {
            table: route::Table::new(&config.routes),
            upstreams: config.upstreams.iter().map(behind).collect(),
            sessions,
            reserved: Reserved::new(config.plain_header_names()),
            config,
        }
    }

    /// The sessions behind.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Serves one request from its head to the head of the answer, and logs it.
    pub async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Body> {
        let asked = Asked::new(request.headers());
        let mut record = Record::new(request.method().clone(), peer);
        let response = match self.trip(request, peer, &mut record).await {
            Ok(response) => response,
            Err(refusal) => {
                record.code = Some(refusal.code);
                let mut response = respond::refusal(&refusal, &asked, &self.config.gateway.issuer);
                if record.reads_session {
                    cache::protect(response.headers_mut(), Personal::No);
                }
                response
            }
        };
        record.status = Some(response.status());
        response
    }

    async fn trip(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let limits = &self.config.limits;
        let trusted = &self.config.gateway.trusted_proxies;
        let admitted = admit::admit(
            &mut parts,
            peer,
            trusted,
            limits.request_body,
            &self.reserved,
        )?;
        record.client = admitted.client;
        record.host.clone_from(&admitted.host);
        record.path.push_str(admitted.path.forwarded());

        let route = self.route(&admitted)?;
        let Behind {
            upstream,
            injector,
            own_host,
        } = &self.upstreams[route.upstream];

        record.upstream.push_str(&upstream.name);
        record.reads_session = route.session == SessionMode::Read;
        check_slashes(route, &admitted)?;
        let preflight = authorize::is_preflight(&parts);
        let mut resolution =
            resolve::resolve(&self.sessions, route, preflight, &mut parts.headers).await?;

        let origins = &self.config.gateway.trusted_origins;
        match authorize::authorize(route, &parts, &admitted, origins, preflight, &resolution) {
            Ok(()) => {}
            Err(Denied::Refused(refusal)) => return Err(refusal),
            Err(Denied::LoginPage(location)) => {
                let mut response = respond::login_page(&location)
                    .ok_or_else(|| Refusal::new(Code::LoginRequired, "This needs a login."))?;
                cache::protect(response.headers_mut(), Personal::No);
                return Ok(response);
            }
        }

        parts.uri = target(route, &admitted)?;
        if !own_host && let Some(authority) = &admitted.authority {
            parts.headers.insert(header::HOST, authority.clone());
        }
        let (body, watch) = Body::request(body, limits.request_body, route.timeouts.body_progress);
        let token = injector
            .as_ref()
            .filter(|_| route.session != SessionMode::Pass)
            .map(|injector| injector.prepare(&self.sessions, route, &resolution))
            .transpose()?;
        record.sid = token
            .as_ref()
            .and_then(|token| token.sid().map(str::to_owned));
        let forward = Forward {
            upstream,
            timeouts: &route.timeouts,
            own_host: *own_host,
            watch: watch.clone(),
            body_limit: limits.request_body,
        };
        let outgoing = request_of(parts, body);
        let answered = forward
            .send(outgoing, |request| {
                if let Some(token) = &token {
                    token.inject(request);
                }
            })
            .await?;

        let mut set_cookie = None;
        if route.session != SessionMode::Pass {
            let persist = Persist {
                sessions: &self.sessions,
                config: &self.config,
                route,
                upstream: &upstream.name,
            };
            let (status, headers) = (answered.response.status(), answered.response.headers());
            // On an error the upstream's response is dropped, and its connection with it.
            set_cookie = persist.persist(status, headers, &mut resolution).await?;
        }
        let mut response = answered.into_response(route.timeouts.response_idle, watch);
        self.finish(route, &resolution, set_cookie, &mut response);
        Ok(response)
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

    /// What ends at this hop leaves the response; our cookie and the caching rules come in.
    fn finish(
        &self,
        route: &Route,
        resolution: &Resolution,
        set_cookie: Option<header::HeaderValue>,
        response: &mut Response<Body>,
    ) {
        let headers = response.headers_mut();
        // An upstream that nominates one of our names only loses it, as it would anyway.
        fields::strip_hop_by_hop(headers, reserved::in_response);
        fields::scrub(headers, reserved::in_response);
        fields::scrub_trailer(headers);
        if route.session == SessionMode::Pass {
            return;
        }
        drop_session_cookies(&self.config.django.cookie.name, headers);
        if route.session == SessionMode::Off {
            return;
        }
        let personal = match (&set_cookie, resolution.had_cookie) {
            (Some(_), _) => Personal::SetsCookie,
            (None, true) => Personal::Yes,
            (None, false) => Personal::No,
        };
        if personal == Personal::SetsCookie || !route.upstream_cache {
            cache::protect(headers, personal);
        }
        if let Some(set_cookie) = set_cookie {
            headers.append(header::SET_COOKIE, set_cookie);
        }
    }
}

fn check_slashes(route: &Route, admitted: &Admitted) -> Result<(), Refusal> {
    if !admitted.path.encoded_slash() || route.encoded_slashes == EncodedSlashes::Keep {
        return Ok(());
    }
    let detail = "The request was refused: its path has an encoded slash (%2F).";
    Err(Refusal::new(Code::BadRequest, detail))
}

fn request_of(mut parts: Parts, body: Body) -> Request<Body> {
    // Without this hyper would send no body of unknown length with a GET.
    if body.size_hint().exact().is_none() {
        let chunked = header::HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts.uri;
    *request.headers_mut() = parts.headers;
    request
}

/// The request-target for the upstream: origin form, resolved, without the prefix that the route takes off.
fn target(route: &Route, admitted: &Admitted) -> Result<Uri, Refusal> {
    let mut target = match &route.strip_prefix {
        _ if admitted.asterisk => "*".to_owned(),
        Some(prefix) => prefix.strip(&admitted.path),
        None => admitted.path.forwarded().to_owned(),
    };
    if let Some(query) = &admitted.query {
        target.push('?');
        target.push_str(query);
    }
    Uri::try_from(target).map_err(|_| {
        Refusal::new(
            Code::BadRequest,
            "The request was refused: its target is not a URL.",
        )
    })
}

/// The gateway alone sets the session cookie. A cookie without a name could pass for it in the next request.
fn drop_session_cookies(name: &str, headers: &mut http::HeaderMap) {
    let foreign = |value: &header::HeaderValue| cookie::sets_session(name, value.as_bytes());
    if !headers.get_all(header::SET_COOKIE).iter().any(foreign) {
        return;
    }
    let kept: Vec<_> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|value| !foreign(value))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}
