//! What of `[[route]]` is about answers that go on: `upgrades`, `recheck`, `recheck_grace`.

use std::time::Duration;

use super::{Recheck, item::Value, tree::Table};

/// How soon a logout ends what is open.
const EVERY: Duration = Duration::from_secs(30);

/// Longer than a failover of the database takes. Ending all streams while it is away would bring all their clients
/// back at once, to a gateway that must refuse them.
const GRACE: Duration = Duration::from_secs(300);

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(86_400);

/// `recheck` and `recheck_grace`.
pub(super) fn read_recheck(table: &Table<'_>) -> Recheck {
    let every = table.read("recheck", Some(EVERY), |value| match value.as_text() {
        Some("off") => Some(None),
        _ => value.duration(SHORTEST..=LONGEST).map(Some),
    });
    Recheck {
        every,
        is_explicit: table.value("recheck").is_some(),
        grace: table.duration("recheck_grace", GRACE, Duration::ZERO..=LONGEST),
    }
}

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
