//! Live rows, a sample of them: who has signed them, what is in them, and whether their logins hold.

use std::collections::BTreeMap;

use super::Finding;
use crate::{
    command::{session::key_name, text::count},
    config::{Config, Verify},
    django::{self, Codec, Format, Release, Seal, Settings, Standing, Unreadable, unverified},
    session::Session,
    sessions::{LoginState, Sessions},
    store::{RowData, examine::Sampled},
};

/// Most logins that are looked up.
const LOGINS: usize = 50;

/// What a row turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It can be read.
    Readable(Seal),
    /// Signed with a key of ours, by a rule that the configured release does not have.
    OtherRelease(OtherRelease),
    /// In the format before Django 3.1, of which no key of ours is the signer.
    ForeignLegacy,
    /// Signed with a key of ours and Django's own salt, which is not the configured one.
    OwnSaltOfDjango,
    /// Signed by nobody whom we know.
    Foreign,
    /// Signed, and a pickle.
    Pickle,
    /// Over a limit.
    TooLarge,
    /// Signed, and neither of these nor a session.
    NoSession,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OtherRelease {
    Legacy,
    Sha1,
    Fallbacks,
}

/// The site's own rules, and those of sites that it could be taken for.
struct Rules {
    own: Codec,
    /// Reads all that 3.2 reads.
    older: Codec,
    /// Reads fallback keys.
    newer: Codec,
    own_salt_of_django: Codec,
    limit: usize,
}

impl Rules {
    fn new(settings: &Settings) -> Self {
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut other = settings.clone();
            change(&mut other);
            Codec::new(&other)
        };
        let salt = Settings::new("").salt;
        Self {
            own: Codec::new(settings),
            older: with(&|other| other.release = Release(3, 2)),
            newer: with(&|other| other.release = Release(4, 2)),
            own_salt_of_django: with(&|other| other.salt.clone_from(&salt)),
            limit: settings.session_json,
        }
    }

    fn kind(&self, data: &RowData) -> Kind {
        let text = match data {
            RowData::Text(text) => text,
            RowData::TooLarge => return Kind::TooLarge,
            RowData::Malformed => return Kind::NoSession,
        };
        match (self.own.decode(text), self.own.seal(text)) {
            (Ok(_), Some(seal)) => Kind::Readable(seal),
            (Err(Unreadable::Pickle), _) => Kind::Pickle,
            (Err(Unreadable::TooLarge), _) => Kind::TooLarge,
            (_, Some(_)) => Kind::NoSession,
            (_, None) => self.unsigned(text),
        }
    }

    fn unsigned(&self, text: &str) -> Kind {
        match self.older.seal(text).map(|seal| seal.format) {
            Some(Format::Legacy) => return Kind::OtherRelease(OtherRelease::Legacy),
            Some(Format::ModernSha1) => return Kind::OtherRelease(OtherRelease::Sha1),
            Some(Format::Modern) | None => {}
        }
        if self.newer.seal(text).is_some() {
            return Kind::OtherRelease(OtherRelease::Fallbacks);
        }
        if self.own_salt_of_django.seal(text).is_some() {
            return Kind::OwnSaltOfDjango;
        }
        if !text.contains(':') && unverified(text, self.limit).is_some() {
            return Kind::ForeignLegacy;
        }
        Kind::Foreign
    }
}

/// Judges the sampled rows. Without `sessions` their logins are not looked at.
pub(super) async fn judge(
    config: &Config,
    sampled: &[Sampled],
    sessions: Option<&Sessions>,
    findings: &mut Vec<Finding>,
) {
    let settings = Settings::from(config);
    let rules = Rules::new(&settings);
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for Sampled { row, .. } in sampled {
        let kind = rules.kind(&row.data);
        *kinds.entry(kind).or_default() += 1;
        if let RowData::Text(text) = &row.data {
            match kind {
                Kind::Readable(_) => own.extend(rules.own.decode(text)),
                Kind::Foreign => foreign.extend(unverified(text, rules.limit)),
                _ => {}
            }
        }
    }
    let only_salt_differs = match sessions {
        Some(sessions) => any_hash_fits(sessions, &foreign).await,
        None => false,
    };
    readable(&kinds, sampled.len(), findings);
    for (kind, number) in &kinds {
        findings.extend(unreadable(
            *kind,
            *number,
            sampled.len(),
            only_salt_differs,
            &settings,
        ));
    }
    let odd_keys = sampled.iter().filter(|row| !row.usable_key).count();
    if odd_keys > 0 {
        findings.push(Finding::warn(
            "rows",
            format!(
                "{odd_keys} of {} have keys that are not 32 of a-z and 0-9, and are never looked up",
                count(sampled.len(), "sampled row")
            ),
            "Django makes no such keys: find out what else writes this table.",
        ));
    }
    if let Some(sessions) = sessions {
        findings.extend(logins(config, sessions, &own).await);
    }
}

/// The line on the rows that can be read.
fn readable(kinds: &BTreeMap<Kind, usize>, total: usize, findings: &mut Vec<Finding>) {
    let mut number = 0;
    let mut by_seal = Vec::new();
    for (kind, count) in kinds {
        let Kind::Readable(seal) = kind else { continue };
        number += count;
        let format = match seal.format {
            Format::Modern => "",
            Format::ModernSha1 => " by SHA-1",
            Format::Legacy => " in the format before 3.1",
        };
        by_seal.push(format!("{count} with {}{format}", key_name(seal.key)));
    }
    if number > 0 {
        let rows = count(total, "sampled row");
        let found = format!(
            "{number} of {rows} can be read; signed: {}",
            by_seal.join(", ")
        );
        findings.push(Finding::ok("rows", found));
    }
}

/// The line on rows of a kind that cannot be read: a failure where it is every second row or more.
fn unreadable(
    kind: Kind,
    number: usize,
    total: usize,
    only_salt_differs: bool,
    settings: &Settings,
) -> Option<Finding> {
    let Release(major, minor) = settings.release;
    let release = format!("{major}.{minor}");
    let is_most = number * 2 >= total;
    let (what, todo) = match kind {
        Kind::Readable(_) => return None,
        Kind::OtherRelease(OtherRelease::Legacy) => (
            format!(
                "are of the format before Django 3.1 (legacy), signed with secret_key; Django {release} does not \
                 read them"
            ),
            "If the site runs 3.2 or older, correct [django] release; otherwise Django cannot read them either, \
             and `manage.py clearsessions` removes them when they have expired."
                .to_owned(),
        ),
        Kind::OtherRelease(OtherRelease::Sha1) => (
            format!("are signed by SHA-1, which Django {release} does not read"),
            "The site runs 3.1 or 3.2 with DEFAULT_HASHING_ALGORITHM: correct [django] release.".to_owned(),
        ),
        Kind::OtherRelease(OtherRelease::Fallbacks) => (
            format!("are signed with a fallback key, which Django {release} does not read"),
            "Correct [django] release if the site runs 4.1 or later.".to_owned(),
        ),
        Kind::ForeignLegacy => (
            "are of the format before Django 3.1 (legacy), and secret_key has not signed them".to_owned(),
            "If the site runs 3.2 or older, correct [django] secret_key and release; otherwise Django cannot read \
             them either."
                .to_owned(),
        ),
        Kind::OwnSaltOfDjango => (
            "are signed with another salt, Django's own".to_owned(),
            "Remove [django] salt: the site's session store is named SessionStore.".to_owned(),
        ),
        Kind::Foreign if only_salt_differs => (
            "are signed with another salt: the logins in them fit secret_key, their signatures do not".to_owned(),
            "The site has a session store class of its own: set [django] salt to \
             \"django.contrib.sessions.NAME\" with the name of that class."
                .to_owned(),
        ),
        Kind::Foreign if is_most => (
            "are signed with none of the configured keys: secret_key is not the site's SECRET_KEY".to_owned(),
            "Take SECRET_KEY, and SECRET_KEY_FALLBACKS, from the settings of the site that writes this database."
                .to_owned(),
        ),
        Kind::Foreign => (
            "are signed with none of the configured keys".to_owned(),
            "If they are of an earlier SECRET_KEY that Django still has in SECRET_KEY_FALLBACKS, add it to \
             secret_key_fallbacks."
                .to_owned(),
        ),
        Kind::Pickle => (
            "are pickles, which are never read".to_owned(),
            "Set SESSION_SERIALIZER to django.contrib.sessions.serializers.JSONSerializer; the sessions that are \
             there end with it."
                .to_owned(),
        ),
        Kind::TooLarge => (
            "are larger than limits.session_data or, inflated, limits.session_json".to_owned(),
            "Store less in sessions, or raise the limit.".to_owned(),
        ),
        Kind::NoSession => (
            "are not sessions as Django writes them".to_owned(),
            "Find out what else writes this table, or whether SESSION_SERIALIZER is the site's own.".to_owned(),
        ),
    };
    let found = format!("{number} of {} {what}", count(total, "sampled row"));
    Some(match is_most {
        true => Finding::fail("rows", found, todo),
        false => Finding::warn("rows", found, todo),
    })
}

/// Whether a login in one of these sessions, which nobody has verified, was made with a key of ours. Then it is not
/// the key that is wrong: `_auth_user_hash` has a salt of its own.
async fn any_hash_fits(sessions: &Sessions, foreign: &[Session]) -> bool {
    for login in look_up(sessions, foreign).await {
        if login.user.is_some_and(|user| user.hash_fits == Some(true)) {
            return true;
        }
    }
    false
}

async fn look_up(sessions: &Sessions, found: &[Session]) -> Vec<LoginState> {
    let mut logins = Vec::new();
    let logged_in = found
        .iter()
        .filter(|session| django::login(session).is_some());
    for session in logged_in.take(LOGINS) {
        match sessions.login_state(session).await {
            Ok(login) => logins.extend(login),
            // The database has gone: what is known is what is told.
            Err(_) => break,
        }
    }
    logins
}

/// The line on the logins of readable sessions.
async fn logins(config: &Config, sessions: &Sessions, own: &[Session]) -> Option<Finding> {
    let logins = look_up(sessions, own).await;
    let total = logins.len();
    if total == 0 || config.django.verify == Verify::Off {
        return None;
    }
    let of = |wanted: &dyn Fn(&LoginState) -> bool| logins.iter().filter(|l| wanted(l)).count();
    let held = of(&|login| login.standing == Standing::LoggedIn);
    let foreign = of(&|login| !login.is_by_own_backend);
    let nobody = of(&|login| login.user.is_none());
    let stale = of(&|login| login.user.is_some_and(|user| user.hash_fits == Some(false)));
    let rows = count(total, "sampled login");
    let is_most = |number: usize| number * 2 >= total;
    let (found, todo) = if foreign > 0 {
        (
            format!(
                "{foreign} of {rows} are by a backend that is not in [django] backends, and count as none"
            ),
            "Take AUTHENTICATION_BACKENDS from the site's settings.",
        )
    } else if is_most(nobody) {
        (
            format!(
                "{nobody} of {rows} name no user in {}",
                config.django.user.table
            ),
            "Correct [django.user] table and key: they are those of AUTH_USER_MODEL.",
        )
    } else if is_most(stale) {
        (
            format!("{stale} of {rows} do not fit the user's password"),
            "If the user model has a get_session_auth_hash of its own, set verify = \"active-only\"; otherwise \
             correct [django.user] password.",
        )
    } else {
        let found = format!("{held} of {rows} hold");
        return Some(Finding::ok("logins", found));
    };
    Some(match held {
        0 => Finding::fail("logins", found, todo),
        _ => Finding::warn("logins", found, todo),
    })
}
