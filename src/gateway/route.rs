//! Host and path to route: the most specific one, whatever the order in the file.

use std::collections::HashMap;

use crate::{config, path::Canonical};

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
