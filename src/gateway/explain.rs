//! What would become of a request: what the stations before the upstream found, written down.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, Request, header, request::Parts};

pub use super::route::Verdict;
use super::{
    Approach, Gateway,
    admit::{Admitted, Peer},
    authorize::Denied,
    forward,
    record::Witness,
    request_of,
    resolve::{Caller, Resolution},
    respond::Refusal,
    route::Table,
    seen::Seen,
    trace,
};
use crate::{
    body::Body,
    config::{self, Config, Route},
    error::Code,
    reserved,
    session::{Session, SessionKey},
    sessions::{Known, LoginState, Sessions},
};

impl Gateway {
    /// What would become of a request without a body: goes as far as its upstream, and does not call it. `user` is
    /// the primary key of a user as whom the visitor would be logged in, whatever cookie the request has.
    pub async fn explain(&self, mut parts: Parts, peer: Peer, user: Option<&str>) -> Explanation {
        let sessions = &self.sessions;
        let seen = Seen::of(&parts.headers);
        let id = trace::request_id(&parts.headers, seen, || self.trusts(&peer));
        let imagined = user.and_then(|user| Some((SessionKey::random().ok()?, user)));
        if let Some((key, _)) = &imagined {
            add_cookie(&self.config.django.cookie, key, &mut parts.headers);
        }
        let open = |key, had_cookie| match imagined {
            Some((own, user)) if key == Some(own) => sessions.of_user(own, user),
            _ => sessions.of_cookie(key, had_cookie),
        };
        let mut notes = Notes::new(sessions, &self.table, &self.config);
        let arrived = self
            .approach(&mut parts, &peer, open, None, &mut notes)
            .await;
        let outgoing = match arrived {
            Ok(approach) => {
                trace::mark(&mut parts.headers, id, true, None);
                self.outgoing(&mut parts, &approach).map_err(Denied::from)
            }
            Err(denied) => Err(denied),
        };
        notes.explanation(outgoing).await
    }

    /// The request that would be sent, and its fields before the gateway has added its own.
    fn outgoing(
        &self,
        parts: &mut Parts,
        approach: &Approach<'_>,
    ) -> Result<(Request<Body>, HeaderMap), Refusal> {
        let Approach {
            route,
            behind,
            resolution,
            ..
        } = approach;
        let mut request = request_of(parts, Body::Empty);
        forward::name_server(&mut request, behind.own_host, behind.upstream.host());
        let without = request.headers().clone();
        if let Some(token) = self.token(route, behind, resolution)? {
            token.inject(&mut request);
        }
        Ok((request, without))
    }
}

/// What would become of a request. It holds session data: it is printed by whoever decides what may be seen.
pub struct Explanation {
    /// What the request means; `None` where it was refused before.
    pub meaning: Option<Meaning>,
    /// For each route, in the order of the file, what it has to do with the request.
    pub verdicts: Vec<Verdict>,
    /// Who asks; `None` where nobody came as far as to ask.
    pub visitor: Option<Visitor>,
    /// The end.
    pub outcome: Outcome,
}

/// What a request means, made unambiguous.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// The host that routes are matched with.
    pub host: String,
    /// The path that goes on.
    pub path: String,
    /// The path that routes are matched with: decoded once, cut at each `;`.
    pub matched: String,
    /// `https` or `http`, as far as it is known.
    pub scheme: &'static str,
    /// The client's address.
    pub client: String,
}

/// Who asks.
pub struct Visitor {
    /// Whether the request has a session cookie.
    pub had_cookie: bool,
    /// What is behind it.
    pub behind: Behind,
}

/// What is behind a session cookie.
pub enum Behind {
    /// The route does not want to know.
    NotAsked,
    /// No live session.
    Nobody,
    /// A session.
    Known(Box<Found>),
    /// A session whose login does not fit any more: nobody.
    LoggedOut,
    /// A row that cannot be verified.
    Unverifiable,
    /// The database did not answer, and the route goes on all the same.
    Unavailable,
}

/// A session, as far as an upstream may know it.
pub struct Found {
    /// Its id for this upstream.
    pub sid: String,
    /// When it ends.
    pub expire_date: DateTime<Utc>,
    /// The logged-in user's primary key.
    pub sub: Option<String>,
    /// The login in it, as far as the database says.
    pub login: Option<LoginState>,
    /// Its contents.
    pub session: Arc<Session>,
    /// What of them the upstream is told; `None` where strict JSON cannot hold it.
    pub told: Option<Session>,
}

/// How a request ends.
pub enum Outcome {
    /// With an error of the gateway's.
    Refused {
        /// Its code.
        code: Code,
        /// Its sentence.
        detail: String,
    },
    /// At the login page.
    LoginPage(String),
    /// At a URL that is the route's.
    Moved(String),
    /// At the upstream.
    Sent(Box<Sent>),
}

/// What would be sent.
pub struct Sent {
    /// The method.
    pub method: Method,
    /// The request-target.
    pub target: String,
    /// The fields, but for `X-Session`.
    pub fields: Vec<Field>,
    /// The claims in `X-Session`: a JSON object.
    pub claims: Option<String>,
}

/// A header field.
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether it holds a credential or comes from the session.
    pub confidential: bool,
}

/// Puts a session cookie into a request. Of several the last one counts.
pub(super) fn add_cookie(cookie: &config::Cookie, key: &SessionKey, headers: &mut HeaderMap) {
    let cookie = format!("{}={}", cookie.name, key.as_str());
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.append(header::COOKIE, cookie);
    }
}

/// Writes down what the stations find.
pub(super) struct Notes<'a> {
    sessions: &'a Sessions,
    table: &'a Table,
    routes: &'a [Route],
    upstream: String,
    forward: Option<config::Forward>,
    meaning: Option<Meaning>,
    verdicts: Vec<Verdict>,
    visitor: Option<Visitor>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(sessions: &'a Sessions, table: &'a Table, config: &'a Config) -> Self {
        Self {
            sessions,
            table,
            routes: &config.routes,
            upstream: String::new(),
            forward: None,
            meaning: None,
            verdicts: Vec::new(),
            visitor: None,
        }
    }

    fn found(&self, key: &SessionKey, known: &Known) -> Found {
        let told = self.forward.as_ref().and_then(|forward| {
            let told = self.sessions.project(&known.session, forward).ok()?;
            Session::parse(told.into_bytes()).ok()
        });
        Found {
            sid: self.sessions.opaque().sid(&self.upstream, key),
            expire_date: known.expire_date,
            sub: known.user.as_ref().map(|user| user.id.clone()),
            login: None,
            session: known.session.clone(),
            told,
        }
    }

    /// The end of the notes: what was to be sent, with and without what the gateway adds last, or why nothing was.
    pub(super) async fn explanation(
        mut self,
        outgoing: Result<(Request<Body>, HeaderMap), Denied>,
    ) -> Explanation {
        if let Some(Visitor {
            behind: Behind::Known(found),
            ..
        }) = &mut self.visitor
        {
            // Without an answer there is less to tell, and nothing wrong.
            let login = self.sessions.login_state(&found.session).await;
            found.login = login.ok().flatten();
        }
        let outcome = match outgoing {
            Ok((request, without)) => Outcome::Sent(Box::new(sent(&request, &without))),
            Err(Denied::LoginPage(location)) => Outcome::LoginPage(location),
            Err(Denied::Moved(location)) => Outcome::Moved(location),
            Err(Denied::Refused(Refusal { code, detail, .. })) => Outcome::Refused { code, detail },
        };
        Explanation {
            meaning: self.meaning,
            verdicts: self.verdicts,
            visitor: self.visitor,
            outcome,
        }
    }
}

impl Witness for Notes<'_> {
    fn admitted(&mut self, admitted: &Admitted) {
        let matched = admitted.path.matched();
        let matched = matched.iter().map(|segment| segment.escape_ascii());
        self.meaning = Some(Meaning {
            host: admitted.host.clone(),
            path: admitted.path.forwarded().to_owned(),
            matched: matched.fold(String::new(), |path, segment| format!("{path}/{segment}")),
            scheme: admitted.scheme,
            client: admitted
                .client
                .map_or_else(|| "unix:".to_owned(), |client| client.to_string()),
        });
        self.verdicts = self
            .table
            .verdicts(self.routes, &admitted.host, &admitted.path);
    }

    fn routed(&mut self, route: &Route, upstream: &str) {
        self.upstream = upstream.to_owned();
        self.forward = Some(route.forward.clone());
    }

    fn resolved(&mut self, resolution: &Resolution) {
        let behind = match &resolution.caller {
            Caller::NotAsked => Behind::NotAsked,
            Caller::Visitor(session) => match session.known() {
                Some((key, known)) => Behind::Known(Box::new(self.found(key, known))),
                None if session.is_logged_out() => Behind::LoggedOut,
                None => Behind::Nobody,
            },
            Caller::Unverifiable => Behind::Unverifiable,
            Caller::Unavailable => Behind::Unavailable,
        };
        self.visitor = Some(Visitor {
            had_cookie: resolution.had_cookie,
            behind,
        });
    }
}

fn sent(request: &Request<Body>, without: &HeaderMap) -> Sent {
    let headers = request.headers();
    let fields = headers
        .iter()
        .filter(|(name, _)| *name != reserved::X_SESSION);
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        let is_credential =
            value.is_sensitive() || [header::COOKIE, header::AUTHORIZATION].contains(name);
        let is_added = without.get_all(name).iter().all(|other| other != value);
        Field {
            name: name.as_str().to_owned(),
            value: value.as_bytes().escape_ascii().to_string(),
            confidential: is_credential || is_added,
        }
    };
    let token = headers.get(reserved::X_SESSION);
    Sent {
        method: request.method().clone(),
        target: request.uri().to_string(),
        fields: fields.map(field).collect(),
        claims: token.and_then(claims),
    }
}

/// The payload of a token that was signed a moment ago (RFC 7515, section 7.1).
fn claims(token: &HeaderValue) -> Option<String> {
    let payload = token.to_str().ok()?.split('.').nth(1)?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
