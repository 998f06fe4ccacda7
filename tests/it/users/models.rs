//! Real Django with user models of its own: what Django does to a user counts here at the next request.

use serde_json::{Value, json};

use crate::support::{Database, Django, Engine, Gateway, PythonUpstream, Release, Served as _};

on_each_engine!(
    members_of_django_4_2,
    members_of_django_5_2,
    clerks_of_django_4_2,
    clerks_of_django_5_2,
);

fn members_of_django_4_2(engine: Engine) {
    members(&Site::start(Release::V42, engine, "Member", MEMBERS));
}

fn members_of_django_5_2(engine: Engine) {
    members(&Site::start(Release::V52, engine, "Member", MEMBERS));
}

fn clerks_of_django_4_2(engine: Engine) {
    clerks(&Site::start(Release::V42, engine, "Clerk", CLERKS));
}

fn clerks_of_django_5_2(engine: Engine) {
    clerks(&Site::start(Release::V52, engine, "Clerk", CLERKS));
}

/// The user table, and the columns to be told.
const MEMBERS: (&str, &str) = (
    "people_member",
    "'id', 'name', 'born', 'balance', 'last_login'",
);

const CLERKS: (&str, &str) = (
    "Clerk",
    "'id', 'username', 'email', 'is_staff', 'is_active', 'Order', 'date_joined', 'groups'",
);

/// A Django site with this user model, an upstream that checks tokens with PyJWT, and the gateway before both.
struct Site {
    django: Django,
    gateway: Gateway,
    _app: PythonUpstream,
    _database: Database,
}

impl Site {
    fn start(
        release: Release,
        engine: Engine,
        model: &str,
        (table, columns): (&str, &str),
    ) -> Self {
        let database = Database::empty(engine);
        let settings = json!({
            "AUTH_USER_MODEL": format!("people.{model}"),
            "INSTALLED_APPS": [
                "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "people", "shop",
            ],
            "ROOT_URLCONF": "people.urls",
        });
        let django = Django::start_with(release, &database, &settings);
        let app = PythonUpstream::start();
        let setup = Gateway::over(&database)
            .line("django", &format!("release = '{}'", release.name()))
            .line("django.user", &format!("table = '{table}'"))
            .upstream("app", &app)
            .django("site", &django)
            .route("path = '/app/'\nupstream = 'app'")
            .route(&format!(
                "path = '/app/told/'\nupstream = 'app'\nrequire = 'login'\nuser = [{columns}]"
            ))
            .route("path = '/'\nupstream = 'site'\nsession = 'pass'");
        let setup = match model {
            "Clerk" => setup
                .route("path = '/app/staff/'\nupstream = 'app'\nrequire = 'staff'")
                .route("path = '/app/editors/'\nupstream = 'app'\nrequire = 'login'\ngroups = ['editors']"),
            _ => setup,
        };
        Self {
            gateway: setup.start(),
            django,
            _app: app,
            _database: database,
        }
    }

    /// Logs in through the gateway.
    fn log_in(&self, name: &str, password: &str) -> String {
        let target = format!("/login/?username={name}&password={password}");
        let answer = self.gateway.post(&target).send();
        answer
            .is_upstreams(200)
            .new_session()
            .expect("Django's cookie")
    }

    /// What the upstream is told.
    fn claims(&self, path: &str, key: &str) -> Value {
        let answer = self.gateway.get(path).session(key).send();
        answer.is_upstreams(200).json()["claims"].take()
    }

    /// The upstream's user, who is Django's; `None` where Django too sees nobody.
    fn user(&self, key: &str) -> Option<String> {
        let user = self.claims("/app/", key)["sub"].as_str().map(str::to_owned);
        assert_eq!(user, self.django.user(key));
        user
    }

    /// The answer where the user may not enter.
    fn refusal(&self, path: &str, key: &str) -> (u16, Option<String>) {
        let answer = self.gateway.get(path).session(key).send();
        (answer.status, answer.code().map(str::to_owned))
    }

    /// An administrator's act.
    fn act(&self, target: &str) {
        let answer = self.django.post(target).send();
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }

    /// The user as Django has it.
    fn known(&self, name: &str) -> Value {
        let answer = self.django.get(&format!("/people/?username={name}")).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn passwords_count(site: &Site) {
    let (here, there) = (site.log_in("bob", "bob"), site.log_in("bob", "bob"));
    assert_eq!(site.user(&here), site.user(&there));
    let answer = site
        .gateway
        .post("/password/?password=new")
        .session(&here)
        .send();
    let here = answer.is_upstreams(200).new_session().expect("a new key");
    assert!(site.user(&here).is_some());
    // Before Django sees that session again, which would delete it.
    let claims = site.claims("/app/", &there);
    assert_eq!(claims["session"], json!({}));
    assert!(claims.get("sid").is_none(), "{claims}");
    assert_eq!(site.user(&there), None);
    site.act("/user/password/?username=bob&password=bob");
    assert!(site.claims("/app/", &here).get("sid").is_none());
    let login = (401, Some("login-required".to_owned()));
    assert_eq!(site.refusal("/app/told/", &here), login);
}

fn a_deletion_counts(site: &Site) {
    let key = site.log_in("bob", "bob");
    site.django.post("/set/?note=1").session(&key).send();
    assert!(site.user(&key).is_some());
    site.act("/people/delete/?username=bob");
    let claims = site.claims("/app/", &key);
    assert_eq!(
        claims["session"],
        json!({"note": 1}),
        "the session is as it was"
    );
    assert!(
        claims["sid"].is_string() && claims.get("sub").is_none(),
        "{claims}"
    );
    assert_eq!(site.user(&key), None);
    let login = (401, Some("login-required".to_owned()));
    assert_eq!(site.refusal("/app/told/", &key), login);
}

fn members(site: &Site) {
    let key = site.log_in("alice", "alice");
    let known = site.known("alice");
    let user = site.user(&key).unwrap();
    assert_eq!(known["pk"], user);
    assert_eq!((user.len(), user.matches('-').count()), (36, 4), "{user}");
    let told = &site.claims("/app/told/", &key)["user"];
    assert_eq!(
        (&told["id"], &told["name"]),
        (&json!(user), &json!("alice"))
    );
    assert!(
        told.get("born").is_none() && told.get("balance").is_none(),
        "{told}"
    );
    is_same_moment(&told["last_login"], &known["user"]["last_login"]);

    site.act(r#"/people/change/?username=alice&born="1815-12-10"&balance="1234567.50""#);
    let told = &site.claims("/app/told/", &key)["user"];
    assert_eq!(told["born"], "1815-12-10");
    assert_eq!(told["balance"], 1_234_567.5);
    assert_eq!(site.known("alice")["user"]["balance"], "1234567.50");
    site.act(
        r#"/people/change/?username=alice&name="Zo\u00eb \"Z\"""#
            .replace(' ', "%20")
            .as_str(),
    );
    let told = &site.claims("/app/told/", &key)["user"];
    assert_eq!(told["name"], "Zoë \"Z\"");

    passwords_count(site);
    a_deletion_counts(site);
}

fn clerks(site: &Site) {
    let key = site.log_in("alice", "alice");
    let known = site.known("alice");
    assert_eq!(site.user(&key).as_deref(), known["pk"].as_str());
    let told = || site.claims("/app/told/", &key)["user"].take();
    let first = told();
    for name in ["id", "username", "email", "is_staff", "is_active", "groups"] {
        assert_eq!(first[name], known["user"][name], "{name}");
    }
    assert!(first.get("Order").is_none(), "{first}");
    is_same_moment(&first["date_joined"], &known["user"]["date_joined"]);

    let refused = (403, Some("not-allowed".to_owned()));
    for group in ["writers", "editors", "Gr%C3%BCn"] {
        assert_eq!(
            site.refusal("/app/editors/", &key).0,
            if group == "Gr%C3%BCn" { 200 } else { 403 }
        );
        site.act(&format!("/people/join/?username=alice&group={group}"));
    }
    assert_eq!(told()["groups"], json!(["Grün", "editors", "writers"]));
    assert_eq!(told()["groups"], site.known("alice")["user"]["groups"]);
    site.act("/people/leave/?username=alice&group=editors");
    assert_eq!(site.refusal("/app/editors/", &key), refused);
    assert_eq!(told()["groups"], json!(["Grün", "writers"]));

    assert_eq!(site.refusal("/app/staff/", &key), refused);
    site.act("/people/change/?username=alice&is_staff=true&rank=7");
    assert_eq!(site.refusal("/app/staff/", &key).0, 200);
    assert_eq!(
        (&told()["is_staff"], &told()["Order"]),
        (&json!(true), &json!(7))
    );
    site.act("/people/change/?username=alice&is_staff=false");
    assert_eq!(site.refusal("/app/staff/", &key), refused);

    site.act("/people/change/?username=alice&is_staff=true&is_superuser=true");
    site.act("/user/active/?username=alice&active=false");
    let claims = site.claims("/app/", &key);
    assert!(
        claims["sid"].is_string() && claims.get("sub").is_none(),
        "{claims}"
    );
    assert_eq!(site.user(&key), None);
    for path in ["/app/staff/", "/app/told/", "/app/editors/"] {
        let login = (401, Some("login-required".to_owned()));
        assert_eq!(site.refusal(path, &key), login);
    }
    site.act("/user/active/?username=alice&active=true");
    assert_eq!(site.user(&key).as_deref(), known["pk"].as_str());
    assert_eq!(site.refusal("/app/staff/", &key).0, 200);

    passwords_count(site);
    a_deletion_counts(site);
}

/// Django's JSON cuts moments to milliseconds.
#[track_caller]
fn is_same_moment(told: &Value, known: &Value) {
    let seconds = |value: &Value| {
        value
            .as_str()
            .unwrap()
            .split(['.', 'Z'])
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(seconds(told), seconds(known));
    assert!(told.as_str().unwrap().ends_with('Z'), "{told}");
}
