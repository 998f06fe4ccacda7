//! How much is served at the same time, and how often somebody may come.

mod rate;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use self::rate::Window;
use super::respond::Refusal;
use crate::{
    config::{Config, Rate, RateBy, Route},
    error::Code,
    path::Prefix,
    session::SessionKey,
};

/// The counts behind the limits of a gateway.
#[derive(Debug)]
pub struct Limits {
    most: usize,
    in_flight: Arc<AtomicUsize>,
    routes: Vec<OfRoute>,
    /// Makes the keys of the rates. Random, so that nobody can choose an address that shares another's count.
    hasher: RandomState,
}

/// The counts of one route.
#[derive(Clone, Debug)]
struct OfRoute {
    host: Option<String>,
    prefix: Prefix,
    in_flight: Arc<AtomicUsize>,
    rates: Vec<(Rate, Arc<Window>)>,
}

/// A request that is being served, as long as it lives.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Result<Self, Refusal> {
        // From here on dropping it gives the place back.
        let slot = Self(count.clone());
        if count.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(slot);
        }
        let detail = "Too many requests are being served. Try again shortly.";
        Err(Refusal::new(Code::Overloaded, detail))
    }
}

impl Limits {
    /// The limits of a configuration. What was counted under the one before goes on where it is limited alike.
    pub fn new(config: &Config, before: Option<&Self>) -> Self {
        let now = Instant::now();
        let of_route = |route: &Route| {
            let same = |other: &&OfRoute| other.host == route.host && other.prefix == route.prefix;
            let before = before.and_then(|before| before.routes.iter().find(same));
            let window = |rate: &Rate| {
                let mut kept = before.into_iter().flat_map(|before| &before.rates);
                let kept = kept.find(|(other, _)| other == rate);
                let new = || Arc::new(Window::new(rate, now));
                (*rate, kept.map_or_else(new, |(_, window)| window.clone()))
            };
            OfRoute {
                host: route.host.clone(),
                prefix: route.prefix.clone(),
                in_flight: before.map_or_else(Arc::default, |before| before.in_flight.clone()),
                rates: route.rates.iter().map(window).collect(),
            }
        };
        Self {
            most: config.limits.in_flight,
            in_flight: before.map_or_else(Arc::default, |before| before.in_flight.clone()),
            routes: config.routes.iter().map(of_route).collect(),
            hasher: before.map_or_else(RandomState::new, |before| before.hasher.clone()),
        }
    }

    /// Requests that are being served.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes one of `limits.in_flight`, whatever the request is.
    ///
    /// # Errors
    ///
    /// 503 at once, rather than a queue without end.
    pub fn take(&self) -> Result<Slot, Refusal> {
        Slot::take(&self.in_flight, self.most)
    }

    /// Takes one of the route's own.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn take_of(&self, route: &Route) -> Result<Option<Slot>, Refusal> {
        let Some(most) = route.limits.in_flight else {
            return Ok(None);
        };
        Slot::take(&self.routes[route.place].in_flight, most).map(Some)
    }

    /// Counts a request by its address, before anybody looks at its session.
    ///
    /// # Errors
    ///
    /// 429: too many of this address.
    pub fn count_address(&self, route: &Route, client: Option<IpAddr>) -> Result<(), Refusal> {
        self.count(route, RateBy::Address, || self.address(client))
    }

    /// Counts a request by its session. Only one that is there counts by itself, or whoever makes keys up would
    /// never be counted twice.
    ///
    /// # Errors
    ///
    /// 429: too many of this session, or of this address without one.
    pub fn count_session(
        &self,
        route: &Route,
        session: Option<&SessionKey>,
        client: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        self.count(route, RateBy::Session, || match session {
            Some(key) => self.hasher.hash_one(key.as_str()),
            None => self.address(client),
        })
    }

    /// A household or a server has an IPv6 network of 64 bits for itself, and more addresses than can be counted.
    fn address(&self, client: Option<IpAddr>) -> u64 {
        match client.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => self.hasher.hash_one(address.octets()),
            Some(IpAddr::V6(address)) => self.hasher.hash_one(&address.octets()[..8]),
            // All that come over Unix sockets, as far as nobody tells them apart.
            None => self.hasher.hash_one(()),
        }
    }

    fn count(&self, route: &Route, by: RateBy, key: impl Fn() -> u64) -> Result<(), Refusal> {
        if route.rates.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let rates = &self.routes[route.place].rates;
        for (_, window) in rates.iter().filter(|(rate, _)| rate.by == by) {
            window.enter(key(), now).map_err(too_many)?;
        }
        Ok(())
    }
}

fn too_many(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + 1;
    let detail = format!("Too many requests. Try again in {seconds} s.");
    Refusal::new(Code::RateLimited, detail).retry_after(seconds)
}
