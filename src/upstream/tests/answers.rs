//! Answers as servers may write them, over connections of our own: what is read of them, and which connections are
//! used again.

use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::*;

/// Answers each request on a connection with the next of these byte strings, a few bytes at a time, and tells for each
/// request on which connection it came. After the last one it closes.
async fn scripted(
    answers: Vec<&'static [u8]>,
) -> (Upstream, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, asking) = tokio::sync::mpsc::unbounded_channel();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (asked, answers) = (asked.clone(), answers.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let _ = asked.send(connection);
                    let Some(answer) = answers.lock().unwrap().next() else {
                        return;
                    };
                    for part in answer.chunks(7) {
                        stream.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    if answer.ends_with(b"bye") {
                        return;
                    }
                }
            });
        }
    });
    let upstream = Upstream::with(
        &config(&format!("servers = ['{address}']")),
        None,
        &Metrics::default(),
        resolve::system(),
    );
    (upstream, asking)
}

async fn send(upstream: &Upstream) -> Result<Answered, Unanswered> {
    let server = upstream.choose(NOBODY, None, PATIENCE).await.unwrap();
    let lease = server.connection(true, PATIENCE, false).await.unwrap();
    let mut request = Request::new(Body::Empty);
    let host = http::HeaderValue::from_static("app");
    request.headers_mut().insert("host", host);
    timeout(PATIENCE, lease.send(request)).await.unwrap()
}

/// What is read: the status, the bytes and the number of trailers, or what is wrong.
async fn read(upstream: &Upstream) -> Result<(u16, Bytes, usize), String> {
    let answered = match send(upstream).await {
        Ok(answered) => answered,
        other => return Err(format!("{other:?}")),
    };
    let response = answered.into_response(PATIENCE, None);
    let status = response.status().as_u16();
    let body = timeout(PATIENCE, response.into_body().collect());
    let body = body.await.unwrap().map_err(|error| error.to_string())?;
    let trailers = body.trailers().map_or(0, http::HeaderMap::len);
    Ok((status, body.to_bytes(), trailers))
}

/// Asks twice: what the first answer was, and whether the second request came over the same connection.
async fn twice(first: &'static [u8]) -> (Result<(u16, Bytes, usize), String>, bool) {
    let (upstream, mut asked) = scripted(vec![first, b"HTTP/1.1 204 x\r\n\r\n"]).await;
    let read_first = read(&upstream).await;
    let second = read(&upstream).await;
    assert_eq!(second.unwrap().0, 204);
    let (one, two) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
    (read_first, one == two)
}

#[tokio::test]
async fn a_body_is_read_to_its_end_however_it_comes_and_the_connection_is_used_again() {
    for (answer, body, trailers) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"[..], "hello world", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 0),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n",
            "hello world",
            0,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
            "x",
            2,
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            "x",
            0,
        ),
    ] {
        let told = String::from_utf8_lossy(answer);
        let (read, is_same) = twice(answer).await;
        assert_eq!(read, Ok((200, Bytes::from(body), trailers)), "{told}");
        assert!(is_same, "{told}");
    }
}

#[tokio::test]
async fn a_connection_on_which_more_comes_than_an_answer_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny"[..],
        b"HTTP/1.1 204 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let told = String::from_utf8_lossy(answer);
        let (upstream, mut asked) = scripted(vec![answer, b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n"]).await;
        assert!(read(&upstream).await.is_ok(), "{told}");
        // The rest is there by the time that it is looked for.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(read(&upstream).await.unwrap().0, 202, "{told}");
        let (one, two) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
        assert_ne!(one, two, "{told}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection_and_one_with_a_length_does_not() {
    let (upstream, _) = scripted(vec![b"HTTP/1.1 200 OK\r\n\r\ngood bye"]).await;
    assert_eq!(read(&upstream).await, Ok((200, "good bye".into(), 0)));
    for short in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ngood bye"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\ngood bye",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ngood\nbye",
    ] {
        let (upstream, _) = scripted(vec![short]).await;
        let broken = read(&upstream).await.unwrap_err();
        assert!(broken.starts_with("the body broke off"), "{broken}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_not_taken() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye";
    let (upstream, mut asked) = scripted(vec![answer, answer]).await;
    for connection in [0, 1] {
        assert_eq!(read(&upstream).await, Ok((200, "bye".into(), 0)));
        assert_eq!(asked.recv().await, Some(connection));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_request_is_still_there_when_its_idle_connection_breaks_in_silence_and_not_said_to_be_when_it_does_not()
 {
    let usual = b"HTTP/1.1 204 x\r\n\r\n";
    let (upstream, _) = scripted(vec![usual]).await;
    assert!(read(&upstream).await.is_ok());
    match send(&upstream).await {
        Err(Unanswered::Broken {
            request: Some(request),
            crossed: true,
            ..
        }) => assert_eq!(request.headers()["host"], "app"),
        other => panic!("{other:?}"),
    }
    // On a new connection, and after a byte, the server may have acted.
    let (upstream, _) = scripted(vec![]).await;
    let sent = send(&upstream).await;
    assert!(
        matches!(sent, Err(Unanswered::Broken { crossed: false, .. })),
        "{sent:?}"
    );
    let (upstream, _) = scripted(vec![usual, b"HTTP/1.1 200 OK\r\nbye"]).await;
    assert!(read(&upstream).await.is_ok());
    let sent = send(&upstream).await;
    assert!(
        matches!(sent, Err(Unanswered::Broken { crossed: false, .. })),
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_body_that_nobody_reads_to_its_end_closes_its_connection() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx";
    let (upstream, mut asked) = scripted(vec![answer, b"HTTP/1.1 204 x\r\n\r\n"]).await;
    let Ok(answered) = send(&upstream).await else {
        panic!("no answer");
    };
    drop(answered.into_response(PATIENCE, None));
    assert_eq!(read(&upstream).await.unwrap().0, 204);
    assert_eq!((asked.recv().await, asked.recv().await), (Some(0), Some(1)));
}
