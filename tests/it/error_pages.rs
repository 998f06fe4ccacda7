//! `[error_pages]`: the site's own pages for the gateway's own answers.

use std::path::Path;

use crate::support::{Answer, Gateway, Served as _, Upstream, gateway::Setup, reply};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// Pages in a folder, and a gateway without a route but `/app/`.
fn setup(app: &Upstream, folder: &Path, lines: &str) -> Setup {
    for (name, page) in [
        ("other.html", "<h1>Other</h1>{{status}} {{code}}"),
        (
            "lost.html",
            "<style>p{color:red}</style><p>{{title}}: {{ detail }} ({{code}}, {{request_id}})",
        ),
    ] {
        std::fs::write(folder.join(name), page).unwrap();
    }
    let lines = lines.replace("FOLDER", &folder.display().to_string());
    Gateway::alone(app)
        .route("path = '/members/'\nupstream = 'app'\nrequire = 'login'\non_anonymous = '401'")
        .route("path = '/gone/'\nredirect = 'https://elsewhere.test'")
        .line("error_pages", &lines)
}

fn browse(gateway: &Gateway, path: &str) -> Answer {
    gateway.get(path).field("Accept", BROWSER).send()
}

#[test]
fn browsers_get_the_sites_own_page_and_programs_get_their_problem() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let lines = "'default' = 'FOLDER/other.html'\n'login-required' = 'FOLDER/lost.html'";
    let gateway = setup(&app, folder.path(), lines).start();

    let answer = browse(&gateway, "/members/");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.code(), Some("login-required"));
    assert_eq!(
        answer.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    let id = answer.field("x-request-id").unwrap();
    let start = "<style>p{color:red}</style><p>Login required: ";
    let end = format!(" (login-required, {id})");
    let page = answer.text();
    assert!(page.starts_with(start) && page.ends_with(&end), "{page}");
    assert!(page.len() > start.len() + end.len(), "{page}");

    let answer = browse(&gateway, "/%2f");
    assert_eq!(answer.text(), "<h1>Other</h1>400 bad-request");
    // Its length is told, and nothing else.
    let head = gateway.ask("HEAD", "/%2f").field("Accept", BROWSER).send();
    assert_eq!((head.status, head.text().as_str()), (400, ""));

    gateway
        .get("/members/")
        .send()
        .is_error(401, "login-required");
    app.answers(reply(404).body("mine"));
    let answer = browse(&gateway, "/");
    assert_eq!((answer.status, answer.text().as_str()), (404, "mine"));
}

#[test]
fn a_page_is_kept_until_the_configuration_is_read_again() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.html");
    let gateway = setup(&app, folder.path(), "'4xx' = 'FOLDER/other.html'").start();
    std::fs::remove_file(&file).unwrap();
    let old = "<h1>Other</h1>400 bad-request";
    assert_eq!(browse(&gateway, "/%2f").text(), old);
    assert!(!gateway.hang_up(), "without the page it is not in force");
    assert_eq!(browse(&gateway, "/%2f").text(), old);
    std::fs::write(&file, "new {{status}}").unwrap();
    assert!(gateway.hang_up());
    assert_eq!(browse(&gateway, "/%2f").text(), "new 400");
}

#[test]
fn what_is_wrong_with_a_page_is_said_with_its_place() {
    let app = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.html"), "{{cookie}}").unwrap();
    std::fs::write(folder.path().join("latin.html"), b"\xe9").unwrap();
    std::fs::write(folder.path().join("large.html"), vec![b'a'; 257 * 1024]).unwrap();
    for (line, said) in [
        ("'session-gome' = 'x.html'", "session-gone"),
        ("'418' = 'x.html'", "no status that it has"),
        ("'503' = 'FOLDER/none.html'", "none.html cannot be read"),
        (
            "'503' = 'FOLDER/wrong.html'",
            "has {{cookie}}; there are {{status}}",
        ),
        ("'503' = 'FOLDER/latin.html'", "is not UTF-8"),
        ("'503' = 'FOLDER/large.html'", "larger than 256 KiB"),
        (
            "'503' = 7",
            "must be the path of an HTML file, not a number",
        ),
    ] {
        let output = setup(&app, folder.path(), line).fails();
        let said_is = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said_is.contains(said) && said_is.contains("[error_pages]"),
            "{line}: {said_is}"
        );
    }
}
