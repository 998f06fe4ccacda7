//! `[log]`: what the access log says of each request.

use super::tree::Table;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// `access`.
    pub access: Access,
    /// `fields`, in their order.
    pub fields: Vec<Field>,
}

/// `access`: how the access log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As everything else is logged (`--log`).
    AsLog,
    /// `"text"`.
    Text,
    /// `"json"`.
    Json,
    /// `"off"`.
    Off,
}

/// One of `fields`: what is told of a request. A field without a value is left out of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each of them is"
)]
pub enum Field {
    Client,
    Protocol,
    Method,
    Host,
    Path,
    Status,
    Route,
    Upstream,
    Server,
    Sid,
    User,
    RequestId,
    TraceId,
    Error,
    Received,
    Sent,
    Aborted,
    DurationUs,
    HeadUs,
    LookupUs,
    UpstreamUs,
    WriteUs,
    UserAgent,
    Referer,
}

/// All fields and their names in the file and in the log.
const FIELDS: [(&str, Field); 24] = [
    ("client", Field::Client),
    ("protocol", Field::Protocol),
    ("method", Field::Method),
    ("host", Field::Host),
    ("path", Field::Path),
    ("status", Field::Status),
    ("route", Field::Route),
    ("upstream", Field::Upstream),
    ("server", Field::Server),
    ("sid", Field::Sid),
    ("user", Field::User),
    ("request_id", Field::RequestId),
    ("trace_id", Field::TraceId),
    ("error", Field::Error),
    ("received", Field::Received),
    ("sent", Field::Sent),
    ("aborted", Field::Aborted),
    ("duration_us", Field::DurationUs),
    ("head_us", Field::HeadUs),
    ("lookup_us", Field::LookupUs),
    ("upstream_us", Field::UpstreamUs),
    ("write_us", Field::WriteUs),
    ("user_agent", Field::UserAgent),
    ("referer", Field::Referer),
];

/// What says who somebody is, or what clients write as they like, is told where it is asked for.
const ONLY_IF_ASKED_FOR: [Field; 3] = [Field::User, Field::UserAgent, Field::Referer];

impl Field {
    /// Its name, in the file and in the log.
    pub fn name(self) -> &'static str {
        let found = FIELDS.iter().find(|(_, field)| *field == self);
        found.map_or("", |(name, _)| *name)
    }
}

fn usual_fields() -> Vec<Field> {
    let fields = FIELDS.iter().map(|(_, field)| *field);
    fields
        .filter(|field| !ONLY_IF_ASKED_FOR.contains(field))
        .collect()
}

/// Reads `[log]`.
pub(super) fn read(top: &Table<'_>) -> Log {
    let table = top.table("log");
    let ways = [
        ("text", Access::Text),
        ("json", Access::Json),
        ("off", Access::Off),
    ];
    let fields = table.read("fields", |value| {
        let items = value.texts("a list of fields such as [\"client\", \"status\"]")?;
        let mut fields = Vec::new();
        for item in items {
            let field = item.choice(&FIELDS)?;
            if fields.contains(&field) {
                item.problem(format!("{:?} is given twice", field.name()), None);
            }
            fields.push(field);
        }
        Some(fields)
    });
    Log {
        access: table.choice("access", &ways).unwrap_or(Access::AsLog),
        fields: fields.unwrap_or_else(usual_fields),
    }
}
