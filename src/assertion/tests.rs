//! Tokens byte for byte, from their inputs, and every bad one refused.

use std::io::Read;

use flate2::read::ZlibDecoder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Forward, Protected},
    session::{Session, SessionKey},
};

const AT: i64 = 1_764_000_005;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/contract.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap()
}

fn secret(vectors: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text(vectors, "/secret_b64"))
        .unwrap()
}

fn signer(vectors: &Value) -> Signer {
    Signer::hs256(text(vectors, "/kid"), &secret(vectors))
}

fn check(vectors: &Value, token: &str) -> Result<Value, BadToken> {
    let secret = secret(vectors);
    let keys = [
        (
            "older",
            verify::Key::Hs256(b"another secret of 32 bytes or so."),
        ),
        (text(vectors, "/kid"), verify::Key::Hs256(&secret)),
    ];
    verify(token, &keys, Some("gw.shop.example"), "orders", AT)
}

fn claims<'a>(req: &'a str, visitor: Visitor<'a>) -> Claims<'a> {
    let (iss, aud, jti) = ("gw.shop.example", "orders", "AAECAwQFBgcICQoLDA0ODw");
    Claims {
        iss,
        aud,
        iat: 1_764_000_000,
        ttl: 60,
        jti,
        req,
        visitor,
    }
}

/// The example's session: the row's payload, inflated.
fn example(vectors: &Value) -> Session {
    let body = text(vectors, "/inputs/row")
        .trim_start_matches('.')
        .split(':')
        .next()
        .unwrap();
    let mut payload = Vec::new();
    ZlibDecoder::new(&URL_SAFE_NO_PAD.decode(body).unwrap()[..])
        .read_to_end(&mut payload)
        .unwrap();
    Session::parse(payload).unwrap()
}

#[test]
fn the_worked_example_is_made_byte_for_byte() {
    let vectors = vectors();
    let input = |name: &str| text(&vectors, &format!("/inputs/{name}")).to_owned();
    let session = example(&vectors);
    let opaque = Opaque::new(&input("secret_key").as_str().into());
    let sid = opaque.sid(
        "orders",
        &SessionKey::parse(input("session_key").as_bytes()).unwrap(),
    );
    let member = project(&session, &Forward::AllButProtected, &Protected::default()).unwrap();
    let rev = opaque.rev("orders", &sid, &member);
    assert_eq!((sid.clone(), rev.clone()), (input("sid"), input("rev")));

    let req = req(&input("method"), &input("host"), &input("target"));
    let user_id = session.string("_auth_user_id").unwrap();
    let contents = Contents::Told {
        session: &member,
        rev: &rev,
    };
    let known = Known {
        sid: &sid,
        session_exp: 1_765_206_000,
        sub: Some(&user_id),
        user: None,
        contents,
    };
    let user = claims(&req, Visitor::Known(known));
    assert_eq!(user.payload(LeftOut::Nothing), input("user_payload"));
    let token = signer(&vectors).token(&user, 4096);
    assert_eq!(
        (token.text.as_str(), token.too_large),
        (text(&vectors, "/good/user"), false)
    );

    let nobody = claims(&req, Visitor::Nobody);
    assert_eq!(nobody.payload(LeftOut::Nothing), input("anonymous_payload"));
    assert_eq!(
        signer(&vectors).token(&nobody, 4096).text,
        text(&vectors, "/good/anonymous")
    );
}

#[test]
fn a_cart_without_login_and_a_withheld_session_are_made_byte_for_byte() {
    let vectors = vectors();
    let req = req("GET", "shop.example", "/cart?page=2");
    let told = |session| Contents::Told {
        session,
        rev: "Uldy6yHPWSGkMjty",
    };
    let known = |sub, contents| {
        let known = Known {
            sid: "9O7SgJaro25SZk7xMdHpsA",
            session_exp: 1_765_206_000,
            sub,
            user: None,
            contents,
        };
        Visitor::Known(known)
    };
    let cart = claims(
        &req,
        known(None, told(r#"{"cart":[{"sku":"A-1","qty":2}]}"#)),
    );
    assert_eq!(
        signer(&vectors).token(&cart, 4096).text,
        text(&vectors, "/good/visitor_cart")
    );

    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4096));
    let token = signer(&vectors).token(&claims(&req, known(Some("42"), told(&large))), 4096);
    assert_eq!(
        (token.text.as_str(), token.too_large),
        (text(&vectors, "/good/too_large"), true)
    );
}

#[test]
fn good_tokens_are_believed_and_every_bad_one_is_refused() {
    let vectors = vectors();
    for (name, token) in vectors["good"].as_object().unwrap() {
        assert!(check(&vectors, token.as_str().unwrap()).is_ok(), "{name}");
    }
    let bad = vectors["bad"].as_object().unwrap();
    assert_eq!(bad.len(), 11);
    for (name, token) in bad {
        assert!(check(&vectors, token.as_str().unwrap()).is_err(), "{name}");
    }
    assert_eq!(
        check(&vectors, text(&vectors, "/eddsa/token")),
        Err(BadToken::Kid)
    );
}

#[test]
fn a_token_is_refused_at_another_gateway_time_or_key() {
    let vectors = vectors();
    let (token, secret) = (text(&vectors, "/good/user"), secret(&vectors));
    let keys = [("orders-2025-11", verify::Key::Hs256(&secret))];
    let at = |iss, aud, now| verify(token, &keys, iss, aud, now).err();
    assert_eq!(at(None, "orders", AT), None);
    assert_eq!(
        at(Some("evil.example"), "orders", AT),
        Some(BadToken::Party)
    );
    assert_eq!(at(None, "billing", AT), Some(BadToken::Party));
    for (now, expected) in [
        (1_763_999_969, Some(BadToken::Time)),
        (1_763_999_970, None),
        (1_764_000_090, None),
        (1_764_000_091, Some(BadToken::Time)),
        (i64::MIN, Some(BadToken::Time)),
        (i64::MAX, Some(BadToken::Time)),
    ] {
        assert_eq!(at(None, "orders", now), expected, "{now}");
    }
    assert_eq!(verify(token, &[], None, "orders", AT), Err(BadToken::Kid));
    let hint = format!("{token}=");
    assert_eq!(
        verify(&hint, &keys, None, "orders", AT),
        Err(BadToken::Format)
    );
    let unsigned = Signer::hs256("k", b"s").sign(b"{\"aud\":\"orders\",\"iat\":1764000000}");
    assert_eq!(
        verify(
            &unsigned,
            &[("k", verify::Key::Hs256(b"s"))],
            None,
            "orders",
            AT
        ),
        Err(BadToken::Claims)
    );
}

#[test]
fn every_state_of_knowledge_has_its_own_claims() {
    let told = |visitor| {
        let payload: Value =
            serde_json::from_str(&claims("r", visitor).payload(LeftOut::Nothing)).unwrap();
        let mut names: Vec<String> = payload.as_object().unwrap().keys().cloned().collect();
        names.retain(|name| !["iss", "aud", "iat", "exp", "jti", "req"].contains(&name.as_str()));
        (names, payload["withheld"].clone())
    };
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    for (why, code) in [
        (Withheld::Off, "off"),
        (Withheld::Unreadable, "unreadable"),
        (Withheld::Unavailable, "unavailable"),
    ] {
        assert_eq!(
            told(Visitor::Withheld(why)),
            (names(&["withheld"]), json!(code))
        );
    }
    assert_eq!(told(Visitor::Nobody), (names(&["session"]), Value::Null));
    let known = |contents| {
        Visitor::Known(Known {
            sid: "s",
            session_exp: 1,
            sub: Some("1"),
            user: None,
            contents,
        })
    };
    assert_eq!(
        told(known(Contents::NotJson)),
        (
            names(&["session_exp", "sid", "sub", "withheld"]),
            json!("not_json")
        )
    );
    assert_eq!(
        told(known(Contents::Told {
            session: "{}",
            rev: "r"
        })),
        (
            names(&["rev", "session", "session_exp", "sid", "sub"]),
            Value::Null
        )
    );
}

#[test]
fn a_token_is_as_large_as_it_may_be_and_no_larger() {
    let signer = Signer::hs256("kid", &[7; 32]);
    for length in 0..40 {
        let session = format!("{{\"a\":\"{}\"}}", "x".repeat(length));
        let contents = Contents::Told {
            session: &session,
            rev: "rev",
        };
        let visitor = Visitor::Known(Known {
            sid: "sid",
            session_exp: 1,
            sub: None,
            user: None,
            contents,
        });
        let claims = claims("req", visitor);
        let whole = signer.token(&claims, usize::MAX);
        assert!(!whole.too_large);
        assert_eq!(
            signer.length(claims.payload(LeftOut::Nothing).len()),
            whole.text.len()
        );
        assert_eq!(signer.token(&claims, whole.text.len()).text, whole.text);
        assert!(signer.token(&claims, whole.text.len() - 1).too_large);
    }
    // Where there is nothing to leave out, the token is what it is.
    assert!(!signer.token(&claims("req", Visitor::Nobody), 10).too_large);
}

#[test]
fn ids_differ_by_upstream_session_and_contents_and_never_show_the_key() {
    let opaque = Opaque::new(&"secret key".into());
    let [one, two] = [
        b"k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h1",
        b"k3j9x0q2m5v7b1n8c4z6a0s2d4f6g8h2",
    ]
    .map(|key| SessionKey::parse(key).unwrap());
    let sid = opaque.sid("orders", &one);
    assert_eq!((sid.len(), opaque.sid("orders", &one)), (22, sid.clone()));
    assert_ne!(opaque.sid("orders", &two), sid);
    assert_ne!(opaque.sid("billing", &one), sid);
    assert_ne!(Opaque::new(&"secret kez".into()).sid("orders", &one), sid);
    let rev = opaque.rev("orders", &sid, "{}");
    assert_eq!(rev.len(), 16);
    assert_ne!(opaque.rev("orders", &sid, "{\"a\":1}"), rev);
    assert_ne!(opaque.rev("billing", &sid, "{}"), rev);
    assert_ne!(opaque.rev("orders", "another", "{}"), rev);
}

#[test]
fn a_key_longer_than_a_block_is_hashed_as_rfc_2104_says() {
    // RFC 4231, test cases 2 and 6.
    for (key, data, mac) in [
        (
            &b"Jefe"[..],
            &b"what do ya want for nothing?"[..],
            "5bdcc146bf60754e6a042426089575c7",
        ),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f",
        ),
    ] {
        let bytes = keyed(key).chain_update(data).finalize().into_bytes();
        let hex: String = bytes[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, mac);
    }
}

mod eddsa;

mod projection {
    use super::*;

    fn told(json: &str, forward: &Forward) -> Result<String, NotPortable> {
        let session = Session::parse(json.as_bytes().to_vec()).unwrap();
        project(&session, forward, &Protected::new(vec!["acl:*".into()]))
    }

    fn only(names: &[&str]) -> Forward {
        Forward::Only(names.iter().map(|name| (*name).into()).collect())
    }

    #[test]
    fn protected_names_are_left_out_however_they_are_spelt() {
        let json = r#"{"_auth_user_id":"1","cart":[],"hijack_history":["1"],"\u005fx":1,
            "\u0068ijack_history":[],"otp_device_id":1,"acl:a":1,"\u005f\ud800":NaN,"lang" : "fr","":1}"#;
        assert_eq!(
            told(json, &Forward::AllButProtected).unwrap(),
            r#"{"cart":[],"lang":"fr","":1}"#
        );
        assert_eq!(told("{}", &Forward::AllButProtected).unwrap(), "{}");
        assert_eq!(
            told(r#"{"_a":1}"#, &Forward::AllButProtected).unwrap(),
            "{}"
        );
    }

    #[test]
    fn a_list_may_name_protected_names_but_never_those_that_forge() {
        let json = r#"{"\u005fauth_user_hash":"h","hijack_history":["1"],"cart":1,"_csrftoken":"c",
            "_password_reset_token":1}"#;
        let all = only(&[
            "cart",
            "hijack_history",
            "_auth_user_hash",
            "_csrftoken",
            "_password_reset_token",
            "none",
        ]);
        assert_eq!(
            told(json, &all).unwrap(),
            r#"{"hijack_history":["1"],"cart":1}"#
        );
    }

    #[test]
    fn values_are_told_byte_for_byte_in_the_sessions_order() {
        let json = r#"{"b":[1.0, 1e5,"\u00e9\/"],"a":10000000000000000000000,"c":1}"#;
        assert_eq!(
            told(json, &only(&["a", "b"])).unwrap(),
            r#"{"b":[1.0, 1e5,"\u00e9\/"],"a":10000000000000000000000}"#
        );
    }

    #[test]
    fn only_forwarded_members_must_be_portable() {
        let json = r#"{"nan":NaN,"cart":[]}"#;
        assert_eq!(told(json, &only(&["cart"])).unwrap(), r#"{"cart":[]}"#);
        assert_eq!(told(json, &only(&["cart", "nan"])), Err(NotPortable));
        assert_eq!(told(json, &Forward::AllButProtected), Err(NotPortable));
        assert_eq!(
            told(r#"{"\ud800":1}"#, &Forward::AllButProtected),
            Err(NotPortable)
        );
        assert_eq!(
            told(r#"{"_x":NaN}"#, &Forward::AllButProtected).unwrap(),
            "{}"
        );
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_what_is_verified(
        iss in any::<String>(), aud in any::<String>(), kid in any::<String>(), sub in any::<String>(),
        secret in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let contents = Contents::Told { session: "{\"a\":[1]}", rev: "rev" };
        let visitor = Visitor::Known(Known { sid: "sid", session_exp: 5, sub: Some(&sub), user: None, contents });
        let claims = Claims { iss: &iss, aud: &aud, ..claims("req", visitor) };
        let token = Signer::hs256(&kid, &secret).token(&claims, usize::MAX).text;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        prop_assert!(token.bytes().all(is_plain));
        let told = verify(&token, &[(&kid, verify::Key::Hs256(&secret))], Some(&iss), &aud, AT).unwrap();
        prop_assert_eq!(&told["sub"], &json!(sub));
        prop_assert_eq!(&told["session"], &json!({"a": [1]}));
        prop_assert_eq!(&told["exp"], &json!(1_764_000_060));
    }

    #[test]
    fn a_token_changed_in_any_byte_is_refused(at in any::<prop::sample::Index>(), byte in b' '..=b'~') {
        let vectors = vectors();
        let mut token = text(&vectors, "/good/user").to_owned().into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(check(&vectors, std::str::from_utf8(&token).unwrap()).is_err());
    }
}
