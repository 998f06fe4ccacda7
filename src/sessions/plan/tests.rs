//! What is written of each session that Django has been asked about: the row's end and the cookie's life, by the
//! code that writes them. The vectors were made by the releases that they name.

use std::path::Path;

use serde_json::Value;

use super::*;
use crate::{
    config::{Config, LoadOptions},
    django::{Lifetime, cookie},
    sessions::Sessions,
    store::RowData,
};

const VECTORS: &str = include_str!("../../../tests/vectors/django.json");

/// Fixed ends without an offset, which only a site with USE_TZ = False can read back.
const NAIVE_END: [&str; 2] = ["5.2.19-192", "6.1.3-192"];

#[tokio::test]
async fn each_expiry_that_django_has_computed_is_what_rows_and_cookies_get() {
    let mut written = 0;
    for vector in vectors("expiry") {
        let id = vector["id"].as_str().unwrap().to_owned();
        let scene = Scene::of(&vector, "");
        let row = scene.row(&vector["session"]);
        if vector["expect"] != "valid" {
            scene.is_refused(&row, &id);
            continue;
        }
        written += 1;
        let age = match &vector["age"] {
            Value::Bool(age) => i64::from(*age),
            // Max-Age is int(age).
            age => age.as_f64().unwrap() as i64,
        };
        let lifetime = match vector["expire_at_browser_close"] == true {
            true => Lifetime::Browser,
            false => Lifetime::Seconds(age),
        };
        scene.is_written(&row, time(&vector["date"]), lifetime, &id);
    }
    assert!(written > 30, "{written}");
}

#[tokio::test]
async fn each_expiry_that_django_has_stored_is_read_back_when_it_is_saved_again() {
    for vector in vectors("set_expiry") {
        let id = vector["id"].as_str().unwrap().to_owned();
        let scene = Scene::of(&vector, "");
        let stored = &vector["stored"];
        let row = scene.row(&serde_json::json!({ "_session_expiry": stored }));
        if vector["expect"] != "valid" || NAIVE_END.contains(&id.as_str()) {
            scene.is_refused(&row, &id);
            continue;
        }
        let fortnight = scene.now + TimeDelta::days(14);
        match stored {
            Value::String(_) => {
                let end = time(stored);
                let left = Lifetime::Seconds((end - scene.now).num_seconds());
                scene.is_written(&row, end, left, &id);
            }
            stored if stored == 0 => scene.is_written(&row, fortnight, Lifetime::Browser, &id),
            stored => {
                let seconds = stored.as_i64().unwrap();
                let end = scene.now + TimeDelta::seconds(seconds);
                scene.is_written(&row, end, Lifetime::Seconds(seconds), &id);
                // An upstream's "expiry" stores the same, and in a new session too.
                let patch = format!(r#"{{"set":{{"a":1}},"expiry":{seconds}}}"#);
                let (decision, _) = scene.decide(&patch, Some(&scene.row(&serde_json::json!({}))));
                let session = scene.contents(&decision);
                assert_eq!(
                    session.raw("_session_expiry"),
                    Some(&*seconds.to_string()),
                    "{id}"
                );
                let (decision, told) = scene.decide(&patch, None);
                assert_eq!(end_of(&decision), Some(end), "{id}");
                assert_eq!(lifetime_of(told), Lifetime::Seconds(seconds), "{id}");
            }
        }
    }
}

#[tokio::test]
async fn the_setting_decides_where_the_session_does_not() {
    let close = "expire_at_browser_close = true\ncookie = { age = \"1h\" }";
    for (session, lifetime, seconds) in [
        ("{}", Lifetime::Browser, 3600),
        (r#"{"_session_expiry":null}"#, Lifetime::Browser, 3600),
        (r#"{"_session_expiry":0}"#, Lifetime::Browser, 3600),
        (r#"{"_session_expiry":60}"#, Lifetime::Seconds(60), 60),
    ] {
        let scene = Scene::new("5.2", close, time(&Value::from("2024-01-01T00:00:00Z")));
        let row = scene.row(&serde_json::from_str(session).unwrap());
        let end = scene.now + TimeDelta::seconds(seconds);
        scene.is_written(&row, end, lifetime, session);
    }
}

#[tokio::test]
async fn what_cannot_be_saved_can_be_flushed_and_mended() {
    let scene = Scene::new("5.2", "", time(&Value::from("2024-01-01T00:00:00Z")));
    let row = scene.row(&serde_json::json!({"_session_expiry": "soon", "a": 1}));
    scene.is_refused(&row, "soon");
    let (decision, told) = scene.decide(r#"{"flush":true}"#, Some(&row));
    assert!(matches!(decision, Decision::Delete));
    assert_eq!(told, Ok(Changed::Deleted));
    for (patch, lifetime) in [
        (r#"{"expiry":60}"#, Lifetime::Seconds(60)),
        (r#"{"expiry":null}"#, Lifetime::Seconds(1_209_600)),
    ] {
        let (decision, told) = scene.decide(patch, Some(&row));
        assert_eq!(lifetime_of(told), lifetime);
        assert_eq!(scene.contents(&decision).raw("a"), Some("1"));
    }
}

fn vectors(kind: &str) -> Vec<Value> {
    let marked = format!("\"kind\": \"{kind}\"");
    let found: Vec<Value> = VECTORS
        .lines()
        .filter(|line| line.contains(&marked))
        .map(|line| serde_json::from_str(line.trim_end_matches(',')).unwrap())
        .collect();
    assert!(!found.is_empty(), "no vectors of kind {kind}");
    found
}

fn time(text: &Value) -> DateTime<Utc> {
    let time = DateTime::parse_from_rfc3339(text.as_str().unwrap());
    time.unwrap().to_utc()
}

/// A site of some release, at some moment.
struct Scene {
    site: Arc<Site>,
    key: SessionKey,
    now: DateTime<Utc>,
}

impl Scene {
    fn of(vector: &Value, django: &str) -> Self {
        let version = vector["django_version"].as_str().unwrap();
        let release: Vec<&str> = version.split('.').take(2).collect();
        let now = match &vector["modification"] {
            Value::Null => Value::from("2024-01-01T00:00:00Z"),
            now => now.clone(),
        };
        Self::new(&release.join("."), django, time(&now))
    }

    fn new(release: &str, django: &str, now: DateTime<Utc>) -> Self {
        let text = format!(
            "gateway = {{ issuer = \"i\" }}
             upstream.a = {{ servers = [\"127.0.0.1:1\"] }}
             route = [{{ path = \"/\", upstream = \"a\", session = \"off\" }}]
             [django]
             database = \"sqlite:/nowhere\"
             secret_key = {{ env = \"KEY\" }}
             release = \"{release}\"
             {django}"
        );
        let env = |_: &str| Some("secret".into());
        let path = Path::new("gateway.toml");
        let loaded = Config::parse(&text, path, &env, LoadOptions::default()).unwrap();
        // Opened, never connected.
        let site = Sessions::open(&loaded.config, Arc::default()).unwrap().0;
        let key = SessionKey::parse(&[b'k'; 32]).unwrap();
        Self { site, key, now }
    }

    /// A row that is about to end, so that every extension is due.
    fn row(&self, session: &Value) -> SessionRow {
        let session = Session::parse(session.to_string().into_bytes()).unwrap();
        SessionRow {
            data: RowData::Text(self.site.codec.encode(&session, self.now).into()),
            expire_date: self.now - TimeDelta::days(10_000),
        }
    }

    /// With the row under its key; without one, as nobody.
    fn decide(&self, patch: &str, row: Option<&SessionRow>) -> (Decision, Told) {
        let change = Change {
            key: row.map(|_| self.key),
            had_cookie: true,
            logged_out: false,
            patch: Patch::parse(patch.as_bytes()).unwrap(),
            view: Some(View {
                audience: "a".into(),
                forward: Forward::AllButProtected,
            }),
            seen: None,
        };
        let site = self.site.clone();
        let (decision, answer) = SessionPlan { site, change }.decide(row, None, self.now);
        (decision, answer.map(|outcome| outcome.changed))
    }

    fn contents(&self, decision: &Decision) -> Session {
        let data = match decision {
            Decision::Update { data, .. } => data.as_deref().unwrap(),
            Decision::Replace(row) => &row.data,
            other => panic!("{other:?}"),
        };
        self.site.codec.decode(data).unwrap()
    }

    /// By every way in which a session is saved.
    #[track_caller]
    fn is_written(&self, row: &SessionRow, end: DateTime<Utc>, lifetime: Lifetime, what: &str) {
        for patch in [
            "{}",
            r#"{"set":{"a":1}}"#,
            r#"{"cycle":true}"#,
            r#"{"cycle":true,"set":{"a":1}}"#,
        ] {
            let (decision, told) = self.decide(patch, Some(row));
            assert_eq!(end_of(&decision), Some(end), "{what} {patch}");
            let Ok(Changed::Saved(told)) = told else {
                panic!("{what} {patch}: {told:?}")
            };
            assert_eq!(told.lifetime, lifetime, "{what} {patch}");
            let settings = &self.site.settings.cookie;
            let field = cookie::set(settings, &told.key, told.lifetime, told.now);
            let field = field.to_str().unwrap();
            match lifetime {
                Lifetime::Browser => {
                    assert!(
                        !field.contains("Max-Age") && !field.contains("expires"),
                        "{field}"
                    );
                }
                Lifetime::Seconds(seconds) => {
                    let end = self.now + TimeDelta::seconds(seconds);
                    let date = end.format("; expires=%a, %d %b %Y %H:%M:%S GMT");
                    assert!(field.contains(&date.to_string()), "{what}: {field}");
                    assert!(
                        field.contains(&format!("; Max-Age={seconds};")),
                        "{what}: {field}"
                    );
                }
            }
        }
    }

    /// Django fails with an exception where it saves such a session; nothing is written then.
    #[track_caller]
    fn is_refused(&self, row: &SessionRow, what: &str) {
        for patch in ["{}", r#"{"set":{"a":1}}"#, r#"{"cycle":true}"#] {
            let (decision, told) = self.decide(patch, Some(row));
            assert!(
                matches!(decision, Decision::Keep),
                "{what} {patch}: {decision:?}"
            );
            assert_eq!(told, Err(Refused::Unreadable), "{what} {patch}");
        }
    }
}

type Told = Result<Changed, Refused>;

fn end_of(decision: &Decision) -> Option<DateTime<Utc>> {
    match decision {
        Decision::Update { expire_date, .. } => Some(*expire_date),
        Decision::Replace(row) => Some(row.expire_date),
        Decision::Keep | Decision::Delete => None,
    }
}

fn lifetime_of(told: Told) -> Lifetime {
    match told {
        Ok(Changed::Saved(cookie)) => cookie.lifetime,
        other => panic!("{other:?}"),
    }
}
