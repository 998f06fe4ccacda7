//! Host and path to route: the most specific one, whatever the order in the file.

use std::collections::HashMap;

use crate::{config, path::Canonical};

/// What a route has to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Serves,
    /// It is for another host.
    OtherHost,
    /// Its path is not a prefix of the request's.
    OtherPath,
    /// It matches, but another one names the host or more of the path.
    LessSpecific,
}

/// All routes, longest prefix first.
#[derive(Debug)]
pub struct Table {
    by_host: HashMap<String, Vec<usize>>,
    any_host: Vec<usize>,
}

impl Table {
    /// Sorts the routes of the configuration.
    pub fn new(routes: &[config::Route]) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(routes[*place].prefix.specificity()));
        let mut table = Self {
            by_host: HashMap::new(),
            any_host: Vec::new(),
        };
        for place in order {
            match &routes[place].host {
                Some(host) => table.by_host.entry(host.clone()).or_default().push(place),
                None => table.any_host.push(place),
            }
        }
        table
    }

    /// What each route, in the order of the file, has to do with a host and a path.
    pub fn verdicts(&self, routes: &[config::Route], host: &str, path: &Canonical) -> Vec<Verdict> {
        let chosen = self.find(routes, host, path);
        let verdict = |(place, route): (usize, &config::Route)| {
            let is_for_host = route.host.as_ref().is_none_or(|own| own == host);
            match (is_for_host, route.prefix.matches(path)) {
                _ if chosen == Some(place) => Verdict::Serves,
                (false, _) => Verdict::OtherHost,
                (true, false) => Verdict::OtherPath,
                (true, true) => Verdict::LessSpecific,
            }
        };
        routes.iter().enumerate().map(verdict).collect()
    }

    /// The index of the route for a host (lower-case, without port and final dot) and a path. A route that
    /// names the host goes before one for any host.
    pub fn find(&self, routes: &[config::Route], host: &str, path: &Canonical) -> Option<usize> {
        let of_host = self.by_host.get(host).into_iter().flatten();
        of_host
            .chain(&self.any_host)
            .copied()
            .find(|place| routes[*place].prefix.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, LoadOptions};

    /// Routes as `HOST/PATH`, in the order of the file.
    fn routes(of: &[(&str, &str)]) -> Vec<config::Route> {
        let mut text = String::from(
            "gateway = { issuer = 'i' }\n\
             django = { database = 'sqlite:db', secret_key = { env = 'KEY' } }\n\
             upstream.a = { servers = ['127.0.0.1:1'] }\n",
        );
        for (host, path) in of {
            let host = if host.is_empty() {
                String::new()
            } else {
                format!("host = '{host}'\n")
            };
            text.push_str(&format!(
                "[[route]]\n{host}path = '{path}'\nupstream = 'a'\nsession = 'off'\n"
            ));
        }
        let env = |_: &str| Some("secret".into());
        let loaded = Config::parse(
            &text,
            Path::new("gateway.toml"),
            &env,
            LoadOptions::default(),
        );
        loaded.unwrap().config.routes
    }

    #[test]
    fn each_route_says_why_it_serves_or_not() {
        use Verdict::{LessSpecific, OtherHost, OtherPath, Serves};
        let routes = routes(&[
            ("", "/"),
            ("", "/a/b/"),
            ("shop.test", "/"),
            ("shop.test", "/a/"),
            ("admin.test", "/a/"),
        ]);
        let table = Table::new(&routes);
        for (host, path, expected) in [
            (
                "shop.test",
                "/a/b/c",
                // A route that names the host goes before one that names more of the path.
                [LessSpecific, LessSpecific, LessSpecific, Serves, OtherHost],
            ),
            (
                "shop.test",
                "/x",
                [LessSpecific, OtherPath, Serves, OtherPath, OtherHost],
            ),
            (
                "other.test",
                "/a/b",
                [LessSpecific, Serves, OtherHost, OtherHost, OtherHost],
            ),
            (
                "admin.test",
                "/ab",
                [Serves, OtherPath, OtherHost, OtherHost, OtherPath],
            ),
        ] {
            let path = Canonical::parse(path).unwrap();
            assert_eq!(table.verdicts(&routes, host, &path), expected, "{path:?}");
            let serves = expected.iter().position(|verdict| *verdict == Serves);
            assert_eq!(table.find(&routes, host, &path), serves);
        }
    }
}
