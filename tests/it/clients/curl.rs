//! curl.

use std::{io::Write as _, process::Command};

use super::{Scene, run};
use crate::support::{Upstream, reply};

/// What curl is asked for beyond the URL, and the version that it then speaks.
struct Way {
    is_secure: bool,
    options: &'static [&'static str],
    version: &'static str,
}

const WAYS: [Way; 7] = [
    Way {
        is_secure: false,
        options: &["--http1.1"],
        version: "1.1",
    },
    Way {
        is_secure: false,
        options: &["--http1.0"],
        version: "1",
    },
    Way {
        is_secure: false,
        options: &["--http2-prior-knowledge"],
        version: "2",
    },
    // An offer of h2c by Upgrade, which is not taken.
    Way {
        is_secure: false,
        options: &["--http2"],
        version: "1.1",
    },
    Way {
        is_secure: true,
        options: &["--http1.1"],
        version: "1.1",
    },
    Way {
        is_secure: true,
        options: &["--http2"],
        version: "2",
    },
    Way {
        is_secure: true,
        options: &["--http2", "--tls-max", "1.2"],
        version: "2",
    },
];

fn curl(scene: &Scene, way: &Way) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "25"])
        .args(way.options)
        .args([
            "--resolve",
            &format!("shop.test:{}:127.0.0.1", scene.port()),
        ])
        .arg("--cacert")
        .arg(scene.certificate.file());
    command
}

fn url(scene: &Scene, way: &Way, path: &str) -> String {
    let scheme = if way.is_secure { "https" } else { "http" };
    format!("{scheme}://shop.test:{}{path}", scene.port())
}

#[test]
fn edge_22_curl_gets_and_sends_in_every_way() {
    let body: Vec<u8> = (0..2 << 20).map(|place: u32| (place % 251) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&body).unwrap();
    for way in &WAYS {
        let scene = Scene::start(way.is_secure);
        let told = run(curl(&scene, way)
            .args([
                "--write-out",
                "%{http_version} %{http_code}",
                "--data",
                "a=b",
            ])
            .arg(url(&scene, way, "/")));
        assert_eq!(told, format!("a=b{} 200", way.version), "{:?}", way.options);

        let sent = [
            &["--header", "Expect: 100-continue", "--upload-file"][..],
            &["--upload-file"],
            &["--header", "Transfer-Encoding: chunked", "--upload-file"],
        ];
        for options in sent {
            // HTTP/1.0 has no chunks, and HTTP/2 no field for them.
            let is_chunked = options.len() == 3 && options[1].starts_with("Transfer");
            if is_chunked && (way.options == ["--http1.0"] || way.version == "2") {
                continue;
            }
            let back = tempfile::NamedTempFile::new().unwrap();
            run(curl(&scene, way)
                .args(options)
                .arg(file.path())
                .arg("--output")
                .arg(back.path())
                .arg(url(&scene, way, "/")));
            assert!(
                std::fs::read(back.path()).unwrap() == body,
                "{:?} {options:?}",
                way.options
            );
            assert!(scene.app.last().body == body);
        }
        let head = run(curl(&scene, way).arg("--head").arg(url(&scene, way, "/")));
        assert!(head.contains(" 200"), "{head}");
        let none = run(curl(&scene, way)
            .args(["--write-out", "%{http_code}"])
            .arg(url(&scene, way, "/none")));
        assert_eq!(none, "204");
    }
}

#[test]
fn edge_22_curl_is_told_to_continue_before_it_sends() {
    let scene = Scene::start(false);
    let output = crate::support::gateway::ended(
        curl(&scene, &WAYS[0])
            .args(["--verbose", "--expect100-timeout", "20"])
            .args(["--header", "Expect: 100-continue", "--data", "hello"])
            .arg(url(&scene, &WAYS[0], "/")),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("HTTP/1.1 100 Continue"), "{said}");
    assert_eq!(output.stdout, b"hello");
}

#[test]
fn curl_keeps_its_connection() {
    // Debian 12's curl fails at its second request by prior knowledge, whatever the server is.
    let not_kept = [["--http1.0"], ["--http2-prior-knowledge"]];
    for way in WAYS
        .iter()
        .filter(|way| not_kept.iter().all(|not| way.options != not))
    {
        let scene = Scene::start(way.is_secure);
        let told = run(curl(&scene, way)
            .args(["--write-out", "%{num_connects} "])
            .args(["/1", "/2", "/3"].map(|path| url(&scene, way, path))));
        assert_eq!(told, "1 0 0 ", "{:?}", way.options);
    }
}

#[test]
fn curl_follows_redirects_and_keeps_cookies() {
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/" => reply(303)
            .field("Location", "/next")
            .set(r#"{"set":{"count":1}}"#),
        _ => reply(200).body(seen.claims()["session"].to_string()),
    });
    let scene = Scene::with(true, app, |setup| setup);
    for way in WAYS.iter().filter(|way| way.is_secure) {
        let told = run(curl(&scene, way)
            .args(["--location", "--cookie-jar", "-", "--data", "x"])
            .arg(url(&scene, way, "/")));
        assert!(told.starts_with("{\"count\":1}"), "{told}");
    }
}
