//! The demo's pages: plain HTML that loads nothing and runs nothing. Every value goes through [`escape`].

mod home;

use std::{borrow::Cow, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

pub(super) use self::home::home;

const STYLE: &str = include_str!("style.css");

/// A dot in the accent colour; without an icon of its own a page is asked for `/favicon.ico`.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
                    %3Ccircle cx='8' cy='8' r='7' fill='%230b6b4f'/%3E%3C/svg%3E";

/// The `Content-Security-Policy` of every page: this one style, forms to the same origin, nothing else.
pub(super) fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let style = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'"
        );
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// The page behind `require = "login"`.
pub(super) fn members(user: &str) -> String {
    let body = format!(
        "<h1>Members only</h1>\n\
         <p>The gateway let you in because you are user <strong>{}</strong>. Others are sent to the login \
         page, and back here after it.</p>\n{}\n<p><a href=\"/\">Back to the demo</a></p>\n",
        escape(user),
        button("/accounts/logout/", "Log out", "", "")
    );
    document("Members only", "small", &body)
}

/// The stand-in's login page.
pub(super) fn login(next: &str) -> String {
    let next = escape(next);
    let field = format!("<input type=\"hidden\" name=\"next\" value=\"{next}\">");
    let body = format!(
        "<h1>Log in</h1>\n\
         <p>This page stands in for your Django site. A real one asks for a password; here a button does, \
         and the session is written as Django writes it.</p>\n{}\n\
         <p class=\"soft\">Afterwards you go to <code>{next}</code>.</p>\n",
        button(
            "/accounts/login/",
            "Log in as demo",
            " class=\"main\"",
            &field
        ),
    );
    document("Log in", "small", &body)
}

/// A page of one sentence.
pub(super) fn sentence(status: StatusCode, sentence: &str) -> String {
    let title = status.canonical_reason().unwrap_or("Something went wrong");
    let sentence = escape(sentence);
    let body =
        format!("<h1>{title}</h1>\n<p>{sentence}</p>\n<p><a href=\"/\">To the demo</a></p>\n");
    document(title, "small", &body)
}

/// A whole page. All three are HTML.
fn document(title: &str, class: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n\
         <body class=\"{class}\">\n{body}</body>\n</html>\n"
    )
}

/// A form with one button. `attributes` and `field` are HTML.
fn button(action: &str, label: &str, attributes: &str, field: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{action}\">{field}<button{attributes}>{label}</button></form>"
    )
}

/// Text for HTML, also within a quoted attribute.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::demo::{Ports, shop::Visit};

    const EVIL: &str = "\"><script>alert('1')</script>&";

    #[test]
    fn no_value_becomes_markup() {
        let claims = json!({
            "iss": EVIL, "aud": EVIL, "sub": EVIL, "sid": EVIL, "rev": EVIL, EVIL: EVIL,
            "session": { "count": 1, EVIL: [EVIL] },
        });
        let Value::Object(claims) = claims else {
            panic!("an object")
        };
        let visit = Visit {
            token: EVIL.to_owned(),
            kid: EVIL.to_owned(),
            claims,
            fields: vec![(EVIL.to_owned(), EVIL.to_owned())],
        };
        let ports = Ports {
            gateway: 1,
            health: 2,
            shop: 3,
            site: 4,
        };
        let pages = [
            home(&visit, ports),
            members(EVIL),
            login(EVIL),
            sentence(StatusCode::NOT_FOUND, EVIL),
        ];
        for page in pages {
            assert!(page.contains("&lt;script&gt;"));
            assert!(
                !page.contains("<script") && !page.contains("alert('"),
                "{page}"
            );
        }
    }

    #[test]
    fn the_policy_allows_the_one_style() {
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
        // Markup in the style would end it early, and the rest would not be in the hash.
        assert!(!STYLE.contains('<'));
    }
}
