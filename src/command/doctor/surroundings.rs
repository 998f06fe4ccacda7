//! Keys, services and sockets.

use super::Finding;
use crate::{
    command::text::count,
    config::{Address, Algorithm, Config, Upstream},
    server, upstream,
};

/// The keys: whether they are there and fit for use, the configuration has seen to.
pub(super) fn keys(config: &Config) -> Finding {
    let fallbacks = count(config.django.secret_key_fallbacks.len(), "fallback");
    let mut found = format!("secret_key and {fallbacks}");
    for upstream in &config.upstreams {
        let signing = config.gateway.signing.as_ref();
        let kid = match upstream.algorithm {
            Algorithm::Hs256 => upstream.keys.first().map(|key| &key.kid),
            Algorithm::EdDsa => signing.map(|key| &key.kid),
        };
        if let Some(kid) = kid {
            found.push_str(&format!(
                "; the tokens for {} are signed with {kid}",
                upstream.name
            ));
        }
    }
    Finding::ok("keys", found)
}

/// Connects to each server of each upstream, and sends nothing.
pub(super) async fn upstreams(config: &Config, findings: &mut Vec<Finding>) {
    for upstream in &config.upstreams {
        let answers = upstream::try_servers(upstream).await;
        let any = answers.iter().any(|(_, error)| error.is_none());
        let judged = answers
            .into_iter()
            .map(|(server, error)| judge(upstream, &server, error, any));
        findings.extend(judged);
    }
}

fn judge(upstream: &Upstream, server: &str, error: Option<String>, any: bool) -> Finding {
    let name = &upstream.name;
    let Some(error) = error else {
        return Finding::ok("upstream", format!("{name}: {server} accepts connections"));
    };
    let found = format!("{name}: no connection to {server}: {error}");
    if any {
        let todo = "Start it; another server of this upstream serves meanwhile.";
        return Finding::warn("upstream", found, todo);
    }
    let todo = format!("Start it, or correct servers in [upstream.{name}].");
    Finding::fail("upstream", found, todo)
}

/// Whether the sockets could be opened.
pub(super) async fn listeners(config: &Config, findings: &mut Vec<Finding>) {
    let listeners = config.listeners.iter().map(|listener| &listener.address);
    for address in listeners.chain(&config.health) {
        findings.push(listener(address).await);
    }
}

async fn listener(address: &Address) -> Finding {
    match server::probe(address).await {
        Ok(()) => Finding::ok("listener", format!("{address} is free")),
        Err(error) if error.is_taken() => Finding::warn(
            "listener",
            error.to_string(),
            "Good if that is the gateway itself; otherwise end that process, or take another address.",
        ),
        Err(error) => Finding::fail(
            "listener",
            error.to_string(),
            "Correct the address in the configuration.",
        ),
    }
}
