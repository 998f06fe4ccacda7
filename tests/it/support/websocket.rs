//! WebSockets on plain sockets: the handshake of both sides, and frames.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};

use super::{
    Answer, Ask, Connection, PATIENCE, Seen, Served, Upstream,
    http::{all, fields, head_lines},
};

/// The key of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request with the fields of a handshake.
pub fn handshake(ask: Ask) -> Ask {
    ask.field("Connection", "keep-alive, Upgrade")
        .field("Upgrade", "websocket")
        .field("Sec-WebSocket-Version", "13")
        .field("Sec-WebSocket-Key", KEY)
}

/// What answers to a key.
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
}

/// An upstream that agrees to every handshake, and then does with the connection what a test says.
pub struct WebSockets {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl WebSockets {
    /// Sends back what comes, and ends when the client does.
    pub fn echo() -> Self {
        Self::with("", |mut stream| {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                if stream.get_mut().write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        })
    }

    /// With more `lines` in the head of the 101, each with its line end.
    pub fn with(lines: &str, serve: impl Fn(BufReader<TcpStream>) + Send + Sync + 'static) -> Self {
        let lines = lines.to_owned();
        Self::answering(
            move |seen| {
                let accept = accept(seen.field("sec-websocket-key").unwrap_or_default());
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
                )
            },
            serve,
        )
    }

    /// Answers with these bytes, whatever they are.
    pub fn answering(
        answer: impl Fn(&Seen) -> String + Send + Sync + 'static,
        serve: impl Fn(BufReader<TcpStream>) + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let upstream = Upstream::raw(move |stream| {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let connection = stream.try_clone().unwrap();
            let mut stream = BufReader::new(stream);
            let Ok(lines) = head_lines(&mut stream) else {
                return;
            };
            let request = seen_of(&lines);
            keep.lock().unwrap().push(request.clone());
            if stream
                .get_mut()
                .write_all(answer(&request).as_bytes())
                .is_ok()
            {
                serve(stream);
            }
            // Others hold it too, so that it would not end with its last reader.
            let _ = connection.shutdown(Shutdown::Both);
        });
        Self { upstream, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a handshake has come")
    }
}

impl Served for WebSockets {
    fn address(&self) -> SocketAddr {
        self.upstream.address()
    }
}

fn seen_of(lines: &[String]) -> Seen {
    let mut words = lines[0].split(' ').map(ToOwned::to_owned);
    Seen {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        fields: fields(&lines[1..]),
        body: Vec::new(),
        trailers: Vec::new(),
    }
}

/// Sends a handshake; the head of the answer and the connection behind it.
pub fn open(ask: &Ask) -> (Answer, Connection) {
    let mut connection = ask.begin();
    let head = connection.any_head().unwrap();
    (head, connection)
}

/// The same where the answer must be a 101 that fits the key.
#[track_caller]
pub fn opened(ask: &Ask) -> Connection {
    let (head, connection) = open(ask);
    assert_eq!(head.status, 101, "{:?}", head.fields);
    assert_eq!(all(&head.fields, "sec-websocket-accept"), [accept(KEY)]);
    assert_eq!(all(&head.fields, "upgrade"), ["websocket"]);
    connection
}

/// A frame without a mask.
pub fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..126 => bytes.push(u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            bytes.push(126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// The same as a client sends it, with a mask of zeros.
pub fn masked(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, is_final, payload);
    bytes[1] |= 0x80;
    let place = bytes.len() - payload.len();
    bytes.splice(place..place, [0; 4]);
    bytes
}

/// The next frame: its opcode and its payload, without its mask.
pub fn next_frame(stream: &mut impl std::io::Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes)?;
            usize::from(u16::from_be_bytes(bytes))
        }
        127 => {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes)?;
            usize::try_from(u64::from_be_bytes(bytes)).unwrap()
        }
        length => usize::from(length),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    for (place, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[place % 4];
    }
    Ok((head[0] & 0x0f, payload))
}

/// Reads frames up to a close frame: its code and reason.
#[track_caller]
pub fn closed(stream: &mut impl std::io::Read) -> (u16, String) {
    loop {
        let (opcode, payload) = next_frame(stream).expect("a close frame");
        if opcode == 8 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            return (code, String::from_utf8(payload[2..].to_vec()).unwrap());
        }
    }
}
