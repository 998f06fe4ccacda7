//! What is refused and with which words, what is remarked on, and what the defaults are.

mod files;
mod keys_as_told;
mod listeners;
mod samples;
mod signing;
mod users;

use chrono_tz::Tz;

use super::*;
use crate::path::EncodedSlashes;

/// A good file, which the rows below make bad.
const GOOD: &str = r#"[gateway]
issuer = "https://shop.example"

[django]
database = { env = "DATABASE_URL" }
secret_key = { env = "SECRET_KEY" }
cookie = { secure = true }

[upstream.orders]
servers = ["127.0.0.1:3001"]
keys = [{ kid = "k1", secret = { env = "ORDERS_KEY" } }]

[[route]]
path = "/"
upstream = "orders"
"#;

fn env(name: &str) -> Option<OsString> {
    let value = match name {
        "DATABASE_URL" => "postgres://shop:hunter2@db.example/shop\n",
        "MYSQL" => "mysql://shop:hunter2@db.example/shop?ssl-mode=VERIFY_CA&socket=/run/s",
        "MARIADB" => "mariadb://shop@[::1]:3307/shop",
        "MYSQL_SLASH" => "mysql://shop:hunter2/3@db.example/shop",
        "MYSQL_AT" => "mysql://shop:hunter2@3@db.example/shop",
        "SECRET_KEY" | "SAME_AS_SECRET_KEY" => "hunter2-django-insecure-0123456789-0123456789",
        "ORDERS_KEY" | "SAME_AS_ORDERS_KEY" => {
            "base64:3Bs8gUMG0e5Hx6moOQDVjvKR9T6sEtMUU4wczvBAOcc="
        }
        "OTHER_KEY" => "hunter2-0123456789-0123456789-0123456789",
        "SID_KEY" => "hunter2-sid-key-0123456789-0123456789",
        "SHORT" => "hunter2",
        "SHORT_BASE64" => "base64:aHVudGVyMg",
        "BAD_BASE64" => "base64:hunter2!",
        "EMPTY" => "\n",
        "SIGNING_KEY" | "SAME_AS_SIGNING_KEY" => {
            "base64:kOrGp3D1XZ1IyJFY4UPbLjKHE3QQVyXWVOUYk8QSKhM="
        }
        _ => return None,
    };
    Some(value.into())
}

fn parse(text: &str) -> Result<Loaded, Vec<String>> {
    let result = Config::parse(
        text,
        Path::new("gateway.toml"),
        &env,
        LoadOptions::default(),
    );
    result.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The good file with one text replaced, or with one added at its end.
fn edited(old: &str, new: &str) -> String {
    match old {
        "" => format!("{GOOD}{new}\n"),
        old => {
            assert!(GOOD.contains(old), "{old}");
            GOOD.replacen(old, new, 1)
        }
    }
}

/// A change to the good file, and all that is said of it.
struct Bad {
    old: String,
    new: String,
    messages: Vec<&'static str>,
}

fn bad_files() -> impl Iterator<Item = Bad> {
    let blocks = include_str!("tests/bad.txt").split("\n\n").skip(1);
    blocks.map(|block| {
        let marked = |mark: &'static str| {
            block
                .lines()
                .filter_map(move |line| line.strip_prefix(mark))
                .collect::<Vec<_>>()
        };
        Bad {
            old: marked("- ").join("\n"),
            new: marked("+ ").join("\n"),
            messages: marked("> "),
        }
    })
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_would_do() {
    let mut wrong = String::new();
    for Bad { old, new, messages } in bad_files() {
        let found = parse(&edited(&old, &new)).err();
        if found.as_ref().is_none_or(|found| *found != messages) {
            let found = found.unwrap_or_else(|| vec!["(accepted)".to_owned()]);
            wrong.push_str(&format!("{new}\n  > {}\n", found.join("\n  > ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_message_holds_a_secret() {
    for Bad { old, new, .. } in bad_files() {
        for message in parse(&edited(&old, &new)).err().into_iter().flatten() {
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
    let loaded = parse(GOOD).expect("a good file");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn every_mistake_of_a_file_is_told_in_the_order_of_the_file() {
    let text = edited("issuer", "isuer")
        .replace("secure = true", "secure = 1")
        .replace("path = \"/\"", "path = \"/\"\nrequire = \"loign\"");
    let expected = [
        "gateway.toml:1:1: \"issuer\" is missing in [gateway]; \
         such as issuer = \"https://shop.example\"",
        "gateway.toml:2:1: unknown key \"isuer\" in [gateway]; did you mean \"issuer\"?",
        "gateway.toml:7:21: \"secure\" in [django.cookie] must be true or false, not a number",
        "gateway.toml:15:11: \"require\" in [[route]]: \"loign\" is not \"anyone\", \"session\", \
         \"login\", \"staff\" or \"superuser\"; did you mean \"login\"?",
    ];
    assert_eq!(parse(&text).expect_err("bad"), expected);
}

#[test]
fn defaults_are_the_documented_ones() {
    let Config {
        digest: _,
        watch,
        writes,
        shutdown_grace,
        drain_delay,
        listeners,
        health,
        admin,
        jwks,
        gateway,
        limits,
        timeouts,
        log,
        error_pages,
        django,
        upstreams,
        routes,
    } = parse(&edited("cookie = { secure = true }", ""))
        .expect("a good file")
        .config;
    let seconds = Duration::from_secs;
    assert!(writes && health.is_none() && admin.is_none() && jwks.is_none());
    assert!(!watch);
    assert_eq!((shutdown_grace, drain_delay), (seconds(20), seconds(5)));
    assert_eq!(listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(gateway.issuer, "https://shop.example");
    assert!(gateway.trusted_proxies.networks.is_empty() && gateway.trusted_origins.is_empty());
    assert!(gateway.signing.is_none() && gateway.published.is_empty());
    assert!(gateway.sid_key.is_none());
    assert!(error_pages.is_empty());
    assert_eq!(log.access, Access::AsLog);
    let names: Vec<_> = log.fields.iter().map(|field| field.name()).collect();
    assert_eq!(names.len(), 21);
    for asked in ["user", "user_agent", "referer"] {
        assert!(!names.contains(&asked), "{asked}");
    }

    assert_eq!(
        (limits.request_head, limits.request_fields),
        (32 * 1024, 100)
    );
    assert_eq!(limits.request_body, Some(64 * 1024 * 1024));
    assert_eq!(
        (limits.session_data, limits.session_json),
        (256 * 1024, 1024 * 1024)
    );
    assert_eq!(
        (
            limits.session_write,
            limits.session_queue,
            limits.lookup_queue
        ),
        (64 * 1024, 128, 4096)
    );
    assert_eq!(
        (timeouts.idle, timeouts.body_progress, timeouts.connect),
        (seconds(75), seconds(30), seconds(2))
    );
    assert_eq!(
        (timeouts.response_head, timeouts.response_idle),
        (seconds(60), seconds(60))
    );

    let Database::Postgres(url) = &django.database else {
        panic!("{:?}", django.database)
    };
    assert_eq!(url.expose(), b"postgres://shop:hunter2@db.example/shop");
    assert_eq!(
        (django.release, django.table.as_str()),
        ((4, 2), "django_session")
    );
    assert_eq!(django.salt, "django.contrib.sessions.SessionStore");
    assert_eq!(
        django.backends,
        ["django.contrib.auth.backends.ModelBackend"]
    );
    assert_eq!(
        (
            django.max_staleness,
            django.deadline,
            django.connections,
            django.write_connections
        ),
        (Duration::ZERO, seconds(2), 2, 8)
    );
    assert_eq!(django.engine, Engine::Db);
    assert!(!django.expire_at_browser_close && !django.save_every_request);
    assert!(django.secret_key_fallbacks.is_empty());
    assert_eq!(django.time_zone, None);
    assert!(!django.pooled && !django.accept_replica);
    let cookie = &django.cookie;
    assert_eq!(
        (cookie.name.as_str(), cookie.path.as_str(), &cookie.domain),
        ("sessionid", "/", &None)
    );
    assert_eq!(
        (cookie.age, cookie.samesite),
        (seconds(14 * 86_400), SameSite::Lax)
    );
    assert!(!cookie.secure && cookie.httponly && !cookie.refuse_duplicate);

    let upstream = &upstreams[0];
    assert_eq!(
        (upstream.name.as_str(), upstream.servers.len()),
        ("orders", 1)
    );
    assert!(!upstream.django && !upstream.own_host);
    assert_eq!(
        (upstream.balance, upstream.protocol, upstream.resolve_every),
        (Balance::RoundRobin, Protocol::Http1, seconds(30))
    );
    assert!(upstream.tls.is_none() && upstream.health.is_none());
    assert_eq!(upstream.servers[0].weight, 1);
    assert_eq!(upstream.algorithm, Algorithm::Hs256);
    assert_eq!(
        (upstream.max_header_bytes, upstream.token_ttl),
        (4096, seconds(60))
    );
    assert_eq!(
        (upstream.keys[0].kid.as_str(), upstream.keys[0].secret.len()),
        ("k1", 32)
    );

    let route = &routes[0];
    assert_eq!(
        (route.line, route.place, &route.host, &route.strip_prefix),
        (13, 0, &None, &None)
    );
    assert!(matches!(route.target, Target::Upstream(0)) && route.rates.is_empty());
    assert!(route.request_headers.is_empty() && route.response_headers.is_empty());
    assert_eq!(
        (route.limits.request_body, route.limits.in_flight),
        (Some(64 << 20), None)
    );
    assert_eq!(limits.in_flight, 4096);
    assert_eq!(
        (route.session, route.require),
        (SessionMode::Read, Require::Anyone)
    );
    assert!(matches!(route.forward, Forward::AllButProtected) && route.grants.is_empty());
    assert_eq!(route.login_url.as_deref(), Some("/accounts/login/"));
    assert!(!route.forward_on_store_error && !route.allow_cross_site && !route.upstream_cache);
    assert_eq!(route.encoded_slashes, EncodedSlashes::Refuse);
}

#[test]
fn every_key_can_be_set() {
    let text = r#"
writes = "off"
watch = true
drain_delay = "1s"
shutdown_grace = "0s"
[[listener]]
address = "127.0.0.1:0"
redirect_to_https = 443
[[listener]]
address = "[::1]:0"
tls = [CERTIFICATE]
proxy_protocol = true
[admin]
address = "127.0.0.1:9901"
[health]
address = "0.0.0.0:8081"
jwks = "/keys.json"
[gateway]
issuer = "https://shop.example"
trusted_proxies = ["unix", "10.0.0.0/8", "192.0.2.1", "fd00::/8"]
trusted_fields = ["X-Forwarded-Host", "x-real-ip"]
trusted_origins = ["https://Shop.example:443", "http://localhost:3000"]
signing = { kid = "g1", private_key = { env = "SIGNING_KEY" } }
published = [{ kid = "g0", public_key = "Ln67-A8TOKZ6-NmsY9jbFGICMYS6KO1iuzRzNtnrVLw" }]
sid_key = { env = "SID_KEY" }
[limits]
request_head = "16KiB"
request_fields = 50
request_body = "unlimited"
connections = 500
connections_per_address = 20
h2_streams = 50
session_data = "128KiB"
session_json = "256KiB"
session_write = "32KiB"
session_queue = 4
lookup_queue = 8
[timeouts]
tls_handshake = "5s"
head = "5s"
send = "20s"
idle = "1m"
body_progress = "10s"
connect = "250ms"
response_head = "10s"
response_idle = "1h"
[log]
access = "json"
fields = ["status", "path", "user"]
[django]
database = "sqlite:db.sqlite3"
secret_key = { env = "SECRET_KEY" }
secret_key_fallbacks = [{ env = "OTHER_KEY" }]
release = "3.2"
verify = "active-only"
user = { table = "people", key = "uid", password = "pw", where = "NOT locked", groups = ["a.m", "a.g"] }
engine = "db"
table = "shop.sessions"
salt = "shop.SessionStore"
time_zone = "Europe/Berlin"
backends = ["shop.Backend"]
max_staleness = "1s"
deadline = "500ms"
connections = 3
write_connections = 4
pooler = "transaction"
replica = "accepted"
protected = ["acl_*"]
expire_at_browser_close = true
save_every_request = true
[django.cookie]
name = "__Host-sid"
age = "1h"
path = "/"
secure = true
httponly = false
samesite = "None"
duplicate = "refuse"
[upstream.orders]
servers = ["Orders:3001", "[::1]:3001", "unix:run/app.sock"]
weights = [3, 2, 1]
balance = "hash"
protocol = "h2"
tls = { name = "orders.example" }
health = { path = "/up?x=1", host = "shop.example", every = "1s", timeout = "500ms", fall = 4, rise = 5, status = "200" }
resolve_every = "1m"
django = true
algorithm = "HS256"
keys = [{ kid = "a", secret = { env = "ORDERS_KEY" } }]
host = "upstream"
max_header_bytes = 8192
token_ttl = "30s"
timeouts = { connect = "1s" }
[[route]]
host = "Shop.Example."
path = "/orders/"
upstream = "orders"
session = "read"
require = "staff"
groups = ["editors", "admins"]
user = ["username", "groups"]
plain_headers = { "X-WEBAUTH-USER" = "user.username", X-Visitor = "sid", X-Cart = "session.cart", Remote-User = "sub" }
forward = ["cart", "hijack_history"]
writable = ["cart"]
may = ["cycle", "flush", "expiry"]
unsafe_writable = ["otp_device_id"]
on_anonymous = "login-page"
login_url = "https://shop.example/login/"
cross_site = "allow"
cache = "upstream"
strip_prefix = "/orders"
encoded_slashes = "keep"
upgrades = ["WebSocket", "spdy/3.1"]
recheck = "10s"
recheck_grace = "0s"
timeouts = { response_head = "5s", tunnel_idle = "2h" }
limits = { request_body = "1GiB", in_flight = 10 }
rate = [{ by = "session", requests = 10, every = "1s" }]
request_headers = { X-Version = "3" }
response_headers = { Server = false }
[[route]]
host = "www.shop.example"
path = "/"
redirect = "https://shop.example"
[[route]]
path = "/"
upstream = "orders"
session = "pass"
[[route]]
path = "/static/"
upstream = "orders"
on_store_error = "forward"
on_anonymous = "401"
writable = []
"#;
    let files = listeners::Files::new(&["shop.example"], |_| {});
    let page = tempfile::NamedTempFile::new().expect("a file");
    let pages = format!("error_pages = {{ \"5xx\" = {:?} }}\n", page.path());
    let text = &(pages + &text.replace("CERTIFICATE", &files.entry()));
    let loaded = parse(text).expect("a good file");
    let config = loaded.config;
    assert!(!config.writes && config.listeners.len() == 2);
    assert!(!config.error_pages.is_empty());
    assert_eq!(
        config.gateway.trusted_origins,
        ["https://shop.example", "http://localhost:3000"]
    );
    assert_eq!(
        config.gateway.trusted_proxies.networks[1].to_string(),
        "192.0.2.1/32"
    );
    assert!(config.gateway.trusted_proxies.unix);
    let fields = &config.gateway.trusted_proxies.fields;
    assert_eq!(fields, &["x-forwarded-host", "x-real-ip"]);
    assert_eq!(config.listeners[0].redirect_to_https, Some(443));
    assert!(config.listeners[1].tls.is_some() && config.listeners[1].proxy_protocol);
    assert_eq!(config.limits.connections_per_address, Some(20));
    assert_eq!(config.limits.request_body, None);
    assert!(
        matches!(&config.django.database, Database::Sqlite(path) if path == Path::new("db.sqlite3"))
    );
    assert!(config.django.protected.contains("acl_x"));
    assert!(config.django.pooled && config.django.accept_replica);
    let user = &config.django.user;
    assert_eq!(config.django.verify, Verify::ActiveOnly);
    assert_eq!(config.django.max_staleness, Duration::from_secs(1));
    assert_eq!((user.table.as_str(), user.key.as_str()), ("people", "uid"));
    assert_eq!(user.condition.as_deref(), Some("NOT locked"));
    assert_eq!(user.groups, ("a.m".to_owned(), "a.g".to_owned()));
    assert_eq!(config.user_columns(), ["is_staff", "username"]);
    assert!(config.reads_groups());
    assert_eq!(config.django.time_zone, Some(Tz::Europe__Berlin));
    let columns = config.user_columns();
    assert!(columns.contains(&"username".to_owned()), "{columns:?}");
    let upstream = &config.upstreams[0];
    let servers: Vec<_> = upstream
        .servers
        .iter()
        .map(|server| (server.name.as_str(), &server.address, server.weight))
        .collect();
    let name = ServerAddress::Name {
        host: "orders".to_owned(),
        port: 3001,
    };
    let ip = ServerAddress::Ip("[::1]:3001".parse().expect("an address"));
    let unix = ServerAddress::Unix("run/app.sock".into());
    let expected = [
        ("orders:3001", &name, 3),
        ("[::1]:3001", &ip, 2),
        ("unix:run/app.sock", &unix, 1),
    ];
    assert_eq!(servers, expected);
    assert_eq!(
        (upstream.balance, upstream.protocol),
        (Balance::Hash, Protocol::Http2)
    );
    assert!(upstream.tls.as_ref().is_some_and(|tls| tls.name.is_some()));
    let health = upstream.health.as_ref().expect("health");
    assert_eq!(health.path, "/up?x=1");
    assert_eq!(
        (health.fall, health.rise, health.status.clone()),
        (4, 5, 200..=200)
    );
    assert_eq!(upstream.resolve_every, Duration::from_secs(60));
    let route = &config.routes[0];
    let of = |text: &str| text.to_owned();
    let expected = [
        ("remote-user", PlainSource::Sub),
        ("x-cart", PlainSource::Session(of("cart"))),
        ("x-visitor", PlainSource::Sid),
        ("x-webauth-user", PlainSource::User(of("username"))),
    ];
    let plain = route.plain_headers.iter();
    let plain: Vec<_> = plain
        .map(|header| (header.name.as_str(), header.source.clone()))
        .collect();
    assert_eq!(plain, expected);
    assert_eq!(route.groups, ["editors", "admins"]);
    assert_eq!(route.host.as_deref(), Some("shop.example"));
    assert_eq!(route.timeouts.connect, Duration::from_secs(1));
    assert_eq!(route.timeouts.response_head, Duration::from_secs(5));
    assert_eq!(route.timeouts.response_idle, Duration::from_secs(3600));
    assert_eq!(route.timeouts.tunnel_idle, Duration::from_secs(7200));
    assert_eq!(route.upgrades, ["websocket", "spdy/3.1"]);
    assert_eq!(config.routes[2].upgrades, ["websocket"]);
    assert_eq!(route.recheck.every, Some(Duration::from_secs(10)));
    assert!(route.recheck.is_explicit && route.recheck.grace.is_zero());
    assert!(!config.routes[2].recheck.is_explicit);
    assert!(
        matches!(&route.grants.writable, Writable::Only(names) if names == &["cart", "otp_device_id"])
    );
    assert!(route.grants.cycle && route.grants.flush && route.grants.expiry);
    assert!(config.routes[3].login_url.is_none() && config.routes[3].forward_on_store_error);
    for section in keys::ALL {
        for key in section.names() {
            // Files of certificates are tried with real ones.
            let is_elsewhere = ["domain", "certificate"].contains(&key);
            let is_there = text.lines().any(|line| line.contains(key)) || is_elsewhere;
            assert!(is_there, "{key} is not tried here");
        }
    }
}

#[test]
fn mysql_and_mariadb_are_one_kind_of_database() {
    for variable in ["MYSQL", "MARIADB"] {
        let config = parse(&edited("DATABASE_URL", variable))
            .expect("a good file")
            .config;
        let Database::MySql(url) = &config.django.database else {
            panic!("{:?}", config.django.database)
        };
        assert_eq!(
            Some(url.expose()),
            env(variable).as_ref().map(|url| url.as_encoded_bytes())
        );
    }
}

#[test]
fn what_may_be_meant_is_remarked_on() {
    let remarks = |old: &str, new: &str| -> Vec<String> {
        let loaded = parse(&edited(old, new)).unwrap_or_else(|problems| panic!("{problems:?}"));
        loaded.remarks.iter().map(ToString::to_string).collect()
    };
    let env = "gateway.toml:5:20: remark: read from the environment once, when the gateway starts: \
               DATABASE_URL, SECRET_KEY, ORDERS_KEY";
    assert_eq!(remarks("", ""), [env]);
    let rows = [
        (
            "path = \"/\"",
            "path = \"/\"\nwritable = \"*\"",
            "gateway.toml:15:12: remark: writable = \"*\" lets the upstream change every name that \
             is not protected",
        ),
        (
            "path = \"/\"",
            "path = \"/\"\nplain_headers = { X-Cart = \"session.cart\" }\nwritable = [\"cart\"]",
            "gateway.toml:15:17: remark: an upstream may write \"cart\": who reads x-cart must not take it for a \
             user",
        ),
        (
            "path = \"/\"",
            "path = \"/\"\nunsafe_writable = [\"hijack_history\"]",
            "gateway.toml:15:19: remark: whoever controls the upstream can use unsafe_writable to act \
             as other users",
        ),
        (
            "path = \"/\"",
            "path = \"/\"\nsession = \"off\"\ncache = \"upstream\"",
            "gateway.toml:16:9: remark: \"cache\" in [[route]] has no effect with session = \"off\"",
        ),
        (
            "path = \"/\"",
            "path = \"/\"\nrequire = \"login\"",
            "gateway.toml:13:1: remark: the login page /accounts/login/ is under the route on line 13, which \
             asks for a login itself",
        ),
        (
            "cookie = { secure = true }",
            "cookie = { secure = true }\nreplica = \"accepted\"",
            "gateway.toml:8:11: remark: with replica = \"accepted\" a logout counts only when the server that \
             answers has heard of it",
        ),
        (
            "cookie = { secure = true }",
            "cookie = { secure = true }\nmax_staleness = \"1500ms\"",
            "gateway.toml:8:17: remark: with this max_staleness a logout, a deactivation or a new password \
             counts after up to 1500ms",
        ),
    ];
    for (old, new, expected) in rows {
        assert_eq!(remarks(old, new), [env, expected]);
    }
    let exact = "cookie = { secure = true }\nmax_staleness = \"0s\"";
    assert_eq!(remarks("cookie = { secure = true }", exact), [env]);
    let no_cookie = edited("cookie = { secure = true }", "")
        .replace("path = \"/\"", "path = \"/\"\nmay = [\"flush\"]");
    let loaded = parse(&no_cookie).expect("a good file");
    assert_eq!(
        loaded.remarks[1].to_string(),
        "gateway.toml:13:1: remark: this route may write, so the gateway sets the session cookie, and \
         there is no [django.cookie]: Django's defaults are taken, whatever settings.py says"
    );
    let no_cookie = edited("cookie = { secure = true }", "save_every_request = true");
    let loaded = parse(&no_cookie).expect("a good file");
    assert_eq!(
        loaded.remarks[1].to_string(),
        "gateway.toml:7:22: remark: with save_every_request the gateway sets the session cookie, and there is \
         no [django.cookie]: Django's defaults are taken, whatever settings.py says"
    );
}

#[test]
fn a_site_with_cached_db_may_be_read() {
    let text = edited(
        "cookie = { secure = true }",
        "cookie = { secure = true }\nengine = \"cached_db\"",
    )
    .replace("path = \"/\"", "path = \"/\"\nwritable = []\nmay = []");
    let loaded = parse(&text).expect("a good file");
    assert_eq!(loaded.config.django.engine, Engine::CachedDb);
}

#[test]
fn writing_over_a_public_network_is_remarked_on() {
    for (server, is_private) in [
        ("127.0.0.1:1", true),
        ("10.1.2.3:1", true),
        ("172.16.0.1:1", true),
        ("192.168.0.1:1", true),
        ("100.64.0.1:1", true),
        ("100.128.0.1:1", false),
        ("[::1]:1", true),
        ("[fd00::1]:1", true),
        ("[2001:db8::1]:1", false),
        ("203.0.113.7:1", false),
        ("orders:1", true),
        ("orders.internal:1", true),
        ("orders.example.com:1", false),
    ] {
        let text = edited("127.0.0.1:3001", server)
            .replace("path = \"/\"", "path = \"/\"\nmay = [\"flush\"]");
        let remarks = parse(&text).expect("a good file").remarks;
        let told = remarks.iter().any(|remark| {
            remark
                .sentence
                .contains("which is not private, without TLS")
        });
        assert_eq!(told, !is_private, "{server}");
    }
}
