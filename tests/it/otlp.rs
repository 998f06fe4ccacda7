//! Spans, in builds with the feature `otlp`: what a collector gets, and what it never gets.

use serde_json::{Value, json};

use crate::support::{Database, Gateway, Served as _, Upstream, eventually, reply};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// All spans that a collector has got.
fn spans(collector: &Upstream) -> Vec<Value> {
    let messages = collector.seen();
    let spans = messages.iter().flat_map(|seen| {
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("POST", "/v1/traces")
        );
        assert_eq!(seen.field("content-type"), Some("application/json"));
        assert_eq!(seen.field("x-tenant"), Some("shop"));
        let message: Value = serde_json::from_slice(&seen.body).unwrap();
        let resource = &message["resourceSpans"][0];
        let service = json!({"key": "service.name", "value": {"stringValue": "shop-gateway"}});
        assert_eq!(resource["resource"]["attributes"][0], service);
        resource["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap()
            .clone()
    });
    spans.collect()
}

#[test]
fn a_request_is_one_span_with_its_parts_and_the_upstreams_parent() {
    let database = Database::sqlite();
    let key = database.login(json!({"name": "planted"}));
    let (app, collector) = (Upstream::start(), Upstream::start());
    let gateway = Gateway::before(&database, &app)
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://{}", collector.address()),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
        .env("OTEL_SERVICE_NAME", "shop-gateway")
        .start();
    app.answers(reply(201).set(r#"{"set":{"a":"planted"}}"#));
    let traced = |flags: &str| {
        let ask = gateway.post("/cart?planted").session(&key);
        ask.field("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}"))
            .body("planted")
    };
    traced("01").send().is_upstreams(201);
    let told = app.last().field("traceparent").unwrap().to_owned();
    // A caller that does not record its trace: neither does the gateway.
    app.answers(reply(200));
    traced("00").send().is_upstreams(200);
    let unrecorded = app.last().field("traceparent").unwrap().to_owned();
    assert!(unrecorded.starts_with(&format!("00-{TRACE}-")) && unrecorded.ends_with("-00"));
    // Without a caller a trace begins here.
    gateway.get("/alone").send().is_upstreams(200);
    let alone = app.last().field("traceparent").unwrap().to_owned();
    assert!(!alone.contains(TRACE) && alone.ends_with("-01"));

    let spans = eventually("the spans", || {
        let spans = spans(&collector);
        spans
            .iter()
            .any(|span| alone.contains(span["spanId"].as_str().unwrap()))
            .then_some(spans)
    });
    let server = spans
        .iter()
        .find(|span| span["parentSpanId"] == CALLER)
        .unwrap();
    assert_eq!(
        (&server["name"], &server["kind"]),
        (&json!("POST /"), &json!(2))
    );
    assert_eq!(server["traceId"], TRACE);
    let id = server["spanId"].as_str().unwrap();
    assert_eq!(told, format!("00-{TRACE}-{id}-01"));
    let attributes = server["attributes"].as_array().unwrap();
    for expected in [
        json!({"key": "http.request.method", "value": {"stringValue": "POST"}}),
        json!({"key": "http.route", "value": {"stringValue": "/"}}),
        json!({"key": "url.path", "value": {"stringValue": "/cart"}}),
        json!({"key": "http.response.status_code", "value": {"intValue": "201"}}),
    ] {
        assert!(attributes.contains(&expected), "{expected}: {server}");
    }
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
    let parts: Vec<&Value> = spans
        .iter()
        .filter(|span| span["parentSpanId"] == id)
        .collect();
    let names: Vec<&str> = parts
        .iter()
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["resolve", "upstream", "persist"]);
    for part in parts {
        assert!(time(part, "startTimeUnixNano") >= time(server, "startTimeUnixNano"));
        assert!(time(part, "endTimeUnixNano") <= time(server, "endTimeUnixNano"));
    }
    assert!(
        !spans
            .iter()
            .any(|span| unrecorded.contains(span["spanId"].as_str().unwrap()))
    );
    let text = Value::from(spans).to_string();
    assert!(!text.contains("planted") && !text.contains(&key), "{text}");
}

#[test]
fn spans_of_the_last_second_are_sent_before_the_end_and_a_collector_that_is_away_holds_up_nobody() {
    let (app, collector) = (Upstream::start(), Upstream::start());
    let to = |address: String| {
        Gateway::alone(&app)
            .env(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                &format!("http://{address}/v1/traces"),
            )
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
            .env("OTEL_SERVICE_NAME", "shop-gateway")
    };
    let mut gateway = to(collector.address().to_string()).start();
    gateway.get("/").send().is_upstreams(200);
    gateway.process.signal("TERM");
    assert!(gateway.process.wait().success());
    assert!(spans(&collector).iter().any(|span| span["name"] == "GET /"));

    let gateway = to("127.0.0.1:9".to_owned()).start();
    for _ in 0..20 {
        gateway.get("/").send().is_upstreams(200);
    }
    gateway.process.wait_for("spans could not be sent");
}

#[test]
fn an_endpoint_that_is_none_is_told_at_the_start() {
    let app = Upstream::start();
    let output = Gateway::alone(&app)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test")
        .fails();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is not an http URL"), "{said}");
}
