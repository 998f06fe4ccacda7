//! Rows of `django_session`, written and read with a second implementation of Django's signing, so that the
//! tests do not ask the gateway's own code whether it is right.

use std::io::Read as _;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use flate2::read::ZlibDecoder;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::SECRET_KEY;

/// The password column of the users that the tests make.
pub const PASSWORD: &str = "pbkdf2_sha256$1$salt$hash-of-the-tests";

/// `session_data` of a session. The timestamp is long ago: Django ignores it in rows.
pub fn seal(secret_key: &str, payload: &[u8]) -> String {
    let signed = format!("{}:1r31eq", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let signature = sign(secret_key, &signed);
    format!("{signed}:{signature}")
}

/// The same by a session store of this name: Django's is `SessionStore`.
pub fn seal_by(store: &str, secret_key: &str, payload: &[u8]) -> String {
    let signed = format!("{}:1r31eq", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let salt = format!("django.contrib.sessions.{store}signer");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac(&salt, secret_key, &signed));
    format!("{signed}:{signature}")
}

/// JSON as Python's `json.dumps` spells it: without a byte over 127.
pub fn ascii(session: &Value) -> String {
    let spell = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    session.to_string().encode_utf16().map(spell).collect()
}

/// The session of a row that is signed with this key.
pub fn open(secret_key: &str, row: &str) -> Value {
    let signed = is_signed(secret_key, row);
    let (body, _timestamp) = signed.rsplit_once(':').unwrap();
    let json = match body.strip_prefix('.') {
        None => BASE64_URL_SAFE_NO_PAD.decode(body).unwrap(),
        Some(compressed) => {
            let mut json = Vec::new();
            let compressed = BASE64_URL_SAFE_NO_PAD.decode(compressed).unwrap();
            ZlibDecoder::new(&compressed[..])
                .read_to_end(&mut json)
                .unwrap();
            json
        }
    };
    assert!(json.is_ascii(), "Django reads rows as latin-1");
    serde_json::from_slice(&json).unwrap()
}

/// What Django's `login` puts into a session.
pub fn login(user_id: &str, session: Value) -> Value {
    login_with(PASSWORD, user_id, session)
}

/// The same for a user with this `password` column.
pub fn login_with(password: &str, user_id: &str, session: Value) -> Value {
    let salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";
    let hash: String = mac(salt, SECRET_KEY, password)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut session = session;
    session["_auth_user_id"] = json!(user_id);
    session["_auth_user_backend"] = json!("django.contrib.auth.backends.ModelBackend");
    session["_auth_user_hash"] = json!(hash);
    session
}

/// Checks a row's signature, and gives what is signed.
pub fn is_signed<'a>(secret_key: &str, row: &'a str) -> &'a str {
    let (signed, signature) = row.rsplit_once(':').unwrap();
    let expected = sign(secret_key, signed);
    assert_eq!(signature, expected, "the row is signed with SECRET_KEY");
    signed
}

fn sign(secret_key: &str, signed: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(mac(
        "django.contrib.sessions.SessionStoresigner",
        secret_key,
        signed,
    ))
}

/// `django.utils.crypto.salted_hmac` with SHA-256.
fn mac(salt: &str, secret_key: &str, message: &str) -> Vec<u8> {
    let key = Sha256::digest([salt.as_bytes(), secret_key.as_bytes()].concat());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
