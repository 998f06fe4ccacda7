//! `gateway.toml`.
//!
//! Input: the file. Secrets come from a made-up environment, and relative paths lead nowhere.

use std::{collections::HashSet, ffi::OsString, path::Path};

use http::Uri;
use session_gateway::config::{
    Config, LoadOptions, Loaded, Problem, Redirect, SessionMode, Target,
};

/// Stands in every secret of the made-up environment.
const PLANTED: &str = "hunter2";

/// A folder that is not there, so that no relative path leads anywhere.
const FILE: &str = "/nonexistent/gateway.toml";

/// Runs the target.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let without = parse(text, true);
    check_said(text, &without);
    check_unopened(text, &without);
    if let Ok(loaded) = &without {
        check_config(loaded);
        check_again(text, loaded);
    }
    // The authorities of the system take milliseconds to read, each time.
    if text.contains("tls") {
        return;
    }
    let with = parse(text, false);
    check_said(text, &with);
    if let Ok(loaded) = &with {
        assert!(without.is_ok(), "good with secrets only");
        check_config(loaded);
        let told = format!("{loaded:?}").contains(PLANTED);
        assert!(!told || text.contains(PLANTED), "Debug tells a secret");
    }
}

fn parse(text: &str, without_secrets: bool) -> Result<Loaded, Vec<Problem>> {
    let env = |name: &str| -> Option<OsString> {
        assert!(!without_secrets, "a secret was asked for");
        let value = match name {
            "DATABASE_URL" => "postgres://shop:hunter2@db.example/shop",
            "MYSQL" => "mysql://shop:hunter2@db.example/shop?ssl-mode=VERIFY_CA",
            "SQLITE" => "sqlite:hunter2.sqlite3",
            "SECRET_KEY" => "hunter2-django-insecure-0123456789-0123456789",
            "ORDERS_KEY" => "base64:3Bs8gUMG0e5Hx6moOQDVjvKR9T6sEtMUU4wczvBAOcc=",
            "OTHER_KEY" => "hunter2-0123456789-0123456789-0123456789",
            "SIGNING_KEY" => "base64:kOrGp3D1XZ1IyJFY4UPbLjKHE3QQVyXWVOUYk8QSKhM=",
            "SHORT" => "hunter2",
            "EMPTY" => "\n",
            _ => return None,
        };
        Some(value.into())
    };
    Config::parse(text, Path::new(FILE), &env, LoadOptions { without_secrets })
}

/// Each problem is one line that says something, at a place of the file, and tells no secret.
fn check_said(text: &str, result: &Result<Loaded, Vec<Problem>>) {
    let said = match result {
        Ok(loaded) => &loaded.remarks,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            problems
        }
    };
    assert!(
        said.windows(2)
            .all(|pair| pair[0].position <= pair[1].position)
    );
    for problem in said {
        let line = problem.to_string();
        assert!(problem.sentence.len() > 5, "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(
            text.contains(PLANTED) || !line.contains(PLANTED),
            "{line:?}"
        );
        if let Some(position) = problem.position {
            let lines = text.split('\n').count();
            assert!(
                (1..=lines).contains(&position.line) && position.column > 0,
                "{line:?}"
            );
        }
    }
}

/// Without secrets, no file is looked for: none of them is there.
fn check_unopened(text: &str, result: &Result<Loaded, Vec<Problem>>) {
    let said = result.as_ref().err().into_iter().flatten();
    for problem in said.filter(|_| !text.contains("(os error ")) {
        assert!(!problem.sentence.contains("(os error "), "{problem}");
    }
}

/// A configuration that loads is right by construction.
fn check_config(loaded: &Loaded) {
    let config = &loaded.config;
    assert!(!config.routes.is_empty());
    let mut requests = HashSet::new();
    let mut used = HashSet::new();
    for route in &config.routes {
        assert!(
            requests.insert((&route.host, &route.prefix)),
            "two routes for one request"
        );
        match &route.target {
            Target::Upstream(place) => {
                used.insert(*place);
                assert!(route.session != SessionMode::Pass || config.upstreams[*place].django);
            }
            Target::Redirect(redirect) => check_redirect(redirect),
        }
        let strip = route.strip_prefix.as_ref();
        assert!(strip.is_none_or(|strip| route.prefix.is_within(strip)));
    }
    assert_eq!(
        used.len(),
        config.upstreams.len(),
        "an upstream that no route uses"
    );
    let limits = &config.limits;
    assert!(
        limits.session_write <= limits.session_json && limits.session_write <= limits.session_data
    );
    for network in &config.gateway.trusted_proxies.networks {
        assert!(network.prefix_len() > 0, "everybody is trusted");
    }
}

/// Wherever it leads, it is one field that names a host.
fn check_redirect(redirect: &Redirect) {
    let location = redirect.location("/a/b", "/b", Some("c=d"));
    assert!(
        location.bytes().all(|byte| (b'!'..=b'~').contains(&byte)),
        "{location:?}"
    );
    let url: Uri = location.parse().expect("it is a URL");
    assert!(url.host().is_some() && ["http", "https"].contains(&url.scheme_str().unwrap_or("")));
    assert!(
        url.path().ends_with("/b") && url.query() == Some("c=d"),
        "{location:?}"
    );
}

/// Reading is a function of the text, and comments are none of it but for the digest.
fn check_again(text: &str, loaded: &Loaded) {
    let commented = format!("{text}\n# a comment\n");
    for text in [text, &commented] {
        let mut again = parse(text, true).expect("it was good");
        let is_same = again.config.digest == loaded.config.digest;
        assert_eq!(is_same, text.len() < commented.len());
        again.config.digest.clone_from(&loaded.config.digest);
        assert_eq!(format!("{again:?}"), format!("{loaded:?}"));
    }
}
