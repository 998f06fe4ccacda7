//! `[[listener]]` and the other addresses: where the gateway listens.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{item::Value, keys, tree::Table, value};

/// Most bytes of a Unix socket's path (sockaddr_un on Linux, without the final NUL).
const LONGEST_PATH: usize = 107;

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
}

impl Listener {
    fn plain(address: Address) -> Self {
        Self { address }
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

/// Reads `[[listener]]`. `taken` is an address that is used otherwise.
pub(super) fn read(top: &Table<'_>, taken: Option<&Address>) -> Vec<Listener> {
    if top.value("listener").is_none() {
        return vec![Listener::plain(Address::Tcp(([127, 0, 0, 1], 8080).into()))];
    }
    let mut taken: Vec<Address> = taken.cloned().into_iter().collect();
    let mut listeners = Vec::new();
    for table in top.tables("listener", &keys::LISTENER) {
        let Some(value) = table.required("address", "address = \"127.0.0.1:8080\"") else {
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
        listeners.push(Listener::plain(address));
    }
    listeners
}
