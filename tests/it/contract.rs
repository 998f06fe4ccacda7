//! The code of docs/upstreams.md for services without a package, run as it stands there: each function takes the good
//! tokens of `tests/vectors/contract.json` and refuses the bad ones.

use std::process::Command;

use crate::support::{
    docs::{block, put},
    gateway::ended,
};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/contract.json");
const PAGE: &str = "upstreams.md";

/// The function of the page in this language, and what asks it, as a program.
fn program(language: &str, before: &str, after: &str) -> String {
    format!("{before}{}{after}", block(PAGE, "Check it", language))
}

/// Runs a program in its own folder. It says how many tokens it has taken and refused.
#[track_caller]
fn takes_the_good_and_refuses_the_bad(file: &str, program: &str, command: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(file), program).unwrap();
    let mut run = Command::new(command[0]);
    run.args(&command[1..]).args([file, VECTORS]);
    let output = ended(run.current_dir(folder.path()));
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    let vectors = std::fs::read(VECTORS).unwrap();
    let vectors: serde_json::Value = serde_json::from_slice(&vectors).unwrap();
    let count = |kind: &str| vectors[kind].as_object().unwrap().len();
    assert_eq!(said.trim(), format!("{} {}", count("good"), count("bad")));
}

#[test]
fn the_function_in_python_takes_the_good_tokens_and_refuses_the_bad() {
    let after = r#"
import sys
v = json.load(open(sys.argv[1]))
keys = {v["kid"]: base64.b64decode(v["secret_b64"])}
for token in v["good"].values():
    assert x_session(token, keys, v["aud"], v["now"])["jti"]
refused = 0
for token in v["bad"].values():
    try:
        x_session(token, keys, v["aud"], v["now"])
    except Exception:
        refused += 1
print(len(v["good"]), refused)
"#;
    let program = program("python", "", after);
    takes_the_good_and_refuses_the_bad("check.py", &program, &["python3"]);
}

#[test]
fn the_function_in_node_takes_the_good_tokens_and_refuses_the_bad() {
    let after = r"
const v = JSON.parse(require('fs').readFileSync(process.argv[2]));
const keys = { [v.kid]: Buffer.from(v.secret_b64, 'base64') };
for (const token of Object.values(v.good)) if (!xSession(token, keys, v.aud, v.now).jti) process.exit(1);
let refused = 0;
for (const token of Object.values(v.bad)) try { xSession(token, keys, v.aud, v.now); } catch { refused++; }
console.log(Object.keys(v.good).length, refused);
";
    let program = program("js", "", after);
    takes_the_good_and_refuses_the_bad("check.js", &program, &["node"]);
}

#[test]
fn the_function_in_go_takes_the_good_tokens_and_refuses_the_bad() {
    let before = r#"package main
import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)
"#;
    let after = r#"
func main() {
	var v struct {
		Now                      int64
		Aud, Kid                 string
		Secret                   []byte `json:"secret_b64"`
		Good, Bad                map[string]string
	}
	raw, err := os.ReadFile(os.Args[1])
	if err == nil { err = json.Unmarshal(raw, &v) }
	if err != nil { panic(err) }
	keys := map[string][]byte{v.Kid: v.Secret}
	for _, token := range v.Good {
		if c, err := XSession(token, keys, v.Aud, v.Now); err != nil || c.Jti == "" { panic(err) }
	}
	refused := 0
	for _, token := range v.Bad {
		if _, err := XSession(token, keys, v.Aud, v.Now); err != nil { refused++ }
	}
	fmt.Println(len(v.Good), refused)
}
"#;
    let program = program("go", before, after);
    takes_the_good_and_refuses_the_bad("check.go", &program, &["go", "run"]);
}

#[test]
fn the_function_in_ruby_takes_the_good_tokens_and_refuses_the_bad() {
    let after = r"
v = JSON.parse(File.read(ARGV[0]))
keys = { v['kid'] => Base64.strict_decode64(v['secret_b64']) }
v['good'].each_value { |token| x_session(token, keys, v['aud'], v['now']).fetch('jti') }
refused = v['bad'].count { |_, token| begin x_session(token, keys, v['aud'], v['now']); false; rescue StandardError; true; end }
puts [v['good'].size, refused].join(' ')
";
    let program = program("ruby", "", after);
    takes_the_good_and_refuses_the_bad("check.rb", &program, &["ruby"]);
}

#[test]
fn the_function_in_php_takes_the_good_tokens_and_refuses_the_bad() {
    let after = r"
$v = json_decode(file_get_contents($argv[1]), true);
$keys = [$v['kid'] => base64_decode($v['secret_b64'])];
foreach ($v['good'] as $token) if (!x_session($token, $keys, $v['aud'], $v['now'])['jti']) exit(1);
$refused = 0;
foreach ($v['bad'] as $token) try { x_session($token, $keys, $v['aud'], $v['now']); } catch (Throwable $e) { $refused++; }
echo count($v['good']), ' ', $refused;
";
    let program = program("php", "<?php\n", after);
    takes_the_good_and_refuses_the_bad("check.php", &program, &["php"]);
}

/// The secret as the gateway and its command write it, and the digest of a request.
#[test]
fn secrets_are_read_and_requests_compared_as_the_gateway_does() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "base64",
            "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        ),
        ("plain", "a secret of thirty-two bytes or more\r\n"),
        ("bare", "a secret of thirty-two bytes or more"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let belongs = block(PAGE, "Requests that change something", "python");
    let after = r#"
assert secret("base64") == bytes(range(32))
assert secret("plain") == secret("bare") == b"a secret of thirty-two bytes or more"
import sys
v = json.load(open(sys.argv[1]))
claims = x_session(v["good"]["user"], {v["kid"]: base64.b64decode(v["secret_b64"])}, v["aud"], v["now"])
r = v["req"]
assert belongs(claims, r["method"], r["host"], r["target"])
assert not belongs(claims, "PUT", r["host"], r["target"])
"#;
    let text = put(
        &program("python", "", after),
        "import sys\n",
        &format!("{belongs}\nimport sys\n"),
    );
    std::fs::write(folder.path().join("check.py"), text).unwrap();
    let mut run = Command::new("python3");
    run.args(["check.py", VECTORS]).current_dir(folder.path());
    let output = ended(&mut run);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
