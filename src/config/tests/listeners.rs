//! Listeners: their addresses, certificates and redirects.

use std::path::PathBuf;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::*;

/// A folder with a certificate and its key: `cert.pem`, `key.pem`.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    /// For these names, after this change.
    pub(super) fn new(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write("cert.pem", &certificate.pem());
        files.write("key.pem", &key.serialize_pem());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
        set_mode(&self.path(name), 0o600);
    }

    /// An entry of `tls`.
    pub(super) fn entry(&self) -> String {
        format!(
            "{{ certificate = {:?}, key = {:?} }}",
            self.path("cert.pem"),
            self.path("key.pem")
        )
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn with_tls(entries: &str) -> Result<Loaded, Vec<String>> {
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:8443\"\ntls = [{entries}]");
    parse(&edited("", &listener))
}

fn refused(files: &Files) -> String {
    let problems = with_tls(&files.entry()).expect_err("a bad certificate");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].replace(files.0.path().to_str().expect("UTF-8"), "")
}

#[test]
fn a_client_gets_the_certificate_for_its_name() {
    let shop = Files::new(&["shop.example", "*.shop.example"], |_| {});
    let other = Files::new(&["Other.example", "192.0.2.7"], |_| {});
    let loaded = with_tls(&format!("{}, {}", shop.entry(), other.entry())).expect("good files");
    let listener = &loaded.config.listeners[0];
    let tls = listener.tls.as_ref().expect("certificates");
    let names = |name| tls.names(name).expect("a certificate").to_string();
    let (first, second) = ("shop.example, *.shop.example", "other.example, 192.0.2.7");
    assert_eq!(names(Some("shop.example")), first);
    assert_eq!(names(Some("A.shop.example")), first);
    assert_eq!(names(Some("OTHER.example")), second);
    for unknown in [
        None,
        Some("a.b.shop.example"),
        Some("example"),
        Some("192.0.2.7"),
    ] {
        let expected = if unknown == Some("192.0.2.7") {
            second
        } else {
            first
        };
        assert_eq!(names(unknown), expected, "{unknown:?}");
    }
    let now = chrono::Utc::now().timestamp();
    assert!(
        tls.all()
            .iter()
            .all(|certificate| certificate.not_after > now)
    );
    let shown = format!("{loaded:?}");
    assert!(
        shown.contains("other.example") && !shown.contains("PRIVATE"),
        "{shown}"
    );
}

#[test]
fn a_certificate_that_no_client_would_take_is_refused_and_an_ended_one_remarked_on() {
    let other = Files::new(&["other.example"], |_| {});
    let files = Files::new(&["shop.example"], |_| {});
    files.write(
        "key.pem",
        &fs::read_to_string(other.path("key.pem")).expect("a key"),
    );
    assert!(refused(&files).contains("this key does not belong to the certificate"));
    files.write("key.pem", "hunter2");
    let told = refused(&files);
    assert!(
        told.contains("has no private key in PEM") && !told.contains("hunter2"),
        "{told}"
    );
    files.write("key.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2");
    assert!(refused(&files).contains("is encrypted"));
    let files = Files::new(&["shop.example"], |_| {});
    files.write("cert.pem", "no certificate");
    assert!(refused(&files).contains("has no certificate in PEM"));
    let files = Files::new(&["shop.example"], |_| {});
    set_mode(&files.path("key.pem"), 0o622);
    assert!(refused(&files).contains("others may write"));
    let nameless = Files::new(&[], |_| {});
    assert!(refused(&nameless).contains("it has no subjectAltName"));
    let early = Files::new(&["shop.example"], |params| {
        params.not_before = date_time_ymd(2999, 1, 1)
    });
    assert!(refused(&early).contains("it is not valid before"));

    let late = Files::new(&["shop.example"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let loaded = with_tls(&late.entry()).expect("it is still served");
    let remark = loaded
        .remarks
        .iter()
        .find(|remark| remark.sentence.contains("ended on"));
    assert!(remark.is_some(), "{:?}", loaded.remarks);
}

#[test]
fn a_chain_begins_with_the_servers_certificate_and_goes_up() {
    let mut authority = CertificateParams::new([]).expect("no names");
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["shop.example".to_owned()]).expect("names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "shop.example");
    let leaf = params.signed_by(&key, &authority).expect("a certificate");
    let files = Files::new(&["shop.example"], |_| {});
    files.write("key.pem", &key.serialize_pem());
    files.write("cert.pem", &(leaf.pem() + &authority.pem()));
    with_tls(&files.entry()).expect("a good chain");
    files.write("cert.pem", &(authority.pem() + &leaf.pem()));
    let told = refused(&files);
    assert!(
        told.contains("certificate 2 of the chain did not issue certificate 1; the server's own"),
        "{told}"
    );
}

#[test]
fn the_redirect_goes_to_the_listener_with_tls_or_to_a_port_that_is_written() {
    let files = Files::new(&["shop.example"], |_| {});
    let port = |redirect: &str, address: &str, tls: bool| {
        let tls = match tls {
            true => format!("tls = [{}]", files.entry()),
            false => String::new(),
        };
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:8080\"\nredirect_to_https = {redirect}\n\
             [[listener]]\naddress = \"{address}\"\n{tls}"
        );
        let loaded = parse(&edited("", &text));
        loaded.map(|loaded| loaded.config.listeners[0].redirect_to_https)
    };
    assert_eq!(port("true", "127.0.0.1:8443", true), Ok(Some(8443)));
    assert_eq!(port("443", "127.0.0.1:8443", true), Ok(Some(443)));
    assert_eq!(port("true", "127.0.0.1:8443", false), Ok(Some(443)));
    assert_eq!(port("false", "127.0.0.1:8443", true), Ok(None));
    let problems = port("true", "127.0.0.1:0", true).expect_err("no port");
    assert!(problems[0].contains("write the port"), "{problems:?}");
}

#[test]
fn without_secrets_no_certificate_is_read() {
    let options = LoadOptions {
        without_secrets: true,
    };
    let listener = "[[listener]]\naddress = \"127.0.0.1:8443\"\n\
                    tls = [{ certificate = \"none\", key = \"none\" }]";
    let none = |_: &str| -> Option<OsString> { None };
    let text = edited("", listener);
    assert!(Config::parse(&text, Path::new("gateway.toml"), &none, options).is_ok());
}
