//! The database, its server and its tables.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;

use super::{Finding, rows};
use crate::{
    command::session::moment,
    config::{Config, Django, Verify},
    session::SessionKey,
    sessions::Sessions,
    store::{
        Fault, Freshness, Options,
        examine::{self, Clock, Examination, Index, ReadOnly, Traces},
        shape::Shape,
    },
};

/// More than this and the gateway, Django and the database do not agree on when a session ends.
const SKEW: TimeDelta = TimeDelta::seconds(2);

/// More than this and services refuse tokens: it is the leeway that they are told to allow.
const LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// What a pooler in transaction mode does.
const SHARED: &str = "a connection pooler gives one connection's statements to different ones of the server's \
                      (transaction mode)";

/// How long the database is waited for, to see how fast it is.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// Asks the database everything there is to ask.
pub(super) async fn examine(config: &Config, findings: &mut Vec<Finding>) {
    let django = &config.django;
    let Some(Asked {
        examination,
        as_configured,
    }) = ask(config, findings).await
    else {
        return;
    };
    let server = &examination.server;
    findings.push(Finding::ok("database", server.product.clone()));
    findings.extend(server.read_only.map(|why| role(django, why)));
    findings.extend(server.clock.map(clock));
    tables(django, &examination, findings);
    let Ok(sampled) = &examination.rows else {
        return;
    };
    if examination.sessions.is_err() {
        return;
    }
    if sampled.is_empty() {
        return findings.push(no_live_row(django, examination.traces));
    }
    let is_believed = server.read_only.is_none() || django.accept_replica;
    let sessions = match as_configured && is_believed && examination.tables.is_ok() {
        true => open(config).await,
        false => None,
    };
    if let Some(sessions) = &sessions {
        findings.push(lookup(django, sessions).await);
    }
    rows::judge(config, sampled, sessions.as_ref(), findings).await;
}

struct Asked {
    examination: Examination,
    /// Whether the gateway would ask in the same way.
    as_configured: bool,
}

/// Asks as the gateway would. Where a pooler that it was not told of is in its way, asks by the pooler's rules what
/// else is to be known.
async fn ask(config: &Config, findings: &mut Vec<Finding>) -> Option<Asked> {
    let Django {
        database, pooled, ..
    } = &config.django;
    let routes = &config.routes;
    let writing = config.writes && routes.iter().any(|route| !route.grants.is_empty());
    let options = Options::new(config, Arc::default());
    match examine::examine(database, &options, writing).await {
        Ok(examination) if examination.server.is_shared && !pooled => {
            findings.push(Finding::fail(
                "pooler",
                format!("{SHARED}, so that answers can be those of other clients"),
                "Write pooler = \"transaction\" in [django], or connect to PostgreSQL directly.",
            ));
        }
        Ok(examination) => {
            if examination.server.is_shared {
                let found = format!("{SHARED}; pooler = \"transaction\" is right");
                findings.push(Finding::ok("pooler", found));
            }
            return Some(Asked {
                examination,
                as_configured: true,
            });
        }
        Err(fault) if examine::tells_of_pooler(&fault) && !pooled => {
            findings.push(Finding::fail("pooler", fault.to_string(), ""));
        }
        Err(fault) => {
            let todo = "Start the database, or correct [django] database. Nothing of it could be looked at.";
            findings.push(Finding::fail("database", fault.to_string(), todo));
            return None;
        }
    }
    let options = Options {
        pooled: true,
        ..options
    };
    let asked = examine::examine(database, &options, writing).await;
    asked.ok().map(|examination| Asked {
        examination,
        as_configured: false,
    })
}

fn role(django: &Django, read_only: ReadOnly) -> Finding {
    let what = match read_only {
        ReadOnly::Standby => "this is a standby, whose answers may be old".to_owned(),
        ReadOnly::Setting(name) => {
            format!("the server, the database or the role is read-only ({name} is on)")
        }
    };
    if django.accept_replica {
        return Finding::ok("role", format!("{what}; replica = \"accepted\" takes it"));
    }
    Finding::fail(
        "role",
        format!("{what}, so that its answers are thrown away"),
        "Name the primary in [django] database. If the server is the primary, switch that setting off for the \
         gateway's role; if old answers will do, write replica = \"accepted\".",
    )
}

fn clock(clock: Clock) -> Finding {
    let Clock { ahead, margin } = clock;
    // What the time on the way may explain is no skew.
    let skew = ahead.abs() - margin;
    let direction = if ahead < TimeDelta::zero() {
        "behind"
    } else {
        "ahead of"
    };
    let milliseconds = ahead.abs().num_milliseconds();
    let found = format!(
        "the database's clock is {}.{:03} s {direction} this machine's",
        milliseconds / 1000,
        milliseconds % 1000
    );
    let todo = "Let NTP set both clocks: sessions end by this machine's.";
    if skew > LEEWAY {
        let todo = format!("{todo} If this one is wrong, services refuse its tokens.");
        return Finding::fail("clock", found, todo);
    }
    if skew > SKEW {
        return Finding::warn("clock", found, todo);
    }
    Finding::ok("clock", found)
}

fn tables(django: &Django, examination: &Examination, findings: &mut Vec<Finding>) {
    let sessions = match &examination.sessions {
        Ok(sessions) => sessions,
        Err(fault) => {
            let todo = "Run `manage.py migrate`, or correct [django] table and database.";
            return findings.push(Finding::fail("session-table", fault.to_string(), todo));
        }
    };
    findings.push(session_table(django, sessions));
    match &examination.indexes {
        Ok(indexes) => findings.extend(missing_indexes(&django.table, indexes)),
        Err(fault) => findings.push(unknown("session-table", fault)),
    }
    match &examination.writing {
        None | Some(Ok(())) => {}
        Some(Err(fault)) => findings.push(Finding::fail(
            "session-table",
            format!("changes cannot be stored: {fault}"),
            "Grant it, or say writes = \"off\".",
        )),
    }
    findings.push(match (&examination.tables, django.verify) {
        (Err(fault), _) => Finding::fail(
            "user-table",
            fault.to_string(),
            "Compare [django.user] with the table of AUTH_USER_MODEL.",
        ),
        (Ok(_), Verify::Off) => Finding::ok("user-table", "not read, as verify is \"off\""),
        (Ok(shape), _) => user_table(django, shape),
    });
    if let Err(fault) = &examination.rows {
        findings.push(unknown("rows", fault));
    }
}

fn session_table(django: &Django, shape: &Shape) -> Finding {
    match &shape.no_insert {
        Some(why) => Finding::warn("session-table", why.clone(), ""),
        None => Finding::ok(
            "session-table",
            format!("{} has the columns that it needs", django.table),
        ),
    }
}

fn user_table(django: &Django, shape: &Shape) -> Finding {
    let table = &django.user.table;
    let Some(users) = &shape.users else {
        return Finding::ok("user-table", "not read");
    };
    let rule = match (&django.user.condition, users.has_is_active) {
        (Some(condition), _) => format!("active where {condition}"),
        (None, true) => "active where is_active".to_owned(),
        (None, false) => "all active, as there is no is_active".to_owned(),
    };
    let found = format!(
        "{table} has the columns that it needs; keys are {}; users are {rule}",
        users.key_type
    );
    Finding::ok("user-table", found)
}

fn missing_indexes(table: &str, indexes: &[Index]) -> Vec<Finding> {
    let has_key = indexes
        .iter()
        .any(|index| index.column == "session_key" && index.unique);
    let has_date = indexes.iter().any(|index| index.column == "expire_date");
    let mut findings = Vec::new();
    if !has_key {
        findings.push(Finding::fail(
            "session-index",
            format!(
                "{table} has no primary key or unique index on session_key: each request reads the whole table"
            ),
            format!("ALTER TABLE {table} ADD PRIMARY KEY (session_key); on SQLite: CREATE UNIQUE INDEX."),
        ));
    }
    if !has_date {
        findings.push(Finding::warn(
            "session-index",
            format!(
                "{table} has no index on expire_date: `manage.py clearsessions` reads the whole table"
            ),
            format!("CREATE INDEX ON {table} (expire_date), as Django's migration does."),
        ));
    }
    if findings.is_empty() {
        let found = format!("{table} has indexes on session_key and expire_date");
        findings.push(Finding::ok("session-index", found));
    }
    findings
}

fn no_live_row(django: &Django, traces: Option<Traces>) -> Finding {
    let table = &django.table;
    let (last_end, last_login) =
        traces.map_or((None, None), |traces| (traces.last_end, traces.last_login));
    let mut found = match last_end {
        Some(end) => format!(
            "no session in {table} is live; the last one ended at {}",
            moment(end)
        ),
        None => format!("{table} is empty"),
    };
    if let Some(login) = last_login.filter(|login| last_end.is_none_or(|end| end < *login)) {
        found.push_str(&format!(
            ", though somebody has logged in at {}",
            moment(login)
        ));
    }
    Finding::warn(
        "session-engine",
        found,
        "Right for a new site. Otherwise SESSION_ENGINE is not \"django.contrib.sessions.backends.db\" (cache, \
         file and signed_cookies keep nothing in this table), or Django uses another database.",
    )
}

/// A question that got no answer.
fn unknown(check: &'static str, fault: &Fault) -> Finding {
    Finding::fail(
        check,
        format!("this could not be looked at: {fault}"),
        "Mend that first.",
    )
}

/// The sessions as the gateway would read them, where it could read any.
async fn open(config: &Config) -> Option<Sessions> {
    let sessions = Sessions::open(config, Arc::default()).ok()?;
    let contact = sessions.store().first_contact(FIRST_CONTACT).await;
    (contact.is_ok() && sessions.store().state().was_contacted()).then_some(sessions)
}

/// Asks for a session that is not there, as a request would.
async fn lookup(django: &Django, sessions: &Sessions) -> Finding {
    let Ok(key) = SessionKey::random() else {
        return Finding::fail("lookup", "the system has no random numbers", "");
    };
    let store = sessions.store();
    let began = Instant::now();
    let answer = store.session(key, Freshness::Exact, store.deadline()).await;
    let took = began.elapsed();
    let deadline = django.deadline;
    if let Err(error) = answer {
        let cause = store.state().cause().unwrap_or_else(|| error.to_string());
        return Finding::fail("lookup", cause, "");
    }
    let found = format!(
        "a session is looked up in {} ms; [django] deadline is {} ms",
        took.as_millis(),
        deadline.as_millis()
    );
    if took > deadline / 2 {
        let todo = "Look for what slows the database down, or raise the deadline.";
        return Finding::warn("lookup", found, todo);
    }
    Finding::ok("lookup", found)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn level(ahead: i64, margin: i64) -> Level {
        let [ahead, margin] = [ahead, margin].map(TimeDelta::milliseconds);
        clock(Clock { ahead, margin }).level
    }

    #[test]
    fn a_clock_is_wrong_by_what_the_way_does_not_explain() {
        assert_eq!(level(2000, 1), Level::Ok);
        assert_eq!(level(-2000, 0), Level::Ok);
        assert_eq!(level(2001, 0), Level::Warn);
        assert_eq!(level(-2001, 0), Level::Warn);
        assert_eq!(level(3000, 1000), Level::Ok);
        assert_eq!(level(30_001, 0), Level::Fail);
        assert_eq!(level(-3_600_000, 10), Level::Fail);
        let behind = clock(Clock {
            ahead: TimeDelta::milliseconds(-5250),
            margin: TimeDelta::zero(),
        });
        assert!(behind.found.contains("5.250 s behind"), "{behind:?}");
    }

    #[test]
    fn each_index_is_missed_by_itself() {
        let index = |column: &str, unique| Index {
            column: column.into(),
            unique,
        };
        let (key, date) = (index("session_key", true), index("expire_date", false));
        let levels = |indexes: &[Index]| {
            let findings = missing_indexes("t", indexes);
            findings
                .into_iter()
                .map(|finding| finding.level)
                .collect::<Vec<_>>()
        };
        assert_eq!(levels(&[key.clone(), date.clone()]), [Level::Ok]);
        assert_eq!(levels(std::slice::from_ref(&key)), [Level::Warn]);
        assert_eq!(levels(std::slice::from_ref(&date)), [Level::Fail]);
        let not_unique = index("session_key", false);
        assert_eq!(levels(&[not_unique, date]), [Level::Fail]);
        assert_eq!(levels(&[]), [Level::Fail, Level::Warn]);
    }
}
