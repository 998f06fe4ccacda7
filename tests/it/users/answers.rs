//! The table "Who may not enter" of docs/configuration.md, row by row.

use serde_json::json;

use crate::support::{Answer, Ask, Database, Gateway, Scene, Served as _, Upstream};

const DOCS: &str = include_str!("../../../docs/configuration.md");

/// A row of the table.
struct Row<'a> {
    request: &'a str,
    method: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    not_logged_in: &'a str,
    not_allowed: &'a str,
}

impl Row<'_> {
    fn ask(&self, ask: Ask) -> Ask {
        let ask = self
            .fields
            .iter()
            .fold(ask, |ask, (name, value)| ask.field(name, value));
        match self.method {
            "GET" | "HEAD" => ask,
            _ => ask.body(""),
        }
    }
}

fn rows() -> Vec<Row<'static>> {
    let (_, section) = DOCS.split_once("### Who may not enter").unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| "));
    let rows = lines.skip(1).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [request, method, fields, not_logged_in, not_allowed] = cells[..] else {
            panic!("{line}")
        };
        let fields = fields.split('`').filter_map(|field| field.split_once(": "));
        Row {
            request,
            method,
            fields: fields.collect(),
            not_logged_in,
            not_allowed,
        }
    });
    rows.collect()
}

#[test]
fn each_row_of_the_table_is_true() {
    let database = Database::sqlite();
    let user = database.login(json!({}));
    let cart = database.session(&json!({"cart": 1}));
    let app = Upstream::start();
    let gateway = Gateway::over(&database)
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nrequire = 'staff'")
        .route("path = '/strict/'\nupstream = 'app'\nrequire = 'staff'\non_anonymous = '401'")
        .start();
    let rows = rows();
    assert!(rows.len() > 20, "the table is found");
    for row in &rows {
        let ask = |path: &str, key: Option<&String>| {
            let ask = gateway
                .ask(row.method, path)
                .maybe_session(key.map(String::as_str));
            row.ask(ask).send()
        };
        for key in [None, Some(&cart)] {
            is(&ask("/x?y", key), row.not_logged_in, row);
        }
        is(&ask("/x?y", Some(&user)), row.not_allowed, row);
        let strict = ask("/strict/", None);
        assert_eq!(strict.status, 401, "{}", row.request);
        if row.not_logged_in != "login page" {
            is(&strict, row.not_logged_in, row);
        }
    }
    assert!(app.take().is_empty(), "the upstream is not called");
    // Those who may enter do, whatever the request looks like.
    database.execute("UPDATE auth_user SET is_staff = true");
    for row in &rows {
        let ask = gateway.ask(row.method, "/").session(&user);
        row.ask(ask).send().is_upstreams(200);
    }
}

#[track_caller]
fn is(answer: &Answer, cell: &str, row: &Row<'_>) {
    let request = row.request;
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{request}");
    assert_eq!(answer.field("vary"), Some("Cookie"), "{request}");
    let login = answer.field("location");
    if cell == "login page" {
        assert_eq!(answer.status, 302, "{request}: {answer:?}");
        assert_eq!(login, Some("/accounts/login/?next=/x%3Fy"), "{request}");
        return;
    }
    assert_eq!(login, None, "{request}");
    let (status, kind) = cell.split_once(' ').unwrap();
    let code = match status {
        "401" => "login-required",
        "403" => "not-allowed",
        _ => panic!("{cell}"),
    };
    let kind = match kind {
        "HTML" => "text/html; charset=utf-8",
        "JSON" => "application/problem+json",
        _ => panic!("{cell}"),
    };
    let found = (
        answer.status.to_string(),
        answer.code(),
        answer.field("content-type"),
    );
    assert_eq!(
        found,
        (status.to_owned(), Some(code), Some(kind)),
        "{request}"
    );
    assert_eq!(
        answer.field("www-authenticate").is_some(),
        status == "401",
        "{request}"
    );
}

#[test]
fn an_address_that_is_too_long_for_a_login_page_is_left_out() {
    let scene = Scene::start();
    for (query, is_whole) in [(10, true), (1000, true), (4000, false), (20_000, false)] {
        for letter in ["a", "'"] {
            let target = format!("/members/?q={}", letter.repeat(query));
            let ask = scene
                .gateway
                .get(&target)
                .field("Sec-Fetch-Mode", "navigate");
            let answer = ask.send();
            let location = answer.field("location").unwrap();
            assert_eq!(answer.status, 302);
            assert!(location.len() <= 3800, "{}", location.len());
            let encoded = letter.replace('\'', "%27").repeat(query);
            let whole = format!("/accounts/login/?next=/members/%3Fq%3D{encoded}");
            match is_whole {
                true => assert_eq!(location, whole),
                false => assert_eq!(location, "/accounts/login/"),
            }
            // And the address of the login page can itself be asked for.
            let login = scene.gateway.get(location).send();
            assert_eq!(login.status, 200);
        }
    }
}
