//! Names, reloads and servers that come and go, with a resolver of the tests' own and real sockets.

mod answers;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::AbortHandle,
    time::timeout,
};

use super::*;
use crate::config::{Config, LoadOptions};

const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: Affinity<'static> = Affinity {
    sid: None,
    client: None,
};

fn config(lines: &str) -> config::Upstream {
    let text = format!(
        "[gateway]\nissuer = 'https://gateway.test'\n[django]\ndatabase = 'sqlite:x'\n\
         secret_key = {{ env = 'KEY' }}\n[upstream.app]\n{lines}\n[[route]]\npath = '/'\nupstream = 'app'\n\
         session = 'off'\n"
    );
    let env = |_: &str| Some("secret".into());
    let loaded = Config::parse(&text, Path::new("x"), &env, LoadOptions::default());
    loaded.unwrap().config.upstreams.swap_remove(0)
}

/// What names stand for, and how often they were looked up.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<(Vec<SocketAddr>, usize)>>);

impl Names {
    fn set(&self, addresses: &[SocketAddr]) {
        self.0.lock().unwrap().0 = addresses.to_vec();
    }

    fn looks(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn resolver(&self) -> resolve::Resolver {
        let names = self.0.clone();
        Arc::new(move |_, _| {
            let mut names = names.lock().unwrap();
            names.1 += 1;
            let found = match names.0.is_empty() {
                true => Err(std::io::Error::other("no such name")),
                false => Ok(names.0.clone()),
            };
            Box::pin(std::future::ready(found))
        })
    }
}

/// Answers every request on an address with its own number.
struct Answering {
    address: SocketAddr,
    task: AbortHandle,
}

impl Answering {
    async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                streams.spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        Self {
            address,
            task: task.abort_handle(),
        }
    }

    async fn stop(&self) {
        self.task.abort();
        while TcpListener::bind(self.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request over the server whose turn it is: its address.
async fn ask(upstream: &Upstream) -> Result<SocketAddr, String> {
    let server = upstream.choose(NOBODY, None, PATIENCE).await;
    let server = server.ok_or("no server")?;
    let mut request = Request::new(Body::Empty);
    let host = http::HeaderValue::from_static("app");
    request.headers_mut().insert("host", host);
    let lease = server.connection(true, PATIENCE, false).await;
    let lease = match lease {
        Ok(lease) => lease,
        Err(error) => {
            upstream.doubt(&server, PATIENCE).await;
            return Err(error.to_string());
        }
    };
    match lease.send(request).await {
        Ok(answered) => drop(answered.into_response(PATIENCE, None)),
        other => return Err(format!("{other:?}")),
    }
    match &server.target {
        connect::Target::Tcp(address) => Ok(*address),
        other => Err(other.to_string()),
    }
}

async fn until(what: &str, upstream: &Upstream, mut is_so: impl FnMut(&[Status]) -> bool) {
    let waiting = async {
        while !is_so(&upstream.servers()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{what}: {:?}", upstream.servers());
}

fn started(lines: &str, names: &Names) -> Upstream {
    let metrics = Metrics::default();
    let upstream = Upstream::with(&config(lines), None, &metrics, names.resolver());
    upstream.start();
    upstream
}

#[tokio::test]
async fn edge_24_each_address_of_a_name_is_a_server_and_names_are_looked_up_again() {
    let (a, b) = (Answering::start().await, Answering::start().await);
    let names = Names::default();
    names.set(&[a.address, b.address]);
    let upstream = started("servers = ['app.test:80']\nresolve_every = '1s'", &names);
    // The first request waits for the first look.
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(ask(&upstream).await.unwrap());
    }
    seen.sort_unstable();
    let mut both = vec![a.address, a.address, b.address, b.address];
    both.sort_unstable();
    assert_eq!(seen, both);

    names.set(&[b.address]);
    until("the name has one address", &upstream, |servers| {
        servers.len() == 1
    })
    .await;
    for _ in 0..3 {
        assert_eq!(ask(&upstream).await, Ok(b.address));
    }

    // The last answer is good as long as there is none.
    let looks = names.looks();
    names.set(&[]);
    until("it is looked up twice more", &upstream, |_| {
        names.looks() > looks + 1
    })
    .await;
    assert_eq!(ask(&upstream).await, Ok(b.address));
}

#[tokio::test]
async fn edge_24_a_name_is_looked_up_at_once_when_its_server_cannot_be_reached() {
    let (a, b) = (Answering::start().await, Answering::start().await);
    let names = Names::default();
    names.set(&[a.address]);
    let upstream = started("servers = ['app.test:80']\nresolve_every = '1d'", &names);
    assert_eq!(ask(&upstream).await, Ok(a.address));
    tokio::time::sleep(Duration::from_secs(1)).await;
    names.set(&[b.address]);
    a.stop().await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(ask(&upstream).await);
    }
    assert_eq!(answers.last(), Some(&Ok(b.address)), "{answers:?}");
    // The connection that was idle has broken, and a new one cannot be made.
    let failed = answers.iter().filter(|answer| answer.is_err());
    assert!((1..=2).contains(&failed.count()), "{answers:?}");
}

#[tokio::test]
async fn a_name_that_nobody_knows_has_no_server_and_is_told() {
    let names = Names::default();
    let upstream = started("servers = ['app.test:80']", &names);
    assert_eq!(ask(&upstream).await, Err("no server".to_owned()));
    let rows = upstream.servers();
    assert_eq!(
        (rows.len(), rows[0].server.as_str(), rows[0].is_available),
        (1, "app.test:80", false)
    );
    let a = Answering::start().await;
    names.set(&[a.address]);
    until("it is known", &upstream, |rows| rows[0].is_available).await;
    assert_eq!(ask(&upstream).await, Ok(a.address));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_tried_again_beside_the_requests() {
    let a = Answering::start().await;
    let upstream = started(&format!("servers = ['{}']", a.address), &Names::default());
    a.stop().await;
    assert!(ask(&upstream).await.unwrap_err().contains("refused"));
    assert_eq!(ask(&upstream).await, Err("no server".to_owned()));
    let row = upstream.servers().swap_remove(0);
    assert!(!row.is_available && row.left_out == 1, "{row:?}");
    assert!(
        row.last_error
            .is_some_and(|error| error.contains("refused"))
    );
    let again = Answering::at(&a.address.to_string()).await;
    until("it is back", &upstream, |rows| rows[0].is_available).await;
    assert_eq!(ask(&upstream).await, Ok(again.address));
}

#[tokio::test]
async fn edge_31_servers_that_stay_keep_their_connections_health_and_counts() {
    let (a, b) = (Answering::start().await, Answering::start().await);
    let metrics = Metrics::default();
    let [one, two] = [a.address, b.address];
    let first = config(&format!("servers = ['{one}', '{two}']"));
    let first = Upstream::new(&first, None, &metrics);
    first.start();
    ask(&first).await.unwrap();
    ask(&first).await.unwrap();
    b.stop().await;
    let broken = first.pool.servers()[1].clone();
    assert!(broken.connection(true, PATIENCE, true).await.is_err());
    drop(broken);
    let held = first.pool.servers()[0]
        .connection(true, PATIENCE, true)
        .await
        .unwrap();

    let settings = "token_ttl = '30s'\nbalance = 'least-requests'\nweights = [2, 1]";
    let second = config(&format!("servers = ['{two}', '{one}']\n{settings}"));
    let second = Upstream::new(&second, Some(&first), &metrics);
    let rows = second.servers();
    assert_eq!(rows[0].server, two.to_string());
    assert!(
        !rows[0].is_available && rows[0].last_error.is_some(),
        "{rows:?}"
    );
    assert_eq!(
        (rows[1].is_available, rows[1].in_flight, rows[1].opened),
        (true, 1, 2)
    );
    drop(first);
    // The connection from before serves.
    second.start();
    assert_eq!(ask(&second).await, Ok(one));
    assert_eq!(second.servers()[1].opened, 2);
    drop(held);
    assert_eq!(second.servers()[1].in_flight, 0);

    // Spoken to in another way, it is another server.
    let third = config(&format!("servers = ['{one}']\nprotocol = 'h2'"));
    let third = Upstream::new(&third, Some(&second), &metrics);
    assert!(!Arc::ptr_eq(
        &third.pool.servers()[0],
        &second.pool.servers()[1]
    ));
    drop((second, third));
    let none_is_up = || {
        let text = metrics.text();
        let mut up = text.lines().filter(|line| line.contains("upstream_up{"));
        up.all(|line| line.ends_with(" 0"))
    };
    // What goes on beside the requests ends when its task is next looked at.
    let waiting = async {
        while !none_is_up() {
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    let text = metrics.text();
    let up: Vec<_> = text
        .lines()
        .filter(|line| line.contains("upstream_up{"))
        .collect();
    assert!(waited.is_ok(), "nothing of what has gone is told: {up:?}");
}
