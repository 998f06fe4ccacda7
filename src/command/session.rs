//! `session show`: one row, decoded.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Subcommand;

use super::{
    failure, load,
    run::block_on,
    text::{KeySource, Lines, count, kind, one_line, print, quoted},
};
use crate::{
    config::Config,
    django::{Format, Seal, Standing},
    session::{self, SessionKey},
    sessions::{LoginState, Look, Sessions},
};

/// `session ...`
#[derive(Debug, Subcommand)]
pub(super) enum Session {
    /// Show one session: when it ends, who has signed it, who is logged in, the names of its members.
    ///
    /// Their values are left out unless --reveal is given. One that is not there, has expired or cannot be
    /// verified is one sentence and exit code 1.
    ///
    /// A key is as good as a password. To keep it out of the shell's history, and of the list of processes, write
    /// `-` and give it on standard input, or `env:NAME` and put it into the environment.
    ///
    /// Example: session-gateway session show - --config gateway.toml < key
    Show {
        /// The session key (the cookie's value); `-` reads it from standard input, env:NAME from the environment.
        #[arg(value_name = "KEY", allow_hyphen_values = true)]
        key: KeySource,
        /// The configuration file.
        #[arg(long, default_value = "gateway.toml", value_name = "FILE")]
        config: PathBuf,
        /// Print the values of the session's members too.
        #[arg(long)]
        reveal: bool,
    },
}

impl Session {
    /// Carries it out.
    pub(super) fn run(self) -> ExitCode {
        let Self::Show {
            key,
            config,
            reveal,
        } = self;
        let loaded = match load(&config) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let shown = key
            .read()
            .and_then(|key| block_on(show(&loaded.config, &key, reveal)));
        match shown {
            Ok(text) => print(&text, ExitCode::SUCCESS),
            Err(sentence) => failure(&sentence, 1),
        }
    }
}

async fn show(config: &Config, key: &str, reveal: bool) -> Result<String, String> {
    let Some(key) = SessionKey::parse(key.as_bytes()) else {
        return Err(
            "this is no session key: one has 32 characters of a-z and 0-9, and is the cookie's value"
                .to_owned(),
        );
    };
    let sessions = Sessions::open(config, Arc::default()).map_err(|error| error.to_string())?;
    let table = &config.django.table;
    let look = sessions
        .look_into(key)
        .await
        .map_err(|fault| format!("the session database cannot be used: {fault}"))?;
    let Some(look) = look else {
        return Err(format!("there is no such session in {table}"));
    };
    let now = Utc::now();
    if look.expire_date <= now {
        let ended = moment(look.expire_date);
        return Err(format!("the session has expired: it ended at {ended}"));
    }
    match &look.session {
        Ok(session) => {
            let login = sessions.login_state(session).await;
            let login = login.map_err(|error| error.to_string())?;
            Ok(describe(&look, session, login.as_ref(), now, reveal))
        }
        Err(unreadable) => Err(format!("the session cannot be read: {unreadable}")),
    }
}

fn describe(
    look: &Look,
    session: &session::Session,
    login: Option<&LoginState>,
    now: DateTime<Utc>,
    reveal: bool,
) -> String {
    let mut lines = Lines::default();
    let left = rough(look.expire_date - now);
    let end = moment(look.expire_date);
    lines.add("ends", format_args!("{end}, in {left}"));
    if let Some(seal) = look.seal {
        lines.add("format", describe_seal(seal));
    }
    lines.add(
        "size",
        format_args!(
            "{} in the column, {} of JSON, {}",
            count(look.stored.unwrap_or_default(), "byte"),
            count(session.json_len(), "byte"),
            count(session.len(), "member")
        ),
    );
    lines.add("login", login.map_or_else(|| "none".into(), describe_login));
    let width = session.members().map(|member| member.raw_name.len());
    let width = width.max().unwrap_or_default();
    for (place, member) in session.members().enumerate() {
        let label = if place == 0 { "members" } else { "" };
        let (name, value) = (one_line(member.raw_name), member.raw_value);
        let what = format!("{:<8} {}", kind(value), count(value.len(), "byte"));
        match reveal {
            true => lines.add(label, format_args!("{name:<width$} {}", one_line(value))),
            false => lines.add(label, format_args!("{name:<width$} {what}")),
        }
    }
    lines.text().to_owned()
}

fn describe_seal(seal: Seal) -> String {
    let format = match seal.format {
        Format::Modern => "modern (since Django 3.1)",
        Format::ModernSha1 => "modern (since Django 3.1), with SHA-1",
        Format::Legacy => "legacy (before Django 3.1)",
    };
    format!("{format}, signed with {}", key_name(seal.key))
}

/// The place of a key in the configuration.
pub(super) fn key_name(key: usize) -> String {
    match key.checked_sub(1) {
        None => "secret_key".to_owned(),
        Some(place) => format!("secret_key_fallbacks[{place}]"),
    }
}

/// What became of a login, in one line.
pub(super) fn describe_login(login: &LoginState) -> String {
    let who = format!(
        "user {} by {}",
        quoted(&login.user_id),
        quoted(&login.backend)
    );
    let why = match (&login.standing, &login.user) {
        _ if !login.is_by_own_backend => "that backend is not in [django] backends",
        (Standing::LoggedIn, None) => "not checked, as verify is \"off\"",
        (_, None) => "there is no such user",
        (_, Some(user)) => match (user.hash_fits, user.is_active) {
            (Some(true), true) => "hash ok, active",
            (Some(true), false) => "hash ok, but not active",
            (Some(false), true) => "active, but the hash is not ok: the password has changed since",
            (Some(false), false) => "the hash is not ok, and not active",
            (None, true) => "active; the hash is not checked",
            (None, false) => "not active",
        },
    };
    let verdict = match login.standing {
        Standing::LoggedIn => "logged in",
        Standing::Anonymous => "nobody",
        Standing::Flushed => "nobody, and Django will delete the session",
    };
    format!("{who}: {verdict} ({why})")
}

/// A moment as RFC 3339 spells it.
pub(super) fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn rough(left: TimeDelta) -> String {
    let (number, unit) = match left.num_seconds() {
        seconds @ ..120 => (seconds, "second"),
        seconds @ 120..7200 => (seconds / 60, "minute"),
        seconds @ 7200..172_800 => (seconds / 3600, "hour"),
        seconds => (seconds / 86_400, "day"),
    };
    count(usize::try_from(number).unwrap_or_default(), unit)
}
