//! HTTP/2 as frames: what a server refuses, breaks off, or is told.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use super::before;
use crate::metrics::metrics;
use crate::support::{
    PATIENCE, Served as _, Upstream,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
        frame,
    },
};

/// RFC 9113, section 7.
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The server's side of a connection.
struct Frames(TcpStream);

impl Frames {
    /// Takes the client's preface and sends the server's.
    fn accept(mut stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface)?;
        assert_eq!(preface, PREFACE);
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, &[])?;
        Ok(frames)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    fn read(&mut self) -> std::io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The next frame of this kind; settings are acknowledged meanwhile.
    fn next(&mut self, kind: u8) -> std::io::Result<Frame> {
        loop {
            let frame = self.read()?;
            if frame.kind == SETTINGS && frame.flags == 0 {
                self.send(SETTINGS, ACK, 0, &[])?;
            }
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// 204, `:status` of HPACK's static table.
    fn answer(&mut self, stream: u32) -> std::io::Result<()> {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x80 | 9])
    }

    fn reset(&mut self, stream: u32, reason: u32) -> std::io::Result<()> {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
    }

    /// Returns when the client has taken in all that was sent.
    fn ping(&mut self) -> std::io::Result<()> {
        self.send(PING, 0, 0, &[0; 8])?;
        while self.next(PING)?.flags != ACK {}
        Ok(())
    }

    /// No stream after `last` was processed.
    fn go_away(&mut self, last: u32) -> std::io::Result<()> {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload)
    }
}

/// A server that does with each request, counted from 0, what `act` says.
fn server(
    act: impl Fn(usize, &mut Frames, &Frame) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let server = Upstream::raw(move |stream| {
        let serve = || -> std::io::Result<()> {
            let mut frames = Frames::accept(stream.try_clone()?)?;
            loop {
                let frame = frames.next(HEADERS)?;
                act(count.fetch_add(1, Ordering::SeqCst), &mut frames, &frame)?;
            }
        };
        let _ = serve();
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    (server, requests)
}

fn gateway(server: &Upstream) -> crate::support::Gateway {
    before(&format!(
        "servers = ['{}']\nprotocol = 'h2'",
        server.address()
    ))
    .start()
}

#[test]
fn edge_20_a_request_that_the_server_refused_unseen_is_sent_once_more() {
    for method in ["GET", "POST", "DELETE"] {
        let (peer, requests) = server(|number, frames, frame| match number {
            0 => frames.reset(frame.stream, REFUSED_STREAM),
            _ => frames.answer(frame.stream),
        });
        gateway(&peer).ask(method, "/").send().is_upstreams(204);
        assert_eq!(requests.load(Ordering::SeqCst), 2, "{method}");
    }
    // At most once; and a body that has begun to leave cannot be sent again.
    let (peer, requests) = server(|_, frames, frame| frames.reset(frame.stream, REFUSED_STREAM));
    let gateway = gateway(&peer);
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-unreachable");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    gateway
        .post("/")
        .body("hello")
        .send()
        .is_error(502, "upstream-unreachable");
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[test]
fn edge_20_a_request_that_goaway_leaves_out_goes_over_a_fresh_connection() {
    let (peer, requests) = server(|number, frames, frame| match number {
        1 => frames.go_away(frame.stream - 2),
        _ => frames.answer(frame.stream),
    });
    let gateway = gateway(&peer);
    gateway.post("/").send().is_upstreams(204);
    gateway.post("/").send().is_upstreams(204);
    assert_eq!(
        (requests.load(Ordering::SeqCst), peer.connections()),
        (3, 2)
    );
}

#[test]
fn edge_20_a_connection_that_the_server_ends_costs_no_try() {
    let (told, is_told) = mpsc::channel();
    let (peer, requests) = server(move |number, frames, frame| match number {
        // An answer under way keeps it open.
        0 => {
            frames.send(HEADERS, END_HEADERS, frame.stream, &[0x80 | 8])?;
            frames.go_away(frame.stream)?;
            frames.ping()?;
            let _ = told.send(());
            Ok(())
        }
        1 => frames.reset(frame.stream, REFUSED_STREAM),
        _ => frames.answer(frame.stream),
    });
    let gateway = gateway(&peer);
    let mut open = gateway.get("/").begin();
    assert_eq!(open.head().unwrap().status, 200);
    is_told.recv_timeout(PATIENCE).unwrap();
    gateway.post("/").send().is_upstreams(204);
    assert_eq!(
        (requests.load(Ordering::SeqCst), peer.connections()),
        (3, 2)
    );
}

#[test]
fn a_server_that_allows_no_more_streams_gets_no_more_requests_on_that_connection() {
    let (told, is_told) = mpsc::channel();
    let (peer, requests) = server(move |number, frames, frame| {
        frames.answer(frame.stream)?;
        if number == 0 {
            let none: [u8; 6] = [0, 3, 0, 0, 0, 0]; // SETTINGS_MAX_CONCURRENT_STREAMS
            frames.send(SETTINGS, 0, 0, &none)?;
            while frames.next(SETTINGS)?.flags != ACK {}
            let _ = told.send(());
        }
        Ok(())
    });
    let gateway = gateway(&peer);
    gateway.get("/").send().is_upstreams(204);
    is_told.recv_timeout(PATIENCE).unwrap();
    gateway.get("/").send().is_upstreams(204);
    assert_eq!(
        (requests.load(Ordering::SeqCst), peer.connections()),
        (2, 2)
    );
}

/// It has accepted the connection and says nothing: it hangs, or speaks HTTP/1.1.
#[test]
fn a_server_that_never_speaks_http2_costs_no_processor_time() {
    let silent = Upstream::raw(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let gateway = before(&format!(
        "servers = ['{}']\nprotocol = 'h2'\ntimeouts = {{ connect = '3s' }}",
        silent.address()
    ))
    .start();
    let spent = || metrics(&gateway)["process_cpu_seconds_total"];
    let before = spent();
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-unreachable");
    let spent = spent() - before;
    assert!(spent < 1.0, "{spent} s of processor time while it waited");
}

#[test]
fn edge_20_what_a_server_may_have_done_is_not_asked_for_again_over_http2() {
    let (peer, requests) = server(|_, frames, frame| match frame.stream {
        1 => frames.answer(frame.stream),
        3 => frames.reset(frame.stream, INTERNAL_ERROR),
        // It was processed, and the connection ends without an answer.
        _ => {
            frames.go_away(frame.stream)?;
            Err(std::io::Error::other("done"))
        }
    });
    let gateway = gateway(&peer);
    gateway.get("/").send().is_upstreams(204);
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-bad-response");
    gateway
        .get("/")
        .send()
        .is_error(502, "upstream-bad-response");
    assert_eq!(
        (requests.load(Ordering::SeqCst), peer.connections()),
        (3, 1)
    );
}

#[test]
fn edge_21_a_client_that_leaves_resets_its_stream_and_no_other() {
    let (told, hears) = mpsc::channel();
    let (peer, _) = server(move |number, frames, frame| match number {
        // An answer that does not end, and none at all.
        0 => frames.send(HEADERS, END_HEADERS, frame.stream, &[0x80 | 8]),
        1 => {
            // One on which nothing came is taken for dead when its request is given up.
            frames.ping()?;
            told.send(0).unwrap();
            for _ in 0..2 {
                let reset = frames.next(RST_STREAM)?;
                assert_eq!(reset.payload, CANCEL.to_be_bytes());
                told.send(reset.stream).unwrap();
            }
            Ok(())
        }
        _ => frames.answer(frame.stream),
    });
    let gateway = gateway(&peer);
    let mut begun = gateway.get("/").begin();
    assert_eq!(begun.head().unwrap().status, 200);
    let waiting = gateway.get("/").begin();
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(0));
    drop(waiting);
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(3));
    drop(begun);
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(1));
    gateway.get("/").send().is_upstreams(204);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn an_answer_that_comes_before_the_end_of_a_body_that_nobody_reads_frees_the_client() {
    let (peer, _) = server(|_, frames, frame| {
        // The first bytes come, and no more room is given than there was.
        let data = frames.next(DATA)?;
        assert!(!data.payload.is_empty());
        frames.answer(frame.stream)
    });
    let gateway = gateway(&peer);
    let mut connection = crate::support::Connection::open(gateway.address());
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10000000\r\n\r\n";
    connection.write(head.as_bytes()).unwrap();
    // More than the 64 KiB that a stream has at first.
    connection.write(&vec![b'a'; 200_000]).unwrap();
    assert_eq!(connection.answer("POST").status, 204);
    assert!(connection.is_closed());
    gateway.post("/").body("hello").send().is_upstreams(204);
}
