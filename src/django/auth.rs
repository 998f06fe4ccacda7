//! Who a session says is logged in: the session's half of `django.contrib.auth.get_user`.

use std::{fmt, iter};

use super::{
    settings::{Settings, Verify},
    signing::{Algorithm, SaltedHmac},
};
use crate::session::Session;

/// The salt of `AbstractBaseUser.get_session_auth_hash` (django/contrib/auth/base_user.py).
const SALT: &str = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// What `django.contrib.auth.login` left in a session. It says who claims to be logged in; whether it
/// holds takes the site's backends, the user's row and [`AuthHash::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `_auth_user_id`, the user's primary key as text.
    pub user_id: String,
    /// `_auth_user_backend`, a dotted path.
    pub backend: String,
    /// `_auth_user_hash`. Django ends a session that has none, as if it were wrong.
    pub hash: Option<String>,
}

/// The login in a session, or `None` where Django too sees nobody.
///
/// The id is text or, as sites have stored by hand, an integer. Django's `to_python` also turns `true`
/// and `7.9` into numbers; here these are nobody.
pub fn login(session: &Session) -> Option<Login> {
    let user_id = session
        .string("_auth_user_id")
        .or_else(|| integer_text(session, "_auth_user_id"))?;
    let backend = session.string("_auth_user_backend")?;
    let hash = session.string("_auth_user_hash");
    Some(Login {
        user_id,
        backend,
        hash,
    })
}

/// The value of a member that is a JSON integer, as written.
fn integer_text(session: &Session, name: &str) -> Option<String> {
    let raw = session.raw(name)?;
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| raw.to_owned())
}

/// A user id as the integer primary key that it names, by Python's `int()`: white space around it, a
/// sign, single underscores between digits.
///
/// `None` is no user: Django fails with a ValidationError for what is no number, and finds nobody beyond
/// the column's range. Digits outside ASCII, which `int()` knows too, are not taken.
pub fn integer_key(id: &str) -> Option<i64> {
    let id = id.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
    let digits = id.strip_prefix(['+', '-']).unwrap_or(id);
    if digits
        .split('_')
        .any(|run| run.is_empty() || !run.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return None;
    }
    if digits.contains('_') {
        id.replace('_', "").parse().ok()
    } else {
        id.parse().ok()
    }
}

/// What is known of the user whom a session names.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// The encoded password column.
    pub password: &'a str,
    /// `is_active`, or what the site has in its place.
    pub is_active: bool,
}

/// What Django's `get_user` makes of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The user is logged in.
    LoggedIn,
    /// Nobody is, and the session stays as it is.
    Anonymous,
    /// Nobody is, and Django deletes the session: the hash does not fit the password.
    Flushed,
}

impl Login {
    /// The second half of `django.contrib.auth.get_user`, for a login by one of the site's backends whose
    /// user is `account`, or is not there.
    pub fn standing(
        &self,
        settings: &Settings,
        auth: &AuthHash,
        account: Option<Account<'_>>,
    ) -> Standing {
        let Some(account) = account else {
            return Standing::Anonymous;
        };
        let takes_everybody = self.takes_everybody() && !settings.own_user_rule;
        if !account.is_active && !takes_everybody {
            return Standing::Anonymous;
        }
        let fits = |hash: &String| auth.verify(account.password, hash);
        match settings.verify {
            Verify::Off | Verify::ActiveOnly => Standing::LoggedIn,
            Verify::User if self.hash.as_ref().is_some_and(fits) => Standing::LoggedIn,
            Verify::User => Standing::Flushed,
        }
    }

    /// Whether the backend logs in users who are not active (django/contrib/auth/backends.py,
    /// `AllowAllUsersModelBackend`, `AllowAllUsersRemoteUserBackend`).
    fn takes_everybody(&self) -> bool {
        matches!(
            self.backend.strip_prefix("django.contrib.auth.backends."),
            Some("AllowAllUsersModelBackend" | "AllowAllUsersRemoteUserBackend")
        )
    }
}

impl fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("is_active", &self.is_active)
            .finish_non_exhaustive()
    }
}

/// Checks and makes `_auth_user_hash`, the MAC over the user's `password` column by which a change of
/// password ends all other sessions of that user.
#[derive(Clone)]
pub struct AuthHash {
    signing: SaltedHmac,
    verifying: Vec<SaltedHmac>,
}

impl AuthHash {
    /// Derives the keys that the site's release uses.
    pub fn new(settings: &Settings) -> Self {
        let release = settings.release;
        let own = if release.writes_legacy() {
            Algorithm::Sha1
        } else {
            Algorithm::Sha256
        };
        let sha1 = release
            .reads_sha1()
            .then_some((Algorithm::Sha1, &settings.secret_key));
        // Since 4.1.8 and 4.2 (ticket 34384); SHA-256 only.
        let fallbacks = settings
            .secret_key_fallbacks
            .iter()
            .filter(|_| release.reads_fallbacks());
        let fallbacks = fallbacks.map(|secret| (Algorithm::Sha256, secret));
        Self {
            signing: SaltedHmac::new(own, SALT, &settings.secret_key),
            verifying: sha1
                .into_iter()
                .chain(fallbacks)
                .map(|(algorithm, secret)| SaltedHmac::new(algorithm, SALT, secret))
                .collect(),
        }
    }

    /// Whether `hash` belongs to a user with this `password` column. Django compares lower-case text.
    ///
    /// A hash made with a fallback key holds; replacing it by one of the current key is left to Django.
    pub fn verify(&self, password: &str, hash: &str) -> bool {
        iter::once(&self.signing)
            .chain(&self.verifying)
            .any(|keyed| keyed.mac(password.as_bytes()).is_hex(hash.as_bytes()))
    }

    /// The hash that Django's `login` would store for a user with this `password` column.
    pub fn sign(&self, password: &str) -> String {
        self.signing.mac(password.as_bytes()).to_hex()
    }
}

impl fmt::Debug for AuthHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthHash(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{config::Secret, django::settings::Release};

    const SECRET: &str = "django-insecure-2#q0y$3d!v6l8m1w@t5r7n9p^s4u_x&z*c(e)g-i=k+o";
    const PASSWORD: &str =
        "pbkdf2_sha256$260000$saltsaltsalt$0uYx3f0Pq3Nn8Zy0rj1bM0bJm9l3Vn1B0e7o2mB0x0U=";
    const SHA256: &str = "b70ab3f15eead15b59ce785112c9910392d80d19aa14260dd36246ce225f1735";
    const SHA1: &str = "2b2f2784a0b6750f43e46216c401110c34aab386";

    fn session(json: &str) -> Session {
        Session::parse(json.as_bytes().to_vec()).unwrap()
    }

    fn auth_hash(release: Release, secret: &str, fallbacks: &[&str]) -> AuthHash {
        let mut settings = Settings::new(secret);
        settings.release = release;
        settings.secret_key_fallbacks = fallbacks.iter().copied().map(Secret::from).collect();
        AuthHash::new(&settings)
    }

    #[test]
    fn a_login_needs_an_id_and_a_backend() {
        let login_of = |json| login(&session(json));
        let full =
            login_of(r#"{"_auth_user_id":"42","_auth_user_backend":"a.B","_auth_user_hash":"ff"}"#);
        let expected = Login {
            user_id: "42".into(),
            backend: "a.B".into(),
            hash: Some("ff".into()),
        };
        assert_eq!(full, Some(expected));
        let hashless =
            login_of(r#"{"_auth_user_id":-7,"_auth_user_backend":"a.B","_auth_user_hash":null}"#);
        assert_eq!(
            hashless,
            Some(Login {
                user_id: "-7".into(),
                backend: "a.B".into(),
                hash: None
            })
        );
        for nobody in [
            r#"{}"#,
            r#"{"_auth_user_id":"42"}"#,
            r#"{"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":true,"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":null,"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":7.0,"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":1e1,"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":["7"],"_auth_user_backend":"a.B"}"#,
            r#"{"_auth_user_id":"42","_auth_user_backend":["a.B"]}"#,
        ] {
            assert_eq!(login_of(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn an_integer_key_is_what_python_reads() {
        for (id, key) in [
            ("42", 42),
            (" 42 ", 42),
            ("\u{2003}42\x1c", 42),
            ("+7", 7),
            ("-7", -7),
            ("007", 7),
            ("1_000", 1000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer_key(id), Some(key), "{id:?}");
        }
        for id in [
            "",
            " ",
            "-",
            "+",
            "abc",
            "4 2",
            "- 7",
            "--7",
            "+-7",
            "1__0",
            "_1",
            "1_",
            "-_1",
            "1.0",
            "0x10",
            "\u{664}\u{662}",
            "9223372036854775808",
            "42\0",
        ] {
            assert_eq!(integer_key(id), None, "{id:?}");
        }
    }

    #[test]
    fn the_hash_is_the_one_of_the_release() {
        for (release, sha256, sha1) in [
            (Release(2, 2), false, true),
            (Release(3, 0), false, true),
            (Release(3, 1), true, true),
            (Release(3, 2), true, true),
            (Release(4, 0), true, false),
            (Release(4, 2), true, false),
            (Release(6, 1), true, false),
        ] {
            let auth = auth_hash(release, SECRET, &[]);
            assert_eq!(auth.verify(PASSWORD, SHA256), sha256, "{release:?}");
            assert_eq!(auth.verify(PASSWORD, SHA1), sha1, "{release:?}");
            assert!(auth.verify(PASSWORD, &auth.sign(PASSWORD)), "{release:?}");
        }
    }

    #[test]
    fn a_fallback_key_verifies_a_sha256_hash_since_4_1() {
        let old = auth_hash(Release(4, 2), SECRET, &[]).sign(PASSWORD);
        let old_sha1 = auth_hash(Release(3, 0), SECRET, &[]).sign(PASSWORD);
        for (release, holds) in [
            (Release(3, 2), false),
            (Release(4, 0), false),
            (Release(4, 1), true),
        ] {
            let auth = auth_hash(release, "new", &["unrelated", SECRET]);
            assert_eq!(auth.verify(PASSWORD, &old), holds, "{release:?}");
            assert!(!auth.verify(PASSWORD, &old_sha1), "{release:?}");
            assert_ne!(auth.sign(PASSWORD), old, "{release:?}");
        }
    }

    #[test]
    fn a_hash_that_is_spelt_otherwise_is_refused() {
        let auth = auth_hash(Release(4, 2), SECRET, &[]);
        for hash in [
            "",
            &SHA256.to_uppercase(),
            &SHA256[..63],
            &format!("{SHA256} "),
            &"0".repeat(64),
        ] {
            assert!(!auth.verify(PASSWORD, hash), "{hash}");
        }
        assert!(!auth.verify("", SHA256));
        assert!(!format!("{auth:?}").contains(SECRET));
    }

    proptest! {
        #[test]
        fn an_integer_key_never_panics(id: String) {
            let _ = integer_key(&id);
        }

        #[test]
        fn an_integer_is_its_own_key(number: i64) {
            prop_assert_eq!(integer_key(&number.to_string()), Some(number));
        }
    }
}
