//! Every rule of the grammar, every grant, and what is written.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Grants, Protected, Writable};

const AGE: Duration = Duration::from_secs(1_209_600);

fn patch(field: &str) -> Patch {
    match Patch::parse(field.as_bytes()) {
        Ok(patch) => patch,
        Err(error) => panic!("{field}: {error}"),
    }
}

fn refusal(field: &str) -> String {
    match Patch::parse(field.as_bytes()) {
        Ok(_) => panic!("{field} was taken"),
        Err(error) => error.to_string(),
    }
}

fn session(json: &str) -> Session {
    Session::parse(json.as_bytes().to_vec()).unwrap()
}

/// The session after the patch, and whether it says that it changed.
fn applied(field: &str, before: &str) -> (String, bool) {
    let mut session = session(before);
    let changed = patch(field).apply(&mut session);
    (session.to_json(), changed)
}

mod grammar {
    use super::*;

    #[test]
    fn all_members_are_read() {
        let all = patch(
            r#" {"set":{"a":1,"\u0062":null}, "del":["c","c","\u0064"],"cycle":true,"expiry":300,"if":"r"} "#,
        );
        assert_eq!(
            (all.condition(), all.expiry()),
            (Some("r"), Some(Expiry::Seconds(300)))
        );
        assert!(all.cycle() && !all.flush() && all.has_set() && !all.is_touch());
        assert_eq!(all.del, ["c", "d"]);
        let flush = patch(r#"{"flush":true,"set":{"a":1},"expiry":null}"#);
        assert!(flush.flush() && flush.has_set());
        assert_eq!(flush.expiry(), Some(Expiry::Default));
        assert_eq!(patch(r#"{"expiry":-0}"#).expiry(), Some(Expiry::Seconds(0)));
    }

    #[test]
    fn what_changes_nothing_extends() {
        for field in ["{}", r#"{"set":{}}"#, r#"{"del":[]}"#, r#"{"if":"rev"}"#] {
            assert!(
                patch(field).is_touch() && !patch(field).has_set(),
                "{field}"
            );
        }
        for field in [
            r#"{"set":{"a":null}}"#,
            r#"{"del":["a"]}"#,
            r#"{"cycle":true}"#,
            r#"{"flush":true}"#,
            r#"{"expiry":null}"#,
        ] {
            assert!(!patch(field).is_touch(), "{field}");
        }
    }

    #[test]
    fn a_misspelt_member_is_never_a_no_op() {
        assert!(refusal(r#"{"delete":["a"]}"#).contains("no member \"delete\""));
        assert!(refusal(r#"{"Set":{}}"#).contains("\"Set\""));
        assert!(refusal(r#"{"":1}"#).contains("\"\""));
        assert!(refusal(r#"{"set":{},"__proto__":1}"#).contains("__proto__"));
    }

    #[test]
    fn types_are_exact() {
        for (member, values) in [
            ("set", &["[]", "null", "\"a\"", "1", "true"][..]),
            (
                "del",
                &[
                    "{}",
                    "null",
                    "\"a\"",
                    "[1]",
                    "[null]",
                    "[[\"a\"]]",
                    "[\"a\",{}]",
                    "[\"a\",true]",
                ],
            ),
            ("cycle", &["false", "null", "1", "\"true\"", "[true]"]),
            ("flush", &["false", "null", "1", "\"true\"", "{}"]),
            (
                "expiry",
                &[
                    "-1",
                    "1.0",
                    "1e3",
                    "\"300\"",
                    "true",
                    "[]",
                    "18446744073709551616",
                ],
            ),
            ("if", &["null", "1", "[\"a\"]", "true"]),
        ] {
            for value in values {
                let error = refusal(&format!("{{\"{member}\":{value}}}"));
                assert!(
                    error.contains(&format!("\"{member}\" in X-Session-Set must be")),
                    "{member} {value}: {error}"
                );
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (field, rule) in [
            (
                r#"{"flush":true,"cycle":true}"#,
                "\"flush\" in X-Session-Set cannot go with \"cycle\"",
            ),
            (r#"{"flush":true,"del":["a"]}"#, "cannot go with \"del\""),
            (r#"{"del":[],"flush":true}"#, "cannot go with \"del\""),
            (
                r#"{"set":{"\u0061":1},"del":["b","a"]}"#,
                "the key \"a\" is in both",
            ),
            (r#"{"set":{"a":1},"set":{"b":1}}"#, "stands twice"),
            (r#"{"set":{"a":1,"\u0061":2}}"#, "stands twice"),
            (r#"{"set":{"a":[{"b":1,"b":1}]}}"#, "stands twice"),
        ] {
            assert!(refusal(field).contains(rule), "{field}: {}", refusal(field));
        }
    }

    #[test]
    fn what_would_hurt_a_later_reader_is_refused() {
        let deep = |levels: usize| {
            format!(
                "{{\"set\":{{\"a\":{}{}}}}}",
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        assert!(Patch::parse(deep(30).as_bytes()).is_ok());
        assert!(refusal(&deep(31)).contains("32 levels"));
        for value in [
            "NaN".to_owned(),
            "-Infinity".to_owned(),
            "1e400".to_owned(),
            "9".repeat(310),
            "9".repeat(4301),
            r#""\ud800""#.to_owned(),
            r#""\u0000""#.to_owned(),
            r#"{"\u0000":1}"#.to_owned(),
        ] {
            let error = refusal(&format!("{{\"set\":{{\"a\":{value}}}}}"));
            assert!(
                error.starts_with("X-Session-Set cannot be read:"),
                "{value}: {error}"
            );
        }
    }

    #[test]
    fn bytes_are_utf_8_and_at_most_16_kib() {
        assert!(Patch::parse("{\"set\":{\"n\":\"Jos\u{e9}\"}}".as_bytes()).is_ok());
        assert_eq!(
            Patch::parse(b"{\"set\":{\"n\":\"Jos\xe9\"}}").err(),
            Some(BadPatch::NotUtf8)
        );
        let long = |length: usize| format!("{}{{}}", " ".repeat(length - 2));
        assert!(Patch::parse(long(16384).as_bytes()).is_ok());
        assert_eq!(
            Patch::parse(long(16385).as_bytes()).err(),
            Some(BadPatch::TooLong(16385))
        );
    }

    #[test]
    fn a_field_is_one_object() {
        for field in [
            "",
            "  ",
            "[]",
            "null",
            "\"{}\"",
            "1",
            "set",
            "\u{feff}{}",
            "\t{}",
        ] {
            assert_eq!(
                refusal(field),
                "X-Session-Set must be one JSON object",
                "{field:?}"
            );
        }
        for field in [
            "{",
            "{}{}",
            "{},{}",
            "{} x",
            "{\"set\":{\"a\":1},}",
            "{\"set\":{\"a\":01}}",
        ] {
            assert!(
                refusal(field).starts_with("X-Session-Set cannot be read"),
                "{field}"
            );
        }
    }

    #[test]
    fn messages_never_show_a_value_and_cut_names() {
        let error = refusal(r#"{"set":{"a":"planted","a":"planted"}}"#);
        assert!(!error.contains("planted"));
        assert!(!refusal(r#"{"if":["planted"]}"#).contains("planted"));
        let error = refusal(&format!("{{\"{}\":1}}", "x".repeat(10_000)));
        assert!(error.len() < 200 && error.contains("x...\""), "{error}");
        assert!(
            refusal("{\"\\u202eevil\\r\\n\\\"\":1}")
                .contains(r#""\U0000202Eevil\U0000000D\U0000000A\"""#)
        );
    }
}

mod grants {
    use super::*;

    fn none() -> Grants {
        Grants {
            writable: Writable::Only(vec![]),
            cycle: false,
            flush: false,
            expiry: false,
        }
    }

    fn only(names: &[&str]) -> Grants {
        Grants {
            writable: Writable::Only(names.iter().map(|name| (*name).into()).collect()),
            ..none()
        }
    }

    fn everything() -> Grants {
        Grants {
            writable: Writable::AllButProtected(vec![]),
            cycle: true,
            flush: true,
            expiry: true,
        }
    }

    fn asked(field: &str, grants: &Grants) -> Result<(), String> {
        let protected = Protected::new(vec!["acl:*".into()]);
        patch(field)
            .permitted(grants, &protected, AGE)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_route_without_grants_takes_nothing_not_even_an_extension() {
        for field in ["{}", r#"{"set":{}}"#, r#"{"del":[]}"#, r#"{"if":"r"}"#] {
            assert!(
                asked(field, &none())
                    .unwrap_err()
                    .contains("may not change the session")
            );
        }
        assert!(asked("{}", &only(&["cart"])).is_ok());
        assert!(
            asked(
                "{}",
                &Grants {
                    cycle: true,
                    ..none()
                }
            )
            .is_ok()
        );
    }

    #[test]
    fn the_sentence_holds_the_line_to_add() {
        let error = asked(
            r#"{"set":{"cart":1},"del":["note","lang"]}"#,
            &only(&["lang"]),
        )
        .unwrap_err();
        assert!(error.ends_with(r#"writable = ["cart", "note"]"#), "{error}");
        assert!(
            asked(r#"{"cycle":true}"#, &none())
                .unwrap_err()
                .ends_with(r#"may = ["cycle"]"#)
        );
        assert!(
            asked(r#"{"flush":true}"#, &only(&["a"]))
                .unwrap_err()
                .ends_with(r#"may = ["flush"]"#)
        );
        assert!(
            asked(r#"{"expiry":null}"#, &only(&["a"]))
                .unwrap_err()
                .ends_with(r#"may = ["expiry"]"#)
        );
        let error = asked(r#"{"set":{"hijack_history":["1"]}}"#, &everything()).unwrap_err();
        assert!(
            error.ends_with(r#"unsafe_writable = ["hijack_history"]"#),
            "{error}"
        );
    }

    #[test]
    fn writable_covers_set_and_del_by_exact_name() {
        let cart = only(&["cart"]);
        assert!(asked(r#"{"set":{"\u0063art":1}}"#, &cart).is_ok());
        assert!(asked(r#"{"del":["cart"]}"#, &cart).is_ok());
        for field in [
            r#"{"set":{"Cart":1}}"#,
            r#"{"set":{"cart ":1}}"#,
            r#"{"del":["car"]}"#,
            r#"{"set":{"":1}}"#,
        ] {
            assert!(asked(field, &cart).is_err(), "{field}");
        }
        assert!(
            asked(
                r#"{"flush":true,"set":{"x":1}}"#,
                &Grants {
                    flush: true,
                    ..cart
                }
            )
            .is_err()
        );
    }

    #[test]
    fn protected_keys_are_refused_under_every_spelling() {
        for key in [
            "_auth_user_id",
            "\\u005fauth_user_id",
            "\\u005F\\u0061uth_user_hash",
            "hijack_history",
            "\\u0068ijack_history",
            "HIJACK_HISTORY",
            "otp_device_id",
            "acl:admin",
            "_",
        ] {
            for field in [
                format!("{{\"set\":{{\"{key}\":1}}}}"),
                format!("{{\"del\":[\"{key}\"]}}"),
            ] {
                assert!(
                    asked(&field, &everything())
                        .unwrap_err()
                        .contains("protected"),
                    "{field}"
                );
                assert!(
                    asked(&field, &only(&["cart"]))
                        .unwrap_err()
                        .contains("protected"),
                    "{field}"
                );
            }
        }
        let spelt_out = Grants {
            writable: Writable::AllButProtected(vec!["otp_device_id".into()]),
            ..none()
        };
        assert!(asked(r#"{"set":{"otp_device_id":1}}"#, &spelt_out).is_ok());
        assert!(asked(r#"{"set":{"hijack_history":1}}"#, &spelt_out).is_err());
    }

    #[test]
    fn the_expiry_is_set_by_expiry_only_and_never_beyond_the_cookie_age() {
        let all = Grants {
            writable: Writable::Only(vec!["_session_expiry".into()]),
            ..everything()
        };
        for field in [
            r#"{"set":{"_session_expiry":1}}"#,
            r#"{"del":["_session_expiry"]}"#,
        ] {
            assert!(asked(field, &all).unwrap_err().contains("\"expiry\" only"));
        }
        assert!(asked(r#"{"expiry":1209600}"#, &all).is_ok());
        assert!(asked(r#"{"expiry":0}"#, &all).is_ok());
        assert!(
            asked(r#"{"expiry":1209601}"#, &all)
                .unwrap_err()
                .contains("1209600 seconds")
        );
    }

    #[test]
    fn a_long_list_of_keys_is_cut() {
        let keys: Vec<String> = (0..500).map(|at| format!("\"key{at}\"")).collect();
        let error = asked(&format!("{{\"del\":[{}]}}", keys.join(",")), &none()).unwrap_err();
        assert!(
            error.len() < 250 && error.contains("\"key0\", ") && error.ends_with(", ...]"),
            "{error}"
        );
    }
}

mod applying {
    use super::*;

    #[test]
    fn the_worked_example() {
        let before = r#"{"_auth_user_id":"42","cart":[{"qty":2}],"lang":"fr","note":"caf\u00e9","coupon":1}"#;
        let field =
            "{\"set\":{\"cart\":[],\"coupon\":null,\"name\":\"Jos\u{e9}\"},\"del\":[\"note\"]}";
        let after =
            r#"{"_auth_user_id":"42","cart":[],"lang":"fr","coupon":null,"name":"Jos\u00e9"}"#;
        assert_eq!(applied(field, before), (after.to_owned(), true));
        assert_eq!(applied(field, after), (after.to_owned(), false));
    }

    #[test]
    fn values_are_written_as_python_spells_them() {
        let field = "{\"set\":{\"a\": [ 1E5, -0, 1.50, \"\u{1f600}\\/\\u00E9\" , {\"b\" :true} ]}}";
        assert_eq!(
            applied(field, "{}").0,
            r#"{"a":[100000.0,0,1.5,"\ud83d\ude00/\u00e9",{"b":true}]}"#
        );
    }

    #[test]
    fn what_is_not_named_is_kept_byte_for_byte() {
        let before = r#"{"a":[1.0, NaN],"\u0062":"\ud800","c":100000000000000000000000}"#;
        assert_eq!(
            applied(r#"{"set":{"x":1},"del":["missing"]}"#, before).0,
            format!("{},\"x\":1}}", before.trim_end_matches('}'))
        );
        assert_eq!(
            applied(
                r#"{"set":{"c":100000000000000000000000},"del":["missing"]}"#,
                before
            ),
            (before.to_owned(), false)
        );
    }

    #[test]
    fn expiry_is_djangos_set_expiry() {
        assert_eq!(
            applied(r#"{"expiry":300}"#, "{}"),
            (r#"{"_session_expiry":300}"#.to_owned(), true)
        );
        assert!(!applied(r#"{"expiry":300}"#, r#"{"_session_expiry":300}"#).1);
        assert_eq!(
            applied(r#"{"expiry":0}"#, r#"{"_session_expiry":300,"a":1}"#).0,
            r#"{"_session_expiry":0,"a":1}"#
        );
        assert_eq!(
            applied(r#"{"expiry":null}"#, r#"{"_session_expiry":300,"a":1}"#),
            (r#"{"a":1}"#.to_owned(), true)
        );
        assert!(!applied(r#"{"expiry":null}"#, r#"{"a":1}"#).1);
    }

    #[test]
    fn a_session_over_a_limit_is_refused() {
        let keys = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":1")).collect();
            session(&format!("{{{}}}", members.join(",")))
        };
        assert_eq!(limits(&keys(256), 65536), Ok(()));
        assert_eq!(limits(&keys(257), 65536), Err(TooLarge::Keys(257)));
        let exact = session(r#"{"a":"12345"}"#);
        assert_eq!(limits(&exact, 13), Ok(()));
        assert_eq!(
            limits(&exact, 12),
            Err(TooLarge::Bytes {
                bytes: 13,
                most: 12
            })
        );
        assert_eq!(limits(&session("{}"), 2), Ok(()));
    }
}

/// Few enough that keys meet, with some that must be escaped.
const KEY: &str = "[a-e]|[a-e\u{e9}\"\\\\]{2}";

proptest! {
    #[test]
    fn no_field_makes_parsing_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        text in "[\\[\\]{}:,\"\\\\0-9a-u]{0,40}",
    ) {
        let _ = Patch::parse(&bytes);
        let _ = Patch::parse(format!("{{\"set\":{text}}}").as_bytes());
    }

    #[test]
    fn a_patch_sets_and_removes_what_it_names_and_nothing_else(
        before in prop::collection::hash_map(KEY, any::<i32>(), 0..6),
        set in prop::collection::hash_map(KEY, "[^\\x00]{0,8}", 0..6),
        del in prop::collection::hash_set(KEY, 0..6),
    ) {
        let del: Vec<&String> = del.iter().filter(|key| !set.contains_key(*key)).collect();
        let field = serde_json::json!({"set": &set, "del": &del}).to_string();
        let mut session = session(&serde_json::to_string(&before).unwrap().replace('\u{e9}', "\\u00e9"));
        let old = session.to_json();
        let changed = patch(&field).apply(&mut session);
        prop_assert_eq!(changed, session.to_json() != old);
        for (key, value) in &set {
            prop_assert_eq!(session.string(key), Some(value.clone()));
        }
        for key in &del {
            prop_assert!(!session.contains(key));
        }
        for (key, value) in before.iter().filter(|(key, _)| !set.contains_key(*key) && !del.contains(key)) {
            let value = value.to_string();
            prop_assert_eq!(session.raw(key), Some(value.as_str()));
        }
        prop_assert!(session.to_json().bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }
}
