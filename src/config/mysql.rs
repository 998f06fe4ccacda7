//! Addresses of MySQL and MariaDB: what the driver would misunderstand or leave out is an error here. No
//! sentence holds a part of the address, which may have a password.

/// The parameters that the driver reads and that change nothing that the gateway relies on.
const PARAMETERS: [&str; 9] = [
    "socket", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode", "sslca", "sslcert", "sslkey", "sslmode",
];

/// `ssl-mode`, in any case.
const SSL_MODES: [&str; 5] = [
    "disabled",
    "preferred",
    "required",
    "verify_ca",
    "verify_identity",
];

/// Checks what follows the scheme and its colon.
pub(super) fn check(rest: &str) -> Result<(), &'static str> {
    let Some(rest) = rest.strip_prefix("//") else {
        return Err("a MySQL address is mysql://user@host:3306/name");
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, name) = address.split_once('/').unwrap_or((address, ""));
    // Otherwise a part of the password would be taken for the host, or for the name.
    if rest.contains('#') || server.matches('@').count() > 1 || name.contains('@') {
        return Err(
            "a MySQL address has one @, before the first /, and no #; in the password @, / and # \
             are %40, %2F and %23",
        );
    }
    if name.is_empty() || name.contains('/') {
        return Err("a MySQL address names the database: mysql://user@host:3306/name");
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (parameter, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !PARAMETERS.contains(&parameter) {
            return Err(
                "a MySQL address takes only these parameters: socket, ssl-ca, ssl-cert, ssl-key and \
                 ssl-mode",
            );
        }
        let is_mode = parameter == "ssl-mode" || parameter == "sslmode";
        if is_mode && !SSL_MODES.contains(&value.to_ascii_lowercase().as_str()) {
            return Err(
                "ssl-mode in a MySQL address is DISABLED, PREFERRED, REQUIRED, VERIFY_CA or \
                 VERIFY_IDENTITY",
            );
        }
    }
    Ok(())
}
