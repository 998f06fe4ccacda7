//! Opening a connection to one address: a TCP or Unix socket, TLS, and HTTP on top.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, CertificateError, pki_types::ServerName},
};

use super::{
    http2,
    socket::{Heard, Socket, Stream},
    wire::Wire,
};
use crate::config::{self, Protocol, Tls};

/// A Unix socket whose queue is full says so at once. Then it is tried again after this time.
const FULL: Duration = Duration::from_millis(5);

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Over TCP.
    Tcp(SocketAddr),
    /// To a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How connections to a server are made. Two that are equal make the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    protocol: Protocol,
    tls: Option<Tls>,
    /// Whose certificate the server must have.
    name: Option<ServerName<'static>>,
}

/// A connection that was opened.
#[derive(Debug)]
pub enum Connected {
    /// HTTP/1.1: for one request at a time.
    Http1(Wire),
    /// HTTP/2: for many.
    Http2(Arc<http2::Connection>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// The server refused or cannot be found.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not within `timeouts.connect`.
    #[error("no connection in time")]
    Timeout,
    /// The two did not agree on TLS.
    #[error("{0}")]
    Tls(String),
    /// The connection was closed at once.
    #[error("{0}")]
    Handshake(#[from] hyper::Error),
    /// What answers there is no HTTP/2 server.
    #[error("it does not speak HTTP/2 (protocol = \"h2\")")]
    NotHttp2,
}

impl Unsent {
    /// Whether it is this machine that has run out of something. That says nothing of the server.
    pub fn is_own_fault(&self) -> bool {
        // EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL: errno(3), Linux.
        let own = [24, 23, 12, 105, 99];
        matches!(self, Self::Io(error) if error.raw_os_error().is_some_and(|code| own.contains(&code)))
    }
}

impl Transport {
    /// How the servers of an upstream are spoken to; `host` is the server's name or address, without its port.
    pub fn new(upstream: &config::Upstream, server: &config::Server) -> Self {
        let own_name = match &server.address {
            config::ServerAddress::Ip(address) => Some(ServerName::from(address.ip())),
            config::ServerAddress::Name { host, .. } => ServerName::try_from(host.clone()).ok(),
            config::ServerAddress::Unix(_) => None,
        };
        let name = upstream
            .tls
            .as_ref()
            .and_then(|tls| tls.name.clone().or(own_name));
        Self {
            protocol: upstream.protocol,
            tls: upstream.tls.clone(),
            name,
        }
    }

    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The scheme of the server's URLs.
    pub fn scheme(&self) -> http::uri::Scheme {
        match self.tls {
            Some(_) => http::uri::Scheme::HTTPS,
            None => http::uri::Scheme::HTTP,
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// No byte of a request was sent.
    pub async fn connect(&self, target: &Target, within: Duration) -> Result<Connected, Unsent> {
        timeout(within, self.open(target))
            .await
            .map_err(|_| Unsent::Timeout)?
    }

    async fn open(&self, target: &Target) -> Result<Connected, Unsent> {
        let stream: Box<dyn Stream> = match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                match &self.tls {
                    Some(tls) => Box::new(self.encrypt(tls, stream).await?),
                    None => Box::new(stream),
                }
            }
            Target::Unix(path) => {
                let stream = connect_unix(path).await?;
                match &self.tls {
                    Some(tls) => Box::new(self.encrypt(tls, stream).await?),
                    None => Box::new(stream),
                }
            }
        };
        let heard = Heard::default();
        let is_http2 = self.protocol == Protocol::Http2;
        let socket = Socket::new(stream, heard.clone(), is_http2);
        match self.protocol {
            Protocol::Http1 => Ok(Connected::Http1(Wire::new(socket))),
            Protocol::Http2 => {
                let connection = http2::Connection::begin(socket, heard, self.scheme()).await?;
                Ok(Connected::Http2(connection))
            }
        }
    }

    async fn encrypt<S: Stream>(
        &self,
        tls: &Tls,
        stream: S,
    ) -> Result<tokio_rustls::client::TlsStream<S>, Unsent> {
        let Some(name) = self.name.clone() else {
            return Err(Unsent::Tls("there is no name to verify it by".to_owned()));
        };
        let told = name.to_str().into_owned();
        let connector = TlsConnector::from(tls.client.clone());
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| Unsent::Tls(explain(&error, &told)))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if self.protocol == Protocol::Http2 && chosen != Some(b"h2") {
            return Err(Unsent::NotHttp2);
        }
        Ok(stream)
    }
}

async fn connect_unix(path: &PathBuf) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL).await,
            connected => return connected,
        }
    }
}

/// What is wrong, for people.
fn explain(error: &io::Error, name: &str) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection during the TLS handshake",
            _ => return format!("the TLS handshake failed: {error}"),
        }
        .to_owned();
    };
    match tls {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // The latter where another authority has the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is signed by no authority that is trusted (ca in tls names one)"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is not for {name} (name in tls says whose to expect)")
            }
            other => format!("its certificate is not good: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(alert) => match alert {
            rustls::AlertDescription::CertificateRequired => {
                "it wants a client certificate (certificate and key in tls)".to_owned()
            }
            rustls::AlertDescription::NoApplicationProtocol => {
                "it does not speak the protocol (protocol of the upstream)".to_owned()
            }
            alert => format!("it refused TLS: {alert:?}"),
        },
        other => format!("the TLS handshake failed: {other}"),
    }
}
