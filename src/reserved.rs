//! The header names that belong to the contract between gateway and upstream, in every spelling.

/// The request header with the signed session.
pub const X_SESSION: &str = "x-session";
/// The response header with the change.
pub const X_SESSION_SET: &str = "x-session-set";
/// The response header that marks the gateway's own answers.
pub const X_GATEWAY_ERROR: &str = "x-gateway-error";

/// Whether a field of a request is one that only the gateway may set.
pub fn in_request(name: &str) -> bool {
    // Folding keeps the length, so the length sorts out nearly all names.
    match name.len() {
        9 => folds_to(name, X_SESSION),
        13 => folds_to(name, X_SESSION_SET),
        _ => false,
    }
}

/// Whether a field of an upstream's response must not reach the client.
pub fn in_response(name: &str) -> bool {
    in_request(name) || (name.len() == 15 && folds_to(name, X_GATEWAY_ERROR))
}

/// Whether `name` is `reserved` to a server that folds names: CGI, WSGI and PHP map every byte outside of
/// letters and digits to one character, so that `X_Session` and `X.Session` are the same variable.
pub fn folds_to(name: &str, reserved: &str) -> bool {
    let fold = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    name.len() == reserved.len()
        && name
            .bytes()
            .zip(reserved.bytes())
            .all(|(a, b)| fold(a) == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_reserved_name_is_found() {
        for name in [
            "x-session",
            "X-SESSION",
            "x_session",
            "X.Session",
            "x-session_set",
            "X~Session|Set",
        ] {
            assert!(in_request(name), "{name}");
            assert!(in_response(name), "{name}");
        }
        assert!(in_response("X_Gateway-error"));
        for name in [
            "x-session-id",
            "xsession",
            "x-sessions",
            "session",
            "x-session-sets",
            "y-session",
        ] {
            assert!(!in_response(name), "{name}");
        }
    }
}
