use proptest::prelude::*;

use super::*;

fn parse(path: &str) -> Canonical {
    Canonical::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn prefix(path: &str) -> Prefix {
    Prefix::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn dot_and_empty_segments_are_resolved() {
    for (path, forwarded) in [
        ("/", "/"),
        ("//", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a//b", "/a/b"),
        ("//evil/x", "/evil/x"),
        ("/a/./b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/../../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../", "/a/"),
        ("/a/.", "/a/"),
        ("/a/..//b", "/b"),
        ("/a/b;x/../c", "/a/c"),
        ("/a/;x/../c", "/a/c"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..", "/a.."),
    ] {
        assert_eq!(parse(path).forwarded(), forwarded, "{path}");
    }
}

#[test]
fn the_forwarded_path_keeps_its_own_spelling() {
    for path in [
        "/%61dmin/",
        "/a;b=c/d",
        "/caf%c3%A9",
        "/a%20b",
        "/;x",
        "/a%2fb",
        "/%25",
        "/%2e%2e%2e",
        "/a:b@c",
    ] {
        assert_eq!(parse(path).forwarded(), path);
    }
}

#[test]
fn segments_are_matched_as_a_lenient_upstream_understands_them() {
    let cases: [(&str, &[&[u8]]); 10] = [
        ("/", &[]),
        ("/a/b/", &[b"a", b"b"]),
        ("/%61dmin/", &[b"admin"]),
        ("/admin;x=1/y", &[b"admin", b"y"]),
        ("/admin%3Bx/y", &[b"admin", b"y"]),
        ("/;x/admin", &[b"admin"]),
        ("/%ff", &[b"\xff"]),
        ("/a%2fb/c", &[b"a/b", b"c"]),
        ("/%2561", &[b"%61"]),
        ("/x/../%61/./b", &[b"a", b"b"]),
    ];
    for (path, matched) in cases {
        assert_eq!(parse(path).matched(), matched, "{path}");
    }
    assert!(parse("/a%2Fb").encoded_slash());
    assert!(parse("/a%2Fb/../c").encoded_slash());
    assert!(!parse("/a/b").encoded_slash());
}

#[test]
fn paths_that_servers_read_in_two_ways_are_refused() {
    for (path, error) in [
        ("", BadPath::Relative),
        ("*", BadPath::Relative),
        ("a/b", BadPath::Relative),
        ("http://x/", BadPath::Relative),
        ("/caf\u{e9}", BadPath::NotAscii),
        ("/a\nb", BadPath::Control),
        ("/a\x7f", BadPath::Control),
        ("/%00", BadPath::Control),
        ("/%0d%0a", BadPath::Control),
        ("/%09/evil", BadPath::Control),
        ("/%7F", BadPath::Control),
        ("/a b", BadPath::Delimiter),
        ("/a?b", BadPath::Delimiter),
        ("/a#b", BadPath::Delimiter),
        ("/\\evil", BadPath::Backslash),
        ("/a%5cb", BadPath::Backslash),
        ("/a%5C..", BadPath::Backslash),
        ("/%", BadPath::Escape),
        ("/%2", BadPath::Escape),
        ("/%zz", BadPath::Escape),
        ("/%2/a", BadPath::Escape),
        ("/%+1", BadPath::Escape),
        ("/%252e%252e/", BadPath::EncodedTwice),
        ("/%252F", BadPath::EncodedTwice),
        ("/%255C", BadPath::EncodedTwice),
        ("/%2500", BadPath::EncodedTwice),
        ("/a/..;/b", BadPath::HiddenDots),
        ("/a/..;x=1/b", BadPath::HiddenDots),
        ("/a/..%3b/b", BadPath::HiddenDots),
        ("/a/%2e%2e;/b", BadPath::HiddenDots),
        ("/.;x", BadPath::HiddenDots),
        ("/a%2f..%2fb", BadPath::HiddenDots),
        ("/..%2fb", BadPath::HiddenDots),
        ("/a%2f.", BadPath::HiddenDots),
        ("/a;x%2f..", BadPath::HiddenDots),
        ("/a%2f..;x", BadPath::HiddenDots),
    ] {
        assert_eq!(Canonical::parse(path), Err(error), "{path:?}");
    }
}

#[test]
fn a_prefix_matches_on_a_segment_boundary() {
    for (path, target, expected) in [
        ("/", "/", true),
        ("/", "/anything", true),
        ("/api", "/api", true),
        ("/api", "/api/", true),
        ("/api", "/api/x", true),
        ("/api", "/apifoo", false),
        ("/api", "/ap", false),
        ("/api", "/", false),
        ("/api", "/API", false),
        ("/api/v1", "/api/v1/x", true),
        ("/api/v1", "/api", false),
        ("/api/v1", "/api/v10", false),
        ("/admin", "/%61dmin/x", true),
        ("/admin", "/admin;x/y", true),
        ("/admin", "/;x/admin", true),
        ("/admin", "/x/../admin", true),
        ("/admin", "//admin", true),
        ("/admin", "/admin%2fx", false),
        ("/%61dmin", "/admin", true),
        ("/caf%C3%A9", "/caf%c3%a9/x", true),
    ] {
        assert_eq!(
            prefix(path).matches(&parse(target)),
            expected,
            "{path} {target}"
        );
    }
}

#[test]
fn a_final_slash_makes_no_other_prefix() {
    assert_eq!(prefix("/orders/"), prefix("/orders"));
    assert_eq!(prefix("/%6frders/"), prefix("/orders"));
    assert_eq!(prefix("/orders/").to_string(), "/orders");
    assert_eq!(prefix("/caf%c3%a9").to_string(), "/caf%C3%A9");
    assert_eq!(prefix("/").to_string(), "/");
    assert_eq!(prefix("/").specificity(), 0);
    assert_eq!(prefix("/a/b").specificity(), 2);
    assert!(prefix("/a/b").is_within(&prefix("/a")));
    assert!(!prefix("/a").is_within(&prefix("/a/b")));
    assert!(!prefix("/ab").is_within(&prefix("/a")));
}

#[test]
fn a_prefix_that_could_never_match_is_refused() {
    for (path, error) in [
        ("/a%2fb", BadPrefix::EncodedSlash),
        ("/a;b", BadPrefix::Parameter),
        ("/;b", BadPrefix::Parameter),
        ("/a%3bb", BadPrefix::Parameter),
        ("/a//b", BadPrefix::NotResolved),
        ("/a/../b", BadPrefix::NotResolved),
        ("/a/%2e", BadPrefix::NotResolved),
        ("a", BadPrefix::Path(BadPath::Relative)),
        ("/a\\b", BadPrefix::Path(BadPath::Backslash)),
    ] {
        assert_eq!(Prefix::parse(path), Err(error), "{path}");
    }
}

#[test]
fn stripping_a_prefix_makes_no_new_path() {
    for (path, target, stripped) in [
        ("/a", "/a", "/"),
        ("/a", "/a/", "/"),
        ("/a", "/a/b", "/b"),
        ("/a", "/a/b/", "/b/"),
        ("/a", "/a//evil", "/evil"),
        ("/a", "/a/..//b", "/b"),
        ("/a", "/x/../a//..//a//b", "/b"),
        ("/a", "/%61/%62", "/%62"),
        ("/a", "/a;x/b;y", "/b;y"),
        ("/a", "/;x/a/b", "/b"),
        ("/a/b", "/a/;x/b/c", "/c"),
        ("/a", "/a/%2fevil", "/%2fevil"),
        ("/", "/a/b", "/a/b"),
        ("/", "/", "/"),
        ("/b", "/a/b", "/a/b"),
    ] {
        assert_eq!(
            prefix(path).strip(&parse(target)),
            stripped,
            "{path} {target}"
        );
    }
}

#[test]
fn next_is_a_path_on_this_host() {
    for (path, query, next) in [
        ("/orders/", None, "/orders/"),
        ("/orders/", Some("a=1&b=2"), "/orders/%3Fa%3D1%26b%3D2"),
        ("/orders/", Some(""), "/orders/%3F"),
        ("//evil", None, "/evil"),
        ("///evil", None, "/evil"),
        ("/.//evil", None, "/evil"),
        ("/%2fevil", None, "/%252fevil"),
        ("/;/evil", None, "/%3B/evil"),
        ("/https://evil", None, "/https%3A/evil"),
        ("/x", Some("next=//evil#\\"), "/x%3Fnext%3D//evil%23%5C"),
    ] {
        assert_eq!(safe_next(&parse(path), query), next, "{path}");
    }
}

/// Paths made of what attacks are made of.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%25", "%5c", ";", "%3b", "a", "b", "%61",
        "%ff", "%", "\\", "2e", "0", "~", "é", "%0a",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What a server understands that takes `%2f` for `/` and cuts parameters.
fn lenient(path: &str) -> Vec<Vec<u8>> {
    let decoded: Vec<_> = path
        .split('/')
        .map(|s| decode(s.as_bytes()).unwrap())
        .collect();
    decoded
        .join(&b'/')
        .split(|byte| *byte == b'/')
        .map(|piece| cut(piece.to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_canonical_path_stays_as_it_is(path in hostile()) {
        if let Ok(once) = Canonical::parse(&path) {
            let twice = Canonical::parse(once.forwarded()).expect("canonical paths are paths");
            prop_assert_eq!(twice.forwarded(), once.forwarded());
            prop_assert_eq!(twice.matched(), once.matched());
        }
    }

    #[test]
    fn a_forwarded_path_never_has_dot_or_empty_segments(path in hostile()) {
        if let Ok(canonical) = Canonical::parse(&path) {
            let forwarded = canonical.forwarded();
            prop_assert!(forwarded.starts_with('/') && !forwarded.contains("//"), "{}", forwarded);
            prop_assert!(lenient(forwarded).iter().all(|s| s != b"." && s != b".."), "{}", forwarded);
        }
    }

    #[test]
    fn the_fast_way_agrees_with_the_general_one(path in "/[a-c./~:-]{0,12}") {
        let fast = Canonical::parse(&path).unwrap();
        let slow = Canonical::resolve(&path).unwrap();
        prop_assert_eq!(fast.forwarded(), slow.forwarded());
        prop_assert_eq!(fast.matched(), slow.matched());
        for prefix in ["/", "/a", "/a/b", "/.", "/a."].iter().filter_map(|path| Prefix::parse(path).ok()) {
            prop_assert_eq!(prefix.matches(&fast), prefix.matches(&slow));
            prop_assert_eq!(prefix.strip(&fast), prefix.strip(&slow));
        }
    }

    #[test]
    fn a_stripped_path_is_canonical(path in hostile()) {
        if let Ok(canonical) = Canonical::parse(&path) {
            let stripped = prefix("/a").strip(&canonical);
            let again = Canonical::parse(&stripped).expect("still a path");
            prop_assert_eq!(again.forwarded(), &stripped);
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(path in any::<String>()) {
        let _ = Canonical::parse(&path);
        let _ = Prefix::parse(&path);
    }
}
