//! The public keys by which receivers check EdDSA tokens: a JWK set (RFC 7517, 5; RFC 8037, 2).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;

use crate::json;

/// The media type of a JWK set (RFC 7517, 8.5.2).
pub const MEDIA_TYPE: &str = "application/jwk-set+json";

/// The JSON text of these keys, each with its `kid`. The order has no meaning to receivers.
pub fn jwks<'a>(keys: impl IntoIterator<Item = (&'a str, &'a VerifyingKey)>) -> String {
    let mut out = String::from("{\"keys\":[");
    for (index, (kid, public_key)) in keys.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":");
        json::quote(&mut out, kid);
        out.push_str(",\"use\":\"sig\",\"alg\":\"EdDSA\",\"x\":\"");
        URL_SAFE_NO_PAD.encode_string(public_key.as_bytes(), &mut out);
        out.push_str("\"}");
    }
    out.push_str("]}");
    out
}
