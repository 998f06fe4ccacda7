//! How much and how often: limits, rates; what a route changes of fields; routes that are elsewhere now.

use serde_json::json;

use crate::support::{Database, Gate, Gateway, Served as _, Upstream, database::random_key, reply};

const FORWARDED: &str = "X-Forwarded-For";

#[test]
fn over_the_limit_of_requests_in_flight_the_answer_is_503_at_once() {
    let gate = Gate::default();
    let app = Upstream::with({
        let gate = gate.clone();
        move |seen| {
            if seen.target == "/slow" {
                gate.pass();
            }
            reply(200)
        }
    });
    let gateway = Gateway::alone(&app).line("limits", "in_flight = 2").start();
    let mut held: Vec<_> = (0..2).map(|_| gateway.get("/slow").begin()).collect();
    gate.wait_for(2);
    let refused = gateway.get("/").send();
    refused.is_error(503, "overloaded");
    assert_eq!(refused.field("retry-after"), Some("1"));
    gate.open();
    for connection in &mut held {
        connection.answer("GET").is_upstreams(200);
    }
    gateway.get("/").send().is_upstreams(200);
}

#[test]
fn a_request_is_in_flight_until_its_answer_has_ended() {
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/large" => reply(200).body(vec![b'x'; 64 << 20]),
        _ => reply(200),
    });
    let gateway = Gateway::alone(&app).line("limits", "in_flight = 1").start();
    let mut large = gateway.get("/large").begin();
    // The answer is larger than all buffers on the way.
    assert_eq!(large.head().unwrap().status, 200);
    gateway.get("/").send().is_error(503, "overloaded");
    drop(large);
    crate::support::eventually("the place is free again", || {
        (gateway.get("/").send().status == 200).then_some(())
    });
}

#[test]
fn a_slow_service_does_not_take_the_places_of_the_others() {
    let gate = Gate::default();
    let app = Upstream::with({
        let gate = gate.clone();
        move |seen| {
            if seen.target.starts_with("/slow/") {
                gate.pass();
            }
            reply(200)
        }
    });
    let gateway = Gateway::alone(&app)
        .route("path = '/slow/'\nupstream = 'app'\nlimits = { in_flight = 1 }")
        .start();
    let mut held = gateway.get("/slow/1").begin();
    gate.wait_for(1);
    gateway.get("/slow/2").send().is_error(503, "overloaded");
    gateway.get("/").send().is_upstreams(200);
    gate.open();
    held.answer("GET").is_upstreams(200);
    gateway.get("/slow/3").send().is_upstreams(200);
}

#[test]
fn who_comes_too_often_is_told_when_to_come_again() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .line("gateway", "trusted_proxies = ['127.0.0.1']")
        .route(
            "path = '/limited/'
             upstream = 'app'
             rate = [{ by = 'address', requests = 3, every = '1h' }]",
        )
        .start();
    let from = |address: &str| {
        let get = gateway.get("/limited/").field(FORWARDED, address);
        get.send()
    };
    for _ in 0..3 {
        from("192.0.2.1").is_upstreams(200);
    }
    let refused = from("192.0.2.1");
    refused.is_error(429, "rate-limited");
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=7200).contains(&wait), "{wait}");
    // Others, and other routes, are not concerned; an IPv6 network counts as one.
    from("192.0.2.2").is_upstreams(200);
    gateway
        .get("/")
        .field(FORWARDED, "192.0.2.1")
        .send()
        .is_upstreams(200);
    for host in 1..=3 {
        from(&format!("2001:db8::{host}")).is_upstreams(200);
    }
    from("2001:db8::4").is_error(429, "rate-limited");
    from("2001:db8:0:1::1").is_upstreams(200);
    // None of the refused came to the upstream.
    assert_eq!(app.seen().len(), 3 + 1 + 1 + 3 + 1);
}

#[test]
fn a_session_counts_by_itself_and_a_made_up_one_by_its_address() {
    let database = Database::sqlite();
    let (one, other) = (database.login(json!({})), database.login(json!({})));
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .route(
            "path = '/limited/'
             upstream = 'app'
             rate = [{ by = 'session', requests = 2, every = '1h' }]",
        )
        .start();
    let with = |key: &str| gateway.get("/limited/").session(key).send();
    for key in [&one, &other] {
        with(key).is_upstreams(200);
        with(key).is_upstreams(200);
        with(key).is_error(429, "rate-limited");
    }
    with(&random_key()).is_upstreams(200);
    with(&random_key()).is_upstreams(200);
    with(&random_key()).is_error(429, "rate-limited");
    gateway
        .get("/limited/")
        .send()
        .is_error(429, "rate-limited");
}

#[test]
fn a_route_may_allow_other_sizes_of_bodies() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .line("limits", "request_body = '1KiB'")
        .route("path = '/up/'\nupstream = 'app'\nlimits = { request_body = '4KiB' }")
        .route("path = '/none/'\nupstream = 'app'\nlimits = { request_body = '0B' }")
        .start();
    for (path, size, status) in [
        ("/", 1024, 200),
        ("/", 1025, 413),
        ("/up/", 4096, 200),
        ("/up/", 4097, 413),
        ("/none/", 1, 413),
    ] {
        let post = gateway.post(path).body(vec![b'x'; size]);
        assert_eq!(post.send().status, status, "{path} {size}");
    }
}

#[test]
fn a_route_sets_and_removes_fields_both_ways() {
    let database = Database::sqlite();
    let key = database.login(json!({}));
    let app = Upstream::with(|_| {
        let reply = reply(200).field("Server", "secret/1.0");
        reply.field("Cache-Control", "public, max-age=60")
    });
    let gateway = Gateway::before(&database, &app)
        .route(
            "path = '/f/'
             upstream = 'app'
             require = 'login'
             on_anonymous = '401'
             request_headers = { 'X-Api-Version' = '3', 'Accept-Encoding' = false }
             response_headers = { 'Strict-Transport-Security' = 'max-age=9', 'Server' = false, \
             'Cache-Control' = 'public', 'CDN-Cache-Control' = 'public' }",
        )
        .start();
    let get = || {
        let get = gateway.get("/f/").field("X-Api-Version", "1");
        get.field("X-Api-Version", "2")
            .field("Accept-Encoding", "gzip")
    };
    let answer = get().session(&key).send();
    answer.is_upstreams(200);
    let seen = app.last();
    assert_eq!(seen.field("x-api-version"), Some("3"));
    assert_eq!(seen.field("accept-encoding"), None);
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=9"));
    assert_eq!(answer.field("server"), None);
    // Nobody makes what is a visitor's own public.
    assert_eq!(answer.field("cache-control"), Some("private"));
    assert_eq!(answer.field("cdn-cache-control"), None);
    // The gateway's own answer of the route.
    let refused = get().send();
    refused.is_error(401, "login-required");
    assert_eq!(
        refused.field("strict-transport-security"),
        Some("max-age=9")
    );
    assert_eq!(refused.field("cache-control"), Some("no-store"));
    assert_eq!(refused.field("cdn-cache-control"), None);
}

#[test]
fn a_route_can_be_elsewhere() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .route("host = 'www.test'\npath = '/'\nredirect = 'https://shop.test'")
        .route("path = '/old/'\nredirect = 'https://new.test:8443/store/'")
        .route(
            "path = '/root/'
             redirect = 'https://new.test/'
             response_headers = { 'X-Why' = 'moved' }",
        )
        .start();
    for (host, target, location) in [
        (
            "www.test",
            "/a/../b%20c?q=1&r=%2F",
            "https://shop.test/b%20c?q=1&r=%2F",
        ),
        ("www.test", "//evil.test/", "https://shop.test/evil.test/"),
        ("any.test", "/old/x?y", "https://new.test:8443/store/x?y"),
        ("any.test", "/old/", "https://new.test:8443/store/"),
        ("any.test", "/root//evil.test", "https://new.test/evil.test"),
        (
            "any.test",
            "/root/@evil.test",
            "https://new.test/@evil.test",
        ),
    ] {
        let answer = gateway.get(target).host(host).send();
        assert_eq!(answer.status, 308, "{target}");
        assert_eq!(answer.field("location"), Some(location), "{target}");
    }
    let moved = gateway.get("/root/").send();
    assert_eq!(moved.field("x-why"), Some("moved"));
    assert!(app.seen().is_empty());
}
