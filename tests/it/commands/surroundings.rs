//! What shells, man and editors are told: `completions`, `man`, `schema`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::printed;
use crate::support::gateway::program;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = printed(program().arg("--help"));
    let (_, list) = help.out.split_once("Commands:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(
        names.contains(&"run".to_owned()) && names.len() > 8,
        "{names:?}"
    );
    names
}

fn completions(shell: &str) -> String {
    let printed = printed(program().args(["completions", shell]));
    printed.ends(0);
    assert_eq!(printed.talk, "");
    printed.out
}

#[test]
fn a_bash_that_has_read_the_completions_offers_commands_options_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("session-gateway");
    std::fs::write(&script, completions("bash")).unwrap();
    // What bash does when Tab is pressed behind these words.
    let offers = |words: &[&str]| -> Vec<String> {
        let ask = r#"
            set -eu
            source "$1"
            [[ $(complete -p session-gateway) =~ -F\ ([^ ]+) ]]
            function=${BASH_REMATCH[1]}
            shift
            COMP_WORDS=(session-gateway "$@") COMP_CWORD=$#
            COMP_LINE="${COMP_WORDS[*]}" COMP_POINT=${#COMP_LINE}
            "$function" session-gateway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let output = Command::new("bash")
            .args(["--norc", "--noprofile", "-c", ask, "bash"])
            .arg(&script)
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && said.is_empty(),
            "{words:?}: {said}"
        );
        let offers = String::from_utf8(output.stdout).unwrap();
        offers.split_whitespace().map(str::to_owned).collect()
    };
    let offered = offers(&[""]);
    for name in commands() {
        assert!(offered.contains(&name), "{name}: {offered:?}");
    }
    assert!(!offered.contains(&"reference".to_owned()), "{offered:?}");
    assert_eq!(offers(&["che"]), ["check"]);
    assert_eq!(offers(&["check", "--st"]), ["--strict"]);
    assert_eq!(offers(&["session", "s"]), ["show"]);
    assert_eq!(offers(&["key", "new", "--algorithm", "E"]), ["EdDSA"]);
    assert_eq!(offers(&["run", "--log", "j"]), ["json"]);
    assert!(offers(&["completions", ""]).contains(&"zsh".to_owned()));
}

#[test]
fn the_completions_of_every_shell_name_every_command() {
    let commands = commands();
    for shell in SHELLS {
        let script = completions(shell);
        for name in commands.iter().map(String::as_str).chain(["--strict"]) {
            let name = name.trim_start_matches('-');
            assert!(script.contains(name), "{shell} does not know {name}");
        }
    }
}

/// Shells that are not here are left out; bash is asked above.
#[test]
fn shells_that_are_here_can_read_their_completions() {
    for (shell, arguments) in [
        ("bash", &["-n"][..]),
        ("zsh", &["--no-rcs", "-n"]),
        ("fish", &["--no-config", "--no-execute"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("completions");
        std::fs::write(&script, completions(shell)).unwrap();
        let asked = Command::new(shell).args(arguments).arg(&script).output();
        if let Ok(output) = asked {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && said.is_empty(),
                "{shell}: {said}"
            );
        }
    }
}

/// What groff makes of a page, as text; it must have nothing to complain of.
fn rendered(page: &Path) -> String {
    let output = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-rLL=100n", "-P-c"])
        .arg(page)
        .stdin(Stdio::null())
        .output()
        .expect("groff, of the package groff-base");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    // A letter over itself is bold, and one over a line is underlined.
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '\u{8}' => drop(plain.pop()),
            letter => plain.push(letter),
        }
    }
    plain
}

#[test]
fn each_command_has_a_page_that_man_can_show() {
    let folder = tempfile::tempdir().unwrap();
    let written = printed(program().arg("man").arg("--folder").arg(folder.path()));
    written.ends(0);
    let mut pages: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let mut expected: Vec<String> = commands()
        .into_iter()
        .filter(|name| name != "help")
        .map(|name| format!("session-gateway-{name}.1"))
        .chain(
            [
                "session-gateway.1",
                "session-gateway-key-new.1",
                "session-gateway-session-show.1",
            ]
            .map(str::to_owned),
        )
        .collect();
    expected.sort();
    assert_eq!(pages, expected);
    for page in &pages {
        let path = folder.path().join(page);
        let text = rendered(&path);
        let name = page.strip_suffix(".1").unwrap();
        // What `whatis` and `apropos` look for.
        let mut lines = text
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "NAME")
            .skip(1);
        let line: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let line = line.join(" ");
        let summary = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(" - "));
        assert!(
            summary.is_some_and(|summary| !summary.is_empty()),
            "{page}: {line}"
        );
        assert!(
            text.contains("SYNOPSIS") && text.contains("--help"),
            "{page}"
        );
    }
    let whole = rendered(&folder.path().join("session-gateway.1"));
    for name in commands().iter().filter(|name| *name != "help") {
        assert!(
            whole.contains(&format!("session-gateway-{name}(1)")),
            "{name}"
        );
    }
    for hidden in ["reference", "session-gateway-help(1)"] {
        assert!(!whole.contains(hidden), "{hidden}: {whole}");
    }
    let check = rendered(&folder.path().join("session-gateway-check.1"));
    assert!(
        check.contains("--strict") && check.contains("Fail on remarks too"),
        "{check}"
    );

    let alone = printed(program().arg("man"));
    alone.ends(0);
    let written = std::fs::read_to_string(folder.path().join("session-gateway.1")).unwrap();
    assert_eq!(alone.out, written);
}

#[test]
fn a_folder_for_pages_that_cannot_be_made_is_told_in_one_sentence() {
    let failed = printed(program().args(["man", "--folder", "/dev/null/man1"]));
    failed.ends(1);
    assert!(
        failed.talk.contains("/dev/null/man1") && failed.talk.lines().count() == 1,
        "{}",
        failed.talk
    );
}

#[test]
fn the_printed_schema_is_the_checked_in_one() {
    let printed = printed(program().arg("schema"));
    printed.ends(0);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateway.schema.json");
    assert_eq!(printed.out, std::fs::read_to_string(file).unwrap());
}
