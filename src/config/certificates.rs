//! `tls` of `[[listener]]`: certificates, and which of them a client gets.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, InconsistentKeys, ServerConfig,
    crypto::ring,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{item::Value, pem, tree::Table};

/// The certificates of a listener. `Debug` shows what is public.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// What a handshake goes by: TLS 1.2 and 1.3, h2 and http/1.1, tickets for resumption without state.
    pub server: Arc<ServerConfig>,
    choice: Arc<Choice>,
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.all().iter().eq(other.all())
    }
}

impl Eq for Certificates {}

impl Certificates {
    /// All of them, in the order of the file.
    pub fn all(&self) -> &[Certificate] {
        &self.choice.all
    }

    /// For whom the certificate is that a client gets which asks for this name.
    pub fn names(&self, server_name: Option<&str>) -> Option<&Arc<Names>> {
        let candidates = self.choice.candidates(server_name);
        candidates.map(|certificate| &certificate.names).next()
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// Where it was read.
    pub file: PathBuf,
    /// For whom it is.
    pub names: Arc<Names>,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// `None` where secrets need not be there.
    key: Option<Arc<CertifiedKey>>,
}

impl PartialEq for Certificate {
    /// Whether they are the same; another key makes another certificate.
    fn eq(&self, other: &Self) -> bool {
        let chain = |one: &Self| one.key.as_ref().map(|key| key.cert.clone());
        self.file == other.file && chain(self) == chain(other)
    }
}

/// The subjectAltName of a certificate (RFC 5280, 4.2.1.6): all that clients look at.
#[derive(Debug, Default)]
pub struct Names {
    /// Lower-case, as they are; those with a wildcard begin with `*.`.
    pub written: Vec<String>,
    hosts: HashSet<String>,
    /// What follows the `*.`.
    wildcards: HashSet<String>,
    addresses: HashSet<IpAddr>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let extension = certificate.subject_alternative_name().ok().flatten();
        let general = extension.map(|extension| &extension.value.general_names);
        for name in general.into_iter().flatten() {
            match name {
                GeneralName::DNSName(name) => names.add_host(name),
                GeneralName::IPAddress(bytes) => names.add_address(bytes),
                _ => {}
            }
        }
        names
    }

    fn add_host(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcards.insert(parent.to_owned()),
            None => self.hosts.insert(name.clone()),
        };
        self.written.push(name);
    }

    fn add_address(&mut self, bytes: &[u8]) {
        let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let six = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
        if let Ok(address) = four.or_else(|_| six()) {
            self.addresses.insert(address);
            self.written.push(address.to_string());
        }
    }

    /// Whether the certificate is for this host: lower-case, without a port, an IPv6 address in brackets. A wildcard
    /// stands for one label (RFC 9525, 6.3).
    pub fn cover(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.hosts.contains(host) || parent.is_some_and(|parent| self.wildcards.contains(parent))
    }

    fn is_empty(&self) -> bool {
        self.written.is_empty()
    }
}

/// Finds the certificates for a name.
#[derive(Debug)]
struct Choice {
    all: Vec<Certificate>,
    /// Places in `all`, by a name as it is written in them.
    by_name: HashMap<String, Vec<usize>>,
}

impl Choice {
    fn new(all: Vec<Certificate>) -> Self {
        let mut by_name = HashMap::<String, Vec<usize>>::new();
        for (place, certificate) in all.iter().enumerate() {
            for name in &certificate.names.written {
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        Self { all, by_name }
    }

    /// Those for the name itself, or else those for a wildcard, or else the first.
    fn candidates(&self, server_name: Option<&str>) -> impl Iterator<Item = &Certificate> {
        let name = server_name.map(str::to_ascii_lowercase).unwrap_or_default();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        let places = self.by_name.get(&name).or_else(wildcard);
        let places = places.map_or(&[0][..], Vec::as_slice);
        places.iter().filter_map(|place| self.all.get(*place))
    }
}

impl ResolvesServerCert for Choice {
    /// Of several for the same name, the first whose signatures the client can check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let keys = || {
            self.candidates(hello.server_name())
                .filter_map(|certificate| certificate.key.as_ref())
        };
        let mut fitting = keys().filter(|key| key.key.choose_scheme(schemes).is_some());
        fitting.next().or_else(|| keys().next()).cloned()
    }
}

/// Reads `tls` of a listener.
pub(super) fn read(listener: &Table<'_>) -> Option<Certificates> {
    let value = listener.value("tls")?;
    let expected = "a list such as [{ certificate = \"cert.pem\", key = \"key.pem\" }]";
    let items = value.items(expected)?;
    if items.is_empty() {
        let suggestion = Some("leave \"tls\" out for a listener without TLS".to_owned());
        value.problem("there is no certificate", suggestion);
        return None;
    }
    let count = items.len();
    let certificates: Vec<Certificate> = items.iter().filter_map(read_one).collect();
    if certificates.len() < count {
        return None;
    }
    let choice = Arc::new(Choice::new(certificates));
    let server = server(choice.clone())
        .map_err(|error| value.problem(format!("TLS cannot be set up: {error}"), None))
        .ok()?;
    Some(Certificates {
        server: Arc::new(server),
        choice,
    })
}

fn server(choice: Arc<Choice>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(choice);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Keys of its own that change every six hours: a visitor's session is kept by the visitor, not here.
    server.ticketer = ring::Ticketer::new()?;
    Ok(server)
}

fn read_one(item: &Value<'_>) -> Option<Certificate> {
    let table = item.table(None)?;
    let certificate = table.required("certificate");
    let key = table.required("key");
    let (certificate, key) = (certificate?, key?);
    let file = certificate
        .context
        .folder
        .join(certificate.text("the path of a file")?);
    key.text("the path of a file")?;
    if item.context.without_secrets {
        return Some(Certificate {
            file,
            names: Arc::default(),
            not_after: i64::MAX,
            key: None,
        });
    }
    let chain = pem::certificates(&certificate, &file);
    let private = pem::private_key(&key);
    let (chain, private) = (chain?.found, private?.found);
    let (names, not_after) = inspect(&certificate, &chain)?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider());
    let certified = certified.map_err(|error| key.problem(unfit(&error), None));
    Some(Certificate {
        file,
        names: Arc::new(names),
        not_after,
        key: Some(Arc::new(certified.ok()?)),
    })
}

fn unfit(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "this key does not belong to the certificate (the first one in its file)".to_owned()
        }
        error => format!("this key cannot be used: {error}"),
    }
}

/// The names and the end of the first certificate; reports what makes the chain useless.
fn inspect(value: &Value<'_>, chain: &[CertificateDer<'static>]) -> Option<(Names, i64)> {
    let parsed: Result<Vec<_>, _> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der))
        .collect();
    let Ok(parsed) = parsed else {
        value.problem("a certificate in it cannot be read", None);
        return None;
    };
    let parsed: Vec<X509Certificate<'_>> = parsed.into_iter().map(|(_, parsed)| parsed).collect();
    let leaf = parsed.first()?;
    let is_broken = |pair: &[X509Certificate<'_>]| pair[0].issuer() != pair[1].subject();
    if let Some(place) = parsed.windows(2).position(is_broken) {
        let (one, other) = (place + 1, place + 2);
        value.problem(
            format!("certificate {other} of the chain did not issue certificate {one}"),
            Some("the server's own comes first, then each one's issuer".to_owned()),
        );
        return None;
    }
    let names = Names::of(leaf);
    if names.is_empty() {
        value.problem(
            "it has no subjectAltName: no client takes it for any host",
            None,
        );
        return None;
    }
    let now = chrono::Utc::now().timestamp();
    let validity = leaf.validity();
    if validity.not_before.timestamp() > now {
        let why = format!("it is not valid before {}", validity.not_before);
        value.problem(why, None);
        return None;
    }
    let not_after = validity.not_after.timestamp();
    if not_after < now {
        let report = &value.context.report;
        let sentence = format!("this certificate ended on {}", validity.not_after);
        report.remark(value.at, sentence);
    }
    Some((names, not_after))
}

impl<'a> FromIterator<&'a str> for Names {
    /// Names of hosts, also with a wildcard.
    fn from_iter<I: IntoIterator<Item = &'a str>>(hosts: I) -> Self {
        let mut names = Self::default();
        for host in hosts {
            names.add_host(host);
        }
        names
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let mut names: Names = ["Shop.Example", "*.shop.example"].into_iter().collect();
        names.add_address(&[192, 0, 2, 7]);
        names.add_address(&std::net::Ipv6Addr::LOCALHOST.octets());
        for host in ["shop.example", "a.shop.example", "192.0.2.7", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        for host in [
            "example",
            "a.b.shop.example",
            ".shop.example.",
            "*.example",
            "192.0.2.8",
            "[::2]",
            "",
        ] {
            assert!(!names.cover(host), "{host}");
        }
    }
}
