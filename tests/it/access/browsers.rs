//! What browsers really send, and what the cross-site guard answers: the table of docs/security.md, row by row,
//! and WebSocket handshakes, which are GETs.
//!
//! `Sec-Fetch-Site`: Chrome 76, Firefox 90, Safari 16.4, to https and localhost only (MDN's
//! browser-compat-data, the specification "Fetch Metadata Request Headers"). `Origin` with POST: Chrome and
//! Safari always, Firefox from 70, Edge from 79. With a WebSocket handshake all send `Origin` (RFC 6455, section
//! 4.1); Firefox and Safari (WebKit 256527) also `Sec-Fetch-*`, Chrome does not.

use super::{cross_site::Guarded, with};
use crate::support::{Ask, Served as _};

/// How a request is made.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Get,
    Post,
    WebSocket,
    Preflight,
}

use How::{Get, Post, Preflight, WebSocket};

/// Who asks, how, with which of the fields that count, and whether the upstream gets it. The site is
/// `https://shop.test`; `https://partner.test` is a trusted origin.
type Row = (&'static str, How, &'static [&'static str], bool);

const OWN: &str = "Origin: https://shop.test";
const OWN_HTTP: &str = "Origin: http://shop.test";
const TRUSTED: &str = "Origin: https://partner.test";
const ANOTHER: &str = "Origin: https://evil.test";
const SIBLING: &str = "Origin: https://wiki.shop.test";
const NULL: &str = "Origin: null";

const SAME_ORIGIN: &str = "Sec-Fetch-Site: same-origin";
const SAME_SITE: &str = "Sec-Fetch-Site: same-site";
const CROSS_SITE: &str = "Sec-Fetch-Site: cross-site";
const NONE: &str = "Sec-Fetch-Site: none";

#[rustfmt::skip] // One line, one row.
const TABLE: &[Row] = &[
    ("a form of an own page", Post, &[OWN, SAME_ORIGIN], true),
    ("`fetch()` of an own page", Post, &[OWN, SAME_ORIGIN], true),
    ("a form of an own page with `Referrer-Policy: no-referrer`", Post, &[NULL, SAME_ORIGIN], true),
    ("an own page over http", Post, &[OWN], true),
    ("an own page, Safari before 16.4", Post, &[OWN], true),
    ("a form of an own page with `no-referrer`, over http", Post, &[NULL], false),
    ("a page of a trusted origin", Post, &[TRUSTED, CROSS_SITE], true),
    ("a page of a trusted origin, Safari before 16.4", Post, &[TRUSTED], true),
    ("a page of another site", Post, &[ANOTHER, CROSS_SITE], false),
    ("a page of another site, Safari before 16.4", Post, &[ANOTHER], false),
    ("a form of another site with `no-referrer`", Post, &[NULL, CROSS_SITE], false),
    ("a page of another host of the same site", Post, &[SIBLING, SAME_SITE], false),
    ("a frame with `sandbox`, also an own one", Post, &[NULL, CROSS_SITE], false),
    ("a frame with `sandbox`, Safari before 16.4", Post, &[NULL], false),
    ("a redirect by another site (307, 308)", Post, &[NULL, CROSS_SITE], false),
    ("a form in Firefox before 70 or Edge before 79, of any page", Post, &[], true),
    ("curl, a native app, another service", Post, &[], true),
    ("a link on an own page", Get, &[SAME_ORIGIN], true),
    ("a link on another site", Get, &[CROSS_SITE], true),
    ("the address bar, a bookmark", Get, &[NONE], true),
    ("an own page, Firefox 90, Safari 16.4", WebSocket, &[OWN, SAME_ORIGIN], true),
    ("an own page, Chrome", WebSocket, &[OWN], true),
    ("a page of a trusted origin, Firefox 90, Safari 16.4", WebSocket, &[TRUSTED, CROSS_SITE], true),
    ("a page of a trusted origin, Chrome", WebSocket, &[TRUSTED], true),
    ("a page of another site, Firefox 90, Safari 16.4", WebSocket, &[ANOTHER, CROSS_SITE], false),
    ("a page of another site, Chrome", WebSocket, &[ANOTHER], false),
    ("a page of another host of the same site, Chrome", WebSocket, &[SIBLING], false),
    ("a frame with `sandbox`, Chrome", WebSocket, &[NULL], false),
    ("a native app, another service", WebSocket, &[], true),
    ("this host's page over http, to https", Preflight, &[OWN_HTTP, CROSS_SITE], true),
    ("a page of a trusted origin", Preflight, &[TRUSTED, CROSS_SITE], true),
    ("a page of another site", Preflight, &[ANOTHER, CROSS_SITE], false),
    ("a frame with `sandbox`", Preflight, &[NULL, CROSS_SITE], false),
];

const HANDSHAKE: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// The rest of what tells one kind of request from another. None of it counts for the guard.
fn request(scene: &Guarded, path: &str, how: How) -> Ask {
    match how {
        Get => scene.gateway.get(path).field("Sec-Fetch-Mode", "navigate"),
        Post => scene.gateway.post(path).body("a=b"),
        WebSocket => with(scene.gateway.get(path), &HANDSHAKE),
        Preflight => {
            let ask = scene.gateway.ask("OPTIONS", path);
            ask.field("Access-Control-Request-Method", "POST")
        }
    }
}

#[test]
fn what_browsers_send_gets_the_answers_of_the_documented_table() {
    let scene = Guarded::start();
    for (who, how, lines, passes) in TABLE {
        let what = format!("{}, {who}", name(*how));
        let user = (*how != Preflight).then_some("1");
        let ask = || with(request(&scene, "/", *how), lines);
        if *passes {
            scene.passes(ask().session(&scene.key), user, &what);
            scene.passes(ask(), None, &format!("{what}, no cookie"));
        } else {
            scene.is_refused(ask().session(&scene.key), &what);
            scene.is_refused(ask(), &format!("{what}, no cookie"));
        }
    }
}

#[test]
fn the_table_in_the_documentation_is_the_tested_one() {
    let docs = include_str!("../../../docs/security.md");
    let head = "| who asks | how | `Origin` | `Sec-Fetch-Site` | answer |";
    let found: Vec<&str> = docs
        .lines()
        .skip_while(|line| *line != head)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let tested: Vec<String> = TABLE.iter().map(line).collect();
    assert_eq!(
        found,
        tested,
        "docs/security.md should have:\n{}",
        tested.join("\n")
    );
}

fn line((who, how, lines, passes): &Row) -> String {
    let value = |field: &str| lines.iter().find_map(|line| line.strip_prefix(field));
    let origin = match value("Origin: ") {
        None => "–",
        Some("null") => "`null`",
        Some("https://shop.test" | "http://shop.test") => "its own",
        Some("https://partner.test") => "trusted",
        Some(_) => "another",
    };
    let site = value("Sec-Fetch-Site: ").map_or("–".to_owned(), |site| format!("`{site}`"));
    let answer = if *passes { "passes" } else { "403" };
    format!("| {who} | {} | {origin} | {site} | {answer} |", name(*how))
}

fn name(how: How) -> &'static str {
    match how {
        Get => "GET",
        Post => "POST",
        WebSocket => "WebSocket",
        Preflight => "preflight",
    }
}

/// The field ends at the gateway, so the guard must have looked before.
#[test]
fn every_upgrade_is_guarded_however_it_is_spelt() {
    let scene = Guarded::start();
    let spellings: [&[&str]; 10] = [
        &HANDSHAKE,
        &["Connection: Upgrade", "Upgrade: WebSocket"],
        &["CONNECTION: upgrade", "UPGRADE: WEBSOCKET"],
        &["Connection: keep-alive, upgrade", "Upgrade: h2c, websocket"],
        &["Connection: Upgrade", "Upgrade: foo", "Upgrade: websocket"],
        &[
            "Connection: close",
            "Connection: Upgrade",
            "Upgrade:websocket",
        ],
        &["Upgrade: websocket"],
        &["Connection: Upgrade", "Upgrade: websocket/13"],
        &[
            "Connection: Upgrade, HTTP2-Settings",
            "HTTP2-Settings: AAMAAABk",
            "Upgrade: h2c",
        ],
        &["Connection: Upgrade", "Upgrade:"],
    ];
    for spelling in spellings {
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            let of = |path: &str| with(scene.gateway.ask(method, path), spelling);
            let own = |lines: &[&str]| with(of("/").session(&scene.key), lines);
            let what = format!("{method} {spelling:?}");
            for foreign in [
                &[ANOTHER][..],
                &[NULL],
                &[OWN, CROSS_SITE],
                &[SAME_SITE],
                &["Origin:"],
            ] {
                scene.is_refused(own(foreign), &format!("{what} {foreign:?}"));
            }
            for good in [
                &[OWN][..],
                &[TRUSTED, CROSS_SITE],
                &[NULL, SAME_ORIGIN],
                &[],
            ] {
                scene.passes(own(good), Some("1"), &format!("{what} {good:?}"));
            }
            scene.is_refused(with(of("/"), &[ANOTHER]), &format!("{what}, no cookie"));
            scene.passes(
                with(of("/"), &[OWN]),
                None,
                &format!("{what}, no cookie, own"),
            );
            let open = with(of("/open/").session(&scene.key), &[ANOTHER, CROSS_SITE]);
            scene.passes(open, Some("1"), &format!("{what}, cross_site = allow"));
        }
    }
    // A Connection that names an Upgrade which is not there is a habit of proxies, and asks for nothing.
    let ask = with(
        scene.gateway.get("/").session(&scene.key),
        &["Connection: upgrade"],
    );
    scene.passes(with(ask, &[ANOTHER, CROSS_SITE]), Some("1"), "no Upgrade");
    for path in ["/off/", "/pass/"] {
        let ask = request(&scene, path, WebSocket).session(&scene.key);
        with(ask, &[ANOTHER]).send().is_upstreams(200);
        assert_eq!(scene.app.take().len(), 1, "{path}");
    }
}
