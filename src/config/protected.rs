//! The names in a session under which Django and its packages keep authority or secrets.

/// Names that never leave the gateway, not even where a route's `forward` list says so: whoever reads
/// one of them can forge a login, a form or a password reset.
pub const NEVER_FORWARDED: [&str; 3] = ["_auth_user_hash", "_csrftoken", "_password_reset_token"];

/// What packages of the Django world keep in a session and trust when they read it back:
/// django-hijack, django-otp, django-allauth, the OAuth and OpenID clients, formtools.
/// `*` stands for any run of characters.
const PACKAGES: [&str; 8] = [
    "hijack_history",
    "otp_device_id",
    "account_*",
    "socialaccount_*",
    "mfa.*",
    "*oauth*",
    "*oidc*",
    "wizard_*",
];

/// The set of protected names: every name that starts with `_`, those under which packages keep authority,
/// and the site's own.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    extra: Vec<String>,
}

impl Protected {
    /// The built-in names and the patterns of `[django] protected`.
    pub fn new(extra: Vec<String>) -> Self {
        Self { extra }
    }

    /// Whether this top-level name is protected. The name is compared as it is after JSON unescaping,
    /// without regard to ASCII case for the packages' names.
    pub fn contains(&self, name: &str) -> bool {
        name.starts_with('_')
            || PACKAGES.iter().any(|pattern| matches(pattern, name))
            || self.extra.iter().any(|pattern| matches(pattern, name))
    }
}

/// Glob with `*` only. Iterative with one point to come back to, so hostile names cost linear-ish time.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && pattern[p].eq_ignore_ascii_case(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after, from)) = star {
            p = after;
            n = from + 1;
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_carry_authority_are_protected() {
        let protected = Protected::new(vec!["acl:*".into()]);
        for name in [
            "_auth_user_id",
            "_anything",
            "hijack_history",
            "otp_device_id",
            "account_login",
            "socialaccount_state",
            "mfa.webauthn.state",
            "google-oauth2_state",
            "OIDC_nonce",
            "wizard_signup",
            "acl:admin",
        ] {
            assert!(protected.contains(name), "{name}");
        }
        for name in [
            "cart", "language", "account", "mfa", "wizard", "", "acl", "a_b",
        ] {
            assert!(!protected.contains(name), "{name}");
        }
    }
}
