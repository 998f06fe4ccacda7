//! Opens listening sockets.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    address: SocketAddr,
    cause: String,
    is_taken: bool,
}

impl BindError {
    /// Whether another process listens there.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }
}

/// Opens a socket and closes it again.
///
/// # Errors
///
/// Why it cannot be had.
pub async fn probe(address: SocketAddr) -> Result<(), BindError> {
    bind(address).await.map(drop)
}

/// Opens a socket.
///
/// # Errors
///
/// Why it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there already".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        BindError {
            address,
            cause,
            is_taken: error.kind() == io::ErrorKind::AddrInUse,
        }
    })
}

/// Says where it listens; port 0 has become a real one.
pub fn announce(what: &str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!("{what} on {address}");
    }
}
