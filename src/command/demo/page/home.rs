//! The page at `/`: what the shop received, and the forms that change it.

use std::fmt::Write;

use chrono::DateTime;
use serde_json::Value;

use super::{button, document, escape};
use crate::command::demo::{
    Ports,
    shop::{Caller, Visit},
};

/// What each claim means, in the order in which they are shown.
const CLAIMS: [(&str, &str); 12] = [
    ("iss", "the gateway that signed"),
    ("aud", "the service that it signed for"),
    ("iat", "signed at"),
    ("exp", "good until"),
    ("jti", "new for each request"),
    (
        "req",
        "hash of this request\u{2019}s method, host and target",
    ),
    (
        "sid",
        "stands for the session; it is not the cookie, and another service sees another one",
    ),
    (
        "rev",
        "version of the session that was told, for \u{201c}if\u{201d} in a change",
    ),
    ("session_exp", "when the session ends"),
    ("sub", "primary key of the user who is logged in"),
    (
        "session",
        "the session\u{2019}s data; Django\u{2019}s own names, which begin with _, stay behind",
    ),
    ("withheld", "why the session\u{2019}s data is not told"),
];

/// The page for one visit.
pub(in crate::command::demo) fn home(visit: &Visit, ports: Ports) -> String {
    let mut body = String::with_capacity(16 * 1024);
    trip(&mut body, ports);
    body.push_str("<main>\n");
    who(&mut body, visit);
    session(&mut body, visit);
    changes(&mut body, visit);
    received(&mut body, visit);
    body.push_str(
        "</main>\n<footer><p>Everything runs on this machine. Ctrl-C in the terminal ends the demo.</p>\
         </footer>\n",
    );
    document("session-gateway demo", "", &body)
}

fn trip(out: &mut String, ports: Ports) {
    let Ports { gateway, shop, .. } = ports;
    let _ = write!(
        out,
        "<header>\n<h1>session-gateway <span>demo</span></h1>\n\
         <p class=\"lede\">A service beside Django made this page. All it knows of you came in one signed \
         header.</p>\n<ol class=\"trip\">\n\
         <li><b>Browser</b> sends Django\u{2019}s session cookie, if it has one.</li>\n\
         <li><b>Gateway</b> <code>127.0.0.1:{gateway}</code> finds its row in Django\u{2019}s table, keeps \
         the cookie and signs what the row says.</li>\n\
         <li><b>Shop</b> <code>127.0.0.1:{shop}</code> checks the signature and answers, perhaps with a \
         change.</li>\n</ol>\n</header>\n"
    );
}

fn who(out: &mut String, visit: &Visit) {
    let log_in = || button("/accounts/login/", "Log in as demo", " class=\"main\"", "");
    let log_out = || button("/accounts/logout/", "Log out", "", "");
    let caller = visit.caller();
    let (said, action) = match caller {
        Caller::User(user) => (format!("User {}, logged in", escape(user)), log_out()),
        Caller::Session => (
            "A visitor with a session, not logged in".to_owned(),
            log_in(),
        ),
        Caller::Nobody => ("Nobody: there is no session yet".to_owned(), log_in()),
        Caller::Unknown(why) => (
            format!("Nobody knows: <code>{}</code>", escape(why)),
            String::new(),
        ),
    };
    let members = match caller {
        Caller::User(_) => "is open to you now.",
        _ => "asks for a login first.",
    };
    let _ = write!(
        out,
        "<section>\n<h2>Who is calling</h2>\n<div class=\"who\"><p>{said}</p>{action}</div>\n\
         <p class=\"soft\"><a href=\"/members/\">The members\u{2019} page</a> {members}</p>\n</section>\n"
    );
}

fn session(out: &mut String, visit: &Visit) {
    out.push_str("<section>\n<h2>The session</h2>\n");
    match visit.session() {
        Some(session) if session.is_empty() => out.push_str("<p>It is empty.</p>\n"),
        Some(session) => {
            out.push_str("<table>\n");
            for (name, value) in session {
                fact(out, name, &value.to_string());
            }
            out.push_str("</table>\n");
        }
        None => out.push_str(
            "<p>Its contents were not told to the shop; <code>withheld</code> below says why.</p>\n",
        ),
    }
    if let Some(end) = visit.claims.get("session_exp").and_then(moment) {
        let _ = writeln!(out, "<p class=\"soft\">It ends on {end}.</p>");
    }
    out.push_str("</section>\n");
}

fn changes(out: &mut String, visit: &Visit) {
    out.push_str(
        "<section>\n<h2>Change it</h2>\n<p>Each button asks the shop, which answers with \
         <code>X-Session-Set</code>. The gateway writes that into Django\u{2019}s row before you see the \
         answer.</p>\n<ul class=\"changes\">\n",
    );
    let without_session = if visit.claims.contains_key("sid") {
        ""
    } else {
        " disabled"
    };
    let item = "<input name=\"item\" value=\"apple\" maxlength=\"40\" required \
                aria-label=\"What to put into the cart\">";
    let answer = |change: Result<Value, &str>| {
        change.map_or_else(str::to_owned, |change| change.to_string())
    };
    let rows = [
        ("/count", "Count", "", "", answer(visit.counted())),
        (
            "/cart",
            "Put into the cart",
            "",
            item,
            answer(visit.with_item("apple")),
        ),
        (
            "/cart/delete",
            "Delete the cart",
            without_session,
            "",
            r#"{"del":["cart"]}"#.to_owned(),
        ),
        (
            "/cycle",
            "New key, same data",
            without_session,
            "",
            r#"{"cycle":true}"#.to_owned(),
        ),
        (
            "/expiry",
            "End it in an hour",
            without_session,
            "",
            r#"{"expiry":3600}"#.to_owned(),
        ),
        (
            "/flush",
            "Forget everything",
            without_session,
            "",
            r#"{"flush":true}"#.to_owned(),
        ),
    ];
    for (path, label, attributes, field, answer) in rows {
        let form = button(path, label, attributes, field);
        let _ = writeln!(out, "<li>{form}<code>{}</code></li>", escape(&answer));
    }
    out.push_str("</ul>\n</section>\n");
}

fn received(out: &mut String, visit: &Visit) {
    let text = |name| {
        escape(
            visit
                .claims
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )
    };
    let _ = write!(
        out,
        "<section>\n<h2>What the shop received</h2>\n<ul class=\"checks\">\n\
         <li><strong>Signature checked</strong> with key <code>{}</code> (HMAC-SHA256)</li>\n\
         <li>Signed by <code>{}</code> for <code>{}</code>, and good now</li>\n\
         <li>Signed for this very request, so that it is no use in another</li>\n</ul>\n",
        escape(&visit.kid),
        text("iss"),
        text("aud"),
    );
    token(out, &visit.token);
    claims(out, visit);
    out.push_str(
        "<details>\n<summary>Every header field of the request</summary>\n<table class=\"claims\">\n",
    );
    for (name, value) in &visit.fields {
        fact(out, name, value);
    }
    out.push_str("</table>\n</details>\n</section>\n");
}

fn token(out: &mut String, token: &str) {
    out.push_str("<h3>The token, in the header <code>X-Session</code></h3>\n<pre class=\"token\">");
    for (place, part) in token.split('.').enumerate() {
        let dot = if place > 0 { "." } else { "" };
        let _ = write!(out, "{dot}<i>{}</i>", escape(part));
    }
    out.push_str("</pre>\n");
}

/// The claims that are known in their order, then those that are not.
fn claims(out: &mut String, visit: &Visit) {
    let is_new = |name: &str| !CLAIMS.iter().any(|(known, _)| *known == name);
    let known = CLAIMS.iter().copied();
    let new = visit
        .claims
        .keys()
        .filter(|name| is_new(name))
        .map(|name| (name.as_str(), ""));
    out.push_str("<h3>What it says</h3>\n<table class=\"claims\">\n");
    for (name, meaning) in known.chain(new) {
        let Some(value) = visit.claims.get(name) else {
            continue;
        };
        let spelt = format!("{value:#}");
        let is_time = matches!(name, "iat" | "exp" | "session_exp");
        let time = moment(value).filter(|_| is_time);
        let time = time
            .map(|time| format!("<br><span class=\"soft\">{time}</span>"))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\"><code>{}</code></th><td><code>{}</code>{time}</td>\
             <td class=\"meaning\">{}</td></tr>",
            escape(name),
            escape(&spelt),
            escape(meaning)
        );
    }
    out.push_str("</table>\n");
}

/// A row of a table.
fn fact(out: &mut String, name: &str, value: &str) {
    let (name, value) = (escape(name), escape(value));
    let _ = writeln!(
        out,
        "<tr><th scope=\"row\"><code>{name}</code></th><td><code>{value}</code></td></tr>"
    );
}

/// Unix seconds for people.
fn moment(seconds: &Value) -> Option<String> {
    let time = DateTime::from_timestamp_secs(seconds.as_i64()?)?;
    Some(time.format("%-d %B %Y, %H:%M:%S UTC").to_string())
}
