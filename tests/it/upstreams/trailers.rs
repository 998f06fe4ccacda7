//! Trailers of answers go through, but for what only the gateway may say.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::{
    before,
    peer::{Peer, Speech, answer, with_trailers},
};
use crate::support::{Gateway, Reply, Served as _, Upstream};

const CLEAR: Speech = Speech {
    http2: true,
    tls: None,
    streams: None,
};

/// The head, the body and the trailers of an answer over HTTP/2.
type Whole = (Response<()>, Vec<u8>, Option<HeaderMap>);

/// One request over HTTP/2, with a client library of its own.
fn over_http2(gateway: &Gateway, path: &str, body: &'static [u8]) -> Whole {
    let address = gateway.address();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://shop.test{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(body), true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            bytes.extend(data);
        }
        let trailers = body.trailers().await.unwrap();
        (Response::from_parts(head, ()), bytes, trailers)
    })
}

fn all_kinds() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("grpc-status", "0"),
        ("grpc-message", "fine"),
        ("x-session-set", "{\"set\":{\"a\":1}}"),
        ("x-session", "forged"),
        ("x_session", "forged"),
        ("set-cookie", "sessionid=forged"),
    ] {
        trailers.append(name, HeaderValue::from_static(value));
    }
    trailers
}

#[test]
fn edge_26_what_grpc_says_at_the_end_goes_through_and_nothing_that_is_the_gateways() {
    let peer = Peer::with(CLEAR, |parts, body| async move {
        match parts.uri.path() {
            "/only" => {
                let mut only = answer("");
                only.headers_mut()
                    .insert("grpc-status", HeaderValue::from_static("12"));
                only
            }
            _ => {
                assert_eq!(body, "question");
                with_trailers("answer", all_kinds())
            }
        }
    });
    let lines = format!("servers = ['{}']\nprotocol = 'h2'", peer.address());
    let gateway = before(&lines).start();
    let (head, body, trailers) = over_http2(&gateway, "/pkg.Service/Method", b"question");
    assert_eq!(
        (head.status().as_u16(), body.as_slice()),
        (200, &b"answer"[..])
    );
    let trailers = trailers.expect("trailers");
    let mut names: Vec<&str> = trailers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc-message", "grpc-status"]);
    let seen = peer.seen().pop().unwrap();
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["content-type"], "application/grpc");

    // An answer that is its trailers only.
    let (head, body, trailers) = over_http2(&gateway, "/only", b"question");
    assert_eq!(head.headers()["grpc-status"], "12");
    assert!(body.is_empty() && trailers.is_none());
}

#[test]
fn edge_5_reserved_trailers_of_http1_go_nowhere() {
    let app = Upstream::with(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
             Trailer: X-Kept, X-Session-Set, Set-Cookie, X_Session\r\n\r\n2\r\nok\r\n0\r\n\
             X-Kept: yes\r\nX-Session-Set: {\"set\":{\"a\":1}}\r\nSet-Cookie: sessionid=forged\r\n\
             X_Session: forged\r\n\r\n",
        )
    });
    let gateway = Gateway::alone(&app).start();
    let ask = |te: Option<&str>| {
        let ask = gateway.get("/");
        match te {
            Some(te) => ask.field("TE", te).field("Connection", "TE").send(),
            None => ask.send(),
        }
    };
    let answer = ask(Some("trailers"));
    assert_eq!(answer.text(), "ok");
    let kept: Vec<_> = answer
        .trailers
        .iter()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    assert_eq!(kept, ["x-kept"]);
    // Whoever has not said that he takes trailers gets none (RFC 9110, section 6.5.1).
    let answer = ask(None);
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("ok", 0));
    // Over HTTP/2 they always go.
    let (_, body, trailers) = over_http2(&gateway, "/", b"");
    assert_eq!(body, b"ok");
    let trailers = trailers.expect("trailers");
    assert_eq!(
        (trailers.len(), trailers["x-kept"].as_bytes()),
        (1, &b"yes"[..])
    );
}
