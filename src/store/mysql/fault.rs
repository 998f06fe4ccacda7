//! What MySQL's and MariaDB's errors mean.

use std::io;

use sqlx::{error::DatabaseError, mysql::MySqlDatabaseError};

use crate::store::Fault;

/// A failure to connect: the server's definite no, or nobody there. No message of these quotes a value.
pub(super) fn connect_fault(error: sqlx::Error, address: &str) -> Fault {
    match &error {
        sqlx::Error::Database(database) => {
            let says = format!("MySQL says: {}", database.message());
            match number(database.as_ref()) {
                // Login or database refused; this host is not let in.
                1044 | 1045 | 1049 | 1130 | 1251 | 1698 | 1820 | 1862 | 3118 | 3159 | 4151 => {
                    Fault::Refused(says)
                }
                _ => Fault::Away(says),
            }
        }
        // What TLS finds wrong with the server comes as an error of the socket.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Fault::Refused(format!("no TLS connection to {address}: {error}"))
        }
        sqlx::Error::Io(error) => Fault::Away(format!("no connection to {address}: {error}")),
        sqlx::Error::Tls(error) => {
            Fault::Refused(format!("no TLS connection to {address}: {error}"))
        }
        // The driver's only one here: the full login of these ways to log in, without TLS.
        sqlx::Error::Configuration(_) => Fault::Refused(format!(
            "{address} asks for a login by caching_sha2_password or sha256_password, which sends the password and \
             so takes TLS: let the server offer TLS and leave out ssl-mode=DISABLED, or give the user \
             another way to log in"
        )),
        sqlx::Error::Protocol(_) => Fault::Refused(format!(
            "{address} does not speak as MySQL does, or asks for a login that is not known here: \
             mysql_native_password and caching_sha2_password are"
        )),
        _ => Fault::Away(format!("no connection to {address}")),
    }
}

/// A statement's failure by its number (MySQL 8.0 Error Message Reference; MariaDB Error Code Reference).
/// Messages can quote values, so only those are passed on that do not.
pub(super) fn fault(error: sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::Io(error) => {
                Fault::Away(format!("the connection to MySQL broke: {error}"))
            }
            sqlx::Error::ColumnDecode { index, .. } => Fault::Refused(format!(
                "column {index} of the session or user table has an unexpected type"
            )),
            _ => Fault::Away("the connection to MySQL broke".into()),
        };
    };
    by_number(number(database.as_ref()), database.message())
}

fn number(error: &dyn DatabaseError) -> u16 {
    error
        .try_downcast_ref::<MySqlDatabaseError>()
        .map_or(0, MySqlDatabaseError::number)
}

fn by_number(number: u16, message: &str) -> Fault {
    match number {
        // Lock wait timeout: of a row, or of the table's definition.
        1205 => Fault::Busy,
        // Deadlock, and MariaDB's conflict of a snapshot.
        1213 | 1020 => Fault::Retry,
        1062 | 1586 => Fault::Taken,
        // Read-only by option, in a read-only transaction, by mode.
        1290 | 1792 | 1836 => Fault::ReadOnly,
        // The definition has changed; the server no longer has the statement, or must prepare it again.
        1243 | 1412 | 1615 => Fault::Altered,
        // Killed, or out of time: MySQL, MariaDB.
        1317 | 3024 | 1969 => Fault::Timeout,
        // Full, out of memory, too many connections, going down, not part of its cluster, killed, offline.
        1021
        | 1037
        | 1038
        | 1040
        | 1041
        | 1047
        | 1053
        | 1077
        | 1079
        | 1080
        | 1152
        | 1158..=1161
        | 1184
        | 1203
        | 1226
        | 1927
        | 2006
        | 2013
        | 3032
        | 3168
        | 3169
        | 4031 => Fault::Away(format!("MySQL says: {message}")),
        // No such database, table or column, or none for this user; no writing at this isolation level.
        1044 | 1046 | 1049 | 1051 | 1054 | 1142 | 1143 | 1146 | 1227 | 1370 | 1665 => {
            Fault::Refused(format!("MySQL says: {message} (error {number})"))
        }
        _ => Fault::Refused(format!(
            "MySQL refused a statement or a value (error {number})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_and_quote_no_value() {
        let told = |number| by_number(number, "a message with a value");
        assert!(matches!(told(1205), Fault::Busy));
        assert!(matches!(told(1213), Fault::Retry));
        assert!(matches!(told(1062), Fault::Taken));
        for number in [1290, 1792, 1836] {
            assert!(matches!(told(number), Fault::ReadOnly), "{number}");
        }
        for number in [1053, 1927, 2006, 2013] {
            assert!(matches!(told(number), Fault::Away(_)), "{number}");
        }
        for number in [1054, 1146] {
            assert!(
                matches!(&told(number), Fault::Refused(told) if told.contains("a message")),
                "{number}"
            );
        }
        // Data too long, incorrect value, out of range, illegal mix of collations.
        for number in [1406, 1292, 1264, 1366, 1267] {
            assert!(
                matches!(&told(number), Fault::Refused(told) if !told.contains("a message")),
                "{number}"
            );
        }
    }
}
