//! TLS on a listener.

use std::{
    io::{Read as _, Write as _},
    process::Command,
    time::Duration,
};

use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::{
    metrics::metrics,
    support::{
        Certificate, Connection, Gateway, H2, Served as _, Upstream, eventually, gateway::Setup,
        tls::Tls,
    },
};

/// What a request through TLS is answered with: the whole text.
pub fn get(stream: &mut Tls, host: &str) -> String {
    let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn setup(app: &Upstream, certificates: &[&Certificate]) -> Setup {
    let entries: Vec<String> = certificates.iter().map(|one| one.entry()).collect();
    Gateway::alone(app).listener(&format!("tls = [{}]", entries.join(", ")))
}

#[test]
fn edge_28_each_client_gets_the_certificate_for_its_name_with_tls_1_2_and_1_3() {
    let app = Upstream::start();
    let shop = Certificate::new(&["shop.example", "*.shop.example"]);
    let other = Certificate::new(&["other.example"]);
    let gateway = setup(&app, &[&shop, &other]).start();
    for version in [&TLS12, &TLS13] {
        for (certificate, name) in [
            (&shop, "shop.example"),
            (&shop, "a.shop.example"),
            (&other, "other.example"),
        ] {
            // The client believes this one only, and for this name only.
            let stream = certificate.connect(gateway.address(), name, version);
            let mut stream = stream.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            let answer = get(&mut stream, name);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let seen = app.last();
            seen.claims();
            assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
            assert_eq!(seen.field("x-forwarded-host"), Some(name));
        }
    }
    // A client that asks for another name gets the first one, and does not believe it.
    assert!(
        shop.connect(gateway.address(), "none.example", &TLS13)
            .is_err()
    );
    eventually("the client's refusal is counted", || {
        let counted = metrics(&gateway);
        let name = "tls_handshake_failures_total{reason=\"certificate_refused\"}";
        (counted[name] == 1.0).then_some(())
    });
}

#[test]
fn a_request_for_a_host_that_the_certificate_is_not_for_is_misdirected() {
    let app = Upstream::start();
    let shop = Certificate::new(&["shop.example", "*.shop.example"]);
    let other = Certificate::new(&["other.example"]);
    let gateway = setup(&app, &[&shop, &other]).start();
    let client = H2::secure(gateway.address(), &shop, "shop.example");
    // One connection for several hosts of one certificate, as browsers do it (RFC 9113, 9.1.1).
    assert_eq!(client.get("https://shop.example/").status, 200);
    assert_eq!(client.get("https://a.shop.example/").status, 200);
    app.take();
    let answer = client.get("https://other.example/");
    assert_eq!(
        (answer.status, answer.code()),
        (421, Some("misdirected-request"))
    );
    assert_eq!(app.take().len(), 0);
    assert_eq!(client.get("https://shop.example/").status, 200);
}

#[test]
fn edge_28_certificates_are_read_again_by_a_reload_and_the_last_good_ones_kept() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.example"]);
    let setup = setup(&app, &[&certificate]);
    let gateway = setup.start();
    let mut before = certificate
        .connect(gateway.address(), "shop.example", &TLS13)
        .unwrap();
    let first = certificate.der();
    certificate.renew(&["shop.example"]);
    assert_ne!(certificate.der(), first);
    assert!(gateway.reload(&setup));
    // A connection from before goes on.
    assert!(get(&mut before, "shop.example").starts_with("HTTP/1.1 200"));
    let mut after = certificate
        .connect(gateway.address(), "shop.example", &TLS13)
        .unwrap();
    assert!(get(&mut after, "shop.example").starts_with("HTTP/1.1 200"));

    let good = std::fs::read(certificate.file()).unwrap();
    std::fs::write(certificate.file(), "half a certificate").unwrap();
    assert!(!gateway.reload(&setup));
    gateway.process.wait_for("has no certificate in PEM");
    std::fs::write(certificate.file(), good).unwrap();
    certificate
        .connect(gateway.address(), "shop.example", &TLS13)
        .unwrap();
    let counted = metrics(&gateway);
    let expiry = counted
        .iter()
        .find(|(name, _)| name.starts_with("certificate_expiry"));
    assert!(expiry.is_some_and(|(name, when)| name.contains("cert.pem") && *when > 1e9));
}

#[test]
fn a_certificate_that_a_reload_takes_out_raises_no_alarm_any_more() {
    let app = Upstream::start();
    let [stays, goes] = ["shop.example", "old.example"].map(|name| Certificate::new(&[name]));
    let gateway = setup(&app, &[&stays, &goes]).start();
    let told = || -> Vec<String> {
        let counted = metrics(&gateway).into_keys();
        counted
            .filter(|name| name.starts_with("certificate_expiry"))
            .collect()
    };
    assert_eq!(told().len(), 2);
    assert!(gateway.reload(&setup(&app, &[&stays])));
    let [left] = <[String; 1]>::try_from(told()).unwrap();
    assert!(left.contains(&stays.file().display().to_string()), "{left}");
    // It comes back with the next.
    assert!(gateway.reload(&setup(&app, &[&goes, &stays])));
    assert_eq!(told().len(), 2);
}

#[test]
fn edge_18_a_handshake_that_never_ends_is_dropped() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.example"]);
    let gateway = setup(&app, &[&certificate])
        .line("timeouts", "tls_handshake = '2s'")
        .start();
    let mut silent = Connection::open(gateway.address());
    let mut half = Connection::open(gateway.address());
    // The beginning of a ClientHello.
    half.write(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    let mut plain = Connection::open(gateway.address());
    plain
        .write(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        .unwrap();
    assert!(silent.rest().unwrap().is_empty());
    assert!(half.rest().unwrap().is_empty());
    let _ = plain.rest();
    eventually("they are counted", || {
        let counted = metrics(&gateway);
        let of =
            |reason: &str| counted[&format!("tls_handshake_failures_total{{reason=\"{reason}\"}}")];
        (of("timeout") == 2.0 && of("not_tls") == 1.0).then_some(())
    });
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn a_session_is_resumed_without_the_servers_memory() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.example"]);
    let gateway = setup(&app, &[&certificate]).start();
    let (host, port) = ("shop.example", gateway.address().port());
    // curl does both requests in one process; openssl tells whether the second one was resumed.
    let folder = tempfile::tempdir().unwrap();
    let ticket = folder.path().join("ticket");
    let client = |option: &str| {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "printf 'GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | \
                 openssl s_client -connect 127.0.0.1:{port} -servername {host} -ign_eof \
                 {option} {ticket:?} -CAfile {:?}",
                certificate.file()
            ))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = client("-sess_out");
    assert!(
        first.contains("New, TLSv1.3") && first.contains("HTTP/1.1 200"),
        "{first}"
    );
    let second = client("-sess_in");
    assert!(
        second.contains("Reused, TLSv1.3") && second.contains("HTTP/1.1 200"),
        "{second}"
    );
}

#[test]
fn curl_gets_http_2_by_alpn_and_http_1_1_without_it() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.example"]);
    let gateway = setup(&app, &[&certificate]).start();
    let port = gateway.address().port();
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", option, "--cacert"])
            .arg(certificate.file())
            .args(["--resolve", &format!("shop.example:{port}:127.0.0.1")])
            .args(["--write-out", " %{http_version} %{http_code}"])
            .arg(format!("https://shop.example:{port}/a"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(told, format!("ok {version} 200"), "{option}: {output:?}");
        assert_eq!(app.last().field("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn a_listener_without_tls_sends_to_the_one_with() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.test"]);
    let gateway = Gateway::alone(&app)
        .line("gateway", "trusted_proxies = ['127.0.0.2']")
        .listener("redirect_to_https = 8443")
        .listener("[[listener]]\naddress = '127.0.0.1:0'")
        .listener(&format!("tls = [{}]", certificate.entry()))
        .route("path = '/.well-known/acme-challenge/'\nupstream = 'app'\nsession = 'off'")
        .start();
    for (method, target, location) in [
        (
            "GET",
            "/a/../b?x=1&y=%2f",
            "https://shop.test:8443/b?x=1&y=%2f",
        ),
        (
            "POST",
            "//evil.example/",
            "https://shop.test:8443/evil.example/",
        ),
        (
            "GET",
            "/.well-known/acme",
            "https://shop.test:8443/.well-known/acme",
        ),
    ] {
        let ask = gateway.ask(method, target).host("Shop.test:80");
        let answer = ask
            .field("X-Forwarded-Proto", "https")
            .field("X-Forwarded-Host", "evil")
            .send();
        assert_eq!(answer.status, 308, "{target}");
        assert_eq!(answer.field("location"), Some(location));
    }
    let odd = gateway.get("/").host("a@b").send();
    odd.is_error(400, "bad-request");
    assert_eq!(app.take().len(), 0);
    // Certificate authorities ask without TLS.
    let challenge = gateway.get("/.well-known/acme-challenge/token").send();
    challenge.is_upstreams(200);
    let secure = &gateway.addresses(2)[1];
    let mut stream = certificate
        .connect(secure.parse().unwrap(), "shop.test", &TLS13)
        .unwrap();
    stream
        .sock
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert!(get(&mut stream, "shop.test").starts_with("HTTP/1.1 200"));
}
