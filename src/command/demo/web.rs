//! HTTP for the demo's two services: serving, and reading and writing the little that they need.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;

use super::page;

/// What the services answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The longest form that is read, in bytes.
const FORM: usize = 16 * 1024;

/// Serves until the process ends.
pub(super) async fn serve<H, F>(listener: TcpListener, answer: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        tokio::spawn(async move {
            // A connection that breaks off is the gateway's affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Whether the client is a browser: programs do not ask for `text/html`.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// A page, under a policy that lets it load and run nothing.
pub(super) fn html(status: StatusCode, page: String) -> Answer {
    let mut answer = text(status, "text/html; charset=utf-8", page);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, page::policy());
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    answer
}

/// JSON for people, too: several lines.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value:#}\n"))
}

/// A sentence, as a page or as JSON.
pub(super) fn sentence(status: StatusCode, headers: &HeaderMap, sentence: &str) -> Answer {
    if wants_html(headers) {
        html(status, page::sentence(status, sentence))
    } else {
        json(status, &serde_json::json!({ "detail": sentence }))
    }
}

/// The answer to a method that there is not.
pub(super) fn wrong_method(headers: &HeaderMap, allowed: &'static str) -> Answer {
    let said = format!("This takes {allowed}.");
    let mut answer = sentence(StatusCode::METHOD_NOT_ALLOWED, headers, &said);
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A redirect. A `location` that no field can hold becomes `/`.
pub(super) fn redirect(status: StatusCode, location: &str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/"));
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// The body of a form, or `None` if it is too long or breaks off.
pub(super) async fn form(body: Incoming) -> Option<Bytes> {
    Some(Limited::new(body, FORM).collect().await.ok()?.to_bytes())
}

/// The first field of this name in `application/x-www-form-urlencoded` text: a form's body, or a query.
pub(super) fn field(form: &[u8], name: &str) -> Option<String> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (decode(&pair[..equals])? == name).then(|| decode(&pair[equals + 1..]))?
    })
}

/// Percent-decoding with `+` for a blank (URL standard, 5.1), of UTF-8 only.
fn decode(text: &[u8]) -> Option<String> {
    let hex = |byte: Option<&u8>| {
        char::from(*byte?)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match (byte, hex(text.get(at)), hex(text.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_form_is_decoded() {
        let form = b"next=%2Fmembers%2F%3Fa%3D1%26b&item=a+b%C3%A9&bad=%ff&odd=100%&empty=&flag";
        assert_eq!(field(form, "next").as_deref(), Some("/members/?a=1&b"));
        assert_eq!(field(form, "item").as_deref(), Some("a b\u{e9}"));
        assert_eq!(field(form, "odd").as_deref(), Some("100%"));
        assert_eq!(field(form, "empty").as_deref(), Some(""));
        for absent in ["bad", "flag", "other", ""] {
            assert_eq!(field(form, absent), None, "{absent}");
        }
    }

    #[test]
    fn only_browsers_get_pages() {
        let accepts =
            |value| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        assert!(wants_html(&accepts(
            "text/html,application/xhtml+xml,*/*;q=0.8"
        )));
        assert!(!wants_html(&accepts("*/*")));
        assert!(!wants_html(&HeaderMap::new()));
    }
}
