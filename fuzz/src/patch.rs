//! `X-Session-Set`: read, granted, carried out.
//!
//! Input: the field on the first line, then the payload of the session that it changes.

use std::time::Duration;

use session_gateway::{
    config::{Grants, Protected, Writable},
    patch::{Patch, limits},
    session::Session,
};

use super::{first_line, oracle::Json};

/// A session that a patch finds where the input brings none.
const USUAL: &[u8] =
    br#"{"_auth_user_id":"42","c\u0061rt":[{"sku":"A-1","qty":1.50}],"caf\u00e9":NaN,"a":1,"_session_expiry":60}"#;

/// Runs the target.
pub fn check(input: &[u8]) {
    let (field, payload) = first_line(input);
    let expected = Expected::read(field);
    let patch = match Patch::parse(field) {
        Ok(patch) => patch,
        Err(error) => {
            let sentence = error.to_string();
            assert!(
                sentence.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{sentence:?}"
            );
            assert!(sentence.len() < 1024);
            assert!(
                expected.is_none_or(|expected| expected.perhaps),
                "refused: {sentence}"
            );
            return;
        }
    };
    let expected = expected.expect("what breaks a rule is refused");
    assert_eq!(patch.flush(), expected.flush);
    assert_eq!(patch.cycle(), expected.cycle);
    assert_eq!(patch.condition(), expected.condition.as_deref());
    assert_eq!(patch.expiry().is_some(), expected.expiry.is_some());
    assert_eq!(format!("{patch:?}"), "Patch(redacted)");

    check_grants(&patch, &expected);
    let session = Session::parse(payload.to_vec());
    let usual = || Session::parse(USUAL.to_vec()).expect("it is a session");
    check_applied(&patch, &expected, session.unwrap_or_else(|_| usual()));
    check_applied(&patch, &expected, Session::empty());
}

/// What a strict reader makes of a field.
struct Expected {
    condition: Option<String>,
    set: Vec<(String, Json)>,
    del: Vec<String>,
    cycle: bool,
    flush: bool,
    /// `null` is `None`.
    expiry: Option<Option<u64>>,
    /// Whether it may as well be refused: `-0`, which serde_json reads as a float.
    perhaps: bool,
}

impl Expected {
    /// `None`: to be refused.
    fn read(field: &[u8]) -> Option<Self> {
        if field.len() > 16 * 1024 || field.iter().find(|byte| **byte != b' ') != Some(&b'{') {
            return None;
        }
        let value = Json::strict(field)?;
        if value.depth() > 32 || value.has_duplicates() || value.has_nul() {
            return None;
        }
        let Json::Object(members) = value else {
            return None;
        };
        let mut read = Self {
            condition: None,
            set: Vec::new(),
            del: Vec::new(),
            cycle: false,
            flush: false,
            expiry: None,
            perhaps: field.len() > 4300,
        };
        let mut has_del = false;
        for member in members {
            match (&*member.0, member.1) {
                ("if", Json::Text(condition)) => read.condition = Some(condition),
                ("set", Json::Object(members)) => read.set = members,
                ("del", Json::Array(keys)) => {
                    has_del = true;
                    for key in keys {
                        let Json::Text(key) = key else {
                            return None;
                        };
                        read.del.push(key);
                    }
                }
                ("cycle", Json::Bool(true)) => read.cycle = true,
                ("flush", Json::Bool(true)) => read.flush = true,
                ("expiry", Json::Null) => read.expiry = Some(None),
                ("expiry", Json::Unsigned(seconds)) => read.expiry = Some(Some(seconds)),
                ("expiry", Json::Float(zero)) if zero == 0.0 && zero.is_sign_negative() => {
                    read.expiry = Some(Some(0));
                    read.perhaps = true;
                }
                _ => return None,
            }
        }
        let both = read.set.iter().any(|(key, _)| read.del.contains(key));
        (!both && !(read.flush && (read.cycle || has_del))).then_some(read)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let set = self.set.iter().map(|(key, _)| &**key);
        set.chain(self.del.iter().map(|key| &**key))
    }
}

/// A route's word is kept: nothing is permitted that it does not name.
fn check_grants(patch: &Patch, expected: &Expected) {
    let protected = Protected::new(vec!["acl*".into()]);
    let hour = Duration::from_secs(3600);
    let acts = expected.cycle || expected.flush || expected.expiry.is_some();
    for (writable, may) in [
        (Writable::AllButProtected(Vec::new()), true),
        (Writable::Only(vec!["a".into(), "_b".into()]), false),
        (Writable::Only(Vec::new()), true),
        (Writable::Only(Vec::new()), false),
    ] {
        let allowed = |key: &str| match &writable {
            Writable::AllButProtected(_) => !protected.contains(key),
            Writable::Only(names) => names.iter().any(|name| name == key),
        };
        let keys = expected
            .keys()
            .all(|key| key != "_session_expiry" && allowed(key));
        let short = !matches!(expected.expiry, Some(Some(seconds)) if seconds > 3600);
        let none = matches!(&writable, Writable::Only(names) if names.is_empty()) && !may;
        let grants = Grants {
            writable: writable.clone(),
            cycle: may,
            flush: may,
            expiry: may,
        };
        let permitted = patch.permitted(&grants, &protected, hour);
        assert_eq!(permitted.is_ok(), keys && (may || !acts) && short && !none);
        if let Err(refused) = permitted {
            let sentence = refused.to_string();
            assert!(
                sentence.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{sentence:?}"
            );
            assert!(sentence.len() < 8 * 1024);
        }
    }
}

/// Carried out, it changes what it names and nothing else, and can be stored.
fn check_applied(patch: &Patch, expected: &Expected, before: Session) {
    let mut after = before.clone();
    let changed = patch.apply(&mut after);
    let json = after.to_json();
    assert_eq!(changed, json != before.to_json());
    assert!(json.is_ascii());
    let stored = Session::parse(json.clone().into_bytes()).expect("what is stored is read");
    assert_eq!(stored.to_json(), json);
    let within = limits(&after, 4096).is_ok();
    assert_eq!(within, after.len() <= 256 && json.len() <= 4096);

    let untouched = |name: &[u8]| {
        !expected.keys().any(|key| key.as_bytes() == name)
            && (expected.expiry.is_none() || name != b"_session_expiry")
    };
    let others = |session: &Session| -> Vec<(String, String)> {
        let others = session.members().filter(|member| untouched(&member.name));
        others
            .map(|member| (member.raw_name.to_owned(), member.raw_value.to_owned()))
            .collect()
    };
    assert_eq!(others(&after), others(&before));
    for (key, value) in &expected.set {
        if expected.expiry.is_some() && key == "_session_expiry" {
            continue;
        }
        let raw = after.raw(key).expect("it was set");
        assert!(raw.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(Json::strict(raw.as_bytes()).as_ref(), Some(value));
    }
    for key in &expected.del {
        assert!(!after.contains(key) || key == "_session_expiry");
    }
    match expected.expiry {
        None => {}
        Some(None) => assert!(!after.contains("_session_expiry")),
        Some(Some(seconds)) => {
            let written = seconds.to_string();
            assert_eq!(after.raw("_session_expiry"), Some(&*written));
        }
    }
    // Once more, it changes nothing; not where one patch asks for a name and its opposite.
    let twice = expected.keys().any(|key| key == "_session_expiry") && expected.expiry.is_some();
    if !twice {
        assert!(!patch.apply(&mut after));
        assert_eq!(after.to_json(), json);
    }
}
