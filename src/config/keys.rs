//! Every key that the configuration file may have: where, what its value may be, what holds without it, and why.
//!
//! The readers take ranges, words and defaults from here, and so do `docs/configuration.md` and the schema for editors.
//! A key that is not here is an error.

mod django;
mod forms;
mod gateway;
mod kind;
mod route;
mod top;
mod upstream;

use std::time::Duration;

pub(super) use self::{
    django::{COOKIE, DJANGO, USER},
    forms::{Form, NAME},
    gateway::{GATEWAY, LIMITS, OWN_TIMEOUTS, PUBLISHED, SIGNING, TIMEOUTS},
    kind::{Kind, List, Map},
    route::{OWN_LIMITS, RATE, ROUTE},
    top::{ADMIN, CERTIFICATE, HEALTH, LISTENER, LOG, TOP},
    upstream::{KEY, UPSTREAM, UPSTREAM_HEALTH, UPSTREAM_TLS},
};
use super::report::nearest;

const NONE: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);
const HUNDRED_MS: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// More than a day is a slip of the unit.
const DAY: Duration = Duration::from_secs(86_400);

/// A table of the file and the keys that it may have.
#[derive(Debug)]
pub(super) struct Section {
    /// As it is written in the file: `[django]`; empty for the top.
    pub(super) name: &'static str,
    /// What it is, in Markdown.
    pub(super) about: &'static str,
    /// Its keys, and its tables.
    pub(super) keys: &'static [Key],
    /// Of these it has exactly one.
    pub(super) either: &'static [&'static str],
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    /// As it is written in the file.
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// What holds without it.
    pub(super) otherwise: Otherwise,
    /// What it does, and why, in Markdown. Empty for a table that has a heading of its own.
    pub(super) about: &'static str,
}

/// What holds without a key.
#[derive(Debug)]
pub(super) enum Otherwise {
    /// It must be there. What stands behind `key = ` in the message, as an example.
    Required(&'static str),
    /// It must be there unless this other key is; an example.
    Unless(&'static str, &'static str),
    /// This value, as it would be written in the file. It is read like one.
    Is(&'static str),
    /// What no value of its own says, in Markdown.
    Words(&'static str),
    /// Nothing of the kind.
    None,
}

impl Key {
    /// The key where it stands over the one of an outer table.
    const fn over(self, outer: &'static str) -> Self {
        Self {
            otherwise: Otherwise::Words(outer),
            ..self
        }
    }
}

/// `{ env = "NAME" }` or `{ file = "path" }`.
pub(super) static SECRET: Section = Section {
    name: "a secret",
    about: "A secret stands in an environment variable or in a file, never in this one.",
    keys: &[
        Key {
            name: "env",
            kind: Kind::Text(&forms::ENVIRONMENT),
            otherwise: Otherwise::Unless("file", "\"NAME\""),
            about: "the environment variable that holds it, as it was when the gateway started",
        },
        Key {
            name: "file",
            kind: Kind::Text(&forms::FILE),
            otherwise: Otherwise::Unless("env", "\"path\""),
            about: "the file that holds it; a relative path starts at the folder of the configuration",
        },
    ],
    either: &["env", "file"],
};

/// Where nothing may stand.
static NO_KEYS: Section = Section {
    name: "",
    about: "",
    keys: &[],
    either: &[],
};

/// The sections that the file is made of; what a misplaced key is looked up in.
pub(super) static ALL: [&Section; 20] = [
    &TOP,
    &LISTENER,
    &HEALTH,
    &ADMIN,
    &GATEWAY,
    &LIMITS,
    &TIMEOUTS,
    &LOG,
    &DJANGO,
    &USER,
    &COOKIE,
    &UPSTREAM,
    &ROUTE,
    &KEY,
    &SIGNING,
    &PUBLISHED,
    &RATE,
    &UPSTREAM_TLS,
    &UPSTREAM_HEALTH,
    &CERTIFICATE,
];

/// Every section, also those of tables within others that share their keys.
pub(super) fn every() -> impl Iterator<Item = &'static Section> {
    ALL.into_iter().chain([&OWN_TIMEOUTS, &OWN_LIMITS, &SECRET])
}

impl Section {
    /// A key by its name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// What an unknown key of this section was probably meant to be.
    pub(super) fn suggest(&self, unknown: &str) -> Option<String> {
        let home = ALL.iter().find(|section| section.key(unknown).is_some());
        match home {
            Some(section) if section.name.is_empty() => {
                Some("it belongs at the top of the file".to_owned())
            }
            Some(section) => Some(format!("it belongs in {}", section.name)),
            None => nearest(unknown, self.names()),
        }
    }
}
