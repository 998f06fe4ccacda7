//! nginx and HAProxy with the configurations of the page, in folders of their own.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
};

use tempfile::TempDir;

use super::PAGE;
use crate::support::{
    Answer, Certificate, Gateway, Process, Served as _,
    docs::{block, put},
    eventually, free_address, from_tests_run,
    gateway::ended,
    http::fields,
};

/// Which front, by which part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
    /// HAProxy that passes on connections.
    Passing,
}

const PASSING: &str = "TLS in the gateway, and the client's address by PROXY protocol";

impl Kind {
    /// What the gateway's listener has to say.
    pub fn listener(self, certificate: &Certificate) -> String {
        if self != Self::Passing {
            return String::new();
        }
        let listener = block(PAGE, PASSING, "toml");
        let listener = put(
            &listener,
            "[[listener]]\naddress = \"127.0.0.1:8443\"\n",
            "",
        );
        files(&listener, certificate)
    }
}

/// The page's paths of a certificate, as they are here.
fn files(text: &str, certificate: &Certificate) -> String {
    let text = put(text, "/etc/ssl/shop.example.pem", path(&certificate.file()));
    put(
        &text,
        "/etc/ssl/private/shop.example.key",
        path(&certificate.key_file()),
    )
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// A running front.
pub struct Front {
    /// Where it speaks TLS, where it sends to TLS, and where it serves without.
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub open: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Front {
    /// Starts it before this gateway, with other words in the place of some of the page's.
    pub fn start(
        kind: Kind,
        gateway: &Gateway,
        certificate: &Certificate,
        words: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [tls, plain, open] = [free_address(), free_address(), free_address()];
        let there = gateway.address().to_string();
        let words = |mut text: String| {
            for (from, to) in words {
                text = put(&text, from, to);
            }
            text
        };
        let process = match kind {
            Kind::Nginx => {
                let text = words(block(PAGE, "nginx", "nginx"));
                let text = put(&text, "listen 80;", &format!("listen {plain};"));
                let both = format!("listen {tls} ssl http2;\n    listen {open};");
                let text = put(&text, "listen 443 ssl http2;", &both);
                let text = put(&files(&text, certificate), "127.0.0.1:8080", &there);
                nginx(&folder, &text, tls)
            }
            Kind::HaProxy => {
                let text = words(block(PAGE, "HAProxy", "haproxy"));
                let text = put(
                    &text,
                    "bind :80\n",
                    &format!("bind {plain}\n    bind {open}\n"),
                );
                let text = put(&text, "bind :443", &format!("bind {tls}"));
                let unless = format!("unless {{ ssl_fc }} || {{ dst_port {} }}", open.port());
                let text = put(&text, "unless { ssl_fc }", &unless);
                let read = |path| std::fs::read_to_string(path).unwrap();
                let both = read(certificate.file()) + &read(certificate.key_file());
                let file = folder.path().join("both.pem");
                std::fs::write(&file, both).unwrap();
                let text = put(&text, "/etc/haproxy/shop.example.pem", path(&file));
                let text = put(&text, "127.0.0.1:8080", &there);
                let health = format!("port {}", gateway.health().address().port());
                haproxy(&folder, &put(&text, "port 8081", &health), tls)
            }
            Kind::Passing => {
                let text = words(block(PAGE, PASSING, "haproxy"));
                let text = put(&text, "bind :443", &format!("bind {tls}"));
                haproxy(&folder, &put(&text, "127.0.0.1:8443", &there), tls)
            }
        };
        Self {
            tls,
            plain,
            open,
            _process: process,
            _folder: folder,
        }
    }

    /// The site's host, with the port of TLS.
    pub fn host(&self) -> String {
        format!("shop.example:{}", self.tls.port())
    }

    /// Asks with curl and TLS, from 127.0.0.2.
    pub fn curl(&self, certificate: &Certificate, path: &str, arguments: &[&str]) -> Answer {
        let url = format!("https://{}{path}", self.host());
        let authority = certificate.file();
        curl(
            &url,
            self.tls,
            &[&["--cacert", authority.to_str().unwrap()], arguments].concat(),
        )
    }
}

/// Asks for an address of `shop.example` that is there, from 127.0.0.2.
pub fn curl(url: &str, at: SocketAddr, arguments: &[&str]) -> Answer {
    let resolved = format!("shop.example:{}:127.0.0.1", at.port());
    let output = ended(
        Command::new("curl")
            .args(["-sSi", "--max-time", "25", "--interface", "127.0.0.2"])
            .args(["--resolve", &resolved])
            .args(arguments)
            .arg(url),
    );
    assert!(output.status.success(), "{url}: {output:?}");
    let end = output
        .stdout
        .windows(4)
        .position(|four| four == b"\r\n\r\n");
    let (head, body) = output.stdout.split_at(end.expect("a head") + 4);
    let lines: Vec<String> = String::from_utf8_lossy(head)
        .lines()
        .filter(|line| !line.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    Answer {
        status: lines[0].split(' ').nth(1).unwrap().parse().unwrap(),
        fields: fields(&lines[1..]),
        body: body.to_vec(),
        trailers: Vec::new(),
    }
}

/// nginx with this in its `http` block, as soon as it listens there: one process, in this folder alone.
pub fn nginx(folder: &TempDir, http: &str, address: SocketAddr) -> Process {
    let here = path(folder.path());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {here}/{what};\n"))
        .collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {here}/pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{temporary}{http}}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let process = Process::start(
        Command::new(from_tests_run("SG_TEST_NGINX"))
            .args(["-e", "stderr", "-p", here, "-c"])
            .arg(&file),
    );
    listens(process, address)
}

fn haproxy(folder: &TempDir, text: &str, address: SocketAddr) -> Process {
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let program = from_tests_run("SG_TEST_HAPROXY");
    let process = Process::start(Command::new(program).args(["-db", "-f"]).arg(&file));
    listens(process, address)
}

fn listens(process: Process, address: SocketAddr) -> Process {
    eventually("the server listens", || TcpStream::connect(address).ok());
    process
}
