//! Connections that are kept: who closes them first.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{Kind, Scene};
use crate::support::{Ask, Connection};

/// The page's times, 50 times as fast: the front's is 60 s there, the gateway's 75 s. Were they shorter, what lies between
/// them would be less than a busy machine may keep a thread waiting.
const FRONT: &str = "1200ms";
const GATEWAY: Duration = Duration::from_millis(1500);

const CLIENTS: usize = 50;
const REQUESTS: usize = 20;

#[test]
fn no_request_meets_a_connection_that_the_gateway_is_closing_behind_nginx() {
    let words = [(
        "keepalive_timeout 60s",
        &*format!("keepalive_timeout {FRONT}"),
    )];
    none_fails(Kind::Nginx, &words);
}

#[test]
fn no_request_meets_a_connection_that_the_gateway_is_closing_behind_haproxy() {
    let words = [
        (
            "timeout http-keep-alive 60s",
            &*format!("timeout http-keep-alive {FRONT}"),
        ),
        ("pool-purge-delay 5s", "pool-purge-delay 100ms"),
    ];
    none_fails(Kind::HaProxy, &words);
}

/// Sends requests that no front repeats, at about the moments when the gateway would close idle connections.
fn none_fails(kind: Kind, words: &[(&str, &str)]) {
    let scene = Scene::with(kind, words, |setup| {
        setup.line("timeouts", &format!("idle = '{}ms'", GATEWAY.as_millis()))
    });
    let failed = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (scene, failed, done) = (&scene, &failed, &done);
            scope.spawn(move || {
                let ask = Ask::new(scene.front.open, "POST", "/app/").host("shop.example");
                let bytes = ask.body("hello").bytes();
                let mut connection = Connection::open(scene.front.open);
                for request in 0..REQUESTS {
                    // HAProxy keeps a connection to the gateway for a client's connection, as long as that is open.
                    if kind == Kind::HaProxy && request % 2 == 0 {
                        connection = Connection::open(scene.front.open);
                    }
                    connection.write(&bytes).unwrap();
                    match connection.try_answer("POST") {
                        Ok(answer) if answer.status == 200 => {
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        other => {
                            eprintln!("{other:?}");
                            failed.fetch_add(1, Ordering::SeqCst);
                            connection = Connection::open(scene.front.open);
                        }
                    }
                    std::thread::sleep(pause(kind, client * REQUESTS + request));
                }
            });
        }
    });
    let counted = (done.into_inner(), failed.into_inner());
    assert_eq!(counted, (CLIENTS * REQUESTS, 0));
}

/// From 2 ms before the gateway's time to 2 ms after it; behind HAProxy, which would close the client's connection before,
/// from nothing to two thirds of its time.
fn pause(kind: Kind, number: usize) -> Duration {
    let spread = u64::try_from(number % 80).unwrap();
    match kind {
        Kind::HaProxy => Duration::from_millis(spread * 10),
        _ => GATEWAY - Duration::from_millis(2) + Duration::from_micros(spread * 50),
    }
}
