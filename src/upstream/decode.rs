//! Reads answers as HTTP/1.1 writes them (RFC 9112): the head, where the body ends, and chunks.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header,
};
use httparse::{EMPTY_HEADER, Status};
use hyper::ext::ReasonPhrase;

use crate::body::is_chunked;

/// Most fields of a head or a trailer section, as hyper has it.
const MOST_FIELDS: usize = 100;

/// The largest head, as hyper has it.
const LARGEST_HEAD: usize = 408 * 1024;

/// The longest line before a chunk, with extensions that nobody reads.
const LONGEST_SIZE: usize = 4 * 1024;

/// The largest trailer section.
const LARGEST_TRAILERS: usize = 16 * 1024;

/// What came is not what HTTP/1.1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A head or a trailer section.
    #[error("invalid HTTP: {0}")]
    Head(#[from] httparse::Error),
    /// A head that does not end.
    #[error("the head is too large")]
    TooLarge,
    /// A name, a value or a status that cannot be.
    #[error("invalid HTTP field")]
    Field,
    /// No number of bytes, or two.
    #[error("invalid Content-Length")]
    Length,
    /// With HTTP/1.0, or one that is not `chunked`.
    #[error("unexpected Transfer-Encoding")]
    Coding,
    /// Between chunks.
    #[error("invalid chunk")]
    Chunk,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Without its body.
    pub response: Response<()>,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the server keeps the connection.
    pub is_kept: bool,
    /// How many bytes it takes.
    pub length: usize,
}

/// How a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// The head at the beginning of what has come; `None` if it is not whole yet.
///
/// # Errors
///
/// The connection is of no more use.
pub fn head(come: &Bytes, method: &Method) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        come,
        &mut fields,
    )?;
    let length = match status {
        Status::Complete(length) if length <= LARGEST_HEAD => length,
        Status::Partial if come.len() <= LARGEST_HEAD => return Ok(None),
        Status::Complete(_) | Status::Partial => return Err(Malformed::TooLarge),
    };
    let code = parsed.code.unwrap_or_default();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Malformed::Field)?;
    let version = match parsed.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    *response.version_mut() = version;
    keep_reason(response.extensions_mut(), code, parsed.reason);
    *response.headers_mut() = fields_of(come, parsed.headers)?;
    let headers = response.headers();
    let framing = framing(headers, version, code, method)?;
    let is_kept =
        version == Version::HTTP_11 && framing != Framing::Close && code != 101 && !closes(headers);
    Ok(Some(Head {
        response,
        framing,
        is_kept,
        length,
    }))
}

/// hyper's server writes what it finds there, and the usual phrase where it finds nothing.
fn keep_reason(extensions: &mut Extensions, code: u16, reason: Option<&str>) {
    let usual = StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason());
    if let Some(reason) = reason.filter(|reason| Some(*reason) != usual)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        extensions.insert(reason);
    }
}

fn fields_of(come: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + 4);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        // An empty value may lie anywhere.
        let value = match field.value {
            [] => HeaderValue::from_static(""),
            value => HeaderValue::from_maybe_shared(come.slice_ref(value))
                .map_err(|_| Malformed::Field)?,
        };
        headers.append(name, value);
    }
    Ok(headers)
}

fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

fn framing(
    headers: &HeaderMap,
    version: Version,
    code: u16,
    method: &Method,
) -> Result<Framing, Malformed> {
    if *method == Method::HEAD || matches!(code, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // Nobody has said in TE that he understands another.
        return match is_chunked(coding) && codings.next().is_none() && version == Version::HTTP_11 {
            true => Ok(Framing::Chunked(Chunked::default())),
            false => Err(Malformed::Coding),
        };
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(Framing::Close);
    };
    if lengths.any(|other| other != first) {
        return Err(Malformed::Length);
    }
    let digits = first.as_bytes();
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::Length)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    text.parse()
        .map(Framing::Length)
        .map_err(|_| Malformed::Length)
}

/// Where in a chunked body (RFC 9112, section 7.1) the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunked {
    /// Before the size of a chunk.
    #[default]
    Size,
    /// So many bytes before the end of a chunk's data.
    Data(u64),
    /// After it.
    DataEnd,
    /// After the last chunk.
    Trailers,
    /// Behind the end.
    Over,
}

/// A part of a chunked body.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// Bytes.
    Data(Bytes),
    /// The fields at the end; there may be none.
    End(HeaderMap),
}

impl Chunked {
    /// The next part of what has come; `None` if more must come first.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    pub fn next(&mut self, come: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        loop {
            match *self {
                // httparse takes a line without a digit for a size of 0, which would be the last chunk.
                Self::Size if come.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) => {
                    return Err(Malformed::Chunk);
                }
                Self::Size => match httparse::parse_chunk_size(come) {
                    // httparse has no end of a line in a bare line feed of an extension; others do.
                    Ok(Status::Complete((length, _)))
                        if length > LONGEST_SIZE || come[..length - 2].contains(&b'\n') =>
                    {
                        return Err(Malformed::Chunk);
                    }
                    Ok(Status::Complete((length, size))) => {
                        come.advance(length);
                        *self = match size {
                            0 => Self::Trailers,
                            size => Self::Data(size),
                        };
                    }
                    Ok(Status::Partial) if come.len() <= LONGEST_SIZE => return Ok(None),
                    Ok(Status::Partial) | Err(_) => return Err(Malformed::Chunk),
                },
                Self::Data(_) if come.is_empty() => return Ok(None),
                Self::Data(left) => {
                    let here =
                        usize::try_from(left).map_or(come.len(), |left| left.min(come.len()));
                    let left = left - here as u64;
                    *self = match left {
                        0 => Self::DataEnd,
                        left => Self::Data(left),
                    };
                    return Ok(Some(Part::Data(come.split_to(here).freeze())));
                }
                Self::DataEnd => match come.get(..2) {
                    Some(b"\r\n") => {
                        come.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Malformed::Chunk),
                    None => return Ok(None),
                },
                Self::Trailers => {
                    let Some(length) = trailer_length(come)? else {
                        return Ok(None);
                    };
                    let section = come.split_to(length).freeze();
                    // httparse takes a bare line feed for the end of a line, which it may be in a head (section 2.2).
                    if has_bare_line_feed(&section) {
                        return Err(Malformed::Chunk);
                    }
                    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
                    *self = Self::Over;
                    return match httparse::parse_headers(&section, &mut fields)? {
                        Status::Complete((_, fields)) => {
                            Ok(Some(Part::End(fields_of(&section, fields)?)))
                        }
                        Status::Partial => Err(Malformed::Chunk),
                    };
                }
                Self::Over => return Ok(None),
            }
        }
    }
}

fn has_bare_line_feed(section: &[u8]) -> bool {
    let mut lines = section.split(|byte| *byte == b'\n');
    // What is behind the last line feed is no line.
    lines.next_back();
    lines.any(|line| line.last() != Some(&b'\r'))
}

/// How long the trailer section at the beginning of what has come is; `None` if it is not whole yet.
fn trailer_length(come: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(come, &mut fields)? {
        Status::Complete((length, _)) if length <= LARGEST_TRAILERS => Ok(Some(length)),
        Status::Partial if come.len() <= LARGEST_TRAILERS => Ok(None),
        Status::Complete(_) | Status::Partial => Err(Malformed::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str, method: &Method) -> Result<Option<Head>, Malformed> {
        head(&Bytes::copy_from_slice(text.as_bytes()), method)
    }

    fn whole(fields: &str) -> Result<Head, Malformed> {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        parse(&text, &Method::GET).map(|head| head.unwrap())
    }

    #[test]
    fn a_head_is_read_when_it_is_whole_and_says_how_long_it_is() {
        let text = "HTTP/1.1 404 Nope\r\nX-A: 1\r\nx-a:  2 \r\nEmpty:\r\nContent-Length: 3\r\n\r\n";
        for end in 0..text.len() {
            assert!(
                parse(&text[..end], &Method::GET).unwrap().is_none(),
                "{end}"
            );
        }
        let read = parse(&format!("{text}abcHTTP/1.1 500"), &Method::GET);
        let read = read.unwrap().unwrap();
        assert_eq!(
            (read.length, read.framing),
            (text.len(), Framing::Length(3))
        );
        assert!(read.is_kept);
        let response = read.response;
        assert_eq!(response.status(), 404);
        let all: Vec<_> = response.headers().get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "2"]);
        assert_eq!(response.headers()["empty"], "");
        let reason = response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Nope");
        let usual = whole("Content-Length: 0\r\n").unwrap().response;
        assert!(usual.extensions().get::<ReasonPhrase>().is_none());
    }

    #[test]
    fn where_a_body_ends_is_what_rfc_9112_says() {
        let framing = |fields: &str| whole(fields).map(|head| head.framing);
        let chunked = Framing::Chunked(Chunked::Size);
        assert_eq!(framing("Content-Length: 007\r\n"), Ok(Framing::Length(7)));
        assert_eq!(
            framing("Content-Length: 7\r\nContent-Length: 7\r\n"),
            Ok(Framing::Length(7))
        );
        assert_eq!(framing(""), Ok(Framing::Close));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(chunked));
        // The coding counts, whatever the length says.
        assert_eq!(
            framing("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n"),
            Ok(chunked)
        );
        let codings = [
            "gzip, chunked",
            "chunked, gzip",
            "gzip",
            "chunked,",
            "",
            "chunked\r\nTransfer-Encoding: chunked",
        ];
        let lengths = [
            "+7",
            "-7",
            "7 7",
            "7, 7",
            "0x7",
            "",
            "7a",
            "18446744073709551616",
            "7\r\nContent-Length: 8",
        ];
        for (name, error, wrong) in [
            ("Transfer-Encoding", Malformed::Coding, &codings[..]),
            ("Content-Length", Malformed::Length, &lengths),
        ] {
            for wrong in wrong {
                let fields = format!("{name}: {wrong}\r\n");
                assert_eq!(framing(&fields), Err(error), "{fields}");
            }
        }
        for (code, method) in [
            (204, Method::GET),
            (304, Method::GET),
            (103, Method::GET),
            (101, Method::GET),
            (200, Method::HEAD),
        ] {
            let text = format!("HTTP/1.1 {code} x\r\nContent-Length: 7\r\n\r\n");
            let read = parse(&text, &method).unwrap().unwrap();
            assert_eq!(read.framing, Framing::Length(0), "{code} {method}");
            assert_eq!(read.is_kept, code != 101);
        }
        let old = parse(
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &Method::GET,
        );
        assert_eq!(old.unwrap_err(), Malformed::Coding);
    }

    #[test]
    fn a_connection_is_kept_only_where_the_server_keeps_it_and_the_end_is_known() {
        let is_kept = |fields: &str| whole(fields).unwrap().is_kept;
        assert!(is_kept("Content-Length: 0\r\n"));
        assert!(is_kept("Connection: keep-alive\r\nContent-Length: 0\r\n"));
        for close in [
            "close",
            "Close",
            "x, close",
            "keep-alive\r\nConnection: ,CLOSE",
        ] {
            let fields = format!("Connection: {close}\r\nContent-Length: 0\r\n");
            assert!(!is_kept(&fields), "{close}");
        }
        assert!(!is_kept(""));
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
        assert!(!parse(old, &Method::GET).unwrap().unwrap().is_kept);
    }

    #[test]
    fn what_is_no_head_is_refused_and_so_is_one_without_an_end() {
        for wrong in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
        ] {
            assert!(parse(wrong, &Method::GET).is_err(), "{wrong:?}");
        }
        let many = "a: b\r\n".repeat(101);
        assert!(whole(&many).is_err());
        assert!(whole(&"a: b\r\n".repeat(99)).is_ok());
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(LARGEST_HEAD));
        // However much of it comes at once.
        for end in ["", "\r\n\r\n"] {
            let too_large = parse(&format!("{endless}{end}"), &Method::GET);
            assert_eq!(too_large.unwrap_err(), Malformed::TooLarge, "{end:?}");
        }
    }

    /// The bytes, the trailers, and what follows.
    type Unchunked = (Vec<u8>, HeaderMap, Vec<u8>);

    /// All of a chunked body, as it comes in parts of these sizes.
    fn unchunk(body: &[u8], parts: &[usize]) -> Result<Option<Unchunked>, Malformed> {
        let (mut chunked, mut come, mut data) = (Chunked::default(), BytesMut::new(), Vec::new());
        let mut rest = body;
        let mut sizes = parts.iter().copied().chain([body.len()]);
        loop {
            match chunked.next(&mut come)? {
                Some(Part::Data(bytes)) => data.extend(bytes),
                Some(Part::End(trailers)) => {
                    come.extend_from_slice(rest);
                    return Ok(Some((data, trailers, come.to_vec())));
                }
                None if rest.is_empty() => return Ok(None),
                None => {
                    let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
                    come.extend_from_slice(&rest[..size]);
                    rest = &rest[size..];
                }
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_trailers_kept() {
        let body = b"5;name=\"x\"\r\nhello\r\n00a\r\n, wo\r\nrld!\r\n0\r\nX-Sum: 1\r\n\r\nHTTP";
        let (data, trailers, rest) = unchunk(body, &[]).unwrap().unwrap();
        assert_eq!(data, b"hello, wo\r\nrld!");
        assert_eq!(
            (trailers.len(), &trailers["x-sum"]),
            (1, &"1".parse().unwrap())
        );
        assert_eq!(rest, b"HTTP");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = format!("5;{}", "x".repeat(LONGEST_SIZE));
        let trailers = format!("0\r\na: {}", "x".repeat(LARGEST_TRAILERS));
        for wrong in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            " 5\r\n",
            ";a\r\n",
            "5\n",
            "5\rhello",
            "5;a\nb\r\nhello",
            "5\r\nhelloXY",
            "5\r\nhello\n0\r",
            "5 5\r\n",
            "10000000000000000\r\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\r\n\n",
            "0\r\n\n",
            &long,
            &format!("{long}\r\nhello\r\n0\r\n\r\n"),
            &trailers,
            &format!("{trailers}\r\n\r\n"),
        ] {
            assert!(unchunk(wrong.as_bytes(), &[]).is_err(), "{wrong:?}");
        }
        for short in [
            "",
            "5",
            "5\r",
            "5\r\nhell",
            "5\r\nhello\r",
            "0\r\n",
            "0\r\na: b\r\n",
        ] {
            assert_eq!(unchunk(short.as_bytes(), &[]), Ok(None), "{short:?}");
        }
    }

    proptest! {
        #[test]
        fn how_a_chunked_body_comes_changes_nothing(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            follows in prop::collection::vec(any::<u8>(), 0..5),
            parts in prop::collection::vec(1_usize..9, 0..200),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            body.extend(&follows);
            let (data, trailers, rest) = unchunk(&body, &parts).unwrap().unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert!(trailers.is_empty());
            prop_assert_eq!(rest, follows);
        }

        #[test]
        fn no_bytes_make_the_reader_fail_in_another_way(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unchunk(&body, &[1; 200]);
            let _ = head(&Bytes::from(body), &Method::GET);
        }
    }
}
