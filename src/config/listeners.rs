//! `[[listener]]` and the other addresses: where the gateway listens.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Config,
    certificates::{self, Certificate, Certificates},
    item::Value,
    tree::Table,
    value,
};

/// Most bytes of a Unix socket's path (`sun_path` of unix(7) on Linux, without the final NUL).
pub(super) const LONGEST_PATH: usize = 107;

/// The port that URLs with https leave out.
pub const HTTPS: u16 = 443;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[[listener]]`: a socket on which clients are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub address: Address,
    /// `tls`: clients must speak it.
    pub tls: Option<Certificates>,
    /// `redirect_to_https`: the port that clients are sent to.
    pub redirect_to_https: Option<u16>,
    /// `proxy_protocol`: each connection begins with a header that tells whose it is.
    pub proxy_protocol: bool,
}

impl Listener {
    fn plain(address: Address) -> Self {
        Self {
            address,
            tls: None,
            redirect_to_https: None,
            proxy_protocol: false,
        }
    }
}

impl Value<'_> {
    /// An address to listen on.
    pub(super) fn address(&self) -> Option<Address> {
        let path = self
            .as_text()
            .and_then(|address| address.strip_prefix("unix:"));
        let Some(path) = path else {
            return self
                .parse("an address such as \"127.0.0.1:8080\"", value::socket)
                .map(Address::Tcp);
        };
        if path.is_empty() || path.contains('\0') {
            self.problem(
                "this names no socket",
                Some("such as \"unix:/run/session-gateway/http.sock\"".to_owned()),
            );
            return None;
        }
        let path = self.context.folder.join(Path::new(path));
        if path.as_os_str().len() > LONGEST_PATH {
            let why = format!("a socket's path has at most {LONGEST_PATH} bytes");
            self.problem(why, None);
            return None;
        }
        Some(Address::Unix(path))
    }
}

impl Config {
    /// The certificates of all listeners.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let tls = self
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref());
        tls.flat_map(Certificates::all)
    }
}

/// Reads `[[listener]]`. `taken` is an address that is used otherwise.
pub(super) fn read(top: &Table<'_>, taken: Option<&Address>) -> Vec<Listener> {
    match top.value("listener") {
        None => return vec![Listener::plain(Address::Tcp(([127, 0, 0, 1], 8080).into()))],
        Some(value) if value.is_empty_list() => {
            let suggestion = "leave it out to listen on 127.0.0.1:8080";
            value.problem("nobody could connect", Some(suggestion.to_owned()));
        }
        Some(_) => {}
    }
    let mut taken: Vec<Address> = taken.cloned().into_iter().collect();
    let (mut listeners, mut tables) = (Vec::new(), Vec::new());
    for table in top.tables("listener") {
        let Some(value) = table.required("address") else {
            continue;
        };
        let Some(address) = value.address() else {
            continue;
        };
        let may_repeat = matches!(address, Address::Tcp(address) if address.port() == 0);
        if !may_repeat && taken.contains(&address) {
            value.problem(format!("{address} is given twice"), None);
        }
        taken.push(address.clone());
        listeners.push(Listener {
            tls: certificates::read(&table),
            proxy_protocol: table.flag("proxy_protocol"),
            ..Listener::plain(address)
        });
        tables.push(table);
    }
    for (place, table) in tables.iter().enumerate() {
        listeners[place].redirect_to_https = read_redirect(table, &listeners);
    }
    listeners
}

/// `redirect_to_https`: `true` for the port of the listener with TLS, or a port, where the world sees another one.
fn read_redirect(table: &Table<'_>, listeners: &[Listener]) -> Option<u16> {
    let value = table.value("redirect_to_https")?;
    let port = match value.as_flag() {
        Some(false) => return None,
        Some(true) => https_port(&value, listeners)?,
        None => u16::try_from(value.count()?).ok()?,
    };
    if table.value("tls").is_some() {
        value.problem("this listener has TLS itself", None);
        return None;
    }
    Some(port)
}

fn https_port(value: &Value<'_>, listeners: &[Listener]) -> Option<u16> {
    let mut ports = listeners
        .iter()
        .filter(|listener| listener.tls.is_some())
        .filter_map(|listener| match &listener.address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        });
    match ports.next() {
        // TLS ends before the gateway, where the world expects it.
        None => Some(HTTPS),
        Some(0) => {
            let suggestion = Some("write the port, such as redirect_to_https = 443".to_owned());
            value.problem("the port of the listener with TLS is not known", suggestion);
            None
        }
        Some(port) => Some(port),
    }
}
