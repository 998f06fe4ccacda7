//! Nothing secret is ever printed or answered: secrets are planted everywhere, all kinds of requests are
//! made, and then everything that came out of the gateway is searched for them: its log, its answers, its metrics, its
//! status page.

use chrono::Duration;
use serde_json::json;

use crate::support::{
    Answer, Ask, Database, Gateway, Reply, SECRET_KEY, Served as _, Upstream, eventually,
    from_tests_run, reply, rows, token,
};

#[test]
fn logs_and_answers_hold_no_secret_as_text() {
    nothing_is_told("text");
}

#[test]
fn logs_and_answers_hold_no_secret_as_json() {
    nothing_is_told("json");
}

fn nothing_is_told(format: &str) {
    let database = Database::postgres();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'")
        .line("timeouts", "response_head = '2s'")
        .line("django", "deadline = '4s'")
        .line("admin", "address = '127.0.0.1:0'")
        .line("log", "fields = ['path', 'status', 'sid', 'user', 'user_agent', 'referer', 'error', 'request_id', 'route']")
        .argument("--log")
        .argument(format)
        .argument("--log-level")
        .argument("trace")
        .start();

    let key = database.login(json!({"name": "planted-value"}));
    let unreadable =
        database.raw_session(&rows::seal("another key", b"planted"), Duration::days(1));
    let pickled = database.raw_session(
        &rows::seal(SECRET_KEY, b"\x80\x04planted"),
        Duration::days(1),
    );
    let mut secrets: Vec<String> = [SECRET_KEY, "planted", "eyJhbGciOiJIUzI1NiI"]
        .map(str::to_owned)
        .into();
    secrets.extend([
        token::secret("app"),
        from_tests_run("SG_TEST_PG_PASSWORD"),
        rows::PASSWORD.to_owned(),
    ]);
    secrets.extend([key.clone(), unreadable.clone(), pickled.clone()]);

    let mut answers: Vec<Answer> = Vec::new();
    for reply in [
        reply(200),
        reply(200).set(r#"{"set":{"new":"planted-value"}}"#),
        reply(200).set(r#"{"set":{"_name":"planted-value"}}"#),
        reply(200).set("planted nonsense"),
        reply(200).set(r#"{"if":"planted"}"#),
        reply(500).set(r#"{"set":{"other":"planted"}}"#),
        Reply::raw("planted"),
        Reply::raw("HTTP/1.1 200 OK\r\nplanted\r\n\r\n"),
    ] {
        app.answers(reply);
        for key in [&key, &unreadable, &pickled] {
            for path in [
                "/?planted-query",
                "/members/a%2fb?planted",
                "/members/?next=planted",
            ] {
                for accept in ["text/html", "*/*"] {
                    let ask = gateway
                        .get(path)
                        .session(key)
                        .field("Accept", accept)
                        .field("Referer", "https://shop.test/?planted-query")
                        .field("X-Session", "planted");
                    answers.push(ask.send());
                    answers.push(
                        gateway
                            .post(path)
                            .session(key)
                            .field("Origin", "https://evil.test")
                            .send(),
                    );
                }
            }
        }
    }
    app.answers(reply(200).set(r#"{"set":{"new":"planted-again"}}"#));
    database.while_locked(&key, || answers.push(gateway.get("/").session(&key).send()));
    app.answers(reply(200).set(r#"{"set":{"first":1}}"#));
    let created = gateway
        .get("/")
        .send()
        .is_upstreams(200)
        .new_session()
        .unwrap();
    secrets.push(created.clone());
    app.answers(reply(200).set(r#"{"cycle":true}"#));
    secrets.push(
        gateway
            .get("/")
            .session(&created)
            .send()
            .is_upstreams(200)
            .new_session()
            .unwrap(),
    );
    // The database goes away: its own words are in the log now.
    database.execute("ALTER TABLE django_session RENAME TO gone");
    answers.push(gateway.get("/").session(&key).send());
    answers.push(gateway.health().get("/readyz").send());
    answers.push(gateway.health().get("/metrics").send());
    let page = gateway.process.address_after("status page on ");
    for target in ["/", "/status.json"] {
        let answer = Ask::new(page, "GET", target).host("localhost").send();
        assert_eq!(answer.status, 200);
        answers.push(answer);
    }
    answers.push(gateway.get("/the-last-one").send());
    eventually("the last line of the log", || {
        gateway.log().contains("/the-last-one").then_some(())
    });

    let log = gateway.log();
    assert!(
        log.lines().filter(|line| line.contains("access")).count() > answers.len() / 2,
        "requests are logged"
    );
    for secret in &secrets {
        // A query may be in the address bar of the visitor, but in no log.
        assert!(
            !log.contains(secret.as_str()),
            "the log holds {secret:?}: {}",
            around(&log, secret)
        );
    }
    for answer in &answers {
        let cookies_aside = answer
            .fields
            .iter()
            .filter(|field| !field.0.eq_ignore_ascii_case("set-cookie"));
        let fields: Vec<_> = cookies_aside
            .filter(|field| !field.0.eq_ignore_ascii_case("location"))
            .collect();
        let text = format!("{fields:?} {}", answer.text());
        for secret in &secrets {
            assert!(
                !text.contains(secret.as_str()),
                "an answer holds {secret:?}: {text}"
            );
        }
    }
}

fn around<'a>(log: &'a str, secret: &str) -> &'a str {
    log.lines()
        .find(|line| line.contains(secret))
        .unwrap_or_default()
}
