//! The side of a Rust service behind session-gateway: a tower layer that checks `X-Session`, gives handlers the
//! visitor's Django session, and answers what they changed as `X-Session-Set`.
//!
//! ```no_run
//! use session_gateway_upstream::SessionLayer;
//!
//! let layer = SessionLayer::builder("orders", "https://shop.example")
//!     .secret("orders-1", std::fs::read("secrets/orders_key")?)
//!     .exempt("/healthz")
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It works with every service of [`http`] types whose response body can be made from a text. A request without a
//! good `X-Session` did not come through the gateway: it is answered with 401, and a warning says why.
//!
//! The [`Session`] is in the request's extensions; with the feature `axum` it is an extractor. Only what differs
//! from what came is sent, by top-level name. The change goes out with the head of the response, so it is complete
//! when the handler returns: a body that is streamed afterwards cannot change the session any more
//! ([`Error::Closed`]). Answers of 500 and above change nothing, as in Django.

mod error;
#[cfg(feature = "axum")]
mod extract;
mod json;
mod keys;
mod layer;
mod session;
mod settings;
mod token;
mod value;

#[cfg(feature = "axum")]
pub use self::extract::NoSession;
pub use self::{
    error::{Error, Reason, Refused, SettingsError, Withheld},
    layer::{ResponseFuture, SessionLayer, SessionService},
    session::Session,
    settings::{Builder, CheckRequest},
};

use http::HeaderName;

/// The request header field that holds the signed session.
pub const X_SESSION: HeaderName = HeaderName::from_static("x-session");

/// The response header field that holds what is to be changed.
pub const X_SESSION_SET: HeaderName = HeaderName::from_static("x-session-set");

/// The programs of the README compile as they stand.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
