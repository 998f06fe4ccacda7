//! `explain`: what would become of a request.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header, request::Parts, uri};

use super::{
    failure, load,
    run::block_on,
    session::{describe_login, moment},
    text::{KeySource, Lines, one_line, print, quoted},
};
use crate::{
    config::{Config, Forward, Grants, Require, Route, SessionMode, Target, Writable},
    gateway::{
        Gateway, Peer,
        explain::{Behind, Explanation, Found, Meaning, Outcome, Sent, Verdict, Visitor},
    },
    json,
    session::Session,
    sessions::Sessions,
};

/// How long the database is waited for.
const FIRST_CONTACT: Duration = Duration::from_secs(2);

/// The claims that hold what the visitor's session and user row hold.
const PRIVATE: [&str; 2] = ["session", "user"];

/// The arguments of `explain`.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The request's method.
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its URL, as a browser would show it; a path alone goes to the host of a --header Host.
    #[arg(value_name = "URL")]
    url: String,
    /// The visitor's session key; `-` reads it from standard input, env:NAME from the environment.
    #[arg(
        long,
        value_name = "KEY",
        allow_hyphen_values = true,
        conflicts_with = "user"
    )]
    session: Option<KeySource>,
    /// The visitor is logged in as the user with this primary key, in a session that holds nothing else.
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// A header field of the request; can be given more than once.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<Field>,
    /// The address that the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// Print the values of the session, of the user's columns and of credentials too.
    #[arg(long)]
    reveal: bool,
    /// The configuration file.
    #[arg(long, default_value = "gateway.toml", value_name = "FILE")]
    config: PathBuf,
}

/// A header field. It may hold a credential.
#[derive(Clone)]
struct Field(String);

impl FromStr for Field {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field(redacted)")
    }
}

impl Field {
    fn parse(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = self.0.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).ok()?;
        Some((name, value))
    }
}

impl Explain {
    /// Carries it out.
    pub(super) fn run(self) -> ExitCode {
        let loaded = match load(&self.config) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let parts = match self.request(&loaded.config) {
            Ok(parts) => parts,
            Err(sentence) => return failure(&sentence, 2),
        };
        match block_on(self.explain(loaded.config, parts)) {
            Ok(text) => print(&text, ExitCode::SUCCESS),
            Err(sentence) => failure(&sentence, 1),
        }
    }

    /// The request as it would arrive.
    fn request(&self, config: &Config) -> Result<Parts, String> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| format!("{} is no method", quoted(&self.method)))?;
        let no_url = || {
            format!(
                "{} is no URL; it looks like https://shop.example/orders/7 or /orders/7",
                quoted(&self.url)
            )
        };
        let url: Uri = self.url.parse().map_err(|_| no_url())?;
        // `shop.example` alone would be a host without a path.
        if url.authority().is_some() && url.scheme().is_none() {
            return Err(no_url());
        }
        let mut target = uri::Parts::default();
        target.path_and_query = url.path_and_query().cloned();
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = Uri::from_parts(target).map_err(|_| no_url())?;
        for field in &self.header {
            let (name, value) = field
                .parse()
                .ok_or("a --header looks like 'Accept: text/html'")?;
            parts.headers.append(name, value);
        }
        match url.authority() {
            Some(authority) => {
                let host = HeaderValue::from_str(authority.as_str()).map_err(|_| no_url())?;
                parts.headers.insert(header::HOST, host);
                // As the proxy says where TLS has ended; the gateway believes it or not.
                if url.scheme_str() == Some("https") {
                    let proto = HeaderName::from_static("x-forwarded-proto");
                    let https = HeaderValue::from_static("https");
                    parts.headers.entry(proto).or_insert(https);
                }
            }
            None if !parts.headers.contains_key(header::HOST) => {
                return Err(
                    "the URL has no host: write one, or add --header 'Host: shop.example'"
                        .to_owned(),
                );
            }
            None => {}
        }
        if let Some(key) = &self.session {
            let cookie = format!("{}={}", config.django.cookie.name, key.read()?);
            let cookie = HeaderValue::try_from(cookie)
                .map_err(|_| "this session key cannot stand in a cookie")?;
            parts.headers.append(header::COOKIE, cookie);
        }
        Ok(parts)
    }

    async fn explain(&self, config: Config, parts: Parts) -> Result<String, String> {
        let sessions =
            Sessions::open(&config, Arc::default()).map_err(|error| error.to_string())?;
        if self.user.is_some() || parts.headers.contains_key(header::COOKIE) {
            // What is wrong then shows in the explanation.
            let _ = sessions.store().first_contact(FIRST_CONTACT).await;
        }
        let host = parts
            .headers
            .get(header::HOST)
            .map(|host| host.as_bytes().escape_ascii().to_string());
        let mut asked = format!(
            "{} {} to {}, from {}",
            parts.method,
            parts.uri,
            host.unwrap_or_default(),
            self.from
        );
        if let Some(user) = &self.user {
            let user = quoted(user);
            asked.push_str(&format!(", as if user {user} had just logged in"));
        }
        let gateway = Gateway::new(config.clone(), sessions.clone(), Arc::default());
        let explanation = gateway
            .explain(
                parts,
                Peer::new(Some(self.from), None),
                self.user.as_deref(),
            )
            .await;
        let teller = Teller {
            config: &config,
            file: &self.config,
            cause: sessions.store().state().cause(),
            is_https: self.url.starts_with("https:"),
            reveal: self.reveal,
        };
        Ok(teller.tell(&asked, &explanation))
    }
}

/// Writes an explanation as text.
struct Teller<'a> {
    config: &'a Config,
    file: &'a Path,
    /// Why the database does not answer, if it does not.
    cause: Option<String>,
    /// Whether the visitor's browser has asked over TLS.
    is_https: bool,
    reveal: bool,
}

impl Teller<'_> {
    fn tell(&self, asked: &str, explanation: &Explanation) -> String {
        let mut lines = Lines::default();
        lines.add("request", asked);
        if let Some(meaning) = &explanation.meaning {
            self.admitted(&mut lines, meaning);
        }
        let mut verdicts = self.config.routes.iter().zip(&explanation.verdicts);
        let serves = verdicts.find(|(_, verdict)| **verdict == Verdict::Serves);
        let route = serves.map(|(route, _)| route);
        self.routes(&mut lines, explanation, route);
        if let (Some(visitor), Some(route)) = (&explanation.visitor, route) {
            self.visitor(&mut lines, visitor, route);
        }
        match &explanation.outcome {
            Outcome::Sent(sent) => {
                lines.add("authorize", "ok");
                if let Some(route) = route {
                    self.sent(&mut lines, sent, route);
                }
            }
            Outcome::LoginPage(location) => {
                lines.add(
                    "authorize",
                    "this page load needs a login that is not there",
                );
                lines.add("answer", format_args!("302 to {location}"));
            }
            Outcome::Moved(location) => {
                lines.add("answer", format_args!("308 to {location}"));
            }
            Outcome::Refused { code, detail } => {
                let station = match explanation {
                    Explanation { meaning: None, .. } => "admit",
                    _ if route.is_none() => "route",
                    Explanation { visitor: None, .. } => "resolve",
                    _ => "authorize",
                };
                lines.add(station, format_args!("refused: {detail}"));
                if let ("resolve", Some(cause)) = (station, &self.cause) {
                    lines.add("", format_args!("the cause: {cause}"));
                }
                let status = code.status().as_u16();
                lines.add("answer", format_args!("{status} {}", code.as_str()));
            }
        }
        lines.text().to_owned()
    }

    fn admitted(&self, lines: &mut Lines, meaning: &Meaning) {
        let Meaning {
            host,
            path,
            matched,
            scheme,
            client,
        } = meaning;
        lines.add(
            "admit",
            format_args!("ok: host {host}, path {path}, scheme {scheme}, client {client}"),
        );
        if self.is_https && *scheme != "https" {
            lines.add(
                "",
                "TLS ends in front of the gateway, which believes only gateway.trusted_proxies: see --from",
            );
        }
        if matched.trim_end_matches('/') != path.trim_end_matches('/') {
            lines.add("", format_args!("routes see the path as {matched}"));
        }
    }

    fn routes(&self, lines: &mut Lines, explanation: &Explanation, serves: Option<&Route>) {
        let file = self.file.display();
        let mut label = "route";
        if let Some(route) = serves {
            let line = route.line;
            lines.add(
                label,
                format_args!("{file}:{line} serves it: {}", self.describe(route)),
            );
            label = "";
        }
        for (route, verdict) in self.config.routes.iter().zip(&explanation.verdicts) {
            let why = match verdict {
                Verdict::Serves => continue,
                Verdict::OtherHost => {
                    let host = route.host.as_deref().unwrap_or_default();
                    format!("it is for the host {host}")
                }
                Verdict::OtherPath => format!("it is for paths under {}", route.prefix),
                Verdict::LessSpecific => format!(
                    "its path {} matches too, but it names less of host and path",
                    route.prefix
                ),
            };
            lines.add(label, format_args!("{file}:{} does not: {why}", route.line));
            label = "";
        }
    }

    fn describe(&self, route: &Route) -> String {
        let target = match &route.target {
            Target::Upstream(place) => format!("upstream {}", self.config.upstreams[*place].name),
            Target::Redirect(_) => "a redirect".to_owned(),
        };
        let host = route.host.as_deref().unwrap_or("any");
        let session = match route.session {
            SessionMode::Read => "read",
            SessionMode::Off => "off",
            SessionMode::Pass => "pass",
        };
        let require = match route.require {
            Require::Anyone => "anyone",
            Require::Session => "session",
            Require::Login => "login",
            Require::Staff => "staff",
            Require::Superuser => "superuser",
        };
        let mut text = format!(
            "host {host}, path {}, {target}, session {session}, require {require}",
            route.prefix
        );
        if !route.groups.is_empty() {
            text.push_str(&format!(", groups {}", route.groups.join(", ")));
        }
        text
    }

    fn visitor(&self, lines: &mut Lines, visitor: &Visitor, route: &Route) {
        let text = match &visitor.behind {
            Behind::Known(found) => return self.session(lines, found, route),
            Behind::NotAsked if route.session == SessionMode::Pass => {
                "not asked: cookies go through unchanged"
            }
            Behind::NotAsked => "not asked: the route does not read sessions",
            Behind::Nobody if visitor.had_cookie => {
                "nobody: there is no live session behind the cookie"
            }
            Behind::Nobody => "nobody: there is no session cookie",
            Behind::LoggedOut => {
                "nobody: the login in the session does not fit the user's password any more"
            }
            Behind::Unverifiable => {
                "nobody knows: there is a row, but it cannot be verified; `session show` says why"
            }
            Behind::Unavailable => "nobody knows: the session database did not answer",
        };
        lines.add("resolve", text);
        if let (Behind::Unavailable, Some(cause)) = (&visitor.behind, &self.cause) {
            lines.add("", format_args!("the cause: {cause}"));
        }
    }

    fn session(&self, lines: &mut Lines, found: &Found, route: &Route) {
        let end = moment(found.expire_date);
        lines.add(
            "resolve",
            format_args!("a session: sid {}, ends {end}", found.sid),
        );
        match &found.sub {
            Some(sub) => lines.add("", format_args!("logged in: sub {}", quoted(sub))),
            None => lines.add("", "nobody is logged in"),
        }
        if let Some(login) = &found.login {
            lines.add("", describe_login(login));
        }
        let Some(told) = &found.told else {
            return lines.add(
                "",
                "its contents are withheld: a forwarded value is JSON for Python only",
            );
        };
        let names = |session: &Session, wanted: &dyn Fn(&str) -> bool| {
            let names = session.members().map(|member| one_line(member.raw_name));
            let names: Vec<String> = names.filter(|name| wanted(name)).collect();
            match names.is_empty() {
                true => "nothing".to_owned(),
                false => names.join(", "),
            }
        };
        let told_names: Vec<String> = told
            .members()
            .map(|member| one_line(member.raw_name))
            .collect();
        let is_told = |name: &str| told_names.iter().any(|told| told == name);
        let by = match &route.forward {
            Forward::AllButProtected => "all but the protected names",
            Forward::Only(_) => "by the route's list",
        };
        let forwarded = names(&found.session, &is_told);
        lines.add("", format_args!("forwarded ({by}): {forwarded}"));
        let kept = names(&found.session, &|name| !is_told(name));
        lines.add("", format_args!("not forwarded: {kept}"));
    }

    fn sent(&self, lines: &mut Lines, sent: &Sent, route: &Route) {
        let Target::Upstream(place) = route.target else {
            return;
        };
        let upstream = &self.config.upstreams[place];
        let servers: Vec<&str> = upstream.servers.iter().map(|s| s.name.as_str()).collect();
        let servers = servers.join(", ");
        lines.add(
            "send",
            format_args!(
                "{} {} to {} ({servers}); it was not called",
                sent.method, sent.target, upstream.name
            ),
        );
        for field in &sent.fields {
            let value = match field.confidential && !self.reveal {
                true => "(redacted)",
                false => &field.value,
            };
            lines.add("", format_args!("{}: {value}", field.name));
        }
        match &sent.claims {
            Some(claims) => {
                lines.add("", "x-session: signed, with these claims");
                self.claims(lines, claims);
            }
            None => lines.add("", "no x-session"),
        }
        if route.session == SessionMode::Read {
            let grants = describe_grants(&route.grants);
            lines.add("may change", grants);
        }
    }

    fn claims(&self, lines: &mut Lines, claims: &str) {
        // Our own claims, a moment ago: a JSON object.
        for member in json::scan_object(claims).unwrap_or_default() {
            let name = claims[member.name].trim_matches('"');
            let value = &claims[member.value];
            let value = match PRIVATE.contains(&name) && !self.reveal {
                true => names_only(value),
                false => one_line(value),
            };
            lines.add("", format_args!("  {name}: {value}"));
        }
    }
}

/// An object's names, without what they stand for.
fn names_only(object: &str) -> String {
    let members = json::scan_object(object).unwrap_or_default();
    let names = members
        .into_iter()
        .map(|member| format!("{}:(redacted)", one_line(&object[member.name])));
    format!("{{{}}}", names.collect::<Vec<_>>().join(","))
}

fn describe_grants(grants: &Grants) -> String {
    if grants.is_empty() {
        return "nothing of the session".to_owned();
    }
    let names = match &grants.writable {
        Writable::AllButProtected(more) if more.is_empty() => {
            "all but the protected names".to_owned()
        }
        Writable::AllButProtected(more) => {
            format!("all but the protected names, and {}", more.join(", "))
        }
        Writable::Only(names) if names.is_empty() => "no names".to_owned(),
        Writable::Only(names) => names.join(", "),
    };
    let acts = [
        (grants.cycle, "cycle"),
        (grants.flush, "flush"),
        (grants.expiry, "expiry"),
    ];
    let acts = acts.into_iter().filter(|(may, _)| *may);
    acts.fold(names, |text, (_, act)| format!("{text}; {act}"))
}
