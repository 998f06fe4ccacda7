//! Reading the files that the configuration names, and knowing them again.

use std::{cell::RefCell, fs, io, path::Path};

use sha2::{Digest, Sha256};

/// What a configuration was made from, in one number: its own file and all those that it names. Never shown, because a
/// secret that can be guessed could be told from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint(redacted)")
    }
}

/// Reads files and takes their fingerprint.
#[derive(Default)]
pub(super) struct Files(RefCell<Sha256>);

impl Files {
    /// Reads a file of at most `most` bytes, which is no pipe: that would make the start hang.
    pub(super) fn read(&self, path: &Path, most: u64, too_large: &str) -> io::Result<Vec<u8>> {
        let read = || {
            let metadata = fs::metadata(path)?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            if metadata.len() > most {
                return Err(io::Error::other(too_large));
            }
            fs::read(path)
        };
        let found = read();
        self.note(path, found.as_deref().ok());
        found
    }

    /// Takes in what was found at a path; `None` for nothing.
    pub(super) fn note(&self, path: &Path, found: Option<&[u8]>) {
        let mut digest = self.0.borrow_mut();
        let path = path.as_os_str().as_encoded_bytes();
        for part in [Some(path), found] {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_le_bytes());
            digest.update(part.unwrap_or_default());
        }
    }

    /// Of all that was read so far.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.0.borrow().clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_all_paths_and_contents() {
        let of = |files: &[(&str, Option<&[u8]>)]| {
            let noted = Files::default();
            for (path, found) in files {
                noted.note(Path::new(path), *found);
            }
            noted.fingerprint()
        };
        let all = [
            of(&[]),
            of(&[("a", None)]),
            of(&[("a", Some(b""))]),
            of(&[("a", Some(b"b"))]),
            of(&[("ab", Some(b""))]),
            of(&[("a", Some(b"b")), ("c", None)]),
            of(&[("a", Some(b"b")), ("c", Some(b"d"))]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
        assert!(of(&[("a", Some(b"b"))]) == all[3]);
    }
}
