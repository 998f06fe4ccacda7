//! Whatever files come one after the other: each request is answered by one configuration as a whole, and by none
//! that is older than the last one that was put into force before the request was sent.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;

use crate::support::{
    Answer, Connection, Database, Gateway, Served as _, Upstream, gateway::Setup, reply, token,
};

/// What becomes of the file.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next good one.
    Good,
    /// A good one of which only a part was written.
    Cut,
    /// One with a misspelt key.
    Misspelt,
    /// One with other addresses.
    Elsewhere,
    /// One that names a secret that is not there.
    WithoutSecret,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Good),
        1 => Just(Step::Cut),
        1 => Just(Step::Misspelt),
        1 => Just(Step::Elsewhere),
        1 => Just(Step::WithoutSecret),
    ];
    prop::collection::vec(step, 8..16)
}

#[test]
fn edge_31_each_request_is_answered_by_one_configuration_as_a_whole() {
    let config = Config {
        cases: 4,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    runner
        .run(&steps(), |steps| {
            play(&steps);
            Ok(())
        })
        .unwrap();
}

/// The configuration of a generation: its number is in the issuer, the key's name, the upstream's name and, by
/// turns, in the server.
fn file(generation: u64, database: &Database, servers: &[Upstream], secret: &Path) -> String {
    let server = servers[place(generation, servers)].address();
    Setup::new("unused")
        .replace("health", "address = '127.0.0.1:0'")
        .replace("gateway", &format!("issuer = 'https://g{generation}.test'"))
        .replace(
            "django",
            &format!(
                "database = '{}'\nsecret_key = {{ env = 'DJANGO_SECRET_KEY' }}",
                database.url()
            ),
        )
        .line(
            &format!("upstream.app{generation}"),
            &format!(
                "servers = ['{server}']\nkeys = [{{ kid = 'k{generation}', secret = {{ file = '{}' }} }}]",
                secret.display()
            ),
        )
        .route(&format!("path = '/'\nupstream = 'app{generation}'"))
        .text()
}

fn place(generation: u64, servers: &[Upstream]) -> usize {
    usize::try_from(generation).unwrap() % servers.len()
}

fn play(steps: &[Step]) {
    let database = Database::sqlite();
    let servers: Vec<Upstream> = (0..3)
        .map(|place| {
            Upstream::forgetful(move |seen| {
                let token = seen.field("x-session").unwrap();
                reply(200).body(format!("{place} {token}"))
            })
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, token::secret("app")).unwrap();
    let key = database.login(serde_json::json!({"cart": [1]}));

    let text = |generation| file(generation, &database, &servers, &secret);
    let start = folder.path().join("gateway.toml");
    fs::write(&start, text(0)).unwrap();
    let gateway = Gateway::start_with(folder, Setup::new("unused").command("run"));
    let (written, in_force) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (written, in_force, stop) = (written.clone(), in_force.clone(), stop.clone());
            let (address, request) = (gateway.address(), gateway.get("/").session(&key).bytes());
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let least = in_force.load(Ordering::SeqCst);
                    connection.write(&request).unwrap();
                    let answer = connection.answer("GET");
                    let most = written.load(Ordering::SeqCst);
                    check(&answer, least, most);
                    count += 1;
                }
                count
            })
        })
        .collect();

    let mut generation = 0;
    for step in steps {
        let next = text(generation + 1);
        let text = match step {
            Step::Good => next,
            Step::Cut => next[..next.find("upstream = 'app").unwrap()].to_owned(),
            Step::Misspelt => next.replace("servers", "servrs"),
            Step::Elsewhere => next.replace("127.0.0.1:0", "127.0.0.1:1"),
            Step::WithoutSecret => next.replace("secret' }", "no-secret' }"),
        };
        match step {
            Step::Good => {
                generation += 1;
                written.store(generation, Ordering::SeqCst);
                fs::write(&start, text).unwrap();
                assert!(gateway.hang_up(), "{}", gateway.log());
                in_force.store(generation, Ordering::SeqCst);
            }
            _ => {
                fs::write(&start, text).unwrap();
                assert!(!gateway.hang_up(), "{}", gateway.log());
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::SeqCst);
    let count: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(count > 20, "{count} requests");
}

/// All that an answer shows of its configuration is of one generation, and that is not too old or from the future.
fn check(answer: &Answer, least: u64, most: u64) {
    answer.is_upstreams(200);
    let text = answer.text();
    let (server, token) = text.split_once(' ').unwrap();
    let part = |place: usize| -> Value {
        let part = token.split('.').nth(place).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (head, claims) = (part(0), part(1));
    let kid = head["kid"].as_str().unwrap();
    let generation: u64 = kid.strip_prefix('k').unwrap().parse().unwrap();
    assert_eq!(claims["iss"], format!("https://g{generation}.test"));
    assert_eq!(claims["aud"], format!("app{generation}"));
    assert_eq!(server, (generation % 3).to_string());
    assert!(
        (least..=most).contains(&generation),
        "{least} <= {generation} <= {most}"
    );
}
