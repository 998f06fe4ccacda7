//! What Django does with a session, and no more: no HTTP engine, no SQL.
//!
//! Every rule here was compared with the releases it speaks of, from 1.11 to 6.1. Where this module is
//! stricter than Django, its documentation says so.

pub mod auth;
pub mod cookie;
mod encoding;
pub mod expiry;
mod payload;
pub mod settings;
mod signing;
mod user;
pub(crate) mod zone;

pub use self::{
    auth::{Account, AuthHash, Login, Standing, integer_key, login},
    expiry::{
        BadExpiry, Expiry, Lifetime, SESSION_EXPIRY, expiry, expiry_of, iso_text,
        parse_sqlite_text, sqlite_text,
    },
    payload::{Codec, Format, Seal, Unreadable, unverified},
    settings::{Release, Settings, Verify},
    signing::{base62, parse_base62},
    user::{KeyKind, UserKey},
};
