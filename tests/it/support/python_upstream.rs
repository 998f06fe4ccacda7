//! The upstream that checks tokens with PyJWT: `tests/upstream/upstream.py`.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use super::{ISSUER, Process, Release, Served, token};

/// A running one, named `app` in the gateway's configuration.
pub struct PythonUpstream {
    address: SocketAddr,
    control: Control,
    _process: Process,
}

/// Where requests are held and let go.
pub struct Control(SocketAddr);

impl PythonUpstream {
    pub fn start() -> Self {
        let process = Process::start(
            Command::new(Release::V52.python())
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/upstream/upstream.py"
                ))
                .args(["app", ISSUER, &token::kid("app")])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("UPSTREAM_SECRET", token::secret("app")),
        );
        let address = process.address_after("listening on ");
        Self {
            address,
            control: Control(process.address_after("control on ")),
            _process: process,
        }
    }

    /// Waits until a request with `X-Test-Wait-For: NAME` is held.
    pub fn wait_for(&self, name: &str) {
        assert_eq!(
            self.control.get(&format!("/arrived/{name}")).send().status,
            200
        );
    }

    /// Accepts tokens under these secrets, by `kid`, and no others.
    pub fn accept_secrets(&self, secrets: &Value) {
        let answer = self
            .control
            .post("/secrets")
            .body(secrets.to_string())
            .send();
        assert_eq!(answer.status, 200);
    }

    /// Accepts tokens under the keys of this JWK set, and no others that it was given so.
    pub fn accept_jwks(&self, jwks: &Value) {
        let answer = self.control.post("/jwks").body(jwks.to_string()).send();
        assert_eq!(answer.status, 200);
    }

    /// Lets it go.
    pub fn release(&self, name: &str) {
        self.control.post(&format!("/release/{name}")).send();
    }
}

impl Served for PythonUpstream {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Served for Control {
    fn address(&self) -> SocketAddr {
        self.0
    }
}
