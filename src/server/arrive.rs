//! What comes before HTTP on a connection: the PROXY protocol's header, the TLS handshake, and a look at the first
//! bytes for HTTP/2.

use std::{io, time::Duration};

use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, AlertDescription},
};

use super::{
    frames::PREFACE,
    guard::Transport,
    proxy::{self, Client, Parsed},
    socket::Socket,
};
use crate::{
    config::{Certificates, Listener, Timeouts},
    gateway::Peer,
    telemetry::metrics::TlsFailure,
};

/// A connection on which HTTP begins.
#[derive(Debug)]
pub struct Arrived {
    /// What it is spoken over.
    pub transport: Transport,
    /// Whether TLS has agreed on HTTP/2 (`Some(true)`) or not; `None` without TLS.
    pub alpn: Option<bool>,
    /// Who speaks.
    pub peer: Peer,
}

/// Why a connection ends before HTTP begins on it.
#[derive(Debug)]
pub enum Rejected {
    /// The client has left.
    Left,
    /// It has not begun to speak HTTP in time.
    Late,
    /// No whole PROXY protocol header came in time, or none at all.
    NoProxyHeader,
    /// The handshake failed.
    Tls(TlsFailure, Option<io::Error>),
}

/// Reads the PROXY protocol's header, if the listener has one: whose connection it is. `None` is the peer's own.
///
/// # Errors
///
/// There is none.
pub async fn read_proxy_header(
    socket: &mut Socket,
    most: Duration,
) -> Result<Option<Client>, Rejected> {
    let reading = async {
        let mut bytes = Vec::with_capacity(128);
        loop {
            match proxy::parse(&bytes) {
                Parsed::Incomplete => {}
                Parsed::Invalid => return Err(Rejected::NoProxyHeader),
                Parsed::Header { length, client } => {
                    socket.unread(&bytes[length..]);
                    return Ok(client);
                }
            }
            let room = proxy::LONGEST - bytes.len();
            let read = (&mut *socket).take(room as u64).read_buf(&mut bytes).await;
            match read {
                // Health checks of load balancers connect and say nothing.
                Ok(0) if bytes.is_empty() => return Err(Rejected::Left),
                Ok(0) => return Err(Rejected::NoProxyHeader),
                Ok(_) => {}
                Err(_) => return Err(Rejected::Left),
            }
        }
    };
    timeout(most, reading)
        .await
        .unwrap_or(Err(Rejected::NoProxyHeader))
}

/// Speaks TLS where the listener does.
///
/// # Errors
///
/// The handshake failed.
pub async fn secure(
    socket: Socket,
    listener: &Listener,
    timeouts: &Timeouts,
    client: Client,
) -> Result<Arrived, Rejected> {
    let mut peer = Peer::new(client.address, listener.redirect_to_https);
    peer.encrypted = client.encrypted;
    match &listener.tls {
        None => Ok(Arrived {
            transport: Transport::Plain(socket),
            alpn: None,
            peer,
        }),
        Some(certificates) => handshake(socket, certificates, timeouts.tls_handshake, peer).await,
    }
}

async fn handshake(
    socket: Socket,
    certificates: &Certificates,
    most: Duration,
    mut peer: Peer,
) -> Result<Arrived, Rejected> {
    let accepting = TlsAcceptor::from(certificates.server.clone()).accept(socket);
    let stream = match timeout(most, accepting).await {
        Err(_) => return Err(Rejected::Tls(TlsFailure::Timeout, None)),
        Ok(Err(error)) => return Err(Rejected::Tls(reason(&error), Some(error))),
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    peer.encrypted = true;
    peer.certificate = certificates.names(session.server_name()).cloned();
    Ok(Arrived {
        transport: Transport::Tls(Box::new(stream)),
        alpn: Some(is_h2),
        peer,
    })
}

fn reason(error: &io::Error) -> TlsFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }) => {
            TlsFailure::NotTls
        }
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            TlsFailure::Incompatible
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        )) => TlsFailure::CertificateRefused,
        Some(_) => TlsFailure::Other,
        None => TlsFailure::Left,
    }
}

/// Whether HTTP/2 is spoken on a connection without TLS: "prior knowledge" (RFC 9113, section 3.3).
///
/// # Errors
///
/// The client has left, or says nothing until `deadline`.
pub async fn speaks_h2(socket: &mut Socket, deadline: Instant) -> Result<bool, Rejected> {
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    while PREFACE.starts_with(&seen[..length]) && length < seen.len() {
        match timeout_at(deadline, socket.read(&mut seen[length..])).await {
            Ok(Ok(0)) if length == 0 => return Err(Rejected::Left),
            // hyper has an answer to the beginning of a request.
            Ok(Ok(0)) => break,
            Ok(Ok(read)) => length += read,
            Ok(Err(_)) => return Err(Rejected::Left),
            Err(_) => return Err(Rejected::Late),
        }
    }
    socket.unread(&seen[..length]);
    Ok(seen == *PREFACE)
}
