//! Logging in to MySQL and MariaDB. A server of MySQL 8 is played here: none runs beside the tests.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use serde_json::json;

use crate::support::{
    Database, Gateway, MariaDbServer, Served as _, Upstream, from_tests_run, gateway::Setup,
};

const PASSWORD: &str = "planted-password";

#[test]
fn a_login_that_is_refused_ends_the_start_and_shows_no_password() {
    let good = Database::mariadb();
    let password = from_tests_run("SG_TEST_MARIADB_PASSWORD");
    for (url, says) in [
        (
            good.url().replace(&password, PASSWORD),
            "Access denied for user 'shop'",
        ),
        (
            good.url().replace("/site_", "/site_no_"),
            "Unknown database",
        ),
        (
            good.url().replace("/site_", "/mysql_"),
            "Access denied for user 'shop'",
        ),
    ] {
        let text = failed_start(&url);
        assert!(text.contains(says), "{text}");
        assert!(
            !text.contains(PASSWORD) && !text.contains(&password),
            "{text}"
        );
    }
}

#[test]
fn a_login_that_is_not_supported_says_what_to_do() {
    for (plugin, says) in [
        (
            "caching_sha2_password",
            "takes TLS: let the server offer TLS",
        ),
        ("client_ed25519", "asks for a login that is not known here"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = full_login(stream, plugin);
            }
        });
        let text = failed_start(&format!("mysql://shop:{PASSWORD}@{address}/shop"));
        assert!(text.contains(says), "{text}");
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn a_server_is_reached_over_tls_as_the_address_says() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .current_dir(folder.path())
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=MariaDB of the tests",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .expect("openssl, which PostgreSQL's package brings along");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    // The server runs as another user.
    set_mode(folder.path(), 0o755);
    set_mode(&folder.path().join("key.pem"), 0o644);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let server = MariaDbServer::start(&[
        &format!("--ssl-cert={}", file("cert.pem")),
        &format!("--ssl-key={}", file("key.pem")),
        "--require-secure-transport=1",
    ]);
    let database = Database::in_server(&server.url());
    database.create_tables();
    let key = database.login(json!({}));
    let app = Upstream::start();
    let with = |query: &str| {
        Gateway::before(&database, &app).env("DATABASE_URL", &format!("{}{query}", database.url()))
    };
    let own = format!("&ssl-ca={}", file("cert.pem"));
    for query in [
        String::new(),
        "?ssl-mode=preferred".to_owned(),
        "?ssl-mode=REQUIRED".to_owned(),
        format!("?ssl-mode=VERIFY_CA{own}"),
        format!("?ssl-mode=VERIFY_IDENTITY{own}"),
    ] {
        let gateway = with(&query).start();
        gateway.get("/").session(&key).send().is_upstreams(200);
        assert_eq!(app.last().user().as_deref(), Some("1"), "{query}");
    }
    for query in ["?ssl-mode=VERIFY_CA", "?ssl-mode=VERIFY_IDENTITY"] {
        let text = output(&with(query));
        assert!(
            text.contains("no TLS connection to MySQL at 127.0.0.1"),
            "{text}"
        );
    }
    let plain = output(&with("?ssl-mode=DISABLED"));
    assert!(plain.contains("MySQL says: "), "{plain}");

    let good = Database::mariadb();
    let text = failed_start(&format!("{}?ssl-mode=REQUIRED", good.url()));
    assert!(text.contains("server does not support TLS"), "{text}");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What the gateway prints when it gives up.
fn failed_start(url: &str) -> String {
    let app = Upstream::start();
    output(&Gateway::alone(&app).env("DATABASE_URL", url))
}

fn output(setup: &Setup) -> String {
    let output = setup.fails();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// What MySQL 8 says to a client without TLS whose password it has not in its cache (MySQL Internals,
/// "Connection Phase", Caching_sha2_password).
fn full_login(mut stream: TcpStream, plugin: &str) -> std::io::Result<()> {
    // Protocol 10; 4.1, secure connection, plugins, and no TLS.
    let capabilities: u32 = 0x0008_0000 | 0x0000_8000 | 0x0000_0200 | 0x0000_0008;
    let mut greeting = b"\x0a8.0.40\0\x01\0\0\0abcdefgh\0".to_vec();
    greeting.extend(&capabilities.to_le_bytes()[..2]);
    greeting.extend(b"\xff\x02\0");
    greeting.extend(&capabilities.to_le_bytes()[2..]);
    greeting.extend(b"\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0");
    greeting.extend(format!("{plugin}\0").bytes());
    send(&mut stream, 0, &greeting)?;
    let sequence = receive(&mut stream)?;
    // More of the login: the full one.
    send(&mut stream, sequence + 1, b"\x01\x04")?;
    let sequence = receive(&mut stream)?;
    send(
        &mut stream,
        sequence + 1,
        b"\x01-----BEGIN PUBLIC KEY-----\n",
    )?;
    receive(&mut stream).map(drop)
}

fn send(stream: &mut TcpStream, sequence: u8, payload: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    stream.write_all(&[length[0], length[1], length[2], sequence])?;
    stream.write_all(payload)
}

/// Reads a packet and gives its number.
fn receive(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
    stream.read_exact(&mut vec![0; length as usize])?;
    Ok(head[3])
}
