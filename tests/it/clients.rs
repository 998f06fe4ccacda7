//! Clients as people have them, against the gateway as it is: none needs to be treated specially.

mod chromium;
mod curl;
mod nghttp;
mod python;

use std::process::{Command, Output};

use crate::support::{
    Database, Gateway, Reply, Seen, Served, Upstream, gateway::Setup, reply, tls::Certificate,
};

/// Where the gateway is found, with TLS and without.
struct Scene {
    app: Upstream,
    gateway: Gateway,
    certificate: Certificate,
}

impl Scene {
    /// An upstream that sends back what it gets.
    fn start(is_secure: bool) -> Self {
        Self::with(is_secure, Upstream::with(echo), |setup| setup)
    }

    fn with(is_secure: bool, app: Upstream, more: impl Fn(Setup) -> Setup) -> Self {
        let certificate = Certificate::new(&["shop.test"]);
        let database = Database::sqlite();
        let setup = more(secured(
            Gateway::before(&database, &app),
            is_secure,
            &certificate,
        ));
        let gateway = setup.owning(database).start();
        Self {
            app,
            gateway,
            certificate,
        }
    }

    fn port(&self) -> u16 {
        self.gateway.address().port()
    }
}

/// The same with a certificate, or with cookies for the plain wire.
fn secured(setup: Setup, is_secure: bool, certificate: &Certificate) -> Setup {
    match is_secure {
        true => setup.listener(&format!("tls = [{}]", certificate.entry())),
        false => setup.line("django.cookie", "secure = false"),
    }
}

fn echo(seen: &Seen) -> Reply {
    match seen.target.as_str() {
        "/none" => reply(204),
        "/cookie" => reply(200).set(r#"{"set":{"count":1}}"#),
        "/counted" => reply(200).body(seen.claims()["session"]["count"].to_string()),
        _ => reply(200).body(seen.body.clone()),
    }
}

/// What a program has printed, which must have ended well.
#[track_caller]
fn printed(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// Runs a program that ends by itself.
#[track_caller]
fn run(command: &mut Command) -> String {
    printed(&crate::support::gateway::ended(command))
}
