//! Servers that close, break off or are down: nothing that may have happened is repeated, and nothing else is
//! lost.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{read_head, soon};
use crate::support::{
    Database, Gateway, Reply, Served as _, Upstream, eventually, free_address, gateway::Setup,
    reply, token,
};

#[test]
fn what_a_server_may_have_done_is_never_asked_for_again() {
    let app = Upstream::with(|seen| match seen.target.as_str() {
        "/half" => Reply::raw("HTTP/1.1 200 OK\r\nX-Half"),
        "/byte" => Reply::raw("H"),
        "/interim" => Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"),
        "/work" => {
            std::thread::sleep(Duration::from_millis(300));
            Reply::raw("")
        }
        _ => reply(200),
    });
    let gateway = Gateway::alone(&app).start();
    for method in ["DELETE", "PUT", "GET", "OPTIONS", "POST"] {
        for target in ["/half", "/byte", "/interim", "/work"] {
            eventually("it goes over a connection that was used before", || {
                gateway.get("/").send().is_upstreams(200);
                app.take();
                let connections = app.connections();
                let answer = gateway.ask(method, target).send();
                answer.is_error(502, "upstream-bad-response");
                assert_eq!(app.take().len(), 1, "{method} {target}");
                (app.connections() == connections).then_some(())
            });
        }
    }
}

/// A server that closes later than this after a request was sent may have begun with it: that is not sent again. On a busy
/// machine the one of this test may be as late.
const CROSSED: Duration = Duration::from_millis(100);

/// Sends a request that may be sent again, and says whether it was served. Only where the server has closed late, it may
/// be refused.
#[track_caller]
fn is_served(gateway: &Gateway, method: &str) -> bool {
    let asked = Instant::now();
    let answer = gateway.ask(method, "/").send();
    if answer.status == 200 {
        assert_eq!(answer.is_upstreams(200).text(), "ok", "{method}");
        return true;
    }
    answer.is_error(502, "upstream-bad-response");
    assert!(
        asked.elapsed() >= CROSSED,
        "{method}: {:?}",
        asked.elapsed()
    );
    false
}

#[test]
fn a_request_that_meets_a_connection_that_is_closed_goes_over_a_fresh_one() {
    let (app, served) = closing_when_asked_again();
    let gateway = Gateway::alone(&app).start();
    let mut all = 0;
    for method in ["GET", "DELETE", "PUT", "OPTIONS"] {
        let count = (0..10).filter(|_| is_served(&gateway, method)).count();
        let served = std::mem::take(&mut *served.lock().unwrap());
        assert_eq!(served, vec![format!("{method} / HTTP/1.1"); count]);
        all += count;
    }
    // Every second one needs no fresh connection.
    assert!(all > 20, "none went over a fresh connection");
    // What is not idempotent, or whose body is gone, cannot be sent again, not even here.
    for (method, body) in [("POST", ""), ("PUT", "hello"), ("GET", "hello")] {
        let refused = eventually("it meets a connection that is closed", || {
            while !is_served(&gateway, "GET") {}
            served.lock().unwrap().clear();
            let answer = gateway.ask(method, "/").body(body).send();
            let served = served.lock().unwrap().len();
            assert_eq!(served, usize::from(answer.status == 200), "{method}");
            (answer.status != 200).then_some(answer)
        });
        refused.is_error(502, "upstream-bad-response");
    }
}

#[test]
fn a_server_that_is_down_costs_no_request_and_serves_again_when_it_is_up() {
    let database = Database::sqlite();
    let up = Upstream::start();
    let down = free_address();
    let gateway = behind_both(&database, down, &up).start();
    soon(|| all_are_served(&gateway, &up));
    let back = Upstream::start_at(down);
    eventually("the server that was down serves again", || {
        gateway.get("/").send().is_upstreams(200);
        (!back.seen().is_empty()).then_some(())
    });
}

#[test]
fn a_server_that_does_not_even_refuse_costs_one_request_a_second_at_most() {
    let database = Database::sqlite();
    let up = Upstream::start();
    let silent = Silent::start();
    let gateway = behind_both(&database, silent.address, &up)
        .line("timeouts", "connect = '1s'")
        .start();
    // Ten of the twenty would have it first, and wait for a second each.
    soon(|| all_are_served(&gateway, &up));
}

/// An upstream with two servers.
fn behind_both(database: &Database, down: SocketAddr, up: &Upstream) -> Setup {
    let kid = token::kid("app");
    let servers = format!(
        "servers = ['{down}', '{}']\nkeys = [{{ kid = '{kid}', secret = {{ env = 'APP_KEY' }} }}]",
        up.address()
    );
    Gateway::before(database, up).replace("upstream.app", &servers)
}

/// Asserts that twenty requests are served, each once.
fn all_are_served(gateway: &Gateway, up: &Upstream) {
    for number in 0..10 {
        let target = format!("/{number}");
        gateway.get(&target).send().is_upstreams(200);
        gateway.post(&target).body("hello").send().is_upstreams(200);
    }
    let seen = up.take();
    assert_eq!(seen.len(), 20);
    for (number, pair) in seen.chunks(2).enumerate() {
        assert_eq!(pair[0].target, format!("/{number}"));
        assert_eq!(pair[1].body, b"hello");
    }
}

/// Answers one request on each connection and closes it when the next one comes, without reading that. Gives
/// the request lines that it has served, too.
fn closing_when_asked_again() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let served = Arc::new(Mutex::new(Vec::new()));
    let record = served.clone();
    let app = Upstream::raw(move |mut stream| {
        let Ok(line) = read_head(&stream) else { return };
        record.lock().unwrap().push(line);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let _ = std::io::Write::write_all(&mut stream, answer);
        let _ = stream.peek(&mut [0]);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    (app, served)
}

/// A server whose machine is gone: it neither takes connections nor refuses them.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        // Fills the line of those who wait to be taken; then nobody gets an answer any more.
        let wait = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let waiting = std::iter::from_fn(wait).collect();
        Self {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }
}
