//! The servers of an upstream, and which of them takes a request.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    balance::{self, Affinity, Turns},
    connect::Target,
    resolve::Resolver,
    server::{Entry, Server},
};
use crate::{
    config::{self, Balance, Health, ServerAddress},
    telemetry::metrics::{Held, Metrics},
};

/// A name that was looked up within this time is not looked up again for a request.
const FRESH: Duration = Duration::from_secs(1);

/// The servers of an upstream.
pub struct Pool {
    /// `servers`, in their order.
    pub entries: Vec<Arc<Entry>>,
    /// The names among them, by the same places.
    pub names: Vec<Name>,
    /// `health`.
    pub health: Option<Health>,
    /// `resolve_every`.
    pub resolve_every: Duration,
    /// `timeouts.connect`, of probes.
    pub connect: Duration,
    /// Looks up names.
    pub resolver: Resolver,
    weights: Vec<u32>,
    balance: Balance,
    set: ArcSwap<Set>,
    /// The addresses of each entry, as far as they are known.
    addresses: Mutex<Vec<Vec<Target>>>,
    changes: watch::Sender<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// Where the looking up of a name stands.
#[derive(Debug, Default)]
pub struct Name {
    doubted: Notify,
    /// How often it was looked up, and when last.
    looked: watch::Sender<(u64, Option<Instant>)>,
}

impl Name {
    /// It was looked up.
    pub fn looked(&self) {
        self.looked
            .send_modify(|looked| *looked = (looked.0 + 1, Some(Instant::now())));
    }

    /// Ready when its addresses have turned out to be of no use.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// All servers at one moment.
#[derive(Debug, Default)]
struct Set {
    members: Vec<Member>,
    /// Counts the names without an address among what is left out.
    _unknown: Vec<Held>,
    turns: Mutex<Turns>,
    rotation: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    server: Arc<Server>,
    weight: u32,
    entry: usize,
    /// Of its entry's name, and of its own address.
    seeds: (u64, u64),
}

impl Pool {
    /// The servers of a configuration. Those that `previous` has, too, are the same ones.
    pub fn new(
        config: &config::Upstream,
        previous: Option<&Self>,
        metrics: &Metrics,
        resolver: Resolver,
    ) -> Self {
        let entries: Vec<Arc<Entry>> = config
            .servers
            .iter()
            .map(|server| {
                let entry = Entry::new(config, server, metrics);
                let known = previous.and_then(|previous| previous.same(&entry));
                known.unwrap_or_else(|| Arc::new(entry))
            })
            .collect();
        let addresses = entries
            .iter()
            .map(|entry| match &entry.address {
                ServerAddress::Ip(address) => vec![Target::Tcp(*address)],
                ServerAddress::Unix(path) => vec![Target::Unix(path.clone())],
                ServerAddress::Name { .. } => {
                    previous.map_or_else(Vec::new, |pool| pool.targets(entry))
                }
            })
            .collect();
        let pool = Self {
            names: entries.iter().map(|_| Name::default()).collect(),
            entries,
            health: config.health.clone(),
            resolve_every: config.resolve_every,
            connect: config.timeouts.connect,
            resolver,
            weights: config.servers.iter().map(|server| server.weight).collect(),
            balance: config.balance,
            set: ArcSwap::default(),
            addresses: Mutex::new(addresses),
            changes: watch::Sender::new(()),
        };
        let known = previous.map_or_else(Vec::new, Self::servers);
        for server in &known {
            match config.health {
                None => server.unchecked(),
                Some(_) => server.checked(),
            }
        }
        pool.rebuild(&pool.lock(), &known);
        pool
    }

    /// All servers.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        let set = self.set.load();
        let servers = set.members.iter().map(|member| member.server.clone());
        servers.collect()
    }

    /// Tells when the servers have become others.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Whether some server but this one may be asked.
    pub fn has_other(&self, than: &Arc<Server>) -> bool {
        self.set.load().has_other(than)
    }

    /// Which server takes a request: not `not`, if there is another one. `None` if none may be asked.
    pub fn pick(&self, affinity: Affinity<'_>, not: Option<&Arc<Server>>) -> Option<Arc<Server>> {
        let set = self.set.load();
        let not = not.filter(|not| set.has_other(not));
        let may = |member: &Member| {
            member.server.is_available() && not.is_none_or(|not| !Arc::ptr_eq(not, &member.server))
        };
        if let [only] = &*set.members {
            return Some(only.server.clone()).filter(|_| may(only));
        }
        let place = set.place(self.balance, affinity, may)?;
        Some(set.members[place].server.clone())
    }

    /// Waits until each name was looked up once.
    pub async fn first_look(&self, within: Duration) {
        let all = async {
            for (name, entry) in self.names.iter().zip(&self.entries) {
                if matches!(entry.address, ServerAddress::Name { .. }) {
                    // The sender lives as long as this.
                    let _ = name
                        .looked
                        .subscribe()
                        .wait_for(|looked| looked.0 > 0)
                        .await;
                }
            }
        };
        let _ = timeout(within, all).await;
    }

    /// A server could not be reached: its name may have other addresses by now. Waits for them where no other server
    /// could be asked.
    pub async fn doubt(&self, server: &Arc<Server>, within: Duration) {
        let is_its = |entry: &Arc<Entry>| Arc::ptr_eq(entry, &server.entry);
        let Some(place) = self.entries.iter().position(is_its) else {
            return;
        };
        if !matches!(server.entry.address, ServerAddress::Name { .. }) {
            return;
        }
        let name = &self.names[place];
        let mut looked = name.looked.subscribe();
        let (times, last) = *looked.borrow_and_update();
        name.doubted.notify_one();
        let is_fresh = last.is_some_and(|last| last.elapsed() < FRESH);
        if !is_fresh && !self.has_other(server) {
            let again = looked.wait_for(|looked| looked.0 > times);
            let _ = timeout(within, again).await;
        }
    }

    /// A name has these addresses now.
    pub fn resolved(&self, place: usize, addresses: Vec<SocketAddr>) {
        let targets: Vec<Target> = addresses.into_iter().map(Target::Tcp).collect();
        let mut known = self.lock();
        if known.get(place).is_none_or(|known| *known == targets) {
            return;
        }
        known[place] = targets;
        self.rebuild(&known, &self.servers());
        drop(known);
        self.changes.send_replace(());
    }

    /// Whether an entry has addresses.
    pub fn is_known(&self, place: usize) -> bool {
        self.lock()
            .get(place)
            .is_some_and(|known| !known.is_empty())
    }

    fn rebuild(&self, addresses: &[Vec<Target>], known: &[Arc<Server>]) {
        let mut members = Vec::new();
        let mut unknown = Vec::new();
        for (place, (entry, targets)) in self.entries.iter().zip(addresses).enumerate() {
            if targets.is_empty() {
                unknown.push(Held::new(&entry.metrics.left_out));
            }
            for target in targets {
                let is_same = |server: &&Arc<Server>| {
                    Arc::ptr_eq(&server.entry, entry) && server.target == *target
                };
                let server = match known.iter().find(is_same) {
                    Some(server) => server.clone(),
                    None => Arc::new(Server::new(entry.clone(), target.clone())),
                };
                members.push(Member {
                    server,
                    weight: self.weights.get(place).copied().unwrap_or(1),
                    entry: place,
                    seeds: (
                        balance::hash(entry.name.as_bytes()),
                        balance::hash(target.to_string().as_bytes()),
                    ),
                });
            }
        }
        self.set.store(Arc::new(Set {
            turns: Mutex::new(Turns::new(members.len())),
            rotation: AtomicUsize::new(0),
            members,
            _unknown: unknown,
        }));
    }

    fn same(&self, entry: &Entry) -> Option<Arc<Entry>> {
        let mut entries = self.entries.iter();
        entries.find(|other| other.is_same(entry)).cloned()
    }

    fn targets(&self, entry: &Arc<Entry>) -> Vec<Target> {
        let place = self.entries.iter().position(|own| Arc::ptr_eq(own, entry));
        let addresses = self.lock();
        place.map_or_else(Vec::new, |place| addresses[place].clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Target>>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn has_other(&self, than: &Arc<Server>) -> bool {
        self.members
            .iter()
            .any(|member| !Arc::ptr_eq(&member.server, than) && member.server.is_available())
    }

    fn place(
        &self,
        balance: Balance,
        affinity: Affinity<'_>,
        may: impl Fn(&Member) -> bool,
    ) -> Option<usize> {
        let usable = || {
            let all = self.members.iter().enumerate();
            all.filter(|(_, member)| may(member))
        };
        let key = match balance {
            Balance::Hash => affinity.key(),
            Balance::RoundRobin | Balance::LeastRequests => None,
        };
        match (balance, key) {
            // Nothing is known of a client of a Unix socket.
            (Balance::RoundRobin, _) | (Balance::Hash, None) => {
                let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
                turns.next(usable().map(|(place, member)| (place, member.weight)))
            }
            (Balance::LeastRequests, _) => {
                let start =
                    self.rotation.fetch_add(1, Ordering::Relaxed) % self.members.len().max(1);
                let rows = usable()
                    .map(|(place, member)| (place, member.weight, member.server.in_flight()));
                balance::least_requests(rows, start)
            }
            (Balance::Hash, Some(key)) => {
                let entry = balance::rendezvous(self.entries(&may), key)?;
                let own = usable()
                    .filter(|(_, member)| member.entry == entry)
                    .map(|(place, member)| (place, 1, member.seeds.1));
                balance::rendezvous(own, key)
            }
        }
    }

    /// The entries with a server that may be asked, each with the weight of all its addresses: a key stays at a name
    /// whose addresses change, and at its address while the others of that name go and come.
    fn entries<'a>(
        &'a self,
        may: &'a impl Fn(&Member) -> bool,
    ) -> impl Iterator<Item = (usize, u64, u64)> + 'a {
        let groups = self.members.chunk_by(|a, b| a.entry == b.entry);
        groups
            .filter(move |group| group.iter().any(may))
            .filter_map(|group| {
                let weight = group.iter().map(|member| u64::from(member.weight)).sum();
                let first = group.first()?;
                Some((first.entry, weight, first.seeds.0))
            })
    }
}
