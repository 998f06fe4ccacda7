//! base64url without padding (RFC 4648, section 5) into room of just its length, by the best instructions of the
//! processor: a token is made for each request.

use std::sync::LazyLock;

use base64::Engine;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use base64::engine::Simd as Best;
use base64::engine::general_purpose::NO_PAD;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENGINE: LazyLock<Best> = LazyLock::new(|| Best::url_safe(NO_PAD));

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENGINE: LazyLock<base64::engine::GeneralPurpose> =
    LazyLock::new(|| base64::engine::GeneralPurpose::new(&base64::alphabet::URL_SAFE, NO_PAD));

/// The length of so many bytes when they are encoded.
pub const fn length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Encodes into `room`, which is as long as [`length`] says.
pub fn put(bytes: &[u8], room: &mut [u8]) {
    let written = ENGINE.encode_slice(bytes, room);
    debug_assert_eq!(written, Ok(length(bytes.len())));
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_usual_encoding_whatever_the_length(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let mut room = vec![0; length(bytes.len())];
            put(&bytes, &mut room);
            prop_assert_eq!(String::from_utf8(room).unwrap(), URL_SAFE_NO_PAD.encode(&bytes));
        }
    }
}
