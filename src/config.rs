//! `gateway.toml`, parsed into a [`Config`] that is right by construction.
//!
//! The file types are strict: an unknown key, a duplicate, an unused upstream, two routes that clash are
//! errors with file, line, column and a suggestion. Everything above this module works with [`Config`] only.

mod certificates;
mod digits;
mod django;
mod files;
mod item;
mod keys;
mod listeners;
mod load;
mod log;
mod mysql;
mod pages;
mod pem;
mod plain;
pub mod protected;
mod reference;
mod report;
mod route;
mod routes;
mod schema;
pub mod secret;
mod secrets;
mod signing;
mod site;
pub mod sql;
#[cfg(test)]
mod tests;
mod traffic;
mod transport;
mod tree;
mod trusted;
mod tunnels;
mod upstream_tls;
mod upstreams;
mod value;

use std::{cell::RefCell, ffi::OsString, fs, path::Path, time::Duration};

use ed25519_dalek::{SigningKey, VerifyingKey};
use http::HeaderName;
use sha2::{Digest, Sha256};
use toml::de::DeTable;

pub use self::{
    certificates::{Certificate, Certificates, Names},
    django::{Cookie, Database, Django, Engine, SameSite, User, Verify},
    files::Fingerprint,
    listeners::{Address, HTTPS, Listener},
    log::{Access, Field, Log},
    pages::{ErrorPages, Gap},
    protected::Protected,
    reference::reference,
    report::{Position, Problem, Remark},
    route::{
        Forward, Grants, PlainHeader, PlainSource, Recheck, Require, Route, SessionMode, Target,
        UserClaims, Writable,
    },
    schema::schema,
    secret::Secret,
    traffic::{FieldChange, Rate, RateBy, Redirect, RouteLimits},
    transport::{Balance, Health, Protocol, Server, ServerAddress},
    trusted::Trusted,
    upstream_tls::Tls,
};
use self::{
    files::Files,
    report::Report,
    tree::{Context, Table},
};
/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first 12 hex digits of the file's SHA-256, as `sha256sum` prints them.
    pub digest: String,
    /// `watch`: a changed file is put into force without being asked.
    pub watch: bool,
    /// `writes`: `false` turns every accepted change into `session-not-saved`.
    pub writes: bool,
    /// `shutdown_grace`: how long requests and writes under way may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// `drain_delay`: how long connections are still taken after SIGTERM, when `/readyz` says no already.
    pub drain_delay: Duration,
    /// `[[listener]]`.
    pub listeners: Vec<Listener>,
    /// `[health] address`.
    pub health: Option<Address>,
    /// `[admin] address`: the status page, for this machine only.
    pub admin: Option<Address>,
    /// `[health] jwks`: the path of the public keys; `None` without `[gateway] signing`.
    pub jwks: Option<String>,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[limits]`.
    pub limits: Limits,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[log]`.
    pub log: Log,
    /// `[error_pages]`.
    pub error_pages: ErrorPages,
    /// `[django]`.
    pub django: Django,
    /// `[upstream.X]`, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
}

/// How [`Config::load`] reads a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Neither environment variables nor files of secrets need to be there; placeholders stand in for them.
    /// Such a configuration is for checking only.
    pub without_secrets: bool,
}

/// A configuration, and what it does not fail for.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What one should know about it, in the order of the file.
    pub remarks: Vec<Remark>,
    /// Of all that it was made from.
    pub fingerprint: Fingerprint,
}

/// What came of reading a configuration.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Of all that was read, good or bad.
    pub fingerprint: Fingerprint,
    /// The configuration, or every problem.
    pub result: Result<Loaded, Vec<Problem>>,
}

impl Config {
    /// Reads a configuration file; `env` looks up environment variables. Relative paths in the file start
    /// at its folder.
    ///
    /// # Errors
    /// Every problem, in the order of the file: what is not TOML ends the reading at once, all else is
    /// collected.
    pub fn load(
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Result<Loaded, Vec<Problem>> {
        Self::read(path, env, options).result
    }

    /// [`load`](Self::load), and what tells whether another reading would be the same.
    pub fn read(
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Reading {
        let unread = |found: Option<&[u8]>, sentence: String| {
            let files = Files::default();
            files.note(path, found);
            let problem = Problem {
                file: path.display().to_string(),
                position: None,
                sentence,
                suggestion: None,
            };
            Reading {
                fingerprint: files.fingerprint(),
                result: Err(vec![problem]),
            }
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return unread(None, format!("cannot be read: {error}")),
        };
        match String::from_utf8(bytes) {
            Ok(text) => Self::read_text(&text, path, env, options),
            Err(error) => unread(Some(error.as_bytes()), "is not UTF-8".to_owned()),
        }
    }

    /// [`load`](Self::load) for a text that is already here; `path` says where relative paths start, and is
    /// named in messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Result<Loaded, Vec<Problem>> {
        Self::read_text(text, path, env, options).result
    }

    fn read_text(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<OsString>,
        options: LoadOptions,
    ) -> Reading {
        let report = Report::new(path, text);
        let files = Files::default();
        files.note(path, Some(text.as_bytes()));
        let tree = match DeTable::parse(text) {
            Ok(tree) => tree,
            Err(error) => {
                syntax(&report, text, &error);
                return Reading {
                    fingerprint: files.fingerprint(),
                    result: Err(report.finish().0),
                };
            }
        };
        let context = Context {
            report,
            env,
            folder: path.parent().unwrap_or(Path::new("")),
            without_secrets: options.without_secrets,
            env_names: RefCell::default(),
            files,
        };
        let config = load::read(&Table::top(&context, &keys::TOP, tree.get_ref()));
        let fingerprint = context.files.fingerprint();
        let (problems, remarks) = context.report.finish();
        let result = match config {
            Some(mut config) if problems.is_empty() => {
                config.digest = digest(text);
                Ok(Loaded {
                    config,
                    remarks,
                    fingerprint,
                })
            }
            _ => Err(problems),
        };
        Reading {
            fingerprint,
            result,
        }
    }
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reports what is not TOML. The parser's own text would quote the line, which may hold a secret.
fn syntax(report: &Report<'_>, text: &str, error: &toml::de::Error) {
    let span = error.span().unwrap_or_default();
    let key = text.get(span.clone()).unwrap_or_default();
    if error.message() == "duplicate key" && key == "django" {
        return report.problem(
            Some(span.start),
            "there is one Django site in a process",
            None,
        );
    }
    if error.message().starts_with("duplicate key") {
        return report.problem(Some(span.start), format!("{key:?} is given twice"), None);
    }
    let quotes = error.message().starts_with("string values must be quoted");
    let sentence = match quotes {
        true => "text must be quoted".to_owned(),
        false => format!("this is not TOML: {}", error.message()),
    };
    report.problem(Some(span.start), sentence, None);
}

/// `[gateway]`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The `iss` claim.
    pub issuer: String,
    /// Peers whose `X-Forwarded-*` count, and whose PROXY protocol headers do.
    pub trusted_proxies: Trusted,
    /// Origins (`https://host[:port]`, lower-case) that may send cross-site requests.
    pub trusted_origins: Vec<String>,
    /// `signing`: signs the tokens of upstreams with `algorithm = "EdDSA"`.
    pub signing: Option<Signing>,
    /// `published`: keys that are published beside the one of `signing`, and sign nothing here.
    pub published: Vec<Published>,
    /// `sid_key`: what `sid` and `rev` are derived from; `None` is `[django] secret_key`.
    pub sid_key: Option<Secret>,
}

/// `[gateway] signing`. `Debug` of a key pair shows its public half only.
#[derive(Clone, Debug)]
pub struct Signing {
    /// `kid`.
    pub kid: String,
    /// `private_key`: Ed25519.
    pub private_key: SigningKey,
}

/// One of `[gateway] published`.
#[derive(Clone, Debug)]
pub struct Published {
    /// `kid`.
    pub kid: String,
    /// `public_key`: Ed25519.
    pub public_key: VerifyingKey,
}

/// `[limits]`. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head.
    pub request_head: usize,
    /// Most request header fields.
    pub request_fields: usize,
    /// Largest request body; `None` is the spelled-out `"unlimited"`.
    pub request_body: Option<u64>,
    /// Most requests that are served at the same time.
    pub in_flight: usize,
    /// Most client connections at once.
    pub connections: usize,
    /// Most connections of one client address at once; `None` for no such limit.
    pub connections_per_address: Option<usize>,
    /// Most requests under way on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Largest `session_data` that is read from the database.
    pub session_data: usize,
    /// Largest session JSON, after inflation.
    pub session_json: usize,
    /// Largest session JSON that is written.
    pub session_write: usize,
    /// Most changes of one session that wait for each other.
    pub session_queue: usize,
    /// Most lookups that wait for a database connection.
    pub lookup_queue: usize,
}

/// `[timeouts]`, also per upstream and per route where those set one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// A request head, from its first byte to its last.
    pub head: Duration,
    /// A client connection between two requests.
    pub idle: Duration,
    /// A client that takes no byte of its answer.
    pub send: Duration,
    /// A request body without a byte.
    pub body_progress: Duration,
    /// Connecting to an upstream.
    pub connect: Duration,
    /// An upstream's response head.
    pub response_head: Duration,
    /// An upstream's response body without a byte.
    pub response_idle: Duration,
    /// A tunnel without a byte in either direction.
    pub tunnel_idle: Duration,
}

/// `[upstream.X]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// X: also the `aud` claim.
    pub name: String,
    /// `servers` with their `weights`, at least one.
    pub servers: Vec<Server>,
    /// `balance`.
    pub balance: Balance,
    /// `protocol`.
    pub protocol: Protocol,
    /// `tls`: `None` for none.
    pub tls: Option<Tls>,
    /// `health`: `None` where servers are not asked.
    pub health: Option<Health>,
    /// `resolve_every`: from one look at a server's name to the next.
    pub resolve_every: Duration,
    /// `django = true`: this is the Django site itself; `session = "pass"` routes need it.
    pub django: bool,
    /// `algorithm`.
    pub algorithm: Algorithm,
    /// `keys`: the first signs. None with [`Algorithm::EdDsa`].
    pub keys: Vec<Key>,
    /// `host = "upstream"`: the server's own name goes out as Host instead of the client's.
    pub own_host: bool,
    /// `max_header_bytes`: largest `X-Session`.
    pub max_header_bytes: usize,
    /// `token_ttl`: `exp - iat`.
    pub token_ttl: Duration,
    /// `timeouts` with this upstream's own filled in.
    pub timeouts: Timeouts,
}

/// `algorithm`: how an upstream's tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// With the first of its `keys`, a secret that it shares with the gateway.
    Hs256,
    /// With `[gateway] signing`; the upstream has the public key.
    EdDsa,
}

/// One of an upstream's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `kid`.
    pub kid: String,
    /// At least 32 bytes.
    pub secret: Secret,
}

impl Config {
    /// The columns of the user table that some route needs, each once, sorted.
    pub fn user_columns(&self) -> Vec<String> {
        let required = self
            .routes
            .iter()
            .filter_map(|route| route.require.column());
        let told = self.routes.iter().flat_map(|route| &route.user.columns);
        let plain = self.routes.iter().flat_map(Route::plain_columns);
        let told = told.chain(plain).cloned();
        let mut columns: Vec<String> = required.map(str::to_owned).chain(told).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The names of all plain headers, each once.
    pub fn plain_header_names(&self) -> Vec<HeaderName> {
        let headers = self.routes.iter().flat_map(|route| &route.plain_headers);
        let mut names: Vec<HeaderName> = headers.map(|header| header.name.clone()).collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    }

    /// Whether some route needs the user's groups.
    pub fn reads_groups(&self) -> bool {
        self.routes.iter().any(Route::reads_groups)
    }
}
