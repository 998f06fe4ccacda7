//! A server of HTTP/1.1 or HTTP/2, with TLS or without, made of hyper; and certificates for it.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use crate::support::Served;

pub type Answer = Response<BoxBody<Bytes, Infallible>>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handler = dyn Fn(Parts, Bytes) -> Answering + Send + Sync;

/// A running one. It ends when this is dropped.
pub struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Parts>>>,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

/// How it speaks.
#[derive(Clone, Default)]
pub struct Speech {
    pub http2: bool,
    pub tls: Option<Arc<ServerConfig>>,
    /// Most streams on a connection of HTTP/2.
    pub streams: Option<u32>,
}

impl Peer {
    /// Answers 200 with the body `ok`.
    pub fn start(speech: Speech) -> Self {
        Self::with(speech, |_, _| async { answer("ok") })
    }

    /// Answers what `handler` says.
    pub fn with<F>(
        speech: Speech,
        handler: impl Fn(Parts, Bytes) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::default(), Arc::<AtomicUsize>::default());
        let handler: Arc<Handler> = Arc::new(move |parts, body| Box::pin(handler(parts, body)));
        let (record, count) = (Arc::clone(&seen), Arc::clone(&connections));
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let speech = speech.clone();
                let (record, handler) = (Arc::clone(&record), Arc::clone(&handler));
                tokio::spawn(async move {
                    match &speech.tls {
                        None => serve(stream, &speech, record, handler).await,
                        Some(tls) => {
                            let acceptor = TlsAcceptor::from(Arc::clone(tls));
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &speech, record, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            connections,
            _runtime: runtime,
        }
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<Parts> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Served for Peer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    speech: &Speech,
    record: Arc<Mutex<Vec<Parts>>>,
    handler: Arc<Handler>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (record, handler) = (Arc::clone(&record), Arc::clone(&handler));
        async move {
            let (parts, body) = request.into_parts();
            record.lock().unwrap().push(parts.clone());
            let body = body.collect().await.map(|body| body.to_bytes());
            Ok::<_, Infallible>(handler(parts, body.unwrap_or_default()).await)
        }
    });
    let stream = TokioIo::new(stream);
    let _ = match speech.http2 {
        true => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(speech.streams)
                .serve_connection(stream, service)
                .await
        }
        false => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(stream, service)
                .await
        }
    };
}

/// 200 with this body.
pub fn answer(body: &'static str) -> Answer {
    Response::new(Full::from(body).boxed())
}

/// 200 with this body and these trailers.
pub fn with_trailers(body: &'static str, trailers: HeaderMap) -> Answer {
    let body = Full::from(body).with_trailers(async move { Some(Ok(trailers)) });
    Response::new(body.boxed())
}

/// An authority and what it has signed, in a folder.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate's file and its key's.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = format!("authority {:x?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(DnType::CommonName, own);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for these names and addresses.
    pub fn sign(&self, names: &[&str]) -> Pair {
        self.sign_with(names, |_| {})
    }

    /// The same, changed first.
    pub fn sign_with(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = format!("{}-{}", names.join("-"), self.files());
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{file}.{kind}.pem"));
        let pair = Pair {
            certificate: path("certificate"),
            key: path("key"),
        };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        private(&pair.key);
        pair
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }

    /// How a server speaks that has a certificate for these names.
    pub fn server(&self, names: &[&str], http2: bool) -> Speech {
        Speech {
            http2,
            tls: Some(Arc::new(server(&self.sign(names), None, http2))),
            streams: None,
        }
    }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server's TLS with this certificate; with `clients` its clients have one of that authority.
pub fn server(pair: &Pair, clients: Option<&Path>, http2: bool) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let authority = CertificateDer::from_pem_file(path).unwrap();
            roots.add(authority).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_file(&pair.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}
