//! Texts of the configuration, parsed: durations, sizes, addresses, names. Pure; each says why it refuses.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use chrono_tz::{TZ_VARIANTS, Tz};
use ipnet::IpNet;

use super::{
    Engine, ServerAddress,
    report::{did_you_mean, nearest},
};
use crate::path::{Canonical, Prefix, encode_component};

/// 1024 bytes.
pub(super) const KIB: u64 = 1024;
/// 1024 KiB.
pub(super) const MIB: u64 = 1024 * KIB;
/// 1024 MiB.
pub(super) const GIB: u64 = 1024 * MIB;

/// Why a text is refused, and what may mend it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) suggestion: Option<String>,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            suggestion: None,
        }
    }

    pub(super) fn instead(why: impl Into<String>, text: &str) -> Self {
        Self {
            why: why.into(),
            suggestion: Some(did_you_mean(text)),
        }
    }
}

/// Whether a text is one of these, or why not.
pub(super) type Parsed<T> = Result<T, Refused>;

/// Units of time, in milliseconds.
pub(super) const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// Units of bytes.
pub(super) const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"14d"`: a whole number and a unit.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let meant = |unit: &str| match unit.trim().to_ascii_lowercase().as_str() {
        "" | "sec" | "secs" | "second" | "seconds" | "s" => Some("s"),
        "min" | "mins" | "minute" | "minutes" | "m" => Some("m"),
        "hour" | "hours" | "hr" | "hrs" | "h" => Some("h"),
        "day" | "days" | "d" => Some("d"),
        "msec" | "millis" | "milliseconds" | "ms" => Some("ms"),
        _ => None,
    };
    let refused =
        format!("{text:?} is not a duration: a whole number and ms, s, m, h or d, such as \"30s\"");
    Ok(Duration::from_millis(number_with_unit(
        text,
        &DURATION_UNITS,
        meant,
        refused,
    )?))
}

/// `"4096B"`, `"32KiB"`, `"64MiB"`, `"1GiB"`, in bytes.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let meant = |unit: &str| match unit.trim().to_ascii_lowercase().as_str() {
        "" | "byte" | "bytes" | "b" => Some("B"),
        "k" | "kb" | "ki" | "kib" => Some("KiB"),
        "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        _ => None,
    };
    let refused =
        format!("{text:?} is not a size: a whole number and B, KiB, MiB or GiB, such as \"64KiB\"");
    number_with_unit(text, &SIZE_UNITS, meant, refused)
}

fn number_with_unit<'u>(
    text: &str,
    units: &[(&str, u64)],
    meant: impl Fn(&str) -> Option<&'u str>,
    refused: String,
) -> Parsed<u64> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    if digits.is_empty() {
        return Err(Refused::new(refused));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let suggestion = meant(unit).map(|unit| did_you_mean(&format!("{digits}{unit}")));
        return Err(Refused {
            why: refused,
            suggestion,
        });
    };
    let number = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor));
    number.ok_or_else(|| Refused::new(format!("{text:?} is too large")))
}

/// A duration as the file would spell it.
pub(super) fn spell_duration(duration: Duration) -> String {
    spell(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATION_UNITS,
    )
}

/// A size as the file would spell it.
pub(super) fn spell_size(bytes: u64) -> String {
    spell(bytes, &SIZE_UNITS)
}

fn spell(number: u64, units: &[(&str, u64)]) -> String {
    let exact = units
        .iter()
        .find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => format!("0{}", units.last().map_or("", |(unit, _)| unit)),
    }
}

/// A path of the health address that is not taken.
pub(super) fn jwks_path(text: &str) -> Parsed<String> {
    if ["/healthz", "/readyz", "/metrics"].contains(&text) {
        return Err(Refused::new(format!("{text:?} is taken")));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if !text.starts_with('/') || text.len() < 2 || !text.bytes().all(is_plain) {
        let why = format!("{text:?} is not a path of letters, digits and -._~/ after a /");
        return Err(Refused::new(why));
    }
    Ok(text.to_owned())
}

/// An IP address and port to listen on.
pub(super) fn socket(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let why = format!("{text:?} is not an IP address and a port, such as \"127.0.0.1:8080\"");
    let port = text
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok());
    match (text.split(':').next(), port) {
        (Some("localhost"), port) => Err(Refused::instead(
            why,
            &format!("127.0.0.1:{}", port.unwrap_or(8080)),
        )),
        (Some("" | "*"), Some(port)) => Err(Refused::instead(why, &format!("0.0.0.0:{port}"))),
        (Some(digits), Some(port)) if digits == port.to_string() && !text.contains(':') => {
            Err(Refused::instead(why, &format!("127.0.0.1:{port}")))
        }
        _ => Err(Refused::new(why)),
    }
}

/// A network, or an address, which is a network of one.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        Refused::new(format!(
            "{text:?} is not an IP address or network, such as \"10.0.0.0/8\""
        ))
    })?;
    if network.trunc() != network {
        let why = format!(
            "{text:?} has bits set after its first {}",
            network.prefix_len()
        );
        return Err(Refused::instead(why, &network.trunc().to_string()));
    }
    Ok(network)
}

/// A host name, IPv4 address or bracketed IPv6 address without a port: lower-case, without a final dot.
pub(super) fn host(text: &str) -> Parsed<String> {
    let lower = text.to_ascii_lowercase();
    let host = lower.strip_suffix('.').unwrap_or(&lower);
    if is_host(host) {
        return Ok(host.to_owned());
    }
    if text.contains('*') {
        return Err(Refused::new(format!(
            "{text:?}: there are no wildcards; without host a route is for any host"
        )));
    }
    if !text.is_ascii() {
        return Err(Refused::new(format!(
            "{text:?} is not ASCII: write it as xn--..."
        )));
    }
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest);
    let bare = bare.split(['/', '?']).next().unwrap_or_default();
    let bare = match bare.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => bare,
    };
    let why = format!("{text:?} is not a host name without scheme, port and path");
    if is_host(bare) {
        return Err(Refused::instead(why, bare));
    }
    Err(Refused::new(why))
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// An upstream's server: `host:port`.
pub(super) fn server(text: &str) -> Parsed<String> {
    let why = format!("{text:?} is not host:port, such as \"127.0.0.1:3001\"");
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.split(['/', '?']).next().unwrap_or_default();
        return match server(rest) {
            Ok(server) => Err(Refused::instead(why, &server)),
            Err(_) => Err(Refused::new(why)),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Refused::new(format!(
            "{why}; an IPv6 address stands in brackets"
        )));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(Refused::new(why));
    };
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|number| *number > 0 && !port.starts_with('+'));
    let Some(port) = port.filter(|_| is_host(name)) else {
        return Err(Refused::new(why));
    };
    if name == "0.0.0.0" || name == "[::]" {
        return Err(Refused::instead(
            format!("{text:?} is no address to connect to"),
            &format!("127.0.0.1:{port}"),
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// Whether what goes to this server stays on this machine or in a private network, as far as its name tells.
pub(super) fn is_private(server: &ServerAddress) -> bool {
    match server {
        ServerAddress::Unix(_) => true,
        ServerAddress::Ip(SocketAddr::V4(address)) => {
            let address = *address.ip();
            let shared = u32::from(address) >> 22 == 0x6440_0000 >> 22; // 100.64.0.0/10, RFC 6598
            address.is_loopback() || address.is_private() || address.is_link_local() || shared
        }
        ServerAddress::Ip(SocketAddr::V6(address)) => {
            let address = address.ip();
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        // One label is a name of this machine, of a container or of the local network.
        ServerAddress::Name { host, .. } => {
            let name = host.strip_suffix('.').unwrap_or(host);
            let private = [".localhost", ".local", ".internal", ".home.arpa"]; // RFC 6761, 6762, 8375
            !name.contains('.') || private.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

/// An origin as browsers send it: `https://host[:port]`, lower-case, without the scheme's own port (RFC
/// 6454, 6.2).
pub(super) fn origin(text: &str) -> Parsed<String> {
    let lower = text.to_ascii_lowercase();
    let why = format!("{text:?} is not an origin, such as \"https://shop.example\"");
    let (own_port, rest) = match lower.split_once("://") {
        Some(("https", rest)) => (":443", rest),
        Some(("http", rest)) => (":80", rest),
        _ => return Err(Refused::new(why)),
    };
    if let Some((origin, _)) = rest.split_once('/') {
        let end = text.len() - rest.len() + origin.len();
        return Err(Refused::instead(
            format!("{why} without a path"),
            &lower[..end],
        ));
    }
    let name = match rest.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            port.parse::<u16>()
                .map_err(|_| Refused::new(why.as_str()))?;
            name
        }
        _ => rest,
    };
    if !is_host(name) {
        return Err(Refused::new(why));
    }
    Ok(lower.strip_suffix(own_port).unwrap_or(&lower).to_owned())
}

/// `path` and `strip_prefix` of a route.
pub(super) fn prefix(text: &str) -> Parsed<Prefix> {
    Prefix::parse(text).map_err(|error| {
        let encode = |c: char| match c.is_ascii() {
            true => c.to_string(),
            false => {
                let mut encoded = String::new();
                encode_component(&c.to_string(), &mut encoded);
                encoded
            }
        };
        let suggestion =
            (!text.is_ascii()).then(|| did_you_mean(&text.chars().map(encode).collect::<String>()));
        Refused {
            why: format!("{text:?}: {error}"),
            suggestion,
        }
    })
}

/// A route's `login_url`: a path on this host, or an https URL. The gateway adds the query.
pub(super) fn login_url(text: &str) -> Parsed<String> {
    let why = format!("{text:?} is not a path on this host or an https URL");
    if let Some(rest) = text.strip_prefix("https://") {
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let name = name
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(name, |(name, _)| name);
        let path_is_good = path.is_empty() || is_canonical(path);
        if is_host(&name.to_ascii_lowercase()) && path_is_good {
            return Ok(text.to_owned());
        }
        return Err(Refused::new(format!(
            "{why} without user, query and fragment"
        )));
    }
    match Canonical::parse(text) {
        Ok(path) if path.forwarded() == text => Ok(text.to_owned()),
        Ok(path) => Err(Refused::instead(why, path.forwarded())),
        Err(error) => Err(Refused::new(format!("{why}: {error}"))),
    }
}

fn is_canonical(path: &str) -> bool {
    Canonical::parse(path).is_ok_and(|canonical| canonical.forwarded() == path)
}

/// The gateway's name in tokens and in `WWW-Authenticate`: it must fit a quoted string (RFC 9110, 5.6.4).
pub(super) fn issuer(text: &str) -> Parsed<String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_good = (1..=200).contains(&text.len()) && text.bytes().all(fits);
    accept(
        text,
        is_good,
        "is not 1 to 200 visible ASCII characters without quotes and backslashes",
    )
}

/// SESSION_ENGINE: `"db"` or `"cached_db"`. Of the others that Django has each gets its reason.
pub(super) fn engine(text: &str) -> Parsed<Engine> {
    let path = text.strip_prefix("django.contrib.sessions.backends.");
    let why = match (path.unwrap_or(text), path) {
        ("db", None) => return Ok(Engine::Db),
        ("cached_db", None) => return Ok(Engine::CachedDb),
        (name @ ("db" | "cached_db"), Some(_)) => {
            return Err(Refused::instead(
                format!("{text:?} is not \"db\" or \"cached_db\""),
                name,
            ));
        }
        ("cache", _) => {
            "sessions of this engine are pickles in a cache: nothing protects them from being forged, \
             and none is in the database"
        }
        ("file", _) => "sessions of this engine are files beside Django: none is in the database",
        ("signed_cookies", _) => {
            "sessions of this engine are in the browser's cookie: none is in the database, and no \
             logout could count"
        }
        _ => {
            return Err(Refused::new(format!(
                "{text:?} is not \"db\" or \"cached_db\"; an engine of your own that keeps its rows as \
                 \"db\" does is \"db\""
            )));
        }
    };
    Err(Refused {
        why: format!("{why}; only engines \"db\" and \"cached_db\" are supported"),
        suggestion: Some("change SESSION_ENGINE in settings.py to one of them".to_owned()),
    })
}

/// A session table: `name` or `schema.name`. It is put into SQL, so it is a plain identifier.
pub(super) fn table(text: &str) -> Parsed<String> {
    let is_good = text.split('.').count() <= 2 && text.split('.').all(is_identifier);
    accept(
        text,
        is_good,
        "is not a table name: letters, digits and _ as the database has them, without quotes, with a schema and \
         a dot before it if need be; a table with another name cannot be used",
    )
}

/// A name of the IANA time zone database, as in TIME_ZONE.
pub(super) fn time_zone(text: &str) -> Parsed<Tz> {
    text.parse().map_err(|_| Refused {
        why: format!("{text:?} is not a time zone such as \"Europe/Berlin\""),
        suggestion: nearest(text, TZ_VARIANTS.iter().map(|zone| zone.name())),
    })
}

/// A column's name.
pub(super) fn column(text: &str) -> Parsed<String> {
    accept(
        text,
        is_identifier(text),
        "is not a column name: letters, digits and _",
    )
}

/// An SQL condition. It is the operator's own, so this finds slips, not attacks: what would end the statement,
/// leave the parentheses around it, hide the rest of it, or be taken for a parameter.
pub(super) fn condition(text: &str) -> Parsed<String> {
    let foreign = [";", "--", "/*", "#", "?", "$", "\\", "\0"];
    let is_good = !text.trim().is_empty()
        && !foreign.iter().any(|part| text.contains(part))
        && !text.replace("::", "").contains(':')
        && is_closed(text);
    accept(
        text,
        is_good,
        "is not an SQL condition such as is_active AND NOT is_locked; it has no ; -- /* # ? $ \\ and single :, \
         and closes its quotes and parentheses",
    )
}

/// Whether each parenthesis that is closed was opened, and each that is opened and each quote is closed.
fn is_closed(sql: &str) -> bool {
    let mut depth = 0_usize;
    let mut quote = None;
    for letter in sql.chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return false,
            },
            (None, _) => {}
        }
    }
    depth == 0 && quote.is_none()
}

fn is_identifier(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A column that may be told to an upstream.
pub(super) fn told_column(text: &str) -> Parsed<String> {
    let lower = text.to_ascii_lowercase();
    let secretive = ["password", "secret", "token", "key", "hash", "otp"];
    if secretive.iter().any(|word| lower.contains(word)) {
        let why = format!("{text:?} is named like a secret, and is never told to an upstream");
        return Err(Refused::new(why));
    }
    column(text)
}

/// A Django release, `"4.2"`, from 1.11 on.
pub(super) fn release(text: &str) -> Parsed<(u8, u8)> {
    let mut parts = text.split('.');
    let mut number = || {
        parts
            .next()
            .filter(|part| part.len() <= 2)
            .and_then(|part| part.parse::<u8>().ok())
    };
    let (major, minor) = (number(), number());
    match (major, minor, parts.next()) {
        (Some(major), Some(minor), Some(_)) => Err(Refused::instead(
            format!("{text:?} has more than the major and minor number"),
            &format!("{major}.{minor}"),
        )),
        (Some(1), Some(11), None) => Ok((1, 11)),
        (Some(major @ 2..=6), Some(minor @ 0..=2), None) => Ok((major, minor)),
        (Some(major), Some(minor), None) => Err(Refused::new(format!(
            "Django {major}.{minor} is not supported: 1.11 and 2.0 to 6.2 are"
        ))),
        _ => Err(Refused::new(format!(
            "{text:?} is not a Django release, such as \"4.2\""
        ))),
    }
}

/// A cookie's name: a token (RFC 6265, 4.1.1).
pub(super) fn cookie_name(text: &str) -> Parsed<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_good = (1..=128).contains(&text.len()) && text.bytes().all(is_token);
    accept(
        text,
        is_good,
        "is not a cookie name: letters, digits and !#$%&'*+-.^_`|~",
    )
}

/// SESSION_COOKIE_DOMAIN: a host name, with or without a dot before it.
pub(super) fn cookie_domain(text: &str) -> Parsed<String> {
    let name = text.strip_prefix('.').unwrap_or(text);
    let is_good = is_host(name) && !name.starts_with('[');
    accept(
        text,
        is_good,
        "is not a cookie domain, such as \"shop.example\"",
    )
}

/// SESSION_COOKIE_PATH: what stands in a Set-Cookie without quotes (RFC 6265, 4.1.1).
pub(super) fn cookie_path(text: &str) -> Parsed<String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"' | b'\\');
    let is_good = text.starts_with('/') && text.bytes().all(fits);
    accept(text, is_good, "is not a cookie path, such as \"/\"")
}

/// The name of an upstream or a key: it goes into tokens and logs.
pub(super) fn name(text: &str) -> Parsed<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_good = (1..=64).contains(&text.len()) && text.bytes().all(fits);
    accept(
        text,
        is_good,
        "is not a name: 1 to 64 letters, digits, -, _ and .",
    )
}

/// Any text but an empty one or one with control characters.
pub(super) fn plain_text(text: &str) -> Parsed<String> {
    let is_good = !text.is_empty() && !text.chars().any(char::is_control);
    accept(text, is_good, "is empty or has control characters")
}

/// A dotted Python path.
pub(super) fn python_path(text: &str) -> Parsed<String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    accept(
        text,
        text.split('.').all(is_name),
        "is not a dotted Python path",
    )
}

fn accept(text: &str, is_good: bool, why_not: &str) -> Parsed<String> {
    if is_good {
        return Ok(text.to_owned());
    }
    Err(Refused::new(format!("{text:?} {why_not}")))
}
