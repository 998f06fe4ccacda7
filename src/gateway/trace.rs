//! What ties a request to others: `X-Request-Id`, and W3C trace context (<https://www.w3.org/TR/trace-context/>).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::seen::{Name, Seen};
use crate::telemetry::spans::{Parent, Span};

/// The name of a request, for people who look for it in several logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest id that is kept: a proxy's is a UUID or something like it.
const LONGEST: usize = 128;

/// Most members of `tracestate` (section 3.3.1.1).
const MOST_MEMBERS: usize = 32;

/// The id of a request: the one that a trusted peer gives, or a new one of 128 random bits.
/// `seen` is of these fields.
pub fn request_id(
    headers: &HeaderMap,
    seen: Seen,
    is_trusted: impl FnOnce() -> bool,
) -> HeaderValue {
    if !seen.has(Name::XRequestId) {
        return new_id();
    }
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_id(id.as_bytes()) && is_trusted() => id.clone(),
        _ => new_id(),
    }
}

fn new_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    let id = rand::random::<u128>().to_be_bytes();
    for (pair, byte) in text.chunks_exact_mut(2).zip(id) {
        let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
        pair.copy_from_slice(&digits);
    }
    // Hexadecimal digits are always a value.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// What needs no quotes in any log or URL.
fn is_id(id: &[u8]) -> bool {
    let is_right = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(is_right)
}

/// Puts the id into a request on its way to the upstream, and looks at its trace context: see [`context`]. With a span
/// of its own the gateway is the upstream's parent. `may_be_traced`: there may be one.
pub fn mark(
    headers: &mut HeaderMap,
    id: HeaderValue,
    may_be_traced: bool,
    span: Option<&Span>,
) -> Option<String> {
    headers.insert(X_REQUEST_ID, id);
    let trace = may_be_traced.then(|| context(headers)).flatten();
    let Some(span) = span else {
        return trace;
    };
    if let Ok(parent) = HeaderValue::try_from(span.traceparent()) {
        headers.insert(TRACEPARENT, parent);
    }
    Some(span.trace().to_owned())
}

/// Whose span a request belongs to, by a `traceparent` that is valid.
/// `seen` is of these fields.
pub fn parent(headers: &HeaderMap, seen: Seen) -> Option<Parent<'_>> {
    if !seen.has(Name::Traceparent) {
        return None;
    }
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let (Some(parent), None) = (given.next(), given.next()) else {
        return None;
    };
    let text = std::str::from_utf8(parent.as_bytes()).ok()?;
    let trace = trace_id(parent.as_bytes())?;
    let flags = u8::from_str_radix(text.get(53..55)?, 16).ok()?;
    Some(Parent {
        trace,
        span: text.get(36..52)?,
        sampled: flags & 1 == 1,
    })
}

/// The id of the trace that a request belongs to. A context that is not valid is removed, as the standard says;
/// a valid one passes as it is.
fn context(headers: &mut HeaderMap) -> Option<String> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let trace = match (given.next(), given.next()) {
        (Some(parent), None) => trace_id(parent.as_bytes()).map(str::to_owned),
        _ => None,
    };
    if trace.is_none() {
        headers.remove(&TRACEPARENT);
        headers.remove(&TRACESTATE);
    } else if !is_state(headers) {
        headers.remove(&TRACESTATE);
    }
    trace
}

/// `version-trace_id-parent_id-flags` (section 3.2). Later versions may go on after that.
fn trace_id(parent: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(parent).ok()?;
    let (head, more) = text.split_at_checked(55)?;
    let mut parts = head.split('-');
    let is_hex = |part: &str, digits: usize| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == digits && part.bytes().all(is_digit)
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let ends_well = more.is_empty() || (version != "00" && more.starts_with('-'));
    let is_right = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(span, 16)
        && !is_zero(span)
        && is_hex(flags, 2)
        && parts.next().is_none()
        && ends_well;
    is_right.then_some(trace)
}

/// Whether `tracestate` is a list of `key=value`.
fn is_state(headers: &HeaderMap) -> bool {
    let mut members = 0;
    for value in headers.get_all(&TRACESTATE) {
        let Ok(text) = value.to_str() else {
            return false;
        };
        for member in text
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
        {
            members += 1;
            if !member
                .split_once('=')
                .is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
            {
                return false;
            }
        }
    }
    members <= MOST_MEMBERS
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn an_id_is_kept_from_a_trusted_peer_and_made_otherwise() {
        let kept = |fields: &[(&str, &str)], trust: bool| {
            let headers = headers(fields);
            let id = request_id(&headers, Seen::of(&headers), || trust);
            let id = id.to_str().unwrap().to_owned();
            assert!(is_id(id.as_bytes()));
            fields.iter().any(|(_, value)| *value == id)
        };
        let longest = "a".repeat(128);
        for id in [
            "a",
            "0b0c8d4e-7ad4-4a3c-9f3a-5f1e2d3c4b5a",
            "1-67891233-abc/def+=:@~_.",
            &longest,
        ] {
            assert!(kept(&[("x-request-id", id)], true), "{id}");
            assert!(!kept(&[("x-request-id", id)], false), "{id}");
        }
        let too_long = "a".repeat(129);
        for id in [
            "", "a b", "a\"b", "a,b", "é", "<script>", "a;b", "a\tb", &too_long,
        ] {
            assert!(!kept(&[("x-request-id", id)], true), "{id}");
        }
        assert!(!kept(&[("x-request-id", "a"), ("x-request-id", "b")], true));
        assert!(!kept(&[], true));
        let new = || request_id(&HeaderMap::new(), Seen::default(), || true);
        assert_ne!(new(), new());
        assert_eq!(new().len(), 32);
    }

    #[test]
    fn a_valid_context_passes_and_another_one_does_not() {
        let passes = |parent: &str| {
            let mut fields = headers(&[("traceparent", parent), ("tracestate", "a=1, b@c=2")]);
            let trace = context(&mut fields);
            assert_eq!(
                fields.len(),
                if trace.is_some() { 2 } else { 0 },
                "{parent}"
            );
            trace.is_some()
        };
        assert!(passes(VALID));
        assert!(passes(
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
        ));
        assert!(passes(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        ));
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331c-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-1",
        ] {
            assert!(!passes(wrong), "{wrong}");
        }
        let mut two = headers(&[("traceparent", VALID), ("traceparent", VALID)]);
        assert_eq!(context(&mut two), None);
        assert!(two.is_empty());
    }

    #[test]
    fn the_caller_of_a_valid_context_is_known() {
        let found = headers(&[("traceparent", VALID)]);
        let expected = Parent {
            trace: "0af7651916cd43dd8448eb211c80319c",
            span: "b7ad6b7169203331",
            sampled: true,
        };
        assert_eq!(parent(&found, Seen::of(&found)), Some(expected));
        let off = headers(&[("traceparent", &VALID.replace("-01", "-02"))]);
        assert!(parent(&off, Seen::of(&off)).is_some_and(|parent| !parent.sampled));
        let wrong = headers(&[("traceparent", "00-x")]);
        assert_eq!(parent(&wrong, Seen::of(&wrong)), None);
        let two = headers(&[("traceparent", VALID), ("traceparent", VALID)]);
        assert_eq!(parent(&two, Seen::of(&two)), None);
    }

    #[test]
    fn a_state_that_is_no_list_of_pairs_is_dropped_alone() {
        let many = vec!["a=1"; 33].join(",");
        for wrong in ["a", "=1", "a=", "a=1,b", "a=é", &many] {
            let mut fields = headers(&[("traceparent", VALID), ("tracestate", wrong)]);
            assert!(context(&mut fields).is_some());
            assert!(!fields.contains_key("tracestate"), "{wrong}");
            assert_eq!(fields["traceparent"], VALID);
        }
        let mut alone = headers(&[("tracestate", "a=1")]);
        assert_eq!(context(&mut alone), None);
        assert!(alone.is_empty());
    }
}
