//! Certificates, and clients that speak TLS and HTTP/2.

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};

use super::{Answer, PATIENCE};

/// A certificate that signs itself, with its key, in a folder: `cert.pem`, `key.pem`.
pub struct Certificate {
    folder: TempDir,
}

/// A connection through TLS.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Certificate {
    pub fn new(names: &[&str]) -> Self {
        let certificate = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        certificate.renew(names);
        certificate
    }

    /// Puts another one in its place.
    pub fn renew(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        std::fs::write(self.file(), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The certificate's file.
    pub fn file(&self) -> PathBuf {
        self.path("cert.pem")
    }

    /// The key's file.
    pub fn key_file(&self) -> PathBuf {
        self.path("key.pem")
    }

    /// An entry of `tls` of a listener.
    pub fn entry(&self) -> String {
        let (certificate, key) = (self.file(), self.key_file());
        format!("{{ certificate = {certificate:?}, key = {key:?} }}")
    }

    /// What is sent of it.
    pub fn der(&self) -> CertificateDer<'static> {
        der(&self.file())
    }

    /// Connects, believes this certificate only, and asks for `name`.
    pub fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<Tls> {
        let config = self.client(&[version], &[]);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// What believes this certificate only.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }
}

fn der(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// An HTTP/2 client on one connection. What it sends is what a test says, as far as the library goes along.
pub struct H2 {
    runtime: Runtime,
    sender: h2::client::SendRequest<Bytes>,
    ended: tokio::sync::oneshot::Receiver<Result<(), h2::Error>>,
}

impl H2 {
    /// Without TLS, by prior knowledge.
    pub fn open(address: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let stream = runtime
            .block_on(tokio::net::TcpStream::connect(address))
            .unwrap();
        Self::over(runtime, stream)
    }

    /// By ALPN.
    pub fn secure(address: SocketAddr, certificate: &Certificate, name: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let config = certificate.client(&[&TLS13, &TLS12], &[b"h2", b"http/1.1"]);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            connector.connect(name, stream).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(runtime, stream)
    }

    fn over(
        runtime: Runtime,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, connection) = runtime.block_on(h2::client::handshake(stream)).unwrap();
        let (told, ended) = tokio::sync::oneshot::channel();
        runtime.spawn(async move { told.send(connection.await) });
        Self {
            runtime,
            sender,
            ended,
        }
    }

    /// Sends a request and reads the whole answer.
    pub fn ask(&self, request: Request<()>, body: Option<&[u8]>) -> Result<Answer, h2::Error> {
        let mut answer = self.begin(request, body)?;
        answer.read(self)?;
        Ok(answer.answer)
    }

    /// A GET of this URL.
    pub fn get(&self, url: &str) -> Answer {
        self.ask(Request::get(url).body(()).unwrap(), None).unwrap()
    }

    /// Sends a request and reads the answer's head.
    pub fn begin(&self, request: Request<()>, body: Option<&[u8]>) -> Result<Begun, h2::Error> {
        let body = body.map(Bytes::copy_from_slice);
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            let (head, body) = timeout(PATIENCE, response).await.unwrap()?.into_parts();
            let fields = head.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            });
            Ok(Begun {
                answer: Answer {
                    status: head.status.as_u16(),
                    fields: fields.collect(),
                    body: Vec::new(),
                    trailers: Vec::new(),
                },
                body,
            })
        })
    }

    /// Waits for the end of the connection.
    pub fn ended(self) -> Result<(), h2::Error> {
        let ended = async { timeout(PATIENCE, self.ended).await };
        self.runtime.block_on(ended).unwrap().unwrap()
    }
}

/// An answer whose body is still to be read.
pub struct Begun {
    pub answer: Answer,
    body: h2::RecvStream,
}

impl Begun {
    /// Reads the rest.
    pub fn read(&mut self, client: &H2) -> Result<(), h2::Error> {
        client.runtime.block_on(async {
            while let Some(part) = timeout(PATIENCE, self.body.data()).await.unwrap() {
                let part = part?;
                self.body.flow_control().release_capacity(part.len())?;
                self.answer.body.extend(part);
            }
            if let Some(trailers) = self.body.trailers().await? {
                let fields = trailers.iter().map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    (name.to_string(), value.into_owned())
                });
                self.answer.trailers = fields.collect();
            }
            Ok(())
        })
    }
}
