//! What the page tells, from top to bottom.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

use super::{
    history::{History, Recent, Recents},
    live::{Health, Live},
};
use crate::{
    config::{Require, Route, SessionMode, Target},
    gateway::{Current, Gateway},
    telemetry::metrics::{Change, Label, Lookup, Metrics, NO_ROUTE, Pool, Process},
};

/// A certificate that ends so soon should have been replaced.
const DAYS_TO_ACT: i64 = 14;

/// The page as it is now.
pub(super) fn render(current: &Current, history: &History, draining: bool) -> Live {
    let gateway = current.load();
    gateway.sessions().measure();
    let recents = history.recent(&gateway);
    let mut page = Live::default();
    header(&mut page, current, &gateway, draining);
    page.markup("<main>\n");
    tiles(&mut page, &gateway, &recents);
    routes(&mut page, &gateway, &recents);
    upstreams(&mut page, &gateway);
    page.markup("<div class=\"pair\">\n");
    sessions(&mut page, gateway.metrics());
    database(&mut page, &gateway);
    configuration(&mut page, current, &gateway);
    process(&mut page, gateway.metrics());
    page.markup("</div>\n</main>\n");
    page
}

fn header(page: &mut Live, current: &Current, gateway: &Gateway, draining: bool) {
    let (health, words) = overall(current, gateway, draining);
    page.markup("<header>\n<h1>session-gateway</h1>\n<span class=\"overall\" role=\"status\">");
    page.dot(health, words);
    page.markup("</span>\n<span class=\"soft right\">")
        .text(env!("CARGO_PKG_VERSION"));
    page.markup(" &middot; up ")
        .live(duration(uptime(gateway.metrics())));
    page.markup(" &middot; <span id=\"note\">as of this request</span></span>\n</header>\n");
}

/// The worst of what is the matter.
fn overall(current: &Current, gateway: &Gateway, draining: bool) -> (Health, String) {
    if draining {
        return (Health::Odd, "shutting down".to_owned());
    }
    if gateway.sessions().store().state().is_away() {
        return (Health::Bad, "the session database is away".to_owned());
    }
    for upstream in gateway.upstreams() {
        let servers = upstream.servers();
        if !servers.is_empty() && servers.iter().all(|server| !server.is_available) {
            return (
                Health::Bad,
                format!("no server of {} can be asked", upstream.name),
            );
        }
    }
    let out = |upstream: &crate::upstream::Upstream| {
        upstream
            .servers()
            .iter()
            .filter(|server| !server.is_available)
            .count()
    };
    match gateway.upstreams().map(out).sum::<usize>() {
        0 => {}
        1 => return (Health::Odd, "one server is left out".to_owned()),
        count => return (Health::Odd, format!("{count} servers are left out")),
    }
    if current
        .reloads()
        .last
        .is_some_and(|last| last.refused.is_some())
    {
        return (Health::Odd, "the last configuration was refused".to_owned());
    }
    (Health::Good, "all is well".to_owned())
}

fn tiles(page: &mut Live, gateway: &Gateway, recents: &Recents) {
    let metrics = gateway.metrics();
    let requests = recents.requests();
    page.markup("<div class=\"tiles\">\n");
    tile(page, "Requests", &requests, &requests.rates);
    page.markup("<section class=\"tile wrong\"><h2>Answered with 5xx</h2><div class=\"big\">");
    page.live(rate(requests.failures));
    page.markup("<span class=\"unit\">/s</span></div>")
        .spark(&requests.failure_rates);
    page.markup("</section>\n<section class=\"tile\"><h2>Time to answer</h2><div class=\"big\">");
    page.live(microseconds(requests.half))
        .markup("<span class=\"unit\">half</span></div><div class=\"soft\">");
    page.live(microseconds(requests.most))
        .markup(" for 99 %</div></section>\n");
    let (lookups, changes) = (recents.lookups(), recents.changes());
    tile(page, "Sessions looked up", &lookups, &lookups.rates);
    tile(page, "Sessions written", &changes, &changes.rates);
    page.markup("<section class=\"tile\"><h2>Open now</h2><div class=\"big\">");
    page.live(count(metrics.requests_in_flight.get()))
        .markup("<span class=\"unit\">requests</span></div><div class=\"soft\">");
    page.live(count(metrics.connections_open.total()))
        .markup(" connections, ");
    page.live(count(metrics.tunnels_open.total()))
        .markup(" tunnels</div></section>\n</div>\n");
}

fn tile(page: &mut Live, title: &'static str, recent: &Recent, values: &[f64]) {
    page.markup("<section class=\"tile\"><h2>")
        .text(title)
        .markup("</h2><div class=\"big\">");
    page.live(rate(recent.rate))
        .markup("<span class=\"unit\">/s</span></div>");
    page.spark(values).markup("</section>\n");
}

fn routes(page: &mut Live, gateway: &Gateway, recents: &Recents) {
    page.markup(
        "<section><h2>Routes</h2>\n<div class=\"scroll\"><table>\n<tr><th>route</th><th class=\"wide\">goes to</th>\
         <th class=\"wide\">session</th><th class=\"n\">a second</th><th class=\"wide\">two minutes</th>\
         <th class=\"n\">5xx</th><th class=\"n wide\">half</th><th class=\"n\">99 %</th><th class=\"n wide\">in all</th></tr>\n",
    );
    let config = gateway.config();
    for route in &config.routes {
        let goes_to = match &route.target {
            Target::Upstream(place) => config
                .upstreams
                .get(*place)
                .map_or("", |upstream| &upstream.name),
            Target::Redirect(_) => "a redirect",
        };
        let name = route.name();
        row(
            page,
            &name,
            goes_to,
            session_of(route),
            &recents.route(&name),
        );
    }
    row(page, "no route", "", "", &recents.route(NO_ROUTE));
    page.markup("</table></div></section>\n");
}

fn row(page: &mut Live, name: &str, goes_to: &str, session: &str, recent: &Recent) {
    page.markup("<tr><td class=\"name\">");
    breakable(page, name);
    page.markup("</td><td class=\"wide\">").text(goes_to);
    page.markup("</td><td class=\"wide soft\">").text(session);
    page.markup("</td><td class=\"n\">").live(rate(recent.rate));
    page.markup("</td><td class=\"wide\">").spark(&recent.rates);
    page.markup("</td><td class=\"n\">")
        .live(rate(recent.failures));
    page.markup("</td><td class=\"n wide\">")
        .live(microseconds(recent.half));
    page.markup("</td><td class=\"n\">")
        .live(microseconds(recent.most));
    page.markup("</td><td class=\"n wide soft\">")
        .live(count(i64::try_from(recent.total).unwrap_or(i64::MAX)));
    page.markup("</td></tr>\n");
}

/// A name that may go on in the next line after each slash and colon.
fn breakable(page: &mut Live, name: &str) {
    for part in name.split_inclusive(['/', ':']) {
        page.text(part).markup("<wbr>");
    }
}

/// What a route does with sessions, in a word or two.
fn session_of(route: &Route) -> &'static str {
    match (route.session, route.require) {
        (SessionMode::Off, _) => "off",
        (SessionMode::Pass, _) => "passed on",
        (SessionMode::Read, Require::Anyone) => "anyone",
        (SessionMode::Read, Require::Session) => "a session",
        (SessionMode::Read, Require::Login) => "a login",
        (SessionMode::Read, Require::Staff) => "staff",
        (SessionMode::Read, Require::Superuser) => "superusers",
    }
}

fn upstreams(page: &mut Live, gateway: &Gateway) {
    page.markup("<section><h2>Upstreams</h2>\n");
    for upstream in gateway.upstreams() {
        page.markup("<h3>").text(&upstream.name);
        page.markup(
            "</h3>\n<div class=\"scroll\"><table>\n<tr><th>server</th><th class=\"wide\">address</th><th>state</th>\
             <th class=\"n\">in flight</th><th class=\"n wide\">connections opened</th>\
             <th class=\"n wide\">times left out</th></tr>\n",
        );
        for server in upstream.servers() {
            let (health, words) = match (server.is_available, server.address.is_empty()) {
                (true, _) => (Health::Good, "asked"),
                (false, true) => (Health::Bad, "no address"),
                (false, false) => (Health::Bad, "left out"),
            };
            page.markup("<tr><td class=\"name\">");
            breakable(page, &server.server);
            page.markup("</td><td class=\"wide soft\">")
                .text(&server.address);
            page.markup("</td><td>").dot(health, words);
            page.markup("<p class=\"error\">").live(
                server
                    .last_error
                    .filter(|_| health != Health::Good)
                    .unwrap_or_default(),
            );
            page.markup("</p></td><td class=\"n\">")
                .live(server.in_flight.to_string());
            page.markup("</td><td class=\"n wide\">")
                .live(server.opened.to_string());
            page.markup("</td><td class=\"n wide\">")
                .live(server.left_out.to_string());
            page.markup("</td></tr>\n");
        }
        page.markup("</table></div>\n");
    }
    page.markup("</section>\n");
}

fn sessions(page: &mut Live, metrics: &Metrics) {
    page.markup("<section><h2>Sessions since the start</h2>\n<dl>\n<dt>lookups</dt><dd></dd>\n");
    for (result, name) in Lookup::VALUES {
        counted(page, name, metrics.session_lookups.total(*result));
    }
    page.markup("<dt>changes</dt><dd></dd>\n");
    for (outcome, name) in Change::VALUES {
        counted(page, name, metrics.session_changes.total(*outcome));
    }
    page.markup("</dl></section>\n");
}

fn counted(page: &mut Live, name: &str, total: u64) {
    page.markup("<dt>&ensp;").text(&name.replace('_', " "));
    page.markup("</dt><dd>")
        .live(count(i64::try_from(total).unwrap_or(i64::MAX)))
        .markup("</dd>\n");
}

fn database(page: &mut Live, gateway: &Gateway) {
    let (state, metrics) = (gateway.sessions().store().state(), gateway.metrics());
    let django = &gateway.config().django;
    let (health, words) = match (state.is_away(), state.was_contacted()) {
        (true, _) => (Health::Bad, "away"),
        (false, false) => (Health::Odd, "has not answered yet"),
        (false, true) => (Health::Good, "there"),
    };
    page.markup("<section><h2>Session database</h2>\n<dl>\n<dt>state</dt><dd>")
        .dot(health, words);
    page.markup("</dd>\n");
    for (pool, title, most) in [
        (Pool::Lookups, "connections for lookups", django.connections),
        (
            Pool::Changes,
            "connections for changes",
            django.write_connections,
        ),
    ] {
        page.markup("<dt>").text(title).markup("</dt><dd>");
        page.live(count(metrics.database_connections_busy.of(pool).get()))
            .markup(" at work, ");
        page.live(count(metrics.database_connections.of(pool).get()))
            .markup(" open, of ");
        page.live(most.to_string()).markup("</dd>\n");
    }
    page.markup("<dt>lookups waiting</dt><dd>")
        .live(count(metrics.lookups_waiting.get()));
    page.markup("</dd>\n<dt>changes under way</dt><dd>")
        .live(count(metrics.changes_under_way.get()));
    page.markup("</dd>\n</dl><p class=\"error\">")
        .live(state.cause().unwrap_or_default());
    page.markup("</p></section>\n");
}

fn configuration(page: &mut Live, current: &Current, gateway: &Gateway) {
    let reloads = current.reloads();
    let refused = reloads.last.filter(|last| last.refused.is_some());
    page.markup("<section><h2>Configuration</h2>\n<dl>\n<dt>in force since</dt><dd>")
        .live(moment(reloads.loaded));
    page.markup("</dd>\n<dt>digest</dt><dd>");
    page.live(gateway.config().digest.chars().take(12).collect::<String>());
    page.markup("</dd>\n<dt>last reload</dt><dd>");
    match &refused {
        Some(last) => page.dot(Health::Bad, format!("refused, {}", moment(last.at))),
        None => page.dot(Health::Good, "nothing refused"),
    };
    page.markup("</dd>\n");
    certificates(page, gateway);
    page.markup("</dl><p class=\"error\">");
    page.live(refused.and_then(|last| last.refused).unwrap_or_default());
    page.markup("</p></section>\n");
}

fn certificates(page: &mut Live, gateway: &Gateway) {
    let listeners = gateway.config().listeners.iter();
    for certificate in listeners
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| tls.all())
    {
        let days = (certificate.not_after - Utc::now().timestamp()).div_euclid(86_400);
        let health = match days {
            ..0 => Health::Bad,
            0..DAYS_TO_ACT => Health::Odd,
            DAYS_TO_ACT.. => Health::Good,
        };
        let words = match days {
            ..0 => "has ended".to_owned(),
            0..=1 => "ends within two days".to_owned(),
            days => format!("ends in {days} days"),
        };
        page.markup("<dt>certificate<br>")
            .text(&certificate.names.written.join(", "));
        page.markup("</dt><dd>")
            .dot(health, words)
            .markup("<br><span class=\"soft\">");
        page.text(&certificate.file.display().to_string())
            .markup("</span></dd>\n");
    }
}

fn process(page: &mut Live, metrics: &Metrics) {
    let Process {
        resident_bytes,
        open_files,
        most_files,
        cpu_seconds,
        ..
    } = metrics.process();
    page.markup("<section><h2>Process</h2>\n<dl>\n<dt>memory</dt><dd>");
    page.live(format!(
        "{:.1} MiB",
        resident_bytes as f64 / 1024.0 / 1024.0
    ));
    page.markup("</dd>\n<dt>files and sockets</dt><dd>")
        .live(count(open_files));
    page.markup(" of ").live(count(most_files));
    page.markup("</dd>\n<dt>CPU time</dt><dd>")
        .live(duration(cpu_seconds));
    page.markup("</dd>\n</dl></section>\n");
}

fn uptime(metrics: &Metrics) -> f64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs_f64() - metrics.process().started as f64).max(0.0)
}

/// A number a second, with as many digits as say something.
fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 10.0 => format!("{value:.1}"),
        value => count(value.round() as i64),
    }
}

/// With a thin space between thousands.
fn count(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

fn microseconds(value: Option<f64>) -> String {
    match value {
        None => "\u{2013}".to_owned(),
        Some(value) if value < 10_000.0 => format!("{:.1} ms", value / 1e3),
        Some(value) if value < 1e6 => format!("{:.0} ms", value / 1e3),
        Some(value) => format!("{:.1} s", value / 1e6),
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{minutes} min {} s", whole % 60),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
        .replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_read_them() {
        assert_eq!(
            [0.0, 0.26, 9.94, 12.4, 1234.5].map(rate),
            ["0", "0.3", "9.9", "12", "1\u{2009}235"]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567, -1000].map(count),
            [
                "0",
                "999",
                "1\u{2009}000",
                "1\u{2009}234\u{2009}567",
                "-1\u{2009}000"
            ]
        );
        assert_eq!(
            [59.0, 61.0, 3720.0, 90_000.0].map(duration),
            ["59 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]
        );
        let told = [Some(512.0), Some(25_000.0), Some(2.5e6), None].map(microseconds);
        assert_eq!(told, ["0.5 ms", "25 ms", "2.5 s", "\u{2013}"]);
    }
}
