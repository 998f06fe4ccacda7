//! httpx, grpcio and websockets.

use std::{net::SocketAddr, process::Command};

use super::{Scene, run, secured};
use crate::support::{Database, Gateway, Process, Served, from_tests_run, tls::Certificate};

fn script(name: &str) -> Command {
    let file = format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(from_tests_run("SG_TEST_CLIENTS"));
    command.arg(file).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn httpx_browses_over_http_1_and_http_2() {
    for (is_secure, version) in [
        (false, "HTTP/1.1"),
        (false, "HTTP/2"),
        (true, "HTTP/1.1"),
        (true, "HTTP/2"),
    ] {
        let scene = Scene::start(is_secure);
        let scheme = if is_secure { "https" } else { "http" };
        let mut command = script("clients/browse.py");
        command.args([&format!("{scheme}://127.0.0.1:{}", scene.port()), version]);
        if is_secure {
            command.arg(scene.certificate.file());
        }
        assert_eq!(run(&mut command), "all is well\n");
    }
}

/// A server that runs beside the test.
struct Server {
    address: SocketAddr,
    _process: Process,
}

impl Server {
    fn start(name: &str) -> Self {
        let process = Process::start(script(name).arg("server"));
        Self {
            address: process.address_after("listening on "),
            _process: process,
        }
    }
}

impl Served for Server {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

#[test]
fn edge_26_grpc_works_end_to_end() {
    let server = Server::start("clients/rpc.py");
    for is_secure in [false, true] {
        let certificate = Certificate::new(&["shop.test"]);
        let database = Database::sqlite();
        let setup = Gateway::over(&database)
            .upstream("app", &server)
            .line("upstream.app", "protocol = 'h2'")
            .route("path = '/'\nupstream = 'app'");
        let gateway = secured(setup, is_secure, &certificate).start();
        let mut command = script("clients/rpc.py");
        command.arg("client").arg(gateway.address().to_string());
        if is_secure {
            command.arg(certificate.file());
        }
        assert_eq!(run(&mut command), "all is well\n");
    }
}

#[test]
fn edge_26_the_python_package_websockets_talks_through_the_gateway() {
    let server = Server::start("clients/talk.py");
    for is_secure in [false, true] {
        let certificate = Certificate::new(&["shop.test"]);
        let database = Database::sqlite();
        let setup = Gateway::over(&database)
            .upstream("app", &server)
            .route("path = '/'\nupstream = 'app'");
        let gateway = secured(setup, is_secure, &certificate).start();
        let mut command = script("clients/talk.py");
        command
            .arg("client")
            .arg(gateway.address().port().to_string());
        if is_secure {
            command.arg(certificate.file());
        }
        assert_eq!(run(&mut command), "all is well\n");
    }
}
