//! Real Django beside the gateway: each release on each database, with Django itself behind the same gateway.
//! What one side writes the other one reads.

mod data;
mod ends;
mod logins;
mod messages;
mod zones;

use serde_json::{Value, json};

use crate::support::{
    Answer, Ask, Database, Django, Engine, Gateway, PythonUpstream, Release, Served as _,
    gateway::Setup,
};

#[test]
fn django_4_2_on_sqlite() {
    walk(Release::V42, Engine::Sqlite);
}

#[test]
fn django_4_2_on_postgresql() {
    walk(Release::V42, Engine::Postgres);
}

#[test]
fn django_4_2_on_mariadb() {
    walk(Release::V42, Engine::MariaDb);
}

#[test]
fn django_5_2_on_sqlite() {
    walk(Release::V52, Engine::Sqlite);
}

#[test]
fn django_5_2_on_postgresql() {
    walk(Release::V52, Engine::Postgres);
}

#[test]
fn django_5_2_on_mariadb() {
    walk(Release::V52, Engine::MariaDb);
}

#[test]
fn django_6_1_on_sqlite() {
    walk(Release::V61, Engine::Sqlite);
}

#[test]
fn django_6_1_on_postgresql() {
    walk(Release::V61, Engine::Postgres);
}

#[test]
fn django_6_1_on_mariadb() {
    walk(Release::V61, Engine::MariaDb);
}

fn walk(release: Release, engine: Engine) {
    if !release.is_installed() {
        return;
    }
    let site = &Site::start(release, engine, &json!({}), "");
    logins::a_login_at_django_is_known_to_the_upstream(site);
    logins::django_is_served_as_if_it_stood_alone(site);
    data::what_the_upstream_writes_django_reads(site);
    data::what_django_writes_the_upstream_reads(site);
    data::a_first_write_makes_a_session_that_django_logs_in(site);
    data::an_offered_key_is_never_adopted(site);
    data::a_new_key_ends_the_old_one(site);
    data::forgetting_everything_is_a_logout(site);
    messages::messages_wait_for_their_reader(site);
    ends::an_expiry_is_the_same_on_both_sides(site);
    ends::a_session_ends_with_the_browser_on_both_sides(site);
    ends::a_fixed_end_is_moved_by_nobody(site);
    ends::an_expired_session_is_nobodys_on_both_sides(site);
    logins::passwords_and_deactivation_count_at_the_next_request(site);
    logins::a_deleted_user_is_nobody_at_the_next_request(site);
    logins::a_logout_is_never_undone(site);
    logins::a_wrong_secret_key_costs_nobody_a_login(site);
    logins::a_rotation_of_the_secret_key_logs_nobody_out(site);
}

/// A Django site, an upstream that checks tokens with PyJWT, and the gateway before both.
struct Site {
    release: Release,
    database: Database,
    django: Django,
    app: PythonUpstream,
    gateway: Gateway,
}

impl Site {
    /// A site with settings of its own, which the gateway is told with these lines.
    fn start(release: Release, engine: Engine, settings: &Value, lines: &str) -> Self {
        let database = Database::empty(engine);
        let django = Django::start_with(release, &database, settings);
        let app = PythonUpstream::start();
        let gateway = setup(release, &database, &app, &django)
            .line("django", lines)
            .start();
        Self {
            release,
            database,
            django,
            app,
            gateway,
        }
    }

    /// A request of the upstream.
    fn app(&self, key: &str) -> Ask {
        self.gateway.get("/app/cart?page=2").session(key)
    }

    /// The claims that the upstream gets.
    fn claims(&self, key: &str) -> Value {
        claims(&self.app(key).send())
    }

    /// The same, with this change of the session.
    fn patch(&self, key: &str, change: &str) -> Answer {
        let answer = self.app(key).field("X-Test-Set", change).send();
        answer.is_upstreams(200);
        answer
    }

    /// What Django says of a session's end.
    fn end(&self, key: &str) -> Value {
        self.django.get("/end/").session(key).send().json()
    }

    /// The same gateway once more, over the same site.
    fn setup(&self) -> Setup {
        setup(self.release, &self.database, &self.app, &self.django)
    }

    /// Logs in through the gateway.
    fn log_in(&self, name: &str) -> String {
        let answer = self
            .gateway
            .post(&format!("/login/?username={name}&password={name}"))
            .send();
        answer
            .is_upstreams(200)
            .new_session()
            .expect("Django's cookie")
    }
}

fn setup(release: Release, database: &Database, app: &PythonUpstream, django: &Django) -> Setup {
    Gateway::over(database)
        .line("django", &format!("release = '{}'", release.name()))
        .upstream("app", app)
        .django("site", django)
        .route(
            "path = '/app/'
             upstream = 'app'
             writable = '*'
             may = ['cycle', 'flush', 'expiry']",
        )
        .route(
            "path = '/app/members/'
             upstream = 'app'
             require = 'login'",
        )
        .route(
            "path = '/'
             upstream = 'site'
             session = 'pass'",
        )
}

#[track_caller]
fn claims(answer: &Answer) -> Value {
    answer.is_upstreams(200).json()["claims"].take()
}

#[track_caller]
fn is_nobody(claims: &Value) {
    assert_eq!(claims["session"], json!({}), "{claims}");
    for name in ["sub", "sid", "session_exp", "withheld"] {
        assert!(claims.get(name).is_none(), "{claims}");
    }
}
