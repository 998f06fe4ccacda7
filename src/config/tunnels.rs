//! What of `[[route]]` is about answers that go on: `upgrades`, `recheck`, `recheck_grace`.

use super::{Recheck, item::Value, tree::Table};

/// `recheck` and `recheck_grace`.
pub(super) fn read_recheck(table: &Table<'_>) -> Option<Recheck> {
    let every = table.read("recheck", |value| match value.as_text() {
        Some("off") => Some(None),
        _ => value.duration().map(Some),
    });
    Some(Recheck {
        every: every?,
        is_explicit: table.value("recheck").is_some(),
        grace: table.duration("recheck_grace"),
    })
}

/// `upgrades`: the protocols for which a request of a route may leave HTTP, lower-case.
pub(super) fn read_upgrades(table: &Table<'_>) -> Vec<String> {
    let upgrades = table.read("upgrades", |value| {
        let items = value.texts("a list of protocols such as [\"websocket\"]")?;
        let mut protocols = Vec::new();
        for item in items {
            let Some(protocol) = read_protocol(&item) else {
                continue;
            };
            if protocols.contains(&protocol) {
                item.problem(format!("{protocol:?} is given twice"), None);
            }
            protocols.push(protocol);
        }
        Some(protocols)
    });
    upgrades.unwrap_or_default()
}

fn read_protocol(item: &Value<'_>) -> Option<String> {
    let protocol = item.text("a protocol")?.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if protocol.is_empty() || !protocol.bytes().all(is_token) {
        item.problem(format!("{protocol:?} is no protocol's name"), None);
        return None;
    }
    let is_http = ["h2", "http/", "tls/"];
    if is_http.iter().any(|start| protocol.starts_with(start)) {
        let why = format!("with {protocol:?} a client could send requests past the gateway");
        item.problem(why, None);
        return None;
    }
    Some(protocol)
}
