//! The cases of HTTP/2, frame by frame.

use std::{fmt::Write as _, sync::Mutex};

use super::{
    format::{self, Case, Outcome, unescape},
    h1::{counted, gateway},
    recorder::{Recorder, Told},
};
use crate::support::{
    Served as _,
    frames::{DATA, END_STREAM, Frames, Stream, block, frame, headers},
};

/// The stream of the request that follows each case, where there still is a connection.
const SECOND: u32 = 101;

/// Gateways that share the cases.
const GATEWAYS: usize = 4;

/// The frames of a case. Its first part is a head on stream 1: fields, or `GET /path` for the usual ones. Then, after
/// an empty line, there are `data TEXT`, `trailers` with fields, `open` where the stream does not end, and
/// `frame TYPE FLAGS STREAM PAYLOAD`, each perhaps after `times N`.
fn frames(text: &str) -> Vec<u8> {
    let (head, rest) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
    let mut steps: Vec<&str> = rest.lines().filter(|line| !line.is_empty()).collect();
    let is_open = steps.last() == Some(&"open");
    if is_open {
        steps.pop();
    }
    let mut bytes = Vec::new();
    let (own, trailers) = match steps.iter().position(|step| *step == "trailers") {
        Some(place) => (steps[..place].to_vec(), Some(steps.split_off(place + 1))),
        None => (steps, None),
    };
    let ends_at_data = own.iter().rposition(|step| step.starts_with("data "));
    let ends_at_data = ends_at_data.filter(|_| trailers.is_none() && !is_open);
    if !head.starts_with("nothing") {
        let ends = ends_at_data.is_none() && trailers.is_none() && !is_open;
        bytes.extend(headers(1, ends, &block(&fields(head.lines()))));
    }
    for (place, step) in own.iter().enumerate() {
        let (times, step) = match step
            .strip_prefix("times ")
            .and_then(|rest| rest.split_once(' '))
        {
            Some((times, step)) => (times.parse().unwrap(), step),
            None => (1, *step),
        };
        let flags = if ends_at_data == Some(place) {
            END_STREAM
        } else {
            0
        };
        for _ in 0..times {
            bytes.extend(one(step, flags));
        }
    }
    if let Some(trailers) = trailers {
        bytes.extend(headers(1, true, &block(&fields(trailers.into_iter()))));
    }
    bytes
}

fn one(step: &str, flags: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(text) = step.strip_prefix("data ") {
        unescape(text.as_bytes(), &mut payload);
        return frame(DATA, flags, 1, &payload);
    }
    let mut words = step.strip_prefix("frame ").unwrap().splitn(4, ' ');
    let mut number = || words.next().unwrap().parse::<u32>().unwrap();
    let (kind, flags, stream) = (number(), number(), number());
    let rest = words.next().unwrap_or_default();
    match rest.strip_prefix("head ") {
        Some(head) => {
            let (method, target) = head.split_once(' ').unwrap();
            payload = block(&usual(method, target));
        }
        None => unescape(rest.as_bytes(), &mut payload),
    }
    let (kind, flags) = (u8::try_from(kind).unwrap(), u8::try_from(flags).unwrap());
    frame(kind, flags, stream, &payload)
}

type Field = (Vec<u8>, Vec<u8>);

fn usual(method: &str, target: &str) -> Vec<Field> {
    let field = |name: &str, value: &str| (name.into(), value.into());
    vec![
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", "shop.test"),
        field(":path", target),
    ]
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Field> {
    let mut fields = Vec::new();
    for line in lines {
        let method = line.split_once(' ').filter(|(method, target)| {
            method.bytes().all(|byte| byte.is_ascii_uppercase()) && target.starts_with('/')
        });
        if let Some((method, target)) = method {
            fields.extend(usual(method, target));
            continue;
        }
        // A name may begin with a colon.
        let colon = line[1..].find(':').unwrap() + 1;
        let (mut name, mut value) = (Vec::new(), Vec::new());
        unescape(&line.as_bytes()[..colon], &mut name);
        let written = &line[colon + 1..];
        unescape(
            written.strip_prefix(' ').unwrap_or(written).as_bytes(),
            &mut value,
        );
        fields.push((name, value));
    }
    fields
}

#[test]
fn edge_9_and_10_no_http_2_request_reaches_the_upstream_in_another_way_than_the_gateway_saw_it() {
    let cases = format::read(include_str!("h2.txt"));
    assert!(cases.len() >= 40, "{}", cases.len());
    let observed = Mutex::new(vec![Outcome::default(); cases.len()]);
    let failures = Mutex::new(String::new());
    std::thread::scope(|scope| {
        for first in 0..GATEWAYS {
            let (cases, observed, failures) = (&cases, &observed, &failures);
            scope.spawn(move || {
                let app = Recorder::start();
                let gateway = gateway(&app);
                for (place, case) in cases.iter().enumerate().skip(first).step_by(GATEWAYS) {
                    app.forget();
                    let before = counted(&gateway);
                    let (outcome, mut wrong) = run(gateway.address(), &app, case);
                    let counts = counted(&gateway) - before;
                    if app.seen().iter().filter(|told| told.whole).count() > counts {
                        let _ = writeln!(wrong, "the gateway counted {counts} requests");
                    }
                    if outcome != case.outcome || !wrong.is_empty() {
                        let text = format::written(case, &outcome);
                        let _ = writeln!(failures.lock().unwrap(), "{text}{wrong}");
                    }
                    observed.lock().unwrap()[place] = outcome;
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    format::keep("h2", &cases, &observed.into_inner().unwrap());
    assert!(failures.is_empty(), "what happened instead:\n{failures}");
}

/// What becomes of a case, and what of that must never be.
fn run(address: std::net::SocketAddr, app: &Recorder, case: &Case) -> (Outcome, String) {
    let mut client = Frames::open(address);
    client.write(&frames(&case.text));
    let second = headers(SECOND, true, &block(&usual("GET", "/second")));
    client.write(&second);
    let waits = !case.text.starts_with("nothing");
    client.until(|client| (!waits || client.is_done(1)) && client.is_done(SECOND));
    let mut answers: Vec<String> = client
        .streams
        .iter()
        .map(|(id, stream)| format!("{id}: {}", shown(stream)))
        .collect();
    answers.extend(client.goaway.map(|code| format!("GOAWAY {}", error(code))));
    if client.closed && client.goaway.is_none() {
        answers.push("closed".to_owned());
    }

    let passed: Vec<String> = client
        .streams
        .values()
        .filter(|stream| stream.status == Some(200) && stream.ended)
        .map(|stream| String::from_utf8_lossy(&stream.body).into_owned())
        .collect();
    // Whether a request that breaks off has reached the upstream by then is left to chance; it is none there.
    let is_malformed = app.seen().iter().any(Told::is_malformed);
    let mut seen: Vec<Told> = app.seen().into_iter().filter(|told| told.whole).collect();
    // Requests of one connection go their own ways.
    seen.sort_by_key(|told| told.target == "/second");
    let mut wrong = String::new();
    let all_answered = passed
        .iter()
        .all(|target| target.is_empty() || seen.iter().any(|told| told.target == *target));
    if !all_answered || seen.len() < passed.len() {
        wrong.push_str("the upstream saw other requests than were answered for\n");
    }
    let seen: Vec<String> = seen.iter().map(|told| told.line.clone()).collect();
    if is_malformed {
        wrong.push_str("the upstream cannot read it\n");
    }
    (Outcome { answers, seen }, wrong)
}

fn shown(stream: &Stream) -> String {
    let status = stream.status.map(|status| status.to_string());
    let problem = serde_json::from_slice::<serde_json::Value>(&stream.body).ok();
    let code = problem
        .as_ref()
        .and_then(|problem| problem["code"].as_str());
    let reset = stream.reset.map(|code| format!("reset {}", error(code)));
    let open = (!stream.ended && stream.reset.is_none()).then(|| "unfinished".to_owned());
    let parts = [status, code.map(str::to_owned), reset, open];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// RFC 9113, section 7.
fn error(code: u32) -> &'static str {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
    ];
    names.get(code as usize).unwrap_or(&"?")
}
