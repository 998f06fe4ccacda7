//! The forms that texts of the file have.

/// A form of a text. Its parser (`value` has most of them) has the last word; the pattern is what an editor can check.
#[derive(Debug)]
pub(in crate::config) struct Form {
    /// How the reference calls one.
    pub(in crate::config) called: &'static str,
    /// A regular expression that all of them match, in what ECMA 262, Python and Rust understand alike: so without
    /// looking ahead or behind. Empty for any text.
    pub(in crate::config) pattern: &'static str,
    /// Some that have the form.
    pub(in crate::config) good: &'static [&'static str],
    /// Some that have not, which the pattern finds too.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests try them"))]
    pub(in crate::config) bad: &'static [&'static str],
}

pub(super) static ADDRESS: Form = Form {
    called: "IP address and port, or `unix:` and a path",
    pattern: r"^(unix:.+|[0-9.]+:[0-9]{1,5}|\[[0-9A-Fa-f:.%]+\]:[0-9]{1,5})$",
    good: &["127.0.0.1:8443", "[::]:8443", "unix:run/http.sock"],
    bad: &["localhost:8080", "8080", "127.0.0.1", ":8080", "unix:", ""],
};

pub(super) static LOOPBACK: Form = Form {
    called: "loopback address and port, or `unix:` and a path",
    pattern: r"^(unix:.+|127\.[0-9.]+:[0-9]{1,5}|\[[0:.]*1(%[0-9]+)?\]:[0-9]{1,5})$",
    good: &["127.0.0.1:9902", "[::1]:9902", "unix:run/admin.sock"],
    bad: &[
        "0.0.0.0:9901",
        "192.0.2.1:9901",
        "[::]:9901",
        "localhost:9901",
    ],
};

pub(super) static JWKS: Form = Form {
    called: "path",
    pattern: r"^/[A-Za-z0-9/._~-]+$",
    good: &["/keys.json"],
    bad: &["keys.json", "/", "/keys?x", ""],
};

pub(super) static ISSUER: Form = Form {
    called: "text, 1 to 200 visible ASCII characters",
    pattern: r"^[!#-\[\]-~]{1,200}$",
    good: &["https://shop.example", "shop"],
    bad: &["", "a b", "a\"b", "a\\b", "caf\u{e9}"],
};

pub(super) static NETWORK: Form = Form {
    called: "address or network",
    pattern: r"^(unix|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$",
    good: &["10.0.0.0/8", "192.0.2.1", "fd00::/8", "unix"],
    bad: &["all", "10.0.0.0/", "10.0.0.0-10.0.0.9", ""],
};

pub(super) static PROXY_FIELD: Form = Form {
    called: "name of a field that only proxies may set",
    pattern: r"^[A-Za-z0-9-]+$",
    good: &["X-Forwarded-Host", "x-real-ip", "CF-Connecting-IP"],
    bad: &["", "X_Real_IP", "X-Real-IP:", "X Real IP"],
};

pub(super) static ORIGIN: Form = Form {
    called: "origin, `https://host[:port]`",
    pattern: r"^[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9._:\[\]-]+$",
    good: &[
        "https://app.example",
        "http://localhost:3000",
        "https://[::1]:8443",
    ],
    bad: &[
        "app.example",
        "ftp://app.example",
        "https://app.example/",
        "https://",
    ],
};

pub(in crate::config) static NAME: Form = Form {
    called: "name",
    pattern: r"^[A-Za-z0-9._-]{1,64}$",
    good: &["orders"],
    bad: &["", "a b", "a/b", "caf\u{e9}"],
};

pub(super) static ERROR_PAGE: Form = Form {
    called: "code, status or class",
    pattern: r"^([45]xx|[45][0-9]{2}|[a-z]+(-[a-z]+)*)$",
    good: &["session-gone", "overloaded", "503", "4xx", "5xx", "default"],
    bad: &["", "200", "3xx", "5XX", "Default", "session gone"],
};

pub(super) static PUBLIC_KEY: Form = Form {
    called: "text",
    pattern: r"^[A-Za-z0-9+/_-]{43}=?$",
    good: &[
        "Ln67-A8TOKZ6-NmsY9jbFGICMYS6KO1iuzRzNtnrVLw",
        "TpVZxbt82NJAo5P_s9P-5a1JJHEqolqwGnD9WtcR7LY",
    ],
    bad: &["", "Ln67", "-----BEGIN PUBLIC KEY-----"],
};

pub(super) static FILE: Form = Form {
    called: "path",
    pattern: "",
    good: &[],
    bad: &[],
};

pub(super) static ENVIRONMENT: Form = Form {
    called: "name of a variable",
    pattern: r"^[A-Za-z0-9_]+$",
    good: &["OTHER_KEY"],
    bad: &["", "$OTHER_KEY", "OTHER-KEY"],
};

pub(super) static DATABASE: Form = Form {
    called: "text without a password",
    pattern: r"^(postgres|postgresql|mysql|mariadb|sqlite):.+",
    good: &[
        "sqlite:db.sqlite3",
        "postgres://shop@db.example/shop",
        "postgresql:///shop?host=/run/postgresql",
        "mysql://shop@db.example/shop",
        "mariadb://shop@db.example/shop",
    ],
    bad: &["db.sqlite3", "oracle://db.example/shop", "sqlite:", ""],
};

pub(super) static RELEASE: Form = Form {
    called: "text, `\"1.11\"` to `\"6.2\"`",
    pattern: r"^(1\.11|[2-6]\.[0-2])$",
    good: &["1.11", "2.0", "4.2", "6.2"],
    bad: &["1.10", "2.3", "7.0", "4.2.1", "4", "four", ""],
};

pub(super) static TABLE: Form = Form {
    called: "name, or `schema.name`",
    pattern: r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$",
    good: &["people", "shop.People_2"],
    bad: &["", "2people", "a.b.c", "a b", "\"people\"", ".people"],
};

pub(super) static COLUMN: Form = Form {
    called: "column name",
    pattern: r"^[A-Za-z_][A-Za-z0-9_]{0,62}$",
    good: &["username", "Email_2"],
    bad: &["", "2nd", "a.b", "a b", "\"name\""],
};

pub(super) static PLAIN: Form = Form {
    called: "text",
    pattern: r"^[^\u0000-\u001f\u007f-\u009f]+$",
    good: &["editors", "acl_*", "caf\u{e9} au lait"],
    bad: &["", "a\nb", "a\u{7f}b"],
};

pub(super) static TIME_ZONE: Form = Form {
    called: "name of the IANA database, such as `\"Europe/Berlin\"`",
    pattern: r"^[A-Za-z0-9_+/-]+$",
    good: &[
        "Europe/Berlin",
        "UTC",
        "Etc/GMT+2",
        "America/Port-au-Prince",
    ],
    bad: &["", "Europe Berlin", "Europe/Berlin "],
};

pub(super) static PYTHON_PATH: Form = Form {
    called: "Python path",
    pattern: r"^[^0-9.\s-][^.\s-]*(\.[^0-9.\s-][^.\s-]*)*$",
    good: &["shop.auth.Backend", "Backend"],
    bad: &[
        "",
        "shop..Backend",
        "shop.2.Backend",
        ".Backend",
        "my-shop.Backend",
    ],
};

pub(super) static CONDITION: Form = Form {
    called: "SQL condition",
    pattern: r"^[^;#?$\\\u0000]+$",
    good: &["is_active AND NOT is_locked", "role::text = 'staff'"],
    bad: &[
        "",
        "is_active; DROP TABLE x",
        "is_active = $1",
        "is_active # no",
    ],
};

pub(super) static COOKIE_NAME: Form = Form {
    called: "cookie name",
    pattern: r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$",
    good: &["sid", "__Host-sid"],
    bad: &["", "my cookie", "sid;", "sid=1"],
};

pub(super) static COOKIE_DOMAIN: Form = Form {
    called: "host name, also with a dot before it",
    pattern: r"^\.?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$",
    good: &["shop.example", ".shop.example"],
    bad: &["", "shop.example:443", "https://shop.example", "[::1]"],
};

pub(super) static COOKIE_PATH: Form = Form {
    called: "path",
    pattern: r"^/[!#-+\x2d-:<-\[\]-~]*$",
    good: &["/", "/shop/"],
    bad: &["", "shop", "/a b", "/a;b", "/a,b"],
};

pub(super) static SERVER: Form = Form {
    called: "`host:port`, or `unix:PATH`",
    pattern: r"^(unix:.*[^:/]|[A-Za-z0-9._:\[\]-]+:[0-9]{1,5})$",
    good: &["orders:3001", "[::1]:3001", "unix:run/app.sock"],
    bad: &["orders", "http://orders:3001/", "orders:", "unix:run/", ""],
};

pub(super) static TLS_NAME: Form = Form {
    called: "name",
    pattern: r"^[A-Za-z0-9._:-]+$",
    good: &["orders.example", "192.0.2.1"],
    bad: &["", "orders example", "https://orders.example/"],
};

pub(super) static HEALTH_PATH: Form = Form {
    called: "path",
    pattern: r"^/[!-\x22$-~]*$",
    good: &["/up", "/up?x=1", "/"],
    bad: &["up", "", "/a b", "/a#b", "https://shop.example/"],
};

pub(super) static AUTHORITY: Form = Form {
    called: "host",
    pattern: r"^[!-.0->A-~]+$",
    good: &["shop.example", "shop.example:8000", "[::1]"],
    bad: &["", "shop example", "a@shop.example", "shop.example/"],
};

pub(super) static STATUS: Form = Form {
    called: "`\"200\"`, `\"200-399\"`",
    pattern: r"^\s*\+?0*[1-5][0-9]{2}\s*(-\s*\+?0*[1-5][0-9]{2}\s*)?$",
    good: &["200", "200-399", "100-599"],
    bad: &["", "600", "99", "200,204", "200-", "ok"],
};

pub(super) static HOST: Form = Form {
    called: "host name",
    pattern: r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)\.?$",
    good: &["shop.example", "Shop.Example.", "192.0.2.1", "[::1]"],
    bad: &[
        "",
        "*.shop.example",
        "shop.example:443",
        "https://shop.example",
        "caf\u{e9}.example",
    ],
};

pub(super) static PREFIX: Form = Form {
    called: "path",
    pattern: r"^/[!-~]*$",
    good: &["/", "/orders/"],
    bad: &["", "orders", "https://shop.example/", "/caf\u{e9}"],
};

pub(super) static REDIRECT: Form = Form {
    called: "URL",
    pattern: r"^[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9._:\[\]-]+(/[^?#\s]*)?$",
    good: &["https://shop.example", "https://shop.example/new/"],
    bad: &[
        "",
        "shop.example",
        "/new/",
        "https://shop.example/?x",
        "https://shop.example/#x",
    ],
};

pub(super) static LOGIN_URL: Form = Form {
    called: "path, or https URL",
    pattern: r"^(/|https://)[^?#\s]*$",
    good: &["/login/", "https://shop.example/login/"],
    bad: &[
        "",
        "login/",
        "http://shop.example/login/",
        "/login/?x",
        "/login/#x",
    ],
};

pub(super) static SESSION_NAME: Form = Form {
    called: "name",
    pattern: r"^[^*\u0000]+$",
    good: &["cart", "the cart"],
    bad: &["", "cart*", "a\0b"],
};

pub(super) static PROTOCOL: Form = Form {
    called: "protocol",
    pattern: r"^[A-Za-z0-9!#$%&'*+.^_`|~/-]+$",
    good: &["websocket", "spdy/3.1"],
    bad: &["", "web socket", "a,b"],
};

pub(super) static PLAIN_HEADER: Form = Form {
    called: "header name",
    pattern: r"^[A-Za-z0-9-]{1,64}$",
    good: &["X-WEBAUTH-USER", "Remote-User"],
    bad: &["", "X_USER", "X User"],
};

pub(super) static SOURCE: Form = Form {
    called: "source",
    pattern: r"^(sub|sid|user\.[A-Za-z_][A-Za-z0-9_]{0,62}|session\.[\s\S]+)$",
    good: &["user.username", "sub", "sid", "session.cart"],
    bad: &["", "username", "user.", "user.a b", "session."],
};

pub(super) static FIELD: Form = Form {
    called: "name of a header field",
    pattern: r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
    good: &["Strict-Transport-Security", "X-Version"],
    bad: &["", "X Version", "X-Version:"],
};

pub(super) static FIELD_VALUE: Form = Form {
    called: "text",
    pattern: r"^([!-~]([\t -~]*[!-~])?)?$",
    good: &["max-age=31536000", "a b", ""],
    bad: &[" a", "a ", "a\nb", "caf\u{e9}"],
};
