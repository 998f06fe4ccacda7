//! An upstream that believes nothing: it reads bytes by the letter of RFC 9112 and keeps what it saw, whole requests
//! and such that were cut.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use crate::support::{Served, Upstream, websocket::KEY};

/// Where nobody has sent one of these, the gateway sets them; `X-Session` is looked at by other tests.
const ALWAYS: [&str; 4] = ["x-session", "x-request-id", "traceparent", "tracestate"];

/// A key is made anew for each handshake that comes over HTTP/2.
const HANDSHAKE_KEY: &str = "sec-websocket-key";

/// A running one.
pub struct Recorder {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Told>>>,
}

/// A request as the upstream saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
    /// Everything, as the cases write it.
    pub line: String,
    /// Whether it has come to its end.
    pub whole: bool,
}

impl Told {
    /// Whether the upstream could make nothing of it.
    pub fn is_malformed(&self) -> bool {
        self.line.starts_with("MALFORMED")
    }
}

impl Recorder {
    pub fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let upstream = Upstream::raw(move |stream| serve(stream, &kept));
        Self { upstream, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Told> {
        self.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

impl Served for Recorder {
    fn address(&self) -> SocketAddr {
        self.upstream.address()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Told>>) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    loop {
        let told = match receive(&mut reader) {
            Ok(None) => return,
            Ok(Some(told)) => told,
            Err(wrong) => malformed(&wrong),
        };
        let (target, whole) = (told.target.clone(), told.whole);
        seen.lock().unwrap().push(told);
        if !whole {
            return;
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
            target.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn malformed(wrong: &str) -> Told {
    Told {
        method: String::new(),
        target: String::new(),
        body: Vec::new(),
        line: format!("MALFORMED {wrong}"),
        whole: false,
    }
}

/// A line without its CRLF; nothing where the connection ends before one. A CR or LF elsewhere is an error.
fn line(reader: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    // A reset is an end like any other.
    let _ = reader.read_until(b'\n', &mut line);
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    match text.strip_suffix("\r\n") {
        Some(text) if !text.contains(['\r', '\0']) => Ok(Some(text.to_owned())),
        _ => Err(format!("line {text:?}")),
    }
}

fn receive(reader: &mut BufReader<TcpStream>) -> Result<Option<Told>, String> {
    let Some(first) = line(reader)? else {
        return Ok(None);
    };
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("request line {first:?}"));
    };
    let mut fields = Vec::new();
    loop {
        let Some(field) = line(reader)? else {
            return Ok(None);
        };
        if field.is_empty() {
            break;
        }
        let token = |name: &str| {
            let is_right = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            !name.is_empty() && name.chars().all(is_right)
        };
        match field.split_once(':') {
            Some((name, value)) if token(name) => {
                fields.push((
                    name.to_ascii_lowercase(),
                    value.trim_matches(' ').to_owned(),
                ));
            }
            _ => return Err(format!("field {field:?}")),
        }
    }
    let (body, trailers) = match body(reader, &fields)? {
        Some(read) => read,
        None => {
            let line = format!("{method} {target}{} (cut)", shown(&fields));
            return Ok(Some(Told {
                whole: false,
                line,
                ..told(method, target, Vec::new())
            }));
        }
    };
    let mut line = format!("{method} {target}{}", shown(&fields));
    if !body.is_empty() {
        line.push_str(&format!(" \"{}\"", body.escape_ascii()));
    }
    if !trailers.is_empty() {
        line.push_str(&format!(" trailers{}", shown(&trailers)));
    }
    Ok(Some(Told {
        line,
        ..told(method, target, body)
    }))
}

fn told(method: &str, target: &str, body: Vec<u8>) -> Told {
    Told {
        method: method.to_owned(),
        target: target.to_owned(),
        body,
        line: String::new(),
        whole: true,
    }
}

/// The fields but those that every request has.
fn shown(fields: &[(String, String)]) -> String {
    let usual = |name: &str, value: &str| match name {
        "host" | "x-forwarded-host" => value == "shop.test",
        "x-forwarded-for" => value == "127.0.0.1",
        "x-forwarded-proto" => value == "http",
        HANDSHAKE_KEY => value != KEY,
        _ => ALWAYS.contains(&name),
    };
    let others = fields.iter().filter(|(name, value)| !usual(name, value));
    others
        .map(|(name, value)| format!(" {name}: {};", value.escape_default()))
        .collect()
}

type Fields = Vec<(String, String)>;

/// The body and its trailers; nothing where the connection ends before them.
fn body(
    reader: &mut BufReader<TcpStream>,
    fields: &Fields,
) -> Result<Option<(Vec<u8>, Fields)>, String> {
    let all = |wanted: &str| -> Vec<&str> {
        let found = fields.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str()).collect()
    };
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Ok(Some(Default::default())),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| format!("length {length}"))?;
            let mut body = Vec::new();
            let _ = reader.take(length as u64).read_to_end(&mut body);
            Ok((body.len() == length).then_some((body, Vec::new())))
        }
        ([], ["chunked"]) => chunks(reader),
        (lengths, codings) => Err(format!("lengths {lengths:?} and codings {codings:?}")),
    }
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Result<Option<(Vec<u8>, Fields)>, String> {
    let mut body = Vec::new();
    loop {
        let Some(size) = line(reader)? else {
            return Ok(None);
        };
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|_| format!("chunk size {size}"))?;
        if size == 0 {
            break;
        }
        let start = body.len();
        let _ = reader.take(size as u64).read_to_end(&mut body);
        if body.len() != start + size {
            return Ok(None);
        }
        match line(reader)? {
            Some(end) if end.is_empty() => {}
            Some(more) => return Err(format!("chunk ends with {more:?}")),
            None => return Ok(None),
        }
    }
    let mut trailers = Vec::new();
    loop {
        match line(reader)? {
            None => return Ok(None),
            Some(end) if end.is_empty() => return Ok(Some((body, trailers))),
            Some(field) => {
                let (name, value) = field.split_once(':').ok_or(format!("trailer {field:?}"))?;
                trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
}
