//! `key new`: makes a key and prints the configuration line for it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine, engine::general_purpose};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use ed25519_dalek::SigningKey;

use super::failure;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, and print the line of gateway.toml for it.
    ///
    /// Standard output has the line and, without --out, the variable with the secret before it. What to do with
    /// them is on standard error.
    ///
    /// Examples:
    ///   session-gateway key new --upstream orders --out /etc/session-gateway/orders-2026-11.key
    ///   session-gateway key new --algorithm EdDSA --out /etc/session-gateway/signing-2026-11.key
    #[command(verbatim_doc_comment)]
    New(New),
}

/// The arguments of `key new`.
#[derive(Args, Debug)]
pub struct New {
    /// The upstream that shares the key. With EdDSA the key is the gateway's own, for all of them.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// What the key signs with.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    algorithm: Algorithm,
    /// What the tokens call the key, instead of the upstream's name and the month.
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    /// Write the secret to this new file, which nobody else may read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    #[default]
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "EdDSA")]
    EdDsa,
}

/// Carries out the command.
pub fn run(command: &Command) -> ExitCode {
    let Command::New(arguments) = command;
    let mut seed = [0; 32];
    if let Err(error) = getrandom::fill(&mut seed) {
        return failure(
            &format!("the operating system gave no random numbers: {error}"),
            1,
        );
    }
    let key = match Key::new(arguments, seed, Utc::now()) {
        Ok(key) => key,
        Err(sentence) => return failure(&sentence, 2),
    };
    if let Some(path) = &arguments.out
        && let Err(error) = key.store(path)
    {
        let sentence = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!(
                    "{} is there already and stays as it is: name a new file",
                    path.display()
                )
            }
            _ => format!("{} cannot be written: {error}", path.display()),
        };
        return failure(&sentence, 1);
    }
    match key.print(&mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&format!("the line could not be printed: {error}"), 1),
    }
}

/// A new key and how it is spelt.
struct Key {
    kid: String,
    seed: [u8; 32],
    /// The upstream, unless the key is the gateway's own.
    upstream: Option<String>,
    /// Where the secret stands: as it is written in the configuration.
    place: Place,
}

enum Place {
    Env(String),
    /// A whole path, so that the line is right wherever the configuration file is.
    File(String),
}

impl Key {
    fn new(arguments: &New, seed: [u8; 32], now: DateTime<Utc>) -> Result<Self, String> {
        let upstream = arguments.upstream.as_deref();
        let name = match (arguments.algorithm, upstream) {
            (Algorithm::Hs256, Some(name)) => name,
            (Algorithm::Hs256, None) => {
                return Err("an HS256 key is shared with one upstream: add --upstream NAME".into());
            }
            (Algorithm::EdDsa, None) => "gateway",
            (Algorithm::EdDsa, Some(_)) => {
                return Err(
                    "an EdDSA key is the gateway's own, for all upstreams: leave out --upstream"
                        .into(),
                );
            }
        };
        let is_name = |text: &str, most: usize| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=most).contains(&text.len()) && text.bytes().all(is_plain)
        };
        // Without --kid the month stands behind it.
        let most = if arguments.kid.is_some() { 64 } else { 48 };
        if !is_name(name, most) {
            return Err(format!(
                "{name:?} is not the name of an upstream: 1 to {most} letters, digits, -, _ and ."
            ));
        }
        let kid = match &arguments.kid {
            Some(kid) if is_name(kid, 64) => kid.clone(),
            Some(kid) => {
                return Err(format!(
                    "--kid {kid:?} is not 1 to 64 letters, digits, -, _ and ."
                ));
            }
            None => format!("{name}-{}", now.format("%Y-%m")),
        };
        let place = match &arguments.out {
            None => Place::Env(variable(&kid)),
            Some(path) => {
                let path = std::path::absolute(path)
                    .map_err(|error| format!("{} is no path: {error}", path.display()))?;
                let text = path.to_str().ok_or_else(|| {
                    format!(
                        "{} is not UTF-8, as gateway.toml must be: name another file",
                        path.display()
                    )
                })?;
                Place::File(text.to_owned())
            }
        };
        Ok(Self {
            kid,
            seed,
            upstream: upstream.map(str::to_owned),
            place,
        })
    }

    /// The secret as a file or a variable has it.
    fn secret(&self) -> String {
        format!("base64:{}", general_purpose::STANDARD.encode(self.seed))
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(path)?;
        let written = writeln!(file, "{}", self.secret()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Ours, and not whole. A second error would say nothing new.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// What goes into gateway.toml.
    fn line(&self) -> String {
        let kid = &self.kid;
        let secret = match &self.place {
            Place::Env(name) => format!("{{ env = \"{name}\" }}"),
            Place::File(path) => format!("{{ file = {} }}", toml::Value::from(path.as_str())),
        };
        match self.upstream {
            Some(_) => format!("keys = [{{ kid = \"{kid}\", secret = {secret} }}]"),
            None => format!("signing = {{ kid = \"{kid}\", private_key = {secret} }}"),
        }
    }

    /// What other gateways publish before this one signs, or after another has taken over.
    fn published(&self) -> String {
        let public_key = SigningKey::from_bytes(&self.seed).verifying_key();
        let public_key = general_purpose::URL_SAFE_NO_PAD.encode(public_key.as_bytes());
        format!(
            "published = [{{ kid = \"{}\", public_key = \"{public_key}\" }}]",
            self.kid
        )
    }

    fn print(&self, out: &mut dyn Write, talk: &mut dyn Write) -> io::Result<()> {
        if let Place::Env(name) = &self.place {
            writeln!(out, "{name}={}", self.secret())?;
        }
        writeln!(out, "{}", self.line())?;
        out.flush()?;
        let (secret, shared) = match &self.place {
            Place::Env(name) => (
                format!("put the variable {name} where the gateway gets its environment"),
                format!("the value of {name}"),
            ),
            Place::File(path) => (
                format!("{path} is written; let the gateway's user, and nobody else, read it"),
                format!("the text of {path}"),
            ),
        };
        let next = match &self.upstream {
            Some(upstream) => [
                secret,
                format!(
                    "give {upstream} the same secret: {shared} ({}: the 32 bytes are what follows base64:, decoded)",
                    self.kid
                ),
                format!("then put the line into [upstream.{upstream}]"),
                format!(
                    "if {upstream} has a key already: first let it accept both, then put this one first in its \
                     keys, and drop the old one two minutes after the last gateway was restarted"
                ),
            ],
            None => [
                secret,
                "put the line into [gateway], and algorithm = \"EdDSA\" into the upstreams that are to have it"
                    .to_owned(),
                "upstreams get the public key from /.well-known/jwks.json of the [health] address".to_owned(),
                format!(
                    "if there is a signing key already: publish this one first, with {} in [gateway], and sign \
                     with it five minutes later",
                    self.published()
                ),
            ],
        };
        for (index, step) in next.iter().enumerate() {
            writeln!(talk, "{}. {step}", index + 1)?;
        }
        writeln!(
            talk,
            "A kid is used once: if you have a {} already, name another one by --kid.",
            self.kid
        )
    }
}

/// A name for the environment. It has the month in it, because in a rotation the old key keeps its variable.
fn variable(kid: &str) -> String {
    let fold = |c: char| match c {
        'a'..='z' => c.to_ascii_uppercase(),
        'A'..='Z' | '0'..='9' => c,
        _ => '_',
    };
    let name: String = kid.chars().map(fold).collect();
    let before = match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => "_",
        false => "",
    };
    format!("{before}{name}_KEY")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{self, Config, LoadOptions};

    fn key(
        upstream: Option<&str>,
        algorithm: Algorithm,
        out: Option<&Path>,
    ) -> Result<Key, String> {
        let arguments = New {
            upstream: upstream.map(str::to_owned),
            algorithm,
            kid: None,
            out: out.map(Path::to_owned),
        };
        let now = DateTime::from_timestamp(1_795_000_000, 0).expect("a time");
        Key::new(&arguments, [7; 32], now)
    }

    fn printed(key: &Key) -> (Vec<String>, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        key.print(&mut out, &mut talk).expect("printed");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let lines = text(out).lines().map(str::to_owned).collect();
        (lines, text(talk))
    }

    /// A configuration with these lines, under an environment that has nothing but `assignment`.
    fn parsed(gateway: &str, upstream: &str, assignment: &str) -> Config {
        let text = format!(
            "[gateway]\nissuer = \"x\"\n{gateway}\n[django]\ndatabase = \"sqlite:db\"\n\
             secret_key = {{ env = \"SECRET_KEY\" }}\n[upstream.orders]\nservers = [\"127.0.0.1:1\"]\n{upstream}\n\
             [[route]]\npath = \"/\"\nupstream = \"orders\"\n"
        );
        let env = |name: &str| match assignment.split_once('=') {
            Some((known, value)) if known == name => Some(OsString::from(value)),
            _ => (name == "SECRET_KEY").then(|| "secret".into()),
        };
        let path = Path::new("/etc/gateway.toml");
        let loaded = Config::parse(&text, path, &env, LoadOptions::default());
        loaded
            .unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
            .config
    }

    #[test]
    fn the_line_of_a_shared_key_is_accepted() {
        let (lines, talk) = printed(&key(Some("orders"), Algorithm::Hs256, None).expect("a key"));
        let [assignment, line] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(
            line,
            "keys = [{ kid = \"orders-2026-11\", secret = { env = \"ORDERS_2026_11_KEY\" } }]"
        );
        let key = &parsed("", line, assignment).upstreams[0].keys[0];
        assert_eq!(
            (key.kid.as_str(), key.secret.expose()),
            ("orders-2026-11", &[7; 32][..])
        );
        assert!(
            !talk.contains("base64:B") && talk.contains("[upstream.orders]"),
            "{talk}"
        );
    }

    #[test]
    fn the_line_of_a_signing_key_is_accepted_and_so_is_the_published_one() {
        let key = key(None, Algorithm::EdDsa, None).expect("a key");
        let (lines, talk) = printed(&key);
        let [assignment, line] = &lines[..] else {
            panic!("{lines:?}")
        };
        let config = parsed(line, "algorithm = \"EdDSA\"", assignment);
        let signing = config.gateway.signing.expect("a key");
        assert_eq!(signing.kid, "gateway-2026-11");
        assert_eq!(signing.private_key.as_bytes(), &[7; 32]);
        assert_eq!(config.upstreams[0].algorithm, config::Algorithm::EdDsa);

        assert!(talk.contains(&key.published()), "{talk}");
        let other = "signing = { kid = \"a\", private_key = { env = \"OLD\" } }";
        let old = format!("OLD=base64:{}", general_purpose::STANDARD.encode([1; 32]));
        let both = format!("{other}\n{}", key.published());
        let config = parsed(&both, "algorithm = \"EdDSA\"", &old);
        assert_eq!(
            config.gateway.published[0].public_key,
            signing.private_key.verifying_key()
        );
    }

    #[test]
    fn a_file_is_written_for_its_owner_alone_and_never_over_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a \"key\"");
        let new = key(Some("orders"), Algorithm::Hs256, Some(&path)).expect("a key");
        new.store(&path).expect("written");
        let (lines, talk) = printed(&new);
        assert_eq!(lines.len(), 1, "the secret is in the file only: {lines:?}");
        assert!(!talk.contains("base64:B"), "{talk}");
        let config = parsed("", &lines[0], "");
        assert_eq!(config.upstreams[0].keys[0].secret.expose(), [7; 32]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let before = fs::read(&path).expect("a file");
        let error = new.store(&path).expect_err("it is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("a file"), before);
    }

    #[test]
    fn a_key_belongs_to_an_upstream_or_to_the_gateway() {
        let refused = |upstream, algorithm| key(upstream, algorithm, None).err().expect("refused");
        assert!(refused(None, Algorithm::Hs256).contains("add --upstream NAME"));
        assert!(refused(Some("orders"), Algorithm::EdDsa).contains("leave out --upstream"));
        for name in ["", "a b", "a\"", "é", &"a".repeat(49)] {
            assert!(
                refused(Some(name), Algorithm::Hs256).contains("not the name"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_is_called_what_its_owner_says() {
        let of = |algorithm, upstream: Option<&str>, kid: &str| {
            let arguments = New {
                upstream: upstream.map(str::to_owned),
                algorithm,
                kid: Some(kid.to_owned()),
                out: None,
            };
            Key::new(&arguments, [7; 32], DateTime::UNIX_EPOCH)
        };
        let (lines, _) = printed(&of(Algorithm::Hs256, Some("orders"), "orders-1").expect("a key"));
        let key = &parsed("", &lines[1], &lines[0]).upstreams[0].keys[0];
        assert_eq!(key.kid, "orders-1");
        let (lines, _) = printed(&of(Algorithm::EdDsa, None, "g.2").expect("a key"));
        let config = parsed(&lines[1], "algorithm = \"EdDSA\"", &lines[0]);
        assert_eq!(config.gateway.signing.expect("a key").kid, "g.2");
        for kid in ["", "a b", "a\"", "é", &"a".repeat(65)] {
            let refused = of(Algorithm::Hs256, Some("orders"), kid).err();
            assert!(refused.expect("refused").contains("--kid"), "{kid}");
        }
    }

    #[test]
    fn every_name_makes_a_variable() {
        for (kid, name) in [
            ("orders-2026-11", "ORDERS_2026_11_KEY"),
            ("My.shop-2", "MY_SHOP_2_KEY"),
            ("7up", "_7UP_KEY"),
        ] {
            assert_eq!(variable(kid), name);
        }
    }
}
