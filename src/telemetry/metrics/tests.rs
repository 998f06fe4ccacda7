use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use super::*;

#[test]
fn what_is_counted_is_told() {
    let metrics = Metrics::default();
    metrics.session_lookups.count(Lookup::LoggedOut);
    metrics.session_lookups.count(Lookup::LoggedOut);
    metrics.memo.measure(1, 7);
    for value in [1, 3, 4, 500] {
        metrics.batch_questions.observe(value);
    }
    let text = metrics.text();
    for line in [
        "# TYPE session_gateway_session_lookups counter",
        "session_gateway_session_lookups_total{result=\"logged_out\"} 2",
        "session_gateway_session_lookups_total{result=\"missing\"} 0",
        "session_gateway_memo_bytes 7",
        "# TYPE session_gateway_batch_questions histogram",
        "session_gateway_batch_questions_sum 508.0",
        "session_gateway_batch_questions_count 4",
        "session_gateway_batch_questions_bucket{le=\"1.0\"} 1",
        "session_gateway_batch_questions_bucket{le=\"2.0\"} 1",
        "session_gateway_batch_questions_bucket{le=\"4.0\"} 3",
        "session_gateway_batch_questions_bucket{le=\"128.0\"} 3",
        "session_gateway_batch_questions_bucket{le=\"+Inf\"} 4",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(metrics.session_lookups.total(Lookup::LoggedOut), 2);
}

#[test]
fn durations_are_told_in_seconds_by_route() {
    let metrics = Metrics::default();
    let orders = metrics.route("shop.example/orders/");
    orders.requests.count(Class::Successful);
    orders.requests.count(Class::Left);
    orders
        .duration
        .observe_duration(Duration::from_micros(2500));
    orders.duration.observe_duration(Duration::from_secs(61));
    // After a reload the same route goes on where it was.
    let again = metrics.route("shop.example/orders/");
    again.requests.count(Class::Successful);
    assert_eq!(orders.requests.total(Class::Successful), 2);
    assert_eq!(orders.requests.sum(), 3);
    let text = metrics.text();
    for line in [
        "# UNIT session_gateway_request_duration_seconds seconds",
        "session_gateway_requests_total{route=\"shop.example/orders/\",class=\"2xx\"} 2",
        "session_gateway_requests_total{route=\"shop.example/orders/\",class=\"5xx\"} 0",
        "session_gateway_requests_total{route=\"none\",class=\"4xx\"} 0",
        "session_gateway_request_duration_seconds_bucket{le=\"0.001\",route=\"shop.example/orders/\"} 0",
        "session_gateway_request_duration_seconds_bucket{le=\"0.0025\",route=\"shop.example/orders/\"} 1",
        "session_gateway_request_duration_seconds_bucket{le=\"60.0\",route=\"shop.example/orders/\"} 1",
        "session_gateway_request_duration_seconds_bucket{le=\"+Inf\",route=\"shop.example/orders/\"} 2",
        "session_gateway_request_duration_seconds_sum{route=\"shop.example/orders/\"} 61.0025",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
}

#[test]
fn a_name_of_the_configuration_cannot_forge_a_series() {
    let metrics = Metrics::default();
    let hostile = "\"} 7\nforged_total 1\\";
    metrics.certificate_expiry.of(&[hostile]).set(1);
    let text = metrics.text();
    assert!(
        !text.lines().any(|line| line.starts_with("forged")),
        "{text}"
    );
    let line = "session_gateway_certificate_expiry_timestamp_seconds{certificate=\"\\\"} 7\\nforged_total 1\\\\\"} 1";
    assert!(text.lines().any(|told| told == line), "{text}");
}

#[test]
fn what_is_held_is_told_until_it_is_dropped() {
    let metrics = Metrics::default();
    let held = metrics.connections_open.hold(Protocol::Http2);
    let line =
        |count: u8| format!("session_gateway_connections_open{{protocol=\"http2\"}} {count}\n");
    assert!(metrics.text().contains(&line(1)));
    drop(held);
    assert!(metrics.text().contains(&line(0)));
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_tells_of_itself() {
    let text = Metrics::default().text();
    let value = |name: &str| -> f64 {
        let start = format!("session_gateway_process_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.expect(name).parse().expect(name)
    };
    assert!(value("resident_memory_bytes") > 1e6);
    assert!((3.0..=value("max_fds")).contains(&value("open_fds")));
    assert!(value("start_time_seconds") > 1.7e9);
    assert!(value("cpu_seconds_total") > 0.0);
    let version = format!(
        "session_gateway_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&version), "{text}");
}

/// A metric as the table of docs/operations.md has it: its name, its type, its labels with all values; none for a
/// label whose values are names of the configuration.
type Told = (String, String, BTreeMap<String, BTreeSet<String>>);

#[test]
fn every_metric_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = fs::read_to_string(path).expect("docs/operations.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| `session_gateway_"));
    let documented: Vec<Told> = rows.map(documented).collect();
    let metrics = Metrics::default();
    // One series of each family that has none before the configuration is read.
    metrics.certificate_expiry.of(&["shop.pem"]);
    metrics.server("orders", "127.0.0.1:3001");
    assert_eq!(documented, told(&metrics.text()));
}

/// A row of the table.
fn documented(row: &str) -> Told {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let between = |text: &str, mark: char| -> Vec<String> {
        let between = text.split(mark).skip(1).step_by(2);
        between.map(str::to_owned).collect()
    };
    let labels = cells[3].split(';').filter(|cell| !cell.is_empty());
    let labels = labels.map(|label| {
        let code = between(label, '`');
        match code.split_first() {
            Some((name, values)) => (name.clone(), values.iter().cloned().collect()),
            None => (between(label, '*').concat(), BTreeSet::new()),
        }
    });
    (
        between(cells[1], '`').concat(),
        cells[2].to_owned(),
        labels.collect(),
    )
}

/// The metrics in the text that Prometheus reads.
fn told(text: &str) -> Vec<Told> {
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let metric = |(name, kind): (&str, &str)| {
        let (name, series) = match kind {
            "counter" => (format!("{name}_total"), format!("{name}_total{{")),
            "histogram" => (name.to_owned(), format!("{name}_count{{")),
            "info" => (format!("{name}_info"), String::from("none")),
            _ => (name.to_owned(), format!("{name}{{")),
        };
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let series = text
            .lines()
            .filter_map(|line| line.strip_prefix(&series)?.split('}').next());
        for label in series.flat_map(|labels| labels.split(',')) {
            let (name, value) = label.split_once('=').expect("a label");
            let values = labels.entry(name.to_owned()).or_default();
            if !CONFIGURED.contains(&name) {
                values.insert(value.trim_matches('"').to_owned());
            }
        }
        (name, kind.to_owned(), labels)
    };
    types.map(metric).collect()
}

/// Labels whose values are names of the configuration.
const CONFIGURED: &[&str] = &["route", "certificate", "upstream", "server"];
