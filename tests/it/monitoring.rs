//! The dashboard and the alert rules ask for metrics, labels and values that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// Labels that Prometheus adds, or that histograms have.
const ADDED: [&str; 3] = ["instance", "job", "le"];

const OPERATIONS: &str = include_str!("../../docs/operations.md");

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    fs::read_to_string(path.join(name)).unwrap()
}

/// All metrics that there are, as the samples are called, with their labels and values.
#[derive(Default)]
struct Known {
    metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// A label of the table and its values; none where they come from the configuration.
fn label(cell: &str) -> Option<(String, BTreeSet<String>)> {
    let mark = if cell.contains('*') { '*' } else { '`' };
    let mut code = cell.split(mark).skip(1).step_by(2).map(str::to_owned);
    Some((code.next()?, code.collect()))
}

impl Known {
    /// From the table in docs/operations.md, which a unit test compares with the program's own text: that one leaves
    /// out families of which there is no series yet.
    fn read() -> Self {
        let mut known = Self::default();
        for row in OPERATIONS
            .lines()
            .filter(|line| line.starts_with("| `session_gateway_"))
        {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`');
            let ends: &[&str] = match cells[2] {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let labels: BTreeMap<_, _> = cells[3].split(';').filter_map(label).collect();
            for end in ends {
                known.metrics.insert(format!("{name}{end}"), labels.clone());
            }
        }
        known
    }

    /// What is wrong with an expression.
    fn faults(&self, expression: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut allowed: BTreeSet<&str> = ADDED.into();
        let mut rest = expression;
        let mut asked = 0;
        while let Some(place) = rest.find("session_gateway_") {
            let end = rest[place..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let end = end.map_or(rest.len(), |end| place + end);
            let name = &rest[place..end];
            rest = &rest[end..];
            asked += 1;
            let Some(labels) = self.metrics.get(name) else {
                faults.push(format!("there is no metric {name}: {expression}"));
                continue;
            };
            allowed.extend(labels.keys().map(String::as_str));
            let Some(inside) = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next())
            else {
                continue;
            };
            for (label, values) in matchers(inside) {
                if ADDED.contains(&label.as_str()) {
                    continue;
                }
                let Some(known) = labels.get(&label) else {
                    faults.push(format!("{name} has no label {label}: {expression}"));
                    continue;
                };
                let is_unknown = |value: &&str| !known.is_empty() && !known.contains(*value);
                let unknown = values.split('|').filter(is_unknown);
                faults.extend(unknown.map(|value| {
                    format!("{name} is never told with {label}={value:?}: {expression}")
                }));
            }
        }
        if asked == 0 && !expression.starts_with("up{") {
            faults.push(format!("asks for nothing of the gateway: {expression}"));
        }
        for grouped in expression.split("by (").skip(1) {
            let labels = grouped.split(')').next().unwrap().split(',').map(str::trim);
            let unknown = labels.filter(|label| !allowed.contains(label));
            faults.extend(unknown.map(|label| format!("no label {label}: {expression}")));
        }
        if expression.matches('(').count() != expression.matches(')').count() {
            faults.push(format!("its brackets do not match: {expression}"));
        }
        faults
    }
}

/// `a="b",c=~"d"`, with the values as they stand.
fn matchers(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((label, after)) = rest.split_once('=') {
        let value = after
            .trim_start_matches(['~', '='])
            .strip_prefix('"')
            .unwrap();
        let (value, after) = value.split_once('"').unwrap();
        found.push((
            label.trim_matches([',', ' ', '!']).to_owned(),
            value.to_owned(),
        ));
        rest = after;
    }
    found
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&file("grafana.json")).unwrap();
    let mut expressions = Vec::new();
    let mut titles = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            // What is shown in the legend is what is grouped by.
            for label in target["legendFormat"].as_str().unwrap().split("{{").skip(1) {
                let label = label.split("}}").next().unwrap();
                let grouped = expression.split("by (").skip(1);
                let mut labels = grouped.flat_map(|by| by.split(')').next().unwrap().split(','));
                let is_grouped = labels.any(|other| other.trim() == label);
                assert!(
                    is_grouped || !expression.contains("sum"),
                    "{label}: {expression}"
                );
            }
            expressions.push(expression.to_owned());
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        expressions.push(annotation["expr"].as_str().unwrap().to_owned());
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries = variables
        .iter()
        .filter_map(|variable| variable["query"]["query"].as_str());
    expressions.extend(queries.map(str::to_owned));
    assert!(expressions.len() > 30, "{expressions:?}");

    let known = Known::read();
    let faults: Vec<_> = expressions
        .iter()
        .flat_map(|expression| known.faults(expression))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The alerts' names, and what stands below each.
fn rules(alerts: &str) -> impl Iterator<Item = (&str, &str)> {
    let rules = alerts.split("\n      - alert: ").skip(1);
    rules.map(|rule| rule.split_once('\n').unwrap())
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let text = file("alerts.yml");
    let mut names = BTreeSet::new();
    let known = Known::read();
    let mut faults = Vec::new();
    for (name, rest) in rules(&text) {
        assert!(names.insert(name), "{name} is there twice");
        let expression = rest.strip_prefix("        expr: ").unwrap();
        let expression = expression.strip_prefix(">-\n").unwrap_or(expression);
        let ends = ["\n        for: ", "\n        labels:\n"];
        let end = ends
            .iter()
            .filter_map(|end| expression.find(end))
            .min()
            .unwrap();
        let expression: Vec<_> = expression[..end].split_whitespace().collect();
        faults.extend(known.faults(&expression.join(" ")));
        let severity = rest.split_once("          severity: ").unwrap().1;
        let severity = severity.lines().next().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
        let summary = rest.split_once("          summary: \"").unwrap().1;
        assert!(summary.trim_end().ends_with('"'), "{name}: {summary}");
    }
    assert!(names.len() > 10);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_alert_says_what_to_do_in_the_operators_manual() {
    let alerts = file("alerts.yml");
    let alerts: BTreeSet<&str> = rules(&alerts).map(|(name, _)| name).collect();
    let table = OPERATIONS.split("\n| alert | ").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut told = BTreeSet::new();
    for row in rows {
        let names = row.split('|').nth(1).unwrap();
        for name in names.split('`').skip(1).step_by(2) {
            assert!(told.insert(name), "{name} is there twice");
        }
    }
    assert!(alerts.len() > 10);
    assert_eq!(alerts, told);
}

#[test]
fn an_expression_that_asks_for_what_there_is_not_is_found() {
    let known = Known::read();
    for wrong in [
        "rate(session_gateway_request_total[5m])",
        "session_gateway_requests_total{class=\"6xx\"}",
        "session_gateway_requests_total{class=~\"5xx|gone\"}",
        "session_gateway_requests_total{status=\"5xx\"}",
        "sum by (code) (session_gateway_requests_total)",
        "sum(session_gateway_requests_total",
        "session_gateway_request_duration_seconds",
        "1 > 0",
    ] {
        assert_eq!(
            known.faults(wrong).len(),
            1,
            "{wrong}: {:?}",
            known.faults(wrong)
        );
    }
}
