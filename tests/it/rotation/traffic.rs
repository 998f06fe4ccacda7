//! A site under traffic: visitors who read and write all the time, while gateways and Django processes come and go.

use std::sync::{
    RwLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Database, Django, Engine, Gateway, PythonUpstream, Release, SECRET_KEY, Served as _,
    eventually, gateway::Setup, rows,
};

/// Logged-in visitors, and one who only has a cart.
const USERS: [(&str, &str); 3] = [("alice", "1"), ("bob", "2"), ("alice", "1")];
const VISITORS: usize = USERS.len() + 1;

/// How often everybody has to come by before the next step.
const ROUNDS: usize = 2;

/// A database, Django processes, gateways, and an upstream that checks tokens with PyJWT.
pub struct World {
    pub release: Release,
    pub database: Database,
    pub app: PythonUpstream,
    /// Whether the settings promise a `sid` that outlives a rotation of SECRET_KEY.
    pub sid_is_stable: bool,
    gateways: RwLock<Vec<Gateway>>,
    djangos: RwLock<Vec<Django>>,
    rounds: [AtomicUsize; VISITORS],
    stopped: AtomicBool,
}

impl World {
    /// A site on SQLite with Django under the old SECRET_KEY, and no gateway yet.
    pub fn start(release: Release) -> Self {
        let database = Database::empty(Engine::Sqlite);
        let django = Django::start(release, &database);
        Self {
            release,
            database,
            app: PythonUpstream::start(),
            sid_is_stable: false,
            gateways: RwLock::default(),
            djangos: RwLock::new(vec![django]),
            rounds: Default::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// What all gateways of the test have in common. Keys of the upstream `app` are still to be said.
    pub fn gateway(&self) -> Setup {
        let server = format!("servers = ['{}']", self.app.address());
        Gateway::over(&self.database)
            .line("django", &format!("release = '{}'", self.release.name()))
            // SQLite has one writer at a time, and Django may hold it.
            .line("django", "deadline = '20s'")
            .line("upstream.app", &server)
            .route("path = '/'\nupstream = 'app'\nwritable = ['count', 'cart']")
    }

    /// Takes the steps while visitors come by, and checks that all of them got what is theirs all the time.
    pub fn under_traffic(&self, gateway: &Setup, steps: impl FnOnce(&Self)) {
        *self.gateways.write().unwrap() = vec![gateway.start()];
        std::thread::scope(|scope| {
            let stop = Stop(&self.stopped);
            for (number, rounds) in self.rounds.iter().enumerate() {
                scope.spawn(move || {
                    // Whoever fails stops the others, and the steps.
                    let stop = Stop(&self.stopped);
                    let mut visitor = Visitor::arrive(self, number);
                    while !self.stopped.load(Ordering::SeqCst) {
                        visitor.comes_by();
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(stop);
                });
            }
            self.settle();
            steps(self);
            self.settle();
            drop(stop);
        });
    }

    /// Waits until everybody has come by a few times more.
    pub fn settle(&self) {
        let count = |rounds: &AtomicUsize| rounds.load(Ordering::SeqCst);
        let before = self.rounds.each_ref().map(count);
        eventually("every visitor comes by", || {
            assert!(!self.stopped.load(Ordering::SeqCst), "a visitor has failed");
            let mut pairs = self.rounds.iter().zip(before);
            pairs
                .all(|(rounds, before)| count(rounds) >= before + ROUNDS)
                .then_some(())
        });
    }

    /// Restarts the gateways one after the other: for a while both settings answer, in turns.
    pub fn roll_gateways(&self, setup: &Setup) {
        let new = setup.start();
        self.gateways.write().unwrap().push(new);
        self.settle();
        // Nobody is under way at the old one while this has the lock.
        drop(self.gateways.write().unwrap().remove(0));
        self.settle();
    }

    /// The same with Django.
    pub fn roll_django(&self, secret_key: &str, fallbacks: &[&str]) {
        let new = self.django(secret_key, fallbacks);
        self.djangos.write().unwrap().push(new);
        self.settle();
        drop(self.djangos.write().unwrap().remove(0));
        self.settle();
    }

    /// Restarts a Django of one process: visitors wait meanwhile.
    pub fn restart_django(&self, secret_key: &str, fallbacks: &[&str]) {
        let mut djangos = self.djangos.write().unwrap();
        djangos.clear();
        djangos.push(self.django(secret_key, fallbacks));
        drop(djangos);
        self.settle();
    }

    fn django(&self, secret_key: &str, fallbacks: &[&str]) -> Django {
        let settings = json!({"SECRET_KEY_FALLBACKS": fallbacks});
        Django::serve(self.release, &self.database, secret_key, &settings)
    }

    /// The public keys of the newest gateway.
    pub fn jwks(&self) -> Value {
        let gateways = self.gateways.read().unwrap();
        let health = gateways.last().unwrap().health();
        health.get("/.well-known/jwks.json").send().json()
    }

    /// Whether every row is signed with this key. A panic says which is not.
    pub fn all_rows_are_signed_with(&self, secret_key: &str) {
        // No request is under way, so that no row goes while it is looked at.
        let _gateways = self.gateways.write().unwrap();
        let _djangos = self.djangos.write().unwrap();
        let keys = self.database.keys();
        assert_eq!(keys.len(), VISITORS);
        for key in keys {
            rows::is_signed(secret_key, &self.database.data(&key).unwrap());
        }
    }
}

/// Ends the traffic when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A browser: one request after the other, and it keeps the cookie that it is given.
struct Visitor<'a> {
    world: &'a World,
    key: String,
    /// The user as whom it is logged in.
    user: Option<&'static str>,
    /// Requests so far: they go to the gateways in turns.
    asked: usize,
    count: u64,
    sid: Option<Value>,
}

impl<'a> Visitor<'a> {
    fn arrive(world: &'a World, number: usize) -> Self {
        let mut visitor = Self {
            world,
            key: String::new(),
            user: None,
            asked: number,
            count: 0,
            sid: None,
        };
        match USERS.get(number) {
            Some((name, id)) => {
                let login = format!("/login/?username={name}&password={name}");
                let djangos = world.djangos.read().unwrap();
                let answer = djangos[0].post(&login).send();
                assert_eq!(answer.status, 200);
                visitor.user = Some(id);
                visitor.keep(&answer);
            }
            None => {
                let answer = visitor.app(Some(json!({"set": {"cart": ["a"]}})));
                visitor.keep(&answer);
            }
        }
        visitor
    }

    fn comes_by(&mut self) {
        let claims = self.reads();
        self.count += 1;
        // The revision is of one gateway, the condition is judged by the next.
        self.writes(json!({"if": claims["rev"], "set": {"count": self.count}}));
        assert_eq!(self.reads()["session"]["count"], self.count);
        self.count += 1;
        self.writes(json!({"set": {"count": self.count}}));
        assert_eq!(self.reads()["session"]["count"], self.count);
        self.visits_django();
        assert_eq!(self.reads()["session"]["count"], self.count);
    }

    fn reads(&mut self) -> Value {
        let claims = self.app(None).json()["claims"].take();
        assert_eq!(claims["sub"].as_str(), self.user, "{claims}");
        if self.world.sid_is_stable && self.user.is_none() {
            let sid = self.sid.get_or_insert_with(|| claims["sid"].clone());
            assert_eq!(claims["sid"], *sid, "the session's key is the same");
        }
        claims
    }

    fn writes(&mut self, change: Value) {
        let answer = self.app(Some(change));
        self.keep(&answer);
    }

    /// A request of the upstream through one of the gateways.
    #[track_caller]
    fn app(&mut self, change: Option<Value>) -> Answer {
        let gateways = self.world.gateways.read().unwrap();
        self.asked += 1;
        let ask = gateways[self.asked % gateways.len()].get("/cart?page=2");
        let ask = match change {
            Some(change) => ask.field("X-Test-Set", &change.to_string()),
            None => ask,
        };
        let answer = match self.key.as_str() {
            "" => ask.send(),
            key => ask.session(key).send(),
        };
        answer.is_upstreams(200);
        answer
    }

    /// Django knows the visitor, and has what the upstream wrote. It moves logins to its first key meanwhile.
    fn visits_django(&mut self) {
        let djangos = self.world.djangos.read().unwrap();
        let django = &djangos[self.asked % djangos.len()];
        let answer = django.get("/session/").session(&self.key).send();
        drop(djangos);
        let seen = answer.json();
        assert_eq!(seen["user"].as_str(), self.user, "{seen}");
        assert_eq!(seen["session"]["count"], self.count, "{seen}");
        self.keep(&answer);
    }

    fn keep(&mut self, answer: &Answer) {
        if let Some(key) = answer.new_session() {
            assert_eq!(key.len(), 32, "the cookie is taken away");
            self.key = key;
        }
    }
}

/// The SECRET_KEY under which every world starts.
pub const OLD_SECRET_KEY: &str = SECRET_KEY;
