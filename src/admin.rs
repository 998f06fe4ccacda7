//! What operators and their machines ask the gateway itself, on addresses of its own.

pub mod health;
pub mod jwks;
pub mod status;
