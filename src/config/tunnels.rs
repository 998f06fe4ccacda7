//! What of `[[route]]` is about answers that go on: `upgrades`.

use super::{item::Value, tree::Table};

/// `upgrades`: the protocols for which a request of a route may leave HTTP, lower-case.
pub(super) fn read_upgrades(table: &Table<'_>) -> Vec<String> {
    let websocket = || vec!["websocket".to_owned()];
    table.read("upgrades", websocket(), |value| {
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
    })
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
