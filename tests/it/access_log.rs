//! The access log, and the ids that tie a request to other logs.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::Stdio,
};

use serde_json::Value;

use crate::support::{
    Ask, Database, Gate, Gateway, PATIENCE, Served as _, Upstream, eventually, gateway::Setup,
    reply,
};

/// A gateway that logs JSON.
fn logging(app: &Upstream) -> Setup {
    Gateway::alone(app).line("log", "access = 'json'")
}

/// The lines of the access log, of requests to this path.
fn lines(gateway: &Gateway, path: &str, count: usize) -> Vec<Value> {
    eventually("the access log", || {
        let log = gateway.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("\"target\":\"access\""));
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect(line));
        let lines: Vec<Value> = lines.filter(|line| line["path"] == path).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_line_tells_of_a_request_when_its_answer_has_ended() {
    let database = Database::sqlite();
    let key = database.login(serde_json::json!({}));
    let app = Upstream::start();
    app.answers(reply(201).set(r#"{"set":{"a":1}}"#).body("hello"));
    let gateway = Gateway::before(&database, &app)
        .route("path = '/orders'\nupstream = 'app'\nwritable = ['a']")
        .line("log", "access = 'json'")
        .start();
    let ask = gateway
        .post("/orders/7?secret=1")
        .session(&key)
        .body("four");
    ask.send().is_upstreams(201);
    let line = &lines(&gateway, "/orders/7", 1)[0];
    for (name, expected) in [
        ("level", Value::from("INFO")),
        ("client", "127.0.0.1".into()),
        ("protocol", "HTTP/1.1".into()),
        ("method", "POST".into()),
        ("host", "shop.test".into()),
        ("status", 201.into()),
        ("route", "/orders/".into()),
        ("upstream", "app".into()),
        ("server", app.address().to_string().into()),
        ("received", 4.into()),
        ("sent", 5.into()),
    ] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
    for name in ["sid", "request_id", "timestamp"] {
        assert!(line[name].is_string(), "{name}: {line}");
    }
    let took = |name: &str| {
        line[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {line}"))
    };
    assert!(took("head_us") <= took("duration_us"));
    assert!(took("lookup_us") + took("upstream_us") + took("write_us") <= took("head_us"));
    for name in [
        "aborted",
        "error",
        "user",
        "user_agent",
        "referer",
        "trace_id",
    ] {
        assert!(line[name].is_null(), "{name}: {line}");
    }
}

#[test]
fn an_answer_that_breaks_off_and_a_client_that_leaves_are_logged() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Upstream::raw(move |mut stream| {
        let mut head = BufReader::new(stream.try_clone().unwrap());
        crate::support::http::head_lines(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            .unwrap();
        held.pass();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    let gateway = logging(&app).start();
    let mut client = gateway.get("/long").begin();
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.read_exactly(5), b"first");
    assert!(!gateway.log().contains("/long"), "its answer has not ended");
    gate.open();
    let line = &lines(&gateway, "/long", 1)[0];
    assert_eq!(
        (&line["status"], &line["sent"], &line["aborted"]),
        (&200.into(), &5.into(), &true.into())
    );
    let said = gateway.process.wait_for("an upstream's answer broke off");
    let id = line["request_id"].as_str().unwrap();
    assert!(
        said.contains(id) && said.contains("upstream=\"app\""),
        "{said}"
    );
    assert!(said.contains("cause=\"the connection was closed"), "{said}");

    let app = Upstream::start();
    let gate = Gate::default();
    let held = gate.clone();
    app.answers_with(move |_| {
        held.pass();
        reply(200)
    });
    let gateway = logging(&app).start();
    let client = gateway.get("/left").begin();
    gate.wait_for(1);
    drop(client);
    let line = &lines(&gateway, "/left", 1)[0];
    assert_eq!(line["status"], 499);
    assert!(!gateway.log().contains("broke off"), "nobody's fault");
    gate.open();
    // An answer without a body, and one to HEAD, have come to their end.
    app.answers(reply(200).body("some"));
    gateway.ask("HEAD", "/whole").send();
    app.answers(reply(304));
    gateway.get("/whole").send();
    for line in lines(&gateway, "/whole", 2) {
        assert!(line["aborted"].is_null(), "{line}");
    }
}

#[test]
fn fields_are_those_that_are_chosen_and_nothing_forges_a_line() {
    let app = Upstream::start();
    let database = Database::sqlite();
    let key = database.login(serde_json::json!({}));
    let gateway = Gateway::before(&database, &app)
        .line("log", "access = 'text'")
        .line(
            "log",
            "fields = ['status', 'path', 'user', 'user_agent', 'referer']",
        )
        .start();
    let hostile = "a\" status=200 x=\"\\";
    let ask = gateway
        .get("/a%20b")
        .session(&key)
        .field("User-Agent", hostile);
    ask.field("Referer", "https://shop.test/p?secret=1#x")
        .send()
        .is_upstreams(200);
    let line = eventually("the line", || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(" access: "));
        line.map(str::to_owned)
    });
    let (_, fields) = line.split_once(" INFO access: ").unwrap();
    assert_eq!(
        fields,
        "status=200 path=\"/a%20b\" user=\"1\" user_agent=\"a\\\" status=200 x=\\\"\\\\\" referer=\"https://shop.test/p\""
    );
}

#[test]
fn no_access_log_where_it_is_off() {
    let app = Upstream::start();
    let off = [
        Gateway::alone(&app).line("log", "access = 'off'"),
        Gateway::alone(&app)
            .argument("--log-level")
            .argument("info,access=off"),
    ];
    for setup in off {
        let mut gateway = setup.start();
        gateway.get("/").send().is_upstreams(200);
        // Everything that was logged is written when it ends.
        gateway.process.signal("TERM");
        assert!(gateway.process.wait().success());
        gateway.process.wait_for("shut down");
        assert!(!gateway.log().contains("access"), "{}", gateway.log());
    }
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let app = Upstream::start();
    let mut gateway = logging(&app).start();
    for number in 0..50 {
        gateway.get(&format!("/{number}")).send().is_upstreams(200);
    }
    gateway.process.signal("TERM");
    assert!(gateway.process.wait().success());
    eventually("the output was read", || {
        (gateway.log().matches("\"target\":\"access\"").count() == 50).then_some(())
    });
}

#[test]
fn a_request_has_one_id_in_the_answer_the_log_and_at_the_service() {
    let app = Upstream::start();
    app.answers(reply(200).field("X-Request-Id", "the-services-own"));
    let gateway = logging(&app).start();
    let ask = gateway
        .get("/mine")
        .field("X-Request-Id", "the-clients-own")
        .field("X_Request_Id", "folded");
    let answer = ask.send();
    let id = answer.field("x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(answer.all("x-request-id").len(), 1);
    assert_eq!(app.last().all("x-request-id"), [id]);
    assert!(app.last().all("x_request_id").is_empty());
    assert_eq!(lines(&gateway, "/mine", 1)[0]["request_id"], id);
    // Another request has another one; a refusal names its own.
    let refused = gateway.get("/refused%2f").send();
    refused.is_error(400, "bad-request");
    let other = refused.field("x-request-id").unwrap();
    assert_ne!(other, id);
    assert_eq!(refused.json()["request_id"], other);
    let page = gateway
        .get("/refused%2f")
        .field("Accept", "text/html")
        .send();
    assert!(page.text().contains(page.field("x-request-id").unwrap()));
}

#[test]
fn the_id_of_a_trusted_peer_is_kept_where_it_is_one() {
    let app = Upstream::start();
    let gateway = logging(&app)
        .line("gateway", "trusted_proxies = ['127.0.0.1']")
        .start();
    let given = "req-7.a_b~c+/=:@";
    let answer = gateway.get("/").field("X-Request-Id", given).send();
    assert_eq!(answer.field("x-request-id"), Some(given));
    assert_eq!(app.last().field("x-request-id"), Some(given));
    for wrong in ["a b", "<script>", "a\"b", &"a".repeat(129)] {
        let answer = gateway.get("/").field("X-Request-Id", wrong).send();
        assert_eq!(answer.field("x-request-id").unwrap().len(), 32, "{wrong}");
    }
    let ask = gateway
        .get("/")
        .field("X-Request-Id", "one")
        .field("X-Request-Id", "two");
    assert_eq!(ask.send().field("x-request-id").unwrap().len(), 32);
}

#[test]
fn a_valid_trace_context_passes_from_anybody_and_an_invalid_one_does_not() {
    let app = Upstream::start();
    let gateway = logging(&app).start();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let valid = format!("00-{trace}-b7ad6b7169203331-01");
    let ask = gateway.get("/traced").field("traceparent", &valid);
    ask.field("tracestate", "vendor=1").send().is_upstreams(200);
    assert_eq!(app.last().all("traceparent"), [valid.as_str()]);
    assert_eq!(app.last().all("tracestate"), ["vendor=1"]);
    assert_eq!(lines(&gateway, "/traced", 1)[0]["trace_id"], trace);

    let invalid = valid.replace("00-", "ff-");
    let ask = gateway.get("/not").field("traceparent", &invalid);
    ask.field("tracestate", "vendor=1").send().is_upstreams(200);
    assert_eq!(app.last().field("traceparent"), None);
    assert_eq!(app.last().field("tracestate"), None);
    assert!(lines(&gateway, "/not", 1)[0]["trace_id"].is_null());
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request_and_what_is_left_out_is_counted() {
    // The queue holds 4096 lines, the thread that writes them as many, and the pipe a few hundred.
    const REQUESTS: usize = 10_000;
    let app = Upstream::start();
    let database = Database::sqlite();
    let setup = Gateway::over(&database)
        .upstream("app", &app)
        .route("path = '/app'\nupstream = 'app'");
    let folder = tempfile::tempdir().unwrap();
    let file = setup.write(folder.path());
    let mut command = setup.command("run");
    command.arg("--config").arg(file).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // Read up to its addresses, and no further.
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut address_after = |text: &str| loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
        if let Some((_, address)) = line.trim_end().split_once(text) {
            break address.parse::<std::net::SocketAddr>().unwrap();
        }
    };
    let (health, address) = (address_after("health on "), address_after("listening on "));
    let mut stream = TcpStream::connect(address).unwrap();
    let mut reading = stream.try_clone().unwrap();
    reading.set_read_timeout(Some(PATIENCE)).unwrap();
    let answers = std::thread::spawn(move || {
        let mut text = String::new();
        reading.read_to_string(&mut text).unwrap();
        text.matches("HTTP/1.1 404 ").count()
    });
    let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    for _ in 0..REQUESTS / 100 {
        stream.write_all(&request.repeat(100)).unwrap();
    }
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(answers.join().unwrap(), REQUESTS + 1);
    let metrics = Ask::new(health, "GET", "/metrics").send().text();
    let name = "session_gateway_access_log_dropped_total ";
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    assert!(dropped.parse::<usize>().unwrap() > 500, "{dropped}");
    process.kill().unwrap();
    process.wait().unwrap();
}
