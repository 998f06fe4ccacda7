//! PROXY protocol.

use tokio_rustls::rustls::version::TLS13;

use super::tls::get;
use crate::{
    metrics::metrics,
    support::{
        Certificate, Connection, Gateway, Served as _, Upstream, eventually, gateway::Setup,
        tls::Tls,
    },
};

/// Version 2, from 198.51.100.7, with these extensions.
fn version_2(command: u8, extensions: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + extensions.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
        &[0x20 | command, 0x11],
        &length,
        &[198, 51, 100, 7, 10, 0, 0, 1, 0xc0, 0, 1, 0xbb],
        extensions,
    ]
    .concat()
}

fn setup(app: &Upstream, trusted: &str) -> Setup {
    Gateway::alone(app)
        .listener("proxy_protocol = true")
        .line("gateway", &format!("trusted_proxies = {trusted}"))
        .line("timeouts", "head = '2s'")
}

#[test]
fn edge_28_a_trusted_load_balancer_tells_the_clients_address_by_proxy_protocol() {
    let app = Upstream::start();
    let gateway = setup(&app, "['127.0.0.1']").start();
    let tls = [0xe0, 0, 1, 9, 0x20, 0, 5, 1, 0, 0, 0, 0];
    let line = |text: &str| text.as_bytes().to_vec();
    for (header, client, scheme) in [
        (
            line("PROXY TCP4 198.51.100.7 10.0.0.1 49152 443\r\n"),
            "198.51.100.7",
            "http",
        ),
        (
            line("PROXY TCP6 2001:db8::7 2001:db8::1 49152 443\r\n"),
            "2001:db8::7",
            "http",
        ),
        (line("PROXY UNKNOWN\r\n"), "127.0.0.1", "http"),
        (version_2(1, &[]), "198.51.100.7", "http"),
        (version_2(1, &tls), "198.51.100.7", "https"),
        (version_2(0, &[]), "127.0.0.1", "http"),
    ] {
        let mut client_side = Connection::open(gateway.address());
        // The client's own word is not believed: it is not the load balancer.
        let ask = gateway.get("/").field("X-Forwarded-For", "6.6.6.6");
        let request = ask.field("X-Forwarded-Proto", "https").bytes();
        // Split anywhere, and followed at once by the request.
        let bytes = [&header[..], &request].concat();
        let (one, two) = bytes.split_at(header.len() / 2);
        client_side.write(one).unwrap();
        client_side.write(two).unwrap();
        client_side.answer("GET").is_upstreams(200);
        let seen = app.last();
        let trusted = client == "127.0.0.1";
        let expected = if trusted {
            "6.6.6.6, 127.0.0.1"
        } else {
            client
        };
        assert_eq!(seen.field("x-forwarded-for"), Some(expected), "{header:?}");
        let scheme = if trusted { "https" } else { scheme };
        assert_eq!(seen.field("x-forwarded-proto"), Some(scheme), "{header:?}");
    }
}

#[test]
fn edge_28_nobody_else_speaks_proxy_protocol_and_nothing_else_is_spoken_there() {
    let app = Upstream::start();
    let header = "PROXY TCP4 198.51.100.7 10.0.0.1 49152 443\r\n";
    let gateway = setup(&app, "['10.0.0.0/8']").start();
    let mut stranger = Connection::open(gateway.address());
    let _ = stranger.write(&[header.as_bytes(), &gateway.get("/").bytes()].concat());
    assert!(stranger.rest().map_or(true, |answer| answer.is_empty()));
    let counted = metrics(&gateway);
    assert_eq!(
        counted["connections_refused_total{reason=\"untrusted_proxy\"}"],
        1.0
    );
    gateway
        .process
        .wait_for("its peer is not in trusted_proxies");

    let gateway = setup(&app, "['127.0.0.1']").start();
    for beginning in [
        // Without a header, with half of one, with a bad one, with one of 64 KiB.
        gateway.get("/").bytes(),
        header.as_bytes()[..20].to_vec(),
        b"PROXY TCP4 198.51.100.7\r\n".to_vec(),
        [&version_2(1, &[])[..14], &[0xff, 0xff], &[0; 8192]].concat(),
    ] {
        let mut client = Connection::open(gateway.address());
        let _ = client.write(&beginning);
        assert!(
            client.rest().map_or(true, |answer| answer.is_empty()),
            "{beginning:?}"
        );
    }
    // Just after they were closed.
    eventually("they are counted", || {
        let counted = metrics(&gateway);
        (counted["connections_refused_total{reason=\"no_proxy_header\"}"] == 4.0).then_some(())
    });
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn tls_begins_after_the_header() {
    let app = Upstream::start();
    let certificate = Certificate::new(&["shop.example"]);
    let gateway = setup(&app, "['127.0.0.1']")
        .listener(&format!("tls = [{}]", certificate.entry()))
        .start();
    // A relay, as a load balancer is one.
    let relay = Upstream::raw(move |client| {
        use std::io::Write as _;
        let mut server = std::net::TcpStream::connect(gateway.address()).unwrap();
        server.write_all(&version_2(1, &[])).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut client = client;
        let _ = std::io::copy(&mut server, &mut client);
    });
    let mut stream: Tls = certificate
        .connect(relay.address(), "shop.example", &TLS13)
        .unwrap();
    assert!(get(&mut stream, "shop.example").starts_with("HTTP/1.1 200"));
    let seen = app.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("198.51.100.7"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}
