//! What the tables look like: looked up by each new connection, so that a migration is noticed.

use crate::django::KeyKind;

use super::{Fault, Options, UserOptions};

/// A column, as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its declared type, in the database's words.
    pub declared: String,
    /// Whether a row can be inserted that does not mention it: it may be NULL, or it fills itself.
    pub optional: bool,
}

/// What a connection knows of the tables that it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Why no session can be inserted, if none can: the table asks for more than Django's three columns.
    pub no_insert: Option<String>,
    /// The user table; `None` with `verify = "off"`.
    pub users: Option<UserShape>,
}

/// What is known of the user table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserShape {
    /// What its key column holds.
    pub key: KeyKind,
    /// The key column's declared type.
    pub key_type: String,
    /// The SQL condition that a user must satisfy, if there is one.
    pub condition: Option<String>,
    /// The columns that routes ask for, in the order of [`UserOptions::columns`].
    pub columns: Vec<ColumnKind>,
    /// The column of the membership table that points at the user.
    pub member: Option<String>,
}

/// What a column becomes in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `true` or `false`, also where the database keeps 0 and 1.
    Boolean,
    /// A number.
    Number,
    /// A point in time: text in the form of RFC 3339, where the column's type says so.
    Time,
    /// Text.
    Text,
}

/// The tables that a connection looks up, in the order in which [`Shape::new`] takes their columns.
pub fn tables(options: &Options) -> Vec<&str> {
    let users = options.users.iter().flat_map(|users| {
        let members = users.groups.as_ref().map(|(members, _)| members.as_str());
        [Some(users.table.as_str()), members].into_iter().flatten()
    });
    std::iter::once(options.table.as_str())
        .chain(users)
        .collect()
}

impl Shape {
    /// Judges the columns of [`tables`], in that order; a table without columns is not there.
    ///
    /// # Errors
    ///
    /// [`Fault::Refused`] with a sentence that says which table or column is missing, or of a type that
    /// cannot be used.
    pub fn new(options: &Options, columns: &[Vec<Column>]) -> Result<Self, Fault> {
        let mut columns = columns.iter().map(Vec::as_slice);
        let session = columns.next().unwrap_or_default();
        exists(&options.table, session)?;
        let own = ["session_key", "session_data", "expire_date"];
        for name in own {
            find(&options.table, session, name)?;
        }
        let foreign: Vec<&str> = session
            .iter()
            .filter(|column| !column.optional && !own.contains(&column.name.as_str()))
            .map(|column| column.name.as_str())
            .collect();
        let no_insert = (!foreign.is_empty()).then(|| {
            format!(
                "the table {} asks for more than Django's three columns ({}), so sessions in it can be \
                 changed but not created: let Django create them, or give these columns a default",
                options.table,
                foreign.join(", ")
            )
        });
        let users = match &options.users {
            None => None,
            Some(users) => Some(UserShape::new(
                users,
                columns.next().unwrap_or_default(),
                columns.next().unwrap_or_default(),
            )?),
        };
        Ok(Self { no_insert, users })
    }
}

impl UserShape {
    fn new(options: &UserOptions, users: &[Column], members: &[Column]) -> Result<Self, Fault> {
        let table = &options.table;
        exists(table, users).map_err(|fault| {
            Fault::Refused(format!(
                "{fault}; name the user model's table in [django.user], or write verify = \"off\""
            ))
        })?;
        let key = find(table, users, &options.key)?;
        let Some(kind) = key_kind(&key.declared) else {
            return Err(Fault::Refused(format!(
                "the column {} of {table} is of type {}; a user's key is an integer, a uuid or a text",
                key.name, key.declared
            )));
        };
        if let Some(password) = &options.password {
            find(table, users, password)?;
        }
        // A user without this attribute counts as active (`ModelBackend.user_can_authenticate`).
        let has_is_active = users.iter().any(|column| column.name == "is_active");
        let condition = match &options.condition {
            Some(condition) => Some(condition.clone()),
            None => has_is_active.then(|| "is_active".to_owned()),
        };
        let columns = options.columns.iter();
        let columns = columns.map(|name| Ok(column_kind(&find(table, users, name)?.declared)));
        let member = match &options.groups {
            None => None,
            Some((members_table, _)) => {
                exists(members_table, members)?;
                Some(member_column(members_table, members)?)
            }
        };
        Ok(Self {
            key: kind,
            key_type: key.declared.clone(),
            condition,
            columns: columns.collect::<Result<_, Fault>>()?,
            member,
        })
    }
}

fn exists(table: &str, columns: &[Column]) -> Result<(), Fault> {
    if columns.is_empty() {
        return Err(Fault::Refused(format!("there is no table {table}")));
    }
    Ok(())
}

fn find<'a>(table: &str, columns: &'a [Column], name: &str) -> Result<&'a Column, Fault> {
    let found = columns.iter().find(|column| column.name == name);
    found.ok_or_else(|| Fault::Refused(format!("the table {table} has no column {name}")))
}

/// Django makes the table of a many-to-many field with the columns id, MODEL_id and group_id
/// (`django/db/models/fields/related.py`, `create_many_to_many_intermediary_model`).
fn member_column(table: &str, columns: &[Column]) -> Result<String, Fault> {
    find(table, columns, "group_id")?;
    let mut others = columns
        .iter()
        .filter(|column| column.name.ends_with("_id") && column.name != "group_id");
    match (others.next(), others.next()) {
        (Some(column), None) => Ok(column.name.clone()),
        _ => Err(Fault::Refused(format!(
            "the table {table} is not one that joins users and groups: it has group_id and one other \
             column that ends in _id"
        ))),
    }
}

/// Django's `UUIDField` is `char(32)` where the database has no type for it, its `CharField` is `varchar(n)`
/// (`django/db/backends/*/base.py`, `data_types`).
fn key_kind(declared: &str) -> Option<KeyKind> {
    let declared = declared.to_ascii_lowercase();
    if declared.contains("int") || declared.contains("serial") {
        return Some(KeyKind::Integer);
    }
    if declared == "uuid" || declared == "char(32)" {
        return Some(KeyKind::Uuid);
    }
    let is_text = ["char", "text", "citext"]
        .iter()
        .any(|word| declared.contains(word));
    is_text.then_some(KeyKind::Text)
}

fn column_kind(declared: &str) -> ColumnKind {
    let declared = declared.to_ascii_lowercase();
    if declared.starts_with("bool") || declared == "tinyint(1)" {
        ColumnKind::Boolean
    } else if declared.contains("int")
        || ["real", "double", "float", "decimal", "numeric"]
            .iter()
            .any(|word| declared.starts_with(word))
    {
        ColumnKind::Number
    } else if declared.starts_with("datetime") || declared.starts_with("timestamp") {
        ColumnKind::Time
    } else {
        ColumnKind::Text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn column(name: &str, declared: &str, optional: bool) -> Column {
        Column {
            name: name.into(),
            declared: declared.into(),
            optional,
        }
    }

    fn options() -> Options {
        Options {
            table: "django_session".into(),
            time_zone: chrono_tz::Tz::UTC,
            max_staleness: Duration::ZERO,
            deadline: Duration::from_secs(2),
            connections: 1,
            write_connections: 1,
            pooled: false,
            accept_replica: false,
            session_data: 1024,
            lookup_queue: 1,
            session_queue: 1,
            metrics: std::sync::Arc::default(),
            users: Some(UserOptions {
                table: "auth_user".into(),
                key: "id".into(),
                password: Some("password".into()),
                condition: None,
                columns: vec!["is_staff".into(), "joined".into(), "name".into()],
                groups: Some(("auth_user_groups".into(), "auth_group".into())),
            }),
        }
    }

    fn tables_of(key_type: &str) -> Vec<Vec<Column>> {
        vec![
            vec![
                column("session_key", "varchar(40)", false),
                column("session_data", "text", false),
                column("expire_date", "datetime", false),
            ],
            vec![
                column("id", key_type, true),
                column("password", "varchar(128)", false),
                column("is_active", "bool", false),
                column("is_staff", "bool", false),
                column("joined", "datetime", false),
                column("name", "varchar(9)", false),
            ],
            vec![
                column("id", "integer", true),
                column("person_id", "integer", false),
                column("group_id", "integer", false),
            ],
        ]
    }

    fn sentence(tables: &[Vec<Column>]) -> String {
        Shape::new(&options(), tables).unwrap_err().to_string()
    }

    #[test]
    fn djangos_own_tables_can_be_used() {
        let shape = Shape::new(&options(), &tables_of("integer")).unwrap();
        assert_eq!(shape.no_insert, None);
        let users = shape.users.unwrap();
        assert_eq!(users.key, KeyKind::Integer);
        assert_eq!(users.condition.as_deref(), Some("is_active"));
        assert_eq!(
            users.columns,
            [ColumnKind::Boolean, ColumnKind::Time, ColumnKind::Text]
        );
        assert_eq!(users.member.as_deref(), Some("person_id"));
        assert_eq!(
            tables(&options()),
            ["django_session", "auth_user", "auth_user_groups"]
        );
    }

    #[test]
    fn each_key_column_of_django_has_its_kind() {
        for (declared, kind) in [
            ("integer", Some(KeyKind::Integer)),
            ("bigint unsigned", Some(KeyKind::Integer)),
            ("int(11)", Some(KeyKind::Integer)),
            ("uuid", Some(KeyKind::Uuid)),
            ("char(32)", Some(KeyKind::Uuid)),
            ("varchar(32)", Some(KeyKind::Text)),
            ("character varying(150)", Some(KeyKind::Text)),
            ("longtext", Some(KeyKind::Text)),
            ("bytea", None),
            ("numeric(10,0)", None),
        ] {
            assert_eq!(key_kind(declared), kind, "{declared}");
        }
        assert!(sentence(&tables_of("bytea")).contains("column id of auth_user is of type bytea"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut tables = tables_of("integer");
        tables[0].pop();
        assert_eq!(
            sentence(&tables),
            "the table django_session has no column expire_date"
        );
        tables[0].clear();
        assert_eq!(sentence(&tables), "there is no table django_session");
        let mut tables = tables_of("integer");
        tables[1].pop();
        assert_eq!(sentence(&tables), "the table auth_user has no column name");
        tables[1].clear();
        assert!(
            sentence(&tables).starts_with("there is no table auth_user; name the user model's")
        );
        let mut tables = tables_of("integer");
        tables[2].push(column("tenant_id", "integer", false));
        assert!(sentence(&tables).contains("auth_user_groups is not one that joins"));
    }

    #[test]
    fn a_user_table_without_is_active_has_only_active_users() {
        let mut tables = tables_of("integer");
        tables[1].retain(|column| column.name != "is_active");
        let shape = Shape::new(&options(), &tables).unwrap();
        assert_eq!(shape.users.unwrap().condition, None);
    }

    #[test]
    fn a_session_table_that_asks_for_more_takes_no_inserts() {
        let mut tables = tables_of("integer");
        tables[0].push(column("note", "text", true));
        assert_eq!(Shape::new(&options(), &tables).unwrap().no_insert, None);
        tables[0].push(column("ip", "varchar(39)", false));
        tables[0].push(column("user_agent", "text", false));
        let why = Shape::new(&options(), &tables).unwrap().no_insert.unwrap();
        assert!(
            why.contains(
                "django_session asks for more than Django's three columns (ip, user_agent)"
            )
        );
    }
}
