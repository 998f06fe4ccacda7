//! The layer and the session, as a service sees them.

#![allow(clippy::unwrap_used)]

mod changes;
mod layer;
mod log;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
