//! What the client gets: nothing of the gateway's own fields, caches told what they must know, the login
//! page or an error in its one shape.

use chrono::Duration;
use serde_json::json;

use crate::support::{Answer, Gateway, Reply, Scene, Served as _, reply, rows};

#[test]
fn x_session_set_never_reaches_the_client() {
    let scene = Scene::start();
    let spellings = [
        "X-Session-Set",
        "x-session-set",
        "X_Session_Set",
        "X.Session-Set",
        "X-Session",
        "x_session",
    ];
    let errors = ["X-Gateway-Error", "x_gateway_error"];
    for status in [
        200, 201, 204, 206, 301, 302, 304, 400, 401, 404, 409, 418, 500, 502, 503, 599,
    ] {
        for method in ["GET", "HEAD", "POST"] {
            for path in ["/", "/off/", "/pass/"] {
                for name in spellings.iter().chain(&errors) {
                    // Spelt like this it is a change; elsewhere, and where nothing may be changed, it is
                    // none.
                    let is_change = name.eq_ignore_ascii_case("x-session-set")
                        && path != "/pass/"
                        && status < 500;
                    scene.app.answers(
                        reply(status)
                            .field(name, "{}")
                            .field("X-Session-Id", "kept"),
                    );
                    let answer = scene.gateway.ask(method, path).session(&scene.key).send();
                    let what = format!("{method} {path} {status} {name}: {answer:?}");
                    let refused = is_change && path == "/off/";
                    let expected = if refused {
                        (502, Some("bad-session-set"))
                    } else {
                        (status, None)
                    };
                    assert_eq!((answer.status, answer.code()), expected, "{what}");
                    assert_eq!(answer.field("x-session-id").is_some(), !refused, "{what}");
                    for (name, _) in &answer.fields {
                        let folded = name.to_lowercase().replace(['_', '.'], "-");
                        assert!(
                            !["x-session", "x-session-set"].contains(&folded.as_str()),
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn response_trailers_never_carry_reserved_names() {
    let scene = Scene::start();
    scene.app.answers(Reply::raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Session-Set, X-Kept\r\n\r\n5\r\nhello\r\n0\r\n\
         X-Session-Set: {\"set\":{\"a\":1}}\r\nx_session: 1\r\nX-Gateway-Error: forged\r\n\r\n",
    ));
    let answer = scene
        .gateway
        .get("/")
        .session(&scene.key)
        .field("TE", "trailers")
        .send();
    assert_eq!(answer.is_upstreams(200).text(), "hello");
    assert!(
        answer
            .trailers
            .iter()
            .all(|(name, _)| name.eq_ignore_ascii_case("x-kept")),
        "{:?}",
        answer.trailers
    );
    assert!(
        !answer
            .field("trailer")
            .unwrap_or_default()
            .to_lowercase()
            .contains("x-session")
    );
    assert_eq!(scene.read().get("a"), None, "trailers are never read");
}

#[test]
fn caches_never_share_what_depends_on_the_visitor() {
    let scene = Scene::start();
    let cases = [
        // The upstream's Cache-Control and Vary; what a visitor with a cookie gets, and one without; Vary
        // for both.
        (None, None, "private", None, "Cookie"),
        (
            Some("public, max-age=60"),
            None,
            "max-age=60, private",
            Some("public, max-age=60"),
            "Cookie",
        ),
        (
            Some("s-maxage=9, max-age=60"),
            None,
            "max-age=60, private",
            Some("s-maxage=9, max-age=60"),
            "Cookie",
        ),
        (
            Some("no-store"),
            None,
            "no-store, private",
            Some("no-store"),
            "Cookie",
        ),
        (
            Some("private"),
            Some("Accept"),
            "private",
            Some("private"),
            "Accept, Cookie",
        ),
        (None, Some("cookie"), "private", None, "cookie"),
        (None, Some("*"), "private", None, "*"),
    ];
    // The order of the members, and how many lines they stand on, is free.
    let members = |answer: &Answer, name: &str| -> Vec<String> {
        let joined = answer.all(name).join(",");
        let mut members: Vec<_> = joined
            .split(',')
            .map(|member| member.trim().to_owned())
            .collect();
        members.sort();
        members
    };
    let split = |value: &str| -> Vec<String> { value.split(", ").map(ToOwned::to_owned).collect() };
    for (cache_control, vary, with_cookie, without_cookie, expected_vary) in cases {
        let mut answer = reply(200);
        for name in [
            "CDN-Cache-Control",
            "Cloudflare-CDN-Cache-Control",
            "Surrogate-Control",
            "X-Accel-Expires",
        ] {
            answer = answer.field(name, "max-age=60");
        }
        answer = cache_control
            .iter()
            .fold(answer, |answer, value| answer.field("Cache-Control", value));
        answer = vary
            .iter()
            .fold(answer, |answer, value| answer.field("Vary", value));
        scene.app.answers(answer);
        let what = format!("{cache_control:?} {vary:?}");

        let seen = scene.get();
        assert_eq!(
            members(&seen, "cache-control"),
            split(with_cookie),
            "{what}"
        );
        assert_eq!(members(&seen, "vary"), split(expected_vary), "{what}");
        for name in [
            "cdn-cache-control",
            "cloudflare-cdn-cache-control",
            "surrogate-control",
            "x-accel-expires",
        ] {
            assert_eq!(seen.field(name), None, "{what}: {name}");
        }
        let seen = scene.gateway.get("/").send();
        assert_eq!(seen.field("cache-control"), without_cookie, "{what}");
        assert_eq!(members(&seen, "vary"), split(expected_vary), "{what}");
        assert!(seen.field("cdn-cache-control").is_some(), "{what}");

        let seen = scene.gateway.get("/cached/").session(&scene.key).send();
        assert_eq!(
            seen.field("cache-control"),
            cache_control,
            "{what}, cache = upstream"
        );
        let seen = scene.gateway.get("/off/").session(&scene.key).send();
        assert_eq!(
            (seen.field("cache-control"), seen.field("vary")),
            (cache_control, vary),
            "{what}, off"
        );
    }

    scene.app.answers(
        reply(200)
            .field("Cache-Control", "public")
            .set(r#"{"set":{"a":1}}"#),
    );
    let answer = scene.get();
    assert_eq!(
        (answer.field("cache-control"), answer.field("vary")),
        (Some("private, no-store"), Some("Cookie"))
    );
}

#[test]
fn the_upstream_never_sets_the_session_cookie() {
    let scene = Scene::start();
    let kept = [
        "theme=dark; Path=/",
        "sessionid2=x",
        "Sessionid=x",
        "xsessionid=x",
        "a=sessionid=x",
    ];
    let dropped = [
        "sessionid=stolen",
        " sessionid = stolen; Path=/",
        "sessionid=",
        "=sessionid=stolen",
        "sessionid",
        "stolen",
        "",
    ];
    let all = kept
        .iter()
        .chain(&dropped)
        .fold(reply(200), |reply, cookie| {
            reply.field("Set-Cookie", cookie)
        });
    scene.app.answers(all.clone());
    assert_eq!(scene.get().is_upstreams(200).all("set-cookie"), kept);
    assert_eq!(
        scene
            .gateway
            .get("/off/")
            .send()
            .is_upstreams(200)
            .all("set-cookie"),
        kept
    );

    scene.app.answers(all.set(r#"{"set":{"a":2}}"#));
    let answer = scene.get();
    assert_eq!(
        answer.is_upstreams(200).new_session().as_ref(),
        Some(&scene.key)
    );
    assert_eq!(answer.all("set-cookie").len(), kept.len() + 1);
}

#[test]
fn a_row_that_cannot_be_verified_is_an_error_where_it_is_needed() {
    let scene = Scene::start();
    let key = scene
        .database
        .raw_session(&rows::seal("another key", b"{}"), Duration::days(1));
    scene.app.answers(reply(200));
    scene
        .gateway
        .get("/")
        .session(&key)
        .send()
        .is_upstreams(200);
    assert_eq!(scene.app.last().claims()["withheld"], "unreadable");
    scene.app.answers(reply(200).set(r#"{"set":{"a":1}}"#));
    scene
        .gateway
        .get("/")
        .session(&key)
        .send()
        .is_error(500, "session-unreadable");
    scene.app.take();
    scene
        .gateway
        .get("/members/")
        .session(&key)
        .send()
        .is_error(500, "session-unreadable");
    scene
        .gateway
        .get("/carts/")
        .session(&key)
        .send()
        .is_error(500, "session-unreadable");
    assert!(scene.app.take().is_empty(), "the upstream is not called");
}

#[test]
fn who_may_not_enter_gets_the_login_page_or_a_401() {
    let scene = Scene::start();
    let cart = scene.database.session(&json!({"cart": 1}));
    scene.app.answers(reply(200));
    let page = |path: &str| {
        scene
            .gateway
            .get(path)
            .field("Accept", "text/html,*/*;q=0.8")
            .send()
    };
    let answer = page("/members/a%20b?x=1&y=//evil.test");
    assert_eq!(answer.status, 302);
    let next = "/accounts/login/?next=/members/a%2520b%3Fx%3D1%26y%3D//evil.test";
    assert_eq!(answer.field("location"), Some(next));
    assert_eq!(answer.field("cache-control"), Some("no-store"));

    let answer = scene.gateway.get("/members/").send();
    answer.is_error(401, "login-required");
    assert_eq!(
        answer.field("www-authenticate"),
        Some("Session realm=\"https://gateway.test\"")
    );
    let post = scene
        .gateway
        .post("/members/")
        .field("Accept", "text/html")
        .send();
    assert_eq!((post.status, post.code()), (401, Some("login-required")));
    scene
        .gateway
        .get("/members/")
        .session(&cart)
        .send()
        .is_error(401, "login-required");
    scene
        .gateway
        .get("/members/")
        .session(&scene.key)
        .send()
        .is_upstreams(200);

    scene
        .gateway
        .get("/carts/")
        .send()
        .is_error(401, "login-required");
    scene
        .gateway
        .get("/carts/")
        .session(&cart)
        .send()
        .is_upstreams(200);
    let strict = scene
        .gateway
        .get("/strict/")
        .field("Accept", "text/html")
        .send();
    assert_eq!(
        (strict.status, strict.code()),
        (401, Some("login-required"))
    );
}

#[test]
fn an_error_is_a_problem_or_a_page_as_the_client_prefers() {
    let scene = Scene::start();
    scene.app.answers(reply(200).set("nonsense"));
    for (accept, html) in [
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            true,
        ),
        ("text/html", true),
        ("application/json", false),
        ("application/problem+json, text/html;q=0.5", false),
        ("*/*", false),
    ] {
        let answer = scene
            .gateway
            .get("/?q=planted")
            .session(&scene.key)
            .field("Accept", accept)
            .send();
        assert_eq!(
            (answer.status, answer.code()),
            (502, Some("bad-session-set")),
            "{accept}"
        );
        let kind = answer.field("content-type").unwrap();
        assert_eq!(kind.starts_with("text/html"), html, "{accept}: {kind}");
        assert_eq!(
            kind == "application/problem+json",
            !html,
            "{accept}: {kind}"
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert!(
            !answer.text().contains("planted"),
            "no query: {}",
            answer.text()
        );
    }
    let head = scene.gateway.ask("HEAD", "/").session(&scene.key).send();
    assert_eq!((head.status, head.code()), (502, Some("bad-session-set")));
    let nowhere = Gateway::over(&scene.database)
        .upstream("app", &scene.app)
        .route("host = 'shop.test'\npath = '/only/'\nupstream = 'app'")
        .start();
    nowhere.get("/elsewhere").send().is_error(404, "no-route");
    nowhere
        .get("/only/")
        .host("other.test")
        .send()
        .is_error(404, "no-route");
    nowhere.get("/only/").host("SHOP.test.:80").send();
}

#[test]
fn the_size_rule_withholds_the_session_as_a_whole() {
    let scene = Scene::start();
    let key = scene
        .database
        .login(json!({"big": "x".repeat(5000), "small": 1}));
    scene.app.answers(reply(200).set(r#"{"set":{"small":2}}"#));
    scene
        .gateway
        .get("/")
        .session(&key)
        .send()
        .is_upstreams(200);
    let claims = scene.app.last().claims();
    assert_eq!(
        (&claims["withheld"], &claims["sub"]),
        (&json!("too_large"), &json!("1"))
    );
    assert!(
        claims.get("session").is_none() && claims["sid"].is_string(),
        "{claims}"
    );
    assert_eq!(
        scene.database.read(&key).unwrap()["small"],
        2,
        "a change works all the same"
    );

    scene.app.answers(reply(200));
    scene
        .gateway
        .get("/cart/")
        .session(&key)
        .send()
        .is_upstreams(200);
    assert_eq!(
        scene.app.last().claims()["session"],
        json!({}),
        "forward = [...] is the cure"
    );
}
