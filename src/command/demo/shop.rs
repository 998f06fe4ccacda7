//! The built-in service: it believes `X-Session`, once checked, and changes the session with `X-Session-Set`.
//!
//! This is all that a service has to do; [`page`] only shows it.

use std::sync::Arc;

use chrono::Utc;
use http::{HeaderValue, Method, Request, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::{
    Ports, page,
    web::{self, Answer},
};
use crate::{
    assertion::{self, verify},
    config::{Config, Key},
    json as python_json, reserved,
};

/// The service's name in the configuration: the `aud` claim.
const NAME: &str = "shop";

/// Most things in the cart, and most letters of one.
const CART: (usize, usize) = (20, 40);

/// What the shop knows of its gateway.
pub(super) struct Shop {
    issuer: String,
    key: Key,
    ports: Ports,
}

/// A request whose token was checked.
pub(super) struct Visit {
    /// The token as it came.
    pub(super) token: String,
    /// The id of the key that signed it.
    pub(super) kid: String,
    /// What it says.
    pub(super) claims: Map<String, Value>,
    /// Every header field of the request.
    pub(super) fields: Vec<(String, String)>,
}

/// Who is calling, as far as the token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller<'a> {
    /// The primary key of the user who is logged in.
    User(&'a str),
    /// Somebody with a session, not logged in.
    Session,
    /// Somebody without a session.
    Nobody,
    /// Nobody knows, and why.
    Unknown(&'a str),
}

impl Shop {
    /// A shop behind the gateway of this configuration.
    pub(super) fn new(config: &Config, ports: Ports) -> Result<Self, String> {
        let own = config
            .upstreams
            .iter()
            .find(|upstream| upstream.name == NAME);
        let key = own.and_then(|upstream| upstream.keys.first());
        let key = key.ok_or("the demo's shop has no key")?.clone();
        Ok(Self {
            issuer: config.gateway.issuer.clone(),
            key,
            ports,
        })
    }

    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let visit = match self.check(&parts) {
            Ok(visit) => visit,
            Err(why) => {
                let said = format!("This request did not come through the gateway: {why}.");
                return web::sentence(StatusCode::UNAUTHORIZED, headers, &said);
            }
        };
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let post = parts.method == Method::POST;
        let change = match parts.uri.path() {
            "/" if reads => return self.home(&parts, &visit),
            "/members/" if reads => return members(&parts, &visit),
            "/" | "/members/" => return web::wrong_method(headers, "GET, HEAD"),
            "/count" if post => visit.counted(),
            "/cart" if post => {
                let form = web::form(body).await.unwrap_or_default();
                visit.with_item(&web::field(&form, "item").unwrap_or_default())
            }
            "/cart/delete" if post => Ok(json!({ "del": ["cart"] })),
            "/cycle" if post => Ok(json!({ "cycle": true })),
            "/expiry" if post => Ok(json!({ "expiry": 3600 })),
            "/flush" if post => Ok(json!({ "flush": true })),
            "/count" | "/cart" | "/cart/delete" | "/cycle" | "/expiry" | "/flush" => {
                return web::wrong_method(headers, "POST");
            }
            _ => {
                return web::sentence(
                    StatusCode::NOT_FOUND,
                    headers,
                    "There is no such page here.",
                );
            }
        };
        match change {
            Ok(change) => changed(&parts, &change),
            Err(why) => web::sentence(StatusCode::BAD_REQUEST, headers, why),
        }
    }

    /// The check that every service makes before it believes anything.
    fn check(&self, parts: &Parts) -> Result<Visit, String> {
        let mut tokens = parts.headers.get_all(reserved::X_SESSION).iter();
        let (Some(token), None) = (tokens.next(), tokens.next()) else {
            return Err("it has no X-Session, or two".to_owned());
        };
        let token = token.to_str().map_err(|_| "its X-Session is not ASCII")?;
        let secret = verify::Key::Hs256(self.key.secret.expose());
        let keys = [(self.key.kid.as_str(), secret)];
        let now = Utc::now().timestamp();
        let claims = verify(token, &keys, Some(&self.issuer), NAME, now);
        let Value::Object(claims) = claims.map_err(|bad| bad.to_string())? else {
            return Err("its token is no object".to_owned());
        };
        let host = parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let request = assertion::req(parts.method.as_str(), host, target);
        if claims.get("req").and_then(Value::as_str) != Some(&request) {
            return Err("its token belongs to another request".to_owned());
        }
        let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let fields = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), lossy(value)));
        Ok(Visit {
            token: token.to_owned(),
            kid: self.key.kid.clone(),
            claims,
            fields: fields.collect(),
        })
    }

    fn home(&self, parts: &Parts, visit: &Visit) -> Answer {
        if web::wants_html(&parts.headers) {
            return web::html(StatusCode::OK, page::home(visit, self.ports));
        }
        let facts = json!({
            "caller": visit.caller().to_string(),
            "session": visit.session(),
            "signature": format!("checked with key {}", visit.kid),
            "claims": visit.claims,
        });
        web::json(StatusCode::OK, &facts)
    }
}

/// The gateway lets only users in here; to believe that blindly would be one check too few.
fn members(parts: &Parts, visit: &Visit) -> Answer {
    let Caller::User(user) = visit.caller() else {
        return web::sentence(
            StatusCode::FORBIDDEN,
            &parts.headers,
            "This is for members only.",
        );
    };
    if web::wants_html(&parts.headers) {
        return web::html(StatusCode::OK, page::members(user));
    }
    web::json(
        StatusCode::OK,
        &json!({ "members_only": true, "user": user }),
    )
}

/// The answer that carries a change. The gateway stores it before anybody sees the answer.
fn changed(parts: &Parts, change: &Value) -> Answer {
    let mut answer = if web::wants_html(&parts.headers) {
        web::redirect(StatusCode::SEE_OTHER, "/")
    } else {
        web::json(
            StatusCode::OK,
            &json!({ "answered": { "X-Session-Set": change } }),
        )
    };
    // As ASCII: what is not is escaped.
    let field = python_json::canonical(&change.to_string(), 8).unwrap_or_default();
    match HeaderValue::from_str(&field) {
        Ok(field) => answer.headers_mut().insert(reserved::X_SESSION_SET, field),
        Err(_) => {
            return web::sentence(
                StatusCode::INTERNAL_SERVER_ERROR,
                &parts.headers,
                "That cannot be said.",
            );
        }
    };
    answer
}

impl Visit {
    /// Who is calling.
    pub(super) fn caller(&self) -> Caller<'_> {
        let text = |name| self.claims.get(name).and_then(Value::as_str);
        match (text("sub"), text("sid"), text("withheld")) {
            (Some(user), ..) => Caller::User(user),
            (None, Some(_), _) => Caller::Session,
            (None, None, None) => Caller::Nobody,
            (None, None, Some(why)) => Caller::Unknown(why),
        }
    }

    /// The session's contents; `None` is "not told", which is not "empty".
    pub(super) fn session(&self) -> Option<&Map<String, Value>> {
        self.claims.get("session").and_then(Value::as_object)
    }

    /// One more on the counter.
    pub(super) fn counted(&self) -> Result<Value, &'static str> {
        let session = self
            .session()
            .ok_or("The session was not told, so there is nothing to count on.")?;
        let count = session
            .get("count")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        Ok(self.unless_changed(json!({ "set": { "count": count.saturating_add(1) } })))
    }

    /// One more thing in the cart.
    pub(super) fn with_item(&self, item: &str) -> Result<Value, &'static str> {
        let session = self
            .session()
            .ok_or("The session was not told, so the cart is not known.")?;
        let mut cart = session
            .get("cart")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let item: String = item
            .trim()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(CART.1)
            .collect();
        if item.is_empty() {
            return Err("The form has no item.");
        }
        if cart.len() >= CART.0 {
            return Err("The cart is full; delete it first.");
        }
        cart.push(item.into());
        Ok(self.unless_changed(json!({ "set": { "cart": cart } })))
    }

    /// What was read is written back, so it must not have changed in between: the client gets a 409 then.
    fn unless_changed(&self, mut change: Value) -> Value {
        if let Some(rev) = self.claims.get("rev") {
            change["if"] = rev.clone();
        }
        change
    }
}

impl std::fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}, logged in"),
            Self::Session => f.write_str("a visitor with a session, not logged in"),
            Self::Nobody => f.write_str("nobody: no session yet"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}
