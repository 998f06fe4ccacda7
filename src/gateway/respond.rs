//! The gateway's own answers: one shape, one place.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::seen::{Name, Seen};
use crate::{
    body::Body,
    config::{Config, ErrorPages, Gap},
    error::Code,
    reserved,
};

/// Seconds after which it makes sense to try again when something was away or busy.
const RETRY_AFTER: u64 = 1;

/// Why the gateway answers in the upstream's place. The detail is one sentence for people: it never holds a
/// cookie, a session key or a value of the session. Of what an upstream sent it may name keys of its change.
#[derive(Debug)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What happened and what to do.
    pub detail: String,
    /// The status that the upstream had answered, where it had acted already.
    pub upstream_status: Option<StatusCode>,
    /// Whether the connection must end with this answer, because its framing cannot be trusted.
    pub close: bool,
    /// Seconds after which it makes sense to try again, where it does at all.
    pub retry_after: u64,
}

impl Refusal {
    /// A refusal before the upstream was called.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            upstream_status: None,
            close: false,
            retry_after: RETRY_AFTER,
        }
    }

    /// A refusal after the upstream has acted.
    pub fn after(code: Code, detail: impl Into<String>, status: StatusCode) -> Self {
        Self {
            upstream_status: Some(status),
            ..Self::new(code, detail)
        }
    }

    /// It makes sense to try again after so many seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: seconds,
            ..self
        }
    }

    /// The connection ends with this answer.
    pub fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }
}

/// What of a request shapes a refusal of it. Kept as it came: few requests are refused.
#[derive(Debug, Default)]
pub struct Asked {
    /// The first `Accept`, and the others, which nearly nobody sends.
    accept: Option<HeaderValue>,
    more: Vec<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Asked {
    /// Keeps `Accept`, and the id of the request, which refusals name.
    pub fn new(headers: &HeaderMap, seen: Seen, request_id: HeaderValue) -> Self {
        let mut asked = Self {
            accept: None,
            more: Vec::new(),
            request_id: Some(request_id),
        };
        if seen.has(Name::Accept) {
            let mut accept = headers.get_all(header::ACCEPT).iter();
            asked.accept = accept.next().cloned();
            asked.more.extend(accept.cloned());
        }
        asked
    }

    /// An id has only letters, digits and a few signs that are nothing special in HTML or JSON.
    fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref()?.to_str().ok()
    }
}

/// The response for a refusal: RFC 9457, or a page; marked with `X-Gateway-Error`; never cached.
pub fn refusal(refusal: &Refusal, asked: &Asked, config: &Config) -> Response<Body> {
    let issuer = &config.gateway.issuer;
    respond(refusal, asked, issuer, &config.error_pages)
}

fn respond(refusal: &Refusal, asked: &Asked, issuer: &str, pages: &ErrorPages) -> Response<Body> {
    let code = refusal.code;
    let status = code.status();
    let (kind, text) = if prefers_html(asked.accept.iter().chain(&asked.more)) {
        let page = page(refusal, asked, pages);
        ("text/html; charset=utf-8", page)
    } else {
        ("application/problem+json", problem(refusal, asked))
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        reserved::X_GATEWAY_ERROR,
        HeaderValue::from_static(code.as_str()),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // After the upstream has acted nothing may invite a repetition.
    let passes = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if passes.contains(&status) && refusal.upstream_status.is_none() {
        headers.insert(header::RETRY_AFTER, refusal.retry_after.into());
    }
    if code == Code::LoginRequired {
        let challenge = format!("Session realm=\"{issuer}\"");
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    if code == Code::MethodRefused {
        let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    if refusal.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A redirect of a whole route (RFC 9110, section 15.4.9): what was asked for stays a POST if it is one.
pub fn moved(location: &str) -> Option<Response<Body>> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let location = HeaderValue::from_str(location).ok()?;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// A redirect to the login page. 302 as Django's own (`redirect_to_login`), for GET and HEAD only.
pub fn login_page(location: &str) -> Option<Response<Body>> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(location).ok()?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

fn problem(refusal: &Refusal, asked: &Asked) -> String {
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": title(refusal.code),
        "status": refusal.code.status().as_u16(),
        "code": refusal.code.as_str(),
        "detail": refusal.detail,
    });
    if let Some(status) = refusal.upstream_status {
        problem["upstream_status"] = status.as_u16().into();
    }
    if let Some(id) = asked.request_id() {
        problem["request_id"] = id.into();
    }
    problem.to_string()
}

/// A page of the site's own, or the plain one.
fn page(refusal: &Refusal, asked: &Asked, pages: &ErrorPages) -> String {
    let fill = |gap| match gap {
        Gap::Status => refusal.code.status().as_str().to_owned(),
        Gap::Title => title(refusal.code).to_owned(),
        Gap::Detail => escaped(&refusal.detail),
        Gap::Code => refusal.code.as_str().to_owned(),
        Gap::RequestId => asked.request_id().unwrap_or_default().to_owned(),
    };
    if let Some(page) = pages.page(refusal.code) {
        return page.filled(fill);
    }
    let [status, title, detail, code, id] = [
        Gap::Status,
        Gap::Title,
        Gap::Detail,
        Gap::Code,
        Gap::RequestId,
    ]
    .map(fill);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}\
         code{{color:#666}}</style>\n<h1>{title}</h1>\n<p>{detail}</p>\n<p><code>{status} {code} {id}</code></p>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn title(code: Code) -> &'static str {
    match code.status() {
        StatusCode::BAD_REQUEST => "Bad request",
        StatusCode::UNAUTHORIZED => "Login required",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "Method not allowed",
        StatusCode::CONFLICT => "Your session has changed",
        StatusCode::PAYLOAD_TOO_LARGE => "Too large",
        StatusCode::MISDIRECTED_REQUEST => "Another host's certificate",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "Too many header fields",
        StatusCode::NOT_IMPLEMENTED => "Not implemented",
        StatusCode::BAD_GATEWAY => "Bad gateway",
        StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
        StatusCode::GATEWAY_TIMEOUT => "No answer in time",
        _ => "Something went wrong",
    }
}

/// Whether `text/html` is named with a higher weight than JSON (RFC 9110, section 12.5.1). A wildcard speaks
/// for JSON, which is what programs want.
pub fn prefers_html<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let (mut html, mut json) = (0.0_f32, 0.0_f32);
    for value in accept {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if kind.eq_ignore_ascii_case("text/html") {
                html = html.max(weight);
            } else if kind.eq_ignore_ascii_case("application/json")
                || kind.eq_ignore_ascii_case("application/problem+json")
            {
                json = json.max(weight);
            }
        }
    }
    html > json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks_for_html(accept: &str) -> bool {
        prefers_html(&[HeaderValue::from_str(accept).unwrap()])
    }

    #[test]
    fn browsers_get_a_page_and_programs_get_json() {
        assert!(asks_for_html(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ));
        assert!(asks_for_html("application/json;q=0.5, text/html"));
        assert!(!asks_for_html("*/*"));
        assert!(!asks_for_html("application/json, text/html"));
        assert!(!asks_for_html("text/html;q=0"));
        assert!(!prefers_html(&[]));
    }

    #[test]
    fn a_problem_has_its_code_in_body_and_header() {
        let away = Refusal::new(Code::SessionStoreUnavailable, "away");
        let response = respond(&away, &Asked::default(), "", &ErrorPages::default());
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()["x-gateway-error"],
            "session-store-unavailable"
        );
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let Body::Full(bytes) = response.body() else {
            panic!("a body")
        };
        let problem: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(problem["code"], "session-store-unavailable");
        assert_eq!(problem["status"], 503);
    }

    #[test]
    fn no_detail_becomes_html() {
        let hostile = Refusal::new(Code::NoRoute, "<script>\"&'</script>");
        assert!(
            page(&hostile, &Asked::default(), &ErrorPages::default())
                .contains("<p>&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;</p>")
        );
    }

    #[test]
    fn nothing_invites_a_repetition_after_the_upstream_has_acted() {
        let after = Refusal::after(Code::SessionNotSaved, "no", StatusCode::OK);
        let response = respond(&after, &Asked::default(), "", &ErrorPages::default());
        assert_eq!(response.status(), 500);
        assert!(!response.headers().contains_key("retry-after"));
        let Body::Full(bytes) = response.body() else {
            panic!("a body")
        };
        let problem: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(problem["upstream_status"], 200);
    }
}
