//! What the tables look like: looked up by each new connection, so that a migration is noticed.

use crate::django::{KeyKind, UserKey};

use super::{Fault, Options, UserOptions, sql::quoted};

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
    /// Whether there is a column `is_active`.
    pub has_is_active: bool,
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
    /// A point in time: text in the form of RFC 3339, in UTC.
    Time,
    /// Text with hyphens, also where the database keeps digits only.
    Uuid,
    /// Whatever the database has: mostly text.
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

    /// Whether all these keys are of the kind that the user table's key column holds. Others were made for the
    /// table as it was before a migration, or after one that this connection has not seen.
    pub fn fits(&self, keys: &[UserKey]) -> bool {
        let kind = self.users.as_ref().map(|users| users.key);
        keys.iter().all(|key| Some(key.kind()) == kind)
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
        let columns = options.columns.iter();
        let columns = columns.map(|name| {
            let column = find(table, users, name)?;
            column_kind(&column.declared).ok_or_else(|| {
                Fault::Refused(format!(
                    "the column {name} of {table} is of type {}: bytes are not told to an upstream",
                    column.declared
                ))
            })
        });
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
            has_is_active: users.iter().any(|column| column.name == "is_active"),
            columns: columns.collect::<Result<_, Fault>>()?,
            member,
        })
    }

    /// SQL that is true of a user who may be logged in, and false of any other; NULL is no.
    ///
    /// A user without `is_active` counts as active (`ModelBackend.user_can_authenticate`). Where the table has no
    /// such column, the name is left to SQL's scopes, because a migration may add it under an open connection:
    /// then the column is meant, and until then the constant around it.
    pub(super) fn condition(&self, options: &UserOptions, quote: char) -> String {
        let condition = match &options.condition {
            Some(condition) => condition.clone(),
            None if self.has_is_active => "is_active".to_owned(),
            None => {
                let (table, key) = (quoted(&options.table, quote), quoted(&options.key, quote));
                format!(
                    "SELECT (SELECT is_active FROM {table} sg_same WHERE sg_same.{key} = {table}.{key}) \
                     FROM (SELECT TRUE AS is_active) sg_always"
                )
            }
        };
        format!("CASE WHEN ({condition}) THEN TRUE ELSE FALSE END")
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
    if is_integer(&declared) {
        return Some(KeyKind::Integer);
    }
    if is_uuid(&declared) {
        return Some(KeyKind::Uuid);
    }
    let is_text = ["char", "text", "clob"];
    let is_text = is_text.iter().any(|word| declared.contains(word)) && !declared.ends_with("[]");
    is_text.then_some(KeyKind::Text)
}

/// `None` for bytes.
fn column_kind(declared: &str) -> Option<ColumnKind> {
    let declared = declared.to_ascii_lowercase();
    let is_one_of = |words: &[&str]| words.contains(&first_word(&declared));
    let bytes = ["blob", "bytea", "binary"];
    if bytes.iter().any(|word| declared.contains(word)) {
        None
    } else if declared.ends_with("[]") {
        Some(ColumnKind::Text)
    } else if is_one_of(&["bool", "boolean"]) || declared == "tinyint(1)" {
        Some(ColumnKind::Boolean)
    } else if is_integer(&declared) || is_one_of(&["real", "double", "float", "decimal", "numeric"])
    {
        Some(ColumnKind::Number)
    } else if is_one_of(&["datetime", "timestamp"]) {
        Some(ColumnKind::Time)
    } else if is_uuid(&declared) {
        Some(ColumnKind::Uuid)
    } else {
        Some(ColumnKind::Text)
    }
}

fn is_integer(declared: &str) -> bool {
    let names = [
        "int",
        "integer",
        "tinyint",
        "smallint",
        "mediumint",
        "bigint",
    ];
    names.contains(&first_word(declared)) && !declared.ends_with("[]")
}

fn is_uuid(declared: &str) -> bool {
    declared == "uuid" || declared == "char(32)"
}

/// A type's name without its length, sign and time zone.
fn first_word(declared: &str) -> &str {
    declared.split([' ', '(']).next().unwrap_or_default()
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
            under_way: Default::default(),
            users: Some(UserOptions {
                table: "auth_user".into(),
                key: "id".into(),
                password: Some("password".into()),
                condition: None,
                columns: vec!["is_staff".into(), "joined".into(), "name".into()],
                told_bytes: 4096,
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
        let condition = users.condition(options().users.as_ref().unwrap(), '"');
        assert_eq!(condition, "CASE WHEN (is_active) THEN TRUE ELSE FALSE END");
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
            ("citext", Some(KeyKind::Text)),
            ("bytea", None),
            ("numeric(10,0)", None),
            ("point", None),
            ("interval", None),
            ("integer[]", None),
            ("text[]", None),
        ] {
            assert_eq!(key_kind(declared), kind, "{declared}");
        }
        assert!(sentence(&tables_of("bytea")).contains("column id of auth_user is of type bytea"));
    }

    #[test]
    fn each_type_becomes_what_it_is() {
        for (declared, kind) in [
            ("bool", Some(ColumnKind::Boolean)),
            ("tinyint(1)", Some(ColumnKind::Boolean)),
            ("tinyint(4)", Some(ColumnKind::Number)),
            ("smallint unsigned", Some(ColumnKind::Number)),
            ("numeric(12,2)", Some(ColumnKind::Number)),
            ("double precision", Some(ColumnKind::Number)),
            ("timestamp(3) without time zone", Some(ColumnKind::Time)),
            ("datetime(6)", Some(ColumnKind::Time)),
            ("uuid", Some(ColumnKind::Uuid)),
            ("char(32)", Some(ColumnKind::Uuid)),
            ("date", Some(ColumnKind::Text)),
            ("interval", Some(ColumnKind::Text)),
            ("point", Some(ColumnKind::Text)),
            ("integer[]", Some(ColumnKind::Text)),
            ("jsonb", Some(ColumnKind::Text)),
            ("", Some(ColumnKind::Text)),
            ("bytea", None),
            ("bytea[]", None),
            ("longblob", None),
            ("varbinary(16)", None),
        ] {
            assert_eq!(column_kind(declared), kind, "{declared}");
        }
        let mut tables = tables_of("integer");
        tables[1].last_mut().unwrap().declared = "BLOB".into();
        assert_eq!(
            sentence(&tables),
            "the column name of auth_user is of type BLOB: bytes are not told to an upstream"
        );
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
        let users = Shape::new(&options(), &tables).unwrap().users.unwrap();
        let mut options = options().users.unwrap();
        assert!(
            users
                .condition(&options, '"')
                .contains("(SELECT TRUE AS is_active)")
        );
        options.condition = Some("is_member".into());
        assert_eq!(
            users.condition(&options, '"'),
            "CASE WHEN (is_member) THEN TRUE ELSE FALSE END"
        );
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
