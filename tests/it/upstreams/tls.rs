//! Servers are who they should be, and learn who the gateway is.

use std::sync::Arc;

use super::{
    before,
    peer::{Authority, Peer, Speech, server},
};
use crate::support::{Gateway, Served as _, gateway::ended};

fn lines(peer: &impl crate::support::Served, tls: &str) -> String {
    format!(
        "servers = ['localhost:{}']\ntls = {{ {tls} }}",
        peer.address().port()
    )
}

/// Why the gateway has not reached its upstream.
#[track_caller]
fn refused(gateway: &Gateway, why: &str) {
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-unreachable");
    gateway.process.wait_for(why);
}

#[test]
fn edge_25_servers_are_verified_by_name_and_authority() {
    let authority = Authority::new();
    let ca = format!("ca = '{}'", authority.path().display());
    let peer = Peer::start(authority.server(&["localhost", "orders.example"], false));
    let gateway = before(&lines(&peer, &ca)).start();
    for _ in 0..3 {
        assert_eq!(gateway.get("/a").send().is_upstreams(200).text(), "ok");
    }
    assert_eq!(peer.connections(), 1);
    let head = peer.seen().swap_remove(0);
    assert_eq!(
        (head.uri.path(), head.version),
        ("/a", http::Version::HTTP_11)
    );
    assert_eq!(head.headers["host"], "shop.test");

    // Whose certificate it must be can be said.
    let named = before(&lines(&peer, &format!("{ca}, name = 'orders.example'"))).start();
    named.get("/").send().is_upstreams(200);
    let other = before(&lines(&peer, &format!("{ca}, name = 'other.example'"))).start();
    refused(&other, "its certificate is not for other.example");

    // An address is verified as one.
    let address = Peer::start(authority.server(&["127.0.0.1"], false));
    let servers = format!("servers = ['{}']\ntls = {{ {ca} }}", address.address());
    before(&servers).start().get("/").send().is_upstreams(200);

    let stranger = Authority::new();
    let ca = format!("ca = '{}'", stranger.path().display());
    let unknown = before(&lines(&peer, &ca)).start();
    refused(
        &unknown,
        "its certificate is signed by no authority that is trusted",
    );
}

#[test]
fn edge_25_what_is_wrong_with_tls_is_told_in_a_sentence() {
    let authority = Authority::new();
    let ca = format!("ca = '{}'", authority.path().display());
    let old = authority.sign_with(&["localhost"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let expired = Peer::start(Speech {
        tls: Some(Arc::new(server(&old, None, false))),
        ..Speech::default()
    });
    refused(
        &before(&lines(&expired, &ca)).start(),
        "its certificate has expired",
    );

    let plain = Peer::start(Speech::default());
    refused(
        &before(&lines(&plain, &ca)).start(),
        "it does not speak TLS",
    );

    let only_http1 = Peer::start(authority.server(&["localhost"], false));
    let http2 = format!("{}\nprotocol = 'h2'", lines(&only_http1, &ca));
    refused(&before(&http2).start(), "it does not speak");
    // Without TLS the first bytes tell.
    let http2 = format!("servers = ['{}']\nprotocol = 'h2'", plain.address());
    refused(&before(&http2).start(), "it does not speak HTTP/2");
}

#[test]
fn edge_25_servers_may_ask_for_the_gateways_certificate() {
    let authority = Authority::new();
    let ca = format!("ca = '{}'", authority.path().display());
    let own = authority.sign(&["localhost"]);
    let clients = Authority::new();
    let strict = Peer::start(Speech {
        tls: Some(Arc::new(server(&own, Some(&clients.path()), false))),
        ..Speech::default()
    });
    let pair = clients.sign(&["gateway.example"]);
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let mutual = format!("{ca}, certificate = '{certificate}', key = '{key}'");
    let gateway = before(&lines(&strict, &mutual)).start();
    gateway.get("/").send().is_upstreams(200);

    let gateway = before(&lines(&strict, &ca)).start();
    // TLS 1.3 tells a client after the handshake.
    let answer = gateway.get("/").send();
    assert_eq!(answer.status, 502, "{}", answer.text());

    // Of a file that is no key, nothing is told.
    let wrong = format!("{ca}, certificate = '{certificate}', key = '{certificate}'");
    let output = before(&lines(&strict, &wrong)).fails();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("has no private key in PEM"), "{told}");
    let other = clients.sign(&["other.example"]);
    let unfit = format!(
        "{ca}, certificate = '{certificate}', key = '{}'",
        other.key.display()
    );
    let output = before(&lines(&strict, &unfit)).fails();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("does not fit the certificate"), "{told}");
}

#[test]
fn doctor_tells_what_is_wrong_with_a_servers_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let peer = Peer::start(authority.server(&["localhost"], true));
    let doctor = |ca: &Authority| {
        let ca = format!("ca = '{}'", ca.path().display());
        let setup = before(&format!("{}\nprotocol = 'h2'", lines(&peer, &ca)));
        let folder = tempfile::tempdir().unwrap();
        let file = setup.write(folder.path());
        let output = ended(setup.command("doctor").arg("--config").arg(file));
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.contains("app: "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let good = doctor(&authority);
    assert!(
        good.starts_with("ok") && good.contains("accepts connections"),
        "{good}"
    );
    let bad = doctor(&stranger);
    assert!(
        bad.starts_with("FAIL") && bad.contains("signed by no authority"),
        "{bad}"
    );
}
