//! nghttp2's nghttp and h2load.

use std::process::Command;

use super::{Scene, run};

fn url(scene: &Scene, is_secure: bool) -> String {
    let scheme = if is_secure { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{}/", scene.port())
}

#[test]
fn nghttp_gets_and_sends() {
    for is_secure in [false, true] {
        let scene = Scene::start(is_secure);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &vec![b'x'; 200_000]).unwrap();
        let mut command = Command::new("nghttp");
        command
            .args(["--header", ":authority: shop.test", "--data"])
            .arg(file.path());
        let told = run(command
            .args(["--timeout", "20"])
            .arg(url(&scene, is_secure)));
        assert_eq!(told.len(), 200_000);
        let mut command = Command::new("nghttp");
        command.args([
            "--verbose",
            "--header",
            ":authority: shop.test",
            "--multiply",
            "50",
        ]);
        let told = run(command
            .args(["--timeout", "20"])
            .arg(url(&scene, is_secure)));
        assert_eq!(told.matches(":status: 200").count(), 50, "{told}");
    }
}

#[test]
fn h2load_has_no_failure() {
    for (is_secure, options) in [
        (false, &["-m", "32"][..]),
        (true, &["-m", "32"]),
        (false, &["--h1", "-m", "1"]),
        (true, &["--h1", "-m", "1"]),
    ] {
        let scene = Scene::start(is_secure);
        let mut command = Command::new("h2load");
        let port = scene.port();
        let scheme = if is_secure { "https" } else { "http" };
        command
            .args(["-n", "2000", "-c", "10", "-t", "1"])
            .args(options)
            .arg(format!("--connect-to=127.0.0.1:{port}"))
            .arg(format!("{scheme}://shop.test:{port}/"));
        let told = run(&mut command);
        assert!(
            told.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{told}"
        );
        assert!(told.contains("2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{told}");
    }
}
