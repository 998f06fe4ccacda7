//! A Django site's sessions, for what is not Django: as a library, and as a reverse proxy for services that should
//! not know of them.
//!
//! # The library
//!
//! [`Sessions`] reads and writes the rows that Django reads and writes, by Django's rules. A [`Session`] is read
//! when it is asked for, used like a dict, and saved name by name, so that nothing that others have stored
//! meanwhile is lost.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let site = session_gateway::sample::Site::new().await?;
//! # let (database, secret_key) = (site.url(), "the SECRET_KEY of a sample");
//! # let cookie = site.log_in().await?;
//! # let request = http::Request::get("/").header("Cookie", format!("sessionid={cookie}")).body(())?;
//! # let mut response = http::Response::new(());
//! use session_gateway::{Release, Sessions, Settings};
//!
//! // Once: the database, and what settings.py says.
//! let mut settings = Settings::new(secret_key);
//! settings.release = Release(5, 2);
//! let sessions = Sessions::connect(database, settings).await?;
//!
//! // For each request.
//! let mut session = sessions.for_request(request.headers());
//! session.load().await?;
//! if let Some(user) = session.user()? {
//!     println!("user {} is logged in", user.id);
//! }
//! let mut cart: Vec<String> = session.get("cart")?.unwrap_or_default();
//! cart.push("book".to_owned());
//! session.insert("cart", &cart)?;
//!
//! // Stores it, and only then tells the browser: Set-Cookie and Vary.
//! session.finish(response.status(), response.headers_mut()).await?;
//! # assert_eq!(session.get("cart")?, Some(cart));
//! # assert!(response.headers().contains_key("set-cookie"));
//! # Ok(())
//! # }
//! ```
//!
//! `docs/library.md` compares it with async-django-session, name by name; `examples/visits.rs` is a whole program.
//!
//! # The gateway
//!
//! It reads sessions through the same [`Session`], hands them to services in a signed header, and stores what they
//! answer. A request makes one trip (docs/design.md):
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

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
