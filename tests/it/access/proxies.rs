//! What the upstream is told of the way that a request came.

use crate::{
    access::with,
    metrics::metrics,
    support::{Database, Gateway, Served as _, Upstream},
};

#[test]
fn only_trusted_proxies_are_believed() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let stranger = &[][..];
    // The list of trusted proxies; what the peer, 127.0.0.1, says; -For, -Proto and -Host as the upstream
    // gets them.
    for (trusted, said, expected) in [
        ("[]", stranger, ["127.0.0.1", "http", "shop.test"]),
        (
            "[]",
            &[
                "X-Forwarded-For: 198.51.100.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: front.test",
            ],
            ["127.0.0.1", "http", "shop.test"],
        ),
        (
            "['10.0.0.0/8', '::1']",
            &[
                "X-Forwarded-For: 10.0.0.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: front.test",
            ],
            ["127.0.0.1", "http", "shop.test"],
        ),
        (
            "['127.0.0.0/8']",
            stranger,
            ["127.0.0.1", "http", "shop.test"],
        ),
        (
            "['127.0.0.0/8']",
            &[
                "X-Forwarded-For: 198.51.100.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: front.test",
            ],
            ["198.51.100.1, 127.0.0.1", "https", "shop.test"],
        ),
        (
            "['127.0.0.1']",
            &[
                "X-Forwarded-For: 198.51.100.1, 10.0.0.3",
                "X-Forwarded-For: 10.0.0.2",
                "X-Forwarded-Proto: http",
            ],
            [
                "198.51.100.1, 10.0.0.3, 10.0.0.2, 127.0.0.1",
                "http",
                "shop.test",
            ],
        ),
        // What is not one clear word is as good as none.
        (
            "['127.0.0.1']",
            &[
                "X-Forwarded-Proto: https",
                "X-Forwarded-Proto: http",
                "X-Forwarded-Host: front.test",
                "X-Forwarded-Host: evil.test",
            ],
            ["127.0.0.1", "http", "shop.test"],
        ),
        (
            "['127.0.0.1']",
            &["X-Forwarded-Proto: javascript"],
            ["127.0.0.1", "http", "shop.test"],
        ),
        // A trusted proxy that lets the client's other spellings through.
        (
            "['127.0.0.1']",
            &[
                "X_Forwarded_For: 6.6.6.6",
                "X_Forwarded_Proto: https",
                "X.Forwarded.Host: evil.test",
            ],
            ["127.0.0.1", "http", "shop.test"],
        ),
    ] {
        let gateway = Gateway::before(&database, &app)
            .line("gateway", &format!("trusted_proxies = {trusted}"))
            .start();
        with(gateway.get("/"), said).send().is_upstreams(200);
        let seen = app.last();
        seen.claims();
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        assert_eq!(
            names.map(|name| seen.field(name).unwrap_or_default()),
            expected,
            "{trusted} {said:?}"
        );
        let folded = |name: &str| name.to_lowercase().replace(['_', '.'], "-");
        for name in names {
            let count = |(found, _): &&(String, String)| folded(found) == name;
            assert_eq!(
                seen.fields.iter().filter(count).count(),
                1,
                "{trusted} {said:?} {name}: {seen:?}"
            );
        }
    }
}

/// Most fronts pass on what their clients write where they know nothing of it.
#[test]
fn trusted_proxies_tell_services_what_they_are_trusted_with_and_no_more() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let said = [
        "X-Forwarded-Host: front.test",
        "X-Forwarded-Port: 8443",
        "X-Forwarded-Prefix: /front",
        "X-Real-IP: 6.6.6.6",
        "X_Real_IP: 6.6.6.6",
        "CF-Connecting-IP: 6.6.6.6",
        "Remote-User: root",
        "X-Original-URL: /admin/",
    ];
    let scene = |lines: &str| {
        let lines = format!("trusted_proxies = ['127.0.0.1']\n{lines}");
        let gateway = Gateway::before(&database, &app).line("gateway", &lines);
        let gateway = gateway.start();
        with(gateway.get("/"), &said).send().is_upstreams(200);
        (gateway, app.last())
    };
    let told = |names: &[&str]| {
        let (gateway, seen) = scene(&format!("trusted_fields = {names:?}"));
        // A front says more than services hear, all the time. Another spelling is an attempt.
        let counted = metrics(&gateway);
        assert_eq!(counted["scrubbed_fields_total{reason=\"forwarding\"}"], 0.0);
        assert_eq!(counted["scrubbed_fields_total{reason=\"alias\"}"], 1.0);
        let told = said.map(|line| line.split(": ").next().unwrap());
        let mut came: Vec<String> = told
            .into_iter()
            .filter_map(|name| Some(format!("{name}: {}", seen.field(name)?)))
            .collect();
        came.retain(|line| line != "X-Forwarded-Host: shop.test");
        came
    };
    assert_eq!(told(&[]), [""; 0]);
    assert_eq!(
        told(&["x-forwarded-host"]),
        ["X-Forwarded-Host: front.test"]
    );
    assert_eq!(
        told(&["X-Real-IP", "CF-Connecting-IP", "X-Forwarded-Prefix"]),
        [
            "X-Forwarded-Prefix: /front",
            "X-Real-IP: 6.6.6.6",
            "CF-Connecting-IP: 6.6.6.6"
        ]
    );
    // Two values are no word.
    let gateway = Gateway::before(&database, &app).line(
        "gateway",
        "trusted_proxies = ['127.0.0.1']\ntrusted_fields = ['X-Forwarded-Host']",
    );
    let gateway = gateway.start();
    let two = [
        "X-Forwarded-Host: front.test",
        "X-Forwarded-Host: evil.test",
    ];
    with(gateway.get("/"), &two).send().is_upstreams(200);
    assert_eq!(app.last().all("x-forwarded-host"), ["shop.test"]);
}

#[test]
fn a_proxy_never_says_which_route_it_is() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let members = "path = '/members/'\nupstream = 'app'\nrequire = 'login'";
    for trusted in [
        "[]",
        "['127.0.0.1']",
        "['127.0.0.1']\ntrusted_fields = ['X-Forwarded-Host', 'X-Original-URL', 'X-Rewrite-URL']",
    ] {
        let gateway = Gateway::before(&database, &app)
            .line("gateway", &format!("trusted_proxies = {trusted}"))
            .route(members)
            .route("host = 'open.test'\npath = '/members/'\nupstream = 'app'")
            .start();
        with(
            gateway.get("/members/"),
            &[
                "X-Forwarded-Host: open.test",
                "X-Original-URL: /",
                "X-Rewrite-URL: /",
                "X-Forwarded-Prefix: /open",
                "Forwarded: host=open.test",
            ],
        )
        .send()
        .is_error(401, "login-required");
        assert!(app.take().is_empty(), "{trusted}");
    }
}

#[test]
fn strangers_tell_the_upstream_no_other_way() {
    let database = Database::sqlite();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app).start();
    let said = [
        "Forwarded: for=6.6.6.6;proto=https;host=evil.test",
        "X-Real-IP: 6.6.6.6",
        "X_Real_IP: 6.6.6.6",
        "X-Forwarded-Port: 666",
        "X-Forwarded-Server: evil.test",
        "X-Forwarded-Prefix: /evil.test",
        "X-Original-URL: /evil.test",
        "X-Rewrite-URL: /evil.test",
    ];
    with(gateway.get("/"), &said).send().is_upstreams(200);
    let seen = format!("{:?}", app.last());
    assert!(!seen.contains("6.6.6.6") && !seen.contains("666"), "{seen}");
    assert!(!seen.contains("evil.test"), "{seen}");
}
