//! Restart without loss: the sockets themselves are handed over.

mod load;

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use self::load::Load;
use crate::support::{
    Connection, Database, Gate, Gateway, PATIENCE, Process, Served as _, Upstream, eventually,
    gateway::Setup, process::signal, reply,
};

/// A gateway and those that follow it. The last one is killed when this is dropped.
struct Line {
    first: Gateway,
    processes: Vec<u32>,
}

impl Line {
    fn start(setup: &Setup) -> Self {
        let first = setup.start();
        let processes = vec![first.process.id()];
        Self { first, processes }
    }

    /// The one that serves now.
    fn last(&self) -> u32 {
        *self.processes.last().unwrap()
    }

    /// Asks for a successor and waits until there is one.
    fn restart(&mut self) {
        signal(self.last(), "USR2");
        let marker = "another process has taken over process=";
        let next = eventually("there is a successor", || {
            let log = self.first.log();
            assert!(!log.contains("no other process has taken over"), "{log}");
            let mut processes = log.lines().filter_map(|line| line.split_once(marker));
            let (_, process) = processes.nth(self.processes.len() - 1)?;
            Some(process.trim().parse().unwrap())
        });
        self.processes.push(next);
    }

    /// How many have ended in order.
    fn ended(&self) -> usize {
        self.first.log().matches("shut down").count()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for process in &self.processes[1..] {
            signal(*process, "KILL");
        }
    }
}

#[test]
fn edge_30_ten_restarts_under_load_lose_no_request() {
    let app = Upstream::forgetful(|_| reply(200).body("ok"));
    let mut line = Line::start(&Gateway::alone(&app));
    let load = Load::start(line.first.address());
    for count in 1..=10 {
        line.restart();
        load.goes_on(Duration::from_millis(300));
        eventually("the one before has ended", || {
            (line.ended() >= count).then_some(())
        });
    }
    load.end("ten restarts").lost_nothing();
}

#[test]
fn edge_31_ten_reloads_under_load_lose_no_request() {
    let apps = [(); 2].map(|()| Upstream::forgetful(|_| reply(200).body("ok")));
    let database = Database::sqlite();
    let setups = [0, 1].map(|place| Gateway::before(&database, &apps[place]));
    let gateway = setups[0].start();
    let load = Load::start(gateway.address());
    for count in 0..10 {
        assert!(gateway.reload(&setups[(count + 1) % 2]));
        load.goes_on(Duration::from_millis(200));
    }
    load.end("ten reloads").lost_nothing();
}

/// With a release build and SG_TEST_LOAD=2000: see docs/operations.md.
#[test]
#[ignore = "takes a minute and both cores"]
fn restarts_and_reloads_in_full() {
    let app = Upstream::forgetful(|_| reply(200).body("ok"));
    let setup = Gateway::alone(&app);
    let mut line = Line::start(&setup);
    let load = Load::start(line.first.address());
    for _ in 0..10 {
        line.restart();
        load.goes_on(Duration::from_secs(2));
        signal(line.last(), "HUP");
        load.goes_on(Duration::from_secs(2));
    }
    load.end("ten restarts and ten reloads").lost_nothing();
}

#[test]
fn a_successor_that_fails_changes_nothing_and_a_later_one_takes_over() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let setup = Gateway::before(&database, &app);
    let mut line = Line::start(&setup);
    let file = line.first.file();
    for bad in [
        setup.text().replace("issuer", "isuer"),
        setup.text().replace("[health]\naddress", "[health]\njwks"),
    ] {
        let before = line.first.log().matches("no other process").count();
        std::fs::write(&file, bad).unwrap();
        line.first.process.signal("USR2");
        eventually("it is given up", || {
            let now = line.first.log().matches("no other process").count();
            (now > before).then_some(())
        });
        line.first.get("/").send().is_upstreams(200);
    }
    assert_eq!(line.first.health().get("/readyz").send().status, 200);

    // The addresses may change now: the old ones that are still wanted are taken, the others opened.
    let more = setup.text().replace(
        "[[listener]]",
        "[[listener]]\naddress = '127.0.0.1:0'\n\n[[listener]]",
    );
    std::fs::write(&file, more).unwrap();
    let mut kept = Connection::open(line.first.address());
    kept.write(&line.first.get("/").bytes()).unwrap();
    kept.answer("GET").is_upstreams(200);
    signal(line.last(), "USR2");
    let marker = "another process has taken over process=";
    let log = eventually("there is a successor", || {
        Some(line.first.log()).filter(|log| log.contains(marker))
    });
    let process = log.split_once(marker).unwrap().1.lines().next().unwrap();
    line.processes.push(process.trim().parse().unwrap());
    line.first.get("/").send().is_upstreams(200);
    // One and two.
    line.first.addresses(3);
    // The old one serves whom it has, and says goodbye.
    line.first
        .process
        .wait_for("another process serves new connections");
    kept.write(&line.first.get("/").bytes()).unwrap();
    let answer = kept.answer("GET");
    assert_eq!(answer.is_upstreams(200).field("connection"), Some("close"));
    eventually("the old one ends", || (line.ended() == 1).then_some(()));
    assert_eq!(line.first.health().get("/readyz").send().status, 200);
}

#[test]
fn edge_30_a_request_under_way_ends_in_the_gateway_that_was_replaced() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |seen| {
        if seen.target == "/slow" {
            held.pass();
        }
        reply(200).body("ok")
    });
    let mut line = Line::start(&Gateway::alone(&app));
    let mut slow = line.first.get("/slow").begin();
    gate.wait_for(1);
    line.restart();
    line.first.get("/").send().is_upstreams(200);
    assert_eq!(line.ended(), 0);
    gate.open();
    assert_eq!(slow.answer("GET").is_upstreams(200).text(), "ok");
    eventually("the old one ends", || (line.ended() == 1).then_some(()));
}

#[test]
fn a_unix_socket_is_handed_over_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let app = Upstream::start();
    let setup = Gateway::alone(&app);
    let text = setup.text().replace(
        "[[listener]]",
        &format!(
            "[[listener]]\naddress = 'unix:{}'\n\n[[listener]]",
            path.display()
        ),
    );
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("gateway.toml"), text).unwrap();
    let process = Process::start(
        setup
            .command("run")
            .arg("--config")
            .arg(own.path().join("gateway.toml")),
    );
    process.wait_for("listening on 127.0.0.1");
    process.signal("USR2");
    let next = process.wait_for("another process has taken over process=");
    process.wait_for("shut down");
    let asked = asks(&path);
    signal(next.trim().parse().unwrap(), "KILL");
    assert!(asked.starts_with("HTTP/1.1 200"), "{asked}");
}

fn asks(path: &Path) -> String {
    use std::io::{Read as _, Write as _};

    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn edge_29_with_systemds_socket_a_restart_lets_connections_wait_and_refuses_none() {
    let app = Upstream::start();
    let setup = Gateway::alone(&app).top("drain_delay = '0s'\nshutdown_grace = '1s'");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let mut command = Command::new("python3");
    let program = setup.command("run");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/activate.py"))
        .arg(program.get_program())
        .args(program.get_args())
        .arg("--config")
        .arg(&file)
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let mut systemd = Process::start(&mut command);
    let address = systemd.address_after("opened ");
    std::fs::write(&file, setup.clone().listen(&address.to_string()).text()).unwrap();
    systemd.say("go");
    systemd.wait_for(&format!("listening on {address}"));
    for count in 1..=3 {
        let started = || -> Vec<u32> {
            let output = systemd.output();
            let lines = output
                .lines()
                .filter_map(|line| line.strip_prefix("started "));
            lines.map(|process| process.parse().unwrap()).collect()
        };
        let process = eventually("it was started", || started().get(count - 1).copied());
        eventually("it serves", || {
            let count = systemd.output().matches("listening on").count();
            (count >= started().len()).then_some(())
        });
        signal(process, "TERM");
        // Whenever: one of the two serves it.
        for _ in 0..20 {
            let get = crate::support::Ask::new(address, "GET", "/");
            get.send().is_upstreams(200);
        }
        eventually("another one was started", || {
            (started().len() > count).then_some(())
        });
    }
}

#[test]
fn edge_29_systemds_socket_that_nobody_serves_is_an_error_at_the_start() {
    let app = Upstream::start();
    let setup = Gateway::alone(&app).listen("127.0.0.1:0");
    let folder = tempfile::tempdir().unwrap();
    let file = setup.write(folder.path());
    let mut command = Command::new("python3");
    let program = setup.command("run");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/activate.py"))
        .arg(program.get_program())
        .args(program.get_args())
        .arg("--config")
        .arg(&file)
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let mut systemd = Process::start(&mut command);
    let address = systemd.address_after("opened ");
    systemd.say("go");
    systemd.wait_for(&format!(
        "cannot listen on {address}: systemd has opened this socket"
    ));
}

#[test]
fn systemd_is_told_of_start_reload_successor_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 200];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let app = Upstream::start();
    let setup = Gateway::alone(&app)
        .top("drain_delay = '0s'")
        .env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut line = Line::start(&setup);
    assert_eq!(told(), "READY=1");
    assert!(line.first.hang_up());
    let reloading = told();
    let (_, time) = reloading
        .split_once("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    assert_eq!(told(), "READY=1");
    line.restart();
    let mut both = [told(), told()];
    both.sort();
    assert_eq!(
        both,
        [format!("MAINPID={}", line.last()), "READY=1".to_owned()]
    );
    signal(line.last(), "TERM");
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn edge_31_with_watch_a_changed_file_is_in_force_without_a_signal_and_a_bad_one_is_refused_once() {
    let (app, other) = (Upstream::start(), Upstream::start());
    other.answers(reply(200).body("other"));
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, crate::support::SECRET_KEY).unwrap();
    let database = Database::sqlite();
    let lines = format!(
        "database = {{ env = 'DATABASE_URL' }}\nsecret_key = {{ file = '{}' }}",
        key.display()
    );
    let watched = |app: &Upstream| {
        Gateway::before(&database, app)
            .top("watch = true")
            .replace("django", &lines)
    };
    let gateway = watched(&app).start();
    let reloads = |expected| {
        eventually("it was looked at", || {
            (gateway.reloads() == expected).then_some(())
        });
    };
    watched(&other).write(gateway.file().parent().unwrap());
    reloads((1, 0));
    assert_eq!(gateway.get("/").send().text(), "other");
    std::fs::write(&key, "another key").unwrap();
    reloads((2, 0));
    std::fs::remove_file(&key).unwrap();
    reloads((2, 1));
    // It is looked at again and again, and refused once.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert_eq!(gateway.reloads(), (2, 1));
    }
    std::fs::write(&key, "another key").unwrap();
    reloads((3, 1));
    assert_eq!(gateway.get("/").send().text(), "other");
}

#[test]
fn a_gateway_that_is_ended_while_its_successor_starts_is_not_followed() {
    let app = Upstream::start();
    // A database that does not answer holds both up at their start.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://{}/site", silent.local_addr().unwrap());
    let mut gateway = Setup::new(&url)
        .top("drain_delay = '0s'")
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nsession = 'off'")
        .start();
    gateway.process.signal("USR2");
    eventually("it is starting another one", || {
        let log = gateway.log();
        log.contains("starting another process").then_some(())
    });
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.wait().code(), Some(0));
    // It has found itself alone, or the old one has still stopped it. As long as it lives, it has the socket.
    eventually("the successor ends too", || {
        let connected = std::net::TcpStream::connect(gateway.address());
        connected.is_err().then_some(())
    });
    assert!(!gateway.log().contains("another process has taken over"));
}

#[test]
fn a_gateway_that_is_killed_while_its_successor_starts_is_not_followed() {
    let app = Upstream::start();
    let database = Database::sqlite();
    // A database that does not answer holds the successor up at its start.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("postgres://{}/site", silent.local_addr().unwrap());
    let setup = Gateway::before(&database, &app).env("SILENT_URL", &url);
    let mut gateway = setup.start();
    let other = setup.text().replace("DATABASE_URL", "SILENT_URL");
    std::fs::write(gateway.file(), other).unwrap();
    gateway.process.signal("USR2");
    // It has taken the sockets before.
    eventually("the successor asks its database", || silent.accept().ok());
    gateway.process.signal("KILL");
    gateway.process.wait();
    gateway
        .process
        .wait_for("the gateway that this one was to follow has ended");
    eventually("the successor ends", || {
        let connected = std::net::TcpStream::connect(gateway.address());
        connected.is_err().then_some(())
    });
}

#[test]
fn a_gateway_that_is_ended_and_still_has_work_is_not_followed() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::with(move |_| {
        held.pass();
        reply(200).body("done")
    });
    // A database that does not answer holds the successor up, and the request the old one.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://{}/site", silent.local_addr().unwrap());
    let mut gateway = Setup::new(&url)
        .top("drain_delay = '0s'\nshutdown_grace = '1m'")
        .upstream("app", &app)
        .route("path = '/'\nupstream = 'app'\nsession = 'off'")
        .start();
    let mut asked = gateway.get("/").begin();
    gate.wait_for(1);
    gateway.process.signal("USR2");
    gateway.process.wait_for("starting another process");
    gateway.process.signal("TERM");
    // At the latest when the successor is ready, which takes it two seconds.
    let why = gateway.process.wait_for("no other process has taken over");
    assert!(why.contains("this one was asked to end meanwhile"), "{why}");
    eventually("nobody listens any more", || {
        let connected = std::net::TcpStream::connect(gateway.address());
        connected.is_err().then_some(())
    });
    gate.open();
    assert_eq!(asked.answer("GET").text(), "done");
    assert_eq!(gateway.process.wait().code(), Some(0));
}
