//! Which route a request takes, and which path its upstream gets.

use crate::support::{Database, Gateway, Served as _, Upstream, reply};

/// Routes with the names of their upstreams, from the least specific to the most.
const ROUTES: [(&str, &str); 8] = [
    ("any", "path = '/'"),
    ("api", "path = '/api/'"),
    ("v2", "path = '/api/v2'"),
    ("users", "path = '/api/v2/users/'"),
    ("shop", "host = 'shop.test'\npath = '/'"),
    ("basket", "host = 'Shop.Test.'\npath = '/basket'"),
    ("six", "host = '[::1]'\npath = '/'"),
    ("only", "host = 'only.test'\npath = '/here/'"),
];

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let database = Database::sqlite();
    let upstreams = ROUTES.map(|(name, _)| Upstream::with(move |_| reply(200).body(name)));
    let forwards: Vec<usize> = (0..ROUTES.len()).collect();
    let backwards: Vec<usize> = (0..ROUTES.len()).rev().collect();
    let shuffled = vec![3, 6, 0, 5, 2, 7, 4, 1];
    for order in [forwards, backwards, shuffled] {
        let setup = order.iter().fold(Gateway::over(&database), |setup, place| {
            let (name, lines) = ROUTES[*place];
            setup
                .upstream(name, &upstreams[*place])
                .route(&format!("{lines}\nupstream = '{name}'"))
        });
        let gateway = setup.start();
        for (host, target, route) in [
            ("other.test", "/", "any"),
            ("other.test", "/basket", "any"),
            ("other.test", "/api", "api"),
            ("other.test", "/api/", "api"),
            ("other.test", "/api?x=/api/v2/users/", "api"),
            ("other.test", "/%61pi/", "api"),
            ("other.test", "/api;x=1/", "api"),
            ("other.test", "//api", "api"),
            ("other.test", "/apifoo", "any"),
            ("other.test", "/api.json", "any"),
            ("other.test", "/ap", "any"),
            ("other.test", "/API/", "any"),
            ("other.test", "/x/api/", "any"),
            ("other.test", "/api/../", "any"),
            ("other.test", "/api/%2e%2e/", "any"),
            ("other.test", "/api/v2", "v2"),
            ("other.test", "/api/v2/", "v2"),
            ("other.test", "/api/v20", "api"),
            ("other.test", "/api/v2.1/users/", "api"),
            ("other.test", "/api/v2/users", "users"),
            ("other.test", "/api/v2/users/7", "users"),
            ("other.test", "/api/v2/usersfoo", "v2"),
            ("other.test", "/api/v1/../v2/users/7", "users"),
            ("other.test", "/api/v2/users/../7", "v2"),
            // A route for the host goes before any longer path for any host.
            ("shop.test", "/", "shop"),
            ("shop.test", "/api/v2/users/7", "shop"),
            ("shop.test", "/basket", "basket"),
            ("shop.test", "/basket/x", "basket"),
            ("shop.test", "/basketx", "shop"),
            ("SHOP.test", "/basket", "basket"),
            ("shop.test.", "/basket", "basket"),
            ("shop.test:8080", "/basket", "basket"),
            ("Shop.TEST.:443", "/basket", "basket"),
            ("www.shop.test", "/basket", "any"),
            ("xshop.test", "/basket", "any"),
            ("shop.test.evil.test", "/basket", "any"),
            ("shop", "/basket", "any"),
            ("[::1]", "/", "six"),
            ("[::1]:8080", "/api", "six"),
            // A host with a route of its own for other paths.
            ("only.test", "/here/", "only"),
            ("only.test", "/elsewhere", "any"),
        ] {
            let answer = gateway.get(target).host(host).send();
            let what = format!("{host} {target}, order {order:?}");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, route),
                "{what}"
            );
            let place = ROUTES.iter().position(|(name, _)| *name == route).unwrap();
            let seen = upstreams[place].take();
            assert_eq!(seen.len(), 1, "{what}");
            assert_eq!(seen[0].field("host"), Some(host), "unchanged, {what}");
        }
    }
}

#[test]
fn without_a_route_nothing_is_forwarded() {
    let app = Upstream::start();
    let gateway = Gateway::over(&Database::sqlite())
        .upstream("app", &app)
        .route("host = 'only.test'\npath = '/here/'\nupstream = 'app'")
        .start();
    for (host, target) in [
        ("other.test", "/here/"),
        ("only.test", "/"),
        ("only.test", "/herefoo"),
        ("only.test", "/here/.."),
    ] {
        let answer = gateway.get(target).host(host).send();
        answer.is_error(404, "no-route");
    }
    assert!(app.take().is_empty());
}

#[test]
fn stripping_a_prefix_never_makes_a_new_path() {
    let app = Upstream::start();
    let kept = "strip_prefix = '/keep/'\nencoded_slashes = 'keep'";
    let gateway = Gateway::alone(&app)
        .route("path = '/a/'\nupstream = 'app'\nstrip_prefix = '/a'")
        .route("path = '/part/inner/'\nupstream = 'app'\nstrip_prefix = '/part/'")
        .route(&format!("path = '/keep/'\nupstream = 'app'\n{kept}"))
        .start();
    for (target, forwarded) in [
        ("/a", "/"),
        ("/a/", "/"),
        ("/a?q=/a/", "/?q=/a/"),
        ("/a/b", "/b"),
        ("/a/b/", "/b/"),
        ("/a/a/b", "/a/b"),
        ("/%61/b", "/b"),
        ("/a;x=1/b", "/b"),
        // Under the prefix only as it is spelt.
        ("/a/..//b", "/b"),
        ("/a/../ab", "/ab"),
        ("/a/%2e%2e//b", "/b"),
        ("/a/b/../..//c", "/c"),
        ("/ab", "/ab"),
        // Never a host, never a way up.
        ("/a//evil.test/x", "/evil.test/x"),
        ("//a//evil.test", "/evil.test"),
        ("/a/.//evil.test", "/evil.test"),
        ("/a/x/..//evil.test", "/evil.test"),
        ("/a/../../a/../..", "/"),
        ("/a/https://evil.test/", "/https:/evil.test/"),
        ("/part/inner", "/inner"),
        ("/part/inner/x", "/inner/x"),
        ("/part/inner/../outer", "/part/outer"),
        ("/keep/%2fevil.test", "/%2fevil.test"),
        ("/keep/%2F%2Fevil.test/..", "/"),
    ] {
        let answer = gateway.get(target).send();
        answer.is_upstreams(200);
        let seen = app.last();
        assert_eq!(seen.target, forwarded, "{target}");
        // The claim `req` is of the request as it is sent.
        seen.claims();
    }
    app.take();
    for target in [
        "/a/..%2f..%2fb",
        "/a/%2e%2e%2fb",
        "/a/..;/b",
        "/a/\\evil.test",
        "/a/%5cevil.test",
        "/keep/..%2fb",
        "/keep/x%2f..%2f..%2fb",
        "/keep/%2f..",
        "/keep/%252e%252e/b",
    ] {
        gateway.get(target).send().is_error(400, "bad-request");
        assert!(app.take().is_empty(), "{target}");
    }
}

#[test]
fn an_encoded_slash_passes_only_where_the_route_says_so() {
    let app = Upstream::start();
    let gateway = Gateway::alone(&app)
        .route("path = '/keep/'\nupstream = 'app'\nencoded_slashes = 'keep'")
        .route("path = '/keep/not/'\nupstream = 'app'\nencoded_slashes = 'refuse'")
        .start();
    for target in ["/keep/a%2Fb", "/keep/a%2fb/c", "/keep/%2f", "/keep/not%2fx"] {
        gateway.get(target).send().is_upstreams(200);
        assert_eq!(app.last().target, target, "in its own spelling");
    }
    app.take();
    // `%2f` ends no segment: the second one is not below /keep/.
    for target in ["/a%2fb", "/keep%2fa", "/keep/not/a%2fb", "/keep/a%2f../b"] {
        gateway.get(target).send().is_error(400, "bad-request");
        assert!(app.take().is_empty(), "{target}");
    }
    gateway.get("/x?y=a%2fb").send().is_upstreams(200);
    assert_eq!(app.last().target, "/x?y=a%2fb", "the query is not touched");
}
