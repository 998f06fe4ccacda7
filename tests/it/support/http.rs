//! HTTP/1.1 over a plain socket: what is sent is exactly what a test says, and nothing is hidden of what
//! comes back.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::PATIENCE;

/// A request to be sent.
pub struct Ask {
    address: SocketAddr,
    method: String,
    target: String,
    host: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self {
            address,
            method,
            target,
            host: "shop.test".to_owned(),
            fields: Vec::new(),
            body: None,
        }
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The session cookie.
    pub fn session(self, key: &str) -> Self {
        self.field("Cookie", &format!("sessionid={key}"))
    }

    /// The session cookie, if there is one.
    pub fn maybe_session(self, key: Option<&str>) -> Self {
        match key {
            Some(key) => self.session(key),
            None => self,
        }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it and reads the answer.
    pub fn send(&self) -> Answer {
        self.try_send()
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }

    /// Sends it and reads the answer, where a broken connection is a possible outcome.
    pub fn try_send(&self) -> std::io::Result<Answer> {
        let mut connection = Connection::try_open(self.address)?;
        connection.write(&self.bytes())?;
        connection.try_answer(&self.method)
    }

    /// Sends it and leaves the answer to the caller.
    pub fn begin(&self) -> Connection {
        let mut connection = Connection::open(self.address);
        connection.write(&self.bytes()).unwrap();
        connection
    }
}

/// A connection of a client.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    pub fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one whole answer to a request with this method.
    pub fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method)
            .unwrap_or_else(|error| panic!("reading the answer: {error}"))
    }

    pub fn try_answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let head = self.head()?;
        self.rest_of(head, method)
    }

    /// Reads what follows a head.
    pub fn rest_of(&mut self, mut answer: Answer, method: &str) -> std::io::Result<Answer> {
        if method == "HEAD" || answer.status < 200 || answer.status == 204 || answer.status == 304 {
            return Ok(answer);
        }
        match body(&mut self.stream, &answer.fields)? {
            Some(body) => (answer.body, answer.trailers) = (body.bytes, body.trailers),
            None => answer.body = self.rest()?,
        }
        Ok(answer)
    }

    /// Reads one answer's head, after informational ones. Its body is still to be read.
    pub fn head(&mut self) -> std::io::Result<Answer> {
        loop {
            let answer = self.any_head()?;
            if !(100..200).contains(&answer.status) {
                return Ok(answer);
            }
        }
    }

    /// Reads one answer's head, which may be an informational one.
    pub fn any_head(&mut self) -> std::io::Result<Answer> {
        let lines = head_lines(&mut self.stream)?;
        let status = lines[0]
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        Ok(Answer {
            status,
            fields: fields(&lines[1..]),
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body)?;
        Ok(body)
    }

    /// What is still to be read.
    pub fn into_reader(self) -> BufReader<TcpStream> {
        self.stream
    }

    /// Reads just this many bytes of a body.
    pub fn read_exactly(&mut self, bytes: usize) -> Vec<u8> {
        let mut body = vec![0; bytes];
        self.stream.read_exact(&mut body).unwrap();
        body
    }

    /// What comes, buffered.
    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.stream
    }

    /// Whether the other side has closed, waiting for it.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]) | Err(_))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The value of a field that is there at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.all(name);
        assert!(
            found.len() <= 1,
            "{name} is there {} times: {found:?}",
            found.len()
        );
        found.first().copied()
    }

    /// The gateway's own error code.
    pub fn code(&self) -> Option<&str> {
        self.field("x-gateway-error")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The whole Set-Cookie of the session cookie.
    pub fn set_cookie(&self) -> Option<&str> {
        let mut found = self
            .all("set-cookie")
            .into_iter()
            .filter(|field| field.starts_with("sessionid="));
        let first = found.next();
        assert!(
            found.next().is_none(),
            "two session cookies: {:?}",
            self.all("set-cookie")
        );
        first
    }

    /// The session key that it sets.
    pub fn new_session(&self) -> Option<String> {
        let value = self
            .set_cookie()?
            .strip_prefix("sessionid=")?
            .split(';')
            .next()?;
        Some(value.to_owned())
    }

    /// Asserts status and code of an error of the gateway's own, in its one shape.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) -> &Self {
        let text = self.text();
        assert_eq!((self.status, self.code()), (status, Some(code)), "{text}");
        assert_eq!(
            self.field("content-type"),
            Some("application/problem+json"),
            "{text}"
        );
        assert_eq!(self.field("cache-control"), Some("no-store"), "{text}");
        let problem = self.json();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&Value::from(status), &Value::from(code))
        );
        self
    }

    /// Asserts that it is the upstream's.
    #[track_caller]
    pub fn is_upstreams(&self, status: u16) -> &Self {
        assert_eq!(
            (self.status, self.code()),
            (status, None),
            "{:?} {}",
            self.fields,
            self.text()
        );
        self
    }
}

/// All values of a field.
pub fn all<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|field| field.0.eq_ignore_ascii_case(name))
        .map(|field| field.1.as_str())
        .collect()
}

/// The lines of a head, each byte one character, so that nothing is lost.
pub fn head_lines(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "closed before a whole head",
            ));
        }
        let text: String = line.iter().map(|byte| char::from(*byte)).collect();
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        match text.is_empty() {
            true if lines.is_empty() => {}
            true => return Ok(lines),
            false => lines.push(text),
        }
    }
}

/// Header lines as names and values.
pub fn fields(lines: &[String]) -> Vec<(String, String)> {
    let split = |line: &String| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
    };
    lines.iter().map(split).collect()
}

/// A body and what came after it.
#[derive(Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

/// A body whose end the head tells; `None` where it does not.
pub fn body(
    stream: &mut BufReader<TcpStream>,
    fields: &[(String, String)],
) -> std::io::Result<Option<Body>> {
    if all(fields, "transfer-encoding")
        .iter()
        .any(|value| value.contains("chunked"))
    {
        return chunks(stream).map(Some);
    }
    let Some(length) = all(fields, "content-length")
        .first()
        .and_then(|length| length.parse().ok())
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(Body {
        bytes,
        trailers: Vec::new(),
    }))
}

fn chunks(stream: &mut BufReader<TcpStream>) -> std::io::Result<Body> {
    let mut bytes = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = line
            .trim_end()
            .split(';')
            .next()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else {
            return Err(std::io::Error::other(format!("not a chunk size: {line:?}")));
        };
        if size == 0 {
            break;
        }
        let start = bytes.len();
        bytes.resize(start + size, 0);
        stream.read_exact(&mut bytes[start..])?;
        stream.read_line(&mut String::new())?;
    }
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(Body {
                bytes,
                trailers: fields(&lines),
            });
        }
        lines.push(line.trim_end().to_owned());
    }
}
