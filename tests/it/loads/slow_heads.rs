//! Clients that send their heads as slowly as they can, beside others.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    task::JoinSet,
    time::timeout,
};

use super::{is_full, sized, usage};
use crate::support::{Connection, Gateway, PATIENCE, Served as _, Upstream};

/// What a busy machine may add to a deadline.
const TOLERANCE: Duration = Duration::from_secs(10);

/// How often a slow head goes on beside measured requests: twice as often as slowhttptest does it.
const EVERY: Duration = Duration::from_secs(5);

fn gateway(app: &Upstream, head: Duration) -> Gateway {
    Gateway::alone(app)
        .line("timeouts", &format!("head = '{}s'", head.as_secs()))
        .line("django.cookie", "secure = false")
        .start()
}

/// Opens so many connections and lets a byte of each head trickle so often; gives how long each was open.
async fn trickle(
    address: SocketAddr,
    count: usize,
    every: Duration,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut clients = JoinSet::new();
    for number in 0..count {
        // Before the gateway can have taken it.
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            stream
                .write_all(b"GET / HTTP/1.1\r\nX-Slow: ")
                .await
                .unwrap();
            let spread = every.mul_f64(number as f64 / count as f64);
            tokio::time::sleep(spread).await;
            let mut answer = [0; 64];
            while !stop.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                let _ = stream.write_all(b"a").await;
                if let Ok(Ok(0) | Err(_)) = timeout(every, stream.read(&mut answer)).await {
                    break;
                }
            }
            begun.elapsed()
        });
    }
    clients.join_all().await
}

#[test]
fn edge_18_many_slow_heads_are_each_closed_within_the_deadline_in_little_memory() {
    let count = sized(300, 2_000);
    let head = sized(Duration::from_secs(2), Duration::from_secs(10));
    let app = Upstream::start();
    let gateway = gateway(&app, head);
    for _ in 0..100 {
        gateway.get("/").send();
    }
    let before = usage::memory(&gateway);
    usage::forget_most_memory(&gateway);
    let runtime = Runtime::new().unwrap();
    let never = Arc::new(AtomicBool::new(false));
    let slow = runtime.spawn(trickle(
        gateway.address(),
        count,
        Duration::from_secs(1),
        never,
    ));
    let mut others = 0;
    let mut slowest = Duration::ZERO;
    while !slow.is_finished() {
        let begun = Instant::now();
        gateway.get("/").send().is_upstreams(200);
        slowest = slowest.max(begun.elapsed());
        others += 1;
    }
    let open = runtime.block_on(slow).unwrap();
    let growth = usage::most_memory(&gateway).saturating_sub(before);
    let (first, last) = (open.iter().min().unwrap(), open.iter().max().unwrap());
    println!(
        "load: {count} slow heads with a deadline of {head:?}: closed after {first:.2?} to {last:.2?}, memory {:.1} MiB \
         and {:.1} MiB more at most, {others} other requests meanwhile, the slowest in {slowest:.2?}",
        before as f64 / 1024.0,
        growth as f64 / 1024.0
    );
    assert!(*last < head + TOLERANCE, "closed after {last:?}");
    assert!(
        *first + Duration::from_millis(100) >= head,
        "closed after {first:?}"
    );
    assert!(
        growth < 32 * count as u64,
        "{growth} KiB for {count} slow heads"
    );
}

/// Connections with requests at the same time.
const BUSY: u32 = 8;

/// The processor time of a request among `count`, and how long one took.
fn each(gateway: &Gateway, count: u32) -> (Duration, Duration) {
    let ask = gateway.get("/").bytes();
    let (begun, before) = (Instant::now(), usage::processor_time(gateway));
    std::thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                for _ in 0..count / BUSY {
                    connection.write(&ask).unwrap();
                    connection.answer("GET").is_upstreams(200);
                }
            });
        }
    });
    let used = usage::processor_time(gateway) - before;
    (used / count, begun.elapsed() / count)
}

/// With and without slow heads by turns, so that what else the machine does falls on both.
#[test]
fn edge_18_slow_heads_cost_the_others_little() {
    let (rounds, slow, requests) = sized((3, 200, 800), (5, 2_000, 8_000));
    let app = Upstream::forgetful(|_| crate::support::reply(200).body("ok"));
    let gateway = gateway(&app, Duration::from_secs(60));
    each(&gateway, requests);
    let runtime = Runtime::new().unwrap();
    let (mut without, mut with, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        without.push(each(&gateway, requests).0.as_secs_f64());
        let stop = Arc::new(AtomicBool::new(false));
        let slow = runtime.spawn(trickle(gateway.address(), slow, EVERY, Arc::clone(&stop)));
        // All are open before it is measured, first what they take themselves.
        let window = sized(Duration::from_millis(300), Duration::from_secs(2));
        std::thread::sleep(window);
        let before = usage::processor_time(&gateway);
        std::thread::sleep(window);
        let alone = (usage::processor_time(&gateway) - before).as_secs_f64() / window.as_secs_f64();
        let (used, took) = each(&gateway, requests);
        own.push(alone);
        with.push(used.as_secs_f64() - alone * took.as_secs_f64());
        stop.store(true, Ordering::Relaxed);
        runtime.block_on(slow).unwrap();
    }
    let [without, with, own] = [without, with, own].map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures[rounds / 2]
    });
    let growth = with / without - 1.0;
    println!(
        "load: {slow} slow heads beside {requests} requests, {rounds} rounds of each: {:.1} us of processor time for a \
         request without them, {:.1} us with them ({:+.1} %); their own bytes, one of each in {EVERY:?}, take {:.1} % of a \
         processor",
        without * 1e6,
        with * 1e6,
        growth * 100.0,
        own * 100.0
    );
    // A few hundred requests beside other tests say little.
    assert!(growth < if is_full() { 0.1 } else { 0.6 }, "{growth:+.3}");
}
