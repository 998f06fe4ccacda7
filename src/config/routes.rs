//! `[[route]]`: which requests go where, and what their upstream may know and change.

use crate::path::{Canonical, EncodedSlashes};

use super::{
    Django, Engine, Forward, Grants, Limits, Protected, Require, Route, SessionMode, Target,
    Timeouts, UserClaims, Verify, Writable,
    item::Value,
    load::read_own_timeouts,
    plain,
    protected::NEVER_FORWARDED,
    report::nearest,
    traffic::{self, Message},
    tree::Table,
    tunnels,
    upstreams::Entry,
    value,
};

/// Every `[[route]]`, in the order of the file, without those that are too wrong to go on with.
pub(super) fn read(
    top: &Table<'_>,
    upstreams: &[Entry<'_>],
    defaults: (&Timeouts, &Limits),
    django: Option<&Django>,
    cookie_is_spelled_out: bool,
) -> Vec<Route> {
    let builtin = Protected::default();
    let protected = django.map_or(&builtin, |django| &django.protected);
    let tables = top.tables("route");
    if top.value("route").is_none_or(|value| value.is_empty_list()) {
        let example = "such as [[route]] with path = \"/\" and upstream = \"NAME\"";
        top.problem("there is no [[route]]", Some(example.to_owned()));
    }
    let count = tables.len();
    let mut used = vec![false; upstreams.len()];
    let mut routes: Vec<(Route, Table<'_>)> = Vec::new();
    for table in tables {
        let place = routes.len();
        if let Some(route) = read_one(&table, place, upstreams, defaults, protected, &mut used) {
            if let Some(django) = django {
                check_user(&table, &route, django);
                plain::check(&table, &route, django);
            }
            routes.push((route, table));
        }
    }
    // With a misspelt upstream somewhere, "unused" would only be an echo.
    let all_found = count > 0 && routes.len() == count;
    for (entry, used) in upstreams.iter().zip(used) {
        if all_found && !used {
            entry.table.problem(
                format!("no route uses upstream {:?}", entry.upstream.name),
                None,
            );
        }
    }
    check_clashes(&routes);
    if django.is_some_and(|django| django.engine == Engine::CachedDb) {
        check_read_only(&routes);
    }
    remark_on_login_pages(&routes);
    plain::remark(&routes);
    remark(&routes, upstreams, cookie_is_spelled_out);
    routes.into_iter().map(|(route, _)| route).collect()
}

fn read_one(
    table: &Table<'_>,
    place: usize,
    upstreams: &[Entry<'_>],
    (timeouts, limits): (&Timeouts, &Limits),
    protected: &Protected,
    used: &mut [bool],
) -> Option<Route> {
    let host = table
        .value("host")
        .map(|value| value.parse("a host name", value::host));
    let prefix = table
        .required("path")
        .and_then(|value| value.parse("a path such as \"/orders/\"", value::prefix));
    let redirect = table.value("redirect");
    let upstream = match redirect {
        Some(_) => table.value("upstream"),
        None => table.required("upstream"),
    };
    let upstream = upstream.and_then(|value| find_upstream(&value, upstreams));
    if let Some(used) = upstream.and_then(|index| used.get_mut(index)) {
        *used = true;
    }
    let modes = [
        ("read", SessionMode::Read),
        ("off", SessionMode::Off),
        ("pass", SessionMode::Pass),
    ];
    let requirements = [
        ("anyone", Require::Anyone),
        ("session", Require::Session),
        ("login", Require::Login),
        ("staff", Require::Staff),
        ("superuser", Require::Superuser),
    ];
    // Who is only sent elsewhere is nobody here.
    let session = match redirect {
        Some(_) => {
            let written = table.value("session");
            let written = written.and_then(|value| value.choice(&modes));
            written.unwrap_or(SessionMode::Off)
        }
        None => table.choice("session", &modes)?,
    };
    let require = table.choice("require", &requirements)?;
    let groups = read_groups(table, require);
    let user = table.read("user", read_user);
    let plain_headers = table.read("plain_headers", plain::read);
    let forward = table.read("forward", read_forward);
    let grants = read_grants(table, protected)?;
    let login_url = read_login_url(table);
    let on_store_error = [("503", false), ("forward", true)];
    let forward_on_store_error = table.choice("on_store_error", &on_store_error)?;
    let allow_cross_site = table.choice("cross_site", &[("refuse", false), ("allow", true)]);
    let upstream_cache = table.choice("cache", &[("private", false), ("upstream", true)]);
    let strip_prefix = table.value("strip_prefix").and_then(|value| {
        let strip = value.parse("a path such as \"/orders/\"", value::prefix)?;
        if prefix
            .as_ref()
            .is_some_and(|prefix| !prefix.is_within(&strip))
        {
            value.problem("this is not the beginning of \"path\"", None);
        }
        Some(strip)
    });
    let slashes = [
        ("refuse", EncodedSlashes::Refuse),
        ("keep", EncodedSlashes::Keep),
    ];
    let encoded_slashes = table.choice("encoded_slashes", &slashes);
    let entry = upstream.and_then(|index| upstreams.get(index));
    let timeouts = read_own_timeouts(
        table,
        entry.map_or(timeouts, |entry| &entry.upstream.timeouts),
    );

    let fields = |key, message| {
        let fields = table.read(key, |value| traffic::read_fields(value, message));
        fields.unwrap_or_default()
    };
    let rates = traffic::read_rates(table);
    let target = match redirect {
        None => {
            check_session(table, session, entry);
            upstream.map(Target::Upstream)
        }
        Some(value) => {
            traffic::check_redirect(table);
            traffic::read_redirect(&value).map(Target::Redirect)
        }
    };
    traffic::check_rates(table, &rates, session == SessionMode::Read);
    if forward_on_store_error
        && (require != Require::Anyone || !grants.is_empty())
        && let Some(value) = table.value("on_store_error")
    {
        let why = "\"forward\" is for routes with require = \"anyone\" that grant no change";
        value.problem(why, None);
    }
    Some(Route {
        line: table.at.map_or(0, |at| table.context.report.line(at)),
        host: match host {
            None => None,
            Some(host) => Some(host?),
        },
        prefix: prefix?,
        place,
        target: target?,
        session,
        require,
        groups,
        user: user?,
        plain_headers: plain_headers.unwrap_or_default(),
        forward: forward?,
        grants,
        login_url: login_url?,
        forward_on_store_error,
        allow_cross_site: allow_cross_site?,
        upstream_cache: upstream_cache?,
        strip_prefix,
        encoded_slashes: encoded_slashes?,
        request_headers: fields("request_headers", Message::Request),
        response_headers: fields("response_headers", Message::Response),
        rates,
        limits: traffic::read_limits(table, limits),
        upgrades: tunnels::read_upgrades(table),
        recheck: tunnels::read_recheck(table)?,
        timeouts,
    })
}

fn find_upstream(value: &Value<'_>, upstreams: &[Entry<'_>]) -> Option<usize> {
    let name = value.text("the name of an upstream")?;
    let found = upstreams
        .iter()
        .position(|entry| entry.upstream.name == name);
    if found.is_none() {
        let suggestion = nearest(
            name,
            upstreams.iter().map(|entry| entry.upstream.name.as_str()),
        )
        .unwrap_or_else(|| format!("write [upstream.{name}] with its servers"));
        value.problem(format!("there is no upstream {name:?}"), Some(suggestion));
    }
    found
}

/// The groups of which a user must be in one.
fn read_groups(table: &Table<'_>, require: Require) -> Vec<String> {
    let groups = table.list(
        "groups",
        "a list of groups such as [\"editors\"]",
        value::plain_text,
    );
    let Some(value) = table.value("groups") else {
        return groups;
    };
    if value.is_empty_list() {
        value.problem(
            "nobody is in none of no groups",
            Some("leave it out".to_owned()),
        );
    }
    if matches!(require, Require::Anyone | Require::Session) {
        let suggestion = Some("write require = \"login\"".to_owned());
        value.problem("only users who are logged in are in groups", suggestion);
    }
    groups
}

/// What the upstream is told of the user.
fn read_user(value: &Value<'_>) -> Option<UserClaims> {
    let mut names = value.list(
        "a list of columns such as [\"username\", \"groups\"]",
        value::told_column,
    )?;
    let count = names.len();
    names.retain(|name| name != "groups");
    Some(UserClaims {
        groups: names.len() < count,
        columns: names,
    })
}

/// What a route asks of a user must be there to be read.
fn check_user(table: &Table<'_>, route: &Route, django: &Django) {
    if route.reads_user() && django.verify == Verify::Off {
        for key in ["require", "groups", "user"] {
            if let Some(value) = table.value(key)
                && (key != "require" || route.require.column().is_some())
            {
                let suggestion = Some("write verify = \"user\" in [django]".to_owned());
                value.problem("with verify = \"off\" no user is looked up", suggestion);
            }
        }
    }
    if route.user.columns.contains(&django.user.password)
        && let Some(value) = table.value("user")
    {
        value.problem("this names the password column", None);
    }
}

fn read_forward(value: &Value<'_>) -> Option<Forward> {
    if value.as_text() == Some("*") {
        return Some(Forward::AllButProtected);
    }
    let names = read_names(value, "\"*\" or a list of names")?;
    for (name, item) in &names {
        if NEVER_FORWARDED.contains(&name.as_str()) {
            item.problem(
                format!(
                    "{name:?} is never forwarded: whoever reads it can forge a login or a form"
                ),
                None,
            );
        }
    }
    Some(Forward::Only(only_names(names)))
}

fn read_grants(table: &Table<'_>, protected: &Protected) -> Option<Grants> {
    let granted: Option<Vec<_>> = table.read("may", |value| {
        let acts = [("cycle", 0), ("flush", 1), ("expiry", 2)];
        let items = value.texts("a list of \"cycle\", \"flush\" and \"expiry\"")?;
        Some(items.iter().filter_map(|item| item.choice(&acts)).collect())
    });
    let granted = granted.unwrap_or_default();
    let unsafe_names = table
        .value("unsafe_writable")
        .and_then(|value| read_names(&value, "a list of names"))
        .map_or(Vec::new(), only_names);
    let writable = table.read("writable", |value| {
        if value.as_text() == Some("*") {
            return Some(Writable::AllButProtected(unsafe_names.clone()));
        }
        let names = read_names(value, "\"*\" or a list of names")?;
        for (name, item) in &names {
            if protected.contains(name) && !unsafe_names.contains(name) {
                let why = format!(
                    "{name:?} is protected: Django or one of its packages trusts what stands there"
                );
                let suggestion = format!("if it must be, unsafe_writable = [{name:?}]");
                item.problem(why, Some(suggestion));
            }
        }
        let mut names = only_names(names);
        names.extend(
            unsafe_names
                .iter()
                .filter(|name| !names.contains(name))
                .cloned()
                .collect::<Vec<_>>(),
        );
        Some(Writable::Only(names))
    });
    Some(Grants {
        writable: writable?,
        cycle: granted.contains(&0),
        flush: granted.contains(&1),
        expiry: granted.contains(&2),
    })
}

/// Names of a session, each with the value that it stands in.
fn read_names<'a>(value: &Value<'a>, expected: &str) -> Option<Vec<(String, Value<'a>)>> {
    let mut names: Vec<(String, Value<'a>)> = Vec::new();
    for item in value.texts(expected)? {
        let Some(name) = item.text(expected) else {
            continue;
        };
        if name.is_empty() || name.contains(['*', '\0']) {
            let why = format!(
                "{name:?} is no name: names are written in full, \"*\" stands alone and without brackets"
            );
            item.problem(why, None);
        } else if names.iter().any(|(other, _)| other == name) {
            item.problem(format!("{name:?} is given twice"), None);
        } else {
            names.push((name.to_owned(), item));
        }
    }
    Some(names)
}

fn only_names(names: Vec<(String, Value<'_>)>) -> Vec<String> {
    names.into_iter().map(|(name, _)| name).collect()
}

fn read_login_url(table: &Table<'_>) -> Option<Option<String>> {
    let expected = "a path such as \"/accounts/login/\"";
    let login_url = table.read("login_url", |value| value.parse(expected, value::login_url));
    let login_page = table.choice("on_anonymous", &[("login-page", true), ("401", false)])?;
    if !login_page && let Some(value) = table.value("login_url") {
        value.problem("with on_anonymous = \"401\" nobody is sent there", None);
    }
    Some(login_url.filter(|_| login_page))
}

/// What fits which `session`, and which upstream.
fn check_session(table: &Table<'_>, session: SessionMode, entry: Option<&Entry<'_>>) {
    let mode = match session {
        SessionMode::Read => {
            if let Some(entry) = entry
                && !entry.has_keys
            {
                let name = &entry.upstream.name;
                let why = format!("upstream {name:?} has no keys to sign a session for it");
                table.problem(
                    why,
                    Some("give it keys, or write session = \"off\"".to_owned()),
                );
            }
            return;
        }
        SessionMode::Off => "off",
        SessionMode::Pass => "pass",
    };
    for key in [
        "require",
        "groups",
        "user",
        "plain_headers",
        "forward",
        "writable",
        "may",
        "unsafe_writable",
    ] {
        if let Some(value) = table.value(key) {
            value.problem(
                format!("a route with session = {mode:?} reads no session"),
                None,
            );
        }
    }
    for key in [
        "on_anonymous",
        "login_url",
        "on_store_error",
        "cross_site",
        "cache",
        "recheck",
        "recheck_grace",
    ] {
        if let Some(value) = table.value(key) {
            let sentence = format!("{key:?} in [[route]] has no effect with session = {mode:?}");
            table.context.report.remark(value.at, sentence);
        }
    }
    if session == SessionMode::Pass
        && let Some(entry) = entry
        && !entry.upstream.django
        && let Some(value) = table.value("session")
    {
        let name = &entry.upstream.name;
        let why = format!(
            "\"pass\" hands on the session cookie itself, and upstream {name:?} is not Django"
        );
        value.problem(
            why,
            Some(format!(
                "if it is, write django = true in [upstream.{name}]"
            )),
        );
    }
}

/// Two routes that match the same requests: one of them would never be used.
fn check_clashes(routes: &[(Route, Table<'_>)]) {
    for (index, (route, table)) in routes.iter().enumerate() {
        let mut earlier = routes.iter().take(index).map(|(route, _)| route);
        let twin =
            earlier.find(|earlier| earlier.host == route.host && earlier.prefix == route.prefix);
        if let Some(twin) = twin {
            let host = route
                .host
                .as_ref()
                .map_or("any host".to_owned(), |host| format!("host {host:?}"));
            let why = format!(
                "the routes on lines {} and {} are for the same requests: {host}, path \"{}\"",
                twin.line, route.line, route.prefix
            );
            table.problem(why, None);
        }
    }
}

/// Django does not see what is written past its cache, and would still log in who has been logged out.
fn check_read_only(routes: &[(Route, Table<'_>)]) {
    for (_, table) in routes.iter().filter(|(route, _)| !route.grants.is_empty()) {
        let keys = ["writable", "unsafe_writable", "may"];
        let grants = keys.iter().filter_map(|key| table.value(key));
        for value in grants.filter(|value| !value.is_empty_list()) {
            let why = "with engine = \"cached_db\" nothing may be written: Django would not see it in its \
                       cache, would overwrite it, and would go on serving a session that is flushed here";
            value.problem(why, None);
        }
    }
}

/// A login page that itself asks for a login sends the visitor round and round.
fn remark_on_login_pages(routes: &[(Route, Table<'_>)]) {
    for (route, table) in routes {
        let Some(path) = route
            .login_url
            .as_ref()
            .and_then(|url| Canonical::parse(url).ok())
        else {
            continue;
        };
        let serves = |other: &&(Route, Table<'_>)| {
            (other.0.host.is_none() || other.0.host == route.host) && other.0.prefix.matches(&path)
        };
        let rank =
            |other: &&(Route, Table<'_>)| (other.0.host.is_some(), other.0.prefix.specificity());
        let Some((target, _)) = routes.iter().filter(serves).max_by_key(rank) else {
            continue;
        };
        if route.require != Require::Anyone && target.require != Require::Anyone {
            let why = format!(
                "the login page {} is under the route on line {}, which asks for a login itself",
                path.forwarded(),
                target.line
            );
            table.context.report.remark(table.at, why);
        }
    }
}

/// What is not wrong, but should be meant.
fn remark(routes: &[(Route, Table<'_>)], upstreams: &[Entry<'_>], cookie_is_spelled_out: bool) {
    let mut writers = routes
        .iter()
        .filter(|(route, _)| !route.grants.is_empty())
        .peekable();
    if let Some((_, table)) = writers.peek()
        && !cookie_is_spelled_out
    {
        let sentence = "this route may write, so the gateway sets the session cookie, and there is no \
                        [django.cookie]: Django's defaults are taken, whatever settings.py says";
        table.context.report.remark(table.at, sentence);
    }
    let mut told = vec![false; upstreams.len()];
    for (route, table) in writers {
        if let Writable::AllButProtected(_) = route.grants.writable
            && let Some(value) = table.value("writable")
        {
            let sentence =
                "writable = \"*\" lets the upstream change every name that is not protected";
            table.context.report.remark(value.at, sentence);
        }
        if let Some(value) = table.value("unsafe_writable") {
            let sentence =
                "whoever controls the upstream can use unsafe_writable to act as other users";
            table.context.report.remark(value.at, sentence);
        }
        let Target::Upstream(upstream) = route.target else {
            continue;
        };
        let Some((entry, told)) = upstreams.get(upstream).zip(told.get_mut(upstream)) else {
            continue;
        };
        if std::mem::replace(told, true) {
            continue;
        }
        for server in
            entry.upstream.servers.iter().filter(|server| {
                entry.upstream.tls.is_none() && !value::is_private(&server.address)
            })
        {
            let at = entry
                .table
                .value("servers")
                .and_then(|value| value.at)
                .or(entry.table.at);
            let sentence = format!(
                "changes of sessions come from {}, which is not private, without TLS",
                server.name
            );
            table.context.report.remark(at, sentence);
        }
    }
}
