//! The header of the PROXY protocol, versions 1 and 2.
//!
//! Input: the first bytes of a connection.

use std::net::IpAddr;

use session_gateway::server::proxy::{Client, LONGEST, Parsed, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Runs the target.
pub fn check(input: &[u8]) {
    let input = &input[..input.len().min(LONGEST)];
    let parsed = parse(input);
    match (&parsed, header(input)) {
        (Parsed::Header { length, client }, expected) => {
            assert!(*length <= input.len());
            assert_eq!(
                Some((*length, client)),
                expected.as_ref().map(|all| (all.0, &all.1))
            );
        }
        (_, Some(expected)) => panic!("{parsed:?}, not {expected:?}"),
        (Parsed::Incomplete, None) => assert!(can_go_on(input), "nothing that can follow helps"),
        (Parsed::Invalid, None) => {}
    }
    // However a header comes in pieces, it is read as it would be in one.
    for end in ends(input.len()) {
        match (parse(&input[..end]), &parsed) {
            (Parsed::Incomplete, Parsed::Header { length, .. }) => assert!(end < *length),
            (Parsed::Incomplete, _) => {}
            (before, whole) => assert_eq!(before, *whole, "after {end} bytes"),
        }
    }
}

/// The ends of the pieces to try.
fn ends(length: usize) -> impl Iterator<Item = usize> {
    (0..length.min(128)).chain((128..length).step_by(61))
}

/// A header's length, and whose connection it is.
type Header = (usize, Option<Client>);

/// What HAProxy's doc/proxy-protocol.txt makes of bytes that hold a whole header.
fn header(input: &[u8]) -> Option<Header> {
    match input.starts_with(SIGNATURE) {
        true => version_2(input),
        false => version_1(input),
    }
}

/// Whether more bytes could make a header of these, as far as one need look.
fn can_go_on(input: &[u8]) -> bool {
    let begins = |other: &[u8]| input.iter().zip(other).all(|(one, other)| one == other);
    let is_line = begins(b"PROXY") && input.len() < 107;
    let has_end = input.windows(2).any(|pair| pair == b"\r\n");
    input.len() < LONGEST && (begins(SIGNATURE) || (is_line && !has_end))
}

/// Section 2.1: one line of at most 107 bytes.
fn version_1(input: &[u8]) -> Option<Header> {
    let line = &input[..input.len().min(107)];
    let end = line.windows(2).position(|pair| pair == b"\r\n")?;
    let text = String::from_utf8_lossy(&line[..end]);
    let words: Vec<&str> = text.split(' ').collect();
    let client = match &words[..] {
        // What follows is to be ignored.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, from, to, port, other] => {
            let (from, to): (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
            let is_right = match *family {
                "TCP4" => from.is_ipv4() && to.is_ipv4(),
                "TCP6" => from.is_ipv6() && to.is_ipv6(),
                _ => false,
            };
            if !is_right || !is_port(port) || !is_port(other) {
                return None;
            }
            Some(Client {
                address: Some(from.to_canonical()),
                encrypted: false,
            })
        }
        _ => return None,
    };
    Some((end + 2, client))
}

fn is_port(text: &str) -> bool {
    let number = text.parse::<u16>();
    number.is_ok_and(|number| number.to_string() == text)
}

/// Section 2.2.
fn version_2(input: &[u8]) -> Option<Header> {
    let [command, second, high, low] = *input.get(12..)?.first_chunk()?;
    let (family, protocol) = (second >> 4, second & 15);
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses = [0, 12, 36, 216].get(usize::from(family))?;
    if ![0x20, 0x21].contains(&command) || protocol > 2 || length < *addresses {
        return None;
    }
    let told = input.get(16..16 + length)?;
    let address: Option<IpAddr> = match family {
        1 => <[u8; 4]>::try_from(&told[..4]).ok().map(IpAddr::from),
        2 => <[u8; 16]>::try_from(&told[..16]).ok().map(IpAddr::from),
        _ => None,
    };
    let is_told = command == 0x21 && family != 0;
    let client = is_told.then(|| Client {
        address: address.map(|address| address.to_canonical()),
        encrypted: is_encrypted(&told[*addresses..]),
    });
    Some((16 + length, client))
}

/// PP2_TYPE_SSL with PP2_CLIENT_SSL among the extensions; after a broken one comes nothing.
fn is_encrypted(mut extensions: &[u8]) -> bool {
    while let [kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, rest)) = rest.split_at_checked(length) else {
            return false;
        };
        if *kind == 0x20 && value.first().is_some_and(|flags| flags & 1 == 1) {
            return true;
        }
        extensions = rest;
    }
    false
}
