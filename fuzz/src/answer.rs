//! What a server answers with HTTP/1.1.
//!
//! Input: a byte, HEAD where it is odd and GET where it is even; then all that the server sends before it closes.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::{client::conn::http1, ext::ReasonPhrase};
use hyper_util::rt::TokioIo;
use session_gateway::upstream::decode::{self, Chunked, Framing, Malformed, Part};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// Below every limit that depends on how much has come.
const MOST: usize = 4_000;

/// Runs the target.
pub fn check(input: &[u8]) {
    let Some((method, sent)) = input.split_first() else {
        return;
    };
    let method = match method % 2 {
        0 => Method::GET,
        _ => Method::HEAD,
    };
    let sent = &sent[..sent.len().min(MOST)];
    let whole = read(&method, sent, sent.len());
    // However it comes in pieces, it is read as it would be in one.
    for piece in [1, 2, 7, 64] {
        assert_eq!(read(&method, sent, piece), whole, "in pieces of {piece}");
    }
    match whole {
        Outcome::Answer(ours) => assert_eq!(Some(*ours), by_hyper(&method, sent)),
        // Broken off for us, it is for everybody.
        Outcome::BrokenOff => assert_eq!(by_hyper(&method, sent), None),
        // hyper reads some that we refuse.
        Outcome::Refused => {}
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Answer(Box<Answer>),
    BrokenOff,
    Refused,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    version: Version,
    reason: Option<Vec<u8>>,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Answer {
    fn begin<B>(response: &Response<B>) -> Self {
        let reason = response.extensions().get::<ReasonPhrase>();
        Self {
            status: response.status(),
            version: response.version(),
            reason: reason.map(|reason| reason.as_bytes().to_vec()),
            fields: response.headers().clone(),
            body: Vec::new(),
            trailers: HeaderMap::new(),
        }
    }
}

/// As a request's trip reads it, from a socket that gives so many bytes at once.
fn read(method: &Method, sent: &[u8], piece: usize) -> Outcome {
    let mut pieces = sent.chunks(piece.max(1));
    match try_read(method, &mut pieces) {
        Ok(Some(answer)) => Outcome::Answer(Box::new(answer)),
        Ok(None) => Outcome::BrokenOff,
        Err(_) => Outcome::Refused,
    }
}

fn try_read<'a>(
    method: &Method,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Answer>, Malformed> {
    let mut come = BytesMut::new();
    let head = loop {
        let begun = come.clone().freeze();
        match decode::head(&begun, method)? {
            Some(head) => {
                let _ = come.split_to(head.length);
                let status = head.response.status();
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    break head;
                }
            }
            None => match pieces.next() {
                Some(piece) => come.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    };
    let mut answer = Answer::begin(&head.response);
    if head.is_kept {
        assert_eq!(answer.version, Version::HTTP_11);
        assert_ne!(head.framing, Framing::Close, "it ends with the connection");
        let options = answer.fields.get_all("connection");
        let closes = options.iter().any(|options| {
            let options = String::from_utf8_lossy(options.as_bytes()).to_lowercase();
            options.split(',').any(|option| option.trim() == "close")
        });
        assert!(!closes, "{:?}", answer.fields);
    }
    match head.framing {
        Framing::Close => {
            answer.body = come.to_vec();
            answer.body.extend(pieces.flatten());
        }
        Framing::Length(length) => {
            come.extend(pieces.flatten());
            let Some(body) = usize::try_from(length)
                .ok()
                .and_then(|length| come.get(..length))
            else {
                return Ok(None);
            };
            answer.body = body.to_vec();
        }
        Framing::Chunked(chunked) => {
            if !unchunk(chunked, come, pieces, &mut answer)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(answer))
}

/// Whether all of it came.
fn unchunk<'a>(
    mut chunked: Chunked,
    mut come: BytesMut,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
    answer: &mut Answer,
) -> Result<bool, Malformed> {
    loop {
        match chunked.next(&mut come)? {
            Some(Part::Data(data)) => {
                assert!(!data.is_empty(), "an empty part would be taken for the end");
                answer.body.extend(data);
            }
            Some(Part::End(trailers)) => {
                answer.trailers = trailers;
                return Ok(true);
            }
            None => match pieces.next() {
                Some(piece) => come.extend_from_slice(piece),
                None => return Ok(false),
            },
        }
    }
}

/// As hyper's client reads it; `None` where it is no whole answer.
fn by_hyper(method: &Method, sent: &[u8]) -> Option<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let (client, mut server) = duplex(MOST * 2);
        let sent = sent.to_vec();
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let read = server.read_buf(&mut asked).await;
                if read.map_or(true, |read| read == 0) {
                    return;
                }
            }
            // Whoever has enough may have gone.
            let _ = server.write_all(&sent).await;
            let _ = server.shutdown().await;
        });
        let connection = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(client)).await;
        let (mut sender, connection) = connection.ok()?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri("/");
        let request = request.body(Empty::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let mut answer = Answer::begin(&response);
        let whole = response.into_body().collect().await.ok()?;
        answer.trailers = whole.trailers().cloned().unwrap_or_default();
        answer.body = whole.to_bytes().to_vec();
        Some(answer)
    })
}
