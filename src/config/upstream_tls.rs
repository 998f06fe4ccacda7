//! `tls` of `[upstream.X]`: how a server proves who it is, and the gateway to it.

use std::{fmt, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use super::{
    item::Value,
    pem,
    transport::{Protocol, Server, ServerAddress},
    tree::Table,
    value::Refused,
};

/// `tls = { ca, certificate, key, name }`. Two are equal if they were made from the same settings and files.
#[derive(Clone)]
pub struct Tls {
    /// Verifies servers, and has the client's certificate.
    pub client: Arc<ClientConfig>,
    /// `name`: whose certificate a server must have; `None` for the name in `servers`.
    pub name: Option<ServerName<'static>>,
    made_from: [u8; 32],
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.made_from == other.made_from
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// `tls`, if the file has it.
pub(super) fn read(table: &Table<'_>, protocol: Protocol, servers: &[Server]) -> Option<Tls> {
    let value = table.value("tls")?;
    if let Some(flag) = value.as_flag() {
        let meant = if flag {
            "write tls = {}"
        } else {
            "leave it out"
        };
        value.wrong("a table", Some(meant.to_owned()));
        return None;
    }
    let tls = value.table(None)?;
    let mut made_from = Sha256::new();
    let name = tls.value("name").and_then(|value| {
        let name = value.parse("a name such as \"orders.example\"", |text| {
            ServerName::try_from(text.to_owned())
                .map_err(|_| Refused::new(format!("{text:?} is not the name of a server")))
        });
        made_from.update(value.as_text().unwrap_or_default());
        name
    });
    made_from.update([0, u8::from(protocol == Protocol::Http2)]);
    let is_unix = |server: &&Server| matches!(server.address, ServerAddress::Unix(_));
    if let (None, Some(server)) = (tls.value("name"), servers.iter().find(is_unix)) {
        let why = format!(
            "{:?} has no name that a certificate could be for",
            server.name
        );
        value.problem(why, Some("such as name = \"orders.example\"".to_owned()));
        return None;
    }
    let client = client(&value, &tls, protocol, &mut made_from)?;
    Some(Tls {
        client: Arc::new(client),
        name,
        made_from: made_from.finalize().into(),
    })
}

fn client(
    value: &Value<'_>,
    tls: &Table<'_>,
    protocol: Protocol,
    made_from: &mut Sha256,
) -> Option<ClientConfig> {
    let roots = match tls.value("ca") {
        Some(ca) => own_roots(&ca, made_from)?,
        None => system_roots(value)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| value.problem(error.to_string(), None))
        .ok()?
        .with_root_certificates(roots);
    let mut client = match (tls.value("certificate"), tls.value("key")) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates(&certificate, made_from)?;
            match private_key(&key, made_from)? {
                None => builder.with_no_client_auth(),
                Some(private) => builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| {
                        key.problem(format!("it does not fit the certificate: {error}"), None);
                    })
                    .ok()?,
            }
        }
        (Some(found), None) => {
            found.problem("a certificate is of no use without its key", None);
            return None;
        }
        (None, Some(found)) => {
            found.problem("a key is of no use without its certificate", None);
            return None;
        }
    };
    client.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Some(client)
}

fn own_roots(value: &Value<'_>, made_from: &mut Sha256) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(value, made_from)? {
        if let Err(error) = roots.add(certificate) {
            value.problem(format!("no authority can be made of it: {error}"), None);
            return None;
        }
    }
    Some(roots)
}

fn system_roots(value: &Value<'_>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if value.context.without_secrets {
        return Some(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = "this system has no certificates of authorities to verify servers with";
        let suggestion = "give ca = \"path\", or install the package ca-certificates";
        value.problem(why, Some(suggestion.to_owned()));
        return None;
    }
    Some(roots)
}

/// The certificates of a PEM file, at least one. None needs to be there where secrets need not.
fn certificates(value: &Value<'_>, made_from: &mut Sha256) -> Option<Vec<CertificateDer<'static>>> {
    let path = path(value)?;
    if value.context.without_secrets {
        return Some(Vec::new());
    }
    let read = pem::certificates(value, &path)?;
    made_from.update(read.digest);
    Some(read.found)
}

/// The key of a PEM file; `Some(None)` where secrets need not be there.
fn private_key(
    value: &Value<'_>,
    made_from: &mut Sha256,
) -> Option<Option<PrivateKeyDer<'static>>> {
    value.text("the path of a file")?;
    if value.context.without_secrets {
        return Some(None);
    }
    let read = pem::private_key(value)?;
    made_from.update(read.digest);
    Some(Some(read.found))
}

fn path(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.text("the path of a file")?;
    Some(value.context.folder.join(path))
}
