//! What Python reads, refuses and writes. The tables were made with CPython 3.11's `json`.

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;

/// `(name, value, portable)` of each member.
fn scan(text: &str) -> Result<Vec<(&str, &str, bool)>, NotJson> {
    let members = scan_object(text)?;
    Ok(members
        .into_iter()
        .map(|member| (&text[member.name], &text[member.value], member.portable))
        .collect())
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn an_object_is_split_into_its_members_byte_for_byte() {
    let text = "\t{ \"a\" : [1, {\"b\":2}] ,\r\n\"\\u0063\":\"x\\\"}\" , \"\":-0.0e+7,\"d\":{}}\n";
    let expected = [
        ("\"a\"", "[1, {\"b\":2}]", true),
        ("\"\\u0063\"", "\"x\\\"}\"", true),
        ("\"\"", "-0.0e+7", true),
        ("\"d\"", "{}", true),
    ];
    assert_eq!(scan(text).unwrap(), expected);
    assert_eq!(scan("{}").unwrap(), []);
    assert_eq!(scan(" { \n } ").unwrap(), []);
    let escaped: Vec<bool> = scan_object(text)
        .unwrap()
        .iter()
        .map(|member| member.escaped_name)
        .collect();
    assert_eq!(escaped, [false, true, false, false]);
}

#[test]
fn an_array_is_split_into_its_items() {
    let text = " [ 1 ,[2,[]], {\"a\":[3]},\"]\" ] ";
    let items: Vec<&str> = scan_array(text)
        .unwrap()
        .into_iter()
        .map(|item| &text[item])
        .collect();
    assert_eq!(items, ["1", "[2,[]]", "{\"a\":[3]}", "\"]\""]);
    assert!(scan_array("[]").unwrap().is_empty());
    assert!(
        ["", "{}", "[1,]", "[1]]", "[[1]", "\"\""]
            .iter()
            .all(|text| scan_array(text).is_err())
    );
}

#[test]
fn what_python_reads_is_read_and_marked_where_others_do_not() {
    let infinite = format!("1{}", "0".repeat(309));
    let finite = format!("1{}", "0".repeat(308));
    let as_long_but_infinite = "9".repeat(309);
    let longest = "9".repeat(4300);
    let members: Vec<String> = (0..40).map(|name| format!("\"{name}\":0")).collect();
    let many_names = format!("{{{}}}", members.join(","));
    let one_twice = many_names.replace("\"39\"", "\"3\"");
    for (value, portable) in [
        ("NaN", false),
        ("[Infinity]", false),
        ("{\"a\":-Infinity}", false),
        (r#""\ud800""#, false),
        (r#""\udc00\ud800""#, false),
        (r#""\ud800\ud800\udc00""#, false),
        (r#"{"\udfff":1}"#, false),
        ("1e400", false),
        ("-1E+400", false),
        (infinite.as_str(), false),
        (longest.as_str(), false),
        (as_long_but_infinite.as_str(), false),
        (finite.as_str(), true),
        ("1e308", true),
        ("1e-400", true),
        ("1.7976931348623157e308", true),
        (r#""\ud83d\ude00""#, true),
        (r#""\uD83D\uDE00\u0000\/""#, true),
        ("\"\u{7f}\"", true),
        ("18446744073709551616", true),
        ("[[],{},[{}]]", true),
        (r#"{"1":0,"1":0}"#, false),
        (r#"[{"a":{"b":1,"c":2,"b":3}}]"#, false),
        (r#"{"a":1,"\u0061":1}"#, false),
        (r#"{"a":1,"A":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#, true),
        (many_names.as_str(), true),
        (one_twice.as_str(), false),
        (nested(60).as_str(), true),
        (nested(61).as_str(), false),
        (nested(900).as_str(), false),
        (format!("[{},1]", nested(60)).as_str(), false),
    ] {
        let text = format!("{{\"a\":{value},\"b\":1}}");
        assert_eq!(
            scan(&text).unwrap(),
            [("\"a\"", value, portable), ("\"b\"", "1", true)]
        );
        assert_eq!(scan_value(value), Ok(portable), "{value}");
    }
    assert!(!scan(r#"{"\ud800":1}"#).unwrap()[0].2);
}

#[test]
fn what_python_refuses_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1}x",
        "{\"a\":1}}",
        "{}{}",
        "{}]",
        "{\"a\":1 \"b\":2}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "{\"a\":{]}",
        "{\"a\":01}",
        "{\"a\":-01}",
        "{\"a\":.5}",
        "{\"a\":5.}",
        "{\"a\":1.e5}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":+1}",
        "{\"a\":-}",
        "{\"a\":--1}",
        "{\"a\":-NaN}",
        "{\"a\":+Infinity}",
        "{\"a\":Inf}",
        "{\"a\":nan}",
        "{\"a\":nul}",
        "{\"a\":True}",
        "{\"a\":truefalse}",
        "{\"a\":0x10}",
        "{\"a\":1_000}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\u{1f}\"}",
        "{\"a\u{0}\":1}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\u+123\"}",
        "{\"a\":\"\\u 123\"}",
        "{\"a\":\"\\u123\"}",
        "{\"a\":\"\\\"}",
        "{\"a\":\"\\ud800\\u12\"}",
        "{\"a\":\"b}",
        "\u{feff}{}",
        "{\u{a0}}",
        "{\u{c}}",
        "{\"a\":/**/1}",
        "{\"a\":1}\0",
        "[]",
        "null",
        "\"a\"",
        "1",
        "NaN",
        "{1:2}",
        "{null:2}",
        "{\"a\":\"\\U0041\"}",
        "{\"a\":\"\\u00\\u00e9\"}",
    ] {
        assert!(scan_object(text).is_err(), "{text:?}");
    }
    let over = |value: &str| scan_object(&format!("{{\"a\":{value}}}")).is_err();
    assert!(over(&"9".repeat(4301)) && over(&format!("-{}", "9".repeat(4301))));
    assert!(
        !over(&format!("{}.0", "9".repeat(4301))),
        "only integers have that limit"
    );
    assert!(over(&nested(901)) && over(&nested(100_000)) && over(&"[".repeat(1_000_000)));
}

#[test]
fn latin_1_becomes_the_same_text_in_ascii() {
    assert_eq!(latin1_to_ascii(b"{}".to_vec()).unwrap(), "{}");
    assert_eq!(
        latin1_to_ascii(b"\"caf\xe9\"".to_vec()).unwrap(),
        r#""caf\u00e9""#
    );
    // UTF-8 is not asked for: Django reads each byte as a character.
    assert_eq!(
        latin1_to_ascii("\"\u{e9}\"".into()).unwrap(),
        r#""\u00c3\u00a9""#
    );
    assert_eq!(
        latin1_to_ascii(b"\"\\\\\xe9\\n\xff\"".to_vec()).unwrap(),
        r#""\\\u00e9\n\u00ff""#
    );
}

#[test]
fn a_byte_of_latin_1_never_becomes_part_of_an_escape() {
    for payload in [&b"\"\\\xe9\""[..], b"\"\\\\\\\xe9\"", b"\"n\\\xff\""] {
        assert!(latin1_to_ascii(payload.to_vec()).is_err(), "{payload:?}");
    }
    let split = latin1_to_ascii(b"{\"a\":\"\\u00\xe9\"}".to_vec()).unwrap();
    assert!(scan_object(&split).is_err());
}

#[test]
fn names_are_the_same_where_python_says_so() {
    let same = |a: &str, b: &str| unescape(a) == unescape(b);
    assert!(same(r#""cart""#, r#""\u0063\u0061rt""#));
    assert!(same(r#""caf\u00e9""#, "\"caf\u{e9}\""));
    assert!(same(r#""\ud83d\ude00""#, "\"\u{1f600}\""));
    assert!(same(
        r#""\/\"\\\b\f\n\r\t""#,
        r#""/\u0022\u005c\u0008\u000C\u000a\u000D\u0009""#
    ));
    assert!(!same(r#""\ud83d""#, r#""\ufffd""#));
    assert!(!same(r#""\ud83d""#, r#""\ud83e""#));
    assert!(!same(r#""\ude00\ud83d""#, r#""\ud83d\ude00""#));
    assert_eq!(*unescape(r#""\ud800""#), [0xed, 0xa0, 0x80]);
    assert!(matches!(unescape("\"plain\""), Cow::Borrowed(b"plain")));
    assert_eq!(
        string(r#""a\u00e9\ud83d\ude00""#).as_deref(),
        Some("a\u{e9}\u{1f600}")
    );
    assert_eq!(
        (string(r#""\udc00""#), string("1"), string("[\"a\"]")),
        (None, None, None)
    );
}

#[test]
fn strict_json_is_respelt_as_python_does() {
    for (text, python) in [
        (
            " { \"a\" : [ 1 , 2 , { } ] , \"b\":[ ],\"c\": {\"d\" :null} } ",
            r#"{"a":[1,2,{}],"b":[],"c":{"d":null}}"#,
        ),
        (
            "[\"[\",\"{\",\":\",\"a,\",true,false]",
            r#"["[","{",":","a,",true,false]"#,
        ),
        (
            "\"caf\u{e9} \u{1f600}\u{2028}\u{7f}/\"",
            r#""caf\u00e9 \ud83d\ude00\u2028\u007f/""#,
        ),
        (
            r#""\/\u002F\u0041\u00E9\uD83D\uDE00""#,
            r#""//A\u00e9\ud83d\ude00""#,
        ),
        (
            r#""\u0022\u005c\u000a\u000D\u0009\u0008\u000c\u001F\u000b""#,
            r#""\"\\\n\r\t\b\f\u001f\u000b""#,
        ),
        (r#""\"\\\n\r\t\b\f""#, r#""\"\\\n\r\t\b\f""#),
        ("{\"\":1,\"\\u0061\u{e9}\":2}", r#"{"":1,"a\u00e9":2}"#),
        ("-0", "0"),
        ("18446744073709551617", "18446744073709551617"),
        ("1E5", "100000.0"),
        ("-0.0", "-0.0"),
        ("0e9", "0.0"),
        ("1.10", "1.1"),
        ("1e16", "1e+16"),
        ("9999999999999998.0", "9999999999999998.0"),
        ("1e-4", "0.0001"),
        ("1.5e-5", "1.5e-05"),
        ("-1e-100", "-1e-100"),
        ("1e-400", "0.0"),
        ("5e-324", "5e-324"),
        ("123456789012345678.0", "1.2345678901234568e+17"),
        ("1.7976931348623157E308", "1.7976931348623157e+308"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("1152921504606846976.0", "1.152921504606847e+18"),
        ("5.684341886080802e-14", "5.684341886080802e-14"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("888635989944260.25", "888635989944260.2"),
        ("888635989944260.75", "888635989944260.8"),
        ("2.98023223876953125e-8", "2.9802322387695312e-08"),
        ("1000000000000000.0", "1000000000000000.0"),
        ("-0.000123", "-0.000123"),
        ("120.0", "120.0"),
    ] {
        assert_eq!(canonical(text, 32).as_deref(), Ok(python), "{text}");
    }
}

#[test]
fn strict_json_is_strict() {
    for (text, rule) in [
        ("NaN", "NaN"),
        ("[-Infinity]", "NaN"),
        (r#""\ud800""#, "surrogate"),
        (r#"{"\udc00":1}"#, "surrogate"),
        (r#""a\u0000""#, "U+0000"),
        (r#"{"\u0000":1}"#, "U+0000"),
        ("1e400", "double"),
        (r#"{"a":1,"a":1}"#, "twice"),
        (r#"[{"b":{"a":1,"c":[],"\u0061":2}}]"#, "twice"),
        (r#"{"\ud83d\ude00":1,"😀":2}"#, "twice"),
        ("{} {}", "follows"),
        ("01", "follows"),
        ("[1,]", "value"),
        ("", "value"),
    ] {
        let error = canonical(text, 32).unwrap_err().to_string();
        assert!(error.contains(rule), "{text}: {error}");
    }
    assert!(
        canonical(&"9".repeat(310), 32)
            .unwrap_err()
            .to_string()
            .contains("double")
    );
    assert!(
        canonical(&format!("0.{}", "1".repeat(4299)), 32)
            .unwrap_err()
            .to_string()
            .contains("4300")
    );
    assert!(canonical(&nested(32), 32).is_ok());
    assert!(
        canonical(&nested(33), 32)
            .unwrap_err()
            .to_string()
            .contains("32 levels")
    );
    assert!(
        canonical(r#"[{"a":1},{"a":1},{"b":{"a":1},"a":1}]"#, 32).is_ok(),
        "other objects, other names"
    );
}

#[test]
fn errors_never_quote_the_text() {
    for text in [
        "{\"planted\":planted}",
        "{\"planted\":1,\"planted\":2}",
        "planted",
        "\"planted",
    ] {
        for error in [scan_object(text).err(), canonical(text, 32).err()]
            .into_iter()
            .flatten()
        {
            assert!(!format!("{error} {error:?}").contains("planted"));
        }
    }
}

/// What a strict parser reads in which no object has a name twice.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("strict JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = std::collections::HashSet::new();
        while let Some((name, _)) = members.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(serde::de::Error::custom("a name twice"));
            }
        }
        Ok(self)
    }
}

fn is_strict(text: &str) -> bool {
    serde_json::from_str::<Strict>(text).is_ok()
}

/// JSON of every shape, with blanks, escapes and odd numbers; often, but not always, strict. Floats
/// are such that serde_json reads them exactly, and "-0" is left out because it reads that as a
/// float.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "(null|true|false|NaN|-?[1-9][0-9]{0,18}|-?[0-9]\\.[0-9]{1,13}([eE][-+]?[0-9])?)",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}|\\\\[\"\\\\/bfnrt]|[ !a-z\u{e9}]){0,6}\"",
    ];
    leaf.prop_recursive(6, 40, 6, |value| {
        let name = "\"(\\\\u00[46][1-3]|[a-c]){0,2}\"";
        prop_oneof![
            prop::collection::vec(value.clone(), 0..6)
                .prop_map(|items| format!("[{} ]", items.join(" ,\t"))),
            prop::collection::vec((name, value), 0..4).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(name, value)| format!("{name} :{value}"))
                    .collect();
                format!("{{ {}\n}}", members.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn the_canonical_spelling_is_ascii_means_the_same_and_is_its_own(text in json()) {
        if let Ok(spelt) = canonical(&text, 32) {
            prop_assert!(spelt.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let (before, after): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&text).unwrap(), serde_json::from_str(&spelt).unwrap());
            prop_assert_eq!(before, after);
            prop_assert_eq!(scan_value(&spelt), Ok(true));
            prop_assert_eq!(canonical(&spelt, 32), Ok(spelt));
        }
    }

    #[test]
    fn a_portable_value_is_one_that_a_strict_parser_reads(text in json()) {
        match scan_value(&text) {
            Ok(portable) => prop_assert_eq!(portable, is_strict(&text)),
            Err(error) => prop_assert!(false, "{error}: {text}"),
        }
    }

    #[test]
    fn a_strict_parser_reads_nothing_that_is_refused(text in "[\\[\\]{}:,\"\\\\0-9eE.\\-+ a-u]{0,12}") {
        if is_strict(&text) {
            prop_assert!(scan_value(&text).is_ok());
        } else if let Ok(portable) = scan_value(&text) {
            prop_assert!(!portable);
        }
        prop_assert!(canonical(&text, 32).is_err() || is_strict(&text));
    }

    #[test]
    fn nothing_makes_it_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = (scan_object(&text), scan_value(&text), canonical(&text, 32), unescape(&text), string(&text));
        if let Ok(ascii) = latin1_to_ascii(bytes) {
            prop_assert!(ascii.is_ascii());
        }
    }

    #[test]
    fn a_quoted_text_is_the_text(text in any::<String>()) {
        let mut quoted = String::new();
        quote(&mut quoted, &text);
        prop_assert!(quoted.is_ascii());
        prop_assert_eq!(string(&quoted), Some(text));
    }

    #[test]
    fn a_float_keeps_its_value(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        if number.is_finite() {
            let spelt = canonical(&format!("{number:e}"), 1).unwrap();
            prop_assert_eq!(spelt.parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
