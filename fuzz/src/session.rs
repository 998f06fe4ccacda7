//! A session's JSON, as the database holds it: split, projected, changed.
//!
//! Input: a name on the first line, then the payload.

use std::sync::LazyLock;

use chrono::DateTime;
use session_gateway::{
    assertion::project,
    config::{Forward, Protected},
    django::{Release, Settings, expiry, login},
    session::Session,
};

use super::{first_line, oracle::Json};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let mut settings = Settings::new("a secret key");
    settings.release = Release(5, 2);
    settings
});

/// Runs the target.
pub fn check(input: &[u8]) {
    let (name, payload) = first_line(input);
    let name = String::from_utf8_lossy(name);
    let Ok(session) = Session::parse(payload.to_vec()) else {
        let strict = Json::strict(payload).filter(|_| payload.is_ascii());
        assert!(
            !matches!(strict, Some(Json::Object(_))),
            "Django reads this"
        );
        return;
    };
    check_text(payload, &session);
    check_changed(&session, &name);
    check_projected(&session, &name);

    // No end that a session gives itself, and no login in it, is more than refused.
    let now = DateTime::from_timestamp_secs(1_764_000_000).expect("a moment");
    let _ = expiry(&session, &SETTINGS, now);
    let _ = login(&session);
}

/// A member's name and value, as they are spelt.
fn members(session: &Session) -> Vec<(String, String)> {
    session
        .members()
        .map(|member| (member.raw_name.to_owned(), member.raw_value.to_owned()))
        .collect()
}

/// Written and read again, it is the same.
fn check_text(payload: &[u8], session: &Session) {
    let json = session.to_json();
    assert!(json.is_ascii());
    assert_eq!(json.len(), session.json_len());
    assert_eq!(session.len(), members(session).len());
    let again = Session::parse(json.clone().into_bytes()).expect("what is written is read");
    assert_eq!(again.to_json(), json);
    assert_eq!(members(&again), members(session));
    let mut names: Vec<Vec<u8>> = session.members().map(|m| m.name.into_owned()).collect();
    names.sort_unstable();
    assert!(
        names.windows(2).all(|pair| pair[0] != pair[1]),
        "a name twice"
    );

    // Another reader finds the same in it, where every reader can.
    let portable = session.members().all(|member| member.portable);
    let Some(Json::Object(expected)) = Json::strict(payload).filter(|_| payload.is_ascii()) else {
        // What lies deeper than an overwritten member is not looked at again.
        assert!(!portable || names.len() < payload.len());
        return;
    };
    for member in session.members().filter(|member| member.portable) {
        let name = std::str::from_utf8(&member.name).expect("no surrogate");
        let value = expected.iter().rev().find(|(known, _)| known == name);
        let value = value.map(|(_, value)| value.clone());
        assert_eq!(Json::strict(member.raw_value.as_bytes()), value, "{name}");
        assert_eq!(session.raw(name), Some(member.raw_value));
    }
}

/// What is not named stays byte for byte.
fn check_changed(session: &Session, name: &str) {
    let others = |session: &Session| -> Vec<(String, String)> {
        let other = session
            .members()
            .filter(|member| *member.name != *name.as_bytes());
        other
            .map(|member| (member.raw_name.to_owned(), member.raw_value.to_owned()))
            .collect()
    };
    let before = others(session);
    let had = session.len() > before.len();
    assert_eq!(session.contains(name), had);

    let mut set = session.clone();
    set.set(name, "[1,\"\\u00e9\"]");
    assert_eq!(others(&set), before);
    assert_eq!(set.raw(name), Some("[1,\"\\u00e9\"]"));
    assert_eq!(set.len(), before.len() + 1);
    check_rewritten(&set);

    let mut removed = session.clone();
    assert_eq!(removed.remove(name), had);
    assert_eq!(members(&removed), before);
    check_rewritten(&removed);

    let mut all = session.clone();
    assert_eq!(all.remove_all(&[name.to_owned()]), had);
    assert_eq!(members(&all), before);
    check_rewritten(&all);
}

fn check_rewritten(session: &Session) {
    let json = session.to_json();
    assert!(json.is_ascii());
    assert_eq!(json.len(), session.json_len());
    let again = Session::parse(json.into_bytes()).expect("what is written is read");
    assert_eq!(members(&again), members(session));
}

/// An upstream gets strict JSON of the names that are its own to see.
fn check_projected(session: &Session, name: &str) {
    let protected = Protected::new(vec!["acl*".into()]);
    for forward in [
        Forward::AllButProtected,
        Forward::Only(vec![name.to_owned(), "_auth_user_hash".into()]),
    ] {
        let Ok(projected) = project(session, &forward, &protected) else {
            continue;
        };
        let Some(Json::Object(told)) = Json::strict(projected.as_bytes()) else {
            panic!("no verifier reads {projected}");
        };
        for (told, _) in &told {
            match forward {
                Forward::AllButProtected => assert!(!protected.contains(told), "{told}"),
                Forward::Only(_) => assert!(told == name && told != "_auth_user_hash"),
            }
        }
        let mut names: Vec<&String> = told.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(
            names.windows(2).all(|pair| pair[0] != pair[1]),
            "a name twice"
        );
    }
}
