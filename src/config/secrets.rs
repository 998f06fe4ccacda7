//! Reading secrets: `{ env = "NAME" }` and `{ file = "path" }`, never a text in the configuration file
//! itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{Secret, item::Value, report::did_you_mean, tree::Context};

/// What both forms look like, for messages.
const FORMS: &str = "{ env = \"NAME\" } or { file = \"path\" }";

/// A key or a password is small; more is a wrong file.
const MAX_FILE: u64 = 64 * 1024;

/// A secret and where it came from.
#[derive(Clone)]
pub(super) struct Found {
    /// `None` with `--without-secrets`.
    pub(super) secret: Option<Secret>,
    origin: Origin,
}

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Env(String),
    File(PathBuf),
}

impl Found {
    /// Whether two secrets are the same, as far as can be told.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same_bytes = self.secret.is_some() && self.secret == other.secret;
        self.origin == other.origin || same_bytes
    }
}

/// Reads a secret, one final newline cut. What is wrong is reported, never with the secret.
pub(super) fn read(value: &Value<'_>) -> Option<Found> {
    if value.as_text().is_some() {
        value.problem(
            "a secret is not written into this file",
            Some(format!("write {FORMS}")),
        );
        return None;
    }
    if !value.is_table() {
        value.wrong(FORMS, None);
        return None;
    }
    let table = value.table(None)?;
    match (table.value("env"), table.value("file")) {
        (Some(name), None) => from_env(&name),
        (None, Some(path)) => from_file(&path),
        (None, None) if !table.is_empty() => None,
        _ => {
            value.problem(format!("a secret is either {FORMS}"), None);
            None
        }
    }
}

/// Bytes in base64 of either alphabet, with or without padding.
pub(super) fn base64(encoded: &[u8]) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(encoded);
    decode(&STANDARD).or_else(|_| decode(&URL_SAFE)).ok()
}

fn from_env(value: &Value<'_>) -> Option<Found> {
    let name = value.text("the name of an environment variable")?;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !is_name(name) {
        let bare = name
            .strip_prefix('$')
            .map(|name| name.trim_matches(['{', '}']));
        let suggestion = bare.filter(|name| is_name(name)).map(did_you_mean);
        value.problem(
            "this is not the name of an environment variable",
            suggestion,
        );
        return None;
    }
    let context = value.context;
    context.note_env(value.at, name);
    let origin = Origin::Env(name.to_owned());
    if context.without_secrets {
        return Some(Found {
            secret: None,
            origin,
        });
    }
    let Some(found) = (context.env)(name) else {
        value.problem(format!("the environment variable {name} is not set"), None);
        return None;
    };
    let Some(secret) = without_newline(found.into_encoded_bytes()) else {
        value.problem(format!("the environment variable {name} is empty"), None);
        return None;
    };
    Some(Found {
        secret: Some(secret),
        origin,
    })
}

/// Reads the file that is named by a text.
pub(super) fn from_file(value: &Value<'_>) -> Option<Found> {
    let written = value.text("the path of a file")?;
    let context = value.context;
    let path = context.folder.join(written);
    if context.without_secrets {
        return Some(Found {
            secret: None,
            origin: Origin::File(path),
        });
    }
    let bytes = match context.files.read(
        &path,
        MAX_FILE,
        "it is larger than 64 KiB, which is no secret",
    ) {
        Ok(bytes) => bytes,
        Err(error) => {
            value.problem(format!("{} cannot be read: {error}", path.display()), None);
            return None;
        }
    };
    check_mode(value, &path);
    let Some(secret) = without_newline(bytes) else {
        value.problem(format!("{} is empty", path.display()), None);
        return None;
    };
    Some(Found {
        secret: Some(secret),
        origin: Origin::File(path),
    })
}

/// Who may write a secret's file can be the gateway; who may read it can sign as the gateway.
#[cfg(unix)]
fn check_mode(value: &Value<'_>, path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode();
    if mode & 0o022 != 0 {
        let suggestion = Some(format!("chmod go-w {}", path.display()));
        value.problem(format!("others may write {}", path.display()), suggestion);
    } else if mode & 0o004 != 0 {
        value
            .context
            .report
            .remark(value.at, format!("others may read {}", path.display()));
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Value<'_>, _: &Path) {}

/// The bytes without one final newline; `None` if nothing is left.
fn without_newline(mut bytes: Vec<u8>) -> Option<Secret> {
    if bytes.ends_with(b"\n") {
        bytes.truncate(bytes.len() - 1);
        if bytes.ends_with(b"\r") {
            bytes.truncate(bytes.len() - 1);
        }
    }
    (!bytes.is_empty()).then(|| Secret::new(bytes))
}

impl Context<'_> {
    /// Notes that a secret comes from the environment.
    fn note_env(&self, at: Option<usize>, name: &str) {
        let mut names = self.env_names.borrow_mut();
        if !names.iter().any(|(_, noted)| noted == name) {
            names.push((at, name.to_owned()));
        }
    }

    /// Remarks, once, on the secrets that come from the environment.
    pub(super) fn remark_on_env(&self) {
        let mut names = self.env_names.borrow_mut();
        names.sort();
        let list: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        if let Some((at, _)) = names.first() {
            let list = list.join(", ");
            let sentence =
                format!("read from the environment once, when the gateway starts: {list}");
            self.report.remark(*at, sentence);
        }
    }
}
