//! What a session holds, and what of it is sent.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use http::Request;
use proptest::{collection::vec, prelude::*, string::string_regex};
use serde_json::{Value, json, value::RawValue};
use session_gateway_upstream::{Error, Session, Withheld};

use crate::{layer::answer, support};

fn sent(session: &str, change: impl Fn(&Session) -> Result<(), Error>) -> String {
    let value = support::sent(session, |request| {
        change(request.extensions().get::<Session>().unwrap()).unwrap();
    });
    value.unwrap_or_default()
}

/// What a handler makes of a session with these claims.
fn with<T>(claims: &str, handler: impl Fn(&Session) -> T) -> T {
    let token = support::token(claims);
    let request = Request::get("/")
        .header("X-Session", token)
        .body(())
        .unwrap();
    let result = RefCell::new(None);
    let response = answer(support::builder(), request, |request| {
        *result.borrow_mut() = Some(handler(request.extensions().get::<Session>().unwrap()));
    });
    assert_eq!(response.status(), 200);
    result.into_inner().unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

#[test]
fn only_what_differs_is_sent() {
    type Change = fn(&Session) -> Result<(), Error>;
    let changes: [(&str, &str, Change, &str); 25] = [
        ("nothing", r#"{"a":1}"#, |_| Ok(()), ""),
        (
            "an equal value",
            r#"{"a":{"x":[1,2],"y":null}}"#,
            |s| s.insert("a", raw("{\"y\":null,\n \"x\":[1.0,2]}")),
            "",
        ),
        (
            "a float of an int",
            r#"{"a":2}"#,
            |s| s.insert("a", 2.0),
            "",
        ),
        (
            "a big integer",
            r#"{"a":12345678901234567890123}"#,
            |s| s.insert("a", raw("12345678901234567890124")),
            r#"{"set":{"a":12345678901234567890124}}"#,
        ),
        (
            "the same big integer",
            r#"{"a":12345678901234567890123}"#,
            |s| s.insert("a", 12_345_678_901_234_567_890_123_u128),
            "",
        ),
        (
            "true is not 1",
            r#"{"a":1}"#,
            |s| s.insert("a", true),
            r#"{"set":{"a":true}}"#,
        ),
        (
            "null is a value",
            r#"{"a":1}"#,
            |s| s.insert("a", ()),
            r#"{"set":{"a":null}}"#,
        ),
        (
            "null for nothing",
            "{}",
            |s| s.insert("a", ()),
            r#"{"set":{"a":null}}"#,
        ),
        (
            "remove",
            r#"{"a":1}"#,
            |s| s.remove("a"),
            r#"{"del":["a"]}"#,
        ),
        ("remove nothing", "{}", |s| s.remove("a"), ""),
        (
            "clear",
            r#"{"a":1,"b":null}"#,
            |s| {
                s.insert("c", 1)?;
                s.clear()
            },
            r#"{"del":["a","b"]}"#,
        ),
        (
            "there and back",
            r#"{"a":1}"#,
            |s| {
                s.insert("a", 2)?;
                s.insert("b", 1)?;
                s.remove("b")?;
                s.remove("a")?;
                s.insert("a", 1)
            },
            "",
        ),
        (
            "several, sorted",
            r#"{"c":1,"d":1}"#,
            |s| {
                s.insert("b", 1)?;
                s.insert("a", 1)?;
                s.remove("d")?;
                s.remove("c")
            },
            r#"{"del":["c","d"],"set":{"a":1,"b":1}}"#,
        ),
        (
            "ASCII",
            "{}",
            |s| s.insert("\"é", "é😀\u{7f}\u{2028}"),
            r#"{"set":{"\"\u00e9":"\u00e9\ud83d\ude00\u007f\u2028"}}"#,
        ),
        (
            "blanks between values",
            "{}",
            |s| s.insert("a", raw("[1,\r\n\t2]")),
            r#"{"set":{"a":[1,   2]}}"#,
        ),
        ("touch", "{}", Session::touch, "{}"),
        (
            "touch and more",
            "{}",
            |s| {
                s.touch()?;
                s.insert("a", 1)
            },
            r#"{"set":{"a":1}}"#,
        ),
        ("cycle", "{}", Session::cycle_key, r#"{"cycle":true}"#),
        (
            "expiry",
            "{}",
            |s| s.set_expiry(Some(300)),
            r#"{"expiry":300}"#,
        ),
        (
            "expiry by default",
            "{}",
            |s| s.set_expiry(None),
            r#"{"expiry":null}"#,
        ),
        (
            "only if unchanged",
            r#"{"a":1}"#,
            |s| {
                s.only_if_unchanged()?;
                s.insert("a", 2)
            },
            r#"{"if":"R-1","set":{"a":2}}"#,
        ),
        (
            "only if, nothing",
            r#"{"a":1}"#,
            Session::only_if_unchanged,
            "",
        ),
        (
            "flush",
            r#"{"a":1}"#,
            |s| {
                s.insert("b", 1)?;
                s.cycle_key()?;
                s.set_expiry(None)?;
                s.flush()?;
                s.remove("a")
            },
            r#"{"flush":true}"#,
        ),
        (
            "flush, then cycle",
            r#"{"a":1}"#,
            |s| {
                s.flush()?;
                s.cycle_key()
            },
            r#"{"flush":true}"#,
        ),
        (
            "flush, then insert",
            r#"{"a":1}"#,
            |s| {
                s.flush()?;
                s.insert("a", 1)
            },
            r#"{"flush":true,"set":{"a":1}}"#,
        ),
    ];
    for (name, session, change, wanted) in changes {
        assert_eq!(sent(session, change), wanted, "{name}");
    }
}

#[test]
fn what_is_set_is_read_again() {
    with(
        r#""session":{"n":12345678901234567890123,"a":[1],"gone":1}"#,
        |s| {
            assert_eq!(s.get_raw("n").unwrap().unwrap(), "12345678901234567890123");
            let length = s.update("a", |list: &mut Vec<u8>| {
                list.push(2);
                list.len()
            });
            assert_eq!((length, s.get("a")), (Ok(2), Ok(Some(vec![1, 2]))));
            s.insert("b", "x").unwrap();
            s.remove("gone").unwrap();
            assert_eq!(s.get::<Value>("gone"), Ok(None));
            assert_eq!(s.keys().unwrap().collect::<Vec<_>>(), ["n", "a", "b"]);
            assert_eq!(
                (s.len(), s.is_empty(), s.contains("gone")),
                (Ok(3), Ok(false), Ok(false))
            );
            assert!(s.modified());
            s.flush().unwrap();
            s.insert("c", 1).unwrap();
            assert_eq!(
                s.iter().unwrap().collect::<Vec<_>>(),
                [("c".to_owned(), "1".to_owned())]
            );
        },
    );
}

#[test]
fn unknown_is_never_empty() {
    for (text, why) in [
        ("too_large", Withheld::TooLarge),
        ("not_json", Withheld::NotJson),
    ] {
        let claims = format!(r#""sid":"s","sub":"42","withheld":"{text}""#);
        with(&claims, |s| {
            let unknown = Error::Withheld(why);
            assert_eq!(s.get::<Value>("a"), Err(unknown.clone()));
            assert_eq!(s.contains("a"), Err(unknown.clone()));
            assert_eq!(s.keys().err(), Some(unknown.clone()));
            assert_eq!(s.len(), Err(unknown.clone()));
            assert_eq!(s.clear(), Err(unknown.clone()));
            assert_eq!(s.user::<Value>(), Err(unknown.clone()));
            assert_eq!(s.only_if_unchanged(), Err(unknown));
            assert_eq!((s.user_id(), s.withheld()), (Ok(Some("42")), Some(why)));
            s.insert("a", 1).unwrap();
            s.remove("b").unwrap();
            assert_eq!((s.get("a"), s.get::<u8>("b")), (Ok(Some(1)), Ok(None)));
        });
        let token = support::token(&claims);
        let request = Request::get("/")
            .header("X-Session", token)
            .body(())
            .unwrap();
        let response = answer(support::builder(), request, |request| {
            let session = request.extensions().get::<Session>().unwrap();
            session.insert("a", 1).unwrap();
            session.remove("b").unwrap();
        });
        assert_eq!(
            response.headers()["x-session-set"],
            r#"{"del":["b"],"set":{"a":1}}"#
        );
    }
    for (text, why) in [
        ("off", Withheld::Off),
        ("unreadable", Withheld::Unreadable),
        ("unavailable", Withheld::Unavailable),
        ("a new one", Withheld::Unknown),
    ] {
        with(&format!(r#""withheld":"{text}""#), |s| {
            let unknown = Err(Error::Withheld(why));
            assert_eq!(s.user_id().map(drop), unknown);
            assert_eq!(s.user::<Value>().map(drop), unknown);
            assert_eq!(s.get::<Value>("a").map(drop), unknown);
            assert_eq!(s.keys().map(drop), unknown);
            for change in [
                s.insert("a", 1),
                s.remove("a"),
                s.flush(),
                s.cycle_key(),
                s.set_expiry(None),
                s.touch(),
                s.only_if_unchanged(),
            ] {
                assert_eq!(change, unknown);
            }
        });
    }
}

#[test]
fn claims_are_told() {
    let claims = r#""sid":"s","rev":"R","sub":"42","session_exp":1765206000,"user":{"username":"jos\u00e9"},"session":{}"#;
    with(claims, |s| {
        let user: BTreeMap<String, String> = s.user().unwrap().unwrap();
        assert_eq!(
            (user["username"].as_str(), s.sid(), s.rev()),
            ("josé", Some("s"), Some("R"))
        );
        let end = std::time::UNIX_EPOCH + Duration::from_secs(1_765_206_000);
        assert_eq!((s.expire_date(), s.withheld()), (Some(end), None));
        assert_eq!(s.claims::<Value>().unwrap()["jti"], "AA");
    });
    with(r#""session":{}"#, |s| {
        assert_eq!((s.user_id(), s.user::<Value>()), (Ok(None), Ok(None)));
        assert_eq!((s.sid(), s.rev(), s.expire_date()), (None, None, None));
    });
}

#[test]
fn a_user_that_came_is_told_also_where_the_contents_are_withheld() {
    let claims = r#""sid":"s","sub":"42","user":{"username":"ann"},"withheld":"not_json""#;
    with(claims, |s| {
        let user: BTreeMap<String, String> = s.user().unwrap().unwrap();
        assert_eq!(user["username"], "ann");
    });
}

/// What a change of a session with these claims is sent as.
fn sent_of(claims: &str, change: impl Fn(&Session) -> Result<(), Error>) -> String {
    let request = Request::get("/")
        .header("X-Session", support::token(claims))
        .body(());
    let response = answer(support::builder(), request.unwrap(), |request| {
        change(request.extensions().get::<Session>().unwrap()).unwrap();
    });
    assert_eq!(response.status(), 200);
    let value = response.headers().get("x-session-set");
    value.map_or("", |value| value.to_str().unwrap()).to_owned()
}

#[test]
fn a_visitor_without_a_session_gets_one_from_a_guarded_change() {
    let count = |s: &Session| {
        s.only_if_unchanged()?;
        s.update("visits", |visits: &mut u8| *visits += 1)
    };
    let nobody = r#""session":{}"#;
    assert_eq!(sent_of(nobody, count), r#"{"set":{"visits":1}}"#);
    let ann = r#""sid":"s","rev":"R-1","session":{"visits":1}"#;
    assert_eq!(sent_of(ann, count), r#"{"if":"R-1","set":{"visits":2}}"#);
}

#[test]
fn with_too_large_a_change_can_be_guarded() {
    let claims = r#""sid":"s","rev":"R-1","withheld":"too_large""#;
    let value = sent_of(claims, |s| {
        s.only_if_unchanged()?;
        s.insert("a", 1)
    });
    assert_eq!(value, r#"{"if":"R-1","set":{"a":1}}"#);
}

#[test]
fn clear_removes_all_or_nothing() {
    for last in [r#""_impersonate":1"#, r#""b\u0000":1"#] {
        let value = sent(&format!(r#"{{"a":1,{last},"c":1}}"#), |s| {
            assert!(s.clear().is_err());
            assert_eq!(s.len(), Ok(3));
            Ok(())
        });
        assert_eq!(value, "");
    }
}

/// Tokens carry what the gateway would not store: Django may have stored it.
#[test]
fn what_came_is_written_back_in_any_case() {
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let digits = format!("[{}]", "1".repeat(5000));
    for came in [&deep, r#""a\u0000b""#, r#"{"\u0000":[1]}"#, &digits] {
        let session = format!(r#"{{"a":{came}}}"#);
        let value = sent(&session, |s| {
            let same: Box<RawValue> = s.get("a")?.unwrap();
            s.insert("a", &same)?;
            s.insert("a", 1)?;
            s.insert("a", raw(&format!(" {came}")))?;
            s.update("a", |_: &mut Box<RawValue>| ())?;
            // It cannot be stored, so it is no value for another name.
            assert!(matches!(s.insert("b", same), Err(Error::Value { .. })));
            Ok(())
        });
        assert_eq!(value, "");
    }
    let value = sent(r#"{"a":"b\u0000"}"#, |s| s.update("a", |_: &mut Value| ()));
    assert_eq!(value, "");
}

#[test]
fn what_the_session_cannot_hold_is_refused_at_once() {
    #[derive(serde::Serialize)]
    struct Price {
        amount: Option<f64>,
    }
    let deep = |n: usize| raw(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
    let value = sent(r#"{"a":1}"#, |s| {
        let refused = [
            s.insert("a", f64::NAN),
            s.insert(
                "a",
                [Price {
                    amount: Some(f64::INFINITY),
                }],
            ),
            s.insert("a", BTreeMap::from([("x", f32::NEG_INFINITY)])),
            s.insert("a", deep(31)),
            s.insert("a", raw(r#""\ud800""#)),
            s.insert("a", "secret\0"),
            s.insert("a", raw(r#"{"a":1,"\u0061":2}"#)),
            s.insert("a", raw("1e309")),
            s.insert("a", BTreeMap::from([(vec!["secret"], 1)])),
            s.insert("a\0", 1),
        ];
        for refusal in refused {
            let error = refusal.unwrap_err();
            assert!(matches!(error, Error::Value { .. }) && !error.to_string().contains("secret"));
        }
        for name in ["_auth_user_id", "_"] {
            assert!(matches!(s.insert(name, 1), Err(Error::Protected(_))));
            assert!(matches!(s.remove(name), Err(Error::Protected(_))));
        }
        Ok(())
    });
    assert_eq!(value, "");
    assert_ne!(sent("{}", |s| s.insert("a", deep(30))), "");
}

#[test]
fn an_error_shows_no_value() {
    with(r#""session":{"pin":4711}"#, |s| {
        let error = s.get::<String>("pin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the value of \"pin\" is not of the type asked for"
        );
    });
}

#[test]
fn the_header_is_at_most_16_kib() {
    let fits = 16 * 1024 - r#"{"set":{"a":""}}"#.len();
    assert_eq!(
        sent("{}", |s| s.insert("a", "x".repeat(fits))).len(),
        16 * 1024
    );
    let token = support::token(r#""session":{}"#);
    let request = Request::get("/")
        .header("X-Session", token)
        .body(())
        .unwrap();
    let response = answer(support::builder(), request, |request| {
        let session = request.extensions().get::<Session>().unwrap();
        session.insert("a", "x".repeat(fits + 1)).unwrap();
    });
    assert_eq!(response.status(), 500);
}

/// Values of all kinds, with numbers that serde_json's own do not hold.
fn any_json() -> impl Strategy<Value = String> {
    let text = string_regex("[a\u{e9}\u{1f600}\"\\\\\n\u{7f}\u{2028}]{0,3}").unwrap();
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        (0_u8..4).prop_map(|value| value.to_string()),
        (0_u8..4).prop_map(|value| format!("{value}.0")),
        any::<u128>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has it", |f| f.is_finite())
            .prop_map(|f| json!(f).to_string()),
        text.prop_map(|text| json!(text).to_string()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::btree_map("[ab\u{e9}]", inner, 0..3).prop_map(|members| {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", json!(name)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    string_regex("[a-d]").unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String, String),
    Remove(String),
    Back(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (name(), any_json()).prop_map(|(name, value)| Step::Insert(name, value)),
        name().prop_map(Step::Remove),
        name().prop_map(Step::Back),
    ]
}

proptest! {
    /// What is sent, applied to what came, is what the handler saw at the end, and nothing in it was there before.
    #[test]
    fn changes_apply_to_what_came(
        came in proptest::collection::btree_map(name(), any_json(), 0..4),
        steps in vec(step(), 0..6),
    ) {
        let members = came.iter().map(|(name, value)| format!("{}:{value}", json!(name)));
        let session = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let seen = RefCell::new(BTreeMap::new());
        let value = sent(&session, |s| {
            for step in &steps {
                match step {
                    Step::Insert(name, value) => s.insert(name, raw(value))?,
                    Step::Remove(name) => s.remove(name)?,
                    Step::Back(name) => match came.get(name) {
                        Some(value) => s.insert(name, raw(value))?,
                        None => s.remove(name)?,
                    },
                }
            }
            *seen.borrow_mut() = s.iter()?.collect();
            Ok(())
        });
        prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", value);

        #[derive(Default, serde::Deserialize)]
        struct Patch {
            #[serde(default)]
            set: BTreeMap<String, Box<RawValue>>,
            #[serde(default)]
            del: Vec<String>,
        }
        let patch: Patch = match value.as_str() {
            "" => Patch::default(),
            text => serde_json::from_str(text).unwrap(),
        };
        prop_assert!(value.is_empty() || !patch.set.is_empty() || !patch.del.is_empty());
        let mut after = came.clone();
        for (name, value) in patch.set {
            // The exact meaning: no change of it is none at all when it is set again.
            if let Some(before) = came.get(&name) {
                let text = format!("{{\"a\":{before}}}");
                prop_assert_ne!(sent(&text, |s| s.insert("a", raw(value.get()))), "");
            }
            after.insert(name, value.get().to_owned());
        }
        for name in patch.del {
            prop_assert!(after.remove(&name).is_some());
        }
        let seen = seen.into_inner();
        prop_assert_eq!(seen.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, value) in &seen {
            let same = sent(&format!("{{\"a\":{value}}}"), |s| s.insert("a", raw(&after[name])));
            prop_assert_eq!(same, "", "{} {}", value, &after[name]);
        }
    }
}
