//! Requests that a server behind the gateway would read in another way than the gateway itself.

use crate::support::{Connection, Gateway, Served as _, Upstream};

#[test]
fn a_strangers_word_for_a_proxys_never_reaches_the_upstream() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    for name in [
        "X-Forwarded-User",
        "X-Forwarded-Ssl",
        "X-Forwarded-Protocol",
        "X-Forwarded-Prefix",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X.Forwarded_Proto",
        "x_forwarded_user",
        "X-Client-IP",
        "X_Client_IP",
        "X-Real-IP",
        "Remote-User",
        "REMOTE_USER",
        "Proxy",
        "Forwarded",
        "Front-End-Https",
        "front_end_https",
        "X-Original-URL",
        "X-Rewrite-Url",
        "Script_Name",
        "Content_Length",
        "content.length",
        "Transfer_Encoding",
        "Host_",
    ] {
        let answer = gateway
            .post("/")
            .field(name, "planted")
            .field("X-Client-Version", "kept")
            .field(name, "planted, twice")
            .body("hello")
            .send();
        let seen = app.last();
        answer.is_upstreams(200);
        seen.claims();
        let expected = name == "Host_";
        assert_eq!(
            format!("{seen:?}").contains("planted"),
            expected,
            "{name}: {seen:?}"
        );
        assert_eq!(seen.field("x-client-version"), Some("kept"), "{name}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "{name}");
        assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "{name}");
        assert_eq!(seen.field("content-length"), Some("5"), "{name}");
        assert_eq!(seen.body, b"hello", "{name}");
    }
}

#[test]
fn a_get_keeps_its_chunked_body() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let mut client = Connection::open(gateway.address());
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST"] {
        let ask = gateway
            .ask(method, "/")
            .field("Transfer-Encoding", "chunked");
        client.write(&ask.bytes()).unwrap();
        client
            .write(b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n")
            .unwrap();
        client.answer(method).is_upstreams(200);
        let seen = app.last();
        assert_eq!(seen.body, b"hello world", "{method}: {seen:?}");
        assert_eq!(seen.field("transfer-encoding"), Some("chunked"), "{method}");
        // Nothing of the body is left that could pass for a request.
        client.write(&gateway.get("/next").bytes()).unwrap();
        client.answer("GET").is_upstreams(200);
        assert_eq!(app.last().target, "/next", "{method}");
    }
    assert_eq!(app.seen().len(), 10);
}

#[test]
fn a_path_that_is_another_one_to_who_decodes_twice_is_refused() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .route("path = '/admin/'\nupstream = 'app'\nrequire = 'login'")
        .start();
    for path in [
        "/%25%32%65%25%32%65/admin/",
        "/%252%65/admin/",
        "/%252e%252e/admin/",
        "/x/%25%32%65%25%32%65/admin/",
        "/%2%35%32%65/admin/",
        "/x%25%32%66admin/",
    ] {
        gateway.get(path).send().is_error(400, "bad-request");
        assert_eq!(app.take().len(), 0, "{path}");
    }
}

#[test]
fn trailers_of_a_request_never_reach_the_upstream() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    let mut client = Connection::open(gateway.address());
    for trailer in [
        "X-Checksum",
        "X-Forwarded-For",
        "Remote-User",
        "Cookie",
        "X_Session",
        "Host",
    ] {
        let ask = gateway
            .post("/")
            .field("Transfer-Encoding", "chunked")
            .field("TE", "trailers")
            .field("Trailer", trailer);
        client.write(&ask.bytes()).unwrap();
        let body = format!("5\r\nhello\r\n0\r\n{trailer}: planted\r\n\r\n");
        client.write(body.as_bytes()).unwrap();
        client.answer("POST").is_upstreams(200);
        let seen = app.last();
        assert_eq!(seen.body, b"hello", "{trailer}");
        assert_eq!(seen.trailers, [], "{trailer}");
        assert_eq!(seen.all("trailer"), [""; 0], "{trailer}");
        assert!(
            !format!("{seen:?}").contains("planted"),
            "{trailer}: {seen:?}"
        );
    }
}

#[test]
fn a_host_that_is_none_is_refused() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app).start();
    for host in [
        "a:+80",
        "a:",
        "a:65536",
        "a:b",
        "a:80:80",
        "a,b",
        "a b",
        "..",
        ".",
        ".a",
        "a..b",
        "a..",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:+80",
        "[v1.a]",
        "a@b",
        "a/b",
        "a?b",
        "a#b",
        "a%41",
        "",
    ] {
        gateway
            .get("/")
            .host(host)
            .send()
            .is_error(400, "bad-request");
        assert_eq!(app.take().len(), 0, "{host}");
    }
    for host in [
        "[::1]:80",
        "[::1]",
        "a.",
        "a.:80",
        "a_b",
        "a-b.test",
        "127.0.0.1:8080",
        "A:080",
    ] {
        gateway.get("/").host(host).send().is_upstreams(200);
        let seen = app.last();
        seen.claims();
        assert_eq!(seen.field("host"), Some(host));
    }
}
