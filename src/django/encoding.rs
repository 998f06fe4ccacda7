//! base64 and zlib as Python's modules read and write them.

use std::{cell::RefCell, iter};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::payload::Unreadable;

/// Python's base64 decoder does not mind bits that are left over in the last digit.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// `signing.b64_decode`: padding as the length asks for it, then Python's decoder, which after the
/// translation of `-` and `_` knows both alphabets.
pub(super) fn decode_base64_url(text: &str) -> Result<Vec<u8>, Unreadable> {
    // What Django writes; anything else takes the slow way.
    if let Ok(bytes) = BASE64_URL.decode(text) {
        return Ok(bytes);
    }
    let padding = text.len().wrapping_neg() % 4;
    let translated = text.bytes().map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    });
    decode_like_python(translated.chain(iter::repeat_n(b'=', padding)))
}

/// `base64.b64decode` of a text. Text outside ASCII, which Django 1.11 alone read, is refused.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, Unreadable> {
    if !text.is_ascii() {
        return Err(Unreadable::Malformed);
    }
    decode_like_python(text.bytes())
}

/// `binascii.a2b_base64`: what is not of the alphabet is skipped, padding that completes four digits
/// ends the text, and what then makes no whole group of digits is an error.
fn decode_like_python(text: impl Iterator<Item = u8>) -> Result<Vec<u8>, Unreadable> {
    let mut digits = Vec::with_capacity(text.size_hint().0);
    let mut padding = 0;
    let mut complete = false;
    for byte in text {
        match byte {
            b'=' if digits.len() % 4 >= 2 => {
                padding += 1;
                if digits.len() % 4 + padding >= 4 {
                    complete = true;
                    break;
                }
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                digits.push(byte);
                padding = 0;
            }
            _ => {}
        }
    }
    if !complete && digits.len() % 4 != 0 {
        return Err(Unreadable::Malformed);
    }
    BASE64.decode(digits).map_err(|_| Unreadable::Malformed)
}

/// `zlib.decompress` with a limit: one whole stream (RFC 1950) with its checksum; what follows it is
/// ignored.
pub(super) fn inflate(compressed: &[u8], limit: usize) -> Result<Vec<u8>, Unreadable> {
    let mut decompress = Decompress::new(true);
    let most = limit.saturating_add(1);
    // Session JSON rarely shrinks below a quarter.
    let mut payload = Vec::with_capacity(compressed.len().saturating_mul(4).clamp(1, most));
    loop {
        let consumed = decompress.total_in() as usize;
        let before = payload.len();
        let input = compressed.get(consumed..).unwrap_or_default();
        let status = decompress.decompress_vec(input, &mut payload, FlushDecompress::None);
        let status = status.map_err(|_| Unreadable::Malformed)?;
        if payload.len() > limit {
            return Err(Unreadable::TooLarge);
        }
        if status == Status::StreamEnd {
            return Ok(payload);
        }
        let room = payload.capacity() > payload.len();
        if room && payload.len() == before && decompress.total_in() as usize == consumed {
            return Err(Unreadable::Malformed);
        }
        if !room {
            // Never room for more than the limit and the one byte that proves it passed.
            let more = payload.capacity().min(most - payload.len());
            payload.reserve_exact(more);
        }
    }
}

/// `zlib.compress`, or `None` where the stream would be longer than the payload.
pub(super) fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    // With no more room than this the stream ends only if it is short enough to be of use.
    let mut compressed = Vec::with_capacity(payload.len());
    let status = COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        compress.compress_vec(payload, &mut compressed, FlushCompress::Finish)
    });
    matches!(status, Ok(Status::StreamEnd)).then_some(compressed)
}

thread_local! {
    /// A stream's state is 300 KiB: to make one costs more than to deflate a session of usual size.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::default(), true));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_knows_nothing_of_the_one_before() {
        let texts = [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            r#"{"user": "secret", "b": "secret"}"#,
        ];
        let incompressible: Vec<u8> = (0..=255).collect();
        for text in texts {
            let fresh = std::thread::spawn(|| deflate(text.as_bytes()))
                .join()
                .unwrap();
            for before in texts
                .map(str::as_bytes)
                .into_iter()
                .chain([&incompressible[..]])
            {
                deflate(before);
                assert_eq!(deflate(text.as_bytes()), fresh);
            }
        }
    }

    #[test]
    fn base64_is_read_as_leniently_as_python_reads_it() {
        // Python: urlsafe_b64decode(text + "=" * (-len(text) % 4)), b64decode(text)
        type Decoded = Option<&'static [u8]>;
        let table: [(&str, Decoded, Decoded); 26] = [
            ("", Some(b""), Some(b"")),
            ("YQ", Some(b"a"), None),
            ("YR", Some(b"a"), None),
            ("YWI", Some(b"ab"), None),
            ("YWJj", Some(b"abc"), Some(b"abc")),
            ("YQ==", Some(b"a"), Some(b"a")),
            ("YQ=", Some(b"a"), None),
            ("Y", None, None),
            ("Y===", None, None),
            ("YWJj\nZA", None, None),
            ("YW Jj", Some(b"abc"), Some(b"abc")),
            ("Y W Jj", Some(b"abc"), Some(b"abc")),
            ("-_-_", Some(b"\xfb\xff\xbf"), Some(b"")),
            ("+/+/", Some(b"\xfb\xff\xbf"), Some(b"\xfb\xff\xbf")),
            ("-/+_", Some(b"\xfb\xff\xbf"), None),
            ("YQ==YQ==", Some(b"a"), Some(b"a")),
            ("YQ=YQ", Some(b"a\x06\x10"), Some(b"a\x06\x10")),
            ("Y=Q", None, None),
            ("=YQ", None, None),
            ("YWI=YWI=", Some(b"ab"), Some(b"ab")),
            ("YWJjZ", None, None),
            ("é", Some(b""), None),
            ("éYQ", None, None),
            ("====", Some(b""), Some(b"")),
            ("YWJj=", Some(b"abc"), Some(b"abc")),
            ("Y:Q", None, None),
        ];
        for (text, url, standard) in table {
            assert_eq!(decode_base64_url(text).ok().as_deref(), url, "{text:?}");
            assert_eq!(decode_base64(text).ok().as_deref(), standard, "{text:?}");
        }
    }

    #[test]
    fn only_a_whole_zlib_stream_with_its_checksum_is_read() {
        let stream = deflate(br#"{"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#).unwrap();
        let inflated = inflate(&stream, 1024).unwrap();
        assert_eq!(inflated.len(), 45);
        assert_eq!(
            inflate(&[&*stream, b"ignored"].concat(), 1024),
            Ok(inflated)
        );
        for end in 0..stream.len() {
            assert_eq!(
                inflate(&stream[..end], 1024),
                Err(Unreadable::Malformed),
                "{end}"
            );
        }
        for at in stream.len() - 4..stream.len() {
            let mut broken = stream.clone();
            broken[at] ^= 1;
            assert_eq!(inflate(&broken, 1024), Err(Unreadable::Malformed), "{at}");
        }
        assert_eq!(inflate(b"not zlib", 1024), Err(Unreadable::Malformed));
    }

    proptest! {
        #[test]
        fn nothing_inflated_panics_or_passes_the_limit(
            header in prop_oneof![Just(&b"\x78\x9c"[..]), Just(&b""[..])],
            tail: Vec<u8>,
            limit in 0..200_usize,
        ) {
            if let Ok(payload) = inflate(&[header, &tail].concat(), limit) {
                prop_assert!(payload.len() <= limit);
            }
        }
    }
}
