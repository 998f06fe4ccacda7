//! A reverse proxy that gives services beside a Django site the visitor's Django session.
//!
//! A request makes one trip (docs/design.md):
//!
//! ```text
//! accept -> admit -> route -> resolve -> authorize -> inject -> forward -> persist -> respond
//! ```
//!
//! [`server`] accepts; [`gateway`] is the trip; [`sessions`] says whose session it is and carries out changes,
//! by the rules in [`django`], on the rows of [`store`]. What an upstream is told is [`assertion`]; what it may
//! answer is [`patch`]. [`config`] is the file. Each module imports only from those below it; a test keeps
//! that true.

pub mod admin;
pub mod assertion;
pub mod body;
pub mod command;
pub mod config;
pub mod django;
pub mod error;
pub mod gateway;
pub mod json;
pub mod patch;
pub mod path;
pub mod reserved;
#[doc(hidden)]
pub mod sample;
pub mod server;
pub mod session;
pub mod sessions;
pub mod store;
pub mod telemetry;
pub mod upstream;

pub use crate::{
    django::{Release, Settings, Verify},
    sessions::{Connect, CurrentUser, Error, Sessions, handle::Session},
};
