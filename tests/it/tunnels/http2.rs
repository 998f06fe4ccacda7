//! WebSockets in a stream of HTTP/2 (RFC 8441).

use std::{future::Future, net::SocketAddr};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Request, Response};
use serde_json::json;

use super::{Scene, before, before_with};
use crate::support::{
    PATIENCE, Served as _,
    websocket::{WebSockets, frame, masked},
};

/// Runs on a runtime of its own, with a connection of a client.
fn with_client<T>(address: SocketAddr, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(patiently(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        // The settings of the server come first.
        let mut client = client.ready().await.unwrap();
        let request = Request::get("http://shop.test/none").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let _ = response.await;
        assert!(client.is_extended_connect_protocol_enabled());
        work(client).await
    }))
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

fn connect(scene: &Scene, path: &str, protocol: &'static str) -> http::request::Builder {
    Request::connect(format!("http://shop.test{path}"))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("cookie", "theme=dark")
        .header("cookie", format!("sessionid={}", scene.key))
}

async fn send(
    client: &mut SendRequest<Bytes>,
    request: http::request::Builder,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (response, stream) = client
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    (response.await.unwrap(), stream)
}

async fn read(body: &mut RecvStream, least: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < least
        && let Some(data) = body.data().await
    {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend(data);
    }
    bytes
}

#[test]
fn a_websocket_over_http2_reaches_a_server_of_http1() {
    let server = WebSockets::echo();
    let scene = before(&server);
    with_client(scene.gateway.address(), async |mut client| {
        let request = connect(&scene, "/members/chat?room=1", "websocket")
            .header("sec-websocket-protocol", "chat");
        let (response, mut stream) = send(&mut client, request).await;
        assert_eq!(response.status(), 200);
        for gone in ["sec-websocket-accept", "connection", "upgrade"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        let sent = masked(2, true, &[7; 50_000]);
        stream.send_data(Bytes::from(sent.clone()), false).unwrap();
        let mut body = response.into_body();
        assert!(read(&mut body, sent.len()).await == sent);
        // The end of one half ends the other one, because the echo then ends.
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut body, 1).await, b"");
    });
    let seen = server.last();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/members/chat?room=1")
    );
    assert_eq!(seen.user().as_deref(), Some("1"));
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert_eq!(seen.all("sec-websocket-version"), ["13"]);
    assert_eq!(seen.all("sec-websocket-protocol"), ["chat"]);
    assert_eq!(seen.all("cookie"), ["theme=dark"]);
}

#[test]
fn a_websocket_over_http2_needs_what_the_route_needs_and_is_guarded() {
    let server = WebSockets::echo();
    let scene = before_with(&server, "", "");
    with_client(scene.gateway.address(), async |mut client| {
        let request =
            connect(&scene, "/members/", "websocket").header("origin", "https://evil.test");
        assert_eq!(send(&mut client, request).await.0.status(), 403);
        let anonymous = Request::connect("http://shop.test/members/")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13");
        assert_eq!(send(&mut client, anonymous).await.0.status(), 401);
        let other = connect(&scene, "/members/", "connect-udp");
        assert_eq!(send(&mut client, other).await.0.status(), 400);
    });
    assert!(server.seen().iter().all(|seen| seen.target == "/none"));
}

#[test]
fn a_success_that_is_no_agreement_never_begins_a_websocket_over_http2() {
    let server = WebSockets::answering(
        |seen| match seen.field("x-answer") {
            Some("200") => {
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".to_owned()
            }
            _ => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
                .to_owned(),
        },
        |_| {},
    );
    let scene = before(&server);
    with_client(scene.gateway.address(), async |mut client| {
        let request = connect(&scene, "/", "websocket").header("x-answer", "200");
        assert_eq!(send(&mut client, request).await.0.status(), 502);
        let (response, _) = send(&mut client, connect(&scene, "/", "websocket")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(read(&mut response.into_body(), 2).await, b"no");
    });
}

#[test]
fn a_websocket_over_http2_ends_with_its_session_and_others_of_the_connection_go_on() {
    let server = WebSockets::echo();
    let scene = before_with(
        &server,
        "require = 'login'\nrecheck = '200ms'",
        "idle = '1s'",
    );
    let other = scene.database.login(json!({}));
    with_client(scene.gateway.address(), async |mut client| {
        let (response, _stream) = send(&mut client, connect(&scene, "/", "websocket")).await;
        let request = Request::connect("http://shop.test/")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("cookie", format!("sessionid={other}"));
        let (kept, mut stream) = send(&mut client, request).await;
        assert_eq!(
            (response.status().as_u16(), kept.status().as_u16()),
            (200, 200)
        );
        // The database of the tests has a runtime of its own, which this one would not let in.
        std::thread::scope(|threads| threads.spawn(|| scene.database.delete(&scene.key)).join())
            .unwrap();
        let close = frame(
            8,
            true,
            &[4401_u16.to_be_bytes().as_slice(), b"session ended"].concat(),
        );
        let mut body = response.into_body();
        assert_eq!(
            read(&mut body, close.len() + 1).await,
            close,
            "and then the stream ends"
        );
        // Longer than a connection without a request may be idle.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let sent = masked(1, true, b"there?");
        stream.send_data(Bytes::from(sent.clone()), false).unwrap();
        assert_eq!(read(&mut kept.into_body(), sent.len()).await, sent);
    });
}
