//! The cross-site guard, as browsers meet it; preflights; two session cookies in one request.

use serde_json::{Value, json};

use crate::{
    access::{varies, with},
    support::{Ask, Database, Gateway, Served as _, Upstream, reply},
};

/// A request as a browser or a program writes it, for the host `shop.test`.
type Browser = (&'static str, &'static [&'static str]);

/// What may change something: the site's own pages, and what is no browser.
const OWN: [Browser; 14] = [
    (
        "Chrome, a form",
        &[
            "Origin: https://shop.test",
            "Content-Type: application/x-www-form-urlencoded",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-User: ?1",
            "Sec-Fetch-Dest: document",
            "Referer: https://shop.test/cart",
        ],
    ),
    (
        "Firefox, a form",
        &[
            "Referer: https://shop.test/cart",
            "Origin: https://shop.test",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-User: ?1",
        ],
    ),
    (
        "Chrome, fetch",
        &[
            "Origin: https://shop.test",
            "Content-Type: application/json",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Dest: empty",
        ],
    ),
    // Fetch standard, "append a request Origin header": the policy makes the origin `null`.
    (
        "a form of a page with Referrer-Policy: no-referrer",
        &[
            "Origin: null",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: document",
        ],
    ),
    (
        "a page that was reloaded",
        &[
            "Origin: https://shop.test",
            "Sec-Fetch-Site: none",
            "Sec-Fetch-Mode: navigate",
        ],
    ),
    // Chrome sends no Sec-Fetch-Site to http, but to localhost.
    (
        "Chrome, a form over http",
        &[
            "Origin: http://shop.test",
            "Referer: http://shop.test/cart",
            "Upgrade-Insecure-Requests: 1",
        ],
    ),
    ("Safari 15", &["Origin: https://shop.test"]),
    (
        "the default port of https, spelt out",
        &["Origin: https://shop.test:443"],
    ),
    (
        "the default port of http, spelt out",
        &["Origin: http://shop.test:80"],
    ),
    ("an origin in capitals", &["Origin: https://SHOP.test"]),
    (
        "the trusted origin, Chrome",
        &[
            "Origin: https://partner.test",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: cors",
        ],
    ),
    (
        "the trusted origin, an old browser",
        &["Origin: https://partner.test"],
    ),
    (
        "the trusted sibling",
        &[
            "Origin: https://blog.shop.test:8443",
            "Sec-Fetch-Site: same-site",
        ],
    ),
    ("curl", &["User-Agent: curl/8.5.0", "Accept: */*"]),
];

/// What may not.
const FOREIGN: [Browser; 21] = [
    (
        "Chrome, a form of another site",
        &[
            "Origin: https://evil.test",
            "Content-Type: application/x-www-form-urlencoded",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-User: ?1",
            "Sec-Fetch-Dest: document",
            "Referer: https://evil.test/",
        ],
    ),
    (
        "Chrome, no-cors fetch of another site",
        &[
            "Origin: https://evil.test",
            "Content-Type: text/plain;charset=UTF-8",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: no-cors",
            "Sec-Fetch-Dest: empty",
        ],
    ),
    (
        "Chrome, a form of a sibling host",
        &[
            "Origin: https://wiki.shop.test",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Mode: navigate",
        ],
    ),
    (
        "another port of this host",
        &[
            "Origin: https://shop.test:8443",
            "Sec-Fetch-Site: same-site",
        ],
    ),
    (
        "a frame in a sandbox",
        &[
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: iframe",
        ],
    ),
    ("a frame in a sandbox, an old browser", &["Origin: null"]),
    (
        "a redirect through another site",
        &["Origin: null", "Sec-Fetch-Site: cross-site"],
    ),
    (
        "another site without Origin",
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
    ),
    (
        "Sec-Fetch-Site goes before a matching Origin",
        &["Origin: https://shop.test", "Sec-Fetch-Site: cross-site"],
    ),
    (
        "a Sec-Fetch-Site of tomorrow",
        &["Sec-Fetch-Site: same-party"],
    ),
    ("an empty Sec-Fetch-Site", &["Sec-Fetch-Site:"]),
    (
        "an old browser, another host",
        &["Origin: https://evil.test"],
    ),
    (
        "an old browser, a sibling host",
        &["Origin: https://wiki.shop.test"],
    ),
    (
        "an old browser, another port",
        &["Origin: http://shop.test:8080"],
    ),
    (
        "an old browser, a host that ends alike",
        &["Origin: https://evilshop.test"],
    ),
    (
        "an old browser, a host that begins alike",
        &["Origin: https://shop.test.evil.test"],
    ),
    (
        "the trusted origin's other port",
        &[
            "Origin: https://partner.test:8443",
            "Sec-Fetch-Site: cross-site",
        ],
    ),
    (
        "the trusted origin without TLS",
        &["Origin: http://partner.test", "Sec-Fetch-Site: cross-site"],
    ),
    (
        "two Origin fields, the own one first",
        &["Origin: https://shop.test", "Origin: https://evil.test"],
    ),
    (
        "two Origin fields, the trusted one last",
        &["Origin: https://evil.test", "Origin: https://partner.test"],
    ),
    ("an empty Origin", &["Origin:"]),
];

#[test]
fn a_request_that_changes_something_comes_from_an_own_page_or_goes_nowhere() {
    let scene = Guarded::start();
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
        for (browser, lines) in OWN {
            let what = format!("{method}, {browser}");
            scene.passes(with(scene.ask(method, "/"), lines), Some("1"), &what);
        }
        for (browser, lines) in FOREIGN {
            let what = format!("{method}, {browser}");
            scene.is_refused(with(scene.ask(method, "/"), lines), &what);
        }
    }
    // Whatever the cookie is worth: the guard does not depend on what the database says of it.
    let unknown = crate::support::database::random_key();
    for cookie in [
        format!("sessionid={unknown}"),
        "sessionid=".to_owned(),
        "a=b; sessionid=\"x y\"".to_owned(),
        "theme=dark".to_owned(),
    ] {
        let ask = scene.gateway.post("/").field("Cookie", &cookie).body("a=b");
        scene.is_refused(with(ask, FOREIGN[0].1), &cookie);
    }
}

/// `SameSite` keeps the cookie back: the session that the service makes would take the place of the visitor's.
#[test]
fn another_sites_page_never_gives_a_visitor_a_session() {
    let scene = Guarded::start();
    let change = r#"{"set": {"cart": "another one's"}}"#;
    scene.app.answers(reply(200).set(change));
    for (browser, lines) in FOREIGN {
        for method in ["POST", "PUT", "PROPFIND"] {
            let ask = scene.gateway.ask(method, "/").body("a=b");
            let what = format!("{method} without a cookie, {browser}");
            scene.is_refused(with(ask, lines), &what);
        }
    }
    // His own pages do, and programs.
    for (browser, lines) in OWN {
        let answer = with(scene.gateway.post("/").body("a=b"), lines).send();
        answer.is_upstreams(200);
        assert!(answer.set_cookie().is_some(), "{browser}");
    }
}

#[test]
fn what_changes_nothing_passes_from_everywhere_and_where_the_route_says_so_everything() {
    let scene = Guarded::start();
    for (browser, lines) in OWN.iter().chain(&FOREIGN) {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let what = format!("{method}, {browser}");
            scene.passes(with(scene.ask(method, "/"), lines), Some("1"), &what);
        }
        let ask = scene.gateway.get("/");
        scene.passes(with(ask, lines), None, &format!("no cookie, {browser}"));
        let what = format!("cross_site = allow, {browser}");
        scene.passes(with(scene.ask("POST", "/open/"), lines), Some("1"), &what);
        let ask = scene.gateway.post("/open/").body("a=b");
        scene.passes(with(ask, lines), None, &format!("{what}, no cookie"));
        for path in ["/off/", "/pass/"] {
            let answer = with(scene.ask("POST", path), lines).send();
            answer.is_upstreams(200);
            assert_eq!(scene.app.take().len(), 1, "{path}, {browser}");
        }
    }
}

#[test]
fn an_origin_is_compared_with_host_and_port_of_the_request() {
    let scene = Guarded::start();
    for (host, origin, is_own) in [
        ("shop.test", "https://shop.test", true),
        ("SHOP.test", "https://shop.test", true),
        ("shop.test:443", "https://shop.test", true),
        ("shop.test:80", "http://shop.test", true),
        ("shop.test:8080", "http://shop.test:8080", true),
        ("[::1]:8080", "http://[::1]:8080", true),
        ("[::1]", "http://[::1]", true),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", true),
        ("shop.test:8080", "http://shop.test", false),
        ("shop.test:8080", "https://shop.test", false),
        ("shop.test", "http://shop.test:8080", false),
        ("shop.test:443", "http://shop.test", false),
        ("shop.test:80", "https://shop.test", false),
        ("[::1]:8080", "http://[::1]", false),
        ("[::1]:8080", "http://[::1]:8081", false),
        ("[::1]", "http://[::2]", false),
        ("shop.test", "http://shop", false),
        ("shop.test", "shop.test", false),
        ("shop.test", "//shop.test", false),
        ("shop.test", "https://shop.test/", false),
        ("shop.test", "https://evil.test/?https://shop.test", false),
        ("shop.test", "https://shop.test, https://evil.test", false),
    ] {
        let what = format!("{host} {origin}");
        let ask = scene.ask("POST", "/").host(host).field("Origin", origin);
        if is_own {
            scene.passes(ask, Some("1"), &what);
        } else {
            scene.is_refused(ask, &what);
        }
    }
}

#[test]
fn a_preflight_is_nobodys_whatever_the_route_requires() {
    let scene = Guarded::start();
    let preflight = |path: &str, lines: &[&str]| {
        let asks = [
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: content-type",
            "Sec-Fetch-Mode: cors",
        ];
        with(with(scene.gateway.ask("OPTIONS", path), &asks), lines)
    };
    let own = [
        &["Origin: https://shop.test", "Sec-Fetch-Site: same-origin"][..],
        &["Origin: https://shop.test"],
        &["Origin: https://partner.test", "Sec-Fetch-Site: cross-site"],
        &["Origin: https://blog.shop.test:8443"],
    ];
    let foreign = [
        &["Origin: https://evil.test", "Sec-Fetch-Site: cross-site"][..],
        &["Origin: https://evil.test"],
        &["Origin: https://evil.test", "Sec-Fetch-Site: same-origin"],
        &[
            "Origin: https://wiki.shop.test",
            "Sec-Fetch-Site: same-site",
        ],
        &["Origin: null"],
        &["Origin: https://partner.test", "Origin: https://evil.test"],
    ];
    for path in ["/", "/members/", "/carts/", "/strict/"] {
        for lines in own {
            let what = format!("{path} {lines:?}");
            scene.passes(preflight(path, lines), None, &what);
            // No browser sends one with a cookie; whoever does is still nobody.
            let ask = preflight(path, lines).session(&scene.key);
            scene.passes(ask, None, &format!("{what}, with a session"));
        }
        for lines in foreign {
            let what = format!("{path} {lines:?}");
            scene.is_refused(preflight(path, lines), &what);
            let ask = preflight(path, lines).session(&scene.key);
            scene.is_refused(ask, &format!("{what}, with a session"));
        }
    }
    for lines in foreign {
        let ask = preflight("/open/", lines).session(&scene.key);
        scene.passes(ask, None, &format!("cross_site = allow, {lines:?}"));
    }

    // Without one of its three marks it is no preflight, and `require` counts.
    for (method, lines) in [
        ("OPTIONS", &["Origin: https://shop.test"][..]),
        ("OPTIONS", &["Access-Control-Request-Method: PUT"]),
        (
            "GET",
            &[
                "Origin: https://shop.test",
                "Access-Control-Request-Method: PUT",
            ],
        ),
    ] {
        let ask = with(scene.gateway.ask(method, "/members/"), lines);
        ask.send().is_error(401, "login-required");
        let ask = with(scene.ask(method, "/members/"), lines);
        scene.passes(ask, Some("1"), &format!("{method} {lines:?}"));
    }
}

#[test]
fn two_session_cookies_are_refused_where_the_site_says_so() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let first = database.session(&json!({"marker": "first"}));
    let last = database.session(&json!({"marker": "last"}));
    let two = [
        vec![format!("sessionid={first}; sessionid={last}")],
        vec![format!("sessionid={first}; a=b; sessionid={last}; c=d")],
        vec![format!("sessionid={first}"), format!("sessionid={last}")],
        vec![format!("sessionid={last}; sessionid={last}")],
        vec![format!("sessionid=; sessionid={last}")],
    ];
    let asks = |gateway: &Gateway, path: &str, cookies: &[String]| {
        let ask = gateway.get(path);
        cookies
            .iter()
            .fold(ask, |ask, cookie| ask.field("Cookie", cookie))
    };

    let lenient = Gateway::before(&database, &app).start();
    for cookies in &two {
        asks(&lenient, "/", cookies).send().is_upstreams(200);
        let seen = app.last();
        assert_eq!(seen.claims()["session"]["marker"], "last", "{cookies:?}");
        assert!(
            !seen
                .field("cookie")
                .unwrap_or_default()
                .contains("sessionid"),
            "{cookies:?}"
        );
    }

    let strict = Gateway::before(&database, &app)
        .line("django.cookie", "duplicate = 'refuse'")
        .django("site", &app)
        .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'session'")
        .start();
    app.take();
    for cookies in &two {
        for path in ["/", "/members/"] {
            let answer = asks(&strict, path, cookies).send();
            answer.is_error(400, "ambiguous-cookie");
            assert_eq!(answer.set_cookie(), None);
            varies(&answer, path);
            assert!(app.take().is_empty(), "{cookies:?}");
        }
        asks(&strict, "/pass/", cookies).send().is_upstreams(200);
        let passed = app.take().remove(0);
        assert_eq!(passed.all("cookie").join("; "), cookies.join("; "));
    }
    for cookie in [
        format!("sessionid={last}"),
        format!("a=b; sessionid={last}; sessionid2={first}"),
    ] {
        asks(&strict, "/", &[cookie]).send().is_upstreams(200);
        assert_eq!(app.last().claims()["session"]["marker"], "last");
    }
}

/// The routes of [`crate::support::Scene`] and one for everybody, with two trusted origins.
pub(super) struct Guarded {
    database: Database,
    pub(super) app: Upstream,
    pub(super) gateway: Gateway,
    pub(super) key: String,
}

impl Guarded {
    pub(super) fn start() -> Self {
        let database = Database::sqlite();
        let key = database.login(json!({"cart": 1}));
        let app = Upstream::start();
        let gateway = Gateway::before(&database, &app)
            .line(
                "gateway",
                "trusted_origins = ['https://partner.test', 'https://blog.shop.test:8443']",
            )
            .django("site", &app)
            .route("path = '/open/'\nupstream = 'app'\ncross_site = 'allow'")
            .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
            .route("path = '/pass/'\nupstream = 'site'\nsession = 'pass'")
            .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
            .route("path = '/carts/'\nupstream = 'app'\nrequire = 'session'")
            .route("path = '/strict/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'")
            .start();
        Self {
            database,
            app,
            gateway,
            key,
        }
    }

    /// A request of the visitor, with a body.
    fn ask(&self, method: &str, path: &str) -> Ask {
        let ask = self.gateway.ask(method, path).session(&self.key);
        ask.body("a=b")
    }

    /// The upstream gets it once, from this user or nobody.
    #[track_caller]
    pub(super) fn passes(&self, ask: Ask, user: Option<&str>, what: &str) {
        let answer = ask.send();
        assert_eq!(
            (answer.status, answer.code()),
            (200, None),
            "{what}: {answer:?}"
        );
        varies(&answer, what);
        let seen = self.app.take();
        assert_eq!(seen.len(), 1, "{what}");
        let claims = seen[0].claims();
        assert_eq!(claims["sub"].as_str(), user, "{what}");
        assert_eq!(claims["sid"].is_string(), user.is_some(), "{what}");
        assert_eq!(claims.get("withheld"), None, "{what}");
        if user.is_none() {
            assert_eq!(claims["session"], json!({}), "{what}");
            assert_eq!(claims.get("session_exp"), None::<&Value>, "{what}");
        }
    }

    /// The upstream never hears of it.
    #[track_caller]
    pub(super) fn is_refused(&self, ask: Ask, what: &str) {
        let answer = ask.send();
        let code = (answer.status, answer.code());
        assert_eq!(
            code,
            (403, Some("cross-site-request")),
            "{what}: {answer:?}"
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
        assert_eq!(answer.set_cookie(), None, "{what}");
        varies(&answer, what);
        assert!(
            self.app.take().is_empty(),
            "{what}: the upstream was called"
        );
        assert_eq!(self.database.keys(), [self.key.as_str()], "{what}");
    }
}
