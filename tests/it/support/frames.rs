//! HTTP/2 by hand: frames and header blocks as no client library would send them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use super::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags of theirs.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block of these fields, each a literal that nobody remembers (RFC 7541, section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            number(text.len(), &mut block);
            block.extend(text);
        }
    }
    block
}

/// A number with a prefix of seven bits (RFC 7541, section 5.1).
fn number(value: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = value.checked_sub(127) else {
        block.push(u8::try_from(value).unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// HEADERS, and CONTINUATION where a frame has no room for all.
pub fn headers(stream: u32, ends: bool, block: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = block.chunks(16_384).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let mut frames = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let mut flags = 0;
        if place + 1 == parts.len() {
            flags |= END_HEADERS;
        }
        let kind = match place {
            0 => HEADERS,
            _ => CONTINUATION,
        };
        if ends && place == 0 {
            flags |= END_STREAM;
        }
        frames.extend(frame(kind, flags, stream, part));
    }
    frames
}

/// What the server has said of a stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub status: Option<u16>,
    pub body: Vec<u8>,
    pub ended: bool,
    /// The error code of its RST_STREAM.
    pub reset: Option<u32>,
}

/// A client's connection, whose header blocks are understood only as far as their status.
pub struct Frames {
    socket: TcpStream,
    pub streams: BTreeMap<u32, Stream>,
    /// The error code of the server's GOAWAY.
    pub goaway: Option<u32>,
    /// Whether the server has closed.
    pub closed: bool,
    pub settings: Vec<u8>,
    pub pongs: usize,
    /// RST_STREAM frames, those after an end included.
    pub resets: usize,
}

impl Frames {
    /// Sends the preface and SETTINGS that forbid a table of fields, so that each block can be read alone.
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut frames = Self {
            socket,
            streams: BTreeMap::new(),
            goaway: None,
            closed: false,
            settings: Vec::new(),
            pongs: 0,
            resets: 0,
        };
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat();
        frames.write(&begin);
        frames
    }

    /// Sends bytes; the server may have closed.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Reads until this holds, the server closes, or nothing more comes; whether it holds.
    pub fn until(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) && !self.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            self.read();
        }
        holds(self)
    }

    /// Whether nothing more is to be said of a stream.
    pub fn is_done(&self, stream: u32) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.ended || stream.reset.is_some())
    }

    fn read(&mut self) {
        let mut head = [0; 9];
        if self.socket.read_exact(&mut head).is_err() {
            self.closed = true;
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if self.socket.read_exact(&mut payload).is_err() {
            self.closed = true;
            return;
        }
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            SETTINGS if flags & ACK == 0 => {
                self.settings.clone_from(&payload);
                self.write(&frame(SETTINGS, ACK, 0, &[]));
            }
            PING if flags & ACK == 0 => {
                self.write(&frame(PING, ACK, 0, &payload));
            }
            PING => self.pongs += 1,
            GOAWAY => self.goaway = Some(code(4)),
            HEADERS => {
                let stream = self.streams.entry(id).or_default();
                // Trailers have no status.
                stream.status = stream.status.or(status(&payload));
                stream.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                let stream = self.streams.entry(id).or_default();
                stream.body.extend(&payload);
                stream.ended |= flags & END_STREAM != 0;
            }
            RST_STREAM => {
                self.resets += 1;
                let stream = self.streams.entry(id).or_default();
                if !stream.ended {
                    stream.reset = Some(code(0));
                }
            }
            _ => {}
        }
    }
}

/// The status, which is the first field of an answer (RFC 7541, appendix A; digits in appendix B).
fn status(mut block: &[u8]) -> Option<u16> {
    // The server begins by forgetting its table of fields.
    while let Some(rest) = block
        .split_first()
        .filter(|(first, _)| **first & 0xe0 == 0x20)
    {
        block = rest.1;
    }
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    let (first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        return indexed
            .get(usize::from(first & 0x7f).checked_sub(8)?)
            .copied();
    }
    let (length, rest) = rest.split_first()?;
    let value = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let bits: Vec<u8> = value
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let mut at = 0;
    let mut status = 0;
    for _ in 0..3 {
        let take = |from: usize, count: usize| {
            let bits = bits.get(from..from + count)?;
            Some(
                bits.iter()
                    .fold(0_u16, |value, bit| value * 2 + u16::from(*bit)),
            )
        };
        // 0, 1, 2 have five bits; 3 to 9 have six, from 0x19 on.
        let (digit, length) = match take(at, 5)? {
            short @ 0..=2 => (short, 5),
            _ => (take(at, 6)?.checked_sub(0x19)? + 3, 6),
        };
        status = status * 10 + digit;
        at += length;
    }
    Some(status)
}
