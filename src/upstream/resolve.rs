//! Names become addresses, again and again: what a name stands for changes while the gateway runs.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::pool::Pool;
use crate::config::ServerAddress;

/// Most addresses of a name that are used.
const MOST_ADDRESSES: usize = 256;

/// The system's resolver gives up after 5 s and asks again; an answer that is later is none.
const LONGEST: Duration = Duration::from_secs(10);

/// Between two looks at a name whose servers cannot be reached.
const SHORTEST: Duration = Duration::from_secs(1);

/// Between two looks at a name that has no address yet, at first; it doubles up to `resolve_every`.
const AGAIN: Duration = Duration::from_millis(250);

/// What a look-up gives.
pub type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks up a name and a port.
pub type Resolver = Arc<dyn Fn(&str, u16) -> Looking + Send + Sync>;

/// The system's own: /etc/hosts, DNS, and whatever else it is set up to ask.
pub fn system() -> Resolver {
    Arc::new(|host, port| {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    })
}

/// Looks up a name.
///
/// # Errors
///
/// Why there is no address.
pub async fn look_up(resolver: &Resolver, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let looking = timeout(LONGEST, resolver(host, port));
    let mut addresses = looking
        .await
        .map_err(|_| io::Error::other("nobody knows it in time"))??;
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() {
        return Err(io::Error::other("it has no address"));
    }
    Ok(addresses)
}

/// Keeps the addresses of a pool's entry up to date. While the name cannot be looked up, the last ones are good.
pub(super) async fn keep(pool: Arc<Pool>, place: usize) {
    let Some(entry) = pool.entries.get(place) else {
        return;
    };
    let ServerAddress::Name { host, port } = &entry.address else {
        return;
    };
    let name = &pool.names[place];
    let (mut fails, mut again) = (false, AGAIN);
    loop {
        let asked = Instant::now();
        let found = look_up(&pool.resolver, host, *port).await;
        let is_known = match found {
            Ok(addresses) => {
                if std::mem::take(&mut fails) {
                    tracing::info!(upstream = %entry.upstream, server = %entry.name, "a server's name is known again");
                }
                pool.resolved(place, addresses);
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(
                        upstream = %entry.upstream,
                        server = %entry.name,
                        cause = %error,
                        "a server's name cannot be looked up; the addresses that were known are kept"
                    );
                }
                pool.is_known(place)
            }
        };
        name.looked();
        let wait = match is_known {
            true => {
                again = AGAIN;
                pool.resolve_every
            }
            false => {
                let wait = again;
                again = (again * 2).min(pool.resolve_every);
                wait
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = name.doubted() => sleep_until(asked + SHORTEST).await,
        }
    }
}
