//! What a program may rely on, on a SQLite file with Django's tables.

use std::{borrow::Cow, future::Future, time::Duration};

use chrono::TimeDelta;
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{
    django::{Release, Settings},
    sample::Site,
};

mod model;

/// A key that no row has.
const UNKNOWN: &str = "0123456789abcdefghijklmnopqrstuv";

async fn site() -> (Site, Sessions) {
    let site = Site::new().await.unwrap();
    let sessions = site.sessions().await.unwrap();
    (site, sessions)
}

async fn loaded(sessions: &Sessions, key: Option<&str>) -> Session {
    let mut session = sessions.get(key);
    session.load().await.unwrap();
    session
}

/// A session with these contents; its key.
async fn stored(sessions: &Sessions, contents: Value) -> String {
    let mut session = loaded(sessions, None).await;
    for (name, value) in contents.as_object().unwrap() {
        session.unsafe_insert(name, value).unwrap();
    }
    assert!(session.save().await.unwrap());
    session.key().unwrap().to_owned()
}

fn contents(session: &Session) -> Value {
    let members = session.iter().unwrap();
    let members =
        members.map(|(name, raw)| (name.into_owned(), serde_json::from_str(raw).unwrap()));
    Value::Object(members.collect())
}

#[test]
fn a_session_goes_wherever_its_request_goes() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Session>();
    is_send_and_sync::<Sessions>();
}

#[tokio::test]
async fn what_was_not_read_is_no_empty_session() {
    let (_site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1})).await;
    let mut session = sessions.get(Some(&key));
    assert_eq!(session.get::<u8>("a"), Err(Error::NotLoaded));
    assert_eq!(session.contains("a"), Err(Error::NotLoaded));
    assert_eq!(session.len(), Err(Error::NotLoaded));
    assert_eq!(session.user().err(), Some(Error::NotLoaded));
    assert_eq!(session.insert("a", 2), Err(Error::NotLoaded));
    assert_eq!(session.remove("a"), Err(Error::NotLoaded));
    assert_eq!(session.clear(), Err(Error::NotLoaded));
    assert_eq!(session.set_expiry(None), Err(Error::NotLoaded));
    assert_eq!((session.key(), session.is_empty()), (None, false));
    assert_eq!(session.save().await, Ok(false));
    session.load().await.unwrap();
    assert_eq!(session.get("a"), Ok(Some(1)));
}

#[tokio::test]
async fn a_key_that_a_client_made_up_is_never_adopted() {
    let (_site, sessions) = site().await;
    for offered in [
        None,
        Some(""),
        Some("short"),
        Some(UNKNOWN),
        Some("a\0b"),
        Some(" \u{e9}"),
    ] {
        let mut session = loaded(&sessions, offered).await;
        assert_eq!((session.key(), session.is_empty()), (None, true));
        assert_eq!(session.user().unwrap().map(|user| &user.id), None);
        session.insert("a", 1).unwrap();
        assert!(session.save().await.unwrap());
        let key = session.key().unwrap();
        assert!(SessionKey::parse(key.as_bytes()).is_some() && Some(key) != offered);
        assert_eq!(
            contents(&loaded(&sessions, Some(key)).await),
            json!({"a": 1})
        );
        assert!(!session.is_empty());
    }
}

#[tokio::test]
async fn a_float_is_the_one_that_python_wrote() {
    let (_site, sessions) = site().await;
    let mut session = loaded(&sessions, None).await;
    // A reader that is fast rather than exact makes a neighbour of each of them.
    for number in [0.9158478740507359, 935.7116851572259, 9.951776705203319] {
        session.insert("a", number).unwrap();
        assert_eq!(session.get("a"), Ok(Some(number)));
    }
}

#[tokio::test]
async fn contents_are_read_and_changed_like_a_dict() {
    let (_site, sessions) = site().await;
    let key = stored(
        &sessions,
        json!({"a": 1, "b": [1.5, null], "caf\u{e9}": "x"}),
    )
    .await;
    let mut session = loaded(&sessions, Some(&key)).await;
    assert!(!session.accessed());
    assert_eq!(session.get("a"), Ok(Some(1)));
    assert!(session.accessed() && !session.modified());
    assert_eq!(session.get("b"), Ok(Some((1.5, None::<u8>))));
    assert_eq!(session.get_raw("b"), Ok(Some("[1.5,null]")));
    assert_eq!(session.get("caf\u{e9}"), Ok(Some("x".to_owned())));
    assert_eq!(session.get::<u8>("missing"), Ok(None));

    session.insert("z", 1).unwrap();
    session.insert("b", "second").unwrap();
    session.insert("c", ()).unwrap();
    assert_eq!(session.remove("a"), Ok(true));
    assert_eq!(session.remove("a"), Ok(false));
    let names: Vec<String> = session.keys().unwrap().map(Cow::into_owned).collect();
    assert_eq!(names, ["b", "caf\u{e9}", "z", "c"]);
    assert_eq!(
        (session.len(), session.contains("c"), session.contains("a")),
        (Ok(4), Ok(true), Ok(false))
    );
    assert_eq!(session.get("c"), Ok(Some(None::<u8>)));
    assert!(session.modified());
    assert!(session.save().await.unwrap() && !session.modified());
    let expected = json!({"b": "second", "caf\u{e9}": "x", "z": 1, "c": null});
    assert_eq!(contents(&session), expected);
    assert_eq!(contents(&loaded(&sessions, Some(&key)).await), expected);
}

#[tokio::test]
async fn what_is_as_it_was_read_is_no_change() {
    let (_site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": {"n": 1.0}})).await;
    let mut session = loaded(&sessions, Some(&key)).await;
    session.insert("a", json!({"n": 1.0})).unwrap();
    session.remove("b").unwrap();
    session.insert("c", 1).unwrap();
    session.remove("c").unwrap();
    session.insert("a", 2).unwrap();
    session.insert("a", json!({"n": 1.0})).unwrap();
    assert!(!session.modified());
    assert_eq!(session.save().await, Ok(false));
    assert_eq!(session.cookie(), None);
}

#[tokio::test]
async fn names_that_give_rights_are_written_by_name_only() {
    let (_site, sessions) = site().await;
    let mut session = loaded(&sessions, None).await;
    for name in ["_auth_user_id", "_x", "hijack_history", "otp_device_id"] {
        let error = session.insert(name, "1").unwrap_err();
        assert_eq!(error, Error::Protected(format!("\"{name}\"")));
        assert_eq!(session.remove(name), Err(error));
        session.unsafe_insert(name, "1").unwrap();
        assert_eq!(session.unsafe_remove(name), Ok(true));
    }
    let name = "_session_expiry";
    assert_eq!(session.insert(name, "soon"), Err(Error::SessionExpiry));
    assert_eq!(
        session.unsafe_insert(name, "soon"),
        Err(Error::SessionExpiry)
    );
    assert_eq!(session.unsafe_remove(name), Err(Error::SessionExpiry));
    assert!(!session.modified());

    let site = Site::new().await.unwrap();
    let sessions = Sessions::connect(site.url(), site.settings()).protect(["acl:*"]);
    let mut session = loaded(&sessions.await.unwrap(), None).await;
    assert!(session.insert("acl:admin", 1).is_err());
}

#[tokio::test]
async fn what_django_would_lose_a_session_over_is_refused_and_never_shown() {
    let (_site, sessions) = site().await;
    let mut session = loaded(&sessions, None).await;
    for error in [
        session.insert("a", f64::NAN),
        session.insert("a", "planted\0"),
        session.insert("a\0planted", 1),
        session.insert("a", "planted ".repeat(9000)),
    ] {
        let error = error.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(
            !said.contains("planted ") && !said.contains("planted\\0\"}"),
            "{said}"
        );
    }
    assert!(!session.modified());

    session.insert("a", "planted").unwrap();
    let error = session.get::<u8>("a").unwrap_err();
    assert_eq!(error, Error::Type("\"a\"".to_owned()));
    assert!(!format!("{session:?}").contains("planted"));

    // Each fits; together they are over 64 KiB.
    for name in ["b", "c"] {
        session.insert(name, "x".repeat(40_000)).unwrap();
    }
    assert_eq!(session.save().await, Err(Error::TooLarge));
    assert_eq!(session.key(), None);
    session.remove("c").unwrap();
    assert_eq!(session.save().await, Ok(true));
}

#[tokio::test]
async fn who_is_logged_in_is_whom_django_would_say() {
    let (site, sessions) = site().await;
    let key = site.log_in().await.unwrap();
    let session = loaded(&sessions, Some(&key)).await;
    assert_eq!(
        session.user().unwrap().map(|user| user.id.as_str()),
        Some("1")
    );

    let told = Sessions::connect(site.url(), site.settings()).user_columns(["username", "email"]);
    let told = told.user_groups("auth_user_groups", "auth_group");
    let session = loaded(&told.await.unwrap(), Some(&key)).await;
    let user = session.user().unwrap().unwrap();
    assert_eq!(user.column("username"), Some("\"demo\""));
    assert_eq!(user.get("username"), Some("demo".to_owned()));
    assert_eq!(user.get::<u8>("username"), None);
    assert_eq!(user.column("password"), None);
    assert_eq!(user.groups(), [] as [&str; 0]);

    site.execute("UPDATE auth_user SET is_active = 0")
        .await
        .unwrap();
    let session = loaded(&sessions, Some(&key)).await;
    assert!(session.user().unwrap().is_none() && session.key() == Some(key.as_str()));
}

#[tokio::test]
async fn a_login_that_fits_no_more_is_nobody_and_its_row_goes_with_the_next_change() {
    let (site, sessions) = site().await;
    let key = site.log_in().await.unwrap();
    site.execute("UPDATE auth_user SET password = '!another'")
        .await
        .unwrap();
    let mut session = loaded(&sessions, Some(&key)).await;
    assert_eq!((session.key(), session.is_empty()), (None, true));
    assert!(session.user().unwrap().is_none());
    assert_eq!((session.len(), session.save().await), (Ok(0), Ok(false)));

    session.insert("cart", ["book"]).unwrap();
    assert!(session.save().await.unwrap());
    assert_eq!(contents(&session), json!({"cart": ["book"]}));
    assert!(session.key().is_some_and(|new| new != key));
    site.execute("UPDATE auth_user SET password = '!sample'")
        .await
        .unwrap();
    assert_eq!(loaded(&sessions, Some(&key)).await.key(), None);
}

#[tokio::test]
async fn a_row_that_cannot_be_verified_is_an_error_and_is_never_overwritten() {
    let (site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1})).await;
    let forged = format!(
        "UPDATE django_session SET session_data = 'x' || session_data WHERE session_key = '{key}'"
    );
    site.execute(forged).await.unwrap();
    let mut session = sessions.get(Some(&key));
    let error = session.load().await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Unreadable(_)), "{error}");
    assert_eq!(session.save().await, Ok(false));
    assert_eq!(session.cycle_key().await, Err(error.clone()));
    assert_eq!(session.flush().await, Err(error));
    assert_eq!(session.cookie(), None);
}

#[tokio::test]
async fn a_session_that_has_gone_is_never_written_again() {
    let (_site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1})).await;
    let mut session = loaded(&sessions, Some(&key)).await;
    loaded(&sessions, Some(&key)).await.flush().await.unwrap();

    session.insert("a", 2).unwrap();
    assert_eq!(session.save().await, Err(Error::SessionGone));
    assert_eq!(session.cycle_key().await, Err(Error::SessionGone));
    assert_eq!(loaded(&sessions, Some(&key)).await.key(), None);
    assert!(session.modified() && session.cookie().is_none());
    // Deleted is what it was to become.
    let mut other = loaded(&sessions, Some(&key)).await;
    other.flush().await.unwrap();
    session.flush().await.unwrap();
    session.insert("a", 3).unwrap();
    assert!(session.save().await.unwrap());
    assert_ne!(session.key(), Some(key.as_str()));
}

#[tokio::test]
async fn an_expiry_alone_makes_no_session_and_is_kept_for_the_one_that_comes() {
    let (site, sessions) = site().await;
    let mut session = loaded(&sessions, None).await;
    session.set_expiry(Some(300)).unwrap();
    assert_eq!(session.save().await, Ok(false));
    assert!(session.modified() && session.key().is_none());
    session.insert("a", 1).unwrap();
    assert!(session.save().await.unwrap());
    let left = session.expire_date().unwrap() - Utc::now();
    assert!((298..=300).contains(&left.num_seconds()), "{left}");
    let cookie = session.cookie().unwrap();
    assert!(cookie.to_str().unwrap().contains("Max-Age=300;"));

    let fortnight = 14 * 24 * 60 * 60;
    session.set_expiry(Some(0)).unwrap();
    assert_eq!(session.expires_at_browser_close(), Ok(true));
    assert_eq!(session.expiry_age(), Ok(fortnight));
    session.save().await.unwrap();
    assert!(
        !session
            .cookie()
            .unwrap()
            .to_str()
            .unwrap()
            .contains("Max-Age")
    );
    session.set_expiry(None).unwrap();
    assert_eq!(session.expires_at_browser_close(), Ok(false));
    session.save().await.unwrap();
    assert_eq!(session.contains("_session_expiry"), Ok(false));
    let refused = session.set_expiry(Some(u64::MAX));
    assert!(matches!(refused, Err(Error::Expiry(_))) && !session.modified());

    let end = Utc::now() + TimeDelta::days(3);
    session.set_expiry_at(end).unwrap();
    session.save().await.unwrap();
    assert_eq!(
        session.expire_date().unwrap().timestamp_micros(),
        end.timestamp_micros()
    );
    let old = Settings {
        release: Release(3, 2),
        ..site.settings()
    };
    let mut session = loaded(&Sessions::connect(site.url(), old).await.unwrap(), None).await;
    assert!(matches!(session.set_expiry_at(end), Err(Error::Expiry(_))));
}

#[tokio::test]
async fn clear_forgets_what_was_read_and_keeps_what_others_add() {
    let (_site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1, "_b": 2})).await;
    let mut session = loaded(&sessions, Some(&key)).await;
    session.insert("c", 3).unwrap();
    session.clear().unwrap();
    assert_eq!(session.len(), Ok(0));
    session.insert("a", 4).unwrap();
    let mut other = loaded(&sessions, Some(&key)).await;
    other.insert("d", 5).unwrap();
    other.save().await.unwrap();
    assert!(session.save().await.unwrap());
    assert_eq!(contents(&session), json!({"a": 4, "d": 5}));
    assert_eq!(session.key(), Some(key.as_str()));
}

#[tokio::test]
async fn the_session_cookie_is_found_as_django_finds_it() {
    let (site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1})).await;
    let two = [format!("sessionid={UNKNOWN}; sessionid=\"{key}\"")];
    let of = |sessions: &Sessions, fields: &[String]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("cookie", field.parse().unwrap());
        }
        sessions.for_request(&headers)
    };
    let mut session = of(&sessions, &two);
    assert_eq!(session.load().await.unwrap().get("a"), Ok(Some(1)));
    let mut session = of(&sessions, &[]);
    assert!(session.is_empty() && session.load().await.unwrap().is_empty());

    let mut settings = site.settings();
    settings.cookie.refuse_duplicate = true;
    let strict = Sessions::connect(site.url(), settings).await.unwrap();
    let mut session = of(&strict, &two);
    assert_eq!(session.load().await.map(drop), Err(Error::AmbiguousCookie));
    assert_eq!(session.flush().await, Err(Error::AmbiguousCookie));
}

#[tokio::test]
async fn a_response_is_finished_as_the_session_middleware_does() {
    let (_site, sessions) = site().await;
    let finished = async |session: &mut Session, status: u16| {
        let mut headers = HeaderMap::new();
        let status = StatusCode::from_u16(status).unwrap();
        session.finish(status, &mut headers).await.unwrap();
        let field = |name| Some(headers.get(name)?.to_str().unwrap().to_owned());
        (field("vary"), field("set-cookie"))
    };
    let vary = Some("Cookie".to_owned());
    let mut session = loaded(&sessions, None).await;
    assert_eq!(finished(&mut session, 200).await, (None, None));
    session.get::<u8>("a").unwrap();
    assert_eq!(finished(&mut session, 200).await, (vary.clone(), None));
    session.insert("a", 1).unwrap();
    assert_eq!(finished(&mut session, 500).await, (vary.clone(), None));
    assert_eq!(session.key(), None);
    let (varies, cookie) = finished(&mut session, 302).await;
    let key = session.key().unwrap().to_owned();
    assert_eq!(varies, vary);
    assert!(cookie.unwrap().starts_with(&format!("sessionid={key}; ")));

    let mut session = loaded(&sessions, Some(&key)).await;
    session.flush().await.unwrap();
    let (varies, cookie) = finished(&mut session, 500).await;
    assert_eq!(varies, vary);
    assert!(cookie.unwrap().starts_with("sessionid=\"\"; "));
    // A cookie that led nowhere is deleted where the program says that there is to be no session.
    let mut session = loaded(&sessions, Some(UNKNOWN)).await;
    session.flush().await.unwrap();
    assert!(finished(&mut session, 200).await.1.is_some());
    let mut session = loaded(&sessions, None).await;
    session.flush().await.unwrap();
    assert_eq!(finished(&mut session, 200).await.1, None);
}

#[tokio::test]
async fn with_save_every_request_a_session_that_was_read_is_extended() {
    let (site, sessions) = site().await;
    let mut settings = site.settings();
    settings.save_every_request = true;
    let rolling = Sessions::connect(site.url(), settings).await.unwrap();
    let key = stored(&sessions, json!({"a": 1})).await;
    let half = "UPDATE django_session SET expire_date = datetime('now', '+7 days')";
    site.execute(half).await.unwrap();

    for (sessions, extended) in [(&sessions, false), (&rolling, true)] {
        let mut session = loaded(sessions, Some(&key)).await;
        let mut headers = HeaderMap::new();
        session.finish(StatusCode::OK, &mut headers).await.unwrap();
        assert_eq!(headers.contains_key("set-cookie"), extended);
        let days = (session.expire_date().unwrap() - Utc::now()).num_days();
        assert_eq!(days > 12, extended, "{days}");
        let read = loaded(sessions, Some(&key)).await.expire_date();
        assert_eq!(read, session.expire_date());
    }
    let mut session = loaded(&rolling, Some(UNKNOWN)).await;
    let mut headers = HeaderMap::new();
    session.finish(StatusCode::OK, &mut headers).await.unwrap();
    assert!(headers.is_empty() && session.key().is_none());
}

#[tokio::test]
async fn a_save_goes_on_when_its_caller_leaves() {
    let (_site, sessions) = site().await;
    let key = stored(&sessions, json!({"a": 1})).await;
    let mut session = loaded(&sessions, Some(&key)).await;
    session.insert("a", 2).unwrap();
    {
        let mut save = Box::pin(session.save());
        let once = std::future::poll_fn(|context| {
            std::task::Poll::Ready(save.as_mut().poll(context).is_pending())
        });
        assert!(once.await, "the save takes longer than one look at it");
    }
    sessions.store().under_way().none().await;
    assert_eq!(loaded(&sessions, Some(&key)).await.get("a"), Ok(Some(2)));
    assert!(session.modified(), "nobody has heard of it");
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_one_sentence() {
    let site = Site::new().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("sqlite:{}", folder.path().join("none.sqlite3").display());
    let connect = |url: &str| Sessions::connect(url, site.settings());
    let failed = async |connect: super::super::Connect| {
        let error = connect.patience(Duration::from_secs(5)).await.unwrap_err();
        let sentence = error.to_string();
        assert!(
            !sentence.contains('\n') && !sentence.contains("planted"),
            "{sentence}"
        );
        (error, sentence)
    };
    let (error, _) = failed(connect("redis://user:planted@host")).await;
    assert!(matches!(error, Error::Settings(_)));
    let (error, sentence) = failed(connect(&missing)).await;
    assert!(matches!(error, Error::Refused(_)) && sentence.contains("none.sqlite3"));
    let (error, sentence) = failed(connect(site.url()).table("no_such_table")).await;
    assert!(matches!(error, Error::Refused(_)) && sentence.contains("no_such_table"));
    let (error, sentence) = failed(connect(site.url()).table("x; DROP TABLE y")).await;
    assert!(matches!(error, Error::Settings(_)) && sentence.contains("is not a table name"));
    let (_, sentence) = failed(connect(site.url()).user_columns(["no such"])).await;
    assert!(sentence.contains("is not a column name"), "{sentence}");
    let (_, sentence) = failed(connect(site.url()).max_staleness(Duration::from_secs(61))).await;
    assert!(sentence.contains("at most a minute"), "{sentence}");
    let (_, sentence) = failed(Sessions::connect(site.url(), Settings::new(""))).await;
    assert!(sentence.contains("SECRET_KEY"), "{sentence}");
    // Nobody listens there.
    let away = connect("postgres://user:planted@127.0.0.1:1/name");
    let away = away
        .deadline(Duration::from_millis(50))
        .patience(Duration::from_millis(300));
    let error = away.await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[test]
fn without_a_runtime_there_is_a_sentence_and_no_panic() {
    let mut connect = Box::pin(Sessions::connect("sqlite:x", Settings::new("key")).into_future());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = connect.as_mut().poll(&mut context) else {
        panic!("it waits")
    };
    assert_eq!(error, Error::NoRuntime);
}
