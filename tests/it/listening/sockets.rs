//! Unix sockets and IPv6.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
};

use crate::support::{Gateway, Served as _, Upstream};

fn get(path: &Path, field: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    let request = format!("GET /a HTTP/1.1\r\nHost: shop.test\r\n{field}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_is_a_listener_whose_peers_are_trusted_by_name_only() {
    let app = Upstream::start();
    for (trusted, expected) in [("['127.0.0.1']", None), ("['unix']", Some("198.51.100.7"))] {
        let folder = tempfile::tempdir().unwrap();
        let (path, health) = (
            folder.path().join("http.sock"),
            folder.path().join("health.sock"),
        );
        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut gateway = Gateway::alone(&app)
            .line("gateway", &format!("trusted_proxies = {trusted}"))
            .listener(&format!(
                "[[listener]]\naddress = 'unix:{}'",
                path.display()
            ))
            .start();
        assert_eq!(gateway.addresses(2)[1], format!("unix:{}", path.display()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let answer = get(&path, "X-Forwarded-For: 198.51.100.7\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(app.last().field("x-forwarded-for"), expected);
        let client = expected.unwrap_or("unix:");
        gateway.process.wait_for(&format!("client={client} "));
        let other = Gateway::alone(&app)
            .replace("health", &format!("address = 'unix:{}'", health.display()))
            .listen(&format!("unix:{}", path.display()));
        let told = other.fails();
        let told = String::from_utf8_lossy(&told.stderr);
        assert!(
            told.contains("another process listens there already"),
            "{told}"
        );
        gateway.process.signal("TERM");
        gateway.process.wait();
        assert!(!path.exists(), "it is removed at the end");
    }
}

#[test]
fn edge_29_ipv6_addresses_and_port_0_are_listened_on() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .listener("[[listener]]\naddress = '[::1]:0'")
        .start();
    let addresses = gateway.addresses(2);
    assert!(addresses[1].starts_with("[::1]:") && !addresses[1].ends_with(":0"));
    let ask = crate::support::Ask::new(addresses[1].parse().unwrap(), "GET", "/");
    ask.send().is_upstreams(200);
    assert_eq!(app.last().field("x-forwarded-for"), Some("::1"));
    gateway.get("/").send().is_upstreams(200);
}
