//! `[upstream.X]`: the services behind the gateway.

use super::{
    Algorithm, Key, Secret, Timeouts, Upstream,
    item::Value,
    load::read_own_timeouts,
    secrets::{self, Found},
    signing::OwnKeys,
    transport,
    tree::Table,
    upstream_tls, value,
};

/// HS256 asks for a key of at least the hash's size (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;

/// An upstream and what is known of its place in the file.
pub(super) struct Entry<'a> {
    pub(super) upstream: Upstream,
    pub(super) table: Table<'a>,
    /// Whether the file gives it a key to sign its tokens with, good or bad.
    pub(super) has_keys: bool,
}

/// Every `[upstream.X]`, in the order of the file. No two may share a secret, nor have one of `own_keys`.
pub(super) fn read<'a>(top: &Table<'a>, timeouts: &Timeouts, own_keys: &OwnKeys) -> Vec<Entry<'a>> {
    let mut taken: Vec<(String, Found)> = Vec::new();
    let tables = top.named_tables("upstream");
    tables
        .into_iter()
        .filter_map(|(name, table)| read_one(name, table, timeouts, own_keys, &mut taken))
        .collect()
}

fn read_one<'a>(
    name: &str,
    table: Table<'a>,
    timeouts: &Timeouts,
    own_keys: &OwnKeys,
    taken: &mut Vec<(String, Found)>,
) -> Option<Entry<'a>> {
    if let Err(refused) = value::name(name) {
        table.problem(refused.why, refused.suggestion);
    }
    let servers = transport::read_servers(&table);
    let protocol = transport::read_protocol(&table)?;
    let algorithm = read_algorithm(&table, own_keys)?;
    let upstream = Upstream {
        name: name.to_owned(),
        balance: transport::read_balance(&table)?,
        protocol,
        tls: upstream_tls::read(&table, protocol, &servers),
        health: transport::read_health(&table),
        resolve_every: table.duration("resolve_every"),
        servers,
        django: table.flag("django"),
        algorithm,
        keys: read_keys(name, &table, own_keys, taken),
        own_host: table.choice("host", &[("client", false), ("upstream", true)])?,
        max_header_bytes: table.count("max_header_bytes"),
        token_ttl: table.duration("token_ttl"),
        timeouts: read_own_timeouts(&table, timeouts),
    };
    let has_keys = algorithm == Algorithm::EdDsa
        || table
            .value("keys")
            .is_some_and(|value| !value.is_empty_list());
    Some(Entry {
        upstream,
        table,
        has_keys,
    })
}

/// Which key signs: one of the upstream's own, or the gateway's.
fn read_algorithm(table: &Table<'_>, own_keys: &OwnKeys) -> Option<Algorithm> {
    let algorithms = [("HS256", Algorithm::Hs256), ("EdDSA", Algorithm::EdDsa)];
    let algorithm = table.choice("algorithm", &algorithms)?;
    if algorithm == Algorithm::Hs256 {
        return Some(algorithm);
    }
    if !own_keys.can_sign
        && let Some(value) = table.value("algorithm")
    {
        let suggestion = "such as signing = { kid = \"gateway-2026-11\", private_key = { file = \
                          \"gateway.key\" } }; session-gateway key new --algorithm EdDSA makes one";
        value.problem(
            "there is no signing in [gateway] to sign with",
            Some(suggestion.to_owned()),
        );
    }
    if let Some(value) = table.value("keys") {
        let why = "with algorithm = \"EdDSA\" the signing key of [gateway] signs, and an upstream has none";
        value.problem(why, Some("leave out one of the two".to_owned()));
    }
    Some(algorithm)
}

fn read_keys(
    name: &str,
    table: &Table<'_>,
    own_keys: &OwnKeys,
    taken: &mut Vec<(String, Found)>,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let example = "a list such as [{ kid = \"orders-2026\", secret = { env = \"ORDERS_KEY\" } }]";
    let items = table.value("keys").and_then(|value| value.items(example));
    for item in items.into_iter().flatten() {
        let Some(entry) = item.table(None) else {
            continue;
        };
        let kid_value = entry.required("kid");
        let secret_value = entry.required("secret");
        let kid = kid_value
            .as_ref()
            .and_then(|value| value.parse("text", value::name));
        let found = secret_value
            .as_ref()
            .and_then(|value| Some((value, secrets::read(value)?)));
        if let (Some(value), Some(kid)) = (&kid_value, &kid)
            && keys.iter().any(|key| key.kid == *kid)
        {
            value.problem(
                format!("this upstream has two keys with the kid {kid:?}"),
                None,
            );
        }
        let Some((value, mut found)) = found else {
            continue;
        };
        if let Some(written) = found.secret.take() {
            found.secret = decode(value, &written);
            if found.secret.is_none() {
                continue;
            }
        }
        check_apart(name, value, &found, own_keys, taken);
        let secret = found
            .secret
            .clone()
            .unwrap_or_else(|| Secret::new([0; MIN_SECRET]));
        taken.push((name.to_owned(), found));
        if let Some(kid) = kid {
            keys.push(Key { kid, secret });
        }
    }
    keys
}

/// A secret that two share lets one forge what the other believes.
fn check_apart(
    name: &str,
    value: &Value<'_>,
    found: &Found,
    own_keys: &OwnKeys,
    taken: &[(String, Found)],
) {
    if let Some(why) = own_keys.holds(found) {
        value.problem(why, None);
    }
    if let Some((other, _)) = taken
        .iter()
        .find(|(other, key)| other != name && key.is_same(found))
    {
        value.problem(
            format!(
                "upstream {other:?} has the same secret: each could forge tokens for the other"
            ),
            None,
        );
    }
}

/// The secret itself: what follows `base64:` decoded, anything else as it is.
fn decode(value: &Value<'_>, written: &Secret) -> Option<Secret> {
    let secret = match written.expose().strip_prefix(b"base64:") {
        None => written.clone(),
        Some(encoded) => {
            let Some(bytes) = secrets::base64(encoded) else {
                value.problem("what follows base64: is not base64", None);
                return None;
            };
            Secret::new(bytes)
        }
    };
    if secret.len() < MIN_SECRET {
        let why = format!(
            "a secret has at least {MIN_SECRET} bytes, this one has {}",
            secret.len()
        );
        value.problem(
            why,
            Some("such as the output of: openssl rand -base64 32".to_owned()),
        );
        return None;
    }
    Some(secret)
}
