//! Puts the signed session into the request, as the last step before it leaves.

use std::sync::Arc;

use chrono::Utc;
use http::{HeaderName, HeaderValue, Request, header};

use super::{
    plain,
    resolve::{Caller, Resolution},
    respond::Refusal,
};
use crate::{
    assertion::{self, Claims, Contents, Known, Signer, Visitor, Withheld},
    body::Body,
    config::{self, Algorithm, Route, SessionMode},
    json, reserved,
    sessions::{CurrentUser, Sessions, Told},
    telemetry::metrics::{self, Counters, Metrics},
};

const X_SESSION: HeaderName = HeaderName::from_static(reserved::X_SESSION);

/// Signs for one upstream.
pub struct Injector {
    signer: Signer,
    issuer: String,
    audience: String,
    ttl: u64,
    max_bytes: usize,
    withheld: Counters<metrics::Withheld>,
}

impl std::fmt::Debug for Injector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injector")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Everything of a token that is the same for each try.
pub struct Prepared<'a> {
    injector: &'a Injector,
    who: Who<'a>,
    plain: Vec<(HeaderName, HeaderValue)>,
}

enum Who<'a> {
    Nobody,
    Withheld(Withheld),
    Known {
        told: Arc<Told>,
        session_exp: i64,
        sub: Option<&'a str>,
        user: Option<String>,
    },
}

impl Injector {
    /// Takes the first of the upstream's keys, or the gateway's own; `None` for an upstream without a key, which
    /// gets no token. Counts in `metrics`.
    pub fn new(
        upstream: &config::Upstream,
        gateway: &config::Gateway,
        metrics: &Metrics,
    ) -> Option<Self> {
        let signer = match upstream.algorithm {
            Algorithm::Hs256 => {
                let key = upstream.keys.first()?;
                Signer::hs256(&key.kid, key.secret.expose())
            }
            Algorithm::EdDsa => {
                let key = gateway.signing.as_ref()?;
                Signer::eddsa(&key.kid, &key.private_key)
            }
        };
        Some(Self {
            signer,
            issuer: gateway.issuer.clone(),
            audience: upstream.name.clone(),
            ttl: upstream.token_ttl.as_secs(),
            max_bytes: upstream.max_header_bytes,
            withheld: metrics.tokens_withheld.clone(),
        })
    }

    /// Computes what does not depend on the try.
    ///
    /// # Errors
    ///
    /// A value that cannot stand in the route's plain header.
    pub fn prepare<'a>(
        &'a self,
        sessions: &Sessions,
        route: &Route,
        resolution: &'a Resolution,
    ) -> Result<Prepared<'a>, Refusal> {
        let mut plain = Vec::new();
        let who = match &resolution.caller {
            _ if route.session == SessionMode::Off => Who::Withheld(Withheld::Off),
            Caller::NotAsked => Who::Withheld(Withheld::Off),
            Caller::Unverifiable => Who::Withheld(Withheld::Unreadable),
            Caller::Unavailable => Who::Withheld(Withheld::Unavailable),
            Caller::Visitor(session) => match session.known() {
                None => Who::Nobody,
                Some((key, known)) => {
                    let told = sessions.tell(key, known, &self.audience, &route.forward);
                    plain = plain::values(route, &told.sid, known)?;
                    let user = known.user.as_ref();
                    Who::Known {
                        told,
                        session_exp: known.expire_date.timestamp(),
                        sub: user.map(|user| user.id.as_str()),
                        user: user.and_then(|user| user_member(&route.user, user)),
                    }
                }
            },
        };
        Ok(Prepared {
            injector: self,
            who,
            plain,
        })
    }
}

impl Prepared<'_> {
    /// The opaque id of the session, for the log.
    pub fn sid(&self) -> Option<&str> {
        match &self.who {
            Who::Known { told, .. } => Some(&told.sid),
            _ => None,
        }
    }

    /// Signs for this very request and replaces whatever stands in `X-Session`. What clients sent under the names of
    /// plain headers is gone since the request was admitted.
    pub fn inject(&self, request: &mut Request<Body>) {
        let injector = self.injector;
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let target = request
            .uri()
            .path_and_query()
            .map_or("", |target| target.as_str());
        let req = assertion::req(request.method().as_str(), host.unwrap_or_default(), target);
        let visitor = match &self.who {
            Who::Nobody => Visitor::Nobody,
            Who::Withheld(why) => Visitor::Withheld(*why),
            Who::Known {
                told,
                session_exp,
                sub,
                user,
            } => Visitor::Known(Known {
                sid: &told.sid,
                session_exp: *session_exp,
                sub: *sub,
                user: user.as_deref(),
                contents: match &told.contents {
                    Some((session, rev)) => Contents::Told { session, rev },
                    None => Contents::NotJson,
                },
            }),
        };
        let claims = Claims {
            iss: &injector.issuer,
            aud: &injector.audience,
            iat: Utc::now().timestamp(),
            ttl: injector.ttl,
            jti: &assertion::jti(),
            req: &req,
            visitor,
        };
        let token = injector.signer.token(&claims, injector.max_bytes);
        self.count_withheld(token.too_large);
        if token.too_large {
            tracing::debug!(upstream = %injector.audience, "a session is too large for its header and was withheld");
        }
        // A token is base64url and dots, so this cannot fail; without a token the upstream refuses the request.
        match HeaderValue::try_from(token.text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.headers_mut().insert(X_SESSION, value);
            }
            Err(_) => {
                request.headers_mut().remove(X_SESSION);
            }
        }
        for (name, value) in &self.plain {
            request.headers_mut().insert(name, value.clone());
        }
    }
}

impl Prepared<'_> {
    fn count_withheld(&self, too_large: bool) {
        let reason = match &self.who {
            Who::Withheld(Withheld::Off) => metrics::Withheld::Off,
            Who::Withheld(Withheld::Unreadable) => metrics::Withheld::Unreadable,
            Who::Withheld(Withheld::Unavailable) => metrics::Withheld::Unavailable,
            Who::Known { told, .. } if told.contents.is_none() => metrics::Withheld::NotJson,
            Who::Known { .. } if too_large => metrics::Withheld::TooLarge,
            Who::Nobody | Who::Known { .. } => return,
        };
        self.injector.withheld.count(reason);
    }
}

/// The `user` member for a route; `None` where it asks for none. What is NULL is left out.
fn user_member(claims: &config::UserClaims, user: &CurrentUser) -> Option<String> {
    if claims.columns.is_empty() && !claims.groups {
        return None;
    }
    let mut out = String::from("{");
    let name = |out: &mut String, name: &str| {
        if out.len() > 1 {
            out.push(',');
        }
        json::quote(out, name);
        out.push(':');
    };
    for column in &claims.columns {
        if let Some(value) = user.column(column) {
            name(&mut out, column);
            out.push_str(value);
        }
    }
    if claims.groups {
        name(&mut out, "groups");
        out.push('[');
        for (place, group) in user.groups().iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            json::quote(&mut out, group);
        }
        out.push(']');
    }
    out.push('}');
    Some(out)
}
