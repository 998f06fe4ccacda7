//! `session-gateway check`: reads the configuration and says what is wrong with it, offline.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use crate::config::{Config, LoadOptions};

/// Checks a configuration file: what is found goes to standard output, one line each, the summary to standard
/// error. Succeeds if there is no problem and, with `strict`, no remark; fails with 1 otherwise.
///
/// `without_secrets` leaves environment variables and files of secrets alone.
pub fn check(config: &Path, strict: bool, without_secrets: bool) -> ExitCode {
    let options = LoadOptions { without_secrets };
    let env = |name: &str| std::env::var_os(name);
    let is_good = report(
        config,
        &env,
        options,
        strict,
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    );
    match is_good {
        Ok(true) => ExitCode::SUCCESS,
        // Nobody reads on (`check | head`): what was found is unknown to them, and is no success.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn report(
    config: &Path,
    env: &dyn Fn(&str) -> Option<OsString>,
    options: LoadOptions,
    strict: bool,
    out: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<bool> {
    let file = config.display();
    let loaded = match Config::load(config, env, options) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in &problems {
                writeln!(out, "{problem}")?;
            }
            writeln!(talk, "{file}: {}", count(problems.len(), "problem"))?;
            return Ok(false);
        }
    };
    for remark in &loaded.remarks {
        writeln!(out, "{remark}")?;
    }
    if strict && !loaded.remarks.is_empty() {
        writeln!(
            talk,
            "{file}: {}, and --strict",
            count(loaded.remarks.len(), "remark")
        )?;
        return Ok(false);
    }
    let routes = count(loaded.config.routes.len(), "route");
    let upstreams = count(loaded.config.upstreams.len(), "upstream");
    writeln!(talk, "{file}: ok, {routes}, {upstreams}")?;
    Ok(true)
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = r#"
        gateway = { issuer = "https://shop.example" }
        django = { database = "sqlite:db", secret_key = { env = "KEY" } }
        upstream.a = { servers = ["127.0.0.1:1"] }
        route = [{ path = "/", upstream = "a", session = "off" }]
    "#;

    fn run(text: &str, strict: bool) -> (bool, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        fs::write(&path, text).expect("written");
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let env = |_: &str| Some(OsString::from("secret"));
        let good = report(
            &path,
            &env,
            LoadOptions::default(),
            strict,
            &mut out,
            &mut talk,
        )
        .expect("written");
        let text = |bytes| {
            let folder = format!("{}/", folder.path().display());
            String::from_utf8(bytes)
                .expect("UTF-8")
                .replace(&folder, "")
        };
        (good, text(out), text(talk))
    }

    #[test]
    fn a_good_file_is_ok_with_its_remarks() {
        let (good, out, talk) = run(GOOD, false);
        assert!(good && out.contains("gateway.toml:3:65: remark: "), "{out}");
        assert_eq!(talk, "gateway.toml: ok, 1 route, 1 upstream\n");
    }

    #[test]
    fn strict_fails_on_remarks() {
        let (good, out, talk) = run(GOOD, true);
        assert!(!good && out.lines().count() == 1);
        assert_eq!(talk, "gateway.toml: 1 remark, and --strict\n");
    }

    #[test]
    fn problems_go_to_standard_output_one_a_line() {
        let (good, out, talk) = run(
            &GOOD.replace("issuer", "isuer").replace("servers", "serves"),
            false,
        );
        assert!(!good);
        assert_eq!(out.lines().count(), 4, "{out}");
        assert!(out.contains(
            "gateway.toml:2:21: unknown key \"isuer\" in [gateway]; did you mean \"issuer\"?\n"
        ));
        assert_eq!(talk, "gateway.toml: 4 problems\n");
    }
}
