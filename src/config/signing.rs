//! `[gateway]` `signing`, `published` and `sid_key`, and where the public keys are served: the gateway's own keys.

use ed25519_dalek::{
    SigningKey, VerifyingKey,
    pkcs8::{self, DecodePrivateKey},
};

use super::{
    Published, Secret, Signing,
    item::Value,
    secrets::{self, Found},
    tree::Table,
    value,
};

/// As long as the hash that it keys (RFC 2104, 3).
const MIN_SID_KEY: usize = 32;

/// The PEM label of an unencrypted PKCS#8 key (RFC 7468, 10).
const PKCS8: &str = "-----BEGIN PRIVATE KEY-----";

/// What was read.
pub(super) struct Keys {
    pub(super) signing: Option<Signing>,
    pub(super) published: Vec<Published>,
    pub(super) sid_key: Option<Secret>,
}

/// The keys that no upstream may have, each with the reason.
pub(super) struct OwnKeys {
    keys: Vec<(Found, &'static str)>,
    /// Whether the file has `signing`, good or bad.
    pub(super) can_sign: bool,
}

impl OwnKeys {
    /// Adds some with their reason.
    pub(super) fn add(&mut self, keys: impl IntoIterator<Item = Found>, why: &'static str) {
        self.keys.extend(keys.into_iter().map(|key| (key, why)));
    }

    /// Why an upstream may not have this one.
    pub(super) fn holds(&self, found: &Found) -> Option<&'static str> {
        let mut keys = self.keys.iter();
        keys.find(|(key, _)| key.is_same(found))
            .map(|(_, why)| *why)
    }
}

/// Reads the keys of `[gateway]`.
pub(super) fn read(table: &Table<'_>) -> (Keys, OwnKeys) {
    let mut own_keys = OwnKeys {
        keys: Vec::new(),
        can_sign: table.value("signing").is_some(),
    };
    let signing = table
        .value("signing")
        .and_then(|value| read_signing(&value, &mut own_keys));
    let published = read_published(table, signing.as_ref());
    let sid_key = table
        .value("sid_key")
        .and_then(|value| read_sid_key(&value, &mut own_keys));
    let keys = Keys {
        signing,
        published,
        sid_key,
    };
    (keys, own_keys)
}

/// `[health] jwks`; `None` where there is nothing to serve, or nowhere.
pub(super) fn read_jwks(health: &Table<'_>, can_sign: bool) -> Option<String> {
    let written = health.value("jwks");
    let has_address = health.value("address").is_some();
    if let Some(value) = &written
        && !can_sign
    {
        let suggestion = Some("write signing in [gateway], or leave this out".to_owned());
        value.problem("there are no public keys to serve", suggestion);
    }
    if let Some(value) = &written
        && !has_address
    {
        value.problem(
            "nothing is served without an address in [health]",
            Some("such as address = \"127.0.0.1:8081\"".to_owned()),
        );
    }
    let expected = "a path such as \"/.well-known/jwks.json\"";
    let path = health.read("jwks", |value| value.parse(expected, value::jwks_path))?;
    (can_sign && has_address).then_some(path)
}

/// Says what is there and has no use.
pub(super) fn remark(gateway: &Table<'_>, is_used: bool, is_served: bool) {
    let Some(value) = gateway.value("signing") else {
        return;
    };
    let report = &value.context.report;
    if !is_used {
        let sentence =
            "no upstream has algorithm = \"EdDSA\": this key is published and signs nothing";
        report.remark(value.at, sentence);
    }
    if !is_served {
        let sentence = "nobody can fetch the public key: there is no address in [health]";
        report.remark(value.at, sentence);
    }
}

fn read_signing(value: &Value<'_>, own_keys: &mut OwnKeys) -> Option<Signing> {
    let table = value.table(None)?;
    let kid = table
        .required("kid")
        .and_then(|value| value.parse("text", value::name));
    let value = table.required("private_key")?;
    let mut found = secrets::read(&value)?;
    let private_key = match &found.secret {
        Some(written) => private_key(written)
            .map_err(|why| {
                let suggestion = "such as the output of: openssl genpkey -algorithm ed25519";
                value.problem(why, Some(suggestion.to_owned()));
            })
            .ok()?,
        None => SigningKey::from_bytes(&[0; 32]),
    };
    if found.secret.is_some() {
        found.secret = Some(Secret::new(private_key.to_bytes()));
    }
    own_keys.add(
        [found],
        "this is the private key of [gateway]: the upstream could sign for every other one",
    );
    Some(Signing {
        kid: kid?,
        private_key,
    })
}

/// PKCS#8 in PEM (RFC 8410, 7), or `base64:` and the seed (RFC 8032, 5.1.5). The sentences never hold what was
/// written.
fn private_key(written: &Secret) -> Result<SigningKey, &'static str> {
    if let Some(encoded) = written.expose().strip_prefix(b"base64:") {
        let bytes = secrets::base64(encoded).ok_or("what follows base64: is not base64")?;
        return match <[u8; 32]>::try_from(bytes) {
            Ok(seed) => Ok(SigningKey::from_bytes(&seed)),
            Err(bytes) if bytes.len() == 64 => {
                Err("what follows base64: are 64 bytes; the seed alone, the first 32, is wanted")
            }
            Err(_) => Err("what follows base64: is not a seed of 32 bytes"),
        };
    }
    let text = str::from_utf8(written.expose())
        .map_err(|_| "this is neither a PEM text nor base64: and a seed")?
        .trim();
    if text.starts_with(PKCS8) {
        return SigningKey::from_pkcs8_pem(text).map_err(|error| match error {
            pkcs8::Error::PublicKey(_) => "this is a private key of another kind than Ed25519",
            _ => "this PEM text does not hold an Ed25519 key",
        });
    }
    Err(match text.lines().next().unwrap_or_default() {
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => {
            "this key is encrypted, and nobody is there to type its password"
        }
        "-----BEGIN PUBLIC KEY-----" => "this is a public key; the private one signs",
        "-----BEGIN OPENSSH PRIVATE KEY-----" => "this is a key for OpenSSH, not PKCS#8",
        line if line.ends_with("PRIVATE KEY-----") => {
            "this is a private key of another kind than Ed25519"
        }
        _ => "this is neither a PEM text (BEGIN PRIVATE KEY) nor base64: and a seed",
    })
}

fn read_published(table: &Table<'_>, signing: Option<&Signing>) -> Vec<Published> {
    let mut published: Vec<Published> = Vec::new();
    let example = "a list such as [{ kid = \"gateway-2026-12\", public_key = \"...\" }]";
    let list = table.value("published");
    if let Some(value) = &list
        && table.value("signing").is_none()
        && !value.is_empty_list()
    {
        let why = "keys are published beside the one of signing, and there is none";
        value.problem(why, None);
    }
    let items = list.and_then(|value| value.items(example));
    for item in items.into_iter().flatten() {
        let Some(entry) = item.table(None) else {
            continue;
        };
        let kid_value = entry.required("kid");
        let key_value = entry.required("public_key");
        let kid = kid_value
            .as_ref()
            .and_then(|value| value.parse("text", value::name));
        if let (Some(value), Some(kid)) = (&kid_value, &kid)
            && (published.iter().any(|key| key.kid == *kid)
                || signing.is_some_and(|signing| signing.kid == *kid))
        {
            value.problem(format!("two public keys have the kid {kid:?}"), None);
        }
        let Some((value, text)) = key_value
            .as_ref()
            .and_then(|value| Some((value, value.text("text")?)))
        else {
            continue;
        };
        match public_key(text, signing) {
            Ok(public_key) => published.extend(kid.map(|kid| Published { kid, public_key })),
            Err(why) => value.problem(why, None),
        }
    }
    published
}

/// The `x` of a JWK (RFC 8037, 2). What was written is not repeated: it may be a private key by mistake.
fn public_key(text: &str, signing: Option<&Signing>) -> Result<VerifyingKey, &'static str> {
    let wanted = "this is not an Ed25519 public key: the 43 characters of \"x\" in its JWK, or 32 bytes in base64";
    let bytes = secrets::base64(text.as_bytes()).ok_or(wanted)?;
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| wanted)?;
    if signing.is_some_and(|signing| *signing.private_key.as_bytes() == bytes) {
        return Err("this is the private key itself, which would be published");
    }
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wanted)?;
    if key.is_weak() {
        return Err("this is a weak public key, for which anybody can sign");
    }
    Ok(key)
}

fn read_sid_key(value: &Value<'_>, own_keys: &mut OwnKeys) -> Option<Secret> {
    let found = secrets::read(value)?;
    if let Some(secret) = &found.secret
        && secret.len() < MIN_SID_KEY
    {
        let why = format!(
            "a secret has at least {MIN_SID_KEY} bytes, this one has {}",
            secret.len()
        );
        let suggestion = "such as the output of: openssl rand -base64 32";
        value.problem(why, Some(suggestion.to_owned()));
        return None;
    }
    let secret = found.secret.clone();
    own_keys.add(
        [found],
        "this is the sid_key of [gateway]: the upstream could find its visitors at the others",
    );
    // Stands in for what `--without-secrets` does not read.
    Some(secret.unwrap_or_else(|| Secret::new([0; MIN_SID_KEY])))
}
