//! Certificates and private keys in PEM files (RFC 7468).

use std::path::Path;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{item::Value, secrets};

/// A bundle of all public authorities has about 250 KiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What a file holds.
pub struct Read<T> {
    /// It.
    pub found: T,
    /// Of the file: the same one holds the same.
    pub digest: [u8; 32],
}

/// The certificates of a file, at least one.
pub fn certificates(value: &Value<'_>, file: &Path) -> Option<Read<Vec<CertificateDer<'static>>>> {
    let too_large = "it is larger than 4 MiB";
    let bytes = match value.context.files.read(file, MAX_FILE, too_large) {
        Ok(bytes) => bytes,
        Err(error) => {
            value.problem(format!("{} cannot be read: {error}", file.display()), None);
            return None;
        }
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Some(Read {
            found,
            digest: Sha256::digest(&bytes).into(),
        }),
        _ => {
            let why = format!("{} has no certificate in PEM", file.display());
            value.problem(why, None);
            None
        }
    }
}

/// The key of the file that is named by a text.
pub fn private_key(value: &Value<'_>) -> Option<Read<PrivateKeyDer<'static>>> {
    let file = value.text("the path of a file")?;
    let secret = secrets::from_file(value)?.secret?;
    // What the parser says could quote the file.
    let Ok(found) = PrivateKeyDer::from_pem_slice(secret.expose()) else {
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        let why = match secret.expose().starts_with(encrypted) {
            true => format!("{file} is encrypted, and nobody is there to type its password"),
            false => format!("{file} has no private key in PEM"),
        };
        value.problem(why, None);
        return None;
    };
    Some(Read {
        found,
        digest: Sha256::digest(secret.expose()).into(),
    })
}
