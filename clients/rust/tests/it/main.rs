//! The layer and the session, as a service sees them.

#![allow(clippy::unwrap_used)]

mod changes;
mod layer;
mod log;
#[cfg(feature = "axum")]
mod readme;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
