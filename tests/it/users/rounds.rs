//! What a request costs the database: counted on the wire, between the gateway and PostgreSQL.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;

use crate::{
    support::{Engine, Gateway, Served as _, Upstream, from_tests_run},
    users::{add, people, session_of, told},
};

#[test]
fn claims_and_access_cost_no_round_to_the_database() {
    let database = people(Engine::Postgres, "integer");
    add(&database, "1");
    database.execute(
        "UPDATE people SET name = 'ada', is_staff = true;
         ALTER TABLE people ALTER COLUMN name TYPE text;
         CREATE TABLE auth_group (id integer PRIMARY KEY, name text);
         CREATE TABLE people_groups (id integer, people_id integer, group_id integer);
         INSERT INTO auth_group VALUES (1, 'editors'); INSERT INTO people_groups VALUES (1, 1, 1)",
    );
    let server = from_tests_run("SG_TEST_PG_URL");
    let (login, address) = server.rsplit_once('@').unwrap();
    let relay = Relay::to(address.parse().unwrap());
    let name = database.url().rsplit('/').next().unwrap();
    let app = Upstream::start();
    let gateway = Gateway::before(&database, &app)
        .env("DATABASE_URL", &format!("{login}@{}/{name}", relay.address))
        .line("django", "connections = 1")
        .line("django.user", "table = 'people'")
        .route("path = '/login/'\nupstream = 'app'\nrequire = 'login'")
        .route("path = '/staff/'\nupstream = 'app'\nrequire = 'staff'")
        .route("path = '/told/'\nupstream = 'app'\nuser = ['name', 'is_staff', 'groups']")
        .route(
            "path = '/editors/'\nupstream = 'app'\nrequire = 'staff'\ngroups = ['editors']\nuser = ['name']",
        )
        .route("path = '/off/'\nupstream = 'app'\nsession = 'off'")
        .start();
    let user = session_of(&database, &json!("1"));
    let cart = database.session(&json!({"cart": 1}));
    // The first ones prepare statements.
    let ask = |path: &str, key: &str| {
        gateway.get(path).session(key).send().is_upstreams(200);
    };
    for path in ["/", "/login/", "/staff/", "/told/", "/editors/"] {
        ask(path, &user);
    }
    for (path, key, rounds) in [
        ("/off/", &user, 0),
        ("/", &cart, 1),
        ("/told/", &cart, 1),
        ("/", &user, 1),
        ("/login/", &user, 1),
        ("/staff/", &user, 1),
        ("/told/", &user, 1),
        ("/editors/", &user, 1),
    ] {
        let before = relay.rounds();
        for _ in 0..10 {
            ask(path, key);
        }
        assert_eq!(relay.rounds() - before, rounds * 10, "{path}");
    }
    // What no header could hold is not even read.
    database.execute("UPDATE people SET name = repeat('x', 1000000)");
    let before = relay.bytes();
    let claims = told(&gateway, &app, "/told/", &user);
    assert_eq!(
        (&claims["sub"], &claims["withheld"]),
        (&json!("1"), &json!("too_large"))
    );
    assert!(
        relay.bytes() - before < 10_000,
        "{}",
        relay.bytes() - before
    );
}

/// Passes connections on to PostgreSQL and counts what the client waits for, and how much it gets.
struct Relay {
    address: SocketAddr,
    rounds: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            rounds: Arc::default(),
            bytes: Arc::default(),
        };
        let (rounds, bytes) = (relay.rounds.clone(), relay.bytes.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else {
                    return;
                };
                let (to_client, from_server) = (client.try_clone(), server.try_clone());
                let (rounds, bytes) = (rounds.clone(), bytes.clone());
                std::thread::spawn(move || count(client, server, &rounds));
                std::thread::spawn(move || weigh(from_server.ok()?, to_client.ok()?, &bytes));
            }
        });
        relay
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::SeqCst)
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn weigh(mut server: TcpStream, mut client: TcpStream, bytes: &AtomicUsize) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = server.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.fetch_add(read, Ordering::SeqCst);
        client.write_all(&buffer[..read]).ok()?;
    }
}

/// PostgreSQL documentation, 55.2 and 55.7: messages have a type and a length, but for those that begin a
/// connection, which have a length only. A client waits after Sync and after Query.
fn count(mut client: TcpStream, mut server: TcpStream, rounds: &AtomicUsize) -> Option<()> {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut begun = false;
    loop {
        let mut head = vec![0; if begun { 5 } else { 4 }];
        client.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).ok()?;
        if begun && matches!(head[0], b'S' | b'Q') {
            rounds.fetch_add(1, Ordering::SeqCst);
        }
        // SSLRequest, which is answered with a byte and followed by another beginning.
        begun = begun || body[..4] != 80_877_103_u32.to_be_bytes();
        server.write_all(&[head, body].concat()).ok()?;
    }
}
